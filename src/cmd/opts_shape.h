/*
 * opts_shape.h - the shape of a model, under SAT's names (--num-layers, ...)
 *
 * As an argp child its input is a struct sl_config, in which it marks what was
 * said.
 */
#ifndef SL_OPTS_SHAPE_H
#define SL_OPTS_SHAPE_H

#include "src/cmd/opts.h"
#include "src/model/config_json.h"

extern const struct argp sl_shape_argp;

/* Which of them were said, as "--hidden-size, --num-layers", for messages of
 * what they do not make together. */
#define SL_SHAPE_GIVEN 120
void sl_shape_given(char list[SL_SHAPE_GIVEN], const struct sl_config *c);

#endif
