#include "config.h"

#include "src/exec/exec_gpu_impl.h"

/* One matrix of a stage: what comes before its first part, its products, what
 * comes after its last. */

static int norm(struct sl_gpu *g, const float *w, const float *b,
                struct sl_error *err)
{
    return sl_cuda_layer_norm(g->c.cuda, g->in, g->hidden_stride, g->a, g->x,
                              sl_gpu_vector(g, w), sl_gpu_vector(g, b), NULL,
                              g->pass->n, g->hidden, g->c.shape.mf->hp.norm_eps,
                              err);
}

static int norm_wanted(struct sl_gpu *g, struct sl_error *err)
{
    const struct sl_vectors *v = g->c.vectors;

    if (g->pass->n_rows == 0)
        return 0;
    return sl_cuda_layer_norm(
        g->c.cuda, g->in, g->hidden_stride, NULL, g->x,
        sl_gpu_vector(g, v->final_w), sl_gpu_vector(g, v->final_b), g->t.rows,
        g->pass->n_rows, g->hidden, g->c.shape.mf->hp.norm_eps, err);
}

static int before(struct sl_gpu *g, const struct sl_model_matrix *m,
                  struct sl_error *err)
{
    const struct sl_layer_vectors *l = &g->c.vectors->layers[m->spec.layer];

    switch (m->spec.op) {
    case SL_OP_QKV:
        return norm(g, l->ln1_w, l->ln1_b, err);
    case SL_OP_MLP_IN:
        return norm(g, l->ln2_w, l->ln2_b, err);
    case SL_OP_HEAD:
        return norm_wanted(g, err);
    default:
        return 0;
    }
}

static int attend(struct sl_gpu *g, uint32_t layer, struct sl_error *err)
{
    bool here = g->c.layer_here[layer];
    const struct sl_cuda_rows *rows = here ? &g->rows : &g->back_rows;
    struct sl_cuda_kv kv = {
        .k = g->back.k,
        .v = g->back.v,
        .page_stride = g->page_values,
        .n_heads = g->n_heads,
        .head_dim = g->head_dim,
    };

    if (here) {
        size_t plane = (size_t)g->c.shape.n_pages * g->page_values;

        kv.k = g->kv + 2 * g->kv_place[layer] * plane;
        kv.v = kv.k + plane;
    } else if (sl_gpu_back_take(g, err) != 0) {
        return -1;
    }
    if (sl_cuda_rope_store(g->c.cuda, g->q, g->hidden_stride, &kv, g->big,
                           g->wide, SL_CUDA_F16, rows,
                           g->c.shape.mf->hp.position_2d, err) != 0)
        return -1;
    if (!here && sl_gpu_back_give(g, layer, err) != 0)
        return -1;
    /* The norm has been multiplied; its FP16 form makes room. */
    return sl_cuda_attend(g->c.cuda, g->in, g->hidden_stride, g->q,
                          g->hidden_stride, &kv, rows, err);
}

/* What a product reads and writes. */
struct product {
    const uint16_t *x;
    size_t x_stride;
    void *y;
    size_t y_stride;
    enum sl_cuda_type y_type;
    uint32_t n;
};

static struct product product_of(const struct sl_gpu *g, enum sl_op op)
{
    struct product p = {
        .x = g->in,
        .x_stride = g->hidden_stride,
        .y = g->big,
        .y_stride = g->wide,
        .y_type = SL_CUDA_F16,
        .n = g->pass->n,
    };

    if (op == SL_OP_QKV || op == SL_OP_MLP_IN)
        return p;
    p.y_type = SL_CUDA_F32;
    if (op == SL_OP_HEAD) {
        p.y = g->logits;
        p.y_stride = g->c.shape.mf->hp.vocab;
        p.n = g->pass->n_rows;
        return p;
    }
    if (op == SL_OP_MLP_OUT) {
        p.x = g->big;
        p.x_stride = g->wide;
    }
    p.y = g->x;
    p.y_stride = g->hidden;
    return p;
}

static void set_epilogue(const struct sl_gpu *g, struct sl_cuda_matmul *mm,
                         const struct sl_model_matrix *m)
{
    switch (m->spec.op) {
    case SL_OP_MLP_IN:
        mm->epilogue =
            g->c.shape.mf->hp.glu ? SL_CUDA_EPI_GEGLU : SL_CUDA_EPI_GELU_TANH;
        break;
    case SL_OP_ATTN_OUT:
    case SL_OP_MLP_OUT:
        /* DeepNorm: the residual is the normed input, so x is free. */
        mm->epilogue = SL_CUDA_EPI_RESIDUAL;
        mm->alpha = g->alpha;
        mm->residual = g->a;
        mm->residual_stride = g->hidden;
        break;
    default:
        mm->epilogue = SL_CUDA_EPI_NONE;
        break;
    }
    if (m->spec.op != SL_OP_HEAD)
        mm->bias = sl_gpu_vector(
            g, g->c.vectors->layers[m->spec.layer].bias[m->spec.op]);
}

/* Where the part's weights and scales lie. */
static void set_weights(const struct sl_gpu *g, struct sl_cuda_matmul *mm,
                        const struct sl_part *part, const uint8_t *base)
{
    const struct sl_model_matrix *m = &g->c.shape.mf->matrices[part->matrix];

    for (uint32_t s = 0; s < m->geom.n_segments; s++) {
        mm->w[s] = base + part->weight_at[s];
        if (!sl_fmt_packed(m->geom.fmt))
            continue;
        if (m->scale_resident)
            mm->scale[s] = sl_gpu_vector(
                g,
                g->c.vectors->scales[part->matrix] +
                    sl_matrix_scale_offset(&m->geom, s, part->first_block) / 2);
        else
            mm->scale[s] = (const void *)(base + part->scale_at[s]);
    }
}

int sl_gpu_run_part(struct sl_gpu *g, const struct sl_part *part,
                    const uint8_t *base, struct sl_error *err)
{
    const struct sl_model_matrix *m = &g->c.shape.mf->matrices[part->matrix];
    struct product p = product_of(g, m->spec.op);
    struct sl_cuda_matmul mm = {
        .m = &m->geom,
        .first_block = part->first_block,
        .n_blocks = part->n_blocks,
    };

    if (part->first_block == 0 && before(g, m, err) != 0)
        return -1;
    if (p.n > 0) {
        set_weights(g, &mm, part, base);
        set_epilogue(g, &mm, m);
        if (sl_cuda_matmul_run(g->c.cuda, p.y, p.y_stride, p.y_type, &mm, p.x,
                               p.x_stride, p.n, err) != 0)
            return -1;
    }
    if (m->spec.op == SL_OP_QKV && part->first_block + part->n_blocks ==
                                       sl_matrix_segment_blocks(&m->geom))
        return attend(g, m->spec.layer, err);
    return 0;
}

int sl_gpu_embed(struct sl_gpu *g, struct sl_error *err)
{
    const struct sl_cut *cut = g->c.cut;

    for (size_t slab = g->first_head_slab; slab < cut->n_slabs; slab++) {
        const struct sl_part *part = &cut->parts[cut->first_part[slab]];
        struct sl_cuda_matmul mm = {
            .m = &g->c.shape.mf->matrices[part->matrix].geom,
            .first_block = part->first_block,
            .n_blocks = part->n_blocks,
        };

        set_weights(g, &mm, part, g->head_base[slab - g->first_head_slab]);
        if (sl_cuda_embed(g->c.cuda, g->x, &mm, g->t.ids, g->pass->n, err) != 0)
            return -1;
    }
    return 0;
}
