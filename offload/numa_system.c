#include "config.h"

#include "offload/numa.h"

#ifdef HAVE_NUMA

#include <errno.h>
#include <limits.h>
#include <numa.h>
#include <numaif.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The node's CPUs, less those this process may not run on. */
static void cpus_of(cpu_set_t *cpus, unsigned id, const cpu_set_t *allowed)
{
    struct bitmask *mask = numa_allocate_cpumask();

    CPU_ZERO(cpus);
    if (mask == NULL)
        return;
    if (numa_node_to_cpus((int)id, mask) == 0) {
        for (unsigned cpu = 0; cpu < mask->size && cpu < CPU_SETSIZE; cpu++)
            if (numa_bitmask_isbitset(mask, cpu) && CPU_ISSET(cpu, allowed))
                CPU_SET(cpu, cpus);
    }
    numa_free_cpumask(mask);
}

static unsigned system_nodes(void *arg, struct sl_numa_node *nodes)
{
    cpu_set_t allowed;
    unsigned n = 0;
    int last;

    if (numa_available() < 0 ||
        sched_getaffinity(0, sizeof allowed, &allowed) != 0)
        return 0;
    last = numa_max_node();
    for (int id = 0; id <= last && n < SL_NUMA_NODES; id++) {
        if (!numa_bitmask_isbitset(numa_all_nodes_ptr, (unsigned)id))
            continue;
        nodes[n].id = (unsigned)id;
        cpus_of(&nodes[n].cpus, (unsigned)id, &allowed);
        n += CPU_COUNT(&nodes[n].cpus) > 0;
    }
    return n;
}

/* numa_tonode_memory does not say when it failed. */
static int system_bind(void *arg, void *addr, size_t bytes, unsigned id)
{
    struct bitmask *mask = numa_allocate_nodemask();
    int rc;

    if (mask == NULL)
        return ENOMEM;
    numa_bitmask_setbit(mask, id);
    rc = mbind(addr, bytes, MPOL_PREFERRED, mask->maskp, mask->size + 1, 0) == 0
             ? 0
             : errno;
    numa_free_nodemask(mask);
    return rc;
}

static int system_run_on(void *arg, const cpu_set_t *cpus)
{
    return sched_setaffinity(0, sizeof *cpus, cpus) == 0 ? 0 : errno;
}

/* A partition's or function's own folder has no numa_node; that of what it is
 * a part of has. -1 stands for none. */
static unsigned system_device_node(void *arg, const char *sys_path)
{
    char real[PATH_MAX], *slash;
    unsigned node = SL_NUMA_UNKNOWN;

    if (realpath(sys_path, real) == NULL)
        return SL_NUMA_UNKNOWN;
    while (strncmp(real, "/sys/devices/", 13) == 0 &&
           (slash = strrchr(real, '/')) != NULL) {
        char path[PATH_MAX + 16];
        FILE *f;
        int id = -1;

        snprintf(path, sizeof path, "%s/numa_node", real);
        f = fopen(path, "re");
        if (f != NULL) {
            if (fscanf(f, "%d", &id) != 1)
                id = -1;
            fclose(f);
        }
        if (id >= 0) {
            node = (unsigned)id;
            break;
        }
        *slash = '\0';
    }
    return node;
}

static const struct sl_numa_ops system_ops = {
    .name = "libnuma",
    .nodes = system_nodes,
    .bind = system_bind,
    .run_on = system_run_on,
    .device_node = system_device_node,
};

const struct sl_numa_ops *sl_numa_system(void)
{
    return &system_ops;
}

#else

const struct sl_numa_ops *sl_numa_system(void)
{
    return NULL;
}

#endif
