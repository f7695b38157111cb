#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/model/model_layout.h"
#include "src/model/modelfile.h"
#include "tests/model_maker.h"
#include "tests/support.h"

static void layouts_that_cannot_be_are_refused(void **state)
{
    struct sl_layout l;
    struct sl_error err;
    struct sl_layout_matrix g[9] = {0};
    struct test_model m;
    struct sl_layout_config config = {
        .arch = &sl_arch_glm130b,
        .name = "x",
        .quant = "f16",
        .matrices = g,
    };

    test_model_init(&m);
    config.hp = &m.hp;
    config.n_matrices = 8;
    assert_int_equal(sl_layout_init(&l, &config, &err), -1);
    assert_non_null(strstr(err.msg, "8 matrices"));
    config.n_matrices = 9;
    assert_int_equal(sl_layout_init(&l, &config, &err), -1);
    assert_non_null(strstr(err.msg, "query_key_value"));
    m.hp.n_heads = 5;
    assert_int_equal(sl_layout_init(&l, &config, &err), -1);
    assert_non_null(strstr(err.msg, "5 heads"));
    test_model_init(&m);
    m.hp.n_layers = 0;
    assert_int_equal(sl_layout_init(&l, &config, &err), -1);
    assert_non_null(strstr(err.msg, "layers"));
    m.hp.n_layers = 1u << 31;
    assert_int_equal(sl_layout_init(&l, &config, &err), -1);
}

static void planes_are_the_layers_alone_and_not_compressed(void **state)
{
    struct sl_layout l;
    struct sl_layout_matrix g[9] = {0};
    struct sl_layout_config config = {
        .arch = &sl_arch_glm130b,
        .name = "x",
        .quant = "int8-planes",
        .matrices = g,
        .n_matrices = 9,
    };
    struct sl_tensor_spec spec;
    struct sl_error err;
    struct test_model m;

    test_model_init(&m);
    config.hp = &m.hp;
    sl_arch_derive(config.arch, &m.hp);
    for (uint32_t k = 0, i = 0;
         i < 9 && sl_arch_tensor(config.arch, &spec, &m.hp, k); k++) {
        if (spec.role == SL_ROLE_VECTOR)
            continue;
        g[i].geom = (struct sl_matrix){.fmt = SL_FMT_INT8,
                                       .rows = spec.rows,
                                       .cols = spec.cols,
                                       .n_segments = spec.n_segments};
        g[i].geom.group_cols = spec.cols;
        g[i++].planes = spec.slot != SL_SLOT_HEAD;
    }
    assert_ok(sl_layout_init(&l, &config, &err), &err);
    sl_layout_fini(&l);
    config.tables = true;
    assert_int_equal(sl_layout_init(&l, &config, &err), -1);
    assert_non_null(strstr(err.msg, "no compressed file"));
    config.tables = false;
    g[8].planes = true;
    assert_int_equal(sl_layout_init(&l, &config, &err), -1);
    assert_non_null(strstr(err.msg, "two planes"));
}

/* The numbers of GLM-130B (configs/model_glm_130b.sh). */
static void the_full_model_has_its_known_size(void **state)
{
    struct sl_layout l;
    struct test_model m;

    test_model_init(&m);
    m.hp.n_layers = 70;
    m.hp.hidden = 12288;
    m.hp.inner = 32768;
    m.hp.n_heads = 96;
    m.hp.vocab = 150528;
    m.hp.max_positions = 2048;
    test_model_layout(&l, &m);
    assert_int_equal(l.file_bytes / 1000000000, 257); /* FP16 */
    assert_true(l.header_bytes < 400 << 10);
    sl_layout_fini(&l);
    m.fmt = SL_FMT_INT4;
    test_model_layout(&l, &m);
    assert_int_equal(l.n_sections, 70 * 8 + 2 + 70 * 4 + 141);
    for (size_t i = 0; i < l.n_sections; i++)
        assert_int_equal(sl_layout_section_at(&l, l.sections[i].off +
                                                      l.sections[i].bytes - 1),
                         i);
    assert_true(l.file_bytes > 66000000000u && l.file_bytes < 69000000000u);
    sl_layout_fini(&l);
}

/* Ways in which a header, rightly signed, can contradict itself. */
static void swap_vectors(struct sl_layout *l)
{
    struct sl_layout_tensor t = l->tensors[0];

    memcpy(l->tensors[0].name, l->tensors[1].name, SL_TENSOR_NAME);
    memcpy(l->tensors[1].name, t.name, SL_TENSOR_NAME);
}

static void turn_matrix(struct sl_layout *l)
{
    struct sl_layout_tensor *t = &l->tensors[l->n_small];
    uint64_t ne = t->ne[0];

    t->ne[0] = t->ne[1];
    t->ne[1] = ne;
}

static void add_extra(struct sl_layout *l)
{
    struct sl_layout_tensor *t = &l->tensors[l->n_tensors++];

    *t = l->tensors[0];
    memcpy(t->name, "extra", 6);
}

static void move_section(struct sl_layout *l)
{
    l->sections[3].bytes += 4096;
    l->sections[4].off += 4096;
}

static void shrink_rows(struct sl_layout *l)
{
    l->matrices[2].geom.rows -= 16;
}

static void lose_section(struct sl_layout *l)
{
    l->n_sections--;
}

static void shift_alignment_of_groups(struct sl_layout *l)
{
    l->matrices[0].geom.group_cols = 7;
}

static void headers_that_contradict_themselves_are_refused(void **state)
{
    static const struct {
        void (*spoil)(struct sl_layout *l);
        const char *message;
    } cases[] = {
        {swap_vectors, "layernorm.weight lies at"},
        {turn_matrix, "query_key_value.weight has type 1"},
        {add_extra, "tensors, not"},
        {move_section, "section 3 is"},
        {shrink_rows, "dense_h_to_4h.weight is 160 x 64"},
        {lose_section, "sluice.section.name"},
        {shift_alignment_of_groups, "query_key_value.weight"},
    };
    char dir[1024], path[1100];
    struct sl_modelfile mf;
    struct test_model m;
    struct sl_layout l;
    struct sl_error err;
    size_t bytes;

    test_temp_dir(dir);
    snprintf(path, sizeof path, "%s/m.gguf", dir);
    test_model_init(&m);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint8_t *image = test_model_image(&m, &bytes);

        test_model_layout(&l, &m);
        cases[i].spoil(&l);
        test_model_seal(&l, image);
        test_write_file(path, image, bytes);
        /* Room for a tensor that is too many. */
        assert_int_equal(truncate(path, (off_t)bytes + 4096), 0);
        assert_int_equal(sl_modelfile_open(&mf, path, &err), -1);
        assert_int_equal(err.code, SL_ERR_CORRUPT);
        if (strstr(err.msg, cases[i].message) == NULL)
            fail_msg("case %zu: %s", i, err.msg);
        sl_layout_fini(&l);
        free(image);
    }
    test_remove_tree(dir);
}

/* What GGUF calls a matrix's tensor makes it as long as its format says. */
static void tensors_are_as_long_as_their_formats(void **state)
{
    struct sl_error err;

    for (int f = 0; f < SL_FMT_COUNT; f++) {
        const struct sl_fmt_info *info = sl_fmt_of((enum sl_fmt)f);
        struct sl_layout l;
        struct test_model m;

        if (sl_fmt_has_blocks((enum sl_fmt)f)) /* bytes of our own */
            assert_int_equal(info->elem_bytes, 1);
        else
            assert_int_equal(sl_ggml_type_bytes(info->ggml_type),
                             info->elem_bytes);
        test_model_init(&m);
        m.fmt = m.head_fmt = (enum sl_fmt)f;
        if (sl_fmt_has_blocks(m.fmt))
            m.hp.hidden = m.hp.inner = info->block_cols;
        m.head_group = sl_fmt_has_scales(m.fmt) ? 32 : 0;
        test_model_layout(&l, &m);
        for (size_t i = 0; i < l.n_matrices; i++) {
            const struct sl_matrix *g = &l.matrices[i].geom;

            assert_ok(sl_matrix_check(g, &err), &err);
            assert_int_equal(l.matrices[i].bytes, sl_matrix_bytes(g));
            assert_int_equal(l.matrices[i].scale_bytes,
                             sl_matrix_scale_bytes(g));
        }
        for (size_t i = 0; i < l.n_tensors; i++)
            assert_int_equal(l.tensors[i].bytes,
                             sl_ggml_type_bytes(l.tensors[i].type) *
                                 l.tensors[i].ne[0] * l.tensors[i].ne[1]);
        sl_layout_fini(&l);
    }
    assert_int_equal(sl_ggml_type_bytes(2), 0); /* Q4_0, of blocks */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(layouts_that_cannot_be_are_refused),
        cmocka_unit_test(planes_are_the_layers_alone_and_not_compressed),
        cmocka_unit_test(the_full_model_has_its_known_size),
        cmocka_unit_test(tensors_are_as_long_as_their_formats),
        cmocka_unit_test(headers_that_contradict_themselves_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
