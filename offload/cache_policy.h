/*
 * cache_policy.h - which of the records that are there is needed least
 *
 * Records belong to layers, which take turns; at a layer's turn some of its
 * records are used. What is expected of a record is how many turns of its
 * layer go by until it is used: one over the part of the turns in which it was
 * used lately. Added to that is how far off its layer's turn is.
 *
 * What lately means is measured too. The part is kept for several half lives,
 * each is held against what is used then, and the one is believed that would
 * have told it best of late: texts of one kind make it long, a change of
 * subject short. What is little known yet is taken to be as its layer is on
 * average. bench/replay.c compares this with others, and with the optimum.
 *
 * A pass of many positions uses far more of a layer's records than one of
 * a single position, which is what is expected of passes that are to come: of
 * layers whose turn is still to come in this pass, nearly all are used.
 */
#ifndef SL_OFFLOAD_CACHE_POLICY_H
#define SL_OFFLOAD_CACHE_POLICY_H

#include <math.h>
#include <stdint.h>

#include "src/base/error.h"

enum sl_cache_policy_kind {
    SL_CACHE_EXPECTED, /* as above */
    SL_CACHE_LRU,      /* what was not used for longest goes */
};

#define SL_CACHE_HORIZONS 4u

struct sl_cache_policy {
    enum sl_cache_policy_kind kind;
    uint32_t n_records, n_layers, per_layer;
    uint32_t layer;                     /* whose turn it is */
    uint32_t positions;                 /* of the pass that this belongs to */
    uint64_t turns;                     /* of all layers together */
    float *count[SL_CACHE_HORIZONS];    /* (n_records) uses, fading by turns */
    float *turns_of[SL_CACHE_HORIZONS]; /* (n_layers) turns, fading likewise */
    double loss[SL_CACHE_HORIZONS]; /* nats by which uses surprised, fading */
    float *told[SL_CACHE_HORIZONS]; /* (per_layer) chances before the turn */
    unsigned best;                  /* horizon, the one of least loss */
    double *wait; /* (n_records) turns until its next use; LRU: the last */
    /* (n_records) the same if all of the pass's positions go through its
     * layer's next turn: kept, as many are compared for each that goes */
    double *soon;
};

/* n_records is n_layers times as many as a layer has. Errors: SL_ERR_NOMEM. */
int sl_cache_policy_init(struct sl_cache_policy *p,
                         enum sl_cache_policy_kind kind, uint32_t n_records,
                         uint32_t n_layers, struct sl_error *err);
void sl_cache_policy_fini(struct sl_cache_policy *p); /* zeroed is fine */
uint64_t sl_cache_policy_bytes(uint32_t n_records, uint32_t n_layers);

/* So many positions go through the turns from now on (at first: 1). */
void sl_cache_policy_pass(struct sl_cache_policy *p, uint32_t positions);

/* A layer's turn has come. */
void sl_cache_policy_turn(struct sl_cache_policy *p, uint32_t layer);
/* A record of it is used, by that part of what goes through the layer. */
void sl_cache_policy_use(struct sl_cache_policy *p, uint32_t record,
                         double part);

/* Of two records, the one with more is the one to go. */
static inline double sl_cache_policy_wait(const struct sl_cache_policy *p,
                                          uint32_t record, uint32_t layer)
{
    uint32_t turns = layer > p->layer ? layer - p->layer - 1
                                      : layer + p->n_layers - p->layer - 1;

    if (p->kind == SL_CACHE_LRU)
        return -p->wait[record];
    return (layer > p->layer ? p->soon : p->wait)[record] +
           (double)turns / p->n_layers;
}

/* The same of one that its layer, whose turn is next, uses then by that
 * chance. */
static inline double
sl_cache_policy_wait_guessed(const struct sl_cache_policy *p, uint32_t record,
                             uint32_t layer, double chance)
{
    double wait = sl_cache_policy_wait(p, record, layer);

    if (p->kind == SL_CACHE_LRU)
        return chance > 0 ? -INFINITY : wait;
    return chance > 0 ? fmin(wait, 1 + (1 - chance) * wait) : wait;
}

/* The chances that the pass's positions use each of a layer's records, seen
 * over long; usual: the part of them that a position uses, of which one that is
 * little known is thought to be. chances: (per_layer). */
void sl_cache_policy_chances(const struct sl_cache_policy *p, uint32_t layer,
                             double usual, double *chances);

/* What was learned, to be kept: of each record the part of its layer's turns
 * in which it was used; turns: how many that was seen in (faded). Taken at the
 * begin of another run it counts for at most SL_CACHE_LEARNED_TURNS. */
#define SL_CACHE_LEARNED_TURNS 256.0
void sl_cache_policy_learned(const struct sl_cache_policy *p, float *parts,
                             float *turns);
void sl_cache_policy_take(struct sl_cache_policy *p, const float *parts,
                          float turns);

#endif
