/*
 * experts.h - a model's experts as records of a cache
 *
 * Record r holds the matrices of expert r % E of the (r / E)-th layer that has
 * experts, side by side as they lie in the file.
 *
 * With a device some records, those used most, lie in its memory for all of a
 * run, and are computed there; the cache never has them. Before any of them the
 * expert that all positions use does, the shared one, which else is of its
 * layer's stage (partition.h). Others are lent to the device by long passes:
 * copied, where that and its arithmetic take less time than the cores' do for
 * as many positions.
 */
#ifndef SL_EXPERTS_H
#define SL_EXPERTS_H

#include "offload/cost.h"
#include "offload/device.h"
#include "offload/slab_cache.h"
#include "src/exec/engine.h"
#include "src/exec/route_trace.h"
#include "src/model/modelfile.h"

#define SL_NO_PLACE UINT32_MAX
/* What crosses for each value of a row that is lent for: there in FP16, back in
 * FP32. */
#define SL_LENT_ROW_BYTES 6.0

/* Layers are alike by what part of their experts' bytes was missing, and by how
 * many records were read ahead. */
#define SL_EXPERT_PARTS 65u

/* What passes of a kind wanted of the cache, and read for that. */
struct sl_expert_use {
    uint64_t layers; /* that were mixed, in all passes */
    uint64_t wanted_bytes, read_bytes;
    uint64_t hint_bytes;   /* read ahead beside that */
    uint64_t device_bytes; /* wanted of a device's memory beside that */
    struct sl_expert_part {
        uint64_t there_bytes, read_bytes;
    } part[SL_EXPERT_PARTS];
    struct {
        uint64_t layers, bytes;
    } ahead[SL_EXPERT_PARTS];
};

/* What a cache of experts was seen to serve, by its size: shares of the
 * experts, and of what is wanted of them; both rise. */
#define SL_HIT_POINTS 64u
struct sl_hit_curve {
    struct sl_hit_point {
        double resident, served;
    } point[SL_HIT_POINTS];
    size_t n; /* 0: not known, all are chosen alike */
};

struct sl_experts {
    const struct sl_modelfile *mf; /* borrowed */
    struct sl_slab_cache *cache;   /* owned; NULL until opened */
    struct sl_route_trace *route;  /* owned; NULL: none is kept */
    struct sl_extent *records;     /* owned, (n_records) */
    uint32_t n_records, n_experts, n_layers, first_layer;
    uint32_t n_places; /* for so many there is memory */
    uint64_t largest;  /* bytes of a record */
    uint64_t bytes;    /* of all */
    float *usage;      /* owned, (n_records) of earlier runs; NULL: not known */
    float usage_turns;
    struct sl_hit_curve curve; /* what to expect of decode */
    bool looks_ahead; /* some have no place: guesses are worth their time */
    struct sl_expert_use decode, prefill;
    struct sl_slab_cache_stats counted; /* what these count already */
    /* Of a device: */
    struct sl_exec_engine *device; /* its engine, borrowed */
    uint32_t *shared;      /* owned, (n_layers) a shared one's first matrix */
    uint64_t shared_bytes; /* of one, at most */
    uint32_t n_shared;     /* of the first layers so many lie there */
    uint32_t n_device;
    uint32_t *device_place; /* owned, (n_records) or SL_NO_PLACE */
    uint64_t mixed_bytes;   /* of records used there, not counted yet */
    uint32_t lend_rows; /* an expert of so many positions is lent; 0: none is */
    uint64_t lent_bytes;          /* that were, of all passes */
    uint64_t loan_bytes;          /* of one, at most */
    struct sl_device *pinned_for; /* the cache's memory is, for copies */
};

/* Lists the records; 0 of a model without experts. Errors: SL_ERR_NOMEM. */
int sl_experts_init(struct sl_experts *e, const struct sl_modelfile *mf,
                    struct sl_error *err);
void sl_experts_fini(struct sl_experts *e); /* a zeroed one is fine */

/* Memory for experts: what is left when everything that each pass uses has its
 * place, for of that every byte is used in every pass. 0 of models without. The
 * least that they need; what is to be set aside of bytes for them, where the
 * other weights need others_least. */
uint64_t sl_experts_least_bytes(const struct sl_experts *e);
uint64_t sl_experts_reserve_bytes(const struct sl_experts *e, uint64_t bytes,
                                  uint64_t others_least);
/* As many have a place as fit into so many bytes; what these take. */
uint64_t sl_experts_place(struct sl_experts *e, uint64_t bytes);

/* A layer's shared expert in the file, from where a device likes it to begin.
 */
struct sl_extent sl_experts_shared_extent(const struct sl_experts *e,
                                          uint32_t layer);
/* For so many layers' shared experts there is room in so many bytes of a
 * device's memory. */
uint32_t sl_experts_shared_within(const struct sl_experts *e, uint64_t bytes);
static inline bool sl_experts_shared_there(const struct sl_experts *e,
                                           uint32_t layer)
{
    return layer >= e->first_layer && layer - e->first_layer < e->n_shared;
}
static inline uint64_t sl_experts_shared_bytes(const struct sl_experts *e)
{
    return e->n_shared * e->shared_bytes;
}
/* Behind the n_shared of them as many records lie in so many bytes of a
 * device's memory, those used most in earlier runs or, where that is not known,
 * as many of each layer; the others are the cache's. Returns what all take. */
uint64_t sl_experts_place_on_device(struct sl_experts *e, uint64_t bytes);
/* Where an expert lies from the first of them; n_experts: the shared one. */
uint64_t sl_experts_device_at(const struct sl_experts *e, uint32_t layer,
                              uint32_t expert);

/* Reads those into the device's memory at `to`, records through the cache,
 * which must be open, and have nothing. Errors: SL_ERR_IO, SL_ERR_CORRUPT, the
 * device's. */
int sl_experts_load(struct sl_experts *e, struct sl_device *dev, void *to,
                    struct sl_error *err);

/* From how many positions on copying an expert to a device and computing it
 * there is faster than on the cores; 0: never, or rates are unknown. */
uint32_t sl_experts_lend_rows(const struct sl_experts *e,
                              const struct sl_rates *rates);
/* Lends to a device, by these rates; the cache's memory is pinned for it until
 * it is closed. Where that is refused, copies are slower, which the log (NULL:
 * none) has a line about. */
void sl_experts_lend(struct sl_experts *e, struct sl_device *dev,
                     const struct sl_rates *rates, const struct sl_log *log);
/* Closes the cache; what it had is read again. */
void sl_experts_close_cache(struct sl_experts *e);

/* A device has computed an expert, for that part of a pass's positions: counted
 * for statistics, and for who is to lie there in another run. */
void sl_experts_mixed(struct sl_experts *e, uint32_t record, double part);

/* A layer's turn, in a pass of so many positions, which wants n records of the
 * cache. Errors: SL_ERR_IO. */
int sl_experts_want(struct sl_experts *e, uint32_t layer, uint32_t positions,
                    const uint32_t *records, uint32_t n, struct sl_error *err);
/* Long passes use nearly all of a layer's experts, so that these need not wait
 * for their router: has the cache read those of a layer, in the order in which
 * they lie in the file, that a pass of so many positions is likely to use.
 * chances, records: (n_experts) for this call. Errors: SL_ERR_IO. */
int sl_experts_sweep(struct sl_experts *e, uint32_t layer, uint32_t positions,
                     double *chances, uint32_t *records, struct sl_error *err);
/* Takes one of n wanted records off the list, of which others may be on their
 * way: the first that is there, else the first. */
uint32_t sl_experts_take(const struct sl_experts *e, uint32_t *records,
                         uint32_t *n);

/* A layer is over, of a pass that reads a text or not: counts what its experts
 * did since the last one. */
void sl_experts_count(struct sl_experts *e, bool reads);

/* Bytes of a record that hold its first matrix, gate and up. */
uint64_t sl_experts_first_bytes(const struct sl_experts *e, uint32_t record);

static inline uint32_t sl_experts_record(const struct sl_experts *e,
                                         uint32_t layer, uint32_t expert)
{
    return (layer - e->first_layer) * e->n_experts + expert;
}

#endif
