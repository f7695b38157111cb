/*
 * Machines of several nodes, made up: what would be placed where.
 */
#include "config.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "offload/numa.h"
#include "src/base/mem.h"
#include "src/base/pool.h"
#include "src/runtime/runtime.h"
#include "tests/model_maker.h"
#include "tests/support.h"

#define MOST_BINDS 4096u

/* A machine whose node i has number 2 i and so many CPUs, one after another. */
struct machine {
    unsigned n_nodes, cpus[8];
    unsigned disk, device; /* the nodes of the two */
    int refusal;           /* what bind returns */
    struct bind {
        uintptr_t begin, end;
        unsigned id;
    } binds[MOST_BINDS];
    atomic_uint n_binds;
    atomic_uint ran[128]; /* threads told to run on a set with this first CPU */
    atomic_uint ran_anywhere;
};

static unsigned total(const struct machine *m)
{
    unsigned n = 0;

    for (unsigned i = 0; i < m->n_nodes; i++)
        n += m->cpus[i];
    return n;
}

static unsigned fake_nodes(void *arg, struct sl_numa_node *nodes)
{
    struct machine *m = arg;
    unsigned cpu = 0;

    for (unsigned i = 0; i < m->n_nodes; i++) {
        nodes[i].id = 2 * i;
        CPU_ZERO(&nodes[i].cpus);
        for (unsigned c = 0; c < m->cpus[i]; c++)
            CPU_SET(cpu++, &nodes[i].cpus);
    }
    return m->n_nodes;
}

static int fake_bind(void *arg, void *addr, size_t bytes, unsigned id)
{
    struct machine *m = arg;
    unsigned n = atomic_fetch_add(&m->n_binds, 1);

    assert_int_equal((uintptr_t)addr % SL_PAGE_BYTES, 0);
    assert_int_equal(bytes % SL_PAGE_BYTES, 0);
    assert_true(n < MOST_BINDS);
    if (m->refusal == 0)
        m->binds[n] =
            (struct bind){(uintptr_t)addr, (uintptr_t)addr + bytes, id};
    return m->refusal;
}

static int fake_run_on(void *arg, const cpu_set_t *cpus)
{
    struct machine *m = arg;

    if ((unsigned)CPU_COUNT(cpus) == total(m)) {
        atomic_fetch_add(&m->ran_anywhere, 1);
        return 0;
    }
    for (unsigned cpu = 0; cpu < 128; cpu++) {
        if (CPU_ISSET(cpu, cpus)) {
            atomic_fetch_add(&m->ran[cpu], 1);
            break;
        }
    }
    return 0;
}

static unsigned fake_device_node(void *arg, const char *sys_path)
{
    struct machine *m = arg;

    if (strncmp(sys_path, "/sys/bus/pci/devices/0000:", 26) == 0)
        return m->device;
    assert_int_equal(strncmp(sys_path, "/sys/dev/block/", 15), 0);
    return m->disk;
}

static const struct sl_numa_ops fake = {
    .name = "made up",
    .nodes = fake_nodes,
    .bind = fake_bind,
    .run_on = fake_run_on,
    .device_node = fake_device_node,
};

/* The node a byte was placed on last. */
static unsigned node_at(const struct machine *m, const void *at)
{
    uintptr_t p = (uintptr_t)at;

    for (unsigned i = m->n_binds; i-- > 0;)
        if (m->binds[i].begin <= p && p < m->binds[i].end)
            return m->binds[i].id;
    return SL_NUMA_UNKNOWN;
}

static struct sl_numa *open_numa(struct machine *m, unsigned n_threads)
{
    struct sl_numa *numa;
    struct sl_error err;

    assert_ok(sl_numa_open(&numa, &fake, m, n_threads, &err), &err);
    return numa;
}

static void one_node_is_nothing_to_do(void **state)
{
    struct machine m = {.n_nodes = 1, .cpus = {4}};
    struct sl_numa *numa = open_numa(&m, 4);
    struct sl_error err;
    char text[SL_NUMA_TEXT];

    assert_null(numa);
    assert_int_equal(sl_numa_nodes(numa), 1);
    assert_int_equal(sl_numa_thread_node(numa, 0), SL_NUMA_UNKNOWN);
    assert_int_equal(sl_numa_file_node(numa, "/"), SL_NUMA_UNKNOWN);
    assert_int_equal(sl_numa_pci_node(numa, "0000:65:00.0"), SL_NUMA_UNKNOWN);
    assert_ok(sl_numa_place(numa, &m, sizeof m, 0, &err), &err);
    assert_ok(sl_numa_spread(numa, &m, sizeof m, 8, &err), &err);
    sl_numa_run_as(numa, 0);
    assert_string_equal(sl_numa_text(text, numa), "1 NUMA node");
    sl_numa_close(numa);
    assert_int_equal(m.n_binds, 0);
    assert_int_equal(m.ran_anywhere, 0);
}

static void threads_are_dealt_out_by_cpus(void **state)
{
    static const struct {
        unsigned n_nodes, cpus[4], n_threads;
        const char *nodes; /* of the threads, by place */
    } cases[] = {
        {2, {4, 4}, 8, "00001111"},  {2, {4, 4}, 2, "01"},
        {2, {4, 4}, 1, "0"},         {2, {2, 6}, 4, "0111"},
        {3, {1, 2, 3}, 6, "011222"}, {4, {8, 8, 8, 8}, 4, "0123"},
        {2, {2, 2}, 8, "00001111"},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct machine m = {.n_nodes = cases[i].n_nodes};
        struct sl_numa *numa;

        memcpy(m.cpus, cases[i].cpus, sizeof cases[i].cpus);
        numa = open_numa(&m, cases[i].n_threads);
        assert_int_equal(sl_numa_nodes(numa), cases[i].n_nodes);
        for (unsigned t = 0; t < cases[i].n_threads; t++)
            assert_int_equal(sl_numa_thread_node(numa, t),
                             2 * (cases[i].nodes[t] - '0'));
        sl_numa_close(numa);
        assert_int_equal(m.ran_anywhere, 1);
    }
}

static void devices_have_a_node(void **state)
{
    struct machine m = {.n_nodes = 2, .cpus = {1, 1}, .disk = 2, .device = 0};
    struct sl_numa *numa = open_numa(&m, 2);
    char text[SL_NUMA_TEXT];

    assert_int_equal(sl_numa_file_node(numa, "/"), 2);
    assert_int_equal(sl_numa_file_node(numa, "/no such file"), SL_NUMA_UNKNOWN);
    assert_int_equal(sl_numa_pci_node(numa, "0000:65:00.0"), 0);
    assert_int_equal(sl_numa_pci_node(numa, ""), SL_NUMA_UNKNOWN);
    assert_string_equal(sl_numa_text(text, numa),
                        "2 NUMA nodes (threads 1 + 1)");
    sl_numa_close(numa);
}

/* Every page of the rows lies with the thread that begins with the item its
 * first byte is of. */
static void rows_lie_with_their_threads(void **state)
{
    static const size_t item_sizes[] = {64, 4096, 5000, 40960};
    struct machine m = {.n_nodes = 3, .cpus = {1, 2, 3}};
    struct sl_region region;
    struct sl_error err;

    assert_ok(sl_region_init(&region, 8u << 20, "rows", &err), &err);
    for (size_t i = 0; i < 4; i++) {
        size_t item = item_sizes[i], n = 97, bytes = item * n - 100;
        /* from within a page on */
        uint8_t *rows = region.base + SL_PAGE_BYTES + 192;
        struct sl_numa *numa = open_numa(&m, 12);

        atomic_store(&m.n_binds, 0);
        assert_ok(sl_numa_spread(numa, rows, bytes, item, &err), &err);
        for (unsigned t = 0; t < 12; t++) {
            size_t begin, end;

            sl_pool_share(&begin, &end, n, 1, t, 12);
            for (size_t at = begin * item; at < end * item && at < bytes;
                 at++) {
                if ((uintptr_t)(rows + at) % SL_PAGE_BYTES == 0)
                    assert_int_equal(node_at(&m, rows + at),
                                     sl_numa_thread_node(numa, t));
            }
        }
        /* nothing before or behind */
        assert_int_equal(node_at(&m, rows - 1), SL_NUMA_UNKNOWN);
        assert_int_equal(
            node_at(&m, (uint8_t *)sl_round_up((uintptr_t)rows + bytes,
                                               SL_PAGE_BYTES)),
            SL_NUMA_UNKNOWN);
        sl_numa_close(numa);
    }
    sl_region_fini(&region);
}

static void a_refusal_is_told(void **state)
{
    struct machine m = {.n_nodes = 2, .cpus = {1, 1}, .refusal = EPERM};
    struct sl_numa *numa = open_numa(&m, 2);
    struct sl_error err;
    uint8_t *page = aligned_alloc(SL_PAGE_BYTES, SL_PAGE_BYTES);

    assert_non_null(page);
    assert_int_equal(sl_numa_place(numa, page, SL_PAGE_BYTES, 2, &err), -1);
    assert_int_equal(err.code, SL_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.msg, "node 2"));
    assert_ok(sl_numa_place(numa, page, SL_PAGE_BYTES, SL_NUMA_UNKNOWN, &err),
              &err);
    free(page);
    sl_numa_close(numa);
}

/* --- a whole run -----------------------------------------------------------
 */

static char dir[1024], path[1100];
static uint32_t vocab;

static void run_model_on(float *logits, struct machine *m, bool off,
                         uint64_t ram_bytes, enum sl_device_kind device)
{
    static const struct sl_workload load = {
        .n_sequences = 1,
        .max_tokens = 16,
        .pass_positions = 8,
        .pass_logits = 1,
    };
    static const int32_t ids[8] = {3, 1, 4, 1, 5, 9, 2, 6};
    static const int32_t positions[8] = {0, 1, 2, 3, 4, 5, 6, 7};
    struct sl_runtime_config config = {
        .model = path,
        .threads = 4,
        .ram_bytes = ram_bytes,
        .numa_off = off,
        .numa = m != NULL ? &fake : NULL,
        .numa_arg = m,
        .quiet = true,
        .device = device,
        .engine =
            device == SL_DEVICE_CUDA ? SL_ENGINE_RULE_GPU : SL_ENGINE_RULE_AUTO,
    };
    struct sl_lm_item item = {
        .ids = ids,
        .positions = positions,
        .n = 8,
        .n_context = 7,
        .n_logits = 1,
    };
    struct sl_runtime *rt;
    struct sl_error err;
    struct sl_lm *lm;

    assert_ok(sl_runtime_open(&rt, &config, &err), &err);
    assert_ok(sl_runtime_start(rt, &load, &err), &err);
    if (m != NULL && !off)
        assert_int_equal(sl_runtime_ring_node(rt), m->disk);
    lm = sl_runtime_lm(rt);
    assert_ok(lm->ops->seq_create(lm, &item.seq, &err), &err);
    assert_ok(lm->ops->forward(lm, &item, 1, logits, &err), &err);
    sl_runtime_close(rt);
}

static void run_model(float *logits, struct machine *m, bool off,
                      uint64_t ram_bytes)
{
    run_model_on(logits, m, off, ram_bytes, SL_DEVICE_CPU);
}

static void a_run_places_threads_and_weights(void **state)
{
    static const uint64_t budgets[] = {SL_RAM_LEAST, 1u << 30};
    float *want = malloc(4ull * vocab), *got = malloc(4ull * vocab);

    run_model(want, NULL, true, SL_RAM_LEAST);
    for (int i = 0; i < 2; i++) {
        struct machine *m = calloc(1, sizeof *m);
        bool with[3] = {false};

        assert_non_null(m);
        m->n_nodes = 2;
        m->cpus[0] = m->cpus[1] = 3;
        m->disk = 4; /* a node without CPUs */
        run_model(got, m, false, budgets[i]);
        assert_memory_equal(got, want, 4ull * vocab);
        /* threads 0 and 1, threads 2 and 3; the reader near no CPUs, and the
         * caller when all is over */
        assert_int_equal(m->ran[0], 2);
        assert_int_equal(m->ran[3], 2);
        assert_int_equal(m->ran_anywhere, 2);
        for (unsigned b = 0; b < m->n_binds; b++)
            with[m->binds[b].id / 2] = true;
        assert_int_equal(with[2], budgets[i] == SL_RAM_LEAST); /* a ring */
        if (budgets[i] != SL_RAM_LEAST)
            assert_true(with[0] && with[1]);
        free(m);
    }
    free(want);
    free(got);
}

#ifdef CUDA_SIM
static void what_a_gpu_fills_lies_near_it(void **state)
{
    float *logits = malloc(4ull * vocab);
    struct machine m = {.n_nodes = 2, .cpus = {3, 3}, .disk = 0, .device = 2};
    unsigned near_it = 0;

    run_model_on(logits, &m, false, 1u << 30, SL_DEVICE_CUDA);
    for (unsigned b = 0; b < m.n_binds; b++)
        near_it += m.binds[b].id == m.device;
    assert_int_equal(near_it, 1);
    free(logits);
}
#endif

static void off_leaves_all_to_the_system(void **state)
{
    float *logits = malloc(4ull * vocab);
    struct machine m = {.n_nodes = 2, .cpus = {3, 3}};

    run_model(logits, &m, true, SL_RAM_LEAST);
    assert_int_equal(m.n_binds, 0);
    assert_int_equal(m.ran_anywhere, 0);
    free(logits);
}

static void a_run_goes_on_when_refused(void **state)
{
    float *want = malloc(4ull * vocab), *got = malloc(4ull * vocab);
    struct machine m = {.n_nodes = 2, .cpus = {3, 3}, .refusal = EPERM};

    run_model(want, NULL, true, 1u << 30);
    run_model(got, &m, false, 1u << 30);
    assert_memory_equal(got, want, 4ull * vocab);
    assert_int_equal(m.n_binds, 1); /* and no more tries */
    free(want);
    free(got);
}

static int set_up(void **state)
{
    struct test_model m;

    test_temp_dir(dir);
    snprintf(path, sizeof path, "%s/model.gguf", dir);
    test_model_init(&m);
    m.fmt = SL_FMT_INT4;
    m.group_cols = 32;
    m.hp.hidden = 256;
    m.hp.inner = 704;
    m.hp.n_layers = 8;
    vocab = m.hp.vocab;
    test_model_write(path, &m);
    return 0;
}

static int tear_down(void **state)
{
    test_remove_tree(dir);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_node_is_nothing_to_do),
        cmocka_unit_test(threads_are_dealt_out_by_cpus),
        cmocka_unit_test(devices_have_a_node),
        cmocka_unit_test(rows_lie_with_their_threads),
        cmocka_unit_test(a_refusal_is_told),
        cmocka_unit_test(a_run_places_threads_and_weights),
#ifdef CUDA_SIM
        cmocka_unit_test(what_a_gpu_fills_lies_near_it),
#endif
        cmocka_unit_test(off_leaves_all_to_the_system),
        cmocka_unit_test(a_run_goes_on_when_refused),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
