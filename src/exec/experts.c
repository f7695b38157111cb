#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "src/base/mem.h"
#include "src/exec/exec_experts.h"
#include "src/exec/expert_floor.h"
#include "src/exec/experts.h"

/* One is computed from, others are being read. */
#define LEAST_PLACES 3u
/* So many layers' experts of a position have places before more of what is
 * always used becomes resident. */
#define LAYERS_WANTED 2u
/* One that is used with less than this chance is read when it is wanted: what a
 * sweep reads in vain is at most the rest. */
#define SWEPT_CHANCE 0.8

struct sl_extent sl_experts_shared_extent(const struct sl_experts *e,
                                          uint32_t layer)
{
    const struct sl_model_matrix *m =
        &e->mf->matrices[e->shared[layer - e->first_layer]];
    uint64_t base = sl_round_down(m->off, 256);

    return (struct sl_extent){base, sl_model_matrix_end(&m[1]) - base};
}

/* The experts that all positions use, a layer's each. */
static int list_shared(struct sl_experts *e, struct sl_error *err)
{
    const struct sl_modelfile *mf = e->mf;

    e->shared = sl_zalloc_array(e->n_layers, sizeof *e->shared);
    if (e->shared == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory to list %u layers",
                       e->n_layers);
    for (uint32_t i = 0; i + 1 < mf->n_matrices; i++) {
        const struct sl_tensor_spec *spec = &mf->matrices[i].spec;
        struct sl_extent x;
        uint64_t bytes;

        if (spec->slot != SL_SLOT_SHARED_IN)
            continue;
        e->shared[spec->layer - e->first_layer] = i;
        x = sl_experts_shared_extent(e, spec->layer);
        /* to the end of its pages, as it lies in a slab */
        bytes = sl_round_up(x.off + x.bytes, SL_PAGE_BYTES) - x.off;
        e->shared_bytes = bytes > e->shared_bytes ? bytes : e->shared_bytes;
    }
    return 0;
}

int sl_experts_init(struct sl_experts *e, const struct sl_modelfile *mf,
                    struct sl_error *err)
{
    const struct sl_hparams *hp = &mf->hp;

    *e = (struct sl_experts){
        .mf = mf,
        .n_experts = hp->n_experts,
        .n_layers = hp->n_layers - hp->n_dense_layers,
        .first_layer = hp->n_dense_layers,
    };
    if (hp->n_experts == 0)
        return 0;
    e->n_records = e->n_layers * hp->n_experts;
    e->records = sl_alloc_array(e->n_records, sizeof *e->records);
    e->device_place = sl_alloc_array(e->n_records, sizeof *e->device_place);
    if (e->records == NULL || e->device_place == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory to list %u experts",
                       e->n_records);
    for (uint32_t r = 0; r < e->n_records; r++) {
        const struct sl_model_matrix *m = sl_modelfile_expert(
            mf, e->first_layer + r / e->n_experts, r % e->n_experts);
        uint64_t bytes = sl_modelfile_record_bytes(mf, m);

        e->records[r] = (struct sl_extent){m->off, bytes};
        e->largest = bytes > e->largest ? bytes : e->largest;
        e->bytes += bytes;
        e->device_place[r] = SL_NO_PLACE;
    }
    if (list_shared(e, err) != 0)
        return -1;
    e->loan_bytes = e->shared_bytes > e->largest ? e->shared_bytes : e->largest;
    return 0;
}

void sl_experts_fini(struct sl_experts *e)
{
    sl_experts_close_cache(e);
    sl_route_trace_drop(e->route);
    free(e->records);
    free(e->device_place);
    free(e->shared);
    free(e->usage);
    memset(e, 0, sizeof *e);
}

/* --- memory --------------------------------------------------------------- */

static uint64_t bytes_of(const struct sl_experts *e, uint64_t places)
{
    if (e->n_records == 0)
        return 0;
    if (places > e->n_records)
        places = e->n_records;
    return places * e->largest +
           e->n_records * (sizeof *e->records + sizeof *e->device_place) +
           e->n_layers * sizeof *e->shared +
           sl_slab_cache_overhead_bytes(e->n_records, e->n_layers,
                                        (uint32_t)places, e->mf->mirror);
}

uint64_t sl_experts_least_bytes(const struct sl_experts *e)
{
    return bytes_of(e, LEAST_PLACES);
}

uint64_t sl_experts_reserve_bytes(const struct sl_experts *e, uint64_t bytes,
                                  uint64_t others_least)
{
    uint64_t wanted =
        bytes_of(e, LAYERS_WANTED * (uint64_t)e->mf->hp.n_experts_used);
    uint64_t least = sl_experts_least_bytes(e);

    if (wanted < least || bytes < wanted || bytes - wanted < others_least)
        return least;
    return wanted;
}

uint64_t sl_experts_place(struct sl_experts *e, uint64_t bytes)
{
    uint64_t n = 0, most = e->n_records - e->n_device;

    if (most < LEAST_PLACES)
        most = LEAST_PLACES;
    e->n_places = 0;
    if (e->n_records == 0)
        return 0;
    if (bytes > bytes_of(e, 0))
        n = (bytes - bytes_of(e, 0)) / e->largest;
    n = n < most ? n : most;
    while (n > 0 && bytes_of(e, n) > bytes)
        n--;
    e->n_places = (uint32_t)n;
    return bytes_of(e, n);
}

void sl_experts_close_cache(struct sl_experts *e)
{
    uint64_t bytes;

    if (e->pinned_for != NULL)
        e->pinned_for->ops->unpin(e->pinned_for,
                                  sl_slab_cache_memory(e->cache, &bytes));
    e->pinned_for = NULL;
    sl_slab_cache_close(e->cache);
    e->cache = NULL;
}

void sl_expert_matrices(const struct sl_experts *e, uint32_t layer,
                        uint32_t expert, const struct sl_model_matrix *m[2],
                        struct sl_part part[2])
{
    const struct sl_model_matrix *first =
        expert < e->n_experts
            ? sl_modelfile_expert(e->mf, layer, expert)
            : &e->mf->matrices[e->shared[layer - e->first_layer]];

    for (uint32_t i = 0; i < 2; i++) {
        m[i] = &first[i];
        part[i] = sl_expert_part(e, first, i);
    }
}

struct sl_part sl_expert_part(const struct sl_experts *e,
                              const struct sl_model_matrix *first, uint32_t i)
{
    const struct sl_model_matrix *m = &first[i];
    const struct sl_matrix *g = &m->geom;
    struct sl_part part = {
        .matrix = (uint32_t)(m - e->mf->matrices),
        .n_blocks = sl_matrix_segment_blocks(g),
    };
    uint64_t base = sl_round_down(first->off, 256);

    for (uint32_t s = 0; s < g->n_segments; s++) {
        part.weight_at[s] = m->off - base + sl_matrix_block_offset(g, s, 0);
        part.scale_at[s] =
            m->scale_off - base + sl_matrix_scale_offset(g, s, 0);
    }
    return part;
}

uint64_t sl_experts_first_bytes(const struct sl_experts *e, uint32_t record)
{
    const struct sl_model_matrix *first = sl_modelfile_expert(
        e->mf, e->first_layer + record / e->n_experts, record % e->n_experts);

    return sl_model_matrix_end(first) - first->off;
}

/* --- use ------------------------------------------------------------------ */

uint32_t sl_experts_take(const struct sl_experts *e, uint32_t *records,
                         uint32_t *n)
{
    uint32_t i = 0, record;

    while (i < *n && !sl_slab_cache_there(e->cache, records[i]))
        i++;
    if (i == *n)
        i = 0;
    record = records[i];
    --*n;
    memmove(&records[i], &records[i + 1], (*n - i) * sizeof *records);
    return record;
}

int sl_experts_want(struct sl_experts *e, uint32_t layer, uint32_t positions,
                    const uint32_t *records, uint32_t n, struct sl_error *err)
{
    struct sl_cache_policy *policy = sl_slab_cache_policy(e->cache);

    sl_cache_policy_pass(policy, positions);
    if (n == 0)
        sl_cache_policy_turn(policy, layer - e->first_layer);
    return sl_slab_cache_want(e->cache, records, n, err);
}

int sl_experts_sweep(struct sl_experts *e, uint32_t layer, uint32_t positions,
                     double *chances, uint32_t *records, struct sl_error *err)
{
    struct sl_cache_policy *policy = sl_slab_cache_policy(e->cache);
    uint32_t first = sl_experts_record(e, layer, 0), n = 0;

    sl_cache_policy_pass(policy, positions);
    sl_cache_policy_chances(policy, layer - e->first_layer,
                            (double)e->mf->hp.n_experts_used / e->n_experts,
                            chances);
    for (uint32_t i = 0; i < e->n_experts; i++) {
        if (chances[i] >= SWEPT_CHANCE &&
            e->device_place[first + i] == SL_NO_PLACE)
            records[n++] = first + i;
    }
    if (n == 0)
        return 0;
    return sl_slab_cache_hint(e->cache, SL_HINT_SWEEP, records, NULL, n, err);
}

void sl_experts_mixed(struct sl_experts *e, uint32_t record, double part)
{
    e->mixed_bytes += e->records[record].bytes;
    sl_cache_policy_use(sl_slab_cache_policy(e->cache), record, part);
}

void sl_experts_count(struct sl_experts *e, bool reads)
{
    struct sl_expert_use *use = reads ? &e->prefill : &e->decode;
    struct sl_slab_cache_stats was = e->counted, *now = &e->counted;
    uint64_t wanted, read, ahead, part, records;

    sl_slab_cache_stats(e->cache, now);
    wanted = now->wanted_bytes - was.wanted_bytes;
    read = now->demand_bytes - was.demand_bytes;
    ahead = now->hint_bytes - was.hint_bytes;
    use->layers++;
    use->wanted_bytes += wanted;
    use->read_bytes += read;
    use->hint_bytes += ahead;
    use->device_bytes += e->mixed_bytes;
    e->mixed_bytes = 0;
    /* Where places are few a record may be read twice. */
    part = wanted > 0 ? read * (SL_EXPERT_PARTS - 1) / wanted : 0;
    part = part < SL_EXPERT_PARTS ? part : SL_EXPERT_PARTS - 1;
    use->part[part].read_bytes += read;
    use->part[part].there_bytes += wanted > read ? wanted - read : 0;
    records = ahead / e->largest;
    records = records < SL_EXPERT_PARTS ? records : SL_EXPERT_PARTS - 1;
    use->ahead[records].layers++;
    use->ahead[records].bytes += ahead;
}
