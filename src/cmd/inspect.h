/*
 * inspect.h - what a model file says of itself
 *
 * The sums that cmd_inspect.c and inspect_json.c print (inspect_parts.c), and
 * the JSON.
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
    uint64_t header, small, scales, layers, experts, head, tokenizer;
};

struct sl_inspect_parts sl_inspect_parts(const struct sl_modelfile *mf);

enum sl_inspect_kind {
    SL_INSPECT_LAYERS,  /* what every position needs of the layers */
    SL_INSPECT_EXPERTS, /* that a router chooses among */
    SL_INSPECT_HEAD,    /* and embeddings */
};

bool sl_inspect_is(const struct sl_model_matrix *m, enum sl_inspect_kind kind);

/* Weights and the bits that they and their scales take. */
struct sl_inspect_bits {
    uint64_t n_weights;
    uint64_t bits;
};

struct sl_inspect_bits sl_inspect_bits(const struct sl_modelfile *mf,
                                       enum sl_inspect_kind kind);

/* Bytes that a position takes in a cache of FP16, of all layers. */
uint64_t sl_inspect_kv_bytes(const struct sl_hparams *hp);
/* What the MLP's inner values are put through. */
enum sl_act_fn sl_inspect_activation(const struct sl_modelfile *mf);

/* Everything there is to say; NULL when there is no memory. */
json_t *sl_inspect_json(const struct sl_modelfile *mf);

#endif
