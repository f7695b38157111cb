#include "config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/arch_models.h"
#include "tests/exec_rig.h"
#include "tests/gpu_rates.h"
#include "tests/support.h"
#ifdef CUDA_SIM
#include "kernels/cudasim/cudasim.h"
#endif

/* Trees of guesses: every node of one is computed, bit for bit, as if its
 * ancestors alone had been fed before it, one a pass; and a path that is
 * picked leaves the cache as if nothing else had ever been in it. */

enum { CONTEXT = 21, ROUNDS = 2, MOST = 9, DEEP = 40, LENGTH = 72 };

enum shape_of_tree { CHAIN, STAR, COMB, PAIRS, ANY, SHAPES, FORKED };

static uint32_t chance(uint64_t *rnd)
{
    *rnd = *rnd * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(*rnd >> 33);
}

struct tree {
    uint32_t n, depth[DEEP], parents[DEEP];
    int32_t ids[DEEP], positions[DEEP], blocks[DEEP];
};

static uint32_t parent_of(uint64_t *rnd, enum shape_of_tree shape, uint32_t i)
{
    switch (shape) {
    case CHAIN:
        return i - 1;
    case STAR:
        return 0;
    case COMB: /* each second one is a leaf */
        return i < 2 ? 0 : (i - 1) / 2 * 2;
    case PAIRS:
        return (i - 1) / 2;
    case FORKED: /* a chain whose second node has a brother */
        return i <= 2 ? 0 : i - 1;
    default: /* in any order, and with several roots */
        return chance(rnd) % 5 == 0 ? SL_LM_ROOT : chance(rnd) % i;
    }
}

/* Of a sequence that holds so many positions, its context included. */
static struct tree make_tree(uint64_t *rnd, enum shape_of_tree shape,
                             uint32_t n, uint32_t held, uint32_t vocab)
{
    struct tree t = {.n = n};

    for (uint32_t i = 0; i < n; i++) {
        uint32_t up = i == 0 ? SL_LM_ROOT : parent_of(rnd, shape, i);

        t.parents[i] = up;
        t.depth[i] = up == SL_LM_ROOT ? 0 : t.depth[up] + 1;
        t.ids[i] = (int32_t)(chance(rnd) % vocab);
        t.positions[i] = (int32_t)(held + t.depth[i]);
        t.blocks[i] = (int32_t)(held - CONTEXT + t.depth[i] + 1);
    }
    return t;
}

/* A model and two sequences of it: what trees were fed to, and what was fed
 * one by one. */
struct pair {
    struct sl_lm *lm;
    const struct sl_hparams *hp;
    uint32_t grown, plain, held;
};

static struct sl_lm_item item_of(const struct pair *p, uint32_t seq,
                                 const int32_t *ids, const int32_t *positions,
                                 const int32_t *blocks, uint32_t n)
{
    return (struct sl_lm_item){
        .seq = seq,
        .ids = ids,
        .positions = positions,
        .blocks = p->hp->position_2d ? blocks : NULL,
        .n = n,
        .n_context = p->hp->causal ? 0 : CONTEXT,
        .n_logits = n,
    };
}

static float *logits_of(const struct pair *p, const struct sl_lm_item *item)
{
    float *logits = malloc(4ull * item->n_logits * p->lm->vocab);
    struct sl_error err;

    assert_non_null(logits);
    assert_ok(p->lm->ops->forward(p->lm, item, 1, logits, &err), &err);
    return logits;
}

static void read_context(struct pair *p, uint64_t *rnd)
{
    int32_t ids[CONTEXT], positions[CONTEXT], blocks[CONTEXT] = {0};
    struct sl_lm_item item;
    struct sl_error err;

    for (uint32_t i = 0; i < CONTEXT; i++) {
        ids[i] = (int32_t)(chance(rnd) % p->lm->vocab);
        positions[i] = (int32_t)i;
    }
    assert_ok(p->lm->ops->seq_create(p->lm, &p->grown, &err), &err);
    item = item_of(p, p->grown, ids, positions, blocks, CONTEXT);
    item.n_logits = 1;
    free(logits_of(p, &item));
    assert_ok(p->lm->ops->seq_fork(p->lm, &p->plain, p->grown, &err), &err);
    p->held = CONTEXT;
}

/* Its rows in as many passes, which the second and later go on from. */
static float *feed_tree(const struct pair *p, const struct tree *t,
                        uint32_t in_first)
{
    float *rows = malloc(4ull * t->n * p->lm->vocab);

    assert_non_null(rows);
    for (uint32_t at = 0; at < t->n;) {
        uint32_t n = at == 0 ? in_first : t->n - at;
        struct sl_lm_item item = item_of(p, p->grown, t->ids + at,
                                         t->positions + at, t->blocks + at, n);
        float *got;

        item.apart = true;
        item.parents = t->parents;
        item.n_tree = at;
        got = logits_of(p, &item);
        memcpy(rows + (size_t)at * p->lm->vocab, got, 4ull * n * p->lm->vocab);
        free(got);
        at += n;
    }
    return rows;
}

static uint32_t path_of(const struct tree *t, uint32_t node, uint32_t *path)
{
    uint32_t n = t->depth[node] + 1;

    for (uint32_t i = n; i-- > 0; node = t->parents[node])
        path[i] = node;
    return n;
}

typedef void check_fn(const float *is, const float *should, uint32_t vocab);

static void same_bits(const float *is, const float *should, uint32_t vocab)
{
    assert_memory_equal(is, should, 4ull * vocab);
}

/* Feeds a path to seq, one a pass. rows: of the tree; NULL: only feeds. */
static void feed_path(const struct pair *p, const struct tree *t, uint32_t node,
                      uint32_t seq, const float *rows, check_fn *check)
{
    uint32_t path[DEEP], n = path_of(t, node, path), vocab = p->lm->vocab;

    for (uint32_t i = 0; i < n; i++) {
        uint32_t at = path[i];
        struct sl_lm_item item =
            item_of(p, seq, &t->ids[at], &t->positions[at], &t->blocks[at], 1);
        float *got = logits_of(p, &item);

        if (rows != NULL)
            check(rows + (size_t)at * vocab, got, vocab);
        free(got);
    }
}

static void check_nodes(const struct pair *p, const struct tree *t,
                        const float *rows, check_fn *check)
{
    struct sl_error err;

    for (uint32_t i = 0; i < t->n; i++) {
        bool leaf = true;
        uint32_t seq;

        for (uint32_t k = i + 1; k < t->n; k++)
            leaf = leaf && t->parents[k] != i;
        if (!leaf)
            continue;
        assert_ok(p->lm->ops->seq_fork(p->lm, &seq, p->plain, &err), &err);
        feed_path(p, t, i, seq, rows, check);
        p->lm->ops->seq_destroy(p->lm, seq);
    }
}

/* Both go on from a path with an id more, and hold the same. */
static void pick(struct pair *p, const struct tree *t, uint32_t node,
                 check_fn *check)
{
    uint32_t path[DEEP], n = path_of(t, node, path), vocab = p->lm->vocab;
    int32_t id = (int32_t)(node % vocab), position, block;
    struct sl_error err;
    float *a, *b;
    struct sl_lm_item item;

    assert_ok(p->lm->ops->seq_pick(p->lm, p->grown, p->held, path, n, &err),
              &err);
    feed_path(p, t, node, p->plain, NULL, NULL);
    p->held += n;
    position = (int32_t)p->held;
    block = (int32_t)(p->held - CONTEXT + 1);
    item = item_of(p, p->grown, &id, &position, &block, 1);
    a = logits_of(p, &item);
    item.seq = p->plain;
    b = logits_of(p, &item);
    check(a, b, vocab);
    free(a);
    free(b);
    p->held++;
}

static void grow(const struct sl_runtime_config *config, uint64_t seed,
                 const struct sl_hparams *hp, check_fn *check)
{
    struct sl_workload load = {
        .n_sequences = 3,
        .max_tokens = LENGTH,
        .pass_positions = CONTEXT,
        .pass_logits = 1,
        .draft_positions = MOST,
    };
    uint64_t rnd = seed;
    struct sl_runtime *rt = rig_start(config, &load);
    struct pair p = {.lm = sl_runtime_lm(rt), .hp = hp};

    read_context(&p, &rnd);
    for (uint32_t round = 0; round < ROUNDS; round++) {
        enum shape_of_tree shape =
            (enum shape_of_tree)((seed + round) % SHAPES);
        uint32_t n = round == 0 ? MOST : 1 + chance(&rnd) % MOST;
        struct tree t = make_tree(&rnd, shape, n, p.held, p.lm->vocab);
        uint32_t in_first = 1 + chance(&rnd) % n;
        float *rows = feed_tree(&p, &t, in_first);

        check_nodes(&p, &t, rows, check);
        pick(&p, &t, chance(&rnd) % n, check);
        free(rows);
    }
    p.lm->ops->seq_destroy(p.lm, p.grown);
    p.lm->ops->seq_destroy(p.lm, p.plain);
    sl_runtime_close(rt);
}

static void a_node_has_the_bits_of_its_path(void **state)
{
    static const enum sl_kv_kind kinds[] = {SL_KV_F32, SL_KV_F16, SL_KV_INT8};
    const struct sl_arch *arch;

    for (size_t a = 0; (arch = sl_arch_at(a)) != NULL; a++) {
        for (size_t i = 0; i < 2; i++) {
            struct test_model m = arch_model(arch, (a + 3 * i) % ARCH_MODELS);
            struct sl_hparams hp = m.hp;
            char path[ARCH_PATH];
            struct sl_runtime_config config = {
                .threads = 1 + (unsigned)(a + i) % 3,
                .ram_bytes = i == 1 ? SL_RAM_LEAST : 1ull << 32,
                .kv_set = true,
                .kv = kinds[(a + i) % 3],
                .max_isa_set = a % 4 == 3, /* the others: what there is */
                .max_isa = SL_ISA_REF,
            };

            sl_arch_derive(arch, &hp);
            config.model = arch_model_write(path, test_dir, &m);
            grow(&config, 7 * a + i, &hp, same_bits);
        }
    }
}

/* A tree that is fed in several passes, as models do that guess for others, may
 * be deeper than the largest of them. */
static void a_tree_is_deeper_than_a_pass(void **state)
{
    const struct sl_workload load = {
        .n_sequences = 3,
        .max_tokens = LENGTH,
        .pass_positions = CONTEXT,
        .pass_logits = CONTEXT,
        .draft_positions = 1,
        .tree_positions = DEEP,
    };
    struct test_model m = arch_model(sl_arch_find("llama"), 0);
    struct sl_hparams hp = m.hp;
    char path[ARCH_PATH];
    struct sl_runtime_config config = {.threads = 2, .ram_bytes = 1ull << 32};
    uint64_t rnd = 9;
    struct tree t;
    struct pair p;
    struct sl_runtime *rt;
    float *rows;

    sl_arch_derive(m.arch, &hp);
    config.model = arch_model_write(path, test_dir, &m);
    rt = rig_start(&config, &load);
    p = (struct pair){.lm = sl_runtime_lm(rt), .hp = &hp};
    read_context(&p, &rnd);
    t = make_tree(&rnd, FORKED, DEEP, p.held, p.lm->vocab);
    rows = feed_tree(&p, &t, DEEP / 2);
    check_nodes(&p, &t, rows, same_bits);
    pick(&p, &t, DEEP - 1, same_bits);
    free(rows);
    p.lm->ops->seq_destroy(p.lm, p.grown);
    p.lm->ops->seq_destroy(p.lm, p.plain);
    sl_runtime_close(rt);
}

/* AVX2 beside what this machine has. */
static void every_instruction_set_has_the_bits_of_the_path(void **state)
{
    struct test_model m = arch_model(sl_arch_find("llama"), 3);
    struct sl_hparams hp = m.hp;
    char path[ARCH_PATH];
    struct sl_runtime_config config = {
        .threads = 2,
        .ram_bytes = 1ull << 32,
        .kv_set = true,
        .max_isa_set = true,
    };

    sl_arch_derive(m.arch, &hp);
    config.model = arch_model_write(path, test_dir, &m);
    for (int isa = SL_ISA_REF; isa <= SL_ISA_AMX; isa++) {
        for (int kv = SL_KV_F32; kv <= SL_KV_INT8; kv++) {
            config.max_isa = (enum sl_isa)isa;
            config.kv = (enum sl_kv_kind)kv;
            grow(&config, 20 + (unsigned)isa, &hp, same_bits);
        }
    }
}

/* Some passes that must not be made. */
static void what_is_no_tree_is_refused(void **state)
{
    const struct sl_workload load = {
        .n_sequences = 1,
        .max_tokens = LENGTH,
        .pass_positions = CONTEXT,
        .pass_logits = 1,
        .draft_positions = MOST,
    };
    struct test_model m = arch_model(sl_arch_find("llama"), 0);
    struct sl_hparams hp = m.hp;
    static const struct {
        uint32_t parents[3], n_tree;
        bool apart;
    } bad[] = {
        {{SL_LM_ROOT, 1, 0}, 0, true},         /* its own parent */
        {{SL_LM_ROOT, 2, 0}, 0, true},         /* one that comes later */
        {{SL_LM_ROOT, 0, 0}, 0, false},        /* sees all of its pass */
        {{SL_LM_ROOT, 0, 0}, LENGTH + 1, true} /* more than is held */
    };
    int32_t ids[3] = {1, 2, 3}, positions[3] = {CONTEXT, CONTEXT, CONTEXT};
    uint64_t rnd = 5;
    char path[ARCH_PATH];
    struct sl_runtime_config config = {.threads = 1, .ram_bytes = 1ull << 32};
    struct pair p;
    struct sl_runtime *rt;
    float logits[3 * 256];

    sl_arch_derive(m.arch, &hp);
    config.model = arch_model_write(path, test_dir, &m);
    rt = rig_start(&config, &load);
    p = (struct pair){.lm = sl_runtime_lm(rt), .hp = &hp};
    read_context(&p, &rnd);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct sl_lm_item item = item_of(&p, p.grown, ids, positions, NULL, 3);
        struct sl_error err;

        item.parents = bad[i].parents;
        item.n_tree = bad[i].n_tree;
        item.apart = bad[i].apart;
        assert_int_equal(p.lm->ops->forward(p.lm, &item, 1, logits, &err), -1);
        assert_int_equal(err.code, SL_ERR_INTERNAL);
    }
    sl_runtime_close(rt);
}

#ifdef CUDA_SIM
/* Products of several positions are rounded otherwise than of one. */
static void nearly_same(const float *is, const float *should, uint32_t vocab)
{
    double scale = 0, off = 0;

    for (uint32_t v = 0; v < vocab; v++) {
        off = fmax(off, fabs((double)is[v] - (double)should[v]));
        scale = fmax(scale, fabs((double)should[v]));
    }
    assert_true(scale > 0.01 && off <= 4e-3 * scale);
}

static void a_gpu_takes_trees(void **state)
{
    static const char *const archs[] = {"llama", "glm130b"};

    for (size_t a = 0; a < sizeof archs / sizeof *archs; a++) {
        struct test_model m = arch_model(sl_arch_find(archs[a]), 4);
        struct sl_hparams hp = m.hp;
        char path[ARCH_PATH];
        struct sl_runtime_config config = {
            .threads = 2,
            .ram_bytes = 1ull << 30,
            .device = SL_DEVICE_CUDA,
            .engine = a == 1 ? SL_ENGINE_RULE_AUTO : SL_ENGINE_RULE_GPU,
            .rates = &test_gpu_rates,
        };

        m.fmt = m.head_fmt = SL_FMT_F16;
        sl_arch_derive(m.arch, &hp);
        config.model = arch_model_write(path, test_dir, &m);
        grow(&config, 40 + a, &hp, nearly_same);
        assert_int_equal(cudasim_reset(), 0);
    }
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_node_has_the_bits_of_its_path),
        cmocka_unit_test(a_tree_is_deeper_than_a_pass),
        cmocka_unit_test(every_instruction_set_has_the_bits_of_the_path),
        cmocka_unit_test(what_is_no_tree_is_refused),
#ifdef CUDA_SIM
        cmocka_unit_test(a_gpu_takes_trees),
#endif
    };

    return cmocka_run_group_tests(tests, test_dir_set_up, test_dir_tear_down);
}
