/*
 * gguf_index.h - what a parsed GGUF header holds, between its parser
 * (gguf_read.c) and its queries (gguf.c)
 */
#ifndef SL_GGUF_INDEX_H
#define SL_GGUF_INDEX_H

#include "src/model/gguf.h"

struct sl_gguf_value {
    char *key;
    uint32_t type;
    size_t off; /* of the value, in the file */
    union {
        uint64_t u; /* integers (two's complement) and bool */
        double f;
        char *s;
    };
    uint32_t item_type; /* of arrays */
    size_t n;
    bool negative;  /* an array holds a number below zero */
    uint64_t *u64;  /* integer arrays */
    float *f32;     /* arrays of F32 */
    char **strings; /* string arrays */
};

struct sl_gguf {
    struct sl_gguf_value *values;
    size_t n_values;
    struct sl_gguf_value **by_key; /* sorted */
    struct sl_gguf_tensor *tensors;
    size_t n_tensors;
    struct sl_gguf_tensor **by_name; /* sorted */
    uint64_t data_off;
    uint64_t end;
    uint32_t alignment;
};

/* Sorts keys or names for finding them, and refuses doubles.
 * Errors: SL_ERR_CORRUPT, SL_ERR_NOMEM. */
int sl_gguf_index_values(struct sl_gguf *g, struct sl_error *err);
int sl_gguf_index_tensors(struct sl_gguf *g, struct sl_error *err);

static inline bool sl_gguf_is_signed(uint32_t type)
{
    return type == SL_GGUF_I8 || type == SL_GGUF_I16 || type == SL_GGUF_I32 ||
           type == SL_GGUF_I64;
}

static inline bool sl_gguf_is_integer(uint32_t type)
{
    return type <= SL_GGUF_I32 || type == SL_GGUF_U64 || type == SL_GGUF_I64;
}

#endif
