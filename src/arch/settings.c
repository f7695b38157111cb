#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "src/arch/settings.h"
#include "src/base/json.h"
#include "src/base/mem.h"

#define MAX_FILE_BYTES (16u << 20)
#define KEY_BYTES      128 /* of one alternative */

struct sl_settings {
    char *file;
    json_t *root;
};

int sl_settings_parse(struct sl_settings **s, const char *text, size_t n,
                      const char *file, struct sl_error *err)
{
    struct sl_settings *made;
    json_t *root = NULL;

    if (sl_json_parse(&root, text, n, file, err) != 0)
        return -1;
    if (!json_is_object(root)) {
        sl_fail(err, SL_ERR_CORRUPT, "%s: holds %s; an object is expected",
                file, sl_json_kind(root));
        json_decref(root);
        return -1;
    }
    made = sl_zalloc_array(1, sizeof *made);
    if (made != NULL)
        made->file = strdup(file);
    if (made == NULL || made->file == NULL) {
        free(made);
        json_decref(root);
        return sl_fail(err, SL_ERR_NOMEM, "%s: no memory to read it", file);
    }
    made->root = root;
    *s = made;
    return 0;
}

/* All of a file of at most MAX_FILE_BYTES. */
static int read_file(char **text, size_t *n, FILE *f, const char *path,
                     struct sl_error *err)
{
    struct stat st;
    char *made;

    if (fstat(fileno(f), &st) != 0)
        return sl_fail_os(err, errno, "%s: cannot stat", path);
    if (!S_ISREG(st.st_mode))
        return sl_fail(err, SL_ERR_IO, "%s: not a regular file", path);
    if (st.st_size > (off_t)MAX_FILE_BYTES)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "%s: %lld bytes; settings have %u at most", path,
                       (long long)st.st_size, MAX_FILE_BYTES);
    made = sl_alloc_array((size_t)st.st_size + 1, 1);
    if (made == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "%s: no memory to read it", path);
    *n = fread(made, 1, (size_t)st.st_size, f);
    if (ferror(f)) {
        free(made);
        return sl_fail_os(err, errno, "%s: cannot read", path);
    }
    *text = made;
    return 0;
}

int sl_settings_open(struct sl_settings **s, const char *path,
                     struct sl_error *err)
{
    FILE *f = fopen(path, "rbe");
    char *text = NULL;
    size_t n = 0;
    int rc;

    if (f == NULL)
        return sl_fail_os(err, errno, "%s: cannot open", path);
    rc = read_file(&text, &n, f, path, err);
    fclose(f);
    if (rc == 0)
        rc = sl_settings_parse(s, text, n, path, err);
    free(text);
    return rc;
}

void sl_settings_close(struct sl_settings *s)
{
    if (s == NULL)
        return;
    json_decref(s->root);
    free(s->file);
    free(s);
}

const char *sl_settings_file(const struct sl_settings *s)
{
    return s->file;
}

/* Goes down a dotted path; NULL where it ends early. */
static const json_t *reach(const json_t *at, const char *path)
{
    char key[KEY_BYTES];

    while (at != NULL) {
        size_t n = strcspn(path, ".");

        snprintf(key, sizeof key, "%.*s", (int)n, path);
        at = json_object_get(at, key);
        if (path[n] == '\0')
            break;
        path += n + 1;
    }
    return at;
}

/* The same, and NULL where it ends in null. */
static const json_t *follow(const json_t *at, const char *path)
{
    at = reach(at, path);
    return json_is_null(at) ? NULL : at;
}

/* The first alternative that is said, and its name in key. */
static const json_t *find(char key[KEY_BYTES], const struct sl_settings *s,
                          const char *keys)
{
    for (;;) {
        size_t n = strcspn(keys, "|");
        const json_t *v;

        snprintf(key, KEY_BYTES, "%.*s", (int)n, keys);
        v = follow(s->root, key);
        if (v != NULL || keys[n] == '\0')
            return v;
        keys += n + 1;
    }
}

/* *v: what is said, NULL: nothing, which fails where it is required; a value
 * must be of a kind, and wanted says which. */
static int look_for(const json_t **v, const struct sl_settings *s,
                    const char *keys, enum sl_setting need,
                    bool (*is)(const json_t *v), const char *wanted,
                    struct sl_error *err)
{
    char key[KEY_BYTES];

    *v = find(key, s, keys);
    if (*v == NULL && need == SL_SETTING_OPTIONAL)
        return 0;
    if (*v == NULL)
        return sl_fail(
            err, SL_ERR_CORRUPT, "%s: does not say %s%s", s->file, keys,
            strchr(keys, '|') != NULL ? " (one of these names must be there)"
                                      : "");
    return is(*v) ? 0 : sl_json_bad_value(err, s->file, key, *v, wanted);
}

bool sl_settings_has(const struct sl_settings *s, const char *keys)
{
    char key[KEY_BYTES];

    return find(key, s, keys) != NULL;
}

bool sl_settings_null(const struct sl_settings *s, const char *key)
{
    return json_is_null(reach(s->root, key));
}

static bool is_count(const json_t *v)
{
    return json_is_integer(v) && json_integer_value(v) >= 0 &&
           json_integer_value(v) <= INT32_MAX;
}

static bool is_number(const json_t *v)
{
    return json_is_number(v) && isfinite(json_number_value(v));
}

static bool is_truth(const json_t *v)
{
    return json_is_boolean(v);
}

static bool is_text(const json_t *v)
{
    return json_is_string(v);
}

int sl_settings_u32(uint32_t *v, const struct sl_settings *s, const char *keys,
                    enum sl_setting need, struct sl_error *err)
{
    const json_t *x;
    int rc = look_for(&x, s, keys, need, is_count,
                      "a whole number from 0 to 2147483647", err);

    if (rc == 0 && x != NULL)
        *v = (uint32_t)json_integer_value(x);
    return rc;
}

int sl_settings_f64(double *v, const struct sl_settings *s, const char *keys,
                    enum sl_setting need, struct sl_error *err)
{
    const json_t *x;
    int rc = look_for(&x, s, keys, need, is_number, "a number", err);

    if (rc == 0 && x != NULL)
        *v = json_number_value(x);
    return rc;
}

int sl_settings_bool(bool *v, const struct sl_settings *s, const char *keys,
                     enum sl_setting need, struct sl_error *err)
{
    const json_t *x;
    int rc = look_for(&x, s, keys, need, is_truth, "true or false", err);

    if (rc == 0 && x != NULL)
        *v = json_is_true(x);
    return rc;
}

int sl_settings_string(const char **v, const struct sl_settings *s,
                       const char *keys, enum sl_setting need,
                       struct sl_error *err)
{
    const json_t *x;
    int rc = look_for(&x, s, keys, need, is_text, "a string", err);

    if (rc == 0 && x != NULL)
        *v = json_string_value(x);
    return rc;
}

const char *sl_settings_architecture(const struct sl_settings *s)
{
    const char *name = json_string_value(
        json_array_get(json_object_get(s->root, "architectures"), 0));

    return name != NULL ? name : "";
}

const char *sl_settings_model_type(const struct sl_settings *s)
{
    const char *name =
        json_string_value(json_object_get(s->root, "model_type"));

    return name != NULL ? name : "";
}

int sl_settings_check_quantised(const struct sl_settings *s,
                                struct sl_error *err)
{
    const json_t *q = follow(s->root, "quantization_config");
    const char *method = "an unnamed scheme";

    if (q == NULL)
        q = follow(s->root, "compression_config");
    if (q == NULL)
        return 0;
    if (json_is_string(json_object_get(q, "quant_method")))
        method = json_string_value(json_object_get(q, "quant_method"));
    return sl_fail(err, SL_ERR_UNSUPPORTED,
                   "%s: the weights are quantised (quantization_config: "
                   "%.40s), which is not read; take the release in BF16, F16 "
                   "or F32, and quantise it here",
                   s->file, method);
}
