#include "config.h"

#include <math.h>
#include <string.h>

#include "quant/blocks.h"
#include "quant/pack.h"
#include "quant/pack_block.h"
#include "src/base/mem.h"

/* Blocks whose errors are kept apart until they are added up in order, so
 * that the sums do not depend on the number of threads. */
#define WAVE 128u
/* Columns that are worked on at once: sixteen rows of them stay in the
 * first-level cache. */
#define PIECE      256u
#define UNIT_BYTES 64u

struct job {
    uint8_t *w;
    uint16_t *scale;
    const struct sl_matrix *m;
    sl_pack_block_fn *pack;
    enum sl_scale_rule rule;
    const uint8_t *rows;
    size_t row_bytes;
    enum sl_fmt from; /* of rows */
    const int8_t *q;  /* of sl_pack_quantized */
    const uint16_t *q_scale;
    uint32_t n_rows;
    uint32_t first;               /* block of the wave */
    struct sl_pack_error *errors; /* by block of the wave, or NULL */
};

static uint32_t least_u32(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* 16 rows of n columns side by side, as quant/matrix.h draws them; beyond n
 * there are zeros up to a multiple of 8. Adding 128 modulo 256 flips the top
 * bit of a byte, adding 8 modulo 16 that of four bits. */
static uint8_t *interleave(uint8_t *out, const int8_t q[][PIECE + 8],
                           uint32_t n, enum sl_fmt fmt)
{
    uint32_t step = sl_fmt_of(fmt)->unit_cols;

    n = (uint32_t)sl_round_up(n, 8);
    for (uint32_t c = 0; c < n; c += step) {
        for (unsigned r = 0; r < SL_BLOCK_ROWS; r++, out += 4) {
            uint32_t a, b;

            memcpy(&a, &q[r][c], 4);
            if (fmt == SL_FMT_INT8) {
                a ^= 0x80808080u;
            } else {
                memcpy(&b, &q[r][c + 4], 4);
                a = ((a & 0x0f0f0f0fu) | (b & 0x0f0f0f0fu) << 4) ^ 0x88888888u;
            }
            memcpy(out, &a, 4); /* bytes keep their order on any machine */
        }
    }
    return out;
}

static void pack_block(const struct job *j, uint32_t block,
                       struct sl_pack_block_error *e)
{
    const struct sl_matrix *m = j->m;
    uint32_t first = block * SL_BLOCK_ROWS, groups = sl_matrix_groups(m);
    struct sl_pack_block p = {
        .from = j->from,
        .int4 = m->fmt == SL_FMT_INT4,
        .mse = j->rule != SL_SCALE_ABSMAX,
        .planes = j->rule == SL_SCALE_PLANES && m->fmt == SL_FMT_INT8,
        .cols = m->cols,
        .group_cols = m->group_cols,
        .w = j->w + block * sl_matrix_block_bytes(m, 0, 1),
        .scale = j->scale + (size_t)block * groups * SL_BLOCK_ROWS,
    };

    for (unsigned r = 0; r < SL_BLOCK_ROWS && first + r < j->n_rows; r++)
        p.rows[r] = j->rows + (first + r) * j->row_bytes;
    j->pack(&p, e);
}

static void add_float_error(struct sl_pack_block_error *e, const float *x,
                            const float *y, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        float d = fabsf(y[i] - x[i]);

        e->squared += (double)d * (double)d;
        e->source_squared += (double)x[i] * (double)x[i];
        e->worst = d > e->worst ? d : e->worst;
        e->n_not_finite += !isfinite(y[i]);
    }
}

/* One row of numbers, a run at a time. */
static void float_row(uint8_t *out, const struct job *j, const uint8_t *in,
                      struct sl_pack_block_error *e)
{
    const struct sl_fmt_info *from = sl_fmt_of(j->from);
    const struct sl_fmt_info *to = sl_fmt_of(j->m->fmt);
    float x[PIECE], y[PIECE];
    uint32_t n;

    for (uint32_t col = 0; col < j->m->cols; col += n) {
        n = least_u32(j->m->cols - col, PIECE);
        from->load(x, in, col, n);
        if (to == from)
            memcpy(out, in + (size_t)col * from->elem_bytes,
                   (size_t)n * from->elem_bytes);
        else
            to->store(out, x, n);
        if (e != NULL) {
            to->load(y, out, 0, n);
            add_float_error(e, x, y, n);
        }
        out += (size_t)n * to->elem_bytes;
    }
}

static void float_block(const struct job *j, uint32_t block,
                        struct sl_pack_block_error *e)
{
    size_t out_bytes = (size_t)sl_fmt_row_bytes(j->m->fmt, j->m->cols);
    uint32_t row = block * SL_BLOCK_ROWS;
    uint32_t n_rows = least_u32(j->n_rows - row, SL_BLOCK_ROWS);
    uint8_t *out = j->w + row * out_bytes;
    const uint8_t *in = j->rows + row * j->row_bytes;

    if (e == NULL && j->from == j->m->fmt) {
        memcpy(out, in, n_rows * out_bytes);
        return;
    }
    for (unsigned r = 0; r < n_rows; r++)
        float_row(out + r * out_bytes, j, in + r * j->row_bytes, e);
}

static void pack_blocks(void *arg, size_t begin, size_t end, unsigned worker)
{
    const struct job *j = arg;

    for (size_t i = begin; i < end; i++) {
        uint32_t block = j->first + (uint32_t)i;
        uint32_t left = j->n_rows - block * SL_BLOCK_ROWS;
        struct sl_pack_block_error e = {0, 0, 0, 0};

        if (sl_fmt_is_float(j->m->fmt))
            float_block(j, block, j->errors != NULL ? &e : NULL);
        else
            pack_block(j, block, &e);
        if (j->errors == NULL)
            continue;
        j->errors[i] = (struct sl_pack_error){
            .sum_squared = e.squared,
            .sum_source_squared = e.source_squared,
            .worst = (double)e.worst,
            .n = (uint64_t)least_u32(left, SL_BLOCK_ROWS) * j->m->cols,
            .n_not_finite = e.n_not_finite,
        };
    }
}

static void add_errors(struct sl_pack_error *sum,
                       const struct sl_pack_error *part, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        sum->sum_squared += part[i].sum_squared;
        sum->sum_source_squared += part[i].sum_source_squared;
        sum->worst = fmax(sum->worst, part[i].worst);
        sum->n += part[i].n;
        sum->n_not_finite += part[i].n_not_finite;
    }
}

void sl_pack_rows(void *w, uint16_t *scale, const struct sl_matrix *m,
                  enum sl_scale_rule rule, const struct sl_pack_source *src,
                  uint32_t n_rows, struct sl_pool *pool,
                  struct sl_pack_error *e)
{
    struct sl_pack_error errors[WAVE];
    uint32_t n_blocks = (uint32_t)sl_div_up(n_rows, SL_BLOCK_ROWS);
    struct job j = {
        .w = w,
        .scale = scale,
        .m = m,
        .pack = sl_pack_block_best(),
        .rule = rule,
        .rows = src->rows,
        .row_bytes = (size_t)sl_fmt_row_bytes(src->fmt, m->cols),
        .from = src->fmt,
        .n_rows = n_rows,
        .errors = e != NULL ? errors : NULL,
    };

    for (; j.first < n_blocks; j.first += WAVE) {
        uint32_t n = least_u32(n_blocks - j.first, WAVE);

        sl_pool_for(pool, n, 1, pack_blocks, &j);
        if (e != NULL)
            add_errors(e, errors, n);
    }
}

static void pack_quantized(void *arg, size_t begin, size_t end, unsigned worker)
{
    const struct job *j = arg;
    const struct sl_matrix *m = j->m;
    uint32_t groups = sl_matrix_groups(m), n;
    int8_t q[SL_BLOCK_ROWS][PIECE + 8];

    for (size_t block = begin; block < end; block++) {
        size_t row = block * SL_BLOCK_ROWS;
        uint32_t n_rows = least_u32(j->n_rows - (uint32_t)row, SL_BLOCK_ROWS);
        uint8_t *w = j->w + block * sl_matrix_block_bytes(m, 0, 1);
        uint16_t *scale = j->scale + block * groups * SL_BLOCK_ROWS;

        memset(scale, 0, (size_t)groups * SL_BLOCK_ROWS * sizeof *scale);
        for (unsigned r = 0; r < n_rows; r++) {
            for (uint32_t g = 0; g < groups; g++)
                scale[(size_t)g * SL_BLOCK_ROWS + r] =
                    j->q_scale[(row + r) * groups + g];
        }
        for (uint32_t col = 0; col < m->cols; col += n) {
            n = least_u32(m->cols - col, PIECE);
            memset(q, 0, sizeof q);
            for (unsigned r = 0; r < n_rows; r++)
                memcpy(q[r], j->q + (row + r) * m->cols + col, n);
            w = interleave(w, q, n, m->fmt);
        }
    }
}

void sl_pack_quantized(void *w, uint16_t *scale, const struct sl_matrix *m,
                       const int8_t *q, const uint16_t *q_scale,
                       uint32_t n_rows, struct sl_pool *pool)
{
    struct job j = {
        .w = w,
        .scale = scale,
        .m = m,
        .q = q,
        .q_scale = q_scale,
        .n_rows = n_rows,
    };

    sl_pool_for(pool, sl_div_up(n_rows, SL_BLOCK_ROWS), 1, pack_quantized, &j);
}

static void pack_published(void *arg, size_t begin, size_t end, unsigned worker)
{
    const struct job *j = arg;
    const struct sl_matrix *m = j->m;
    size_t bytes = (size_t)sl_matrix_block_bytes(m, 0, 1);

    for (size_t block = begin; block < end; block++) {
        uint8_t *w = j->w + block * bytes;
        size_t row = block * SL_BLOCK_ROWS;

        if (j->n_rows - row < SL_BLOCK_ROWS)
            memset(w, 0, bytes);
        for (unsigned r = 0; r < SL_BLOCK_ROWS && row + r < j->n_rows; r++)
            sl_blocks_pack(w + (size_t)r * 4, UNIT_BYTES, m->fmt,
                           j->rows + (row + r) * j->row_bytes, m->cols);
    }
}

void sl_pack_published(void *w, const struct sl_matrix *m, const void *rows,
                       size_t row_bytes, uint32_t n_rows, struct sl_pool *pool)
{
    struct job j = {
        .w = w,
        .m = m,
        .rows = rows,
        .row_bytes = row_bytes,
        .n_rows = n_rows,
    };

    sl_pool_for(pool, sl_div_up(n_rows, SL_BLOCK_ROWS), 1, pack_published, &j);
}
