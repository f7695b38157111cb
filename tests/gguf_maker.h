/*
 * gguf_maker.h - GGUF files as others publish them, made to order
 *
 * Metadata first, then tensors, then gguf_finish. Whatever goes wrong fails
 * the test.
 */
#ifndef SL_TESTS_GGUF_MAKER_H
#define SL_TESTS_GGUF_MAKER_H

#include "tests/ckpt_maker.h"

struct gguf_maker { /* zeroed to begin with */
    struct maker_buf keys, infos, data;
    uint64_t n_keys, n_tensors;
};

void gguf_u32(struct gguf_maker *m, const char *key, uint32_t v);
void gguf_f32(struct gguf_maker *m, const char *key, float v);
void gguf_bool(struct gguf_maker *m, const char *key, bool v);
void gguf_string(struct gguf_maker *m, const char *key, const char *v);
void gguf_strings(struct gguf_maker *m, const char *key, const char *const *v,
                  size_t n);
void gguf_i32s(struct gguf_maker *m, const char *key, const int32_t *v,
               size_t n);
void gguf_f32s(struct gguf_maker *m, const char *key, const float *v, size_t n);
/* rows 0: a vector of cols values. */
void gguf_tensor(struct gguf_maker *m, const char *name, uint32_t type,
                 uint64_t rows, uint64_t cols, const void *data, size_t bytes);
/* The file's bytes (free); m is emptied. */
uint8_t *gguf_finish(struct gguf_maker *m, size_t *n);

/* Bytes of a file's header: its data begins there. */
size_t gguf_header_bytes(const uint8_t *data, size_t n);

/* A llama of 2 layers of 32 values, 2 heads, 1 of keys, vocabulary 48, with a
 * small byte-level vocabulary and weights of type: F32 0, F16 1 or Q8_0 8, or
 * any other that is read, then of bytes without a meaning (but finite), and
 * eight times as wide where blocks have 256 columns.
 * Part `part` of `n_parts`; 1: not split. */
struct tiny_llama {
    uint32_t type;
    unsigned part, n_parts;
    const char *arch;    /* NULL: "llama" */
    const char *pre;     /* NULL: "gpt-2" */
    uint32_t up_type;    /* of blk.0.ffn_up; 0: as the others */
    uint32_t n_tokens;   /* 0: 48 */
    bool nan_scale;      /* in the last matrix of blocks */
    uint32_t other_type; /* of blk.1.ffn_down; 0: as the others */
    uint32_t total;      /* split.tensors.count; 0: the right one */
};
uint8_t *tiny_llama_file(const struct tiny_llama *t, size_t *n);

#endif
