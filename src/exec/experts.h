/*
 * experts.h - a model's experts as records of a cache
 *
 * Record r holds the matrices of expert r % E of the (r / E)-th layer that has
 * experts, side by side as they lie in the file.
 */
#ifndef SL_EXPERTS_H
#define SL_EXPERTS_H

#include "offload/slab_cache.h"
#include "src/exec/route_trace.h"
#include "src/model/modelfile.h"

/* Layers are alike by what part of their experts' bytes was missing, and by how
 * many records were read ahead. */
#define SL_EXPERT_PARTS 65u

/* What passes of a kind wanted of the cache, and read for that. */
struct sl_expert_use {
    uint64_t layers; /* that were mixed, in all passes */
    uint64_t wanted_bytes, read_bytes;
    uint64_t hint_bytes; /* read ahead beside that */
    struct sl_expert_part {
        uint64_t there_bytes, read_bytes;
    } part[SL_EXPERT_PARTS];
    struct {
        uint64_t layers, bytes;
    } ahead[SL_EXPERT_PARTS];
};

struct sl_experts {
    struct sl_slab_cache *cache;  /* owned; NULL until opened */
    struct sl_route_trace *route; /* owned; NULL: none is kept */
    struct sl_extent *records;    /* owned, (n_records) */
    uint32_t n_records, n_experts, n_layers, first_layer;
    uint64_t largest; /* bytes of a record */
    uint64_t bytes;   /* of all */
    float *usage;     /* owned, (n_records) of earlier runs; NULL: not known */
    float usage_turns;
    bool looks_ahead; /* some have no place: guesses are worth their time */
    struct sl_expert_use decode, prefill;
    struct sl_slab_cache_stats counted; /* what these count already */
};

/* Lists the records; 0 of a model without experts. Errors: SL_ERR_NOMEM. */
int sl_experts_init(struct sl_experts *e, const struct sl_modelfile *mf,
                    struct sl_error *err);
void sl_experts_fini(struct sl_experts *e); /* a zeroed one is fine */

/* Bytes beside the places. */
uint64_t sl_experts_overhead_bytes(const struct sl_experts *e,
                                   uint32_t n_places);

/* A layer is over, of a pass that reads a text or not: counts what its experts
 * did since the last one. */
void sl_experts_count(struct sl_experts *e, bool reads);

static inline uint32_t sl_experts_record(const struct sl_experts *e,
                                         uint32_t layer, uint32_t expert)
{
    return (layer - e->first_layer) * e->n_experts + expert;
}

#endif
