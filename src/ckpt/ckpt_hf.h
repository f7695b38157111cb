/*
 * ckpt_hf.h - the index of a Hugging Face checkpoint in several files
 *
 *     {"metadata": {...}, "weight_map": {"TENSOR": "FILE", ...}}
 *
 * For ckpt_hf.c, and for tests and fuzzers.
 */
#ifndef SL_CKPT_HF_H
#define SL_CKPT_HF_H

#include "src/base/error.h"
#include "src/base/json.h"

struct sl_hf_index {
    json_t *root;       /* owned */
    json_t *map;        /* borrowed from root: tensor to file */
    const char **files; /* once each, sorted; the names borrowed from root */
    size_t n_files;
};

/* file is for messages. Every file named is one of the same folder: a name
 * without a slash that begins with no dot. Errors: SL_ERR_CORRUPT,
 * SL_ERR_NOMEM. */
int sl_hf_index_parse(struct sl_hf_index *x, const char *text, size_t n,
                      const char *file, struct sl_error *err);
void sl_hf_index_fini(struct sl_hf_index *x);

#endif
