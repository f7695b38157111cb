#include "config.h"

#include <string.h>

#include "kernels/cuda/product.h"
#include "src/base/mem.h"

/* Products of many positions: FP16 weights and FP32 sums of so many rows at a
 * time that cuBLAS can fill a device with them. */
#define DECODED_BYTES (96ull << 20)
#define SUM_BYTES     (64ull << 20)
/* Rows are cut at multiples of this; fewer are not worth a call. */
#define ROW_STEP 128u

struct need {
    uint64_t decoded, sums; /* bytes a row */
    uint32_t rows;          /* best at a time, a multiple of ROW_STEP */
};

static struct need need_of(const struct sl_product *p)
{
    uint32_t halves = sl_product_pairs(p) ? 2 : 1;
    struct need need;
    uint64_t rows;

    need.decoded = 2 * sl_round_up(p->cols, 8);
    if (p->fmt == SL_FMT_F16)
        need.decoded = 0;
    need.sums = sizeof(float) * (uint64_t)p->n * halves;
    rows = SUM_BYTES / need.sums;
    if (need.decoded > 0 && DECODED_BYTES / need.decoded < rows)
        rows = DECODED_BYTES / need.decoded;
    if (rows > p->n_rows)
        rows = p->n_rows;
    need.rows = (uint32_t)sl_round_up(rows ? rows : 1, ROW_STEP);
    return need;
}

/* Where the parts of the workspace begin. */
static uint64_t decoded_bytes(const struct need *need, uint32_t rows)
{
    return sl_round_up(need->decoded * rows, 256);
}

static uint64_t need_bytes(const struct need *need, uint32_t rows)
{
    return decoded_bytes(need, rows) + need->sums * rows;
}

/* Rows [first, first + rows) of the product. */
static int blas_rows(const struct sl_cuda *c, const struct sl_product *p,
                     const struct need *need, uint32_t first, uint32_t rows,
                     uint32_t room, struct sl_error *err)
{
    uint32_t halves = sl_product_pairs(p) ? 2 : 1;
    size_t stride = sl_round_up(p->cols, 8);
    uint16_t *decoded = c->workspace;
    float *sums =
        (float *)((uint8_t *)c->workspace + decoded_bytes(need, room));
    struct sl_product_out out = p->out;
    struct sl_product_sums s;

    memset(&s, 0, sizeof s);
    s.sums = sums;
    s.n_splits = 1;
    s.stride = (size_t)room * halves;
    s.second = room;
    for (uint32_t h = 0; h < halves; h++) {
        const uint16_t *w = decoded;

        if (p->fmt == SL_FMT_F16) {
            stride = p->cols;
            w = (const uint16_t *)p->w[h] + (size_t)first * stride;
        } else if (sl_decode_launch(c, decoded, stride, p, h, first, rows,
                                    err) != 0) {
            return -1;
        }
        if (sl_cublas_product(c->blas, sums + (size_t)h * room, s.stride, w,
                              stride, rows, p->x, p->x_stride, p->n, p->cols,
                              err) != 0)
            return -1;
        if (out.bias[h] != NULL)
            out.bias[h] += first;
    }
    out.y =
        (uint8_t *)out.y + (size_t)first * (out.type == SL_CUDA_F16 ? 2 : 4);
    if (out.residual != NULL)
        out.residual += first;
    return sl_finish_launch(c, &out, &s, p->n, rows, err);
}

/* How many rows of p the workspace holds at a time; 0: too few. */
static uint32_t blas_room(const struct sl_cuda *c, const struct sl_product *p,
                          const struct need *need)
{
    uint32_t room = need->rows;

    if (c->blas == NULL || !c->blas_ready)
        return 0;
    while (room > 0 && need_bytes(need, room) > c->workspace_bytes)
        room -= ROW_STEP;
    return room;
}

static int by_blas(const struct sl_cuda *c, const struct sl_product *p,
                   const struct need *need, uint32_t room, struct sl_error *err)
{
    uint32_t runs = (uint32_t)sl_div_up(p->n_rows, room);
    uint32_t even = (uint32_t)sl_round_up(sl_div_up(p->n_rows, runs), ROW_STEP);

    for (uint32_t first = 0; first < p->n_rows; first += even) {
        uint32_t left = p->n_rows - first;

        if (blas_rows(c, p, need, first, left < even ? left : even, even,
                      err) != 0)
            return -1;
    }
    return 0;
}

/* Whether p is quicker in runs than with cuBLAS, even where there is that. */
static bool goes_in_runs(const struct sl_cuda *c, const struct sl_product *p)
{
    return p->n <= SL_CUDA_SOME ||
           (p->n <= c->runs_to[p->fmt] && sl_mma_takes(p));
}

/* Up to as many positions at a time as a kernel takes. */
static int by_runs(const struct sl_cuda *c, const struct sl_product *p,
                   struct sl_error *err)
{
    bool even = p->head_x % 8 == 0; /* heads of x begin so that all can load */
    bool mma = even && sl_mma_takes(p), units = even && sl_matvec_takes(p);
    uint32_t most = mma ? SL_CUDA_SOME : SL_CUDA_FEW;

    for (uint32_t i = 0; i < p->n; i += most) {
        struct sl_product run = *p;
        int rc;

        run.n = p->n - i < most ? p->n - i : most;
        run.x += i * p->x_stride;
        run.out.y = (uint8_t *)p->out.y +
                    i * p->out.y_stride * (p->out.type == SL_CUDA_F16 ? 2 : 4);
        if (run.out.residual != NULL)
            run.out.residual += i * p->out.residual_stride;
        if (run.n > SL_CUDA_FEW)
            rc = sl_mma_launch(c, &run, err);
        else if (units)
            rc = sl_matvec_launch(c, &run, err);
        else
            rc = sl_matvec_rows_launch(c, &run, err);
        if (rc != 0)
            return -1;
    }
    return 0;
}

static int run(const struct sl_cuda *c, const struct sl_product *p,
               struct sl_error *err)
{
    if (!goes_in_runs(c, p)) {
        struct need need = need_of(p);
        uint32_t room = blas_room(c, p, &need);

        if (room > 0)
            return by_blas(c, p, &need, room, err);
    }
    return by_runs(c, p, err);
}

/* What does not depend on the segment. */
static struct sl_product shape_of(const struct sl_matrix *m,
                                  enum sl_cuda_epilogue epilogue, uint32_t n)
{
    struct sl_product p;

    memset(&p, 0, sizeof p);
    p.fmt = m->fmt;
    p.cols = m->cols;
    p.segment_rows = (uint32_t)sl_matrix_segment_rows(m);
    p.groups = sl_matrix_groups(m);
    p.group_cols = m->group_cols;
    p.n = n;
    p.n_heads = 1;
    p.out.epilogue = epilogue;
    p.out.pairs =
        epilogue == SL_CUDA_EPI_GEGLU || epilogue == SL_CUDA_EPI_SWIGLU;
    if (!sl_fmt_is_float(m->fmt))
        p.units = (uint32_t)(sl_fmt_row_bytes(m->fmt, m->cols) / 4);
    return p;
}

int sl_cuda_matmul_run(const struct sl_cuda *c, void *y, size_t y_stride,
                       enum sl_cuda_type y_type,
                       const struct sl_cuda_matmul *mm, const uint16_t *x,
                       size_t x_stride, uint32_t n, struct sl_error *err)
{
    const struct sl_matrix *m = mm->m;
    size_t segment_rows = sl_matrix_segment_rows(m);
    size_t first = (size_t)mm->first_block * SL_BLOCK_ROWS;
    struct sl_product p = shape_of(m, mm->epilogue, n);
    bool glu = sl_product_pairs(&p);
    uint32_t runs = glu ? 1 : m->n_segments, halves = glu ? 2 : 1;

    if (n == 0 || mm->n_blocks == 0)
        return 0;
    p.n_rows = mm->n_blocks * SL_BLOCK_ROWS;
    if (segment_rows - first < p.n_rows)
        p.n_rows = (uint32_t)(segment_rows - first);
    p.x = x;
    p.x_stride = x_stride;
    p.out.y_stride = y_stride;
    p.out.type = y_type;
    p.out.alpha = mm->alpha;
    p.out.residual_stride = mm->residual_stride;
    for (uint32_t s = 0; s < runs; s++) {
        size_t column = s * segment_rows + first;

        for (uint32_t h = 0; h < halves; h++) {
            p.w[h] = mm->w[s + h];
            p.scale[h] = mm->scale[s + h];
            if (mm->bias != NULL)
                p.out.bias[h] = mm->bias + (s + h) * segment_rows + first;
        }
        p.out.y = (uint8_t *)y + column * (y_type == SL_CUDA_F16 ? 2 : 4);
        if (mm->epilogue == SL_CUDA_EPI_RESIDUAL)
            p.out.residual = mm->residual + column;
        if (run(c, &p, err) != 0)
            return -1;
    }
    return 0;
}

int sl_cuda_multiply_heads(const struct sl_cuda *c, uint16_t *y,
                           size_t y_stride, const struct sl_cuda_matmul *mm,
                           uint32_t n_heads, uint32_t head_x, const uint16_t *x,
                           size_t x_stride, uint32_t n, struct sl_error *err)
{
    const struct sl_matrix *m = mm->m;
    uint32_t each = m->rows / n_heads / SL_BLOCK_ROWS, run;
    uint32_t end = mm->first_block + mm->n_blocks;
    struct sl_product p = shape_of(m, SL_CUDA_EPI_NONE, n);

    p.x_stride = x_stride;
    p.head_x = head_x;
    p.head_rows = each * SL_BLOCK_ROWS;
    p.out.y_stride = y_stride;
    p.out.type = SL_CUDA_F16;
    for (uint32_t b = mm->first_block; n > 0 && b < end; b += run) {
        uint32_t in = b % each;

        /* Whole heads together; a part of one by itself. */
        p.n_heads = in == 0 && end - b >= each ? (end - b) / each : 1;
        run = end - b < each - in ? end - b : each - in;
        p.n_rows = run * SL_BLOCK_ROWS;
        run *= p.n_heads;
        p.w[0] = (const uint8_t *)mm->w[0] + sl_matrix_block_offset(m, 0, b) -
                 sl_matrix_block_offset(m, 0, mm->first_block);
        if (mm->scale[0] != NULL)
            p.scale[0] =
                mm->scale[0] + (sl_matrix_scale_offset(m, 0, b) -
                                sl_matrix_scale_offset(m, 0, mm->first_block)) /
                                   2;
        p.x = x + (size_t)(b / each) * head_x;
        p.out.y = y + (size_t)b * SL_BLOCK_ROWS;
        if (by_runs(c, &p, err) != 0)
            return -1;
    }
    return 0;
}

/* All of m. */
static struct sl_product whole(const struct sl_matrix *m, uint32_t n)
{
    struct sl_product p = shape_of(
        m, m->n_segments == 2 ? SL_CUDA_EPI_GEGLU : SL_CUDA_EPI_NONE, n);

    p.n_rows = p.segment_rows;
    return p;
}

uint64_t sl_cuda_matmul_workspace_least(const struct sl_matrix *m, uint32_t n)
{
    struct sl_product p = whole(m, n < SL_CUDA_SOME ? n : SL_CUDA_SOME);

    if (p.n <= SL_CUDA_FEW || !sl_mma_takes(&p))
        return 0;
    return sl_round_up(sl_mma_workspace(&p), 256);
}

uint64_t sl_cuda_matmul_workspace(const struct sl_matrix *m, uint32_t n)
{
    uint64_t bytes = sl_cuda_matmul_workspace_least(m, n), blas;
    struct sl_product p = whole(m, n);
    struct need need;

    if (n <= SL_CUDA_SOME)
        return bytes;
    need = need_of(&p);
    blas = need_bytes(&need, need.rows) + SL_CUDA_BLAS_BYTES;
    return sl_round_up(blas > bytes ? blas : bytes, 256);
}

static int look_up(const struct sl_cuda *c, float *x,
                   const struct sl_cuda_matmul *mm, const int32_t *ids,
                   uint32_t n, bool add, struct sl_error *err)
{
    uint32_t first = mm->first_block * SL_BLOCK_ROWS;
    struct sl_product p = shape_of(mm->m, SL_CUDA_EPI_NONE, n);

    if (n == 0 || mm->n_blocks == 0)
        return 0;
    p.n_rows = mm->n_blocks * SL_BLOCK_ROWS;
    if (sl_matrix_segment_rows(mm->m) - first < p.n_rows)
        p.n_rows = sl_matrix_segment_rows(mm->m) - first;
    p.w[0] = mm->w[0];
    p.scale[0] = mm->scale[0];
    return sl_embed_launch(c, x, &p, first, ids, add, err);
}

int sl_cuda_embed(const struct sl_cuda *c, float *x,
                  const struct sl_cuda_matmul *mm, const int32_t *ids,
                  uint32_t n, struct sl_error *err)
{
    return look_up(c, x, mm, ids, n, false, err);
}

int sl_cuda_embed_add(const struct sl_cuda *c, float *x,
                      const struct sl_cuda_matmul *mm, const int32_t *ids,
                      uint32_t n, struct sl_error *err)
{
    return look_up(c, x, mm, ids, n, true, err);
}
