#include "config.h"

#include "kernels/cuda/cuda.h"
#include "src/base/mem.h"
#include "src/exec/stages.h"

static const struct sl_tensor_spec *
spec_of(const struct sl_modelfile *mf, const struct sl_partition *partition,
        size_t slab)
{
    const struct sl_part *first =
        &partition->parts[partition->first_part[slab]];

    return &mf->matrices[first->matrix].spec;
}

double sl_key_ops(const struct sl_hparams *hp)
{
    uint32_t values = hp->kv_lora > 0 ? hp->kv_lora : hp->head_dim;

    return 2.0 * hp->n_heads * (hp->head_dim + values);
}

static void add_cache(struct sl_plan_stage *s, const struct sl_modelfile *mf,
                      const struct sl_kv_config *kv)
{
    uint64_t tokens = (uint64_t)kv->n_pages * SL_KV_PAGE_LEN;
    /* K and V, or a latent, FP16 */
    uint64_t gpu =
        (kv->one_plane ? 1ull : 2ull) * 2 * mf->hp.n_kv_heads * mf->hp.head_dim;
    double host = (double)sl_kv_page_bytes(kv) / kv->n_layers / SL_KV_PAGE_LEN;

    s->key_ops = sl_key_ops(&mf->hp);
    s->key_bytes[SL_HOST] = host;
    s->key_bytes[SL_DEVICE] = (double)gpu;
    /* with its share of the lists */
    s->kv_bytes[SL_HOST] = sl_div_up(sl_kv_bytes(kv), (uint64_t)kv->n_layers);
    s->kv_bytes[SL_DEVICE] = tokens * gpu;
}

bool sl_stages_device_attends(const struct sl_hparams *hp)
{
    return hp->kv_lora <= SL_CUDA_MAX_LATENT &&
           (hp->kv_lora == 0 || hp->head_dim <= SL_CUDA_MAX_JOINED);
}

/* FP32 weights are never multiplied as they lie. */
double sl_stage_wide_bytes(const struct sl_matrix *m)
{
    return m->fmt == SL_FMT_F16 || m->fmt == SL_FMT_F32
               ? 0
               : 2.0 * m->rows * m->cols;
}

static void add_matrix(struct sl_plan_stage *s, const struct sl_modelfile *mf,
                       const struct sl_kv_config *kv,
                       const struct sl_model_matrix *m)
{
    s->ops += 2.0 * m->geom.rows * m->geom.cols;
    s->wide_bytes += sl_stage_wide_bytes(&m->geom);
    s->head |= m->spec.slot == SL_SLOT_HEAD;
    /* and what its router has chosen: they lie in RAM, or are read there */
    s->host_only |= m->spec.slot == SL_SLOT_ROUTER;
    if (!sl_slot_is_first_of_attention(m->spec.slot))
        return;
    add_cache(s, mf, kv);
    s->host_only |= !sl_stages_device_attends(&mf->hp);
}

int sl_stages_make(struct sl_plan_stage **stages, size_t *n_stages,
                   const struct sl_modelfile *mf,
                   const struct sl_partition *partition,
                   const struct sl_kv_config *kv, struct sl_error *err)
{
    size_t n = sl_arch_n_stages(&mf->hp);
    struct sl_plan_stage *made = sl_zalloc_array(n, sizeof *made);

    if (made == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory to describe %zu stages",
                       n);
    for (size_t i = 0; i < partition->n_slabs; i++) {
        struct sl_plan_stage *s = &made[spec_of(mf, partition, i)->stage];

        if (s->n_slabs++ == 0)
            s->first_slab = i;
    }
    for (size_t i = 0; i < partition->n_parts; i++) {
        const struct sl_part *part = &partition->parts[i];
        const struct sl_model_matrix *m = &mf->matrices[part->matrix];

        if (part->first_block == 0 && part->of != SL_PART_LOW)
            add_matrix(&made[m->spec.stage], mf, kv, m);
    }
    *stages = made;
    *n_stages = n;
    return 0;
}
