/*
 * ggml's blocks: decoded, packed and taken back, against ggml's own values
 * (golden/H_family/blocks) and, on random bytes, against the formulas of
 * ggml's documentation and sources as they are written there, an index at a
 * time.
 */
#include "config.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "quant/blocks.h"
#include "quant/pack.h"
#include "src/base/bytes.h"
#include "src/base/half.h"
#include "tests/block_maker.h"
#include "tests/support.h"

#define MAX_COLS 2048u

static const int iq4[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                            1,    13,   25,  38,  53,  69,  89,  113};
static const int e2m1[16] = {0, 1,  2,  3,  4,  6,  8,  12,
                             0, -1, -2, -3, -4, -6, -8, -12};

static float half(const uint8_t *b)
{
    return sl_half_to_float((uint16_t)(b[0] | b[1] << 8));
}

/* Nibble of column i of 32: the low ones first, then the high ones. */
static int nib(const uint8_t *b, unsigned i)
{
    return i < 16 ? b[i] & 15 : b[i - 16] >> 4;
}

static int bit(const uint8_t *b, unsigned i)
{
    return b[i / 8] >> i % 8 & 1;
}

/* Six bits of scale s (and with 8 more, of minimum s) of Q4_K and Q5_K. */
static int six(const uint8_t *S, unsigned s, bool min)
{
    if (s < 4)
        return S[s + (min ? 4 : 0)] & 63;
    return min ? S[s + 4] >> 4 | (S[s] >> 6) << 4
               : (S[s + 4] & 15) | (S[s - 4] >> 6) << 4;
}

static int sub_q3(const uint8_t *S, unsigned k)
{
    int low = k < 8 ? S[k] & 15 : S[k - 8] >> 4;

    return low | (S[8 + k % 4] >> 2 * (k / 4) & 3) << 4;
}

/* Weight i of a block. */
static float formula(enum sl_fmt fmt, const uint8_t *b, unsigned i)
{
    unsigned s = i / 32, H = i / 128, j = i % 128 / 32, l = i % 32, k = i / 16;
    int two;

    switch (fmt) {
    case SL_FMT_Q4_0:
        return half(b) * (float)(nib(b + 2, i) - 8);
    case SL_FMT_Q4_1:
        return half(b) * (float)nib(b + 4, i) + half(b + 2);
    case SL_FMT_Q5_0:
        return half(b) * (float)((nib(b + 6, i) | bit(b + 2, i) << 4) - 16);
    case SL_FMT_Q5_1:
        return half(b) * (float)(nib(b + 8, i) | bit(b + 4, i) << 4) +
               half(b + 2);
    case SL_FMT_Q8_0:
        return half(b) * (float)(int8_t)b[2 + i];
    case SL_FMT_IQ4_NL:
        return half(b) * (float)iq4[nib(b + 2, i)];
    case SL_FMT_MXFP4:
        return (float)e2m1[nib(b + 1, i)] * ldexpf(1, b[0] - 128);
    case SL_FMT_Q2_K:
        two = b[16 + H * 32 + l] >> 2 * j & 3;
        return half(b + 80) * (float)(b[k] & 15) * (float)two -
               half(b + 82) * (float)(b[k] >> 4);
    case SL_FMT_Q3_K:
        two = b[32 + H * 32 + l] >> 2 * j & 3;
        return half(b + 108) * (float)(sub_q3(b + 96, k) - 32) *
               (float)(two - (b[l] >> (4 * H + j) & 1 ? 0 : 4));
    case SL_FMT_Q4_K:
        two = s % 2 ? b[16 + s / 2 * 32 + l] >> 4 : b[16 + s / 2 * 32 + l] & 15;
        return half(b) * (float)six(b + 4, s, false) * (float)two -
               half(b + 2) * (float)six(b + 4, s, true);
    case SL_FMT_Q5_K:
        two = s % 2 ? b[48 + s / 2 * 32 + l] >> 4 : b[48 + s / 2 * 32 + l] & 15;
        two |= (b[16 + l] >> s & 1) << 4;
        return half(b) * (float)six(b + 4, s, false) * (float)two -
               half(b + 2) * (float)six(b + 4, s, true);
    case SL_FMT_Q6_K:
        two = b[H * 64 + j % 2 * 32 + l];
        two = (j < 2 ? two & 15 : two >> 4) | (b[128 + H * 32 + l] >> 2 * j & 3)
                                                  << 4;
        return half(b + 208) * (float)(int8_t)b[192 + k] * (float)(two - 32);
    case SL_FMT_IQ4_XS:
        two = (b[4 + s / 2] >> 4 * (s % 2) & 15) |
              ((b[2] | b[3] << 8) >> 2 * s & 3) << 4;
        return half(b) * (float)(two - 32) *
               (float)iq4[nib(b + 8 + (size_t)16 * s, i % 32)];
    default:
        fail_msg("format %d has no blocks", fmt);
        return 0;
    }
}

static void same_floats(const float *got, const float *want, size_t n,
                        const char *what)
{
    for (size_t i = 0; i < n; i++)
        if (memcmp(got + i, want + i, sizeof *got) != 0)
            fail_msg("%s: weight %zu is %a, not %a", what, i, (double)got[i],
                     (double)want[i]);
}

/* One row of blocks through everything there is. */
static void check_row(enum sl_fmt fmt, const uint8_t *blocks, uint32_t cols,
                      const float *want)
{
    const char *name = sl_fmt_name(fmt);
    const struct sl_matrix m = {fmt, 1, cols, 1, 0};
    uint8_t w[MAX_COLS * 18], back[MAX_COLS * 2];
    float got[MAX_COLS];
    struct sl_error err;

    assert_ok(sl_matrix_check(&m, &err), &err);
    sl_blocks_decode(got, fmt, blocks, cols);
    same_floats(got, want, cols, name);
    for (unsigned row = 0; row < SL_BLOCK_ROWS; row += 5) {
        memset(w, 0xa5, sizeof w);
        sl_blocks_pack(w + (size_t)4 * row, 64, fmt, blocks, cols);
        sl_matrix_decode_row(got, &m, w, NULL, row);
        same_floats(got, want, cols, name);
        sl_blocks_unpack(back, fmt, w + (size_t)4 * row, 64, cols);
        assert_memory_equal(back, blocks,
                            sl_fmt_of(fmt)->block_bytes * (size_t)cols /
                                sl_fmt_of(fmt)->block_cols);
    }
    /* any part of the row, as kernels and embeddings ask for it */
    for (uint32_t first = 0; first < cols; first += 29) {
        uint32_t n = cols - first < 71 ? cols - first : 71;

        sl_fmt_of(fmt)->load(got, w + (size_t)4 * 15, first, n);
        same_floats(got, want + first, n, name);
    }
}

static void weights_are_what_the_formulas_say(void **state)
{
    static float want[MAX_COLS];
    static uint8_t b[MAX_COLS * 2];

    for (int f = 0; f < SL_FMT_COUNT; f++) {
        enum sl_fmt fmt = (enum sl_fmt)f;
        const struct sl_fmt_info *info = sl_fmt_of(fmt);

        for (uint32_t n = 1; sl_fmt_has_blocks(fmt) && n < 9; n++) {
            uint32_t cols = n * info->block_cols;
            uint64_t seed;

            seed = 77 * n + (unsigned)f;
            test_blocks_make(b, fmt, n, n % 2 ? 0 : 0.1, &seed);
            for (uint32_t i = 0; i < cols; i++)
                want[i] = formula(
                    fmt, b + (size_t)i / info->block_cols * info->block_bytes,
                    i % info->block_cols);
            check_row(fmt, b, cols, want);
        }
    }
}

/* E8M0 has no sign and no fraction; the least are subnormal, and with the
 * greatest the largest weights are no floats. */
static void every_exponent_of_mxfp4_is_exact(void **state)
{
    for (int e = 0; e < 253; e++) {
        uint8_t b[17] = {(uint8_t)e};
        float got[32];

        for (int i = 0; i < 16; i++)
            b[1 + i] = (uint8_t)(i | (15 - i) << 4);
        sl_blocks_decode(got, SL_FMT_MXFP4, b, 32);
        for (int i = 0; i < 16; i++) {
            assert_true((double)got[i] == ldexp(e2m1[i], e - 128));
            assert_true((double)got[16 + i] == ldexp(e2m1[15 - i], e - 128));
        }
    }
}

/* What ggml made of its own bytes, and of random ones. */
static void weights_are_what_ggml_makes_of_them(void **state)
{
    static const char *const kinds[] = {"quantised", "random"};
    char path[1024], key[64], name[16];
    struct test_npz *z;

    if (test_shared(path, "golden/H_family/blocks/blocks.npz") == NULL)
        return;
    z = test_npz_open(path);
    for (int f = 0; f < SL_FMT_COUNT * 2; f++) {
        enum sl_fmt fmt = (enum sl_fmt)(f / 2);
        struct test_array bytes, values;

        if (!sl_fmt_has_blocks(fmt))
            continue;
        snprintf(name, sizeof name, "%s", sl_fmt_name(fmt));
        for (char *c = name; *c != '\0'; c++)
            *c = (char)toupper((unsigned char)*c);
        snprintf(key, sizeof key, "%s.%s.bytes", name, kinds[f % 2]);
        test_npz_get(z, key, &bytes);
        snprintf(key, sizeof key, "%s.%s.values", name, kinds[f % 2]);
        test_npz_get(z, key, &values);
        assert_true(values.n <= MAX_COLS && values.n > 0);
        assert_int_equal(values.n % sl_fmt_of(fmt)->block_cols, 0);
        assert_int_equal(bytes.n, values.n / sl_fmt_of(fmt)->block_cols *
                                      sl_fmt_of(fmt)->block_bytes);
        check_row(fmt, bytes.data, (uint32_t)values.n, values.data);
        test_array_fini(&bytes);
        test_array_fini(&values);
    }
    test_npz_close(z);
}

/* Rows of a published file, packed by threads, with a block that is not full:
 * its other rows are zeros. */
static void published_rows_lie_side_by_side(void **state)
{
    struct sl_pool *pool;
    struct sl_error err;

    assert_ok(sl_pool_create(&pool, 3, &err), &err);
    for (int f = 0; f < SL_FMT_COUNT; f++) {
        const struct sl_fmt_info *info = sl_fmt_of((enum sl_fmt)f);
        struct sl_matrix m = {(enum sl_fmt)f, 41, 3 * info->block_cols, 1, 0};
        size_t row_bytes = (size_t)3 * info->block_bytes + 5, bytes;
        uint64_t seed = (unsigned)f;
        uint8_t *rows, *w;
        float want[768], got[768];

        if (!sl_fmt_has_blocks((enum sl_fmt)f))
            continue;
        bytes = (size_t)sl_matrix_bytes(&m);
        rows = malloc(m.rows * row_bytes);
        w = malloc(bytes);
        memset(w, 0xa5, bytes);
        for (uint32_t r = 0; r < m.rows; r++)
            test_blocks_make(rows + r * row_bytes, m.fmt, 3, 1, &seed);
        sl_pack_published(w, &m, rows, row_bytes, m.rows, pool);
        for (uint32_t r = 0; r < m.rows; r++) {
            sl_blocks_decode(want, m.fmt, rows + r * row_bytes, m.cols);
            sl_matrix_decode_row(got, &m,
                                 w + sl_matrix_block_offset(&m, 0, r / 16),
                                 NULL, r % 16);
            same_floats(got, want, m.cols, info->name);
        }
        for (size_t i = (size_t)sl_matrix_block_offset(&m, 0, 2); i < bytes;
             i++)
            assert_true(i % 64 / 4 < 9 || w[i] == 0);
        free(rows);
        free(w);
    }
    sl_pool_destroy(pool);
}

static void sizes_are_those_of_published_files(void **state)
{
    for (int f = 0; f < SL_FMT_COUNT; f++) {
        enum sl_fmt fmt = (enum sl_fmt)f, found;
        const struct sl_fmt_info *info = sl_fmt_of(fmt);
        const struct sl_block_shape *s;

        if (!sl_fmt_has_blocks(fmt))
            continue;
        s = sl_block_shape_of(fmt);
        assert_true(sl_fmt_find_ggml(&found, info->ggml_type));
        assert_int_equal(found, fmt);
        assert_int_equal(4 * (1 + s->share * sl_block_words(s)),
                         s->share * s->bytes);
        assert_true(sl_block_words(s) < SL_BLOCK_MAX_WORDS);
        for (uint32_t n = 1; n < 10; n++) {
            uint64_t own = sl_fmt_row_bytes(fmt, n * s->cols);

            assert_true(own >= (uint64_t)n * s->bytes);
            assert_true(own < (uint64_t)n * s->bytes + 4);
            assert_true(n % s->share != 0 || own == (uint64_t)n * s->bytes);
        }
    }
    assert_false(sl_fmt_find_ggml(&(enum sl_fmt){0}, 24)); /* I8 */
    assert_false(sl_fmt_find_ggml(&(enum sl_fmt){0}, 16)); /* IQ2_XXS */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(weights_are_what_the_formulas_say),
        cmocka_unit_test(every_exponent_of_mxfp4_is_exact),
        cmocka_unit_test(weights_are_what_ggml_makes_of_them),
        cmocka_unit_test(published_rows_lie_side_by_side),
        cmocka_unit_test(sizes_are_those_of_published_files),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
