#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/bytes.h"
#include "src/base/half.h"
#include "src/ckpt/ckpt.h"
#include "tests/converting.h"
#include "tests/support.h"

/* Checkpoints that the original wrote (golden/A_glm130b/g130_a):
 * THUDM/GLM-130B tools/convert_tp.py with and without
 * --quantization-bit-width, and SAT's own save. */

/* The sizes, which only one of them has beside it. */
static void set_sizes(struct sl_config *c)
{
    static const char text[] =
        "{\"num_layers\": 3, \"hidden_size\": 64, \"inner_hidden_size\": 172, "
        "\"num_attention_heads\": 4, \"vocab_size\": 512, "
        "\"max_sequence_length\": 64, \"num_image_tokens\": 0}";
    struct sl_error err;

    assert_ok(sl_config_parse(c, text, strlen(text), "sizes", &err), &err);
}

static bool is_here(const char *variant)
{
    char path[1024], name[256];

    snprintf(name, sizeof name, "golden/A_glm130b/g130_a/%s", variant);
    return test_variant(path, name) != NULL;
}

/* Converts variant VARIANT to DIR/model.gguf and returns the file. */
static struct bytes converted(struct fixture *f, const char *variant,
                              const char *quant, unsigned tp)
{
    char path[1024], name[256];

    snprintf(name, sizeof name, "golden/A_glm130b/g130_a/%s", variant);
    assert_non_null(test_shared(path, name));
    snprintf(f->source, sizeof f->source, "%s", path);
    f->o.quant_tp = tp;
    f->o.name = "g130_a";
    set_sizes(&f->o.flags);
    convert(f, quant);
    return take_file(f->out);
}

static void assert_same(struct bytes want, struct bytes got, const char *what)
{
    if (want.n != got.n || memcmp(want.data, got.data, want.n) != 0)
        fail_msg("%s differs", what);
    free(got.data);
}

static void every_variant_keeps_the_same_weights(void **state)
{
    static const char *const variants[] = {"tp2", "tp4", "tp1_satsave"};
    struct bytes want = converted(*state, "tp1", "keep", 0);

    for (size_t i = 0; i < 3; i++) {
        if (is_here(variants[i]))
            assert_same(want, converted(*state, variants[i], "keep", 0),
                        variants[i]);
    }
    free(want.data);
}

static void quantising_gives_what_the_original_gave(void **state)
{
    static const struct {
        const char *quantised, *quant;
        unsigned tp;
    } goals[] = {
        {"int8_tp1", "int8", 0}, {"int8_tp2", "int8", 2},
        {"int8_tp4", "int8", 4}, {"int4_tp1", "int4", 0},
        {"int4_tp2", "int4", 2},
    };
    static const char *const sources[] = {"tp1", "tp2", "tp4"};
    struct fixture *f = *state;

    f->o.head = "f16"; /* FP32 in the original, whatever the rest is */
    for (size_t i = 0; i < sizeof goals / sizeof *goals; i++) {
        struct bytes want;

        if (!is_here(goals[i].quantised))
            continue;
        want = converted(f, goals[i].quantised, NULL, 0);
        for (size_t k = 0; k < 3; k++) {
            if (is_here(sources[k]))
                assert_same(
                    want, converted(f, sources[k], goals[i].quant, goals[i].tp),
                    goals[i].quantised);
        }
        free(want.data);
    }
}

static void read_all(const struct sl_ckpt *c, const char *name, void *out)
{
    const struct sl_ckpt_tensor *t = sl_ckpt_find(c, 0, name);
    struct sl_error err;

    assert_non_null(t);
    assert_ok(sl_ckpt_read_rows(t, out, 0, t->shape[0], &err), &err);
}

/* Against the shard's own bytes, put together by hand. */
static void kept_integers_are_those_of_the_file(void **state)
{
    struct fixture *f = *state;

    for (int bits = 4; bits <= 8; bits += 4) {
        const char *variant = bits == 8 ? "int8_tp1" : "int4_tp1";
        struct bytes file = converted(f, variant, "keep", 0);
        struct sl_modelfile mf;
        struct sl_ckpt c;
        struct sl_error err;
        char name[96];

        open_checked(&mf, f->out);
        assert_ok(sl_ckpt_open(&c, f->source, NULL, &err), &err);
        for (size_t i = 0; i + 1 < mf.n_matrices; i++) {
            const struct sl_tensor_spec *s = &mf.matrices[i].spec;
            size_t n = (size_t)s->rows * s->cols;
            uint16_t *scale = calloc(s->rows, 2);
            int8_t *q = malloc(n);
            float *w = decode(&mf, i);

            read_all(&c, s->name, q);
            snprintf(name, sizeof name, "%s_scale", s->name);
            read_all(&c, name, scale);
            for (size_t k = 0; k < n; k++) {
                int v = q[bits == 8 ? k : k / 2];

                if (bits == 4) /* the even column is in the high four bits */
                    v = k % 2 ? ((v & 15) ^ 8) - 8 : v >> 4;
                assert_true(w[k] ==
                            (float)v * sl_half_to_float(scale[k / s->cols]));
            }
            free(w);
            free(q);
            free(scale);
        }
        sl_ckpt_close(&c);
        sl_modelfile_close(&mf);
        free(file.data);
    }
}

/* The demo's two shards, tensor by tensor. */
static void put_together(uint16_t *out, const struct sl_ckpt *c,
                         const struct sl_tensor_spec *s)
{
    size_t part = (size_t)s->rows * s->cols / 2, half = part / 2;
    size_t half_row = s->cols / 2;
    uint16_t *v[2];
    struct sl_error err;

    for (size_t i = 0; i < 2; i++) {
        const struct sl_ckpt_tensor *t = sl_ckpt_find(c, i, s->name);

        v[i] = calloc(2 * part, 2);
        assert_non_null(t);
        assert_int_equal(t->dtype, SL_DT_F16);
        assert_ok(sl_ckpt_read_rows(t, v[i], 0, t->shape[0], &err), &err);
    }
    if (s->split == SL_SPLIT_GLU) { /* A0 A1 B0 B1 */
        memcpy(out, v[0], half * 2);
        memcpy(out + half, v[1], half * 2);
        memcpy(out + part, v[0] + half, half * 2);
        memcpy(out + part + half, v[1] + half, half * 2);
    } else if (s->split == SL_SPLIT_COLS) {
        for (size_t r = 0; r < s->rows; r++) {
            memcpy(out + r * s->cols, v[0] + r * half_row, half_row * 2);
            memcpy(out + r * s->cols + half_row, v[1] + r * half_row,
                   half_row * 2);
        }
    } else if (s->split == SL_SPLIT_ROWS) {
        memcpy(out, v[0], part * 2);
        memcpy(out + part, v[1], part * 2);
    } else {
        memcpy(out, v[0], part * 4);
    }
    free(v[0]);
    free(v[1]);
}

static void the_demos_f16_file_is_its_shards(void **state)
{
    struct fixture *f = *state;
    struct sl_modelfile mf;
    struct sl_ckpt c;
    struct sl_error err;
    char path[1024];

    assert_non_null(test_source(path, "demo"));
    f->o.source = path;
    convert(f, "f16");
    open_checked(&mf, f->out);
    assert_true(mf.tokenizer_bytes > 0);
    assert_ok(sl_ckpt_open(&c, path, NULL, &err), &err);
    for (size_t i = 0; i < mf.n_matrices; i++) {
        const struct sl_model_matrix *m = &mf.matrices[i];
        uint16_t *want = malloc(m->bytes), *got = malloc(m->bytes);

        put_together(want, &c, &m->spec);
        assert_ok(sl_modelfile_read(&mf, got, m->off, m->bytes, &err), &err);
        assert_memory_equal(want, got, m->bytes);
        free(want);
        free(got);
    }
    for (size_t i = 0; i < mf.n_small; i++) {
        const struct sl_model_small *v = &mf.small[i];
        uint16_t *want = malloc(v->bytes);
        float *got = malloc(v->bytes);

        put_together(want, &c, &v->spec);
        assert_ok(sl_modelfile_read(&mf, got, v->off, v->bytes, &err), &err);
        for (uint32_t k = 0; k < v->spec.rows; k++)
            assert_true(got[k] == sl_half_to_float(want[k]));
        free(want);
        free(got);
    }
    sl_ckpt_close(&c);
    sl_modelfile_close(&mf);
}

int main(void)
{
#define CASE(f)                                                                \
    cmocka_unit_test_setup_teardown(f, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        CASE(every_variant_keeps_the_same_weights),
        CASE(quantising_gives_what_the_original_gave),
        CASE(kept_integers_are_those_of_the_file),
        CASE(the_demos_f16_file_is_its_shards),
    };
#undef CASE
    char path[1024];

    if (test_shared(path, "golden/A_glm130b/g130_a/tp1") == NULL)
        test_skip_all("no golden data");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
