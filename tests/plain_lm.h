/*
 * plain_lm.h - the forward pass of every architecture, written to be read
 *
 * An implementation of its own in doubles: whole matrices decoded, full
 * attention, no cache, no blocks, no threads. Of the program it takes the
 * model file's numbers and its tensors by name; what is made of them stands in
 * plain_kinds.c, where a new architecture is a row of the table.
 */
#ifndef SL_TESTS_PLAIN_LM_H
#define SL_TESTS_PLAIN_LM_H

#include "src/model/modelfile.h"

struct plain_lm;

/* Reads a whole model file; fails the test on an error, and where there is
 * nothing here for its architecture. */
struct plain_lm *plain_lm_open(const char *path);
void plain_lm_close(struct plain_lm *m);

/* logits: (n, vocab) of all positions. Query i sees key j when j <= i or
 * j < n_context. blocks: second positions of a 2-D model, else NULL. */
void plain_lm_forward(struct plain_lm *m, double *logits, const int32_t *ids,
                      const int32_t *positions, const int32_t *blocks,
                      uint32_t n, uint32_t n_context);
/* Whether its prompts are read with n_context = 0. */
bool plain_lm_causal(const struct plain_lm *m);
/* The name of a tensor that no pass has read so far, NULL: all were. */
const char *plain_lm_unread(const struct plain_lm *m);

/* Makes of sizes those of a model that the architecture can be: hidden or
 * head_dim are adapted, what a config.json would say is filled in, for either
 * of two models that differ. hp is not derived, before or after. Fails the
 * test where there is nothing here for the architecture. */
#define PLAIN_LM_VARIANTS 2u
void plain_lm_vary(struct sl_hparams *hp, const char *arch, unsigned variant);

#endif
