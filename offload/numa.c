#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "offload/numa.h"
#include "src/base/mem.h"
#include "src/base/pool.h"

struct sl_numa {
    const struct sl_numa_ops *ops;
    void *arg;
    struct sl_numa_node nodes[SL_NUMA_NODES];
    unsigned n_nodes;
    cpu_set_t all;
    unsigned n_threads;
    unsigned *of_thread; /* (n_threads) index into nodes */
};

/* --- life ------------------------------------------------------------------
 */

/* Threads lie over the CPUs of all nodes, one node after the other, at equal
 * distances: with as many as CPUs each has its own. */
static void deal_out(struct sl_numa *numa)
{
    uint64_t n_cpus = 0, begin = 0;
    unsigned t = 0;

    for (unsigned i = 0; i < numa->n_nodes; i++)
        n_cpus += (unsigned)CPU_COUNT(&numa->nodes[i].cpus);
    for (unsigned i = 0; i < numa->n_nodes; i++) {
        uint64_t end = begin + (unsigned)CPU_COUNT(&numa->nodes[i].cpus);

        while (t < numa->n_threads &&
               (2 * (uint64_t)t + 1) * n_cpus <= 2 * end * numa->n_threads)
            numa->of_thread[t++] = i;
        begin = end;
    }
}

int sl_numa_open(struct sl_numa **out, const struct sl_numa_ops *ops, void *arg,
                 unsigned n_threads, struct sl_error *err)
{
    struct sl_numa *numa;

    *out = NULL;
    if (ops == NULL)
        ops = sl_numa_system();
    if (ops == NULL)
        return 0;
    numa = calloc(1, sizeof *numa);
    if (numa != NULL)
        numa->of_thread = sl_zalloc_array(n_threads, sizeof *numa->of_thread);
    if (numa == NULL || numa->of_thread == NULL) {
        free(numa);
        return sl_fail(err, SL_ERR_NOMEM, "no memory for %u threads",
                       n_threads);
    }
    numa->ops = ops;
    numa->arg = arg;
    numa->n_threads = n_threads;
    numa->n_nodes = ops->nodes(arg, numa->nodes);
    if (numa->n_nodes < 2) {
        free(numa->of_thread);
        free(numa);
        return 0;
    }
    for (unsigned i = 0; i < numa->n_nodes; i++)
        CPU_OR(&numa->all, &numa->all, &numa->nodes[i].cpus);
    deal_out(numa);
    *out = numa;
    return 0;
}

void sl_numa_close(struct sl_numa *numa)
{
    if (numa == NULL)
        return;
    numa->ops->run_on(numa->arg, &numa->all);
    free(numa->of_thread);
    free(numa);
}

/* --- who is where ----------------------------------------------------------
 */

unsigned sl_numa_nodes(const struct sl_numa *numa)
{
    return numa != NULL ? numa->n_nodes : 1;
}

unsigned sl_numa_thread_node(const struct sl_numa *numa, unsigned thread)
{
    if (numa == NULL || thread >= numa->n_threads)
        return SL_NUMA_UNKNOWN;
    return numa->nodes[numa->of_thread[thread]].id;
}

const char *sl_numa_text(char buf[SL_NUMA_TEXT], const struct sl_numa *numa)
{
    size_t at;

    if (numa == NULL)
        return strcpy(buf, "1 NUMA node");
    at = (size_t)snprintf(buf, SL_NUMA_TEXT, "%u NUMA nodes (threads",
                          numa->n_nodes);
    for (unsigned i = 0; i < numa->n_nodes && at < SL_NUMA_TEXT - 16; i++) {
        unsigned n = 0;

        for (unsigned t = 0; t < numa->n_threads; t++)
            n += numa->of_thread[t] == i;
        at += (size_t)snprintf(buf + at, SL_NUMA_TEXT - at, "%s %u",
                               i > 0 ? " +" : "", n);
    }
    snprintf(buf + at, SL_NUMA_TEXT - at, ")");
    return buf;
}

unsigned sl_numa_file_node(const struct sl_numa *numa, const char *path)
{
    char sys_path[64];
    struct stat st;

    if (numa == NULL || stat(path, &st) != 0)
        return SL_NUMA_UNKNOWN;
    snprintf(sys_path, sizeof sys_path, "/sys/dev/block/%u:%u",
             major(st.st_dev), minor(st.st_dev));
    return numa->ops->device_node(numa->arg, sys_path);
}

unsigned sl_numa_pci_node(const struct sl_numa *numa, const char *pci)
{
    char sys_path[64];

    if (numa == NULL || pci[0] == '\0')
        return SL_NUMA_UNKNOWN;
    snprintf(sys_path, sizeof sys_path, "/sys/bus/pci/devices/%s", pci);
    return numa->ops->device_node(numa->arg, sys_path);
}

/* To run elsewhere than wished costs time and nothing else, so that nobody
 * need know about a refusal. */
void sl_numa_run_near(const struct sl_numa *numa, unsigned id)
{
    const cpu_set_t *cpus;

    if (numa == NULL)
        return;
    cpus = &numa->all;
    for (unsigned i = 0; i < numa->n_nodes; i++)
        if (numa->nodes[i].id == id)
            cpus = &numa->nodes[i].cpus;
    numa->ops->run_on(numa->arg, cpus);
}

void sl_numa_run_as(const struct sl_numa *numa, unsigned thread)
{
    sl_numa_run_near(numa, sl_numa_thread_node(numa, thread));
}

/* --- memory ----------------------------------------------------------------
 */

int sl_numa_place(const struct sl_numa *numa, void *addr, size_t bytes,
                  unsigned id, struct sl_error *err)
{
    uintptr_t begin = sl_round_up((uintptr_t)addr, SL_PAGE_BYTES);
    uintptr_t end = sl_round_up((uintptr_t)addr + bytes, SL_PAGE_BYTES);
    int rc;

    if (numa == NULL || id == SL_NUMA_UNKNOWN || begin >= end)
        return 0;
    rc = numa->ops->bind(numa->arg, (uint8_t *)addr + (begin - (uintptr_t)addr),
                         end - begin, id);
    if (rc != 0) {
        sl_fail_os(err, rc,
                   "cannot place %zu bytes on NUMA node %u (%s); memory lies "
                   "where it is touched first",
                   (size_t)(end - begin), id, numa->ops->name);
        if (err != NULL)
            err->code = SL_ERR_UNSUPPORTED;
        return -1;
    }
    return 0;
}

int sl_numa_spread(const struct sl_numa *numa, void *addr, size_t bytes,
                   size_t item_bytes, struct sl_error *err)
{
    size_t n = bytes / item_bytes + (bytes % item_bytes != 0);

    for (unsigned t = 0; numa != NULL && t < numa->n_threads;) {
        unsigned node = numa->of_thread[t];
        size_t begin, end, ignored;

        sl_pool_share(&begin, &end, n, 1, t, numa->n_threads);
        while (++t < numa->n_threads && numa->of_thread[t] == node)
            sl_pool_share(&ignored, &end, n, 1, t, numa->n_threads);
        begin *= item_bytes;
        end = end < n ? end * item_bytes : bytes;
        if (sl_numa_place(numa, (uint8_t *)addr + begin, end - begin,
                          numa->nodes[node].id, err) != 0)
            return -1;
    }
    return 0;
}
