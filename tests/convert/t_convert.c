#include "config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/bytes.h"
#include "tests/converting.h"
#include "tests/support.h"

/* This process may have grown when it tries what a message named as the least,
 * under a sanitizer by a lot. */
#ifdef SL_SANITIZED
#define LEAST_SLACK (1u << 30)
#else
#define LEAST_SLACK (4u << 20)
#endif

/* FP32 norms beside FP16 matrices, as SAT builds them; BF16 and FP64 too. */
static enum sl_dtype mixed(const struct sl_tensor_spec *s)
{
    static const enum sl_dtype by_layer[] = {SL_DT_F32, SL_DT_F16, SL_DT_F64};

    if (s->role == SL_ROLE_VECTOR)
        return s->cols % 2 ? SL_DT_F32 : SL_DT_F16;
    return by_layer[(s->layer + (uint32_t)s->slot) % 3];
}

static enum sl_dtype all_f32(const struct sl_tensor_spec *s)
{
    return SL_DT_F32;
}

static void shards_are_merged_whatever_their_number(void **state)
{
    static const unsigned shards[] = {1, 2, 4};
    struct fixture *f = *state;
    struct bytes first = {NULL, 0};

    f->g.dtype = mixed;
    for (size_t i = 0; i < 3; i++) {
        f->g.shards = shards[i];
        glm_maker_write(&f->g, f->source);
        convert(f, "keep");
        assert_weights(f, 0);
        if (i == 0)
            first = take_file(f->out);
        else
            assert_same_file(first, f->out);
        test_remove_tree(f->source);
    }
    free(first.data);
}

static void a_model_without_glu_is_merged_row_by_row(void **state)
{
    struct fixture *f = *state;

    f->g.hp.glu = false;
    f->g.shards = 2;
    glm_maker_write(&f->g, f->source);
    convert(f, "f16");
    assert_weights(f, 0);
}

static void every_kind_has_its_formats_and_its_precision(void **state)
{
    static const struct {
        const char *quant, *head;
        enum sl_fmt fmt, head_fmt;
        uint32_t group, head_group; /* group 0: the row */
        double limit;
    } kinds[] = {
        {"f32", NULL, SL_FMT_F32, SL_FMT_F32, 0, 0, 0},
        {"f16", NULL, SL_FMT_F16, SL_FMT_F16, 0, 0, 0},
        {"bf16", NULL, SL_FMT_BF16, SL_FMT_BF16, 0, 0, 0.002},
        {"int8", NULL, SL_FMT_INT8, SL_FMT_F16, 0, 0, 0.0045},
        {"int4", NULL, SL_FMT_INT4, SL_FMT_F16, 0, 0, 0.073},
        {"int8-g32", NULL, SL_FMT_INT8, SL_FMT_INT8, 32, 64, 0.01},
        {"int8-g64", "f16", SL_FMT_INT8, SL_FMT_F16, 64, 0, 0.01},
        {"int8-g64", "bf16", SL_FMT_INT8, SL_FMT_BF16, 64, 0, 0.01},
        {"int8-g128", NULL, SL_FMT_INT8, SL_FMT_INT8, 128, 64, 0.01},
        {"int4-g32", NULL, SL_FMT_INT4, SL_FMT_INT8, 32, 64, 0.2},
        {"int4-g64", "int8-g64", SL_FMT_INT4, SL_FMT_INT8, 64, 64, 0.2},
        {"int4-g128", NULL, SL_FMT_INT4, SL_FMT_INT8, 128, 64, 0.2},
        {"int4", "int8-g64", SL_FMT_INT4, SL_FMT_INT8, 0, 64, 0.073},
        {NULL, NULL, SL_FMT_INT4, SL_FMT_INT8, 64, 64, 0.2},
    };
    struct fixture *f = *state;

    f->g.shards = 2;
    f->g.dtype = mixed;
    glm_maker_write(&f->g, f->source);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        struct sl_modelfile mf;

        f->o.head = kinds[i].head;
        convert(f, kinds[i].quant);
        assert_weights(f, kinds[i].limit);
        open_checked(&mf, f->out);
        assert_string_equal(mf.quant,
                            kinds[i].quant ? kinds[i].quant : "int4-g64");
        for (size_t k = 0; k < mf.n_matrices; k++) {
            const struct sl_model_matrix *m = &mf.matrices[k];
            bool head = m->spec.role == SL_ROLE_EMBED;
            uint32_t group = head ? kinds[i].head_group : kinds[i].group;
            enum sl_fmt fmt = head ? kinds[i].head_fmt : kinds[i].fmt;

            assert_int_equal(m->geom.fmt, fmt);
            if (!sl_fmt_has_scales(fmt))
                continue;
            assert_int_equal(m->geom.group_cols, group ? group : m->spec.cols);
            assert_int_equal(m->scale_resident, group == 0);
        }
        sl_modelfile_close(&mf);
    }
}

static void quant_tp_cuts_the_rows_of_two_matrices(void **state)
{
    struct fixture *f = *state;
    struct sl_modelfile mf;

    glm_maker_write(&f->g, f->source);
    f->o.quant_tp = 4;
    convert(f, "int8");
    assert_weights(f, 0.0045);
    open_checked(&mf, f->out);
    for (size_t i = 0; i + 1 < mf.n_matrices; i++) {
        const struct sl_model_matrix *m = &mf.matrices[i];
        bool cut =
            m->spec.slot == SL_SLOT_ATTN_OUT || m->spec.slot == SL_SLOT_MLP_OUT;

        assert_int_equal(m->geom.group_cols, m->spec.cols / (cut ? 4 : 1));
    }
    sl_modelfile_close(&mf);
    f->o.quant_tp = 5;
    REFUSE(f, SL_ERR_USAGE, "--quant-tp 5", "24", "attention.dense.weight");
    f->o.quant = "int8-g64";
    REFUSE(f, SL_ERR_USAGE, "--quant-tp", "int8-g64");
}

static void a_quantised_source_is_kept(void **state)
{
    struct fixture *f = *state;

    for (int bits = 4; bits <= 8; bits += 4) {
        for (unsigned shards = 1; shards <= 4; shards *= 2) {
            f->g.quantised = bits;
            f->g.shards = shards;
            if (bits == 4 && shards == 4)
                f->g.hp.inner = 48; /* two columns a byte in each shard */
            glm_maker_write(&f->g, f->source);
            convert(f, NULL);
            assert_weights(f, 0);
            f->o.quant = bits == 8 ? "int4" : "int8";
            REFUSE(f, SL_ERR_USAGE, "quantised already", f->o.quant, "keep");
            f->o.quant = "int4-g64";
            REFUSE(f, SL_ERR_USAGE, "quantised already", "weight");
            convert(f, bits == 8 ? "int8" : "int4");
            assert_weights(f, 0);
            test_remove_tree(f->source);
        }
    }
}

static void threads_and_memory_change_no_byte(void **state)
{
    struct fixture *f = *state;
    struct sl_convert_result r;
    struct sl_error err;
    struct bytes want;
    const char *at;

    f->g.hp = (struct sl_hparams){.n_layers = 3,
                                  .hidden = 256,
                                  .inner = 704,
                                  .n_heads = 4,
                                  .vocab = 1000,
                                  .max_positions = 64,
                                  .glu = true};
    f->g.shards = 2;
    glm_maker_write(&f->g, f->source);
    convert(f, "int4-g64");
    want = take_file(f->out);
    f->o.ram_bytes = 1 << 20;
    REFUSE(f, SL_ERR_BUDGET, "--ram 1.0 MiB", "at least");
    assert_int_equal(sl_convert(&r, &f->o, &err), -1);
    at = strstr(err.msg, "(--ram ");
    assert_non_null(at);
    f->o.ram_bytes = strtoull(at + strlen("(--ram "), NULL, 10) * 1024;
    f->o.ram_bytes += LEAST_SLACK;
    for (f->o.threads = 1; f->o.threads <= 3; f->o.threads++) {
        convert(f, "int4-g64");
        assert_same_file(want, f->out);
    }
    free(want.data);
}

static void what_is_missing_is_named(void **state)
{
    struct fixture *f = *state;

    f->g.shards = 2;
    f->g.without = "transformer.layers.1.mlp.dense_h_to_4h.weight";
    glm_maker_write(&f->g, f->source);
    REFUSE(f, SL_ERR_CORRUPT, f->g.without, "mp_rank_01", "missing");
    assert_false(file_exists(f->out, ".partial"));
    f->g.without = "transformer.final_layernorm.bias"; /* rank 0 has it */
    glm_maker_write(&f->g, f->source);
    convert(f, NULL);
    f->o.flags.hp.n_layers = 3;
    sl_config_mark(&f->o.flags, SL_CONFIG_LAYERS);
    REFUSE(f, SL_ERR_CORRUPT, "transformer.layers.2.", "mp_rank_00",
           "number of layers");
    f->o.flags.hp.n_layers = 1;
    REFUSE(f, SL_ERR_CORRUPT, "transformer.layers.1.", "mp_rank_00",
           "1 layers (0 to 0)", "--num-layers");
}

static void wrong_shapes_are_named(void **state)
{
    struct fixture *f = *state;

    f->g.shards = 2;
    glm_maker_write(&f->g, f->source);
    f->o.flags.hp.inner = 40;
    sl_config_mark(&f->o.flags, SL_CONFIG_INNER);
    REFUSE(f, SL_ERR_CORRUPT, "mp_rank_00", "mlp.dense_h_to_4h.bias", "44",
           "40");
    f->o.flags.hp.inner = 45;
    REFUSE(f, SL_ERR_CORRUPT, "45", "2 shards");
    f->o.flags.given = 0;
    f->g.quantised = 8;
    glm_maker_write(&f->g, f->source);
    f->o.flags.hp.vocab = 54;
    sl_config_mark(&f->o.flags, SL_CONFIG_VOCAB);
    REFUSE(f, SL_ERR_CORRUPT, "word_embeddings", "26 x 24", "27 x 24");
}

static enum sl_dtype integers(const struct sl_tensor_spec *s)
{
    return s->role == SL_ROLE_EMBED ? SL_DT_I8 : SL_DT_F16;
}

static void types_without_meaning_are_refused(void **state)
{
    struct fixture *f = *state;

    f->g.dtype = integers;
    glm_maker_write(&f->g, f->source);
    REFUSE(f, SL_ERR_UNSUPPORTED, "word_embeddings", "int8", "f16");
}

/* ChatGLM-6B's -int4-qe folders have their embedding quantised as well. */
static void a_quantised_embedding_is_kept(void **state)
{
    struct fixture *f = *state;

    f->g.quantised_embed = true;
    for (f->g.quantised = 4; f->g.quantised <= 8; f->g.quantised += 4) {
        struct sl_modelfile mf;

        glm_maker_write(&f->g, f->source);
        convert(f, NULL);
        assert_weights(f, 0);
        open_checked(&mf, f->out);
        for (size_t i = 0; i < mf.n_matrices; i++)
            assert_int_equal(mf.matrices[i].geom.fmt,
                             f->g.quantised == 4 ? SL_FMT_INT4 : SL_FMT_INT8);
        sl_modelfile_close(&mf);
        f->o.head = "f16";
        REFUSE(f, SL_ERR_USAGE, "word_embeddings", "quantised already",
               "--head");
        f->o.head = NULL;
    }
}

static void scales_that_are_no_numbers_are_refused(void **state)
{
    static const struct {
        uint16_t bits;
        const char *is;
    } bad[] = {{0x7e00, "nan"},
               {0x7c00, "inf"},
               {0xfc00, "-inf"},
               {0x8001, "-"},
               {0xbc00, "-1;"}};
    struct fixture *f = *state;

    for (unsigned shards = 1; shards <= 2; shards++) {
        f->g.shards = shards;
        f->g.quantised = 8;
        for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
            f->g.bad_scale = bad[i].bits;
            glm_maker_write(&f->g, f->source);
            REFUSE(f, SL_ERR_CORRUPT, "mp_rank_00",
                   ".weight_scale: value 1 is ", bad[i].is);
            assert_false(file_exists(f->out, ""));
            assert_false(file_exists(f->out, ".partial"));
        }
    }
    f->g.bad_scale = 0x8000; /* zero, with a sign */
    glm_maker_write(&f->g, f->source);
    convert(f, NULL);
}

static void unknown_tensors_are_named_and_left_out(void **state)
{
    struct fixture *f = *state;

    glm_maker_write(&f->g, f->source);
    convert(f, "f16");
    assert_null(strstr(f->said, "left out"));
    assert_non_null(strstr(f->said, "ice_text.model"));
    f->g.extra = "transformer.prefix_encoder.weight"; /* given apart */
    glm_maker_write(&f->g, f->source);
    convert(f, "f16");
    assert_null(strstr(f->said, "left out"));
    f->g.extra = "transformer.adapter.weight";
    glm_maker_write(&f->g, f->source);
    convert(f, "f16");
    assert_non_null(strstr(f->said, f->g.extra));
    assert_null(strstr(f->said, "inv_freq"));
    assert_weights(f, 0);
}

static enum sl_dtype bf16(const struct sl_tensor_spec *s)
{
    return SL_DT_BF16;
}

/* What glm_value gives, cut to the 8 bits of BF16. */
static float cut_value(const struct glm_maker *g,
                       const struct sl_tensor_spec *s, uint64_t i)
{
    float want = glm_value(g, s, i);
    uint32_t bits;

    memcpy(&bits, &want, 4);
    bits &= 0xffff0000u;
    memcpy(&want, &bits, 4);
    return want;
}

static void assert_cut(const struct fixture *f, enum sl_fmt fmt)
{
    struct sl_modelfile mf;
    struct sl_error err;

    open_checked(&mf, f->out);
    for (size_t i = 0; i < mf.n_small; i++) {
        const struct sl_model_small *v = &mf.small[i];
        float *got = malloc(v->bytes);

        assert_ok(sl_modelfile_read(&mf, got, v->off, v->bytes, &err), &err);
        for (uint32_t k = 0; k < v->spec.rows; k++)
            assert_true(got[k] == cut_value(&f->g, &v->spec, k));
        free(got);
    }
    for (size_t i = 0; i < mf.n_matrices; i++) {
        const struct sl_tensor_spec *s = &mf.matrices[i].spec;
        float *got = decode(&mf, i);

        assert_int_equal(mf.matrices[i].geom.fmt, fmt);
        for (size_t k = 0; k < (size_t)s->rows * s->cols; k++)
            assert_true(got[k] == cut_value(&f->g, s, k));
        free(got);
    }
    sl_modelfile_close(&mf);
}

static void bf16_is_kept_and_loses_nothing_on_the_way_to_others(void **state)
{
    static const struct {
        const char *quant;
        enum sl_fmt fmt;
    } t[] = {{"keep", SL_FMT_BF16},
             {"bf16", SL_FMT_BF16},
             {"f16", SL_FMT_F16}, /* values of its range */
             {"f32", SL_FMT_F32}};
    struct fixture *f = *state;

    f->g.dtype = bf16;
    f->g.shards = 4;
    glm_maker_write(&f->g, f->source);
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        convert(f, t[i].quant);
        assert_cut(f, t[i].fmt);
    }
}

/* One shard in FP16, the other in BF16: neither format holds both. */
static void formats_that_differ_by_shard_become_f32(void **state)
{
    struct fixture *f = *state;
    char rank0[1200], kept[1200];
    size_t n_whole = 0, n_cut = 0;
    struct sl_modelfile mf;

    f->g.shards = 2;
    glm_maker_write(&f->g, f->source); /* FP16 */
    snprintf(rank0, sizeof rank0, "%s/7/mp_rank_00_model_states.pt", f->source);
    snprintf(kept, sizeof kept, "%s/rank0", f->dir);
    assert_int_equal(rename(rank0, kept), 0);
    test_remove_tree(f->source);
    f->g.dtype = bf16;
    glm_maker_write(&f->g, f->source);
    assert_int_equal(rename(kept, rank0), 0);
    convert(f, "keep");
    open_checked(&mf, f->out);
    for (size_t i = 0; i < mf.n_matrices; i++) {
        const struct sl_tensor_spec *s = &mf.matrices[i].spec;
        float *got = decode(&mf, i);

        assert_int_equal(mf.matrices[i].geom.fmt, SL_FMT_F32);
        for (size_t k = 0; k < (size_t)s->rows * s->cols; k++) {
            float whole = glm_value(&f->g, s, k), cut = cut_value(&f->g, s, k);

            assert_true(got[k] == whole || got[k] == cut);
            n_whole += got[k] != cut;
            n_cut += got[k] != whole;
        }
        free(got);
    }
    sl_modelfile_close(&mf);
    assert_true(n_whole > 0 && n_cut > 0);
}

static void the_report_is_the_error(void **state)
{
    struct fixture *f = *state;
    struct sl_convert_result r;
    struct sl_modelfile mf;
    struct sl_error err;

    f->g.dtype = all_f32;
    glm_maker_write(&f->g, f->source);
    f->o.report = true;
    f->o.quant = "int4-g32";
    assert_ok(sl_convert(&r, &f->o, &err), &err);
    open_checked(&mf, f->out);
    assert_int_equal(r.n_tensors, mf.n_matrices);
    for (size_t i = 0; i < r.n_tensors; i++) {
        const struct sl_tensor_spec *s = &mf.matrices[i].spec;
        const struct sl_pack_error *e = &r.tensors[i].error;
        float *w = decode(&mf, i);
        double sum = 0, worst = 0;

        assert_string_equal(r.tensors[i].name, s->name);
        assert_int_equal(e->n, (uint64_t)s->rows * s->cols);
        for (size_t k = 0; k < e->n; k++) {
            double d = fabs((double)w[k] - (double)glm_value(&f->g, s, k));

            sum += d * d;
            worst = d > worst ? d : worst;
        }
        assert_true(fabs(sum - e->sum_squared) <= 1e-5 * sum);
        assert_true(fabs(worst - e->worst) <= 1e-6);
        free(w);
    }
    sl_modelfile_close(&mf);
    sl_convert_result_fini(&r);
}

int main(void)
{
#define CASE(f)                                                                \
    cmocka_unit_test_setup_teardown(f, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        CASE(shards_are_merged_whatever_their_number),
        CASE(a_model_without_glu_is_merged_row_by_row),
        CASE(every_kind_has_its_formats_and_its_precision),
        CASE(quant_tp_cuts_the_rows_of_two_matrices),
        CASE(a_quantised_source_is_kept),
        CASE(threads_and_memory_change_no_byte),
        CASE(what_is_missing_is_named),
        CASE(wrong_shapes_are_named),
        CASE(types_without_meaning_are_refused),
        CASE(a_quantised_embedding_is_kept),
        CASE(scales_that_are_no_numbers_are_refused),
        CASE(unknown_tensors_are_named_and_left_out),
        CASE(bf16_is_kept_and_loses_nothing_on_the_way_to_others),
        CASE(formats_that_differ_by_shard_become_f32),
        CASE(the_report_is_the_error),
    };
#undef CASE

    return cmocka_run_group_tests(tests, NULL, NULL);
}
