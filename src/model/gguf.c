#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "src/base/mem.h"
#include "src/model/gguf_index.h"

static int compare_values(const void *a, const void *b)
{
    const struct sl_gguf_value *const *x = a, *const *y = b;

    return strcmp((*x)->key, (*y)->key);
}

static int compare_tensors(const void *a, const void *b)
{
    const struct sl_gguf_tensor *const *x = a, *const *y = b;

    return strcmp((*x)->name, (*y)->name);
}

int sl_gguf_index_values(struct sl_gguf *g, struct sl_error *err)
{
    g->by_key = sl_alloc_array(g->n_values, sizeof(struct sl_gguf_value *));
    if (g->by_key == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory for %zu metadata keys",
                       g->n_values);
    for (size_t i = 0; i < g->n_values; i++)
        g->by_key[i] = &g->values[i];
    qsort(g->by_key, g->n_values, sizeof(struct sl_gguf_value *),
          compare_values);
    for (size_t i = 1; i < g->n_values; i++) {
        if (compare_values(&g->by_key[i - 1], &g->by_key[i]) == 0)
            return sl_fail(err, SL_ERR_CORRUPT,
                           "metadata '%s' is there more than once",
                           g->by_key[i]->key);
    }
    return 0;
}

int sl_gguf_index_tensors(struct sl_gguf *g, struct sl_error *err)
{
    g->by_name = sl_alloc_array(g->n_tensors, sizeof(struct sl_gguf_tensor *));
    if (g->by_name == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory for %zu tensors",
                       g->n_tensors);
    for (size_t i = 0; i < g->n_tensors; i++)
        g->by_name[i] = &g->tensors[i];
    qsort(g->by_name, g->n_tensors, sizeof(struct sl_gguf_tensor *),
          compare_tensors);
    for (size_t i = 1; i < g->n_tensors; i++) {
        if (compare_tensors(&g->by_name[i - 1], &g->by_name[i]) == 0)
            return sl_fail(err, SL_ERR_CORRUPT,
                           "tensor %s is there more than once",
                           g->by_name[i]->name);
    }
    return 0;
}

void sl_gguf_destroy(struct sl_gguf *g)
{
    if (g == NULL)
        return;
    for (size_t i = 0; i < g->n_values; i++) {
        struct sl_gguf_value *v = &g->values[i];

        if (v->type == SL_GGUF_STRING)
            free(v->s);
        for (size_t k = 0; v->strings != NULL && k < v->n; k++)
            free(v->strings[k]);
        free(v->strings);
        free(v->u64);
        free(v->f32);
        free(v->key);
    }
    for (size_t i = 0; i < g->n_tensors; i++)
        free(g->tensors[i].name);
    free(g->values);
    free(g->tensors);
    free(g->by_key);
    free(g->by_name);
    free(g);
}

size_t sl_gguf_n_tensors(const struct sl_gguf *g)
{
    return g->n_tensors;
}

const struct sl_gguf_tensor *sl_gguf_tensor_at(const struct sl_gguf *g,
                                               size_t i)
{
    return i < g->n_tensors ? &g->tensors[i] : NULL;
}

const struct sl_gguf_tensor *sl_gguf_find(const struct sl_gguf *g,
                                          const char *name)
{
    size_t lo = 0, hi = g->n_tensors;

    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        int order = strcmp(g->by_name[mid]->name, name);

        if (order == 0)
            return g->by_name[mid];
        if (order < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return NULL;
}

uint64_t sl_gguf_data_off(const struct sl_gguf *g)
{
    return g->data_off;
}

uint64_t sl_gguf_end(const struct sl_gguf *g)
{
    return g->end;
}

uint32_t sl_gguf_alignment(const struct sl_gguf *g)
{
    return g->alignment;
}

static const struct sl_gguf_value *find_value(const struct sl_gguf *g,
                                              const char *key)
{
    size_t lo = 0, hi = g->n_values;

    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        int order = strcmp(g->by_key[mid]->key, key);

        if (order == 0)
            return g->by_key[mid];
        if (order < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return NULL;
}

bool sl_gguf_has(const struct sl_gguf *g, const char *key)
{
    return find_value(g, key) != NULL;
}

size_t sl_gguf_value_off(const struct sl_gguf *g, const char *key)
{
    const struct sl_gguf_value *v = find_value(g, key);

    return v != NULL ? v->off : 0;
}

/* Returns NULL, with err filled, when the key is absent. */
static const struct sl_gguf_value *get(const struct sl_gguf *g, const char *key,
                                       struct sl_error *err)
{
    const struct sl_gguf_value *v = find_value(g, key);

    if (v == NULL)
        sl_fail(err, SL_ERR_CORRUPT, "metadata '%s' is missing", key);
    return v;
}

static int wrong_type(const char *key, const char *what, struct sl_error *err)
{
    return sl_fail(err, SL_ERR_CORRUPT, "metadata '%s' is not %s", key, what);
}

int sl_gguf_get_u64(const struct sl_gguf *g, const char *key, uint64_t *v,
                    struct sl_error *err)
{
    const struct sl_gguf_value *x = get(g, key, err);

    if (x == NULL)
        return -1;
    if (!sl_gguf_is_integer(x->type) ||
        (sl_gguf_is_signed(x->type) && (int64_t)x->u < 0))
        return wrong_type(key, "a whole number from 0 on", err);
    *v = x->u;
    return 0;
}

int sl_gguf_get_i64(const struct sl_gguf *g, const char *key, int64_t *v,
                    struct sl_error *err)
{
    const struct sl_gguf_value *x = get(g, key, err);

    if (x == NULL)
        return -1;
    if (!sl_gguf_is_integer(x->type) ||
        (!sl_gguf_is_signed(x->type) && x->u > INT64_MAX))
        return wrong_type(key, "a whole number of 64 bits", err);
    *v = (int64_t)x->u;
    return 0;
}

int sl_gguf_get_f64(const struct sl_gguf *g, const char *key, double *v,
                    struct sl_error *err)
{
    const struct sl_gguf_value *x = get(g, key, err);

    if (x == NULL)
        return -1;
    if (x->type != SL_GGUF_F32 && x->type != SL_GGUF_F64)
        return wrong_type(key, "a floating-point number", err);
    *v = x->f;
    return 0;
}

int sl_gguf_get_bool(const struct sl_gguf *g, const char *key, bool *v,
                     struct sl_error *err)
{
    const struct sl_gguf_value *x = get(g, key, err);

    if (x == NULL)
        return -1;
    if (x->type != SL_GGUF_BOOL)
        return wrong_type(key, "true or false", err);
    *v = x->u != 0;
    return 0;
}

int sl_gguf_get_string(const struct sl_gguf *g, const char *key, const char **v,
                       struct sl_error *err)
{
    const struct sl_gguf_value *x = get(g, key, err);

    if (x == NULL)
        return -1;
    if (x->type != SL_GGUF_STRING)
        return wrong_type(key, "a string", err);
    *v = x->s;
    return 0;
}

int sl_gguf_get_u64_array(const struct sl_gguf *g, const char *key,
                          const uint64_t **v, size_t *n, struct sl_error *err)
{
    const struct sl_gguf_value *x = get(g, key, err);

    if (x == NULL)
        return -1;
    if (x->type != SL_GGUF_ARRAY || x->u64 == NULL || x->negative)
        return wrong_type(key, "an array of whole numbers from 0 on", err);
    *v = x->u64;
    *n = x->n;
    return 0;
}

int sl_gguf_get_f32_array(const struct sl_gguf *g, const char *key,
                          const float **v, size_t *n, struct sl_error *err)
{
    const struct sl_gguf_value *x = get(g, key, err);

    if (x == NULL)
        return -1;
    if (x->type != SL_GGUF_ARRAY || x->f32 == NULL)
        return wrong_type(key, "an array of floating-point numbers", err);
    *v = x->f32;
    *n = x->n;
    return 0;
}

int sl_gguf_get_string_array(const struct sl_gguf *g, const char *key,
                             const char *const **v, size_t *n,
                             struct sl_error *err)
{
    const struct sl_gguf_value *x = get(g, key, err);

    if (x == NULL)
        return -1;
    if (x->type != SL_GGUF_ARRAY || x->strings == NULL)
        return wrong_type(key, "an array of strings", err);
    *v = (const char *const *)x->strings;
    *n = x->n;
    return 0;
}
