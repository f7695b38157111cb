#include "config.h"

#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#include "src/convert/convert_impl.h"

/* Adapters that become part of the weights: W + B A (ckpt/lora.h), in FP32 and
 * before W is packed. */

static int check_matrix(const struct sl_convert *cv, const struct sl_merge *m,
                        struct sl_error *err)
{
    bool keeps = cv->o->quant == NULL || strcmp(cv->o->quant, "keep") == 0;

    if (sl_fmt_is_float(m->fmt) || (sl_fmt_has_blocks(m->fmt) && !keeps))
        return 0;
    return sl_fail(err, SL_ERR_USAGE,
                   "--lora: tensor %s of %s is quantised already (%s), and "
                   "cannot be changed: give the FP16 checkpoint, %s--lora to "
                   "what runs the model file",
                   m->spec.name, cv->o->source, sl_fmt_name(m->fmt),
                   sl_fmt_has_blocks(m->fmt) ? "another --quant, or " : "or ");
}

static void carve(struct sl_convert *cv, struct sl_carver *c)
{
    for (size_t i = 0; i < cv->n_matrices; i++) {
        struct sl_convert_matrix *cm = &cv->matrices[i];
        const struct sl_tensor_spec *s = &cm->merge.spec;

        cm->a = sl_carve(c, (uint64_t)cm->rank * s->cols, sizeof(float));
        cm->b = sl_carve(c, (uint64_t)cm->rank * s->rows, sizeof(float));
    }
}

/* FP32 rows are what B A is added to; what they are packed as stays. */
static int note_ranks(struct sl_convert *cv, struct sl_error *err)
{
    struct sl_carver counter = {NULL, 0};

    for (size_t i = 0; i < cv->n_matrices; i++) {
        struct sl_convert_matrix *cm = &cv->matrices[i];
        const struct sl_tensor_spec *s = &cm->merge.spec;

        cm->rank = sl_lora_rank(cv->lora, s->slot, s->layer);
        if (cm->rank == 0)
            continue;
        if (check_matrix(cv, &cm->merge, err) != 0)
            return -1;
        cm->merge.fmt = SL_FMT_F32;
    }
    carve(cv, &counter);
    cv->adapter_bytes = (size_t)counter.used;
    return 0;
}

int sl_convert_find_adapters(struct sl_convert *cv, struct sl_error *err)
{
    const struct sl_convert_options *o = cv->o;

    for (size_t i = 0; i < cv->n_matrices; i++)
        cv->matrices[i].source_fmt = cv->matrices[i].merge.fmt;
    if (o->n_lora == 0)
        return 0;
    if (sl_lora_open(&cv->lora, o->lora, o->n_lora, cv->arch, &cv->hp,
                     o->source, o->log, err) != 0)
        return -1;
    return note_ranks(cv, err);
}

int sl_convert_read_adapters(struct sl_convert *cv, struct sl_error *err)
{
    struct sl_carver carver = {NULL, 0};

    if (cv->lora == NULL)
        return 0;
    if (sl_region_init(&cv->adapters, cv->adapter_bytes, "adapters", err) != 0)
        return -1;
    carver.base = cv->adapters.base;
    carve(cv, &carver);
    for (size_t i = 0; i < cv->n_matrices; i++) {
        const struct sl_convert_matrix *cm = &cv->matrices[i];
        const struct sl_tensor_spec *s = &cm->merge.spec;

        if (cm->rank > 0 &&
            sl_lora_read(cv->lora, s->slot, s->layer, cm->a, cm->b, err) != 0)
            return -1;
    }
    cv->adapter_sum = XXH3_64bits(cv->adapters.base, cv->adapter_bytes);
    return 0;
}

struct job {
    const struct sl_convert_matrix *cm;
    float *rows;
    uint64_t first; /* row of the matrix */
};

static void add_rows(void *arg, size_t begin, size_t end, unsigned worker)
{
    const struct job *job = arg;
    const struct sl_convert_matrix *cm = job->cm;
    size_t cols = cm->merge.spec.cols;

    for (size_t i = begin; i < end; i++) {
        const float *b = cm->b + (job->first + i) * cm->rank;
        float *row = job->rows + i * cols;

        for (uint32_t r = 0; r < cm->rank; r++) {
            const float *a = cm->a + r * cols;

            /* Ranks of other parts of the matrix. */
            for (size_t c = 0; b[r] != 0 && c < cols; c++)
                row[c] += b[r] * a[c];
        }
    }
}

void sl_convert_add_adapters(const struct sl_convert *cv,
                             const struct sl_chunk *c, float *rows)
{
    const struct sl_convert_matrix *cm = &cv->matrices[c->matrix];
    const struct sl_tensor_spec *s = &cm->merge.spec;
    struct job job = {
        .cm = cm,
        .rows = rows,
        .first = (uint64_t)c->segment * (s->rows / s->n_segments) +
                 (uint64_t)c->first_block * SL_BLOCK_ROWS,
    };

    if (cm->rank > 0)
        sl_pool_for(cv->pool, c->n_rows, SL_BLOCK_ROWS, add_rows, &job);
}
