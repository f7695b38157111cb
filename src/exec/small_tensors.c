#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "src/exec/small_tensors.h"

/* Every vector begins a cache line. */
static uint64_t padded(uint64_t bytes)
{
    return sl_round_up(bytes, 64);
}

uint64_t sl_small_tensors_bytes(const struct sl_modelfile *mf)
{
    uint64_t n = 0;

    for (size_t i = 0; i < mf->n_small; i++)
        n += padded(mf->small[i].bytes);
    for (size_t i = 0; i < mf->n_matrices; i++) {
        if (mf->matrices[i].scale_resident)
            n += padded(mf->matrices[i].scale_bytes);
    }
    return n;
}

/* In the order of the file, one after another into one region: they are small,
 * and read once. */
static int load(struct sl_small_tensors *vs, const struct sl_modelfile *mf,
                struct sl_error *err)
{
    uint8_t *at = vs->region.base;

    for (size_t i = 0; i < mf->n_small; i++) {
        const struct sl_model_small *v = &mf->small[i];

        if (sl_modelfile_read(mf, at, v->off, v->bytes, err) != 0)
            return -1;
        vs->layers[v->spec.layer][v->spec.slot] = (const float *)at;
        at += padded(v->bytes);
    }
    for (size_t i = 0; i < mf->n_matrices; i++) {
        const struct sl_model_matrix *m = &mf->matrices[i];

        if (!m->scale_resident)
            continue;
        if (sl_modelfile_read(mf, at, m->scale_off, m->scale_bytes, err) != 0)
            return -1;
        vs->scales[i] = (const uint16_t *)at;
        at += padded(m->scale_bytes);
    }
    return 0;
}

int sl_small_tensors_init(struct sl_small_tensors *v,
                          const struct sl_modelfile *mf, struct sl_error *err)
{
    memset(v, 0, sizeof *v);
    v->layers = sl_zalloc_array(mf->hp.n_layers + 1, sizeof *v->layers);
    v->scales = sl_zalloc_array(mf->n_matrices, sizeof *v->scales);
    if (v->layers == NULL || v->scales == NULL) {
        sl_small_tensors_fini(v);
        return sl_fail(err, SL_ERR_NOMEM,
                       "norms, biases and scales: no memory");
    }
    if (sl_region_init(&v->region, sl_small_tensors_bytes(mf),
                       "norms, biases and scales", err) != 0 ||
        load(v, mf, err) != 0) {
        sl_small_tensors_fini(v);
        return -1;
    }
    return 0;
}

void sl_small_tensors_fini(struct sl_small_tensors *v)
{
    sl_region_fini(&v->region);
    free(v->layers);
    free(v->scales);
    memset(v, 0, sizeof *v);
}
