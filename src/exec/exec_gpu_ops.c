#include "config.h"

#include <assert.h>
#include <math.h>

#include "src/exec/exec_gpu_impl.h"

/* A stage's operations (arch/layer.h) put on the queue. Of the norm both an
 * FP16 form, which products read, and an FP32 form are kept, for residuals. */

static const void *vector(const struct sl_gpu *g, uint32_t layer,
                          enum sl_slot slot)
{
    return sl_gpu_vector(g, g->c.small->layers[layer][slot]);
}

/* --- norms and attention ------------------------------------------------- */

/* Whether the norm is a residual later in the stage. */
static bool keeps_norm(const struct sl_stage_ops *stage)
{
    for (uint32_t i = 0; i < stage->n; i++) {
        if (stage->ops[i].residual == SL_BUF_NORM)
            return true;
    }
    return false;
}

/* out = norm(x), or x += norm(what a product left in `a`). */
static int norm(struct sl_gpu *g, const struct sl_stage_ops *stage,
                const struct sl_layer_op *op, uint32_t layer,
                struct sl_error *err)
{
    uint32_t n = stage->wanted_rows ? g->pass->n_rows : g->pass->n;
    const uint32_t *rows = stage->wanted_rows ? g->t.rows : NULL;
    const float *w = vector(g, layer, op->weight);
    float *keep = keeps_norm(stage) ? g->a : NULL;
    float eps = g->c.shape.mf->hp.norm_eps;

    if (n == 0)
        return 0;
    if (op->residual != SL_BUF_NONE)
        return sl_cuda_rms_norm_add(g->c.cuda, g->x, g->a, w, n, g->hidden, eps,
                                    err);
    if (g->c.shape.mf->hp.norm == SL_NORM_RMS)
        return sl_cuda_rms_norm(g->c.cuda, g->half[SL_BUF_NORM],
                                g->stride[SL_BUF_NORM], keep, g->x, w, rows, n,
                                g->hidden, eps, err);
    return sl_cuda_layer_norm(
        g->c.cuda, g->half[SL_BUF_NORM], g->stride[SL_BUF_NORM], keep, g->x, w,
        vector(g, layer, op->bias), rows, n, g->hidden, eps, err);
}

/* Query, key and value of all rows, as the product left them. */
static struct sl_cuda_qkv qkv_of(const struct sl_gpu *g)
{
    return (struct sl_cuda_qkv){
        .at = g->half[SL_BUF_WIDE],
        .stride = g->stride[SL_BUF_WIDE],
        .type = SL_CUDA_F16,
        .order = g->c.shape.mf->hp.qkv == SL_QKV_BY_HEAD ? SL_CUDA_BY_HEAD
                                                         : SL_CUDA_BLOCKS,
        .n = g->pass->n,
        .n_heads = g->n_heads,
        .n_kv_heads = g->n_kv_heads,
        .head_dim = g->head_dim,
    };
}

static int head_norm(struct sl_gpu *g, const struct sl_layer_op *op,
                     uint32_t layer, struct sl_error *err)
{
    struct sl_cuda_qkv qkv = qkv_of(g);
    const float *q = vector(g, layer, op->weight);

    if (q == NULL)
        return 0;
    return sl_cuda_head_norm(g->c.cuda, &qkv, q, vector(g, layer, op->bias),
                             g->c.shape.mf->hp.norm_eps, err);
}

/* Of a latent in place. */
static int latent_norm(struct sl_gpu *g, const struct sl_layer_op *op,
                       uint32_t layer, struct sl_error *err)
{
    const struct sl_hparams *hp = &g->c.shape.mf->hp;

    return sl_cuda_latent_norm(g->c.cuda, g->half[op->in], g->stride[op->in],
                               vector(g, layer, op->weight), g->pass->n,
                               op->in == SL_BUF_LATENT ? hp->kv_lora
                                                       : hp->q_lora,
                               hp->latent_eps, err);
}

static enum sl_cuda_pairs pairs_of(const struct sl_hparams *hp)
{
    if (hp->rope == SL_ROPE_INTERLEAVED)
        return SL_CUDA_PAIRS_NEXT;
    return hp->position_2d ? SL_CUDA_PAIRS_2D : SL_CUDA_PAIRS_APART;
}

/* What a model's joins are about is done where keys are stored: heads' queries
 * to the latent lie side by side in WIDE, and so do its heads in ATT. */
static int store_latents(struct sl_gpu *g, const struct sl_cuda_kv *kv,
                         const struct sl_cuda_rows *rows, uint32_t first,
                         struct sl_error *err)
{
    const struct sl_hparams *hp = &g->c.shape.mf->hp;
    size_t stride = g->stride[SL_BUF_ATT];
    struct sl_cuda_latent l = {
        .q_stride = g->stride[SL_BUF_WIDE],
        .turn_stride = g->stride[SL_BUF_Q],
        .key_stride = g->stride[SL_BUF_LATENT],
        .turn_head = hp->nope_dims + hp->rope_dims,
        .n_heads = g->n_heads,
        .values = hp->kv_lora,
        .turned = hp->rope_dims,
        .pairs = pairs_of(hp),
    };

    l.q = g->half[SL_BUF_WIDE] + first * l.q_stride;
    l.turn = g->half[SL_BUF_Q] + first * l.turn_stride + hp->nope_dims;
    l.key = g->half[SL_BUF_LATENT] + first * l.key_stride;
    return sl_cuda_latent_store(g->c.cuda, g->q + first * stride, stride, kv,
                                &l, rows, err);
}

int sl_gpu_store_rows(struct sl_gpu *g, const struct sl_cuda_kv *kv,
                      const struct sl_cuda_rows *rows, uint32_t first,
                      struct sl_error *err)
{
    const struct sl_hparams *hp = &g->c.shape.mf->hp;
    struct sl_cuda_qkv qkv = qkv_of(g);
    size_t stride = g->stride[SL_BUF_ATT];

    if (hp->kv_lora > 0)
        return store_latents(g, kv, rows, first, err);
    qkv.at = g->half[SL_BUF_WIDE] + first * qkv.stride;
    qkv.n = rows->n;
    return sl_cuda_rotate_store(g->c.cuda, g->q + first * stride, stride, kv,
                                &qkv, rows, pairs_of(hp), hp->rope_dims, err);
}

int sl_gpu_attend_rows(struct sl_gpu *g, const struct sl_cuda_kv *kv,
                       const struct sl_cuda_rows *rows, uint32_t first,
                       struct sl_error *err)
{
    const struct sl_hparams *hp = &g->c.shape.mf->hp;
    size_t stride = g->stride[SL_BUF_ATT], at = first * stride;

    if (hp->kv_lora > 0)
        return sl_cuda_attend_latent(
            g->c.cuda, g->half[SL_BUF_ATT] + at, stride, g->q + at, stride,
            g->n_heads, kv, hp->kv_lora,
            1 / sqrtf((float)(hp->nope_dims + hp->rope_dims)), rows, err);
    return sl_cuda_attend_shared(g->c.cuda, g->half[SL_BUF_ATT] + at, stride,
                                 g->q + at, stride, g->n_heads, kv, rows, err);
}

static int attend(struct sl_gpu *g, uint32_t layer, struct sl_error *err)
{
    bool here = g->c.layer_here[layer];
    const struct sl_cuda_rows *rows = here ? &g->rows : &g->back_rows;
    struct sl_cuda_kv kv = {
        .k = g->back.k,
        .v = g->back.v,
        .page_stride = g->page_values,
        .n_heads = g->n_kv_heads,
        .head_dim = g->head_dim,
    };

    if (sl_gpu_layer_waits(g, layer))
        return sl_gpu_waiting_attend(g, err);
    if (here) {
        size_t plane = (size_t)g->c.shape.n_pages * g->page_values;

        kv.k = g->kv + g->n_planes * g->kv_place[layer] * plane;
        kv.v = kv.k + (g->n_planes - 1) * plane;
    } else if (sl_gpu_back_take(g, err) != 0) {
        return -1;
    }
    if (sl_gpu_store_rows(g, &kv, rows, 0, err) != 0 ||
        (!here && sl_gpu_back_give(g, layer, err) != 0))
        return -1;
    return sl_gpu_attend_rows(g, &kv, rows, 0, err);
}

static int run_op(struct sl_gpu *g, const struct sl_stage_ops *stage,
                  const struct sl_layer_op *op, uint32_t layer,
                  struct sl_error *err)
{
    switch (op->what) {
    case SL_DO_NORM:
        return norm(g, stage, op, layer, err);
    case SL_DO_HEAD_NORM:
        return head_norm(g, op, layer, err);
    case SL_DO_LATENT_NORM:
        return latent_norm(g, op, layer, err);
    case SL_DO_ATTEND:
        return attend(g, layer, err);
    default: /* a join is the attention's */
        assert(op->what != SL_DO_MATMUL);
        return 0;
    }
}

static int run_ops(struct sl_gpu *g, const struct sl_stage_ops *stage,
                   uint32_t begin, uint32_t end, uint32_t layer,
                   struct sl_error *err)
{
    for (uint32_t i = begin; i < end; i++) {
        if (run_op(g, stage, &stage->ops[i], layer, err) != 0)
            return -1;
    }
    return 0;
}

/* --- products ------------------------------------------------------------ */

/* Where a product's results go. */
static void set_target(const struct sl_gpu *g, struct sl_gpu_product *to,
                       enum sl_buf buf)
{
    to->y_stride = g->hidden;
    to->y_type = SL_CUDA_F32;
    switch (buf) {
    case SL_BUF_X:
        to->y = g->x;
        break;
    case SL_BUF_NORM:
        to->y = g->a;
        break;
    case SL_BUF_LOGITS:
        to->y = g->logits;
        to->y_stride = g->c.shape.mf->hp.vocab;
        break;
    default:
        to->y = g->half[buf];
        to->y_stride = g->stride[buf];
        to->y_type = SL_CUDA_F16;
    }
}

static void set_epilogue(const struct sl_gpu *g, struct sl_cuda_matmul *mm,
                         const struct sl_layer_op *op)
{
    static const enum sl_cuda_epilogue of[] = {
        [SL_FN_NONE] = SL_CUDA_EPI_NONE,
        [SL_FN_GEGLU] = SL_CUDA_EPI_GEGLU,
        [SL_FN_SWIGLU] = SL_CUDA_EPI_SWIGLU,
        [SL_FN_GELU_TANH] = SL_CUDA_EPI_GELU_TANH,
    };

    mm->epilogue = of[op->epilogue];
    if (op->residual == SL_BUF_NONE)
        return;
    /* It may be what is written: each value is read before. */
    mm->epilogue = SL_CUDA_EPI_RESIDUAL;
    mm->alpha = op->scaled ? g->c.shape.mf->hp.residual_scale : 1;
    mm->residual = op->residual == SL_BUF_X ? g->x : g->a;
    mm->residual_stride = g->hidden;
}

void sl_gpu_set_weights(const struct sl_gpu *g, struct sl_cuda_matmul *mm,
                        const struct sl_part *part, const uint8_t *base)
{
    const struct sl_model_matrix *m = &g->c.shape.mf->matrices[part->matrix];

    for (uint32_t s = 0; s < m->geom.n_segments; s++) {
        mm->w[s] = base + part->weight_at[s];
        if (!sl_fmt_has_scales(m->geom.fmt))
            continue;
        if (m->scale_resident)
            mm->scale[s] = sl_gpu_vector(
                g,
                g->c.small->scales[part->matrix] +
                    sl_matrix_scale_offset(&m->geom, s, part->first_block) / 2);
        else
            mm->scale[s] = (const void *)(base + part->scale_at[s]);
    }
}

/* Its planes: g->low_base has the low ones, of the same blocks, if they are
 * wanted. */
static int multiply_planes(struct sl_gpu *g, const struct sl_cuda_matmul *mm,
                           const struct sl_gpu_product *to,
                           struct sl_error *err)
{
    struct sl_gpu_planes p = {.m = mm->m};

    for (uint32_t s = 0; s < mm->m->n_segments; s++) {
        p.high[s] = mm->w[s];
        if (g->low != NULL)
            p.low[s] = g->low_base + g->low->weight_at[s];
    }
    return sl_gpu_multiply_planes(g, &p, mm, to, err);
}

int sl_gpu_multiply(struct sl_gpu *g, const struct sl_cuda_matmul *mm,
                    const struct sl_gpu_product *to, struct sl_error *err)
{
    if (to->n_heads > 0)
        return sl_cuda_multiply_heads(g->c.cuda, to->y, to->y_stride, mm,
                                      to->n_heads, to->head_x, to->x,
                                      to->x_stride, to->n, err);
    return sl_cuda_matmul_run(g->c.cuda, to->y, to->y_stride, to->y_type, mm,
                              to->x, to->x_stride, to->n, err);
}

static int multiply(struct sl_gpu *g, const struct sl_cuda_matmul *mm,
                    const struct sl_part *part, const struct sl_gpu_product *to,
                    struct sl_error *err)
{
    if (to->n == 0)
        return 0;
    if (part->of == SL_PART_HIGH)
        return multiply_planes(g, mm, to, err);
    return sl_gpu_multiply(g, mm, to, err);
}

/* Where each head takes its own values of the input. */
static void set_heads(const struct sl_gpu *g, struct sl_gpu_product *to,
                      const struct sl_layer_op *op)
{
    const struct sl_hparams *hp = &g->c.shape.mf->hp;

    if (!op->by_head)
        return;
    to->n_heads = hp->n_heads;
    to->head_x =
        op->in == SL_BUF_Q ? hp->nope_dims + hp->rope_dims : hp->kv_lora;
}

int sl_gpu_run_part(struct sl_gpu *g, const struct sl_part *part,
                    const uint8_t *base, struct sl_error *err)
{
    const struct sl_modelfile *mf = g->c.shape.mf;
    const struct sl_model_matrix *m = &mf->matrices[part->matrix];
    const struct sl_stage_ops *stage =
        sl_arch_stage(mf->arch, &mf->hp, (uint32_t)m->spec.stage);
    uint32_t at = sl_stage_op_of(stage, m->spec.slot), layer = m->spec.layer;
    const struct sl_layer_op *op = &stage->ops[at];
    uint32_t out_at = sl_arch_out_at(&mf->hp, m->spec.slot);
    struct sl_gpu_product to = {
        .x = g->half[op->in],
        .x_stride = g->stride[op->in],
        .n = stage->wanted_rows ? g->pass->n_rows : g->pass->n,
    };
    struct sl_cuda_matmul mm = {
        .m = &m->geom,
        .first_block = part->first_block,
        .n_blocks = part->n_blocks,
        .bias = vector(g, layer, op->bias),
    };

    if (mm.bias != NULL)
        mm.bias += out_at;
    set_target(g, &to, op->out);
    set_heads(g, &to, op);
    to.y =
        (uint8_t *)to.y + (size_t)out_at * (to.y_type == SL_CUDA_F16 ? 2 : 4);
    if (part->first_block == 0 && at == sl_stage_next_matmul(stage, -1) &&
        run_ops(g, stage, 0, at, layer, err) != 0)
        return -1;
    sl_gpu_set_weights(g, &mm, part, base);
    set_epilogue(g, &mm, op);
    if (multiply(g, &mm, part, &to, err) != 0)
        return -1;
    if (part->first_block + part->n_blocks !=
        sl_matrix_segment_blocks(&m->geom))
        return 0;
    return run_ops(g, stage, at + 1, sl_stage_next_matmul(stage, (int)at),
                   layer, err);
}

int sl_gpu_embed(struct sl_gpu *g, struct sl_error *err)
{
    const struct sl_partition *partition = g->c.partition;

    for (size_t slab = g->first_head_slab; slab < partition->n_slabs; slab++) {
        const struct sl_part *part =
            &partition->parts[partition->first_part[slab]];
        struct sl_cuda_matmul mm = {
            .m = &g->c.shape.mf->matrices[part->matrix].geom,
            .first_block = part->first_block,
            .n_blocks = part->n_blocks,
        };

        sl_gpu_set_weights(g, &mm, part,
                           g->head_base[slab - g->first_head_slab]);
        if (sl_cuda_embed(g->c.cuda, g->x, &mm, g->t.ids, g->pass->n, err) != 0)
            return -1;
    }
    return 0;
}
