#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "src/base/mem.h"
#include "src/exec/experts.h"

/* One is computed from, others are being read. */
#define LEAST_PLACES 3u
/* So many layers' experts of a position have places before more of what is
 * always used becomes resident. */
#define LAYERS_WANTED 2u

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
    if (e->records == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory to list %u experts",
                       e->n_records);
    for (uint32_t r = 0; r < e->n_records; r++) {
        const struct sl_model_matrix *m = sl_modelfile_expert(
            mf, e->first_layer + r / e->n_experts, r % e->n_experts);
        uint64_t bytes = sl_modelfile_record_bytes(mf, m);

        e->records[r] = (struct sl_extent){m->off, bytes};
        e->largest = bytes > e->largest ? bytes : e->largest;
        e->bytes += bytes;
    }
    return 0;
}

void sl_experts_fini(struct sl_experts *e)
{
    sl_slab_cache_close(e->cache);
    sl_route_trace_drop(e->route);
    free(e->records);
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
    return places * e->largest + e->n_records * sizeof *e->records +
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
    uint64_t n = 0;

    e->n_places = 0;
    if (e->n_records == 0)
        return 0;
    if (bytes > bytes_of(e, 0))
        n = (bytes - bytes_of(e, 0)) / e->largest;
    n = n < e->n_records ? n : e->n_records;
    while (n > 0 && bytes_of(e, n) > bytes)
        n--;
    e->n_places = (uint32_t)n;
    return bytes_of(e, n);
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
