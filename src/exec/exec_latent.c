#include "config.h"

#include <string.h>

#include "src/exec/exec_cpu_impl.h"

/* Attention to a latent of keys and values (arch/decoder.c, latent_attention):
 * what comes between its products, and the products of each head alone. */

struct latent_job {
    struct sl_cpu *x;
    const struct sl_layer_op *op;
    const float *w;
};

static void norm_rows(void *arg, size_t begin, size_t end, unsigned worker)
{
    struct latent_job *job = arg;
    struct sl_cpu *x = job->x;
    const struct sl_hparams *hp = &x->c.mf->hp;
    uint32_t width = x->width[job->op->in];
    uint32_t n = job->op->in == SL_BUF_LATENT ? hp->kv_lora : hp->q_lora;
    float *rows = sl_cpu_buffer(x, job->op->in);

    for (size_t i = begin; i < end; i++)
        x->c.kernels->rms_norm(rows + i * width, rows + i * width, job->w, n,
                               hp->latent_eps);
}

void sl_cpu_latent_norm(struct sl_cpu *x, const struct sl_layer_op *op,
                        const float *w)
{
    struct latent_job job = {x, op, w};

    sl_pool_for(x->c.pool, x->pass->n, 1, norm_rows, &job);
}

/* A row of wide: every head's query to the latent and what of it is rotated,
 * then the latent, which is the one key. */
static void join_rows(void *arg, size_t begin, size_t end, unsigned worker)
{
    struct latent_job *job = arg;
    struct sl_cpu *x = job->x;
    const struct sl_hparams *hp = &x->c.mf->hp;
    size_t head = hp->nope_dims + hp->rope_dims;

    for (size_t i = begin; i < end; i++) {
        const float *q =
            sl_cpu_buffer(x, job->op->in) + i * x->width[job->op->in];
        float *row =
            sl_cpu_buffer(x, job->op->out) + i * x->width[job->op->out];

        for (uint32_t h = 0; h < hp->n_heads; h++)
            memcpy(row + (size_t)h * hp->head_dim + hp->kv_lora,
                   q + h * head + hp->nope_dims, hp->rope_dims * sizeof *q);
        memcpy(row + (size_t)hp->n_heads * hp->head_dim,
               sl_cpu_buffer(x, SL_BUF_LATENT) + i * x->width[SL_BUF_LATENT],
               hp->head_dim * sizeof *q);
    }
}

void sl_cpu_join(struct sl_cpu *x, const struct sl_layer_op *op)
{
    struct latent_job job = {.x = x, .op = op};

    sl_pool_for(x->c.pool, x->pass->n, 1, join_rows, &job);
}

/* Where a head's values begin in the rows of either side. */
static uint32_t step_of(const struct sl_hparams *hp, enum sl_buf buf)
{
    switch (buf) {
    case SL_BUF_Q:
        return hp->nope_dims + hp->rope_dims;
    case SL_BUF_VALUES:
        return hp->value_dims;
    default:
        return hp->head_dim;
    }
}

void sl_cpu_multiply_heads(struct sl_cpu *x, const struct sl_layer_op *op,
                           const struct sl_part *part, const uint8_t *base)
{
    const struct sl_hparams *hp = &x->c.mf->hp;
    const struct sl_model_matrix *m = &x->c.mf->matrices[part->matrix];
    uint32_t each = m->geom.rows / hp->n_heads / SL_BLOCK_ROWS;
    uint32_t end = part->first_block + part->n_blocks;
    const struct sl_matmul_heads heads = {
        .blocks = each,
        .x_step = step_of(hp, op->in),
        .y_step = step_of(hp, op->out),
    };
    struct sl_matmul mm = {
        .m = &m->geom,
        .first_block = part->first_block,
        .n_blocks = part->n_blocks,
        .planes = part->of == SL_PART_HIGH ? &x->planes : NULL,
        .heads = &heads,
    };

    sl_cpu_place(&mm, x, part, base);
    sl_cpu_set_head_inputs(x, m, sl_cpu_buffer(x, op->in), x->width[op->in],
                           x->pass->n, heads.x_step, part->first_block / each,
                           (uint32_t)sl_div_up(end, each));
    sl_matmul_run(x->c.kernels, x->c.pool, sl_cpu_buffer(x, op->out),
                  x->width[op->out], &mm, &x->acts, x->act);
}
