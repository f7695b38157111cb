#include "config.h"

#include "src/runtime/runtime_impl.h"

/* What cannot be placed costs time, not correctness: one warning, and no more
 * tries. */
static void refused(struct sl_runtime *rt, const struct sl_error *err)
{
    if (!rt->numa_refused)
        sl_log(rt->config.log, SL_LOG_WARN, "%s", err->msg);
    rt->numa_refused = true;
}

static void place(struct sl_runtime *rt, uint8_t *base, uint64_t bytes,
                  unsigned node)
{
    struct sl_error err;

    if (sl_numa_place(rt->numa, base, bytes, node, &err) != 0)
        refused(rt, &err);
}

/* On the disk's node, where the reader is too. */
static void place_ring(void *arg, uint8_t *base, uint64_t bytes)
{
    struct sl_runtime *rt = arg;

    place(rt, base, bytes, rt->ring_node);
}

void sl_runtime_place_staging(void *arg, uint8_t *base, uint64_t bytes)
{
    struct sl_runtime *rt = arg;

    place(rt, base, bytes, sl_numa_pci_node(rt->numa, rt->gpu.pci));
}

/* Rows lie with the threads that multiply by them. */
static void place_resident(void *arg, size_t slab, uint8_t *base)
{
    struct sl_runtime *rt = arg;
    const struct sl_partition *partition = &rt->partition;
    uint32_t end = partition->first_part[slab + 1];

    for (uint32_t p = partition->first_part[slab]; p < end; p++) {
        const struct sl_part *part = &partition->parts[p];
        struct sl_matrix m = sl_part_geom(part, &rt->mf.matrices[part->matrix]);
        uint64_t bytes =
            sl_matrix_block_bytes(&m, part->first_block, part->n_blocks);
        uint64_t block = sl_matrix_block_bytes(&m, part->first_block, 1);
        struct sl_error err;

        for (uint32_t s = 0; s < m.n_segments && !rt->numa_refused; s++)
            if (sl_numa_spread(rt->numa, base + part->weight_at[s], bytes,
                               block, &err) != 0)
                refused(rt, &err);
    }
}

static void run_reader(void *arg)
{
    struct sl_runtime *rt = arg;

    sl_numa_run_near(rt->numa, rt->ring_node);
}

const struct sl_stream_places *sl_runtime_places(struct sl_runtime *rt)
{
    rt->places = (struct sl_stream_places){
        .ring = place_ring,
        .resident = place_resident,
        .reader = run_reader,
        .arg = rt,
    };
    return rt->numa != NULL ? &rt->places : NULL;
}

static void begin_thread(void *arg, unsigned worker)
{
    sl_numa_run_as(arg, worker);
}

int sl_runtime_start_threads(struct sl_runtime *rt, struct sl_error *err)
{
    const struct sl_runtime_config *c = &rt->config;
    unsigned n = c->threads ? c->threads : sl_pool_cpus();

    if (n > sl_pool_cpus())
        sl_log(c->log, SL_LOG_WARN,
               "--threads %u on %u CPUs: threads that wait for one another's "
               "CPU take many times as long",
               n, sl_pool_cpus());
    if (!c->numa_off &&
        sl_numa_open(&rt->numa, c->numa, c->numa_arg, n, err) != 0)
        return -1;
    rt->ring_node = sl_numa_file_node(rt->numa, rt->mf.path);
    if (sl_pool_create_with(&rt->pool, n, begin_thread, rt->numa, err) != 0)
        return -1;
    /* The caller is thread 0; kept back until the pool has counted CPUs. */
    sl_numa_run_as(rt->numa, 0);
    return 0;
}

const struct sl_numa *sl_runtime_numa(const struct sl_runtime *rt)
{
    return rt->numa;
}

unsigned sl_runtime_ring_node(const struct sl_runtime *rt)
{
    return rt->ring_node;
}
