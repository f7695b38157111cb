#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "offload/slab_cache.h"
#include "tests/arch_models.h"
#include "tests/exec_rig.h"
#include "tests/support.h"

/* Long passes use nearly all of a layer's experts: these are read before their
 * router has spoken. */

#define PAGE      4096u
#define PER_LAYER 12u
#define N_RECORDS (2 * PER_LAYER)

static struct sl_slab_cache *open_cache(struct sl_extent *records,
                                        const char *path, uint32_t n_places)
{
    struct sl_slab_cache_config config = {
        .path = path,
        .records = records,
        .n_records = N_RECORDS,
        .n_layers = 2,
        .n_places = n_places,
        .place_bytes = 2 * PAGE,
        .direct = true,
        .depth = 4,
        .read_bytes = PAGE,
    };
    struct sl_slab_cache *c;
    struct sl_error err;
    FILE *f = fopen(path, "wb");

    assert_non_null(f);
    for (uint32_t r = 0; r < N_RECORDS; r++) {
        records[r] = (struct sl_extent){r * 2ull * PAGE, 2 * PAGE};
        for (uint32_t i = 0; i < 2 * PAGE; i++)
            assert_true(fputc((int)r, f) != EOF);
    }
    assert_int_equal(fclose(f), 0);
    assert_ok(sl_slab_cache_open(&c, &config, &err), &err);
    return c;
}

static void use(struct sl_slab_cache *c, const uint32_t *records, uint32_t n)
{
    struct sl_error err;

    assert_ok(sl_slab_cache_want(c, records, n, &err), &err);
    for (uint32_t i = 0; i < n; i++) {
        const uint8_t *base;

        assert_ok(sl_slab_cache_get(c, records[i], &base, &err), &err);
        assert_int_equal(base[2 * PAGE - 1], records[i]);
        assert_ok(sl_slab_cache_put(c, records[i], 1, &err), &err);
    }
}

/* It fills what places there are, and takes none from what it has read itself;
 * guesses that were wrong are not held against it. */
static void a_sweep_reads_as_much_as_there_is_room_for(void **state)
{
    static const uint32_t places[] = {5, PER_LAYER, N_RECORDS};
    uint32_t layer[2][PER_LAYER];
    char path[1100];

    snprintf(path, sizeof path, "%s/records", test_dir);
    for (uint32_t i = 0; i < 2 * PER_LAYER; i++)
        layer[i / PER_LAYER][i % PER_LAYER] = i;
    for (size_t p = 0; p < sizeof places / sizeof *places; p++) {
        struct sl_extent records[N_RECORDS];
        struct sl_slab_cache *c = open_cache(records, path, places[p]);
        uint32_t room = places[p] < PER_LAYER ? places[p] : PER_LAYER;
        struct sl_slab_cache_stats s;
        struct sl_error err;

        for (unsigned wrong = 0; wrong < 200; wrong++) {
            const uint8_t rank = 0;

            assert_ok(sl_slab_cache_hint(c, SL_HINT_LATE,
                                         &layer[1][wrong % PER_LAYER], &rank, 1,
                                         &err),
                      &err);
            use(c, &layer[0][wrong % 3], 1);
        }
        use(c, layer[0], PER_LAYER);
        sl_slab_cache_count_anew(c);
        assert_ok(sl_slab_cache_hint(c, SL_HINT_SWEEP, layer[1], NULL,
                                     PER_LAYER, &err),
                  &err);
        for (uint32_t i = 0; i < room; i++) {
            while (!sl_slab_cache_there(c, layer[1][i]))
                sl_slab_cache_go_on(c);
        }
        use(c, layer[1], PER_LAYER);
        sl_slab_cache_stats(c, &s);
        assert_true(s.hits >= room);
        assert_true(s.hint_bytes <= room * 2ull * PAGE);
        assert_true(s.hint_used_bytes >= s.hint_bytes);
        sl_slab_cache_close(c);
    }
}

/* In a pass of many positions what the layers to come have stays, though each
 * is seldom used; in one of a position what is used often does. */
static void what_a_long_pass_will_use_stays(void **state)
{
    struct sl_cache_policy p;
    struct sl_error err;
    double chances[PER_LAYER];

    assert_ok(sl_cache_policy_init(&p, SL_CACHE_EXPECTED, N_RECORDS, 2, &err),
              &err);
    sl_cache_policy_pass(&p, 256);
    sl_cache_policy_chances(&p, 1, 1.0 / 6, chances);
    assert_true(chances[0] > 0.99); /* nothing is known: as usual */
    sl_cache_policy_pass(&p, 1);
    for (unsigned turn = 0; turn < 64; turn++) {
        sl_cache_policy_turn(&p, 0);
        sl_cache_policy_use(&p, 0, 1);
        sl_cache_policy_use(&p, 1 + turn % 11, 1);
        sl_cache_policy_turn(&p, 1);
        sl_cache_policy_use(&p, PER_LAYER, 1);
        sl_cache_policy_use(&p, PER_LAYER + 1 + turn % 8, 1);
    }
    sl_cache_policy_turn(&p, 0);
    assert_true(sl_cache_policy_wait(&p, 0, 0) <
                sl_cache_policy_wait(&p, PER_LAYER + 5, 1));
    sl_cache_policy_chances(&p, 1, 1.0 / 6, chances);
    assert_true(chances[0] > 0.9 && chances[5] < 0.2 && chances[11] < 0.05);
    sl_cache_policy_pass(&p, 256);
    assert_true(sl_cache_policy_wait(&p, 0, 0) >
                sl_cache_policy_wait(&p, PER_LAYER + 5, 1));
    sl_cache_policy_chances(&p, 1, 1.0 / 6, chances);
    for (uint32_t i = 0; i < PER_LAYER; i++)
        assert_true(chances[i] >= (i < 9 ? 0.99 : 0.9));
    sl_cache_policy_fini(&p);
}

#define POSITIONS 16u

/* Logits of a text in one pass, which the caller frees; NULL: so many bytes are
 * too few. */
static float *run(struct sl_run_stats *s, struct sl_memory *memory,
                  const struct sl_runtime_config *config, uint32_t *n_places)
{
    const struct sl_workload load = rig_one_text(POSITIONS);
    int32_t ids[POSITIONS], positions[POSITIONS];
    struct sl_lm_item it = {.ids = ids, .positions = positions};
    struct sl_runtime *rt;
    struct sl_error err;
    struct sl_lm *lm;
    uint32_t n_experts;
    float *logits;

    assert_ok(sl_runtime_open(&rt, config, &err), &err);
    if (sl_runtime_start(rt, &load, &err) != 0) {
        assert_int_equal(err.code, SL_ERR_BUDGET);
        sl_runtime_close(rt);
        return NULL;
    }
    lm = sl_runtime_lm(rt);
    sl_runtime_experts(rt, n_places, &n_experts);
    logits = malloc(4ull * POSITIONS * lm->vocab);
    assert_non_null(logits);
    it.n = it.n_logits = POSITIONS;
    for (int32_t i = 0; i < (int32_t)POSITIONS; i++) {
        ids[i] = (i * 7 + 3) % (int32_t)lm->vocab;
        positions[i] = i;
    }
    for (int round = 0; round < 2; round++) {
        assert_ok(lm->ops->seq_create(lm, &it.seq, &err), &err);
        assert_ok(lm->ops->forward(lm, &it, 1, logits, &err), &err);
        lm->ops->seq_destroy(lm, it.seq);
    }
    sl_runtime_stats(rt, s);
    *memory = *sl_runtime_memory(rt);
    sl_runtime_close(rt);
    return logits;
}

static void long_passes_read_before_they_are_asked(void **state)
{
    char path[ARCH_PATH];
    struct test_model m = arch_model(sl_arch_find("glm4moe"), 0);
    struct sl_runtime_config config = {
        .ram_bytes = 1ull << 30, .threads = 2, .model = path, .no_usage = true};
    struct sl_run_stats all, some;
    struct sl_memory memory;
    float *want, *got;
    uint32_t n_places;

    m.hp.n_layers = 6;
    arch_model_write(path, test_dir, &m);
    want = run(&all, &memory, &config, &n_places);
    assert_int_equal(n_places, 7 * 5);
    assert_int_equal(all.experts.hint_bytes, 0);
    if (!TEST_SANITIZED) { /* whose program grows by more than experts take */
        uint64_t step = memory.experts / 8;

        /* What the program itself takes is not the same each time. */
        config.ram_bytes = memory.total - memory.experts;
        for (;; config.ram_bytes += step) {
            got = run(&some, &memory, &config, &n_places);
            if (got != NULL && n_places >= 10)
                break;
            free(got);
        }
        assert_true(n_places < 7 * 5);
        assert_memory_equal(got, want, POSITIONS * m.hp.vocab * sizeof *got);
        assert_true(some.experts.hint_used_bytes > 0);
        free(got);
    }
    free(want);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sweep_reads_as_much_as_there_is_room_for),
        cmocka_unit_test(what_a_long_pass_will_use_stays),
        cmocka_unit_test(long_passes_read_before_they_are_asked),
    };

    return cmocka_run_group_tests(tests, test_dir_set_up, test_dir_tear_down);
}
