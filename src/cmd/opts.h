/*
 * opts.h - how commands take their options
 *
 * Each parses its own with argp, through sl_parse_args, and takes those that
 * several share as children of its own: opts_run.h (a run's model, memory and
 * ways to compute), opts_shape.h (of a model), opts_draft.h, opts_sampling.h. A
 * bad value is a usage error that names the option: argp_error, which does not
 * return (exit 2).
 */
#ifndef SL_OPTS_H
#define SL_OPTS_H

#include <argp.h>
#include <stddef.h>
#include <stdint.h>

#include "src/cmd/command.h"

/* Every command's argp_parse goes through here: usage errors are one line and
 * end with exit code 2, an argument that the command's parser does not know is
 * one. Returns 0 or an exit code to return at once. */
int sl_parse_args(const struct argp *argp, int argc, char **argv, void *input);

/* The one argument that is no option: a second is a usage error. Returns 0. */
error_t sl_opt_argument(struct argp_state *state, const char **to,
                        const char *what, const char *arg);

/* arg behind the n that list (owned, freed by the caller) has: options and
 * arguments that are given several times. */
void sl_opt_append(struct argp_state *state, char ***list, size_t *n,
                   char *arg);

/* Number options: whole text, range checked. name is the option's. */
uint64_t sl_opt_u64(struct argp_state *state, const char *name,
                    const char *text, uint64_t min, uint64_t max);
double sl_opt_f64(struct argp_state *state, const char *name, const char *text,
                  double min, double max);
/* Sizes with suffixes, in bytes. */
uint64_t sl_opt_size(struct argp_state *state, const char *name,
                     const char *text, uint64_t min, uint64_t max);
/* Which of the names (NULL behind the last) arg is. */
int sl_opt_pick(struct argp_state *state, const char *name, const char *arg,
                const char *const *names);

#endif
