/*
 * arch_models.h - small models of every architecture
 *
 * Odd sizes, keys that no, some and all heads share, heads that do not divide
 * the hidden size, tied and untied heads, as far as the architecture can be
 * so; each in the two variants of plain_lm.h.
 */
#ifndef SL_TESTS_ARCH_MODELS_H
#define SL_TESTS_ARCH_MODELS_H

#include "tests/model_maker.h"
#include "tests/plain_lm.h"

#define ARCH_MODELS (4 * PLAIN_LM_VARIANTS)
#define ARCH_PATH   1100u

/* The n-th model of an architecture, in FP32. */
struct test_model arch_model(const struct sl_arch *arch, size_t n);
/* Its hyper-parameters, derived. */
struct sl_hparams arch_hparams(const struct sl_arch *arch, size_t n);
/* Its file in a folder, which takes the place of the one before; returns
 * path. */
const char *arch_model_write(char path[ARCH_PATH], const char *folder,
                             const struct test_model *m);

#endif
