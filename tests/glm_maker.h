/*
 * glm_maker.h - checkpoints of small models of GLM-130B's architecture
 *
 * Every weight is a function of its tensor's name and place, so a test knows
 * what a converted matrix must hold without keeping a copy.
 */
#ifndef SL_TESTS_GLM_MAKER_H
#define SL_TESTS_GLM_MAKER_H

#include "src/arch/arch.h"
#include "src/ckpt/ckpt.h"

struct glm_maker {
    struct sl_hparams hp;
    unsigned shards;
    /* The type of a tensor; NULL: all FP16. */
    enum sl_dtype (*dtype)(const struct sl_tensor_spec *spec);
    const char *without;  /* a tensor that the last shard lacks, or NULL */
    const char *changed;  /* part of names of other values, or NULL */
    const char *extra;    /* a tensor of two values that all have, or NULL */
    int quantised;        /* 8 or 4: linear matrices as convert_tp.py leaves
                             them, with scales of 1/64; else 0 */
    bool quantised_embed; /* the embedding too */
    uint16_t bad_scale;   /* FP16 in place of the second scale; 0: none */
};

/* A model of 2 layers with awkward sizes: nothing is a multiple of 16. */
void glm_maker_init(struct glm_maker *g);

/* Element i (row-major) of the merged tensor: an FP16 value, zero in every
 * fifth row. Where a matrix is quantised, weights are -7/64 .. 7/64. */
float glm_value(const struct glm_maker *g, const struct sl_tensor_spec *spec,
                uint64_t i);

/* DIR/latest, DIR/7/mp_rank_*.pt and DIR/config.json. */
void glm_maker_write(const struct glm_maker *g, const char *dir);

#endif
