/*
 * metrics.h - scores of answers (THUDM/GLM-130B evaluation/metrics.py)
 */
#ifndef SL_EVAL_METRICS_H
#define SL_EVAL_METRICS_H

#include <stddef.h>
#include <stdint.h>

#include "src/base/error.h"
#include "src/base/str.h"

/* Appends a text as answers are compared: in lower case, without ASCII
 * punctuation, a, an and the, and with single blanks (SQuAD's rule). Errors:
 * SL_ERR_NOMEM. */
int sl_metric_normalise(struct sl_str *to, const char *text, size_t n,
                        struct sl_error *err);

/* 1 where both are the same, once normalised, else 0; overlap of words, 0 to
 * 1. The best over all targets is the caller's. Errors: SL_ERR_NOMEM. */
int sl_metric_exact(double *score, const char *said, const char *target,
                    struct sl_error *err);
int sl_metric_f1(double *score, const char *said, const char *target,
                 struct sl_error *err);

/* exp(min(20, loss / n)). */
double sl_metric_ppl(double loss, double n);

/* Expected calibration error over ten bins of equal width (Guo et al. 2017):
 * the mean distance between confidence (0 to 1) and share of right answers. */
double sl_metric_ece(const double *confidence, const uint8_t *right, size_t n);

/* McNemar's exact test: the probability of so uneven a split of the
 * only_a + only_b examples that one of two got right alone, two-sided. */
double sl_metric_mcnemar(size_t only_a, size_t only_b);

/* The 95 % interval of the mean of n differences, by n_draws paired bootstrap
 * samples from a seed. Errors: SL_ERR_NOMEM. */
int sl_metric_bootstrap(double *low, double *high, const double *differences,
                        size_t n, size_t n_draws, uint64_t seed,
                        struct sl_error *err);

#endif
