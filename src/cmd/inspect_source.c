#include "config.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "src/arch/settings.h"
#include "src/base/bytes.h"
#include "src/base/json.h"
#include "src/base/mem.h"
#include "src/base/tame.h"
#include "src/ckpt/ckpt_kind.h"
#include "src/cmd/inspect_source.h"
#include "src/convert/convert.h"
#include "src/convert/fit.h"

enum { NAMED = 10 }; /* of a list, before the rest is counted */

struct source {
    const char *path;
    struct sl_ckpt ckpt;
    struct sl_settings *settings; /* NULL: no config.json */
    uint64_t bytes;               /* of all files */
    size_t n_files;
    size_t n_tensors;
    /* What convert would make of it. */
    const struct sl_arch *arch; /* NULL: nothing, for the reason in why */
    struct sl_hparams hp;
    struct sl_error why;
    struct sl_fit fit;
};

bool sl_inspect_is_source(const char *path)
{
    const struct sl_ckpt_kind *kind;
    char why[SL_CKPT_WHY];
    struct stat st;

    if (stat(path, &st) != 0)
        return false;
    for (size_t i = 0; (kind = sl_ckpt_kind_at(i)) != NULL; i++)
        if (kind->look(why, path))
            return true;
    return S_ISDIR(st.st_mode);
}

/* Files that tensors lie in; parts of an archive count one by one. */
static void count_files(struct source *s)
{
    for (size_t r = 0; r < s->ckpt.n_shards; r++) {
        const struct sl_ckpt_shard *shard = &s->ckpt.shards[r];

        s->n_tensors += shard->n_tensors;
        s->n_files += shard->n_srcs;
        for (size_t i = 0; i < shard->n_srcs; i++)
            s->bytes += sl_src_bytes(shard->srcs[i]);
    }
}

/* The config.json beside the tensors; NULL where there is none. */
static int read_settings(struct source *s, struct sl_error *err)
{
    uint8_t *data;
    size_t n;
    int rc = sl_ckpt_read_file(&s->ckpt, "config.json", &data, &n, err);

    if (rc != 0)
        return rc < 0 ? -1 : 0;
    rc = sl_settings_parse(&s->settings, (const char *)data, n, "config.json",
                           err);
    free(data);
    return rc;
}

/* What stands in the way of converting is part of the answer. */
static int look_at_model(struct source *s, struct sl_error *err)
{
    struct sl_convert_options o;
    int rc = read_settings(s, &s->why);

    sl_convert_options_init(&o);
    o.source = s->path;
    if (rc == 0)
        rc = sl_convert_describe(&s->arch, &s->hp, &s->ckpt, &o, &s->why);
    if (rc == 0)
        return sl_fit_check(&s->fit, &s->ckpt, s->arch, &s->hp, err);
    if (s->why.code != SL_ERR_NOMEM)
        return 0;
    *err = s->why;
    return -1;
}

static int source_open(struct source *s, const char *path, struct sl_error *err)
{
    static const struct sl_log log = {sl_log_stderr, NULL, SL_LOG_WARN};

    *s = (struct source){.path = path};
    if (sl_ckpt_open(&s->ckpt, path, &log, err) != 0)
        return -1;
    count_files(s);
    return look_at_model(s, err);
}

static void source_close(struct source *s)
{
    sl_fit_fini(&s->fit);
    sl_settings_close(s->settings);
    if (s->ckpt.impl != NULL)
        sl_ckpt_close(&s->ckpt);
}

static uint64_t tensor_bytes(const struct sl_ckpt_tensor *t)
{
    uint64_t n = sl_dtype_bytes(t->dtype);

    for (uint32_t i = 0; i < t->n_dims; i++)
        n *= t->shape[i];
    return n / sl_dtype_block_values(t->dtype);
}

/* "architecture" and the like, in front of what is said of it. */
static void print_line(const char *what)
{
    printf("  %-14s ", what);
}

static void print_types(const struct source *s)
{
    size_t n[SL_DT_COUNT] = {0};
    const char *comma = "";

    for (size_t r = 0; r < s->ckpt.n_shards; r++)
        for (size_t i = 0; i < s->ckpt.shards[r].n_tensors; i++)
            n[s->ckpt.shards[r].tensors[i].dtype]++;
    print_line("tensors");
    printf("%zu (", s->n_tensors);
    for (int t = 0; t < SL_DT_COUNT; t++) {
        if (n[t] == 0)
            continue;
        printf("%s%zu %s", comma, n[t], sl_dtype_short((enum sl_dtype)t));
        comma = ", ";
    }
    printf(")\n");
}

static void print_list(const char *what, const struct sl_fit_list *list)
{
    for (size_t i = 0; i < list->n && i < NAMED; i++) {
        print_line(i == 0 ? what : "");
        printf("%s\n", SL_TAMED(list->text[i]));
    }
    if (list->n > NAMED) {
        print_line("");
        printf("and %zu more\n", list->n - NAMED);
    }
}

static void print_convert(const struct source *s)
{
    print_line("convert");
    if (s->arch == NULL) {
        printf("refuses it: %s\n", s->why.msg);
        return;
    }
    printf("%s %s: %u layer%s, hidden %u, %u heads of %u, vocabulary %u",
           s->fit.problems.n > 0 ? "refuses it, taken for" : "makes of it",
           s->arch->name, s->hp.n_layers, s->hp.n_layers == 1 ? "" : "s",
           s->hp.hidden, s->hp.n_heads, s->hp.head_dim, s->hp.vocab);
    if (s->hp.n_experts > 0)
        printf(", %u of %u experts a layer", s->hp.n_experts_used,
               s->hp.n_experts);
    putchar('\n');
    print_list("problems", &s->fit.problems);
    print_list("unknown", &s->fit.unknown);
    if (s->fit.ignored.n == 0)
        return;
    print_line("not needed");
    printf("%zu tensors, %s the first\n", s->fit.ignored.n,
           SL_TAMED(s->fit.ignored.text[0]));
}

static void print_summary(const struct source *s)
{
    const char *name =
        s->settings != NULL ? sl_settings_architecture(s->settings) : "";
    const char *type =
        s->settings != NULL ? sl_settings_model_type(s->settings) : "";
    char size[SL_SIZE_TEXT];

    printf("%s (%s)\n\n", SL_TAMED(s->path), sl_size_format(size, s->bytes));
    print_line("kind");
    printf("%s: %s\n", s->ckpt.kind->name, s->ckpt.kind->what);
    print_line("files");
    printf("%zu", s->n_files);
    if (s->ckpt.n_shards > 1)
        printf(", in %zu shards of a tensor-parallel model", s->ckpt.n_shards);
    if (s->ckpt.iteration[0] != '\0')
        printf(", of iteration %s", SL_TAMED(s->ckpt.iteration));
    printf("\n");
    print_line("architecture");
    if (*name == '\0' && *type == '\0')
        printf("not named: %s\n", s->settings != NULL
                                      ? "config.json does not say"
                                      : "there is no config.json");
    else
        printf("%s%s%s%s\n", SL_TAMED(*name != '\0' ? name : type),
               *name != '\0' && *type != '\0' ? " (" : "",
               SL_TAMED(*name != '\0' ? type : ""),
               *name != '\0' && *type != '\0' ? ")" : "");
    print_types(s);
    print_convert(s);
}

static void format_shape(char to[128], const struct sl_ckpt_tensor *t)
{
    size_t n = 0;

    snprintf(to, 128, "scalar");
    for (uint32_t i = 0; i < t->n_dims && n < 100; i++)
        n += (size_t)snprintf(to + n, 128 - n, "%s%" PRIu64, i > 0 ? " x " : "",
                              t->shape[i]);
}

static void print_tensors(const struct source *s)
{
    int width = 6;

    for (size_t r = 0; r < s->ckpt.n_shards; r++)
        for (size_t i = 0; i < s->ckpt.shards[r].n_tensors; i++) {
            int n = (int)strlen(s->ckpt.shards[r].tensors[i].name);

            width = n > width ? n : width;
        }
    for (size_t r = 0; r < s->ckpt.n_shards; r++) {
        const struct sl_ckpt_shard *shard = &s->ckpt.shards[r];

        printf("\n%s\n%-*s  %-7s %21s %13s %14s\n", SL_TAMED(shard->file),
               width, "tensor", "type", "shape", "bytes", "offset");
        for (size_t i = 0; i < shard->n_tensors; i++) {
            const struct sl_ckpt_tensor *t = &shard->tensors[i];
            struct sl_src_place at = sl_src_where(t->src, t->off);
            char shape[128];

            format_shape(shape, t);
            printf("%-*s  %-7s %21s %13" PRIu64 " %14" PRIu64 "%s%s\n", width,
                   SL_TAMED(t->name), sl_dtype_short(t->dtype), shape,
                   tensor_bytes(t), at.off, shard->n_srcs > 1 ? "  " : "",
                   shard->n_srcs > 1 ? SL_TAMED(sl_src_name(t->src)) : "");
        }
    }
}

/* A string that may not be UTF-8. */
static json_t *string(const char *s)
{
    json_t *v = json_string(s);

    return v != NULL ? v : json_null();
}

static json_t *strings(const struct sl_fit_list *list)
{
    json_t *a = json_array();

    for (size_t i = 0; i < list->n; i++)
        json_array_append_new(a, string(list->text[i]));
    return a;
}

static json_t *tensor_json(const struct sl_ckpt_tensor *t, size_t shard)
{
    struct sl_src_place at = sl_src_where(t->src, t->off);
    json_t *shape = json_array();

    for (uint32_t i = 0; i < t->n_dims; i++)
        json_array_append_new(shape, json_integer((json_int_t)t->shape[i]));
    return json_pack("{s:o, s:s, s:o, s:I, s:I, s:o, s:I}", "name",
                     string(t->name), "type", sl_dtype_short(t->dtype), "shape",
                     shape, "bytes", (json_int_t)tensor_bytes(t), "shard",
                     (json_int_t)shard, "file", string(at.file), "offset",
                     (json_int_t)at.off);
}

static json_t *tensors_json(const struct sl_ckpt *c)
{
    json_t *a = json_array();

    for (size_t r = 0; r < c->n_shards; r++)
        for (size_t i = 0; i < c->shards[r].n_tensors; i++)
            json_array_append_new(a, tensor_json(&c->shards[r].tensors[i], r));
    return a;
}

static json_t *convert_json(const struct source *s)
{
    bool refused = s->arch == NULL || s->fit.problems.n > 0;
    struct sl_fit_list why = {(char *[]){(char *)s->why.msg}, 1};

    return json_pack("{s:o, s:b, s:o, s:o, s:o}", "architecture",
                     s->arch != NULL ? string(s->arch->name) : json_null(),
                     "refused", refused, "problems",
                     strings(s->arch != NULL ? &s->fit.problems : &why),
                     "unknown", strings(&s->fit.unknown), "not_needed",
                     strings(&s->fit.ignored));
}

static int print_json(const struct source *s, struct sl_error *err)
{
    const struct sl_settings *c = s->settings;
    json_t *o = json_pack(
        "{s:o, s:s, s:o, s:o, s:o, s:I, s:I, s:I, s:I, s:o, s:o}", "file",
        string(s->path), "kind", s->ckpt.kind->name, "architecture",
        c != NULL ? string(sl_settings_architecture(c)) : json_null(),
        "model_type",
        c != NULL ? string(sl_settings_model_type(c)) : json_null(),
        "iteration", string(s->ckpt.iteration), "n_shards",
        (json_int_t)s->ckpt.n_shards, "n_files", (json_int_t)s->n_files,
        "file_bytes", (json_int_t)s->bytes, "n_tensors",
        (json_int_t)s->n_tensors, "convert", convert_json(s), "tensors",
        tensors_json(&s->ckpt));

    return sl_json_print(stdout, o, JSON_INDENT(1), err);
}

int sl_inspect_source(const char *path, struct sl_inspect_how how,
                      struct sl_error *err)
{
    struct source s;
    int rc = source_open(&s, path, err);

    if (rc == 0 && how.json) {
        rc = print_json(&s, err);
    } else if (rc == 0) {
        print_summary(&s);
        if (how.tensors)
            print_tensors(&s);
    }
    source_close(&s);
    return rc;
}
