#include "config.h"

#include "src/exec/exec_cpu_impl.h"

/* Which experts the next layer will choose: of a few positions guessed, its
 * router is asked about the state as it is now; of many nearly all. That is a
 * hint for the cache and nothing else.
 *
 * A router is at hand where its slab stays in RAM; where what is always used
 * streams too, the disk has no time for guesses. */

/* The next layer's rows, rank by rank, each expert once. */
static uint32_t list_likely(struct sl_cpu *x, uint32_t layer, const float *bias)
{
    struct sl_cpu_mixture *m = &x->mixture;
    const struct sl_hparams *hp = &x->c.mf->hp;
    uint32_t n = x->pass->n, n_likely = 0;

    for (uint32_t i = 0; i < n; i++)
        sl_cpu_pick_experts(m->likely + (size_t)i * m->k,
                            m->ahead_route + (size_t)i * hp->n_experts,
                            m->score, bias, hp);
    for (uint32_t rank = 0; rank < m->k; rank++) {
        for (uint32_t i = 0; i < n; i++) {
            uint32_t r = sl_experts_record(x->c.experts, layer,
                                           m->likely[(size_t)i * m->k + rank]);
            uint32_t j = 0;

            if (x->c.experts->device_place[r] != SL_NO_PLACE)
                continue;
            while (j < n_likely && m->likely_records[j] != r)
                j++;
            if (j < n_likely)
                continue;
            m->likely_ranks[n_likely] =
                (uint8_t)(rank < SL_HINT_RANKS ? rank : SL_HINT_RANKS - 1);
            m->likely_records[n_likely++] = r;
        }
    }
    return n_likely;
}

static void norm_rows(void *arg, size_t begin, size_t end, unsigned worker)
{
    struct sl_cpu *x = arg;
    const float *w = x->mixture.ahead_norm_weight;

    for (size_t i = begin; i < end; i++)
        x->c.kernels->rms_norm(x->mixture.ahead_norm + i * x->hidden,
                               x->pass->x + i * x->hidden, w, x->hidden,
                               x->c.mf->hp.norm_eps);
}

void sl_cpu_note_router(struct sl_cpu *x, size_t slab, const uint8_t *base)
{
    const struct sl_partition *partition = x->c.partition;

    for (uint32_t p = partition->first_part[slab];
         p < partition->first_part[slab + 1]; p++) {
        const struct sl_part *part = &partition->parts[p];
        const struct sl_model_matrix *m = &x->c.mf->matrices[part->matrix];

        if (m->spec.slot == SL_SLOT_ROUTER && part->of == SL_PART_ALL &&
            part->n_blocks == sl_matrix_segment_blocks(&m->geom))
            x->mixture.routers[m->spec.layer] =
                (struct sl_cpu_router){base, part};
    }
}

int sl_cpu_sweep(struct sl_cpu *x, uint32_t layer, struct sl_error *err)
{
    struct sl_experts *experts = x->c.experts;

    if (!experts->looks_ahead || layer >= x->c.mf->hp.n_layers ||
        x->pass->n <= SL_AHEAD_POSITIONS)
        return 0;
    return sl_experts_sweep(experts, layer, x->pass->n, x->mixture.chances,
                            x->mixture.swept, err);
}

int sl_cpu_look_ahead(struct sl_cpu *x, uint32_t layer, enum sl_hint kind,
                      struct sl_error *err)
{
    struct sl_cpu_mixture *m = &x->mixture;
    const struct sl_experts *experts = x->c.experts;
    const struct sl_hparams *hp = &x->c.mf->hp;
    const struct sl_cpu_router *r = &m->routers[layer + 1];
    struct sl_matmul mm = {0};

    if (!experts->looks_ahead || layer + 1 >= hp->n_layers ||
        x->pass->n > SL_AHEAD_POSITIONS || r->base == NULL)
        return 0;
    m->ahead_norm_weight = sl_cpu_vector(x, layer + 1, SL_SLOT_MLP_NORM);
    sl_pool_for(x->c.pool, x->pass->n, 1, norm_rows, x);
    mm.m = &x->c.mf->matrices[r->part->matrix].geom;
    mm.n_blocks = r->part->n_blocks;
    sl_cpu_place(&mm, x, r->part, r->base);
    sl_cpu_set_input(x, &x->c.mf->matrices[r->part->matrix], m->ahead_norm,
                     x->hidden, x->pass->n);
    sl_matmul_run(x->c.kernels, x->c.pool, m->ahead_route, hp->n_experts, &mm,
                  &x->acts, x->act);
    return sl_slab_cache_hint(
        experts->cache, kind, m->likely_records, m->likely_ranks,
        list_likely(x, layer + 1,
                    sl_cpu_vector(x, layer + 1, SL_SLOT_ROUTER_BIAS)),
        err);
}
