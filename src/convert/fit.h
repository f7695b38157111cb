/*
 * fit.h - how a checkpoint fits an architecture
 *
 * Every tensor that the architecture wants, and every tensor that the
 * checkpoint has, held against each other by name, type and shape.
 */
#ifndef SL_FIT_H
#define SL_FIT_H

#include <stdbool.h>
#include <stddef.h>

#include "src/arch/arch.h"
#include "src/ckpt/ckpt.h"

struct sl_fit_list {
    char **text; /* owned */
    size_t n;
};

struct sl_fit {
    /* What is missing or of a wrong type or shape, a sentence each with file,
     * tensor and numbers: the checkpoint cannot be converted. */
    struct sl_fit_list problems;
    enum sl_code code; /* of the first problem */
    /* Names of tensors that nothing uses. */
    struct sl_fit_list unknown;
    /* Names of tensors that a model is known not to need: what is computed,
     * buffers, what was set aside. */
    struct sl_fit_list ignored;
};

/* Errors: SL_ERR_NOMEM. */
int sl_fit_check(struct sl_fit *fit, const struct sl_ckpt *c,
                 const struct sl_arch *arch, const struct sl_hparams *hp,
                 struct sl_error *err);
void sl_fit_fini(struct sl_fit *fit); /* a zeroed one is fine */

/* Fails when there are problems: with the one, or with their number and the
 * first, all of them up to ten said to log. Warns of unknown tensors. what
 * names the checkpoint. */
int sl_fit_report(const struct sl_fit *fit, const char *what,
                  const struct sl_log *log, struct sl_error *err);

/* Whether a tensor is of no use to any model: rotary frequencies, causal
 * masks kept as buffers, and the prefix of P-Tuning, which is given apart. */
bool sl_fit_ignores(const char *name);

#endif
