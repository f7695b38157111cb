/*
 * deepnorm.h - what GLM-130B and ChatGLM-6B have in common
 *
 * The residual is the normed input, times alpha = sqrt(2 layers): DeepNorm.
 * Layer norms, biases everywhere, rotation of halves, q, k and v by head.
 *
 *   a = norm(x);  b = norm(alpha a + W_o att(a));  x = alpha b + mlp(b)
 *
 * (SwissArmyTransformer 0.2.12 model/official/glm130b_model.py,
 * THUDM/chatglm-6b modeling_chatglm.py)
 */
#ifndef SL_DEEPNORM_H
#define SL_DEEPNORM_H

#include "src/arch/arch.h"

/* A layer's tensors; a gate's halves are one matrix where hp->glu. */
#define SL_DEEPNORM_LAYER_ROWS 12u
extern const struct sl_tensor_row
    sl_deepnorm_layer_rows[SL_DEEPNORM_LAYER_ROWS];

/* The operations: with a gate under GELU, else GELU by tanh. */
const struct sl_layer_table *sl_deepnorm_layers(const struct sl_hparams *hp);

/* The fixed part of hp. */
void sl_deepnorm_derive(struct sl_hparams *hp);

#endif
