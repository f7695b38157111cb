/*
 * vec_blocks_panel.h - ggml's blocks by INT8 inputs, many positions at a time
 *
 * As vec_panel.h: the codes of PANEL_BLOCKS blocks of rows and PANEL_COLS
 * columns are unpacked to bytes once, their scales to floats, and PANEL_RUN
 * positions pass over them; sums are made in the order of blocks_few and have
 * its bits.
 */
#ifndef SL_KERNELS_VEC_BLOCKS_PANEL_H
#define SL_KERNELS_VEC_BLOCKS_PANEL_H

#define PANEL_RUNS (PANEL_COLS / 16)

struct blocks_panel {
    /* (PANEL_BLOCKS, PANEL_COLS / 4, 16, 4): quad_operand */
    _Alignas(64) uint8_t w[PANEL_BLOCKS * PANEL_BYTES];
    _Alignas(64) float total[PANEL_RUN * PANEL_ROWS];
    /* Of the weights: (runs, rows). */
    _Alignas(64) float w_scale[PANEL_RUNS * PANEL_ROWS];
    _Alignas(64) float w_min[PANEL_RUNS * PANEL_ROWS];
    /* Of the inputs: scales (groups, PANEL_RUN); sums of runs by minus
     * dot_offset and by their scales (runs, PANEL_RUN). */
    _Alignas(64) float scale[PANEL_GROUPS * PANEL_RUN];
    _Alignas(64) int32_t bias[PANEL_RUNS * PANEL_RUN];
    _Alignas(64) float sum[PANEL_RUNS * PANEL_RUN];
    const int8_t *q; /* (n, q_stride), from the panel's first column on */
    size_t q_stride;
    size_t n; /* positions */
    uint32_t groups;
};

/* Columns [c, c + cols) of a block of rows, which begin with a tile. */
INLINE void blocks_unpack(struct blocks_panel *k, uint32_t block,
                          const uint8_t *w, uint32_t cols,
                          const struct blocks *f)
{
    const struct shape *s = f->s;
    for (size_t r = 0; r < SL_BLOCK_ROWS; r += W) {
        const uint8_t *at = w + 4 * r;
        uint8_t *to = k->w + block * PANEL_BYTES + 4 * r;
        size_t row = block * SL_BLOCK_ROWS + r;
        vf scale[BLOCK_RUNS], min[BLOCK_RUNS];
        vi head = vi_set(0);

        for (uint32_t b = 0; b < cols / s->cols; b++) {
            if (b % s->share == 0) {
                head = vi_load_bytes(at);
                at += UNIT_BYTES;
            }
            block_scales(scale, min, at, head, b, f);
            at += sub_words(s) * UNIT_BYTES;
            for (int i = 0; i < n_runs(s); i++, row += PANEL_ROWS) {
                vf_store(k->w_scale + row, scale[i]);
                if (s->mins != SL_MINS_NONE)
                    vf_store(k->w_min + row, min[i]);
            }
            for (uint32_t c = 0; c < s->cols; c += GROUP_COLS) {
#pragma GCC unroll 8
                for (unsigned j = 0; j < QUADS; j++, to += UNIT_BYTES)
                    vi_store((int32_t *)(void *)to, quad_operand(at, j, s));
                at += group_bytes(s);
            }
        }
    }
}

/* What a panel's columns need of its inputs. */
INLINE void blocks_inputs(struct blocks_panel *k, const struct sl_acts *a,
                          size_t p0, uint32_t c, const struct shape *s)
{
    const int offset = dot_offset(s);
    const uint32_t runs = GROUP_COLS / s->run; /* of a group */

    k->q = a->q + p0 * a->q_stride + c;
    for (uint32_t g = 0; g < k->groups; g++) {
        size_t at = c / GROUP_COLS + g;
        const float *from = a->q_scale + at * a->group_stride + p0;
        float *scale = k->scale + (size_t)g * PANEL_RUN;

        memcpy(scale, from, k->n * sizeof *scale);
        for (uint32_t i = 0; i < runs; i++) {
            const int32_t *first =
                a->q_sum + (2 * at + i) * a->group_stride + p0;
            const int32_t *second = first + a->group_stride;
            size_t to = (size_t)(g * runs + i) * PANEL_RUN;

            /* room is for whole vectors */
            for (size_t p = 0; p < k->n; p += W) {
                size_t n = k->n - p < W ? k->n - p : W;
                vi sum = vi_load_n(first + p, n);

                if (runs == 1)
                    sum = vi_add(sum, vi_load_n(second + p, n));
                vi_store(k->bias + to + p, vi_mul(sum, vi_set(-offset)));
                if (s->mins != SL_MINS_NONE)
                    vf_store(k->sum + to + p,
                             vf_mul(vi_to_float(sum), vf_load_n(from + p, n)));
            }
        }
    }
}

/* total += the products of one run, the r-th of the panel; w: of its first
 * four columns. */
INLINE void blocks_run(vf total[][PANEL_TILE], const struct blocks_panel *k,
                       const uint8_t *w, const int8_t *q, uint32_t r,
                       const float *scale, size_t p0, const int n,
                       const struct shape *s)
{
    const int32_t *bias = k->bias + (size_t)r * PANEL_RUN + p0;
    const float *sum = k->sum + (size_t)r * PANEL_RUN + p0;
    const float *w_scale = k->w_scale + (size_t)r * PANEL_ROWS;
    const float *w_min = k->w_min + (size_t)r * PANEL_ROWS;
    vi acc[PANEL_VECTORS][PANEL_TILE], part[PANEL_VECTORS][PANEL_TILE];

#pragma GCC unroll 8
    for (int p = 0; p < n; p++)
#pragma GCC unroll 4
        for (int v = 0; v < PANEL_VECTORS; v++)
            acc[v][p] = vi_set(bias[p]);
#pragma GCC unroll 8
    for (unsigned u = 0; u < s->run / 4; u++) {
#pragma GCC unroll 4
        for (int v = 0; v < PANEL_VECTORS; v++) {
            size_t row = (size_t)(v * W);

            dot_quad(acc[v], part[v],
                     vi_load_bytes(w + row / SL_BLOCK_ROWS * PANEL_BYTES +
                                   row % SL_BLOCK_ROWS * 4 +
                                   (size_t)u * UNIT_BYTES),
                     q + 4 * u, k->q_stride, n, u, s);
        }
    }
#pragma GCC unroll 4
    for (int v = 0; v < PANEL_VECTORS; v++) {
        vf f = vf_load(w_scale + v * W);
        vf m = s->mins != SL_MINS_NONE ? vf_load(w_min + v * W) : vf_set(0);

#pragma GCC unroll 8
        for (int p = 0; p < n; p++) {
            total[v][p] = vf_fma(vf_mul(vi_to_float(acc[v][p]), f),
                                 vf_set(scale[p]), total[v][p]);
            if (s->mins != SL_MINS_NONE)
                total[v][p] = vf_fma(m, vf_set(sum[p]), total[v][p]);
        }
    }
}

INLINE void blocks_tile(struct blocks_panel *k, size_t p0, const int n,
                        const struct shape *s)
{
    const int8_t *q = k->q + p0 * k->q_stride;
    float *at = k->total + p0 * PANEL_ROWS;
    const uint32_t runs = GROUP_COLS / s->run;
    vf total[PANEL_VECTORS][PANEL_TILE];

#pragma GCC unroll 8
    for (int p = 0; p < n; p++)
#pragma GCC unroll 4
        for (int v = 0; v < PANEL_VECTORS; v++)
            total[v][p] =
                vf_load(at + (size_t)p * PANEL_ROWS + (size_t)(v * W));
    for (uint32_t r = 0; r < k->groups * runs; r++)
        blocks_run(total, k, k->w + (size_t)r * s->run * SL_BLOCK_ROWS,
                   q + (size_t)r * s->run, r,
                   k->scale + (size_t)(r / runs) * PANEL_RUN + p0, p0, n, s);
#pragma GCC unroll 8
    for (int p = 0; p < n; p++)
#pragma GCC unroll 4
        for (int v = 0; v < PANEL_VECTORS; v++)
            vf_store(at + (size_t)p * PANEL_ROWS + (size_t)(v * W),
                     total[v][p]);
}

INLINE void blocks_tiles(struct blocks_panel *k, const struct shape *s)
{
    size_t p = 0;

    for (; k->n - p >= PANEL_TILE; p += PANEL_TILE)
        blocks_tile(k, p, PANEL_TILE, s);
    for (; k->n - p >= 2; p += 2)
        blocks_tile(k, p, 2, s);
    if (p < k->n)
        blocks_tile(k, p, 1, s);
}

/* What was unpacked is multiplied alike whatever it came from: formats that
 * differ in nothing that dot_quad and runs see share one function. */
#define TILES(NAME, name)                                                      \
    static __attribute__((noinline)) void ISA(tiles_##name)(                   \
        struct blocks_panel * k)                                               \
    {                                                                          \
        blocks_tiles(k, &shapes[SL_FMT_##NAME]);                               \
    }
TILES(Q4_0, q4_0)
TILES(Q4_1, q4_1)
TILES(Q2_K, q2_k)
TILES(Q3_K, q3_k)
#ifdef DOT_BY_BITS
TILES(Q5_0, q5_0)
TILES(Q5_1, q5_1)
TILES(Q6_K, q6_k)
TILES(Q8_0, q8_0)
#endif
#undef TILES

INLINE void blocks_tiles_of(struct blocks_panel *k, const struct shape *s)
{
    bool mins = s->mins != SL_MINS_NONE;

#ifdef DOT_BY_BITS
    if (is_signed(s)) {
        ISA(tiles_q8_0)(k);
        return;
    }
    if (sums_of(s) == 4) {
        (mins ? ISA(tiles_q5_1) : ISA(tiles_q5_0))(k);
        return;
    }
    if (sums_of(s) == 2) {
        ISA(tiles_q6_k)(k);
        return;
    }
#endif
    if (s->run < GROUP_COLS)
        (mins ? ISA(tiles_q2_k) : ISA(tiles_q3_k))(k);
    else
        (mins ? ISA(tiles_q4_1) : ISA(tiles_q4_0))(k);
}

INLINE void blocks_panel(float *y, size_t y_stride, const struct sl_matrix *m,
                         const uint8_t *w, uint32_t n_rows,
                         const struct sl_acts *a, const struct blocks *f)
{
    const struct shape *s = f->s;
    size_t bytes = blocks_bytes(s, m->cols);
    uint32_t n_blocks = (n_rows + SL_BLOCK_ROWS - 1) / SL_BLOCK_ROWS;
    struct blocks_panel k;

    k.q_stride = a->q_stride;
    for (size_t p = 0; p < a->n; p += k.n) {
        k.n = a->n - p < PANEL_RUN ? a->n - p : PANEL_RUN;
        for (uint32_t block = 0; block < n_blocks; block += PANEL_BLOCKS) {
            uint32_t row = block * SL_BLOCK_ROWS;
            uint32_t n = n_rows - row < PANEL_ROWS ? n_rows - row : PANEL_ROWS;

            memset(k.total, 0, k.n * PANEL_ROWS * sizeof *k.total);
            for (uint32_t c = 0; c < m->cols; c += PANEL_COLS) {
                uint32_t cols =
                    m->cols - c < PANEL_COLS ? m->cols - c : PANEL_COLS;

                k.groups = cols / GROUP_COLS;
                /* A block that is not there is the last one once more. */
                for (uint32_t b = 0; b < PANEL_BLOCKS; b++)
                    blocks_unpack(
                        &k, b,
                        w +
                            (block + b < n_blocks ? block + b : n_blocks - 1) *
                                bytes +
                            blocks_bytes(s, c),
                        cols, f);
                blocks_inputs(&k, a, p, c, s);
                blocks_tiles_of(&k, s);
            }
            for (size_t i = 0; i < k.n; i++)
                memcpy(y + (p + i) * y_stride + row, k.total + i * PANEL_ROWS,
                       n * sizeof *y);
        }
    }
}

#endif
