#include "config.h"

#include "src/arch/deepnorm.h"

/* GLM-130B: DeepNorm, GEGLU, rotation of whole heads, one matrix for embedding
 * and head. Names and shapes from SAT's GLM130B class (SwissArmyTransformer
 * model/official/glm130b_model.py, transformer.py), the split from
 * THUDM/GLM-130B tools/convert_tp.py. */

static const struct sl_tensor_row model_rows[] = {
    SL_VECTOR(SL_SLOT_FINAL_NORM, "transformer.final_layernorm.weight",
              SL_SPLIT_NONE, SL_DIM_HIDDEN),
    SL_VECTOR(SL_SLOT_FINAL_NORM_BIAS, "transformer.final_layernorm.bias",
              SL_SPLIT_NONE, SL_DIM_HIDDEN),
    SL_MATRIX(SL_SLOT_HEAD, "transformer.word_embeddings.weight", SL_SPLIT_ROWS,
              SL_DIM_VOCAB, SL_DIM_HIDDEN),
};

static const char *const marks[] = {"transformer.word_embeddings.weight", NULL};

const struct sl_arch sl_arch_glm130b = {
    .name = "glm130b",
    .what = "GLM-130B",
    .marks = marks,
    SL_ROWS(sl_deepnorm_layer_rows, model_rows),
    .derive = sl_deepnorm_derive,
    .layers = sl_deepnorm_layers,
};
