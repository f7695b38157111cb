#include "config.h"

#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#include "src/exec/adapters.h"

/* of: (n_matrices), to be filled in; NULL: only counts. */
static void carve_all(struct sl_adapters *as, struct sl_carver *c,
                      const struct sl_lora *l, const struct sl_modelfile *mf,
                      uint32_t pass_positions)
{
    uint32_t most = 0;

    for (size_t i = 0; i < mf->n_matrices; i++) {
        const struct sl_model_matrix *m = &mf->matrices[i];
        const struct sl_matrix *g = &m->geom;
        uint32_t rank = sl_lora_rank(l, m->spec.slot, m->spec.layer);
        struct sl_adapter ad = {
            .a = {SL_FMT_F32, rank, g->cols, 1, 0},
            .b = {SL_FMT_F32, g->rows, rank, g->n_segments, 0},
        };

        if (rank == 0)
            continue;
        ad.aw = sl_carve(c, (uint64_t)rank * g->cols, sizeof(float));
        ad.bw = sl_carve(c, (uint64_t)rank * g->rows, sizeof(float));
        if (as->of != NULL)
            as->of[i] = ad;
        most = rank > most ? rank : most;
    }
    as->low_stride = most;
    as->low = sl_carve(c, (uint64_t)pass_positions * most, sizeof(float));
}

uint64_t sl_adapters_bytes(const struct sl_lora *l,
                           const struct sl_modelfile *mf,
                           uint32_t pass_positions)
{
    struct sl_carver c = {NULL, 0};
    struct sl_adapters counted = {0};

    if (l == NULL)
        return 0;
    carve_all(&counted, &c, l, mf, pass_positions);
    return c.used;
}

static int read_all(struct sl_adapters *as, const struct sl_lora *l,
                    const struct sl_modelfile *mf, struct sl_error *err)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < mf->n_matrices; i++) {
        const struct sl_tensor_spec *s = &mf->matrices[i].spec;
        const struct sl_adapter *ad = &as->of[i];

        if (ad->a.rows == 0)
            continue;
        if (sl_lora_read(l, s->slot, s->layer, ad->aw, ad->bw, err) != 0)
            return -1;
        sum = XXH3_64bits_withSeed(ad->aw, sl_matrix_bytes(&ad->a), sum + i);
        sum = XXH3_64bits_withSeed(ad->bw, sl_matrix_bytes(&ad->b), sum);
    }
    as->sum = sum != 0 ? sum : 1;
    return 0;
}

int sl_adapters_init(struct sl_adapters *as, const struct sl_lora *l,
                     const struct sl_modelfile *mf, uint32_t pass_positions,
                     struct sl_error *err)
{
    struct sl_adapters made = {0};
    struct sl_carver carver = {NULL, 0};

    made.of = sl_zalloc_array(mf->n_matrices, sizeof *made.of);
    if (made.of == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "adapters: no memory");
    if (sl_region_init(&made.region, sl_adapters_bytes(l, mf, pass_positions),
                       "adapters", err) != 0) {
        sl_adapters_fini(&made);
        return -1;
    }
    carver.base = made.region.base;
    carve_all(&made, &carver, l, mf, pass_positions);
    if (read_all(&made, l, mf, err) != 0) {
        sl_adapters_fini(&made);
        return -1;
    }
    *as = made;
    return 0;
}

void sl_adapters_fini(struct sl_adapters *as)
{
    sl_region_fini(&as->region);
    free(as->of);
    memset(as, 0, sizeof *as);
}
