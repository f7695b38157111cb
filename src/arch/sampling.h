/*
 * sampling.h - how a model's publisher has it choose the next id
 *
 * From the generation_config.json beside the weights when a checkpoint is
 * converted (huggingface/transformers generation/configuration_utils.py), and
 * from the metadata of the model file ever after. What chat takes where
 * nothing was said on the command line.
 */
#ifndef SL_SAMPLING_H
#define SL_SAMPLING_H

#include <stdbool.h>
#include <stdint.h>

#include "src/base/error.h"

struct sl_settings;

enum {
    SL_SAMPLING_TEMPERATURE = 1 << 0,
    SL_SAMPLING_TOP_K = 1 << 1,
    SL_SAMPLING_TOP_P = 1 << 2,
    SL_SAMPLING_PENALTY = 1 << 3,
};

/* A zeroed one says nothing. */
struct sl_sampling {
    unsigned given;     /* of the bits above */
    double temperature; /* 1e-4 to 1e4 */
    uint32_t top_k;     /* 0: off; 1: the likeliest, whatever the rest says */
    double top_p;       /* 0 (off) to 1 */
    double penalty;     /* of repetition, 0.01 to 100; 1: off */
};

/* Reads what a generation_config.json says. "do_sample": false and a
 * temperature of 0 are a top_k of 1. Errors: SL_ERR_CORRUPT naming file, key
 * and value. */
int sl_sampling_configure(struct sl_sampling *to, const struct sl_settings *s,
                          struct sl_error *err);
/* That every number that is given is in its range. Errors: SL_ERR_CORRUPT
 * naming it. */
int sl_sampling_check(const struct sl_sampling *s, struct sl_error *err);

#endif
