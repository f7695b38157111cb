/*
 * numa.h - memory near those who use it
 *
 * On a machine of several nodes a processor reads the memory of its own
 * faster than that of the others. Threads are dealt out to the nodes in
 * proportion to their CPUs and stay there; resident weights lie with the
 * thread that begins with their rows (sl_pool_share), the ring with the disk
 * or device that fills it. Where nothing is placed, memory lies with whoever
 * touches it first.
 *
 * What the machine is and does comes through a table of functions, so that a
 * machine of many nodes can be made by a test.
 */
#ifndef SL_OFFLOAD_NUMA_H
#define SL_OFFLOAD_NUMA_H

#include <sched.h>
#include <stddef.h>
#include <stdint.h>

#include "src/base/error.h"

#define SL_NUMA_NODES   64u
#define SL_NUMA_UNKNOWN UINT32_MAX

struct sl_numa_node {
    unsigned id;    /* the system's number */
    cpu_set_t cpus; /* of it, this process may run on; at least one */
};

struct sl_numa_ops {
    const char *name; /* "libnuma" */
    /* Up to SL_NUMA_NODES nodes; returns how many, 0 if that cannot be
     * told. */
    unsigned (*nodes)(void *arg, struct sl_numa_node *nodes);
    /* Pages not yet touched: on this node where it has room. Returns 0 or an
     * errno. */
    int (*bind)(void *arg, void *addr, size_t bytes, unsigned id);
    /* The calling thread runs on these CPUs only. Returns 0 or an errno. */
    int (*run_on)(void *arg, const cpu_set_t *cpus);
    /* The node a device is attached to, by its folder or link in /sys;
     * SL_NUMA_UNKNOWN. */
    unsigned (*device_node)(void *arg, const char *sys_path);
};

/* libnuma and /sys; NULL if the program was built without. */
const struct sl_numa_ops *sl_numa_system(void);

struct sl_numa; /* NULL wherever one is taken: one node, nothing to do */

/* ops NULL: sl_numa_system. *numa is NULL on a machine with one node.
 * Errors: SL_ERR_NOMEM. */
int sl_numa_open(struct sl_numa **numa, const struct sl_numa_ops *ops,
                 void *arg, unsigned n_threads, struct sl_error *err);
/* The calling thread may run everywhere again. */
void sl_numa_close(struct sl_numa *numa);

unsigned sl_numa_nodes(const struct sl_numa *numa); /* 1 for NULL */
/* Of thread 0 .. n_threads - 1; ids as the system numbers them. */
unsigned sl_numa_thread_node(const struct sl_numa *numa, unsigned thread);
/* "2 NUMA nodes (threads 4 + 4)", "1 NUMA node": cut short where there are
 * more than fit. */
#define SL_NUMA_TEXT 128u
const char *sl_numa_text(char buf[SL_NUMA_TEXT], const struct sl_numa *numa);
/* Of the disk that holds a file, of a PCI device ("0000:01:00.0");
 * SL_NUMA_UNKNOWN. */
unsigned sl_numa_file_node(const struct sl_numa *numa, const char *path);
unsigned sl_numa_pci_node(const struct sl_numa *numa, const char *pci);

/* Keeps the calling thread on the node of a thread of the pool, or on any
 * node (SL_NUMA_UNKNOWN: everywhere). */
void sl_numa_run_as(const struct sl_numa *numa, unsigned thread);
void sl_numa_run_near(const struct sl_numa *numa, unsigned id);

/* Places memory that nobody has touched; a page belongs where its first byte
 * does. Errors: SL_ERR_UNSUPPORTED when the system refuses: the memory is as
 * good as before, only not as near. */
int sl_numa_place(const struct sl_numa *numa, void *addr, size_t bytes,
                  unsigned id, struct sl_error *err);
/* Items of equal size, one after another, the last one perhaps shorter: each
 * with the thread that begins with it when sl_pool_for runs over them. */
int sl_numa_spread(const struct sl_numa *numa, void *addr, size_t bytes,
                   size_t item_bytes, struct sl_error *err);

#endif
