#include "config.h"

#include <stdbool.h>
#include <string.h>

#include "src/exec/kvcache.h"
#include "tests/support.h"

static const struct sl_kv_config small = {
    .n_layers = 2,
    .n_heads = 3,
    .head_dim = 4,
    .n_pages = 6,
    .n_sequences = 4,
    .max_tokens = 40,
};

static struct sl_kv *make(const struct sl_kv_config *config)
{
    struct sl_error err;
    struct sl_kv *kv;

    assert_ok(sl_kv_create(&kv, config, &err), &err);
    return kv;
}

static float *cell(struct sl_kv *kv, uint32_t layer, uint32_t seq, uint32_t at,
                   uint32_t head, unsigned value)
{
    uint32_t n;
    const uint32_t *pages = sl_kv_pages(kv, seq, &n);
    float *page;

    assert_true(at / SL_KV_PAGE_LEN < n);
    page = sl_kv_at(kv, layer, pages[at / SL_KV_PAGE_LEN], head, value);
    return page + at % SL_KV_PAGE_LEN * 4;
}

static void every_cell_is_its_own(void **state)
{
    struct sl_kv *kv = make(&small);
    struct sl_error err;
    uint32_t seq;

    assert_ok(sl_kv_seq_create(kv, &seq, &err), &err);
    assert_ok(sl_kv_extend(kv, seq, 40, &err), &err);
    for (int check = 0; check < 2; check++) {
        float v = 0;

        for (uint32_t l = 0; l < 2; l++)
            for (uint32_t at = 0; at < 40; at++)
                for (uint32_t h = 0; h < 3; h++)
                    for (unsigned value = 0; value < 2; value++)
                        for (int i = 0; i < 4; i++, v++) {
                            float *c = cell(kv, l, seq, at, h, value) + i;

                            if (check)
                                assert_true(*c == v);
                            else
                                *c = v;
                        }
    }
    sl_kv_destroy(kv);
}

static void forks_share_until_one_writes(void **state)
{
    struct sl_kv *kv = make(&small);
    struct sl_error err;
    uint32_t parent, child, n_p, n_c;
    const uint32_t *p, *c;

    assert_ok(sl_kv_seq_create(kv, &parent, &err), &err);
    assert_ok(sl_kv_extend(kv, parent, 20, &err), &err);
    *cell(kv, 1, parent, 19, 2, 1) = 7;
    assert_ok(sl_kv_seq_fork(kv, &child, parent, &err), &err);
    p = sl_kv_pages(kv, parent, &n_p);
    c = sl_kv_pages(kv, child, &n_c);
    assert_int_equal(n_p, n_c);
    assert_int_equal(p[0], c[0]);
    assert_int_equal(p[1], c[1]);
    assert_ok(sl_kv_extend(kv, child, 1, &err), &err);
    assert_int_equal(p[0], c[0]);
    assert_true(p[1] != c[1]);
    assert_true(*cell(kv, 1, child, 19, 2, 1) == 7);
    *cell(kv, 1, child, 19, 2, 1) = 8;
    assert_true(*cell(kv, 1, parent, 19, 2, 1) == 7);
    /* the parent is alone with its page again: no copy */
    assert_ok(sl_kv_extend(kv, parent, 1, &err), &err);
    assert_int_equal(sl_kv_len(kv, parent), 21);
    sl_kv_destroy(kv);
}

static void pages_come_back_when_sequences_end(void **state)
{
    struct sl_kv *kv = make(&small);
    struct sl_error err;
    uint32_t a, b;

    for (int turn = 0; turn < 50; turn++) {
        assert_ok(sl_kv_seq_create(kv, &a, &err), &err);
        assert_ok(sl_kv_extend(kv, a, 17, &err), &err);
        for (int step = 0; step < 20; step++) {
            assert_ok(sl_kv_seq_fork(kv, &b, a, &err), &err);
            sl_kv_seq_destroy(kv, a);
            assert_ok(sl_kv_extend(kv, b, 1, &err), &err);
            a = b;
        }
        sl_kv_seq_destroy(kv, a);
    }
    sl_kv_destroy(kv);
}

/* What is cut off is free again, and what is written there next does not
 * reach a sequence that had it too. */
static void a_cut_sequence_goes_on_from_there(void **state)
{
    struct sl_kv *kv = make(&small);
    struct sl_error err;
    uint32_t a, b, c, n;

    assert_ok(sl_kv_seq_create(kv, &a, &err), &err);
    assert_ok(sl_kv_extend(kv, a, 40, &err), &err);
    for (uint32_t at = 0; at < 40; at++)
        *cell(kv, 1, a, at, 2, 1) = (float)at;
    sl_kv_seq_cut(kv, a, 40);
    assert_int_equal(sl_kv_len(kv, a), 40);
    assert_ok(sl_kv_seq_fork(kv, &b, a, &err), &err);
    sl_kv_seq_cut(kv, a, 20);
    assert_int_equal(sl_kv_len(kv, a), 20);
    sl_kv_pages(kv, a, &n);
    assert_int_equal(n, 2);
    assert_ok(sl_kv_extend(kv, a, 1, &err), &err);
    assert_true(*cell(kv, 1, a, 19, 2, 1) == 19);
    *cell(kv, 1, a, 20, 2, 1) = -1;
    assert_true(*cell(kv, 1, b, 20, 2, 1) == 20);
    /* 3 pages of b, a copy of its second: two are free */
    sl_kv_seq_cut(kv, a, 16);
    assert_ok(sl_kv_seq_create(kv, &c, &err), &err);
    assert_ok(sl_kv_extend(kv, c, 40, &err), &err);
    assert_int_equal(sl_kv_extend(kv, a, 1, &err), -1);
    sl_kv_seq_cut(kv, c, 0);
    assert_ok(sl_kv_extend(kv, a, 24, &err), &err);
    assert_true(*cell(kv, 1, a, 15, 2, 1) == 15);
    sl_kv_destroy(kv);
}

static void a_full_cache_says_so_and_changes_nothing(void **state)
{
    struct sl_kv *kv = make(&small);
    struct sl_error err;
    uint32_t a, b, c, n;

    assert_ok(sl_kv_seq_create(kv, &a, &err), &err);
    assert_int_equal(sl_kv_extend(kv, a, 41, &err), -1);
    assert_int_equal(err.code, SL_ERR_BUDGET);
    assert_ok(sl_kv_extend(kv, a, 40, &err), &err);
    assert_ok(sl_kv_seq_create(kv, &b, &err), &err);
    assert_ok(sl_kv_extend(kv, b, 33, &err), &err);
    assert_ok(sl_kv_seq_create(kv, &c, &err), &err);
    assert_int_equal(sl_kv_extend(kv, c, 1, &err), -1);
    assert_int_equal(sl_kv_len(kv, c), 0);
    sl_kv_pages(kv, c, &n);
    assert_int_equal(n, 0);
    assert_ok(sl_kv_seq_create(kv, &n, &err), &err);
    assert_int_equal(sl_kv_seq_create(kv, &n, &err), -1);
    sl_kv_destroy(kv);
}

/* Beams: a context, then every step each live beam continues a random one. */
static void planned_pages_are_enough_for_any_beam_search(void **state)
{
    uint64_t random = 1;

    for (uint32_t beams = 1; beams <= 5; beams++) {
        for (uint32_t context = 1; context < 40; context += 6) {
            struct sl_kv_config config = small;
            uint32_t live[5], next[5], n = 1;
            struct sl_error err;
            struct sl_kv *kv;

            config.n_sequences = 2 * beams;
            config.max_tokens = 80;
            config.n_pages = (uint32_t)sl_kv_pages_needed(beams, 80, context);
            kv = make(&config);
            assert_ok(sl_kv_seq_create(kv, &live[0], &err), &err);
            assert_ok(sl_kv_extend(kv, live[0], context, &err), &err);
            for (uint32_t at = context; at < 80; at++) {
                for (uint32_t i = 0; i < beams; i++) {
                    random =
                        random * 6364136223846793005u + 1442695040888963407u;
                    assert_ok(sl_kv_seq_fork(kv, &next[i],
                                             live[(random >> 33) % n], &err),
                              &err);
                }
                for (uint32_t i = 0; i < n; i++)
                    sl_kv_seq_destroy(kv, live[i]);
                n = beams;
                memcpy(live, next, sizeof live);
                for (uint32_t i = 0; i < n; i++)
                    assert_ok(sl_kv_extend(kv, live[i], 1, &err), &err);
            }
            sl_kv_destroy(kv);
        }
    }
}

struct copies {
    unsigned n;
    uint32_t to, from;
    bool fail;
};

static int note_copy(void *arg, uint32_t to, uint32_t from,
                     struct sl_error *err)
{
    struct copies *c = arg;

    if (c->fail)
        return sl_fail(err, SL_ERR_IO, "device lost");
    c->n++;
    c->to = to;
    c->from = from;
    return 0;
}

/* Layer 1 of 3 lies on a device: no memory for it here, and its pages are
 * copied by whoever keeps them. */
static void layers_may_lie_elsewhere(void **state)
{
    static const bool elsewhere[] = {false, true, false};
    struct sl_kv_page_store store = {.copy = note_copy};
    struct sl_kv_config config = small;
    uint64_t bytes;
    struct copies copies = {0};
    struct sl_error err;
    struct sl_kv *kv;
    uint32_t a, b, n;

    config.n_layers = 3;
    bytes = sl_kv_page_bytes(&config);
    config.elsewhere = elsewhere;
    assert_true(sl_kv_page_bytes(&config) == bytes / 3 * 2);
    kv = make(&config);
    store.arg = &copies;
    sl_kv_set_page_store(kv, &store);
    assert_ok(sl_kv_seq_create(kv, &a, &err), &err);
    assert_ok(sl_kv_extend(kv, a, 5, &err), &err);
    *cell(kv, 0, a, 4, 2, 1) = 1;
    *cell(kv, 2, a, 4, 2, 1) = 2;
    assert_ok(sl_kv_seq_fork(kv, &b, a, &err), &err);
    assert_int_equal(copies.n, 0);
    copies.fail = true;
    assert_int_equal(sl_kv_extend(kv, b, 1, &err), -1);
    assert_int_equal(err.code, SL_ERR_IO);
    assert_int_equal(sl_kv_len(kv, b), 5);
    assert_int_equal(sl_kv_pages(kv, b, &n)[0], sl_kv_pages(kv, a, &n)[0]);
    copies.fail = false;
    assert_ok(sl_kv_extend(kv, b, 1, &err), &err);
    assert_int_equal(copies.n, 1);
    assert_int_equal(copies.from, sl_kv_pages(kv, a, &n)[0]);
    assert_int_equal(copies.to, sl_kv_pages(kv, b, &n)[0]);
    assert_true(*cell(kv, 0, b, 4, 2, 1) == 1);
    assert_true(*cell(kv, 2, b, 4, 2, 1) == 2);
    /* The page that the failed copy had taken came back. */
    assert_ok(sl_kv_extend(kv, b, 34, &err), &err);
    assert_ok(sl_kv_extend(kv, a, 35, &err), &err);
    sl_kv_destroy(kv);
}

/* A prefix: held once, whole pages shared, the rest copied by who writes. */
static void sequences_may_begin_alike(void **state)
{
    enum { BEGIN = 21, ROW = 3 * 4 };
    struct sl_kv_config config = small;
    float rows[BEGIN * ROW];
    struct sl_kernels k;
    struct sl_error err;
    struct sl_kv *kv;
    uint32_t a, b, c, n;

    sl_kernels_init(&k, SL_ISA_REF);
    config.n_begin = BEGIN;
    kv = make(&config);
    for (uint32_t plane = 0; plane < 4; plane++) {
        for (uint32_t i = 0; i < BEGIN * ROW; i++)
            rows[i] = (float)(plane * 1000 + i);
        assert_ok(sl_kv_begin_put(kv, &k, plane / 2, plane % 2, rows, &err),
                  &err);
    }
    assert_ok(sl_kv_seq_create(kv, &a, &err), &err);
    assert_ok(sl_kv_seq_create(kv, &b, &err), &err);
    assert_int_equal(sl_kv_len(kv, a), BEGIN);
    assert_int_equal(sl_kv_pages(kv, a, &n)[1], sl_kv_pages(kv, b, &n)[1]);
    assert_int_equal(n, 2);
    /* two of 6 pages so far: each copies the second, and has one more */
    assert_ok(sl_kv_extend(kv, a, 12, &err), &err);
    assert_ok(sl_kv_extend(kv, b, 12, &err), &err);
    *cell(kv, 1, a, BEGIN, 2, 1) = -1;
    assert_int_equal(sl_kv_extend(kv, a, 8, &err), -1);
    for (uint32_t plane = 0; plane < 4; plane++)
        for (uint32_t at = 0; at < BEGIN; at++)
            for (uint32_t h = 0; h < 3; h++)
                assert_true(*cell(kv, plane / 2, b, at, h, plane % 2) ==
                            (float)(plane * 1000 + (at * 3 + h) * 4));
    assert_true(*cell(kv, 1, b, BEGIN, 2, 1) != -1);
    sl_kv_seq_cut(kv, a, BEGIN + 3);
    assert_true(*cell(kv, 1, a, BEGIN, 2, 1) == -1);
    sl_kv_seq_clear(kv, a);
    assert_int_equal(sl_kv_len(kv, a), BEGIN);
    sl_kv_seq_destroy(kv, b);
    assert_ok(sl_kv_seq_fork(kv, &c, a, &err), &err);
    assert_ok(sl_kv_extend(kv, c, 19, &err), &err);
    assert_ok(sl_kv_extend(kv, a, 5, &err), &err);
    /* c, which wrote first, has a copy of a's page */
    assert_true(*cell(kv, 1, c, BEGIN - 1, 2, 1) ==
                *cell(kv, 1, a, BEGIN - 1, 2, 1));
    sl_kv_seq_destroy(kv, a);
    sl_kv_seq_destroy(kv, c);
    assert_ok(sl_kv_seq_create(kv, &a, &err), &err);
    assert_true(*cell(kv, 1, a, 20, 2, 1) == 3000 + (20 * 3 + 2) * 4);
    sl_kv_destroy(kv);
}

struct plane {
    uint32_t layer, page;
    unsigned value;
    uint16_t values[1024];
    size_t bytes;
};

static int fetch(void *arg, uint32_t layer, uint32_t page, unsigned value,
                 void *to, struct sl_error *err)
{
    const struct plane *p = arg;

    if (layer != p->layer || page != p->page || value != p->value)
        return sl_fail(err, SL_ERR_INTERNAL, "not this plane");
    memcpy(to, p->values, p->bytes);
    return 0;
}

static int keep(void *arg, uint32_t layer, uint32_t page, unsigned value,
                const void *from, struct sl_error *err)
{
    struct plane *p = arg;

    p->layer = layer;
    p->page = page;
    p->value = value;
    memcpy(p->values, from, p->bytes);
    return 0;
}

/* Of a layer that lies elsewhere too, in FP16 whatever the others are; what
 * no position has written yet is zero. */
static void planes_are_taken_out_and_put_back(void **state)
{
    static const bool elsewhere[] = {false, true};
    struct plane there = {0};
    struct sl_kv_config config = small;
    struct sl_kv_page_store store = {.get = fetch, .put = keep, .arg = &there};
    uint8_t *plane, *again;
    struct sl_error err;
    struct sl_kv *kv;
    size_t row, head;

    config.n_layers = 2;
    config.elsewhere = elsewhere;
    kv = make(&config);
    sl_kv_set_page_store(kv, &store);
    assert_int_equal(sl_kv_layer_kind(&config, 0), config.kind);
    assert_int_equal(sl_kv_layer_kind(&config, 1), SL_KV_F16);
    there.bytes = sl_kv_plane_bytes(&config, SL_KV_F16);
    assert_true(there.bytes <= sizeof there.values);
    row = config.head_dim * sizeof(uint16_t);
    head = SL_KV_PAGE_LEN * row;
    plane = malloc(there.bytes);
    memset(plane, 7, there.bytes);
    assert_ok(sl_kv_plane_put(kv, 1, 3, 1, plane, &err), &err);
    assert_int_equal(sl_kv_plane_get(kv, 1, 2, 1, 5, plane, &err), -1);
    assert_ok(sl_kv_plane_get(kv, 1, 3, 1, 5, plane, &err), &err);
    for (uint32_t h = 0; h < config.n_heads; h++) {
        for (size_t i = 0; i < head; i++)
            assert_int_equal(plane[h * head + i], i < 5 * row ? 7 : 0);
    }
    free(plane);

    there.bytes = sl_kv_plane_bytes(&config, config.kind);
    plane = malloc(there.bytes);
    again = malloc(there.bytes);
    for (size_t i = 0; i < there.bytes; i++)
        plane[i] = (uint8_t)(i * 5);
    assert_ok(sl_kv_plane_put(kv, 0, 2, 0, plane, &err), &err);
    assert_ok(sl_kv_plane_get(kv, 0, 2, 0, 99, again, &err), &err);
    assert_memory_equal(plane, again, there.bytes);
    assert_memory_equal(plane, sl_kv_at(kv, 0, 2, 0, 0), there.bytes);
    free(plane);
    free(again);
    sl_kv_destroy(kv);
}

static void every_kind_takes_its_bytes(void **state)
{
    static const uint64_t row_bytes[] = {
        [SL_KV_F32] = 4 * 128,
        [SL_KV_F16] = 2 * 128,
        [SL_KV_INT8] = 128 + 2 * 4,
    };
    struct sl_kv_config config = small;
    uint32_t n;

    config.head_dim = 128;
    for (int kind = SL_KV_F32; kind <= SL_KV_INT8; kind++) {
        struct sl_error err;
        struct sl_kv *kv;
        uint32_t seq;

        config.kind = (enum sl_kv_kind)kind;
        assert_int_equal(sl_kv_page_bytes(&config),
                         2 * 2 * 3 * SL_KV_PAGE_LEN * row_bytes[kind]);
        assert_in_range(sl_kv_bytes(&config),
                        config.n_pages * sl_kv_page_bytes(&config),
                        config.n_pages * sl_kv_page_bytes(&config) + 1000);
        kv = make(&config);
        assert_ok(sl_kv_seq_create(kv, &seq, &err), &err);
        assert_ok(sl_kv_extend(kv, seq, 40, &err), &err);
        /* the next head's page begins where this one ends */
        n = *sl_kv_pages(kv, seq, &n);
        assert_int_equal((uint8_t *)sl_kv_at(kv, 1, n, 2, 1) -
                             (uint8_t *)sl_kv_at(kv, 1, n, 1, 1),
                         SL_KV_PAGE_LEN * row_bytes[kind]);
        sl_kv_destroy(kv);
    }
    /* GLM-130B: 70 layers of 96 heads, 3.44 MB a position at FP16 */
    config.n_layers = 70;
    config.n_heads = 96;
    config.kind = SL_KV_F16;
    assert_int_equal(sl_kv_page_bytes(&config) / SL_KV_PAGE_LEN, 3440640);
}

static void row_put(const struct sl_kv *kv, const struct sl_kernels *k,
                    uint32_t seq, uint32_t at, float of)
{
    uint32_t n, page = sl_kv_pages(kv, seq, &n)[at / SL_KV_PAGE_LEN];
    float row[8];

    for (uint32_t l = 0; l < small.n_layers; l++) {
        for (uint32_t h = 0; h < small.n_heads * 2; h++) {
            for (uint32_t i = 0; i < small.head_dim; i++)
                row[i] = of + (float)(l * 10 + h) + (float)i / 8;
            sl_kv_store(kv, k, sl_kv_at(kv, l, page, h / 2, h % 2),
                        at % SL_KV_PAGE_LEN, row);
        }
    }
}

/* What is picked lies, bit for bit, where a sequence of it alone has it. */
static void a_path_moves_to_its_places(void **state)
{
    static const uint32_t path[] = {0, 2, 3, 17, 20};
    struct sl_kv_config config = small;
    struct sl_kernels k;

    assert_in_range(small.head_dim, 1, 8);
    sl_kernels_init(&k, SL_ISA_REF);
    for (int kind = SL_KV_F32; kind <= SL_KV_INT8; kind++) {
        struct sl_error err;
        uint32_t grown, plain, n;
        struct sl_kv *kv;

        config.kind = (enum sl_kv_kind)kind;
        kv = make(&config);
        assert_ok(sl_kv_seq_create(kv, &grown, &err), &err);
        assert_ok(sl_kv_seq_create(kv, &plain, &err), &err);
        assert_ok(sl_kv_extend(kv, grown, 13 + 22, &err), &err);
        assert_ok(sl_kv_extend(kv, plain, 13 + 5, &err), &err);
        for (uint32_t at = 0; at < 13 + 22; at++)
            row_put(kv, &k, grown, at, (float)at * 1.7f);
        for (uint32_t at = 0; at < 13 + 5; at++)
            row_put(kv, &k, plain, at,
                    (float)(at < 13 ? at : 13 + path[at - 13]) * 1.7f);
        assert_ok(sl_kv_seq_pick(kv, grown, 13, path, 5, &err), &err);
        assert_int_equal(sl_kv_len(kv, grown), 13 + 5);
        sl_kv_pages(kv, grown, &n);
        assert_int_equal(n, 2);
        for (uint32_t p = 0; p < 2; p++) {
            uint32_t a = sl_kv_pages(kv, grown, &n)[p];
            uint32_t b = sl_kv_pages(kv, plain, &n)[p];
            size_t used = p == 0 ? SL_KV_PAGE_LEN : 2;

            for (uint32_t h = 0; h < small.n_heads * 2; h++) {
                const uint8_t *x = sl_kv_at(kv, 1, a, h / 2, h % 2);
                const uint8_t *y = sl_kv_at(kv, 1, b, h / 2, h % 2);
                size_t row = small.head_dim * (kind == SL_KV_F32   ? 4u
                                               : kind == SL_KV_F16 ? 2u
                                                                   : 1u);

                assert_memory_equal(x, y, used * row);
                if (kind == SL_KV_INT8)
                    assert_memory_equal(x + SL_KV_PAGE_LEN * row,
                                        y + SL_KV_PAGE_LEN * row, used * 8);
            }
        }
        sl_kv_destroy(kv);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_cell_is_its_own),
        cmocka_unit_test(every_kind_takes_its_bytes),
        cmocka_unit_test(a_path_moves_to_its_places),
        cmocka_unit_test(forks_share_until_one_writes),
        cmocka_unit_test(pages_come_back_when_sequences_end),
        cmocka_unit_test(a_cut_sequence_goes_on_from_there),
        cmocka_unit_test(a_full_cache_says_so_and_changes_nothing),
        cmocka_unit_test(planned_pages_are_enough_for_any_beam_search),
        cmocka_unit_test(layers_may_lie_elsewhere),
        cmocka_unit_test(sequences_may_begin_alike),
        cmocka_unit_test(planes_are_taken_out_and_put_back),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
