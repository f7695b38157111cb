#include "config.h"

#include <stdio.h>
#include <string.h>

#include "src/base/json.h"
#include "src/serve/body.h"

static int look_over(const char *text, size_t n, struct sl_refusal *why)
{
    /* A value has up to two signs, and the first none. */
    switch (
        sl_json_measure(text, n, SL_BODY_DEPTH, 2 * SL_BODY_VALUES + 1, NULL)) {
    case SL_JSON_TOO_DEEP:
        return sl_refuse(why, 400, NULL, "the body nests deeper than %u levels",
                         SL_BODY_DEPTH);
    case SL_JSON_TOO_MANY:
        return sl_refuse(why, 413, NULL, "the body has more than %u values",
                         SL_BODY_VALUES);
    case SL_JSON_FITS:
        break;
    }
    return 0;
}

int sl_body_parse(json_t **root, const char *text, size_t n,
                  struct sl_refusal *why)
{
    json_error_t bad;
    json_t *v;

    if (n == 0)
        return sl_refuse(why, 400, NULL,
                         "the request has no body; a JSON object is expected");
    if (look_over(text, n, why) != 0)
        return -1;
    v = json_loadb(text, n, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &bad);
    if (v == NULL)
        return sl_refuse(why, 400, NULL,
                         "the body is no JSON: line %d, column %d: %s",
                         bad.line, bad.column, bad.text);
    if (!json_is_object(v)) {
        sl_refuse(why, 400, NULL, "the body is %s; a JSON object is expected",
                  sl_json_kind(v));
        json_decref(v);
        return -1;
    }
    *root = v;
    return 0;
}

json_t *sl_body_get(const json_t *o, const char *name)
{
    json_t *v = json_object_get(o, name);

    return v == NULL || json_is_null(v) ? NULL : v;
}

int sl_body_wrong(struct sl_refusal *why, const char *name, const json_t *v,
                  const char *wanted)
{
    char *text = json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT);
    int rc;

    if (text == NULL || strlen(text) > 60)
        rc = sl_refuse(why, 400, name, "'%s' is %s; %s is expected", name,
                       sl_json_kind(v), wanted);
    else
        rc = sl_refuse(why, 400, name, "'%s' is %s; %s is expected", name, text,
                       wanted);
    free(text);
    return rc;
}

int sl_body_bool(bool *v, const json_t *o, const char *name,
                 struct sl_refusal *why)
{
    const json_t *f = sl_body_get(o, name);

    if (f == NULL)
        return 0;
    if (!json_is_boolean(f))
        return sl_body_wrong(why, name, f, "true or false");
    *v = json_is_true(f);
    return 0;
}

int sl_body_int(int64_t *v, const json_t *o, const char *name, int64_t min,
                int64_t max, struct sl_refusal *why)
{
    const json_t *f = sl_body_get(o, name);
    double real = json_is_real(f) ? json_real_value(f) : 0;
    int64_t got;
    char wanted[96];

    if (f == NULL)
        return 0;
    /* "n": 1.0 is what some clients' serialisers make of 1 */
    got = json_is_integer(f) ? json_integer_value(f) : 0;
    if (json_is_real(f) && real >= -9e15 && real <= 9e15 &&
        real == (double)(int64_t)real)
        got = (int64_t)real;
    else if (!json_is_integer(f))
        got = min - (min > INT64_MIN);
    if (got >= min && got <= max) {
        *v = got;
        return 0;
    }
    snprintf(wanted, sizeof wanted, "a whole number from %lld to %lld",
             (long long)min, (long long)max);
    return sl_body_wrong(why, name, f, wanted);
}

int sl_body_real(double *v, const json_t *o, const char *name, double min,
                 double max, struct sl_refusal *why)
{
    const json_t *f = sl_body_get(o, name);
    char wanted[96];

    if (f == NULL)
        return 0;
    if (json_is_number(f) && json_number_value(f) >= min &&
        json_number_value(f) <= max) {
        *v = json_number_value(f);
        return 0;
    }
    snprintf(wanted, sizeof wanted, "a number from %g to %g", min, max);
    return sl_body_wrong(why, name, f, wanted);
}

int sl_body_string(const char **v, size_t *n, const json_t *o, const char *name,
                   struct sl_refusal *why)
{
    const json_t *f = sl_body_get(o, name);

    if (f == NULL)
        return 0;
    if (!json_is_string(f))
        return sl_body_wrong(why, name, f, "a string");
    *v = json_string_value(f);
    if (n != NULL)
        *n = json_string_length(f);
    else if (memchr(*v, '\0', json_string_length(f)) != NULL)
        return sl_refuse(why, 400, name, "'%s' has a zero byte in it", name);
    return 0;
}

int sl_body_ids(struct sl_ids *ids, const json_t *list, const char *name,
                uint32_t vocab, struct sl_refusal *why)
{
    struct sl_error err;
    const json_t *v;
    size_t i;

    if (!json_is_array(list))
        return sl_body_wrong(why, name, list, "a list of token ids");
    json_array_foreach(list, i, v)
    {
        json_int_t id = json_integer_value(v);

        if (!json_is_integer(v) || id < 0 || id >= (json_int_t)vocab) {
            char wanted[80];

            snprintf(wanted, sizeof wanted, "token ids from 0 to %u",
                     vocab - 1);
            return sl_body_wrong(why, name, v, wanted);
        }
        if (sl_ids_add(ids, (int32_t)id, &err) != 0)
            return sl_refuse_error(why, name, &err);
    }
    return 0;
}
