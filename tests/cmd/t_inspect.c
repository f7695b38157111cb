#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include "src/base/half.h"
#include "src/cmd/inspect_source.h"
#include "src/cmd/npy.h"
#include "tests/converting.h"
#include "tests/hf_maker.h"
#include "tests/support.h"

/* The tensor, as inspect writes it. */
static void take(struct test_array *a, const struct fixture *f,
                 const char *path, const char *name)
{
    char out[1200];
    struct sl_error err;
    uint8_t *data;
    size_t n;

    snprintf(out, sizeof out, "%s/x.npy", f->dir);
    assert_ok(sl_inspect_tensor(path, name, out, &err), &err);
    data = test_read_file(out, &n);
    test_npy_parse(data, n, a);
    free(data);
    assert_string_equal(a->dtype, "<f4");
}

static void refuse_tensor(const struct fixture *f, const char *path,
                          const char *name, enum sl_code code, const char *says)
{
    char out[1200];
    struct sl_error err;

    snprintf(out, sizeof out, "%s/y.npy", f->dir);
    assert_int_equal(sl_inspect_tensor(path, name, out, &err), -1);
    if (strstr(err.msg, says) == NULL)
        fail_msg("'%s' says nothing of '%s'", err.msg, says);
    assert_int_equal(err.code, code);
    assert_false(file_exists(out, ""));
    assert_false(file_exists(out, ".partial"));
}

/* Every tensor of the model, as path has it, in its own shape. */
static void check_all(struct fixture *f, const char *path, bool exact)
{
    struct sl_hparams hp = f->g.hp;
    struct sl_tensor_spec spec;

    sl_arch_derive(&sl_arch_glm130b, &hp);
    for (uint32_t i = 0; sl_arch_tensor(&sl_arch_glm130b, &spec, &hp, i); i++) {
        struct test_array a;
        const float *x;

        take(&a, f, path, spec.name);
        assert_int_equal(a.n_dims, spec.role == SL_ROLE_VECTOR ? 1 : 2);
        assert_int_equal(a.shape[0], spec.rows);
        assert_int_equal(a.n, (size_t)spec.rows * spec.cols);
        x = a.data;
        for (size_t k = 0; k < a.n && exact; k++)
            assert_true(x[k] == glm_value(&f->g, &spec, k));
        test_array_fini(&a);
    }
}

static void tensors_of_split_and_quantised_checkpoints_are_whole(void **state)
{
    static const struct {
        unsigned shards;
        int quantised;
    } kinds[] = {{1, 0}, {2, 8}, {2, 4}};
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        f->g.shards = kinds[i].shards;
        f->g.quantised = kinds[i].quantised;
        glm_maker_write(&f->g, f->source);
        check_all(f, f->source, true);
        test_remove_tree(f->source);
    }
}

/* What is written of a matrix equals what decoding it gives; the file is
 * compressed, decode() reads one that is not. */
static void tensors_of_model_files_are_decoded(void **state)
{
    static const char *const kinds[] = {"f16", "int8", "int4-g64"};
    struct fixture *f = *state;

    glm_maker_write(&f->g, f->source);
    convert(f, "f32");
    check_all(f, f->out, true);
    refuse_tensor(f, f->out, "none", SL_ERR_USAGE, "no tensor is named none");
    for (unsigned i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        struct sl_modelfile mf;
        float *want[64];

        f->o.compress = SL_COMPRESS_NONE;
        convert(f, kinds[i]);
        open_checked(&mf, f->out);
        assert_true(mf.n_matrices <= 64);
        for (size_t k = 0; k < mf.n_matrices; k++)
            want[k] = decode(&mf, k);
        sl_modelfile_close(&mf);
        f->o.compress = SL_COMPRESS_LZ4;
        convert(f, kinds[i]);
        open_checked(&mf, f->out);
        assert_non_null(mf.compressed);
        for (size_t k = 0; k < mf.n_matrices; k++) {
            struct test_array a;

            take(&a, f, f->out, mf.matrices[k].spec.name);
            assert_memory_equal(a.data, want[k], a.n * sizeof **want);
            test_array_fini(&a);
            free(want[k]);
        }
        sl_modelfile_close(&mf);
    }
}

/* As compressed files hold other bytes, they must give the same values. */
static void compressed_stages_give_the_same_values(void **state)
{
    static const char name[] = "transformer.layers.1.mlp.dense_h_to_4h.weight";
    struct fixture *f = *state;
    struct test_array a, b;

    f->g.hp.hidden = 96; /* several chunks */
    f->g.hp.inner = 3000;
    glm_maker_write(&f->g, f->source);
    convert(f, "f16");
    take(&a, f, f->out, name);
    f->o.compress = SL_COMPRESS_LZ4;
    convert(f, "f16");
    take(&b, f, f->out, name);
    assert_int_equal(a.n, b.n);
    assert_memory_equal(a.data, b.data, a.n * 4);
    test_array_fini(&a);
    test_array_fini(&b);
}

static uint16_t half(float x)
{
    return sl_float_to_half(x);
}

static void every_type_of_element_becomes_float32(void **state)
{
    struct fixture *f = *state;
    const uint16_t f16[2] = {half(1.5f), half(-0.25f)};
    const uint16_t bf16[2] = {0x3fc0, 0xbe80};
    const float f32[2] = {1.5f, -0.25f};
    const double f64[2] = {1.5, -0.25};
    const int8_t i8[2] = {100, -100};
    const uint8_t u8[2] = {200, 1};
    const int16_t i16[2] = {-300, 300};
    const uint16_t u16[2] = {60000, 3};
    const int32_t i32[2] = {-70000, 5};
    const uint32_t u32[2] = {4000000000u, 5};
    const int64_t i64[2] = {-5000000000, 7};
    const uint64_t u64[2] = {1ull << 63, 7};
    /* Largest finite, and the least above 0. */
    const uint8_t e4m3[2] = {0x7e, 0x01}, e5m2[2] = {0x7b, 0x81};
    const struct {
        enum sl_dtype dtype;
        const void *data;
        float want[2];
    } types[] = {
        {SL_DT_F16, f16, {1.5f, -0.25f}},
        {SL_DT_BF16, bf16, {1.5f, -0.25f}},
        {SL_DT_F32, f32, {1.5f, -0.25f}},
        {SL_DT_F64, f64, {1.5f, -0.25f}},
        {SL_DT_I8, i8, {100, -100}},
        {SL_DT_U8, u8, {200, 1}},
        {SL_DT_BOOL, u8 + 1, {1, 0}},
        {SL_DT_I16, i16, {-300, 300}},
        {SL_DT_U16, u16, {60000, 3}},
        {SL_DT_I32, i32, {-70000, 5}},
        {SL_DT_U32, u32, {4e9f, 5}},
        {SL_DT_I64, i64, {-5e9f, 7}},
        {SL_DT_U64, u64, {9223372036854775808.0f, 7}},
        {SL_DT_F8_E4M3, e4m3, {448, 1.0f / 512}},
        {SL_DT_F8_E5M2, e5m2, {57344, -1.0f / 65536}},
    };
    char path[1200];

    snprintf(path, sizeof path, "%s/model.safetensors", f->source);
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        struct maker_tensor t[2] = {
            {.name = "pair", .n_dims = 1, .shape = {2}},
            {.name = "deep", .n_dims = 3, .shape = {1, 2, 1}},
        };
        size_t n = types[i].dtype == SL_DT_BOOL ? 1 : 2;

        for (size_t k = 0; k < 2; k++) {
            t[k].dtype = types[i].dtype;
            t[k].data = types[i].data;
            t[k].shape[k] = n;
        }
        maker_hf(f->source, t, 2, MAKER_SAFETENSORS, 1);
        for (size_t k = 0; k < 4; k++) {
            struct test_array a;

            take(&a, f, k % 2 ? path : f->source, t[k / 2].name);
            assert_int_equal(a.n_dims, t[k / 2].n_dims);
            assert_int_equal(a.n, n);
            assert_memory_equal(a.data, types[i].want, n * 4);
            test_array_fini(&a);
        }
    }
    refuse_tensor(f, path, "none", SL_ERR_USAGE, "no tensor is named none");
}

static void many_rows_and_wide_ones_are_written_whole(void **state)
{
    enum { N = 3 << 20 };
    static const uint64_t shapes[][2] = {
        {1, N}, {N, 1}, {N / 3, 3}, {3, N / 3}, {0, 5}};
    struct fixture *f = *state;
    int8_t *data = malloc(N);

    assert_non_null(data);
    for (size_t i = 0; i < N; i++)
        data[i] = (int8_t)(i * 7 % 251);
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        struct maker_tensor t = {.name = "w",
                                 .dtype = SL_DT_I8,
                                 .n_dims = 2,
                                 .shape = {shapes[s][0], shapes[s][1]},
                                 .data = data};
        struct test_array a;
        const float *x;

        maker_hf(f->source, &t, 1, MAKER_SAFETENSORS, 1);
        take(&a, f, f->source, "w");
        assert_int_equal(a.n, shapes[s][0] * shapes[s][1]);
        x = a.data;
        for (size_t i = 0; i < a.n; i++)
            assert_true(x[i] == (float)data[i]);
        test_array_fini(&a);
    }
    free(data);
}

/* What `sluice inspect --json` prints. */
static json_t *inspect(const struct fixture *f, const char *path)
{
    const char *sluice = getenv("SLUICE");
    char command[4096], out[1200];

    snprintf(out, sizeof out, "%s/json", f->dir);
    snprintf(command, sizeof command, "'%s' inspect --json '%s' >'%s'",
             sluice != NULL ? sluice : "./sluice", path, out);
    assert_int_equal(system(command), 0);
    return test_json(out);
}

static const char *text_at(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));

    return s != NULL ? s : "";
}

static size_t count_at(const json_t *o, const char *key)
{
    return json_array_size(json_object_get(o, key));
}

static void a_checkpoint_is_described_with_what_becomes_of_it(void **state)
{
    struct fixture *f = *state;
    json_t *o, *c;

    f->g.shards = 2;
    glm_maker_write(&f->g, f->source);
    o = inspect(f, f->source);
    c = json_object_get(o, "convert");
    assert_string_equal(text_at(o, "kind"), "sat");
    assert_int_equal(json_integer_value(json_object_get(o, "n_shards")), 2);
    assert_string_equal(text_at(c, "architecture"), "glm130b");
    assert_true(json_is_false(json_object_get(c, "refused")));
    assert_int_equal(count_at(c, "problems"), 0);
    assert_int_equal(count_at(c, "unknown"), 0);
    assert_true(count_at(c, "not_needed") > 0);
    assert_int_equal(count_at(o, "tensors"),
                     json_integer_value(json_object_get(o, "n_tensors")));
    json_decref(o);

    f->g.without = "transformer.layers.1.mlp.dense_h_to_4h.weight";
    f->g.extra = "transformer.adapter.weight";
    glm_maker_write(&f->g, f->source);
    o = inspect(f, f->source);
    c = json_object_get(o, "convert");
    assert_true(json_is_true(json_object_get(c, "refused")));
    assert_int_equal(count_at(c, "problems"), 1);
    assert_non_null(strstr(
        json_string_value(json_array_get(json_object_get(c, "problems"), 0)),
        f->g.without));
    assert_int_equal(count_at(c, "unknown"), 1);
    json_decref(o);
}

static void a_hugging_face_folder_is_described(void **state)
{
    static const char config[] =
        "{\"architectures\": [\"NewForCausalLM\"], \"model_type\": \"new\"}";
    const struct maker_tensor t[] = {
        {.name = "w",
         .dtype = SL_DT_BF16,
         .n_dims = 2,
         .shape = {2, 3},
         .data = "aabbccddeeff"},
        {.name = "b",
         .dtype = SL_DT_F16,
         .n_dims = 1,
         .shape = {3},
         .data = "aabbcc"},
    };
    struct fixture *f = *state;
    char path[1200];
    json_t *o, *first;

    maker_hf(f->source, t, 2, MAKER_SAFETENSORS, 2);
    snprintf(path, sizeof path, "%s/config.json", f->source);
    maker_file(path, config, sizeof config - 1);
    o = inspect(f, f->source);
    assert_string_equal(text_at(o, "kind"), "hf");
    assert_string_equal(text_at(o, "architecture"), "NewForCausalLM");
    assert_string_equal(text_at(o, "model_type"), "new");
    assert_int_equal(json_integer_value(json_object_get(o, "n_files")), 2);
    first = json_array_get(json_object_get(o, "tensors"), 1);
    assert_string_equal(text_at(first, "name"), "w");
    assert_string_equal(text_at(first, "type"), "BF16");
    assert_int_equal(count_at(first, "shape"), 2);
    assert_non_null(strstr(text_at(first, "file"), "00001-of-00002"));
    assert_true(json_is_true(
        json_object_get(json_object_get(o, "convert"), "refused")));
    json_decref(o);
    f->o.source = f->source;
    REFUSE(f, SL_ERR_UNSUPPORTED, "NewForCausalLM", "GLM-130B");
    assert_false(file_exists(f->out, ""));
    assert_false(file_exists(f->out, ".partial"));
}

int main(void)
{
#define CASE(name)                                                             \
    cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    static const struct CMUnitTest tests[] = {
        CASE(tensors_of_split_and_quantised_checkpoints_are_whole),
        CASE(tensors_of_model_files_are_decoded),
        CASE(compressed_stages_give_the_same_values),
        CASE(every_type_of_element_becomes_float32),
        CASE(many_rows_and_wide_ones_are_written_whole),
        CASE(a_checkpoint_is_described_with_what_becomes_of_it),
        CASE(a_hugging_face_folder_is_described),
    };
#undef CASE

    return cmocka_run_group_tests(tests, NULL, NULL);
}
