#include "config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "quant/blocks.h"
#include "src/base/bytes.h"
#include "src/convert/synth.h"
#include "src/model/modelfile.h"
#include "src/runtime/runtime.h"
#include "tests/support.h"

static char dir[1024];
static char path[1100];

static int set_up(void **state)
{
    test_temp_dir(dir);
    snprintf(path, sizeof path, "%s/m.gguf", dir);
    return 0;
}

static int tear_down(void **state)
{
    test_remove_tree(dir);
    return 0;
}

/* No side is a multiple of 16, one is none of 8. */
static const struct sl_hparams odd = {
    .n_layers = 2,
    .hidden = 72,
    .inner = 45,
    .n_heads = 6,
    .vocab = 133,
    .max_positions = 64,
    .norm_eps = 1e-5f,
    .glu = true,
    .text.special = {-1, -1, -1, -1, -1, -1, -1, -1, -1, -1},
};

static struct sl_synth_options options_of(const struct sl_hparams *hp,
                                          const char *quant)
{
    return (struct sl_synth_options){
        .arch = &sl_arch_glm130b,
        .hp = *hp,
        .name = "random",
        .output = path,
        .quant = quant,
        .force = true,
        .quiet = true,
    };
}

static void make(const struct sl_synth_options *o)
{
    struct sl_synth_result r;
    struct sl_error err;

    assert_ok(sl_synth(&r, o, &err), &err);
    assert_string_equal(r.output, path);
    sl_synth_result_fini(&r);
}

static const char *const quants[] = {
    "f32",      "f16",      "bf16",     "int8",     "int4",
    "int8-g32", "int8-g64", "int4-g32", "int4-g64", "int4-g128",
};

static void every_format_makes_a_file_with_right_checksums(void **state)
{
    for (size_t i = 0; i < sizeof quants / sizeof *quants; i++) {
        struct sl_synth_options o = options_of(&odd, quants[i]);
        struct sl_modelfile mf;
        struct sl_error err;

        make(&o);
        assert_ok(sl_modelfile_open(&mf, path, &err), &err);
        assert_string_equal(mf.quant, quants[i]);
        assert_string_equal(mf.name, "random");
        assert_ok(sl_modelfile_verify(&mf, true, &err), &err);
        sl_modelfile_close(&mf);
    }
}

/* The bytes of a matrix and of its scales. */
struct loaded {
    const struct sl_model_matrix *m;
    uint8_t *w;
    uint16_t *scale;
};

static void load(struct loaded *l, const struct sl_modelfile *mf, size_t i)
{
    struct sl_error err;

    l->m = &mf->matrices[i];
    l->w = malloc(l->m->bytes);
    l->scale = malloc(l->m->scale_bytes + 1);
    assert_ok(sl_modelfile_read(mf, l->w, l->m->off, l->m->bytes, &err), &err);
    if (l->m->scale_bytes > 0)
        assert_ok(sl_modelfile_read(mf, l->scale, l->m->scale_off,
                                    l->m->scale_bytes, &err),
                  &err);
}

static void unload(struct loaded *l)
{
    free(l->w);
    free(l->scale);
}

/* Sums over all rows and columns that are there. *mean: in deviations of the
 * mean of so many numbers drawn independently. */
static void measure(const struct loaded *l, double *mean, double *deviation)
{
    const struct sl_matrix *g = &l->m->geom;
    double sum = 0, squares = 0, n = (double)g->rows * g->cols;
    uint32_t rows = sl_matrix_segment_rows(g);
    float *row = malloc(g->cols * sizeof *row);

    for (uint32_t r = 0; r < g->rows; r++) {
        uint32_t segment = r / rows, block = r % rows / SL_BLOCK_ROWS;
        uint64_t at = sl_matrix_block_offset(g, segment, block);
        uint64_t scale_at = sl_matrix_scale_offset(g, segment, block);

        sl_matrix_decode_row(
            row, g, l->w + at,
            (const uint16_t *)(const void *)((const uint8_t *)l->scale +
                                             scale_at),
            r % rows % SL_BLOCK_ROWS);
        for (uint32_t c = 0; c < g->cols; c++) {
            sum += (double)row[c];
            squares += (double)row[c] * (double)row[c];
        }
    }
    *mean = sum / sqrt(squares);
    *deviation = sqrt(squares / n);
    free(row);
}

static void weights_keep_the_size_of_their_inputs(void **state)
{
    for (size_t i = 0; i < sizeof quants / sizeof *quants; i++) {
        struct sl_synth_options o = options_of(&odd, quants[i]);
        struct sl_modelfile mf;
        struct sl_error err;

        make(&o);
        assert_ok(sl_modelfile_open(&mf, path, &err), &err);
        for (size_t k = 0; k < mf.n_matrices; k++) {
            struct loaded l;
            double mean, deviation, wanted;

            load(&l, &mf, k);
            measure(&l, &mean, &deviation);
            wanted = 1 / sqrt((double)l.m->geom.cols);
            assert_true(fabs(deviation / wanted - 1) < 0.05);
            assert_true(fabs(mean) < 4);
            unload(&l);
        }
        sl_modelfile_close(&mf);
    }
}

/* ggml's blocks: rows of whole ones. MXFP4's scales are powers of two. What
 * minima add is drawn once for a run of weights. */
static void check_blocks(const struct loaded *l)
{
    const struct sl_matrix *g = &l->m->geom;
    uint32_t rows = sl_matrix_segment_rows(g), in_last = rows % SL_BLOCK_ROWS;
    uint64_t last = sl_matrix_block_offset(g, 0, rows / SL_BLOCK_ROWS);
    double mean, deviation, wanted = 1 / sqrt((double)g->cols);
    double most = g->fmt == SL_FMT_MXFP4 ? 1 : 0.08;
    double bias = sl_block_shape_of(g->fmt)->mins == SL_MINS_NONE ? 4 : 16;

    measure(l, &mean, &deviation);
    if (fabs(deviation / wanted - 1) > most || fabs(mean) > bias)
        fail_msg("%s: deviation %g, mean %g of %g", sl_fmt_name(g->fmt),
                 deviation, mean, wanted);
    for (uint64_t i = last;
         in_last > 0 && g->n_segments == 1 && i < l->m->bytes; i++)
        assert_true(i % 64 / 4 < in_last || l->w[i] == 0);
}

static void blocks_of_published_files_can_be_made(void **state)
{
    struct sl_hparams hp = odd;

    hp.hidden = hp.inner = 256;
    hp.n_heads = 8;
    for (int f = 0; f < SL_FMT_COUNT; f++) {
        struct sl_synth_options o =
            options_of(&hp, sl_fmt_name((enum sl_fmt)f));
        struct sl_modelfile mf;
        struct sl_error err;

        if (!sl_fmt_has_blocks((enum sl_fmt)f))
            continue;
        make(&o);
        assert_ok(sl_modelfile_open(&mf, path, &err), &err);
        assert_ok(sl_modelfile_verify(&mf, true, &err), &err);
        for (size_t k = 0; k < mf.n_matrices; k++) {
            struct loaded l;

            load(&l, &mf, k);
            assert_int_equal(l.m->geom.fmt, f);
            check_blocks(&l);
            unload(&l);
        }
        sl_modelfile_close(&mf);
    }
}

/* -8 has no counterpart: it stands for 0. */
static void nibbles_are_uniform_and_their_mean_is_zero(void **state)
{
    struct sl_synth_options o = options_of(&odd, "int4");
    unsigned count[2][16] = {{0}};
    struct sl_modelfile mf;
    struct sl_error err;
    struct loaded l;

    o.hp.hidden = 768; /* without fill-up */
    o.hp.inner = 512;
    make(&o);
    assert_ok(sl_modelfile_open(&mf, path, &err), &err);
    load(&l, &mf, 0);
    for (uint64_t i = 0; i < l.m->bytes; i++) {
        count[0][l.w[i] & 15]++;
        count[1][l.w[i] >> 4]++;
    }
    for (unsigned q = 0; q < 32; q++) {
        double share = (double)count[q / 16][q % 16] / (double)l.m->bytes;
        double wanted = q % 16 == 0 ? 0 : q % 16 == 8 ? 2 : 1;

        assert_true(fabs(share * 16 - wanted) < 0.02);
    }
    unload(&l);
    sl_modelfile_close(&mf);
}

/* quant/matrix.h: zero weights, and zero scales for rows. */
static void check_fill_up(const struct loaded *l)
{
    const struct sl_matrix *g = &l->m->geom;
    uint32_t blocks = sl_matrix_segment_blocks(g);
    uint32_t rows = sl_matrix_segment_rows(g), wide = (g->cols + 7) / 8 * 8;
    uint64_t block_bytes = sl_matrix_block_bytes(g, 0, 1);
    bool int4 = g->fmt == SL_FMT_INT4;

    for (uint32_t b = 0; b < blocks * g->n_segments; b++) {
        for (uint32_t r = 0; r < SL_BLOCK_ROWS; r++) {
            bool there = b % blocks * SL_BLOCK_ROWS + r < rows;

            for (uint32_t c = there ? g->cols : 0; c < wide; c++) {
                const uint8_t *at = l->w + b * block_bytes + 4 * r + c % 4 +
                                    c / (int4 ? 8 : 4) * 64;

                if (int4)
                    assert_int_equal(*at >> (c % 8 / 4 * 4) & 15, 8);
                else
                    assert_int_equal(*at, 128);
            }
            for (uint32_t k = 0; k < sl_matrix_groups(g); k++) {
                uint32_t at = (b * sl_matrix_groups(g) + k) * SL_BLOCK_ROWS + r;

                assert_true(there == (l->scale[at] != 0));
            }
        }
    }
}

static void rows_and_columns_are_filled_up_with_zeros(void **state)
{
    for (size_t i = 2; i < sizeof quants / sizeof *quants; i++) {
        struct sl_synth_options o = options_of(&odd, quants[i]);
        struct sl_modelfile mf;
        struct sl_error err;

        make(&o);
        assert_ok(sl_modelfile_open(&mf, path, &err), &err);
        for (size_t k = 0; k < mf.n_matrices; k++) {
            struct loaded l;

            load(&l, &mf, k);
            if (!sl_fmt_is_float(l.m->geom.fmt))
                check_fill_up(&l);
            unload(&l);
        }
        sl_modelfile_close(&mf);
    }
}

static void bytes_follow_from_the_seed_not_from_the_threads(void **state)
{
    struct sl_synth_options o = options_of(&odd, "int4-g32");
    size_t n[3];
    uint8_t *data[3];

    for (int i = 0; i < 3; i++) {
        o.threads = i == 1 ? 7 : 1;
        o.seed = i == 2;
        make(&o);
        data[i] = test_read_file(path, &n[i]);
    }
    assert_int_equal(n[0], n[1]);
    assert_memory_equal(data[0], data[1], n[0]);
    assert_int_equal(n[0], n[2]);
    assert_true(memcmp(data[0] + n[0] / 2, data[2] + n[0] / 2, 4096) != 0);
    for (int i = 0; i < 3; i++)
        free(data[i]);
}

static void vectors_are_norms_near_one_and_small_biases(void **state)
{
    struct sl_synth_options o = options_of(&odd, "f16");
    struct sl_modelfile mf;
    struct sl_error err;

    make(&o);
    assert_ok(sl_modelfile_open(&mf, path, &err), &err);
    for (size_t i = 0; i < mf.n_small; i++) {
        const struct sl_model_small *v = &mf.small[i];
        bool norm = strstr(v->spec.name, "layernorm.weight") != NULL;
        float *x = malloc(v->bytes);

        assert_ok(sl_modelfile_read(&mf, x, v->off, v->bytes, &err), &err);
        for (uint32_t k = 0; k < v->spec.rows; k++)
            assert_true(fabsf(x[k] - (norm ? 1.0f : 0.0f)) <= 0.1f);
        free(x);
    }
    sl_modelfile_close(&mf);
}

static void logits_are_finite(void **state)
{
    static const int32_t ids[] = {5, 17, 3, 99};
    static const int32_t positions[] = {0, 1, 2, 3};
    struct sl_lm_item item = {.ids = ids,
                              .positions = positions,
                              .n = 4,
                              .n_context = 3,
                              .n_logits = 4};
    struct sl_workload load = {.n_sequences = 1,
                               .max_tokens = 8,
                               .pass_positions = 4,
                               .pass_logits = 4,
                               .n_texts = 1};
    float *logits = malloc(4 * odd.vocab * sizeof *logits);

    for (size_t i = 0; i < sizeof quants / sizeof *quants; i++) {
        struct sl_synth_options o = options_of(&odd, quants[i]);
        struct sl_runtime_config config = {.model = path, .quiet = true};
        double squares = 0;
        struct sl_runtime *rt;
        struct sl_error err;
        struct sl_lm *lm;

        make(&o);
        assert_ok(sl_runtime_open(&rt, &config, &err), &err);
        assert_ok(sl_runtime_start(rt, &load, &err), &err);
        lm = sl_runtime_lm(rt);
        assert_ok(lm->ops->seq_create(lm, &item.seq, &err), &err);
        assert_ok(lm->ops->forward(lm, &item, 1, logits, &err), &err);
        for (uint32_t k = 0; k < 4 * odd.vocab; k++) {
            assert_true(isfinite(logits[k]));
            squares += (double)logits[k] * (double)logits[k];
        }
        /* Normed activations times rows of length one. */
        assert_true(fabs(squares / (4 * odd.vocab) - 1) < 0.5);
        sl_runtime_close(rt);
    }
    free(logits);
}

static void presets_have_their_shapes(void **state)
{
    static const struct {
        const char *name;
        uint32_t layers, hidden, inner, heads, vocab;
        bool glu;
    } wanted[] = {
        {"glm-130b", 70, 12288, 32768, 96, 150528, true},
        {"glm-10b", 48, 4096, 16384, 64, 50304, false},
        {"chatglm-6b", 28, 4096, 16384, 32, 130528, false},
        {"glm-4-9b", 40, 4096, 13696, 32, 151552, true},
        {"glm-4-32b", 61, 6144, 23040, 48, 151552, true},
        {"llama-70b", 80, 8192, 28672, 64, 128256, true},
        {"7b", 32, 4096, 11008, 32, 32000, true},
        {"tiny", 8, 256, 704, 8, 8192, true},
    };
    const struct sl_arch *arch;
    struct sl_config c;
    struct sl_error err;

    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        struct sl_hparams hp;

        assert_ok(sl_synth_preset(&c, &arch, wanted[i].name, &err), &err);
        assert_ok(sl_config_finish(&hp, arch, &c, &err), &err);
        assert_int_equal(hp.n_layers, wanted[i].layers);
        assert_int_equal(hp.hidden, wanted[i].hidden);
        assert_int_equal(hp.inner, wanted[i].inner);
        assert_int_equal(hp.n_heads, wanted[i].heads);
        assert_int_equal(hp.vocab, wanted[i].vocab);
        assert_int_equal(hp.glu, wanted[i].glu);
    }
    assert_int_equal(sl_synth_preset(&c, &arch, "13b", &err), -1);
    assert_int_equal(err.code, SL_ERR_USAGE);
    assert_non_null(strstr(err.msg, "13b"));
}

static void refused(const struct sl_synth_options *o, enum sl_code code,
                    const char *text)
{
    struct sl_synth_result r;
    struct sl_error err;
    char partial[1200];

    assert_int_equal(sl_synth(&r, o, &err), -1);
    assert_int_equal(err.code, code);
    assert_non_null(strstr(err.msg, text));
    snprintf(partial, sizeof partial, "%s.partial", path);
    assert_int_equal(access(partial, F_OK), -1);
}

static void what_cannot_be_is_refused_before_it_is_begun(void **state)
{
    struct sl_synth_options o = options_of(&odd, "keep");

    refused(&o, SL_ERR_USAGE, "keep");
    o.quant = "int3";
    refused(&o, SL_ERR_USAGE, "int3");
    o.quant = "f16";
    o.quant_tp = 2;
    refused(&o, SL_ERR_USAGE, "--quant-tp");
    o.quant_tp = 0;
    o.head = "int2";
    refused(&o, SL_ERR_USAGE, "--head int2");
    o.head = NULL;
    o.hp.n_layers = 4096;
    o.hp.hidden = 6u << 16;
    o.hp.inner = 1u << 20;
    refused(&o, SL_ERR_NOSPACE, "free on that disk");
    o.hp = odd;
    make(&o);
    o.force = false;
    refused(&o, SL_ERR_USAGE, "exists");
}

static void a_pipe_is_never_replaced(void **state)
{
    struct sl_synth_options o = options_of(&odd, "f32");
    struct stat st;

    o.force = true;
    assert_int_equal(mkfifo(path, 0600), 0);
    refused(&o, SL_ERR_USAGE, "where a file is to be");
    assert_int_equal(stat(path, &st), 0);
    assert_true(S_ISFIFO(st.st_mode));
}

/* True the n-th time it is asked. */
static bool count_down(void *opaque)
{
    int *n = opaque;

    return --*n == 0;
}

static void a_stopped_run_leaves_nothing(void **state)
{
    struct sl_synth_options o = options_of(&odd, "f32");
    int n = 20;

    o.interrupted = count_down;
    o.opaque = &n;
    refused(&o, SL_ERR_INTERRUPTED, "stopped");
    assert_int_equal(access(path, F_OK), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define CASE(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
        CASE(every_format_makes_a_file_with_right_checksums),
        CASE(weights_keep_the_size_of_their_inputs),
        CASE(blocks_of_published_files_can_be_made),
        CASE(nibbles_are_uniform_and_their_mean_is_zero),
        CASE(rows_and_columns_are_filled_up_with_zeros),
        CASE(bytes_follow_from_the_seed_not_from_the_threads),
        CASE(vectors_are_norms_near_one_and_small_biases),
        CASE(logits_are_finite),
        CASE(presets_have_their_shapes),
        CASE(what_cannot_be_is_refused_before_it_is_begun),
        CASE(a_pipe_is_never_replaced),
        CASE(a_stopped_run_leaves_nothing),
#undef CASE
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
