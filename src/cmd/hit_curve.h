/*
 * hit_curve.h - how much a cache of experts serves, by its size, from a file
 *
 * JSON: [[share resident, share served], ...], both 0 to 1 and rising; a model
 * and its texts as somebody measured them.
 */
#ifndef SL_HIT_CURVE_H
#define SL_HIT_CURVE_H

#include <argp.h>

#include "src/runtime/runtime.h"

/* Errors: SL_ERR_IO, SL_ERR_CORRUPT naming the point. */
int sl_hit_curve_read(struct sl_hit_curve *curve, const char *path,
                      struct sl_error *err);
/* The same of an option's value; ends the program where it does not do. */
struct sl_hit_curve sl_opt_hit_curve(struct argp_state *state,
                                     const char *path);

#endif
