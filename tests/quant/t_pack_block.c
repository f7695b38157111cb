/*
 * The inner loops of packing: all instruction sets give the same bits, whatever
 * the source is stored in.
 */
#include "config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "quant/pack.h"
#include "quant/pack_block.h"
#include "tests/support.h"

#define MOST_COLS 1001u

/* Those that this CPU can run, the plain one first. */
static size_t packers(sl_pack_block_fn *fns[3])
{
    size_t n = 0;

    fns[n++] = sl_pack_block_base;
#ifdef SL_X86_64
    if (__builtin_cpu_supports("avx2"))
        fns[n++] = sl_pack_block_avx2;
#endif
    if (sl_pack_block_best() != fns[n - 1])
        fns[n++] = sl_pack_block_best();
    return n;
}

static const struct {
    uint32_t rows, cols, group_cols;
    bool int4;
} shapes[] = {
    {1, 1, 1, false},     {1, 1, 32, true},     {16, 64, 64, false},
    {16, 64, 32, true},   {13, 172, 43, false}, {13, 172, 43, true},
    {9, 1001, 64, false}, {9, 1001, 128, true}, {11, 700, 700, false},
    {11, 700, 700, true}, {15, 523, 9, true},   {16, 264, 132, false},
};
#define N_SHAPES (sizeof shapes / sizeof *shapes)

/* Near normal, with outliers, zeros and a row of zeros, in a format. */
static void make_rows(uint8_t *rows, enum sl_fmt from, size_t k)
{
    const struct sl_fmt_info *f = sl_fmt_of(from);
    uint32_t cols = shapes[k].cols;
    uint64_t state = k;

    for (uint32_t i = 0; i < shapes[k].rows * cols; i++) {
        float x = 0;

        for (int j = 0; j < 4; j++) {
            state = state * 6364136223846793005u + 1442695040888963407u;
            x += (float)(int32_t)(state >> 32) * 0x1p-36f;
        }
        if (i % 97 == 0)
            x *= 6;
        if (i / cols == 5 || i % 7 == 3)
            x = 0;
        f->store(rows + (size_t)i * f->elem_bytes, &x, 1);
    }
}

/* One block of a shape, by fn: its bytes (w, scale) and its error. */
static void pack(sl_pack_block_fn *fn, uint8_t *w, uint16_t *scale,
                 struct sl_pack_block_error *e, const uint8_t *rows,
                 enum sl_fmt from, enum sl_scale_rule rule, size_t k)
{
    struct sl_pack_block p = {
        .from = from,
        .int4 = shapes[k].int4,
        .mse = rule != SL_SCALE_ABSMAX,
        .planes = rule == SL_SCALE_PLANES && !shapes[k].int4,
        .cols = shapes[k].cols,
        .group_cols = shapes[k].group_cols,
        .w = w,
        .scale = scale,
    };

    for (uint32_t r = 0; r < shapes[k].rows; r++)
        p.rows[r] = rows + r * sl_fmt_row_bytes(from, p.cols);
    fn(&p, e);
}

static void every_instruction_set_gives_the_same_bits(void **state)
{
    enum { N = 16 * (MOST_COLS + 7) };
    uint8_t *rows = malloc(4 * N), *w = malloc(2 * N);
    uint16_t *scale = malloc(2 * N * sizeof *scale);
    sl_pack_block_fn *fns[3];
    size_t n = packers(fns);

    for (size_t i = 0; i < N_SHAPES * 3 * SL_FMT_COUNT; i++) {
        enum sl_fmt from = (enum sl_fmt)(i % SL_FMT_COUNT);
        size_t k = i / SL_FMT_COUNT / 3;
        enum sl_scale_rule rule = (enum sl_scale_rule)(i / SL_FMT_COUNT % 3);
        struct sl_pack_block_error e[2];

        if (!sl_fmt_is_float(from))
            continue;
        make_rows(rows, from, k);
        memset(w, 0, 2 * N);
        memset(scale, 0, 2 * N * sizeof *scale);
        memset(e, 0, sizeof e);
        pack(fns[0], w, scale, &e[0], rows, from, rule, k);
        for (size_t j = 1; j < n; j++) {
            memset(&e[1], 0, sizeof e[1]);
            pack(fns[j], w + N, scale + N, &e[1], rows, from, rule, k);
            assert_memory_equal(w, w + N, N);
            assert_memory_equal(scale, scale + N, N * sizeof *scale);
            assert_memory_equal(&e[0], &e[1], sizeof e[0]);
        }
    }
    free(rows);
    free(w);
    free(scale);
}

/* Every finite BF16 and every instruction set: what is packed is what the
 * same floats give. */
static void bf16_sources_pack_as_the_floats_they_are(void **state)
{
    enum { COLS = 4096, N = 16 * COLS };
    uint16_t *halves = malloc(N * sizeof *halves);
    float *floats = malloc(N * sizeof *floats);
    uint8_t *w = calloc(2, N);
    uint16_t *scale = calloc(2, N * sizeof *scale);
    sl_pack_block_fn *fns[3];
    size_t n = packers(fns);

    for (uint32_t i = 0; i < N; i++)
        halves[i] = (uint16_t)((i & 0x7f80) == 0x7f80 ? i & 0xbfff : i);
    sl_fmt_of(SL_FMT_BF16)->load(floats, halves, 0, N);
    for (size_t k = 0; k < 8 * n; k++) {
        struct sl_pack_block_error e[2];

        memset(e, 0, sizeof e);
        for (size_t i = 0; i < 2; i++) {
            struct sl_pack_block p = {
                .from = i ? SL_FMT_F32 : SL_FMT_BF16,
                .int4 = k & 1,
                .mse = k & 2,
                .cols = COLS - (k & 4 ? 3 : 0),
                .group_cols = k & 4 ? 37 : 64,
                .w = w + i * N,
                .scale = scale + i * N,
            };

            for (uint32_t r = 0; r < 15; r++)
                p.rows[r] = i ? (const uint8_t *)(floats + r * p.cols)
                              : (const uint8_t *)(halves + (size_t)r * p.cols);
            fns[k / 8](&p, &e[i]);
        }
        assert_memory_equal(w, w + N, N);
        assert_memory_equal(scale, scale + N, N * sizeof *scale);
        assert_memory_equal(&e[0], &e[1], sizeof e[0]);
    }
    free(halves);
    free(floats);
    free(w);
    free(scale);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_instruction_set_gives_the_same_bits),
        cmocka_unit_test(bf16_sources_pack_as_the_floats_they_are),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
