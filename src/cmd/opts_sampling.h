/*
 * opts_sampling.h - the options that say how an id is chosen
 *
 * Commands differ in their defaults alone.
 */
#ifndef SL_OPTS_SAMPLING_H
#define SL_OPTS_SAMPLING_H

#include "src/arch/sampling.h"
#include "src/cmd/opts.h"
#include "src/decode/sampler.h"

enum {
    SL_OPT_TEMPERATURE = 0x280,
    SL_OPT_TOP_K,
    SL_OPT_TOP_P,
    SL_OPT_REPETITION_PENALTY,
    SL_OPT_SEED = 's',
};

/* Rows of a command's table of options, in a group; the defaults are texts. */
#define SL_SAMPLING_ROWS(group, temperature, top_k, top_p)                     \
    SL_SAMPLING_ROW(                                                           \
        "temperature", SL_OPT_TEMPERATURE, "X",                                \
        "Divides the logits; 0 takes the likeliest (default: " temperature     \
        ")",                                                                   \
        group),                                                                \
        {"temp", 0, 0, OPTION_ALIAS, 0, group},                                \
        SL_SAMPLING_ROW("top-k", SL_OPT_TOP_K, "N",                            \
                        "Draw among the N likeliest tokens; 0 is off, 1 "      \
                        "always takes the likeliest (default: " top_k ")",     \
                        group),                                                \
        {"top_k", 0, 0, OPTION_ALIAS, 0, group},                               \
        SL_SAMPLING_ROW("top-p", SL_OPT_TOP_P, "X",                            \
                        "Draw among the likeliest tokens that together have "  \
                        "this probability; 0 is off (default: " top_p ")",     \
                        group),                                                \
    {                                                                          \
        "top_p", 0, 0, OPTION_ALIAS, 0, group                                  \
    }
#define SL_SEED_ROW(group)                                                     \
    SL_SAMPLING_ROW("seed", SL_OPT_SEED, "N",                                  \
                    "Begin of the random numbers, 1 or more (default: 1234)",  \
                    group)
#define SL_SAMPLING_ROW(name, key, arg, what, group)                           \
    {                                                                          \
        name, key, arg, 0, what, group                                         \
    }

#define SL_USUAL_SEED 1234

struct sl_sampling_options {
    struct sl_sampler_config sampler;
    double penalty; /* of repetition */
    uint64_t seed;
    unsigned given; /* SL_SAMPLING_* that were said */
};

/* Takes one of these options; false: it is none. */
bool sl_opt_sampling(struct sl_sampling_options *o, int key, char *arg,
                     struct argp_state *state);
/* What a sampler is told: a temperature of 0 is its top_k of 1. */
struct sl_sampler_config
sl_sampling_sampler(const struct sl_sampling_options *o);
/* Fills in, and marks, what by says and nobody said before. */
void sl_sampling_settle(struct sl_sampling_options *o,
                        const struct sl_sampling *by);

#endif
