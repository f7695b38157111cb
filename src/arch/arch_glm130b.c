#include "config.h"

#include <stdio.h>

#include "src/arch/arch.h"

/* The tensors of GLM-130B: names and shapes from SAT's GLM130B class
 * (SwissArmyTransformer model/official/glm130b_model.py, transformer.py), the
 * split from THUDM/GLM-130B tools/convert_tp.py. */

enum { VECTORS_A_LAYER = 8, MATRICES_A_LAYER = 4, FINAL_VECTORS = 2 };

struct row {
    const char *leaf;
    enum sl_split split;
    /* rows = r_hidden * hidden + r_inner * inner, cols the same */
    uint8_t r_hidden, r_inner, c_hidden, c_inner;
    enum sl_op op;
};

/* A GLU doubles the rows of dense_h_to_4h; see fill. */
static const struct row layer_vectors[VECTORS_A_LAYER] = {
    {"input_layernorm.weight", SL_SPLIT_NONE, 1, 0, 0, 0, SL_OP_COUNT},
    {"input_layernorm.bias", SL_SPLIT_NONE, 1, 0, 0, 0, SL_OP_COUNT},
    {"attention.query_key_value.bias", SL_SPLIT_ROWS, 3, 0, 0, 0, SL_OP_QKV},
    {"attention.dense.bias", SL_SPLIT_NONE, 1, 0, 0, 0, SL_OP_ATTN_OUT},
    {"post_attention_layernorm.weight", SL_SPLIT_NONE, 1, 0, 0, 0, SL_OP_COUNT},
    {"post_attention_layernorm.bias", SL_SPLIT_NONE, 1, 0, 0, 0, SL_OP_COUNT},
    {"mlp.dense_h_to_4h.bias", SL_SPLIT_GLU, 0, 1, 0, 0, SL_OP_MLP_IN},
    {"mlp.dense_4h_to_h.bias", SL_SPLIT_NONE, 1, 0, 0, 0, SL_OP_MLP_OUT},
};

static const struct row layer_matrices[MATRICES_A_LAYER] = {
    {"attention.query_key_value.weight", SL_SPLIT_ROWS, 3, 0, 1, 0, SL_OP_QKV},
    {"attention.dense.weight", SL_SPLIT_COLS, 1, 0, 1, 0, SL_OP_ATTN_OUT},
    {"mlp.dense_h_to_4h.weight", SL_SPLIT_GLU, 0, 1, 1, 0, SL_OP_MLP_IN},
    {"mlp.dense_4h_to_h.weight", SL_SPLIT_COLS, 1, 0, 0, 1, SL_OP_MLP_OUT},
};

static void fill(struct sl_tensor_spec *s, const struct sl_hparams *hp,
                 const struct row *row, uint32_t layer, bool matrix)
{
    bool glu = row->split == SL_SPLIT_GLU;

    *s = (struct sl_tensor_spec){
        .role = matrix ? SL_ROLE_LINEAR : SL_ROLE_VECTOR,
        .split = glu && !hp->glu ? SL_SPLIT_ROWS : row->split,
        .rows = row->r_hidden * hp->hidden + row->r_inner * hp->inner,
        .cols = row->c_hidden * hp->hidden + row->c_inner * hp->inner,
        .n_segments = 1,
        .stage = -1,
        .op = row->op,
        .layer = layer,
    };
    if (glu && hp->glu) {
        s->rows *= 2;
        s->n_segments = 2;
    }
    if (matrix)
        s->stage = (int)(2 * layer + (row->op >= SL_OP_MLP_IN));
    else
        s->cols = 1;
    snprintf(s->name, sizeof s->name, "transformer.layers.%u.%s", layer,
             row->leaf);
}

static bool glm130b_tensor(struct sl_tensor_spec *s,
                           const struct sl_hparams *hp, uint32_t i)
{
    uint32_t n_vectors = hp->n_layers * VECTORS_A_LAYER;
    uint32_t n_matrices = hp->n_layers * MATRICES_A_LAYER;

    if (i < n_vectors) {
        fill(s, hp, &layer_vectors[i % VECTORS_A_LAYER], i / VECTORS_A_LAYER,
             false);
        return true;
    }
    i -= n_vectors;
    if (i < FINAL_VECTORS) {
        *s = (struct sl_tensor_spec){
            .role = SL_ROLE_VECTOR,
            .rows = hp->hidden,
            .cols = 1,
            .n_segments = 1,
            .stage = -1,
            .op = SL_OP_HEAD,
            .layer = hp->n_layers,
        };
        snprintf(s->name, sizeof s->name, "transformer.final_layernorm.%s",
                 i == 0 ? "weight" : "bias");
        return true;
    }
    i -= FINAL_VECTORS;
    if (i < n_matrices) {
        fill(s, hp, &layer_matrices[i % MATRICES_A_LAYER], i / MATRICES_A_LAYER,
             true);
        return true;
    }
    if (i > n_matrices)
        return false;
    *s = (struct sl_tensor_spec){
        .name = "transformer.word_embeddings.weight",
        .role = SL_ROLE_EMBED,
        .split = SL_SPLIT_ROWS,
        .rows = hp->vocab,
        .cols = hp->hidden,
        .n_segments = 1,
        .stage = (int)(2 * hp->n_layers),
        .op = SL_OP_HEAD,
        .layer = hp->n_layers,
    };
    return true;
}

static uint32_t glm130b_n_stages(const struct sl_hparams *hp)
{
    return 2 * hp->n_layers + 1;
}

static void glm130b_stage_name(char name[SL_STAGE_NAME],
                               const struct sl_hparams *hp, uint32_t stage)
{
    if (stage == 2 * hp->n_layers)
        snprintf(name, SL_STAGE_NAME, "head");
    else
        snprintf(name, SL_STAGE_NAME, "layer %u %s", stage / 2,
                 stage % 2 ? "mlp" : "attention");
}

const struct sl_arch sl_arch_glm130b = {
    .name = "glm130b",
    .n_stages = glm130b_n_stages,
    .stage_name = glm130b_stage_name,
    .tensor = glm130b_tensor,
};
