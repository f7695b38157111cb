#include "config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#include "quant/blocks.h"
#include "quant/planes.h"
#include "src/base/bytes.h"
#include "src/base/half.h"
#include "tests/block_maker.h"
#include "tests/model_maker.h"
#include "tests/support.h"

/* splitmix64 (Steele, Lea, Flood 2014) */
static uint64_t draw(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* Uniform in [-1, 1). */
static float draw_float(uint64_t *state)
{
    return (float)(int64_t)draw(state) * 0x1p-63f;
}

void test_model_init(struct test_model *m)
{
    *m = (struct test_model){
        .arch = &sl_arch_glm130b,
        .hp =
            {
                .n_layers = 2,
                .hidden = 64,
                .inner = 88,
                .n_heads = 4,
                .vocab = 160,
                .max_positions = 128,
                .norm_eps = 1e-5f,
                .glu = true,
                .rotary = SL_ROTARY_EXACT,
                .text.whitespace = SL_WHITESPACE_TOKENS,
                .text.n_tokens = 150,
                .text.special =
                    {
                        .mask = 140,
                        .gmask = 141,
                        .smask = 142,
                        .eod = 143,
                        .sop = 144,
                        .eop = 145,
                        .enc = 146,
                        .dblock = 147,
                        .eos = 2,
                        .unk = 0,
                    },
            },
        .fmt = SL_FMT_F16,
        .head_fmt = SL_FMT_F16,
        .seed = 1,
    };
}

static void choose_geometry(struct sl_layout_matrix *g,
                            const struct sl_tensor_spec *spec,
                            const struct test_model *m)
{
    bool head = spec->role == SL_ROLE_EMBED;
    enum sl_fmt fmt = head ? m->head_fmt : m->fmt;
    bool expert = spec->role == SL_ROLE_EXPERT;
    uint32_t group = head ? m->head_group : m->group_cols;

    if (spec->role == SL_ROLE_ROUTER)
        fmt = SL_FMT_F32;
    g->geom = (struct sl_matrix){
        .fmt = fmt,
        .rows = spec->rows,
        .cols = spec->cols,
        .n_segments = spec->n_segments,
    };
    if (!sl_fmt_has_scales(fmt))
        return;
    g->planes = m->planes == TEST_PLANES && !head && !expert;
    g->scale_resident = group == 0 && !expert;
    if (group == 0) {
        group = spec->cols;
        if (spec->split == SL_SPLIT_COLS && m->tp > 1)
            group /= m->tp;
    }
    g->geom.group_cols = group;
}

void test_model_layout(struct sl_layout *layout, const struct test_model *m)
{
    struct sl_layout_config config = {
        .arch = m->arch,
        .hp = &m->hp,
        .name = "random",
        .quant = sl_fmt_name(m->fmt),
        .tokenizer_bytes = m->tokenizer_bytes,
    };
    /* Of a layer, then the head and what is looked up, then experts. */
    size_t most = (size_t)m->hp.n_layers * m->arch->n_layer_rows +
                  m->arch->n_model_rows +
                  sl_arch_n_expert_matrices(m->arch, &m->hp);
    struct sl_layout_matrix *matrices = calloc(most, sizeof *matrices);
    struct sl_hparams hp = m->hp;
    struct sl_tensor_spec spec;
    struct sl_error err;

    assert_non_null(matrices);
    sl_arch_derive(config.arch, &hp);
    for (uint32_t i = 0; sl_arch_tensor(config.arch, &spec, &hp, i); i++) {
        if (spec.role == SL_ROLE_VECTOR)
            continue;
        assert_true(config.n_matrices < most);
        choose_geometry(&matrices[config.n_matrices++], &spec, m);
    }
    config.matrices = matrices;
    assert_ok(sl_layout_init(layout, &config, &err), &err);
    free(matrices);
}

static void fill_vector(uint8_t *image, const struct sl_model_small *v,
                        uint64_t *state)
{
    /* Gains lie around one, biases around zero. */
    float middle = sl_slot_is_gain(v->spec.slot) ? 1 : 0;
    uint32_t bits;

    for (uint32_t i = 0; i < v->spec.rows; i++) {
        float x = middle + 0.2f * draw_float(state);

        memcpy(&bits, &x, sizeof bits);
        sl_store_u32(image + v->off + (size_t)i * 4, bits);
    }
}

static void fill_float(uint8_t *image, const struct sl_model_matrix *m,
                       uint64_t *state)
{
    size_t n = (size_t)m->geom.rows * m->geom.cols;
    float most = sqrtf(3.0f / (float)m->geom.cols); /* variance 1 / cols */
    const struct sl_fmt_info *f = sl_fmt_of(m->geom.fmt);

    for (size_t i = 0; i < n; i++) {
        float x = most * draw_float(state);

        f->store(image + m->off + i * f->elem_bytes, &x, 1);
    }
}

/* One block as quant/matrix.h draws it, n of its 16 rows real; most: the
 * largest integer of INT8. */
static void fill_block(uint8_t *w, uint8_t *scale, const struct sl_matrix *m,
                       uint32_t n, unsigned most, uint64_t *state)
{
    bool int8 = m->fmt == SL_FMT_INT8;
    uint32_t cols = (m->cols + 7) / 8 * 8, groups = sl_matrix_groups(m);
    /* q is uniform: its deviation is 73.3 and 4.6. */
    float unit = 1 / ((int8 ? 73.3f : 4.6f) * sqrtf((float)m->cols));

    memset(w, int8 ? 0x80 : 0x88, (size_t)cols * (int8 ? 16 : 8));
    for (uint32_t r = 0; r < n; r++) {
        for (uint32_t c = 0; c < m->cols; c++) {
            unsigned q = (unsigned)(draw(state) >> 40);

            if (int8) {
                w[64 * (c / 4) + 4 * r + c % 4] =
                    (uint8_t)(128 - most + q % (2 * most + 1));
            } else {
                unsigned shift = c % 8 / 4 * 4;
                uint8_t *b = &w[64 * (c / 8) + 4 * r + c % 4];

                *b = (uint8_t)((*b & ~(15u << shift)) | q % 16 << shift);
            }
        }
        for (uint32_t g = 0; g < groups; g++)
            sl_store_u16(
                scale + 2 * (16 * (size_t)g + r),
                sl_float_to_half(unit * (1 + 0.5f * draw_float(state))));
    }
}

/* The same of ggml's blocks, with weights of variance 1 / cols. */
static void fill_blocks(uint8_t *w, const struct sl_matrix *m, uint32_t n,
                        uint64_t *state)
{
    const struct sl_fmt_info *f = sl_fmt_of(m->fmt);
    size_t n_blocks = m->cols / f->block_cols;
    uint8_t *blocks = malloc(n_blocks * f->block_bytes);

    assert_non_null(blocks);
    for (uint32_t r = 0; r < n; r++) {
        test_blocks_make(blocks, m->fmt, n_blocks, 1 / sqrt((double)m->cols),
                         state);
        sl_blocks_pack(w + (size_t)4 * r, 64, m->fmt, blocks, m->cols);
    }
    free(blocks);
}

/* An INT8 block of a matrix to both of its planes. */
static void fill_planes(uint8_t *image, const struct sl_model_matrix *m,
                        const uint8_t *w, uint32_t segment, uint32_t block)
{
    struct sl_matrix plane = sl_matrix_plane(&m->geom);
    uint64_t at = sl_matrix_block_offset(&plane, segment, block);

    sl_planes_split(image + m->off + at, image + m->low_off + at, w,
                    (size_t)sl_matrix_block_bytes(&m->geom, 0, 1));
}

static void fill_packed(uint8_t *image, const struct sl_model_matrix *m,
                        unsigned most, uint64_t *state)
{
    const struct sl_matrix *g = &m->geom;
    uint32_t rows = sl_matrix_segment_rows(g);
    uint8_t *both = malloc((size_t)sl_matrix_block_bytes(g, 0, 1));

    assert_non_null(both);
    for (uint32_t s = 0; s < g->n_segments; s++) {
        for (uint32_t b = 0; b < sl_matrix_segment_blocks(g); b++) {
            uint32_t left = rows - b * SL_BLOCK_ROWS;
            uint32_t n = left < SL_BLOCK_ROWS ? left : SL_BLOCK_ROWS;
            uint8_t *w = image + m->off + sl_matrix_block_offset(g, s, b);

            if (m->low_bytes > 0)
                w = both;
            if (sl_fmt_has_blocks(g->fmt))
                fill_blocks(w, g, n, state);
            else
                fill_block(
                    w, image + m->scale_off + sl_matrix_scale_offset(g, s, b),
                    g, n, most, state);
            if (m->low_bytes > 0)
                fill_planes(image, m, both, s, b);
        }
    }
    free(both);
}

void test_model_seal(struct sl_layout *layout, uint8_t *image)
{
    struct sl_error err;
    uint8_t *header;

    for (size_t i = 0; i < layout->n_sections; i++) {
        struct sl_model_section *s = &layout->sections[i];

        s->xxh3 = XXH3_64bits(image + s->off, s->bytes);
    }
    assert_ok(sl_layout_header(layout, &header, &err), &err);
    memcpy(image, header, layout->header_bytes);
    free(header);
}

uint8_t *test_model_image(const struct test_model *m, size_t *bytes)
{
    uint64_t state = m->seed;
    struct sl_layout layout;
    uint8_t *image;

    test_model_layout(&layout, m);
    image = calloc(layout.file_bytes, 1);
    assert_non_null(image);
    for (size_t i = 0; i < layout.n_small; i++)
        fill_vector(image, &layout.small[i], &state);
    for (size_t i = 0; i < layout.n_matrices; i++) {
        const struct sl_model_matrix *x = &layout.matrices[i];

        if (sl_fmt_is_float(x->geom.fmt))
            fill_float(image, x, &state);
        else
            fill_packed(image, x,
                        m->planes != TEST_NO_PLANES ? SL_PLANES_MOST : 127,
                        &state);
    }
    if (m->tokenizer_bytes > 0)
        memcpy(image + layout.tokenizer_off, m->tokenizer, m->tokenizer_bytes);
    test_model_seal(&layout, image);
    *bytes = layout.file_bytes;
    sl_layout_fini(&layout);
    return image;
}

void test_write_file(const char *path, const void *data, size_t bytes)
{
    FILE *f = fopen(path, "wb");

    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, bytes, f), bytes);
    assert_int_equal(fclose(f), 0);
}

void test_model_write(const char *path, const struct test_model *m)
{
    size_t bytes;
    uint8_t *image = test_model_image(m, &bytes);

    test_write_file(path, image, bytes);
    free(image);
}
