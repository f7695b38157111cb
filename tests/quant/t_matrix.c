#include "config.h"

#include <math.h>
#include <string.h>

#include "quant/matrix.h"
#include "src/base/half.h"
#include "tests/support.h"

static const struct sl_matrix glm130b_4h = {
    SL_FMT_INT4, 65536, 12288, 2, 12288,
};

static void formats_are_found_by_their_names(void **state)
{
    static const char *const names[SL_FMT_COUNT] = {
        [SL_FMT_F32] = "f32",       [SL_FMT_F16] = "f16",
        [SL_FMT_BF16] = "bf16",     [SL_FMT_INT8] = "int8",
        [SL_FMT_INT4] = "int4",     [SL_FMT_Q4_0] = "q4_0",
        [SL_FMT_Q4_1] = "q4_1",     [SL_FMT_Q5_0] = "q5_0",
        [SL_FMT_Q5_1] = "q5_1",     [SL_FMT_Q8_0] = "q8_0",
        [SL_FMT_Q2_K] = "q2_k",     [SL_FMT_Q3_K] = "q3_k",
        [SL_FMT_Q4_K] = "q4_k",     [SL_FMT_Q5_K] = "q5_k",
        [SL_FMT_Q6_K] = "q6_k",     [SL_FMT_IQ4_NL] = "iq4_nl",
        [SL_FMT_IQ4_XS] = "iq4_xs", [SL_FMT_MXFP4] = "mxfp4",
    };
    enum sl_fmt fmt = SL_FMT_COUNT;

    for (int f = 0; f < SL_FMT_COUNT; f++) {
        assert_string_equal(sl_fmt_name((enum sl_fmt)f), names[f]);
        assert_true(sl_fmt_find(&fmt, names[f]));
        assert_int_equal(fmt, f);
    }
    assert_false(sl_fmt_find(&fmt, "int"));
    assert_false(sl_fmt_find(&fmt, "f321"));
    assert_false(sl_fmt_find(&fmt, ""));
}

/* What the parts of a line must have in common, whatever the format. */
static void every_line_of_the_table_agrees_with_itself(void **state)
{
    for (int i = 0; i < SL_FMT_COUNT; i++) {
        const struct sl_fmt_info *f = sl_fmt_of((enum sl_fmt)i);

        assert_non_null(f->load);
        assert_int_equal(f->store != NULL, f->is_float);
        assert_int_equal(f->scales == SL_SCALES_BESIDE,
                         sl_fmt_has_scales((enum sl_fmt)i));
        assert_int_equal(f->scales == SL_SCALES_INSIDE,
                         sl_fmt_has_blocks((enum sl_fmt)i));
        if (f->scales == SL_SCALES_INSIDE) { /* more in t_blocks.c */
            assert_false(f->is_float);
            assert_int_equal(f->elem_bytes, 1);
            assert_true(f->bits * f->block_cols < 8 * f->block_bytes);
            continue;
        }
        assert_int_equal(sl_fmt_row_bytes((enum sl_fmt)i, f->block_cols + 1),
                         2 * f->block_bytes);
        if (f->is_float) {
            assert_int_equal(f->elem_bytes, f->block_bytes);
            assert_int_equal(f->bits, 8 * f->elem_bytes);
            assert_int_equal(f->block_cols, 1);
            assert_int_equal(f->unit_cols, 0);
            continue;
        }
        /* four bytes of a row in each unit, and whole units in a block */
        assert_int_equal(f->elem_bytes, 1);
        assert_int_equal(f->block_cols % f->unit_cols, 0);
        assert_int_equal(f->block_bytes, f->block_cols / f->unit_cols * 4);
        assert_int_equal(f->bits * f->unit_cols, 32);
    }
}

static void sizes_follow_the_drawing(void **state)
{
    static const struct {
        struct sl_matrix m;
        uint32_t rows, blocks, groups; /* of a segment */
        uint64_t bytes, scale_bytes;
    } t[] = {
        {{SL_FMT_F32, 40, 7, 1, 0}, 40, 3, 0, 1120, 0},
        {{SL_FMT_F16, 40, 7, 2, 0}, 20, 2, 0, 560, 0},
        {{SL_FMT_BF16, 17, 7, 1, 0}, 17, 2, 0, 238, 0},
        {{SL_FMT_INT8, 40, 7, 1, 7}, 40, 3, 1, 384, 96},
        {{SL_FMT_INT4, 40, 7, 2, 7}, 20, 2, 1, 256, 128},
        {{SL_FMT_INT8, 16, 172, 1, 43}, 16, 1, 4, 2816, 128},
        {{SL_FMT_INT4, 1, 100, 1, 64}, 1, 1, 2, 832, 64},
        {{SL_FMT_INT4, 1, 20, 1, 64}, 1, 1, 1, 192, 32},
        {{SL_FMT_Q8_0, 40, 64, 1, 0}, 40, 3, 0, 3 * 16 * 2 * 34, 0},
        {{SL_FMT_Q4_0, 40, 32, 2, 0}, 20, 2, 0, 64 * 20, 0},
        {{SL_FMT_Q6_K, 17, 768, 1, 0}, 17, 2, 0, 32 * (3 * 210 + 2), 0},
    };

    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        const struct sl_matrix *m = &t[i].m;
        struct sl_error err;

        assert_ok(sl_matrix_check(m, &err), &err);
        assert_int_equal(sl_matrix_segment_rows(m), t[i].rows);
        assert_int_equal(sl_matrix_segment_blocks(m), t[i].blocks);
        assert_int_equal(sl_matrix_groups(m), t[i].groups);
        assert_int_equal(sl_matrix_bytes(m), t[i].bytes);
        assert_int_equal(sl_matrix_scale_bytes(m), t[i].scale_bytes);
    }
    assert_int_equal(sl_matrix_bytes(&glm130b_4h), 402653184);
    assert_int_equal(sl_matrix_scale_bytes(&glm130b_4h), 131072);
}

static void sizes_beyond_32_bits_are_right(void **state)
{
    struct sl_matrix m = {SL_FMT_F32, 1u << 28, 1u << 28, 2, 0};
    struct sl_error err;

    assert_ok(sl_matrix_check(&m, &err), &err);
    assert_true(sl_matrix_bytes(&m) == UINT64_C(1) << 58);
    m.fmt = SL_FMT_INT8;
    m.group_cols = 1;
    assert_true(sl_matrix_bytes(&m) == UINT64_C(1) << 56);
    assert_true(sl_matrix_scale_bytes(&m) == UINT64_C(1) << 57);
    assert_true(sl_matrix_block_offset(&m, 1, 1) ==
                (UINT64_C(1) << 55) + (UINT64_C(1) << 32));
}

static void blocks_tile_every_segment(void **state)
{
    static const uint32_t rows[] = {1, 15, 16, 17, 40, 64};

    for (int fmt = 0; fmt < SL_FMT_COUNT; fmt++) {
        bool blocks = sl_fmt_has_blocks((enum sl_fmt)fmt);

        for (size_t i = 0; i < 12; i++) {
            uint32_t n_segments = 1 + (uint32_t)i / 6;
            struct sl_matrix m = {
                (enum sl_fmt)fmt,
                rows[i % 6] * n_segments,
                blocks ? 3 * sl_fmt_of((enum sl_fmt)fmt)->block_cols : 21,
                n_segments,
                sl_fmt_has_scales((enum sl_fmt)fmt) ? 8 : 0,
            };
            uint32_t n_blocks = sl_matrix_segment_blocks(&m);
            uint64_t off = 0, scale_off = 0;

            for (uint32_t s = 0; s < n_segments; s++) {
                for (uint32_t b = 0; b < n_blocks; b++) {
                    assert_int_equal(sl_matrix_block_offset(&m, s, b), off);
                    assert_int_equal(sl_matrix_scale_offset(&m, s, b),
                                     scale_off);
                    off += sl_matrix_block_bytes(&m, b, 1);
                    scale_off += sl_matrix_scale_block_bytes(&m, 1);
                }
                assert_int_equal(sl_matrix_block_bytes(&m, 0, n_blocks),
                                 off / (s + 1));
            }
            assert_int_equal(sl_matrix_bytes(&m), off);
            assert_int_equal(sl_matrix_scale_bytes(&m), scale_off);
        }
    }
}

static void impossible_matrices_are_refused(void **state)
{
    static const struct sl_matrix bad[] = {
        {SL_FMT_COUNT, 4, 4, 1, 0},
        {(enum sl_fmt)(-1), 4, 4, 1, 0},
        {SL_FMT_F32, 0, 4, 1, 0},
        {SL_FMT_F32, 4, 0, 1, 0},
        {SL_FMT_F32, (1u << 28) + 1, 4, 1, 0},
        {SL_FMT_F32, 4, UINT32_MAX, 1, 0},
        {SL_FMT_F32, 4, 4, 0, 0},
        {SL_FMT_F32, 6, 4, 3, 0},
        {SL_FMT_F32, 5, 4, 2, 0},
        {SL_FMT_F16, 4, 4, 1, 32},
        {SL_FMT_BF16, 4, 4, 1, 4},
        {SL_FMT_INT8, 4, 4, 1, 0},
        {SL_FMT_INT4, 4, 4, 1, UINT32_MAX},
        {SL_FMT_Q8_0, 4, 33, 1, 0},
        {SL_FMT_Q4_K, 4, 128, 1, 0},
        {SL_FMT_Q4_K, 4, 256, 1, 32},
    };

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct sl_error err = {.code = SL_OK};

        assert_int_equal(sl_matrix_check(&bad[i], &err), -1);
        assert_int_equal(err.code, SL_ERR_CORRUPT);
    }
}

/* 16 rows x 5 columns in groups of 3: two units, two scales a row; the
 * second unit holds column 4 and three columns of fill. */
static void int8_bytes_are_where_the_drawing_says(void **state)
{
    static const struct sl_matrix m = {SL_FMT_INT8, 16, 5, 1, 3};
    uint8_t w[128];
    uint16_t scale[32];
    float out[5];

    memset(w, 128, sizeof w);
    for (unsigned r = 0; r < 16; r++) {
        scale[r] = sl_float_to_half(0.5f + (float)r);
        scale[16 + r] = sl_float_to_half(0.0f);
    }
    /* row 2: -128 -1 0 | 7 127 */
    memcpy(w + 8, (uint8_t[]){0, 127, 128, 135}, 4);
    w[64 + 8] = 255;
    scale[16 + 2] = 0x3400; /* 0.25 */
    sl_matrix_decode_row(out, &m, w, scale, 2);
    assert_memory_equal(out, ((float[]){-320.0f, -2.5f, 0.0f, 1.75f, 31.75f}),
                        sizeof out);
    sl_matrix_decode_row(out, &m, w, scale, 3);
    assert_memory_equal(out, ((float[]){0, 0, 0, 0, 0}), sizeof out);
}

/* 16 rows x 10 columns in groups of 8: two units; low nibbles are columns
 * 8u .. 8u+3, high nibbles 8u+4 .. 8u+7. */
static void int4_bytes_are_where_the_drawing_says(void **state)
{
    static const struct sl_matrix m = {SL_FMT_INT4, 16, 10, 1, 8};
    uint8_t w[128];
    uint16_t scale[32] = {0};
    float out[10];

    memset(w, 0x88, sizeof w);
    /* row 15: -8 -7 -6 -5  7 6 5 4 | 3 -1 */
    memcpy(w + 60, (uint8_t[]){0xf0, 0xe1, 0xd2, 0xc3}, 4);
    memcpy(w + 64 + 60, (uint8_t[]){0x8b, 0x87}, 2);
    scale[15] = 0x3c00;      /* 1 */
    scale[16 + 15] = 0x4000; /* 2 */
    sl_matrix_decode_row(out, &m, w, scale, 15);
    assert_memory_equal(
        out, ((float[]){-8, -7, -6, -5, 7, 6, 5, 4, 6.0f, -2.0f}), sizeof out);
}

static void float_rows_are_dense(void **state)
{
    static const struct sl_matrix m32 = {SL_FMT_F32, 3, 3, 1, 0};
    static const struct sl_matrix m16 = {SL_FMT_F16, 3, 3, 1, 0};
    static const struct sl_matrix mb = {SL_FMT_BF16, 3, 3, 1, 0};
    static const uint16_t wb[] = {0,      0,      0,      0x3f80, 0xbf80,
                                  0x7f7f, 0x0001, 0x8000, 0x3eab};
    static const float w32[] = {1, 2, 3, 4, 5, 6, 1e-40f, -0.0f, 9e37f};
    static const uint16_t w16[] = {0,      0,      0,      0x3c00, 0xbc00,
                                   0x7bff, 0x0001, 0x8000, 0x3555};
    float out[3];

    sl_matrix_decode_row(out, &m32, w32, NULL, 2);
    assert_memory_equal(out, w32 + 6, sizeof out);
    sl_matrix_decode_row(out, &m16, w16, NULL, 1);
    assert_memory_equal(out, ((float[]){1, -1, 65504}), sizeof out);
    sl_matrix_decode_row(out, &m16, w16, NULL, 2);
    assert_memory_equal(out, ((float[]){0x1p-24f, -0.0f, 0.333251953125f}),
                        sizeof out);
    sl_matrix_decode_row(out, &mb, wb, NULL, 1);
    assert_memory_equal(out, ((float[]){1, -1, 0x1.fep127f}), sizeof out);
    sl_matrix_decode_row(out, &mb, wb, NULL, 2);
    assert_memory_equal(out, ((float[]){0x1p-133f, -0.0f, 0.333984375f}),
                        sizeof out);
}

/* All of them, infinities, subnormals and payloads of NaN included; a NaN
 * comes back quiet. */
static void every_bf16_is_the_float_that_it_begins(void **state)
{
    const struct sl_fmt_info *f = sl_fmt_of(SL_FMT_BF16);

    for (uint32_t h = 0; h < 65536; h++) {
        uint16_t stored = (uint16_t)h, back;
        bool nan = (h & 0x7fff) > 0x7f80;
        uint32_t bits;
        float x;

        f->load(&x, &stored, 0, 1);
        memcpy(&bits, &x, sizeof bits);
        assert_int_equal(bits, h << 16);
        f->store(&back, &x, 1);
        assert_int_equal(back, nan ? h | 0x40 : h);
    }
}

/* Of the two neighbours the nearer one, of two as near the even one. */
static void floats_become_the_nearest_bf16(void **state)
{
    const struct sl_fmt_info *f = sl_fmt_of(SL_FMT_BF16);

    for (uint32_t i = 0; i < 1u << 20; i++) {
        uint32_t bits = i * 2654435761u, low, high;
        uint16_t got;
        float x, a, b;

        if (i % 4 == 0) /* a tie */
            bits = (bits & 0xffff0000u) | 0x8000u;
        low = bits >> 16;
        high = low + 1;
        memcpy(&x, &bits, sizeof x);
        f->store(&got, &x, 1);
        if ((bits & 0x7fffffffu) > 0x7f800000u) {
            assert_int_equal(got, low | 0x40);
            continue;
        }
        if ((high & 0x7fff) >= 0x7f80) /* the largest: tested by itself */
            continue;
        f->load(&a, &(uint16_t){(uint16_t)low}, 0, 1);
        f->load(&b, &(uint16_t){(uint16_t)high}, 0, 1);
        if (fabs((double)x - (double)a) == fabs((double)b - (double)x))
            assert_int_equal(got, low % 2 ? high : low);
        else
            assert_int_equal(got, fabs((double)x - (double)a) <
                                          fabs((double)b - (double)x)
                                      ? low
                                      : high);
    }
}

static void ends_of_bf16_round_as_the_standard_says(void **state)
{
    static const struct {
        uint32_t bits;
        uint16_t want;
    } t[] = {
        {0x7f7f7fff, 0x7f7f}, {0x7f7f8000, 0x7f80}, {0xff7fffff, 0xff80},
        {0x7f800000, 0x7f80}, {0xff800000, 0xff80}, {0x7f800001, 0x7fc0},
        {0xffa12345, 0xffe1}, {0x7fc00000, 0x7fc0}, {0x00008000, 0x0000},
        {0x00008001, 0x0001}, {0x00018000, 0x0002}, {0x80000001, 0x8000},
        {0x007fffff, 0x0080}, /* the least that is normal */
    };

    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        uint16_t got;
        float x;

        memcpy(&x, &t[i].bits, sizeof x);
        sl_fmt_of(SL_FMT_BF16)->store(&got, &x, 1);
        assert_int_equal(got, t[i].want);
    }
}

/* Every scale and every weight value: the product is the exact one, rounded
 * once to FP32. */
static void decoding_is_exact(void **state)
{
    static const struct sl_matrix m = {SL_FMT_INT8, 1, 256, 1, 256};
    uint8_t w[4096];
    uint16_t scale[16] = {0};
    float out[256];

    memset(w, 128, sizeof w);
    for (size_t c = 0; c < 256; c++)
        w[c / 4 * 64 + c % 4] = (uint8_t)c;
    for (uint32_t h = 0; h < 0x7c00; h += 7) {
        scale[0] = (uint16_t)h;
        sl_matrix_decode_row(out, &m, w, scale, 0);
        for (int c = 0; c < 256; c++) {
            double exact =
                (double)(c - 128) * (double)sl_half_to_float((uint16_t)h);

            if ((double)out[c] != exact)
                fail_msg("%d x half %#x is %a, not %a", c - 128, h,
                         (double)out[c], exact);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(formats_are_found_by_their_names),
        cmocka_unit_test(every_line_of_the_table_agrees_with_itself),
        cmocka_unit_test(sizes_follow_the_drawing),
        cmocka_unit_test(sizes_beyond_32_bits_are_right),
        cmocka_unit_test(blocks_tile_every_segment),
        cmocka_unit_test(impossible_matrices_are_refused),
        cmocka_unit_test(int8_bytes_are_where_the_drawing_says),
        cmocka_unit_test(int4_bytes_are_where_the_drawing_says),
        cmocka_unit_test(float_rows_are_dense),
        cmocka_unit_test(every_bf16_is_the_float_that_it_begins),
        cmocka_unit_test(floats_become_the_nearest_bf16),
        cmocka_unit_test(ends_of_bf16_round_as_the_standard_says),
        cmocka_unit_test(decoding_is_exact),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
