/*
 * plain_glm.h - GLM-130B's forward pass, written to be read, in doubles
 *
 * An implementation of its own, from demo/reference.py alone: whole matrices
 * decoded to doubles, full attention, no cache, no blocks, no threads. What the
 * executor is checked against for shapes that no golden file has (2-D
 * positions, no GLU, odd sizes).
 */
#ifndef SL_TESTS_PLAIN_GLM_H
#define SL_TESTS_PLAIN_GLM_H

#include "src/model/modelfile.h"

struct plain_glm;

/* Reads a whole model file; fails the test on an error. */
struct plain_glm *plain_glm_open(const char *path);
void plain_glm_close(struct plain_glm *g);
const struct sl_hparams *plain_glm_hparams(const struct plain_glm *g);

/* logits: (n, vocab) of all positions. Query i sees key j when j <= i or
 * j < n_context. blocks: second positions of a 2-D model, else NULL. */
void plain_glm_forward(const struct plain_glm *g, double *logits,
                       const int32_t *ids, const int32_t *positions,
                       const int32_t *blocks, uint32_t n, uint32_t n_context);

#endif
