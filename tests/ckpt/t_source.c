#include "config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/base/crc32.h"
#include "src/ckpt/ckpt_sums.h"
#include "tests/ckpt_maker.h"
#include "tests/converting.h"
#include "tests/support.h"

static void sums_are_those_of_zip_files(void **state)
{
    static const char check[] = "123456789"; /* the one that all agree on */
    uint8_t bytes[1000];

    assert_int_equal(sl_crc32(0, check, 9), 0xcbf43926u);
    assert_int_equal(sl_crc32(0, NULL, 0), 0);
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(i * i >> 3);
    for (size_t n = 0; n < sizeof bytes; n += 13) {
        for (size_t cut = 0; cut <= n; cut += 7) {
            uint32_t a = sl_crc32(0, bytes, cut);
            uint32_t b = sl_crc32(0, bytes + cut, n - cut);

            assert_int_equal(sl_crc32(a, bytes + cut, n - cut),
                             sl_crc32(0, bytes, n));
            assert_int_equal(sl_crc32_join(a, b, n - cut),
                             sl_crc32(0, bytes, n));
        }
    }
}

enum { BYTES = 5000, BEGIN = 700, RUN = 4000 };

/* Pieces come in any order and overlap; the last one that was missing tells. */
static void pieces_in_any_order_are_one_sum(void **state)
{
    uint8_t bytes[BYTES];
    uint32_t random = 1;

    for (size_t i = 0; i < BYTES; i++) {
        random = random * 1103515245 + 12345;
        bytes[i] = (uint8_t)(random >> 16);
    }
    for (int damaged = 0; damaged < 2; damaged++) {
        uint32_t want = sl_crc32(0, bytes + BEGIN, RUN) ^ (uint32_t)damaged;

        for (int turn = 0; turn < 20; turn++) {
            struct sl_sums *s = sl_sums_create("file");
            struct sl_error err = {0};
            uint64_t off, n;
            int rc = 0;

            assert_ok(sl_sums_add(s, BEGIN, RUN, want, "tensor x", &err), &err);
            for (int i = 0; i < 200 && rc == 0; i++) {
                off = (random = random * 1103515245 + 12345) >> 8;
                off %= BYTES;
                n = (random = random * 1103515245 + 12345) >> 8;
                n %= 200;
                n = n < BYTES - off ? n : BYTES - off;
                rc = sl_sums_take(s, bytes + off, off, (size_t)n, &err);
            }
            while (rc == 0 && sl_sums_gap(s, &off, &n)) {
                assert_true(off >= BEGIN && off + n <= BEGIN + RUN);
                rc = sl_sums_take(s, bytes + off, off, (size_t)n, &err);
            }
            assert_int_equal(rc, damaged ? -1 : 0);
            if (damaged) {
                assert_int_equal(err.code, SL_ERR_CORRUPT);
                assert_non_null(strstr(err.msg, "tensor x"));
                assert_non_null(strstr(err.msg, "offset 700"));
            }
            sl_sums_destroy(s);
        }
    }
}

static void what_was_summed_before_is_not_read_again(void **state)
{
    struct sl_sums *first = sl_sums_create("f"), *then = sl_sums_create("f");
    struct sl_sums_piece *pieces;
    uint8_t bytes[100] = {1, 2, 3};
    uint32_t want = sl_crc32(0, bytes, sizeof bytes);
    struct sl_error err;
    uint64_t off, n_bytes;
    size_t n;

    assert_ok(sl_sums_add(first, 0, 100, want, "x", &err), &err);
    assert_ok(sl_sums_add(then, 0, 100, want, "x", &err), &err);
    assert_int_equal(sl_sums_add(then, 50, 100, want, "y", &err), -1);
    assert_ok(sl_sums_take(first, bytes, 0, 40, &err), &err);
    assert_ok(sl_sums_take(first, bytes + 60, 60, 40, &err), &err);
    assert_ok(sl_sums_pieces(first, &pieces, &n, &err), &err);
    assert_int_equal(n, 2);
    for (size_t i = 0; i < n; i++)
        assert_ok(sl_sums_put(then, &pieces[i], &err), &err);
    assert_true(sl_sums_gap(then, &off, &n_bytes));
    assert_int_equal(off, 40);
    assert_int_equal(n_bytes, 20);
    bytes[50] ^= 1;
    assert_int_equal(sl_sums_take(then, bytes + 40, 40, 20, &err), -1);
    free(pieces);
    sl_sums_destroy(first);
    sl_sums_destroy(then);
}

/* --- checkpoints -----------------------------------------------------------
 */

/* Where the tensor's first byte lies. */
static size_t find_tensor(char path[1200], const struct fixture *f,
                          size_t shard, const char *name)
{
    const struct sl_ckpt_tensor *t;
    struct sl_src_place at;
    struct sl_ckpt c;
    struct sl_error err;

    assert_ok(sl_ckpt_open(&c, f->source, NULL, &err), &err);
    t = sl_ckpt_find(&c, shard, name);
    assert_non_null(t);
    at = sl_src_where(t->src, t->off);
    snprintf(path, 1200, "%s", at.file);
    sl_ckpt_close(&c);
    return (size_t)at.off;
}

static void patch(const char *path, size_t at, const void *bytes, size_t n)
{
    FILE *f = fopen(path, "r+");

    assert_non_null(f);
    fseek(f, (long)at, SEEK_SET);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    fclose(f);
}

static void flip(const char *path, size_t at)
{
    FILE *f = fopen(path, "r+");
    int c;

    assert_non_null(f);
    fseek(f, (long)at, SEEK_SET);
    c = fgetc(f);
    fseek(f, (long)at, SEEK_SET);
    fputc(c ^ 16, f);
    fclose(f);
}

#define NORM "transformer.final_layernorm.weight"
#define MLP  "transformer.layers.1.mlp.dense_4h_to_h.weight"

/* Every bit of every tensor counts: some are looked at. */
static void one_flipped_bit_is_found_for_every_quant(void **state)
{
    static const char *const quants[] = {"keep", "f16", "int8", "int4-g64"};
    static const char *const names[] = {NORM, MLP};
    struct fixture *f = *state;
    struct sl_convert_result r;
    struct sl_error err;

    glm_maker_write(&f->g, f->source);
    for (size_t i = 0; i < 8; i++) {
        char path[1200];
        size_t at = find_tensor(path, f, 0, names[i % 2]) + i;

        f->o.quant = quants[i / 2];
        flip(path, at);
        assert_int_equal(sl_convert(&r, &f->o, &err), -1);
        assert_int_equal(err.code, SL_ERR_CORRUPT);
        assert_non_null(strstr(err.msg, "CRC-32"));
        assert_non_null(strstr(err.msg, "mp_rank_00"));
        assert_non_null(strstr(err.msg, names[i % 2]));
        f->o.trust_source = true;
        assert_ok(sl_convert(&r, &f->o, &err), &err);
        sl_convert_result_fini(&r);
        f->o.trust_source = false;
        flip(path, at);
        assert_ok(sl_convert(&r, &f->o, &err), &err);
        sl_convert_result_fini(&r);
    }
}

static void zips_without_sums_are_told_once(void **state)
{
    struct fixture *f = *state;
    const uint16_t one[4] = {0x3c00, 0x3c00, 0x3c00, 0x3c00};
    const struct maker_tensor t[] = {
        {.name = "a",
         .dtype = SL_DT_F16,
         .n_dims = 1,
         .shape = {4},
         .data = one},
        {.name = "b",
         .dtype = SL_DT_F16,
         .n_dims = 1,
         .shape = {4},
         .data = one},
    };
    const struct maker_options bare = {.unsummed = true};
    struct sl_ckpt c;
    struct sl_error err;
    const char *at;
    uint16_t got[4];

    for (unsigned rank = 0; rank < 3; rank++)
        maker_shard(f->source, "1", rank, t, 2, &bare);
    assert_ok(sl_ckpt_open(&c, f->source, &f->log, &err), &err);
    at = strstr(f->said, "no CRC-32");
    assert_non_null(at);
    assert_null(strstr(at + 1, "no CRC-32"));
    assert_non_null(strstr(f->said, "9 members")); /* data.pkl, a, b */
    assert_ok(sl_ckpt_read_rows(&c.shards[2].tensors[1], got, 0, 4, &err),
              &err);
    sl_ckpt_close(&c);
}

static void views_are_worked_out_or_refused_by_name(void **state)
{
    struct fixture *f = *state;
    const uint16_t values[4] = {0x3c00, 0x4000, 0x4200, 0x4400};
    static const struct {
        const char *view, *made_by, *says; /* says NULL: it is taken */
    } kinds[] = {
        {"neg", NULL, "negated"},
        {"conj", NULL, "conjugated"},
        {"other", NULL, "unknown"},
        {"", NULL, "unknown metadata"},
        {NULL, "torch._utils\n_rebuild_parameter_with_state\n", NULL},
        {NULL, "torch._utils\n_rebuild_parameter\n", NULL},
        {NULL, "torch._utils\n_rebuild_sparse_tensor\n", "_rebuild_sparse"},
        {NULL, "torch._tensor\n_rebuild_from_type_v2\n", "_rebuild_from_type"},
    };

    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        const struct maker_tensor t = {
            .name = "layers.3.bias",
            .dtype = SL_DT_F16,
            .n_dims = 1,
            .shape = {4},
            .data = values,
            .view = kinds[i].view,
            .made_by = kinds[i].made_by,
        };
        struct sl_ckpt c;
        struct sl_error err = {0};
        uint16_t got[4];
        int rc;

        maker_shard(f->source, "1", 0, &t, 1, NULL);
        rc = sl_ckpt_open(&c, f->source, NULL, &err);
        if (kinds[i].says == NULL) {
            assert_ok(rc, &err);
            assert_ok(
                sl_ckpt_read_rows(&c.shards[0].tensors[0], got, 0, 4, &err),
                &err);
            assert_memory_equal(got, values, sizeof got);
            sl_ckpt_close(&c);
        } else {
            assert_int_equal(rc, -1);
            assert_int_equal(err.code, SL_ERR_UNSUPPORTED);
            assert_non_null(strstr(err.msg, kinds[i].says));
            assert_non_null(strstr(err.msg, "layers.3.bias"));
        }
    }
}

static void shards_that_differ_in_what_all_have_are_told(void **state)
{
    const uint16_t other = 0x4900; /* 10 */
    struct fixture *f = *state;
    struct sl_convert_result r;
    struct sl_error err;
    char path[1200];
    size_t at;

    f->g.shards = 2;
    glm_maker_write(&f->g, f->source);
    assert_ok(sl_convert(&r, &f->o, &err), &err);
    sl_convert_result_fini(&r);
    assert_null(strstr(f->said, "values are others"));
    at = find_tensor(path, f, 1, NORM);
    patch(path, at, &other, 2);
    f->o.trust_source = true;
    assert_ok(sl_convert(&r, &f->o, &err), &err);
    sl_convert_result_fini(&r);
    assert_non_null(strstr(f->said, NORM ": 1 of "));
    assert_non_null(strstr(f->said, "mp_rank_01"));
}

static void weights_that_are_no_numbers_are_told_for_every_quant(void **state)
{
    static const char *const quants[] = {
        "keep", "f32", "f16", "bf16", "int8", "int4", "int8-g32", "int4-g64"};
    const uint16_t odd[2] = {0x7e00, 0xfc00}; /* NaN, -infinity */
    struct fixture *f = *state;
    struct sl_error err;
    char path[1200];
    size_t at;

    f->g.shards = 2;
    glm_maker_write(&f->g, f->source);
    at = find_tensor(path, f, 0, NORM);
    patch(path, at, odd, 2);
    at = find_tensor(path, f, 1, MLP);
    patch(path, at, odd, 4);
    f->o.trust_source = true;
    for (size_t i = 0; i < sizeof quants / sizeof *quants; i++) {
        struct sl_convert_result r;

        f->said[0] = '\0';
        f->o.quant = quants[i];
        assert_ok(sl_convert(&r, &f->o, &err), &err);
        sl_convert_result_fini(&r);
        assert_non_null(strstr(f->said, "tensor " MLP ": 2 of "));
        assert_non_null(strstr(f->said, "tensor " NORM ": 1 of "));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums_are_those_of_zip_files),
        cmocka_unit_test(pieces_in_any_order_are_one_sum),
        cmocka_unit_test(what_was_summed_before_is_not_read_again),
        cmocka_unit_test_setup_teardown(
            one_flipped_bit_is_found_for_every_quant, fixture_setup,
            fixture_teardown),
        cmocka_unit_test_setup_teardown(zips_without_sums_are_told_once,
                                        fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(views_are_worked_out_or_refused_by_name,
                                        fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(
            shards_that_differ_in_what_all_have_are_told, fixture_setup,
            fixture_teardown),
        cmocka_unit_test_setup_teardown(
            weights_that_are_no_numbers_are_told_for_every_quant, fixture_setup,
            fixture_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
