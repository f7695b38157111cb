#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/cudasim/cudasim.h"
#include "src/exec/kv_turns.h"
#include "tests/exec_rig.h"
#include "tests/support.h"

/* Caches that wait in RAM: which pages come in which turn, and that no bit is
 * another than where they lie on the device. */

enum { TEXTS = 6, LENGTH = 61, TREE = 7 };

static const struct shape shape = {
    "int8-g32", 5,           64, 96, 4,           160, true,
    false,      SL_FMT_INT8, 32, 0,  SL_FMT_INT8, 32};

/* --- turns ---------------------------------------------------------------- */

#define PAGES_EACH 4u

struct turns {
    struct sl_kv *kv;
    struct sl_kv_turns t;
    struct sl_kv_config config;
    struct sl_pass_item items[TEXTS];
    uint32_t table[TEXTS], lists[TEXTS * PAGES_EACH];
    void *lists_memory;
};

static void turns_init(struct turns *x, uint32_t room)
{
    struct sl_carver count = {NULL, 0}, c;
    struct sl_error err;

    *x = (struct turns){
        .config = {.n_layers = 1,
                   .n_heads = 1,
                   .head_dim = 8,
                   .n_pages = TEXTS * PAGES_EACH,
                   .n_sequences = TEXTS,
                   .max_tokens = PAGES_EACH * SL_KV_PAGE_LEN,
                   .kind = SL_KV_F16},
    };
    assert_ok(sl_kv_create(&x->kv, &x->config, &err), &err);
    sl_kv_turns_carve(&x->t, &count, &x->config, TEXTS);
    x->lists_memory = calloc(1, count.used + 64);
    c = (struct sl_carver){x->lists_memory, 0};
    sl_kv_turns_carve(&x->t, &c, &x->config, TEXTS);
    x->t.room = room;
}

static void turns_fini(struct turns *x)
{
    sl_kv_destroy(x->kv);
    free(x->lists_memory);
}

/* An item of n positions behind `base` of a new sequence, or of a fork. */
static void add(struct turns *x, size_t i, uint32_t base, uint32_t n, int fork)
{
    struct sl_pass_item *it = &x->items[i];
    struct sl_error err;

    *it = (struct sl_pass_item){.base = base, .n = n};
    if (fork < 0) {
        assert_ok(sl_kv_seq_create(x->kv, &it->seq, &err), &err);
        assert_ok(sl_kv_extend(x->kv, it->seq, base, &err), &err);
    } else {
        assert_ok(sl_kv_seq_fork(x->kv, &it->seq, x->items[fork].seq, &err),
                  &err);
    }
    assert_ok(sl_kv_extend(x->kv, it->seq, n, &err), &err);
}

/* Every page of every item is at its place in the item's turn, with what the
 * pass must copy of it. */
static void check_turns(struct turns *x, size_t n_items, uint32_t n_turns)
{
    struct sl_pass pass = {.run = x->items, .n_items = n_items};
    size_t item = 0;

    sl_kv_turns_make(&x->t, x->kv, &pass, x->table, x->lists);
    assert_int_equal(x->t.n_turns, n_turns);
    for (uint32_t t = 0; t < n_turns; t++) {
        const struct sl_kv_turn *turn = &x->t.turn[t];

        assert_int_equal(turn->first_item, item);
        assert_in_range(turn->n_pages, 1, x->t.room);
        for (; item < turn->first_item + turn->n_items; item++) {
            const struct sl_pass_item *it = &x->items[item];
            uint32_t n;
            const uint32_t *pages = sl_kv_pages(x->kv, it->seq, &n);

            for (uint32_t p = 0; p < n; p++) {
                uint32_t at = x->lists[x->table[item] + p];
                const struct sl_kv_turn_page *got =
                    &x->t.pages[turn->first_page + at];

                assert_in_range(at, 0, turn->n_pages - 1);
                assert_int_equal(got->page, pages[p]);
                assert_int_equal(got->held, p * SL_KV_PAGE_LEN < it->base);
                assert_int_equal(got->written,
                                 (p + 1) * SL_KV_PAGE_LEN > it->base);
            }
        }
    }
    assert_int_equal(item, n_items);
}

static void turns_hold_what_fits(void **state)
{
    struct turns x;

    turns_init(&x, 8);
    add(&x, 0, 40, 1, -1); /* 3 pages */
    add(&x, 1, 48, 1, -1); /* 4 */
    add(&x, 2, 0, 16, -1); /* 1 */
    add(&x, 3, 15, 2, -1); /* 2 */
    add(&x, 4, 0, 1, -1);  /* 1 */
    check_turns(&x, 5, 2);
    assert_int_equal(x.t.turn[0].n_pages, 8);
    assert_int_equal(x.t.turn[1].n_pages, 3);
    check_turns(&x, 5, 2); /* nothing is left of the pass before */
    turns_fini(&x);
    turns_init(&x, PAGES_EACH);
    for (size_t i = 0; i < TEXTS; i++)
        add(&x, i, 49, 1, -1);
    check_turns(&x, TEXTS, TEXTS);
    turns_fini(&x);
}

static void shared_pages_come_once(void **state)
{
    struct turns x;

    turns_init(&x, 6);
    add(&x, 0, 33, 0, -1); /* two whole pages, and one that is to be copied */
    for (size_t i = 1; i < 4; i++) {
        add(&x, i, 33, 1, 0);
    }
    /* 2 shared, 1 each */
    memmove(x.items, x.items + 1, 3 * sizeof *x.items);
    check_turns(&x, 3, 1);
    assert_int_equal(x.t.turn[0].n_pages, 5);
    turns_fini(&x);
}

/* --- passes --------------------------------------------------------------- */

struct story {
    struct sl_runtime *rt;
    struct sl_lm *lm;
    struct sl_lm_item items[TEXTS];
    int32_t ids[TEXTS][LENGTH], positions[LENGTH];
    uint32_t seq[TEXTS], held[TEXTS], context[TEXTS];
    float *logits; /* of all passes */
    size_t n;      /* rows */
};

static void feed(struct story *s, const uint32_t *which, size_t n,
                 const uint32_t *lengths)
{
    size_t rows = 0;
    struct sl_error err;

    for (size_t i = 0; i < n; i++) {
        uint32_t t = which[i];

        if (s->held[t] == 0)
            s->context[t] = lengths[i];
        for (uint32_t j = 0; j < lengths[i]; j++)
            s->ids[t][s->held[t] + j] =
                (int32_t)((s->held[t] + j) * 37 + t * 11 + s->n) %
                (int32_t)shape.vocab;
        s->items[i] = (struct sl_lm_item){
            .seq = s->seq[t],
            .ids = s->ids[t] + s->held[t],
            .positions = s->positions + s->held[t],
            .n = lengths[i],
            .n_context = s->context[t],
            .n_logits = 1,
            .reads = s->held[t] == 0,
        };
        s->held[t] += lengths[i];
        rows++;
    }
    assert_ok(s->lm->ops->forward(s->lm, s->items, n,
                                  s->logits + s->n * shape.vocab, &err),
              &err);
    s->n += rows;
}

/* A tree behind text t, of which a path is kept. */
static void feed_tree(struct story *s, uint32_t t)
{
    static const uint32_t parents[TREE] = {SL_LM_ROOT, 0, 0, 1, 2, 4, 4},
                          depth[TREE] = {0, 1, 1, 2, 2, 3, 3},
                          path[] = {0, 2, 4, 6};
    int32_t ids[TREE], positions[TREE];
    struct sl_lm_item item = {
        .seq = s->seq[t],
        .ids = ids,
        .positions = positions,
        .n = TREE,
        .n_context = s->context[t],
        .n_logits = TREE,
        .apart = true,
        .parents = parents,
    };
    struct sl_error err;

    for (uint32_t i = 0; i < TREE; i++) {
        ids[i] = (int32_t)(i * 13 + 7);
        positions[i] = (int32_t)(s->held[t] + depth[i]);
    }
    assert_ok(s->lm->ops->forward(s->lm, &item, 1,
                                  s->logits + s->n * shape.vocab, &err),
              &err);
    s->n += TREE;
    assert_ok(s->lm->ops->seq_pick(s->lm, s->seq[t], s->held[t], path, 4, &err),
              &err);
    s->held[t] += 4;
}

/* Prompts, steps, forks that part within a page, a tree, what was cut off, and
 * a prompt beside steps. */
static void tell(struct story *s)
{
    static const uint32_t all[] = {0, 1, 2, 3, 4, 5},
                          ones[TEXTS] = {1, 1, 1, 1, 1, 1},
                          prompts[] = {17, 40, 5, 33}, mixed[] = {1, 19, 2};
    static const uint32_t some[] = {1, 2, 3};
    struct sl_error err;

    for (uint32_t i = 0; i < LENGTH; i++)
        s->positions[i] = (int32_t)i;
    for (uint32_t t = 0; t < 4; t++)
        assert_ok(s->lm->ops->seq_create(s->lm, &s->seq[t], &err), &err);
    feed(s, all, 4, prompts);
    feed(s, all, 4, ones);
    for (uint32_t t = 4; t < TEXTS; t++) {
        uint32_t from = t == 4 ? 0 : 3;

        assert_ok(s->lm->ops->seq_fork(s->lm, &s->seq[t], s->seq[from], &err),
                  &err);
        s->held[t] = s->held[from];
        s->context[t] = s->context[from];
    }
    feed(s, all, TEXTS, ones);
    feed_tree(s, 3);
    feed(s, all, TEXTS, ones);
    s->lm->ops->seq_cut(s->lm, s->seq[1], 41);
    s->held[1] = 41;
    s->lm->ops->seq_destroy(s->lm, s->seq[2]);
    assert_ok(s->lm->ops->seq_create(s->lm, &s->seq[2], &err), &err);
    s->held[2] = 0;
    feed(s, some, 3, mixed);
    feed(s, all, TEXTS, ones);
}

static float *told(const struct sl_runtime_config *config, struct sl_vram *v,
                   size_t *rows)
{
    const struct sl_workload load = {
        .n_sequences = 1,
        .n_texts = TEXTS,
        .max_tokens = LENGTH,
        .pass_positions = 100,
        .pass_logits = TREE,
    };
    struct story s = {.rt = rig_start(config, &load)};

    s.lm = sl_runtime_lm(s.rt);
    s.logits = calloc(64ull * shape.vocab, sizeof *s.logits);
    tell(&s);
    assert_in_range(s.n, 30, 64);
    *v = *sl_runtime_vram(s.rt);
    assert_true(v->total <= v->budget);
    sl_runtime_close(s.rt);
    assert_int_equal(cudasim_reset(), 0);
    *rows = s.n;
    return s.logits;
}

/* Budgets in which the caches alone would have no room. */
static void a_cache_that_waits_changes_no_bit(void **state)
{
    char path[1100];
    struct sl_runtime_config config =
        rig_on_gpu(rig_model(path, test_dir, &shape));
    struct sl_vram all, v;
    size_t rows, n;
    float *want = told(&config, &all, &rows), *got;
    uint32_t waiting[2];

    assert_int_equal(all.n_layers_waiting, 0);
    assert_int_equal(all.n_layers, shape.n_layers);
    assert_int_equal(all.kv_waiting, 0);
    for (unsigned more = 0; more < 2; more++) {
        config.vram_bytes = all.least + more * all.kv / 4;
        got = told(&config, &v, &n);
        assert_true(v.budget + v.kv + v.residents < v.total + all.kv);
        waiting[more] = v.n_layers_waiting;
        assert_int_equal(v.kv_waiting,
                         all.kv / shape.n_layers * v.n_layers_waiting);
        assert_int_equal(n, rows);
        assert_memory_equal(got, want, 4 * rows * shape.vocab);
        free(got);
    }
    /* as many as must, and one text at a time */
    assert_true(waiting[0] > waiting[1] && waiting[1] > 0);
    free(want);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(turns_hold_what_fits),
        cmocka_unit_test(shared_pages_come_once),
        cmocka_unit_test(a_cache_that_waits_changes_no_bit),
    };

    return cmocka_run_group_tests(tests, test_dir_set_up, test_dir_tear_down);
}
