#include "config.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <xxhash.h>

#include "src/base/bytes.h"
#include "src/model/model_layout.h"
#include "src/model/modelfile.h"
#include "tests/fault.h"
#include "tests/model_maker.h"
#include "tests/support.h"

struct dirs {
    char dir[1024];
    char path[1100];
};

static int set_up(void **state)
{
    struct dirs *d = calloc(1, sizeof *d);

    test_temp_dir(d->dir);
    snprintf(d->path, sizeof d->path, "%s/m.gguf", d->dir);
    *state = d;
    return 0;
}

static int tear_down(void **state)
{
    struct dirs *d = *state;

    test_remove_tree(d->dir);
    free(d);
    return 0;
}

/* Every way to hold weights that the converter has. */
static const struct variant {
    enum sl_fmt fmt;
    uint32_t group, tp;
    enum sl_fmt head;
    uint32_t head_group;
    bool glu, tokenizer;
} variants[] = {
    {SL_FMT_F32, 0, 0, SL_FMT_F32, 0, true, true},
    {SL_FMT_F16, 0, 0, SL_FMT_F16, 0, true, false},
    {SL_FMT_INT8, 0, 0, SL_FMT_F16, 0, false, true},
    {SL_FMT_INT4, 0, 0, SL_FMT_F16, 0, true, true},
    {SL_FMT_INT8, 0, 2, SL_FMT_F16, 0, true, true},
    {SL_FMT_INT4, 32, 0, SL_FMT_INT8, 64, true, true},
    {SL_FMT_INT8, 64, 0, SL_FMT_INT8, 64, false, false},
    {SL_FMT_BF16, 0, 0, SL_FMT_BF16, 0, true, false},
};

enum { N_VARIANTS = sizeof variants / sizeof *variants };

static void make_variant(struct test_model *m, size_t i)
{
    static const char tokenizer[] = "not really a tokenizer";
    const struct variant *v = &variants[i];

    test_model_init(m);
    m->fmt = v->fmt;
    m->group_cols = v->group;
    m->tp = v->tp;
    m->head_fmt = v->head;
    m->head_group = v->head_group;
    m->hp.glu = v->glu;
    m->hp.inner = 90; /* no multiple of 16 or of a group */
    if (v->tokenizer) {
        m->tokenizer = tokenizer;
        m->tokenizer_bytes = strlen(tokenizer);
    }
}

static void check_same_hparams(const struct sl_hparams *a,
                               const struct sl_hparams *b)
{
    assert_int_equal(a->n_layers, b->n_layers);
    assert_int_equal(a->hidden, b->hidden);
    assert_int_equal(a->inner, b->inner);
    assert_int_equal(a->n_heads, b->n_heads);
    assert_int_equal(a->vocab, b->vocab);
    assert_int_equal(a->max_positions, b->max_positions);
    assert_true(a->norm_eps == b->norm_eps);
    assert_int_equal(a->position_2d, b->position_2d);
    assert_int_equal(a->glu, b->glu);
    assert_int_equal(a->rotary, b->rotary);
    assert_int_equal(a->text.whitespace, b->text.whitespace);
    assert_int_equal(a->text.n_image_tokens, b->text.n_image_tokens);
    assert_int_equal(a->text.max_blank, b->text.max_blank);
    assert_int_equal(a->text.byte_fallback, b->text.byte_fallback);
    assert_int_equal(a->text.n_tokens, b->text.n_tokens);
    assert_memory_equal(&a->text.special, &b->text.special,
                        sizeof a->text.special);
}

static void hyper_parameters_come_back_as_they_went_in(void **state)
{
    struct dirs *d = *state;
    struct sl_modelfile mf;
    struct test_model m;
    struct sl_error err;

    for (int i = 0; i < 2; i++) {
        test_model_init(&m);
        m.hp.position_2d = i == 0;
        m.hp.rotary = i == 0 ? SL_ROTARY_F16 : SL_ROTARY_INV_FREQ_F16;
        m.hp.text.whitespace =
            i == 0 ? SL_WHITESPACE_COLLAPSE : SL_WHITESPACE_TOKENS;
        m.hp.text.n_image_tokens = 20;
        m.hp.text.max_blank = 80;
        m.hp.text.byte_fallback = i != 0;
        m.hp.text.special.smask = -1;
        test_model_write(d->path, &m);
        assert_ok(sl_modelfile_open(&mf, d->path, &err), &err);
        check_same_hparams(&mf.hp, &m.hp);
        assert_string_equal(mf.arch->name, "glm130b");
        assert_string_equal(mf.name, "random");
        assert_string_equal(mf.quant, "f16");
        assert_string_equal(mf.path, d->path);
        sl_modelfile_close(&mf);
    }
}

static void check_matrices(const struct sl_modelfile *mf,
                           const struct test_model *m)
{
    uint64_t at = mf->sections[mf->first_stage].off;
    int stage = -1;

    assert_int_equal(mf->n_matrices, 4 * m->hp.n_layers + 1);
    for (size_t i = 0; i < mf->n_matrices; i++) {
        const struct sl_model_matrix *x = &mf->matrices[i];
        const struct sl_model_section *s =
            &mf->sections[mf->first_stage + (size_t)x->spec.stage];

        /* A stage is one contiguous run, its matrices in order of use. */
        if (x->spec.stage != stage)
            assert_int_equal(x->off, s->off);
        stage = x->spec.stage;
        assert_int_equal(x->off, at);
        assert_int_equal(x->off % 4096, 0);
        assert_int_equal(x->bytes, sl_matrix_bytes(&x->geom));
        at += (x->bytes + 4095) / 4096 * 4096;
        assert_int_equal(x->scale_bytes, sl_matrix_scale_bytes(&x->geom));
        assert_true(x->scale_bytes > 0 || !sl_fmt_has_scales(x->geom.fmt));
        if (x->scale_bytes == 0)
            continue;
        if (x->scale_resident) {
            assert_true(x->scale_off < mf->sections[mf->first_stage].off);
        } else {
            assert_int_equal(x->scale_off, at);
            at += (x->scale_bytes + 4095) / 4096 * 4096;
        }
        assert_true(at <= s->off + s->bytes);
    }
    assert_int_equal(mf->matrices[mf->n_matrices - 1].spec.slot, SL_SLOT_HEAD);
}

static void every_format_opens_and_lies_where_it_says(void **state)
{
    struct dirs *d = *state;
    struct sl_modelfile mf;
    struct test_model m;
    struct sl_error err;
    char text[64];

    for (size_t i = 0; i < N_VARIANTS; i++) {
        uint64_t at;

        make_variant(&m, i);
        test_model_write(d->path, &m);
        assert_ok(sl_modelfile_open(&mf, d->path, &err), &err);
        check_matrices(&mf, &m);
        assert_int_equal(mf.n_small, 8 * m.hp.n_layers + 2);
        assert_int_equal(mf.file_bytes % 4096, 0);
        at = sl_gguf_data_off(mf.gguf);
        for (size_t s = 0; s < mf.n_sections; s++) {
            assert_int_equal(mf.sections[s].off, at);
            at += mf.sections[s].bytes;
        }
        assert_int_equal(at, mf.file_bytes);
        assert_int_equal(mf.tokenizer_bytes, m.tokenizer_bytes);
        if (m.tokenizer_bytes > 0) {
            assert_ok(sl_modelfile_read(&mf, text, mf.tokenizer_off,
                                        m.tokenizer_bytes, &err),
                      &err);
            assert_memory_equal(text, m.tokenizer, m.tokenizer_bytes);
        }
        assert_ok(sl_modelfile_verify(&mf, true, &err), &err);
        sl_modelfile_close(&mf);
    }
}

static void flip(const char *path, uint64_t off, unsigned bit)
{
    int fd = open(path, O_RDWR);
    uint8_t b;

    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &b, 1, (off_t)off), 1);
    b ^= (uint8_t)(1u << bit);
    assert_int_equal(pwrite(fd, &b, 1, (off_t)off), 1);
    close(fd);
}

static void a_flipped_bit_in_any_section_is_found_and_named(void **state)
{
    struct dirs *d = *state;
    struct sl_modelfile mf;
    struct test_model m;
    struct sl_error err;
    char place[128];

    make_variant(&m, 5);
    test_model_write(d->path, &m);
    assert_ok(sl_modelfile_open(&mf, d->path, &err), &err);
    for (size_t i = 0; i < mf.n_sections; i++) {
        const struct sl_model_section *s = &mf.sections[i];
        /* The first byte, the last one (padding), one between. */
        const uint64_t at[] = {0, s->bytes - 1, s->bytes / 3};

        snprintf(place, sizeof place, "'%s' (%llu bytes at %llu)", s->name,
                 (unsigned long long)s->bytes, (unsigned long long)s->off);
        for (unsigned k = 0; k < 3; k++) {
            flip(d->path, s->off + at[k], (unsigned)(i + 3 * k) % 8);
            assert_int_equal(sl_modelfile_verify(&mf, true, &err), -1);
            assert_int_equal(err.code, SL_ERR_CORRUPT);
            assert_non_null(strstr(err.msg, place));
            assert_non_null(strstr(err.msg, d->path));
            flip(d->path, s->off + at[k], (unsigned)(i + 3 * k) % 8);
        }
    }
    assert_ok(sl_modelfile_verify(&mf, true, &err), &err);
    sl_modelfile_close(&mf);
}

static void a_flipped_bit_in_the_header_keeps_the_file_shut(void **state)
{
    struct dirs *d = *state;
    struct sl_modelfile mf;
    struct test_model m;
    struct sl_error err;
    uint64_t header;

    make_variant(&m, 3);
    test_model_write(d->path, &m);
    assert_ok(sl_modelfile_open(&mf, d->path, &err), &err);
    header = sl_gguf_data_off(mf.gguf);
    sl_modelfile_close(&mf);
    for (uint64_t at = 0; at < header; at += at < 600 ? 1 : 37) {
        unsigned bit = (unsigned)(at * 5 % 8);

        flip(d->path, at, bit);
        assert_int_equal(sl_modelfile_open(&mf, d->path, &err), -1);
        assert_true(err.code == SL_ERR_CORRUPT ||
                    err.code == SL_ERR_UNSUPPORTED);
        assert_ptr_equal(strstr(err.msg, d->path), err.msg);
        flip(d->path, at, bit);
    }
    flip(d->path, header - 1, 7);
    assert_int_equal(sl_modelfile_open(&mf, d->path, &err), -1);
    assert_non_null(strstr(err.msg, "checksum"));
}

static void a_file_cut_short_says_so_with_both_lengths(void **state)
{
    struct dirs *d = *state;
    struct sl_modelfile mf;
    struct test_model m;
    struct sl_error err;
    char want[64], ends[64];
    uint64_t header;
    size_t bytes;
    uint8_t *image;

    make_variant(&m, 5);
    image = test_model_image(&m, &bytes);
    test_write_file(d->path, image, bytes);
    assert_ok(sl_modelfile_open(&mf, d->path, &err), &err);
    header = sl_gguf_data_off(mf.gguf);
    sl_modelfile_close(&mf);
    snprintf(want, sizeof want, "needs %zu", bytes);
    for (size_t n = bytes - 1; n < bytes; n -= n / 23 + 1) {
        assert_int_equal(truncate(d->path, (off_t)n), 0);
        assert_int_equal(sl_modelfile_open(&mf, d->path, &err), -1);
        assert_int_equal(err.code, SL_ERR_CORRUPT);
        snprintf(ends, sizeof ends, "ends at %zu", n);
        assert_non_null(strstr(err.msg, ends));
        assert_non_null(strstr(err.msg, "cut short"));
        if (n >= header)
            assert_non_null(strstr(err.msg, want));
        if (n == 0)
            break;
    }
    /* And one that goes on after its end. */
    test_write_file(d->path, image, bytes);
    assert_int_equal(truncate(d->path, (off_t)bytes + 4096), 0);
    assert_int_equal(sl_modelfile_open(&mf, d->path, &err), -1);
    assert_non_null(strstr(err.msg, "appended"));
    free(image);
}

static void a_file_cut_after_it_was_opened_fails_to_verify(void **state)
{
    struct dirs *d = *state;
    struct sl_modelfile mf;
    struct test_model m;
    struct sl_error err;

    make_variant(&m, 1);
    test_model_write(d->path, &m);
    assert_ok(sl_modelfile_open(&mf, d->path, &err), &err);
    assert_int_equal(truncate(d->path, (off_t)mf.file_bytes - 4096), 0);
    assert_int_equal(sl_modelfile_verify(&mf, true, &err), -1);
    assert_non_null(strstr(err.msg, d->path));
    sl_modelfile_close(&mf);
}

/* Replaces text by text of the same length in the header and signs it. */
static void replace(uint8_t *image, size_t header, const char *old,
                    const char *new)
{
    static const char key[] = "sluice.header.xxh3";
    uint8_t *at = memmem(image, header, old, strlen(old));
    uint8_t *sum = memmem(image, header, key, strlen(key));

    assert_int_equal(strlen(old), strlen(new));
    assert_non_null(at);
    assert_non_null(sum);
    memcpy(at, new, strlen(new));
    sum += strlen(key) + 4;
    sl_store_u64(sum, 0);
    sl_store_u64(sum, XXH3_64bits(image, header));
}

static void what_this_program_does_not_know_is_refused_by_name(void **state)
{
    static const struct {
        const char *old, *new, *message;
        enum sl_code code;
    } cases[] = {
        {"glm130b", "glm131b", "'glm131b'", SL_ERR_UNSUPPORTED},
        {"rows16", "rows32", "'rows32'", SL_ERR_UNSUPPORTED},
        {"sluice.version\x04\0\0\0\x01", NULL, "version 3", SL_ERR_UNSUPPORTED},
        {"exact", "exxct", "'exxct'", SL_ERR_UNSUPPORTED},
        {"tokens", "tocens", "'tocens'", SL_ERR_UNSUPPORTED},
        {"\x04\0\0\0\0\0\0\0int4", NULL, "'int5'", SL_ERR_UNSUPPORTED},
        {"sluice.layout", "sluice.layoux", "'sluice.layout' is missing",
         SL_ERR_CORRUPT},
        {"sluice.version", "sluice.versiox", "sluice convert",
         SL_ERR_UNSUPPORTED},
        {"transformer.final_layernorm.bias", "transformer.final_layernorm.biaz",
         "transformer.final_layernorm.bia", SL_ERR_CORRUPT},
        {"layer 1 mlp", "layer 1 mlq", "layer 1 mlq", SL_ERR_CORRUPT},
        {"word_embeddings.weight", "word_embeddings.weighs",
         "word_embeddings.weigh", SL_ERR_CORRUPT},
    };
    struct dirs *d = *state;
    struct sl_modelfile mf;
    struct test_model m;
    struct sl_layout l;
    struct sl_error err;

    make_variant(&m, 3);
    test_model_layout(&l, &m);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t bytes;
        uint8_t *image = test_model_image(&m, &bytes), *at;

        if (cases[i].new != NULL) {
            replace(image, l.header_bytes, cases[i].old, cases[i].new);
        } else {
            /* A byte beyond what a C string can hold is changed first. */
            bool version = strncmp(cases[i].old, "sluice", 6) == 0;

            at = version ? memmem(image, l.header_bytes, "sluice.version", 14)
                         : memmem(image, l.header_bytes,
                                  "\x04\0\0\0\0\0\0\0int4\x04", 13);
            assert_non_null(at);
            at[version ? 18 : 11] += version ? 2 : 1;
            replace(image, l.header_bytes, "random", "random");
        }
        test_write_file(d->path, image, bytes);
        assert_int_equal(sl_modelfile_open(&mf, d->path, &err), -1);
        if (strstr(err.msg, cases[i].message) == NULL)
            fail_msg("case %zu: %s", i, err.msg);
        assert_int_equal(err.code, cases[i].code);
        free(image);
    }
    sl_layout_fini(&l);
}

static void a_header_of_several_reads_opens(void **state)
{
    struct dirs *d = *state;
    struct sl_modelfile mf;
    struct test_model m;
    struct sl_error err;

    for (uint32_t layers = 20; layers <= 180; layers += 40) {
        test_model_init(&m);
        m.fmt = SL_FMT_INT4;
        m.hp.n_layers = layers;
        m.hp.hidden = m.hp.inner = 16;
        test_model_write(d->path, &m);
        assert_ok(sl_modelfile_open(&mf, d->path, &err), &err);
        assert_int_equal(mf.n_matrices, 4 * layers + 1);
        sl_modelfile_close(&mf);
    }
}

static void what_is_no_model_file_is_refused(void **state)
{
    struct dirs *d = *state;
    struct sl_modelfile mf;
    struct sl_error err;

    assert_int_equal(sl_modelfile_open(&mf, d->dir, &err), -1);
    assert_non_null(strstr(err.msg, "folder"));
    unlink(d->path);
    assert_int_equal(sl_modelfile_open(&mf, d->path, &err), -1);
    assert_int_equal(err.code, SL_ERR_IO);
    test_write_file(d->path, "", 0);
    assert_int_equal(sl_modelfile_open(&mf, d->path, &err), -1);
    assert_int_equal(err.code, SL_ERR_CORRUPT);
    test_write_file(d->path, "PK\3\4 and so on, a zip file", 26);
    assert_int_equal(sl_modelfile_open(&mf, d->path, &err), -1);
    assert_non_null(strstr(err.msg, "not a model file"));
    assert_int_equal(sl_modelfile_open(&mf, "/dev/null", &err), -1);
    assert_int_equal(err.code, SL_ERR_CORRUPT);
}

static void no_memory_is_an_error_and_leaks_nothing(void **state)
{
    struct dirs *d = *state;
    struct sl_modelfile mf;
    struct test_model m;
    struct sl_error err;
    uint8_t *header;
    bool fired = true;
    int rc;

    make_variant(&m, 5);
    test_model_write(d->path, &m);
    for (long n = 0; fired; n++) {
        fault_arm(n);
        rc = sl_modelfile_open(&mf, d->path, &err);
        fired = fault_fired();
        assert_int_equal(rc, fired ? -1 : 0);
        assert_true(rc == 0 || err.code == SL_ERR_NOMEM);
    }
    fired = true;
    for (long n = 0; fired; n++) {
        fault_arm(n);
        rc = sl_layout_header(mf.layout, &header, &err);
        fired = fault_fired();
        assert_int_equal(rc, fired ? -1 : 0);
        if (rc == 0)
            free(header);
    }
    fired = true;
    for (long n = 0; fired; n++) {
        fault_arm(n);
        /* Readers may do without: with another kind, or unregistered. */
        rc = sl_modelfile_verify(&mf, true, &err);
        fired = fault_fired();
        assert_true(rc == 0 || (fired && err.code != SL_ERR_CORRUPT));
    }
    sl_modelfile_close(&mf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hyper_parameters_come_back_as_they_went_in),
        cmocka_unit_test(every_format_opens_and_lies_where_it_says),
        cmocka_unit_test(a_flipped_bit_in_any_section_is_found_and_named),
        cmocka_unit_test(a_flipped_bit_in_the_header_keeps_the_file_shut),
        cmocka_unit_test(a_file_cut_short_says_so_with_both_lengths),
        cmocka_unit_test(a_file_cut_after_it_was_opened_fails_to_verify),
        cmocka_unit_test(what_this_program_does_not_know_is_refused_by_name),
        cmocka_unit_test(a_header_of_several_reads_opens),
        cmocka_unit_test(what_is_no_model_file_is_refused),
        cmocka_unit_test(no_memory_is_an_error_and_leaks_nothing),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
