/*
 * inspect.h - what a model file says of itself, as JSON
 *
 * Between cmd_inspect.c and inspect_json.c.
 */
#ifndef SL_INSPECT_H
#define SL_INSPECT_H

#include <jansson.h>

#include "src/model/modelfile.h"

/* "f16", "int8", "int4-g64": the format of a matrix; a row-wise scale has no
 * suffix, one per N-th of a row has "-tpN". Returns buf. */
#define SL_FORMAT_TEXT 32
char *sl_inspect_format(char buf[SL_FORMAT_TEXT],
                        const struct sl_model_matrix *m);

const char *
sl_inspect_type(enum sl_ggml_type type); /* "F32" "F16" "BF16" "I8" */

/* Bytes of the file by purpose; they add up to file_bytes. */
struct sl_inspect_parts {
    uint64_t header, small, scales, layers, head, tokenizer;
};

struct sl_inspect_parts sl_inspect_parts(const struct sl_modelfile *mf);

/* Weights and the bits that they and their scales take: of the matrices of
 * the layers, or of the head. */
struct sl_inspect_bits {
    uint64_t n_weights;
    uint64_t bits;
};

struct sl_inspect_bits sl_inspect_bits(const struct sl_modelfile *mf,
                                       bool head);

/* Bytes that a position takes in a cache of FP16, of all layers. */
uint64_t sl_inspect_kv_bytes(const struct sl_hparams *hp);
/* What the MLP's inner values are put through. */
enum sl_act_fn sl_inspect_activation(const struct sl_modelfile *mf);

/* Everything there is to say; NULL when there is no memory. */
json_t *sl_inspect_json(const struct sl_modelfile *mf);

#endif
