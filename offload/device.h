/*
 * device.h - an accelerator, behind one table
 *
 * Memory, copies and their order; no arithmetic. Work is put on queues, each
 * of which runs in order; events order them among each other:
 *
 *   COMPUTE  --------- kernel k ---- record r --- wait c --- kernel k+1 --
 *   UP       -- wait r --- copy ---- record c ------------------------
 *   DOWN     -- copies to the host ---------------------------------
 *   KEYS     as UP, for keys and values that wait in RAM
 *
 * Calls that put work on a queue return before it is done; a failure of that
 * work may come out of any later call. CUDA is the one real device; a test's
 * table injects faults, and a machine's model takes virtual time. Any thread
 * that has called attach may call anything, several at the same time; a queue
 * keeps the order in which it was called.
 */
#ifndef SL_OFFLOAD_DEVICE_H
#define SL_OFFLOAD_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/base/error.h"

enum sl_queue {
    SL_QUEUE_COMPUTE,
    SL_QUEUE_UP,   /* copies from the host: weights */
    SL_QUEUE_DOWN, /* copies to the host */
    SL_QUEUE_KEYS, /* copies from the host that wait for no weights */
    SL_QUEUE_COUNT,
};

#define SL_DEVICE_NAME 96u
#define SL_DEVICE_BEST                                                         \
    -1 /* an ordinal: the usable one with most free memory                     \
        */

struct sl_device_info {
    int ordinal;
    char name[SL_DEVICE_NAME];
    int cc_major, cc_minor; /* compute capability; 0 where meaningless */
    uint32_t n_sms;         /* multiprocessors */
    uint64_t vram_bytes;    /* all there is */
    uint64_t vram_free;     /* now, with the context in place */
    /* What the context took: the difference that making it made, as NVML has
     * it. Where that cannot be told, what is in use by whomever, 1 GiB at
     * most. */
    uint64_t context_bytes;
    uint64_t vram_bps;       /* by its clocks; 0: unknown */
    int driver, runtime;     /* CUDA versions: 1000 * major + 10 * minor */
    char pci[16];            /* "0000:01:00.0"; "" unknown */
    double pcie_gtps;        /* GT/s a lane, at most; 0: unknown */
    uint32_t pcie_lanes;     /* 0: unknown */
    struct sl_error why_not; /* why it cannot be used; SL_OK where it can */
};

struct sl_device {
    const struct sl_device_ops *ops;
    struct sl_device_info info; /* as it was when opened or looked at */
    struct sl_device_contexts *contexts; /* or NULL */
};

/* What the contexts have that this process made, by ordinal; zeros to begin
 * with. A context is the process's: the first that opens a device makes it, and
 * can see what that took; whoever opens it later, or beside the first, is told
 * here. One thread opens and looks at a time. */
#define SL_DEVICE_CONTEXTS 32u /* more than any machine has devices */

struct sl_device_contexts {
    uint64_t bytes[SL_DEVICE_CONTEXTS];
};

struct sl_event; /* a place in a queue */

/* A table of functions; every implementation embeds struct sl_device first.
 * Errors: SL_ERR_NOMEM out of device memory, SL_ERR_IO for a device that is
 * lost or a copy that failed, SL_ERR_INTERNAL for what only a bug can cause;
 * pin: SL_ERR_UNSUPPORTED. All messages name the device. */
struct sl_device_ops {
    const char *name; /* "cuda" */
    /* Once in every thread, before its first other call. */
    int (*attach)(struct sl_device *dev, struct sl_error *err);

    /* Reads vram_free and context_bytes of info anew: a library that was
     * loaded has taken some. What was allocated since the last look would be
     * counted as that. */
    int (*look)(struct sl_device *dev, struct sl_error *err);

    /* Device memory, aligned to 256 bytes, not zeroed. */
    int (*alloc)(struct sl_device *dev, void **p, uint64_t bytes,
                 struct sl_error *err);
    void (*free)(struct sl_device *dev, void *p); /* NULL is fine */
    /* Locks page-aligned host memory in place, so that copies of it run at
     * full speed and beside the host. It may be refused (limits, WSL,
     * containers): then copies still work, slower. */
    int (*pin)(struct sl_device *dev, void *base, uint64_t bytes,
               struct sl_error *err);
    void (*unpin)(struct sl_device *dev, void *base);

    /* Host memory must stay as it is until an event recorded behind the copy
     * is done. */
    int (*copy_up)(struct sl_device *dev, enum sl_queue queue, void *to,
                   const void *from, uint64_t bytes, struct sl_error *err);
    int (*copy_down)(struct sl_device *dev, enum sl_queue queue, void *to,
                     const void *from, uint64_t bytes, struct sl_error *err);
    int (*copy_within)(struct sl_device *dev, enum sl_queue queue, void *to,
                       const void *from, uint64_t bytes, struct sl_error *err);

    /* An event that was never recorded counts as done. */
    int (*event_create)(struct sl_device *dev, struct sl_event **event,
                        bool timed, struct sl_error *err);
    void (*event_destroy)(struct sl_device *dev, struct sl_event *event);
    int (*record)(struct sl_device *dev, enum sl_queue queue,
                  struct sl_event *event, struct sl_error *err);
    /* What is put on the queue from now on waits for the event as it was
     * recorded last; recording it again later changes nothing. */
    int (*queue_wait)(struct sl_device *dev, enum sl_queue queue,
                      struct sl_event *event, struct sl_error *err);
    /* 1 when all before the event is done, 0 when not yet, or -1. */
    int (*done)(struct sl_device *dev, struct sl_event *event,
                struct sl_error *err);
    /* Sleeps until it is. */
    int (*sync)(struct sl_device *dev, struct sl_event *event,
                struct sl_error *err);
    /* When the first of two timed events that are done happened, on the scale
     * of sl_clock_ns, and how long after it the second did. */
    int (*span)(struct sl_device *dev, struct sl_event *from,
                struct sl_event *to, uint64_t *begin_ns, uint64_t *length_ns,
                struct sl_error *err);

    /* The queue as the device's own interface knows it (cudaStream_t), for
     * those who launch kernels; NULL where there is none. */
    void *(*native_queue)(struct sl_device *dev, enum sl_queue queue);
    void (*close)(struct sl_device *dev); /* waits for all queues */
};

/* Looks for devices: up to `room` of them, *n how many there are. Those that
 * cannot be used say why not. Not while one is open. Errors:
 * SL_ERR_UNSUPPORTED with the reason where there is none: built without CUDA,
 * no driver, a driver too old, no device. */
int sl_device_list(struct sl_device_info *infos, size_t room, size_t *n,
                   struct sl_error *err);

/* Operations a second in products with FP16 inputs and FP32 sums, by its
 * compute capability: where they cannot be measured, or must not change from
 * run to run. */
double sl_device_ops(const struct sl_device_info *info);

/* Opens a CUDA device by its ordinal or SL_DEVICE_BEST. A process that opens
 * devices once only has no need of contexts (NULL); they outlive the device.
 * Errors: as sl_device_list; SL_ERR_USAGE for an ordinal that does not exist,
 * SL_ERR_UNSUPPORTED for a device whose architecture has no kernels here,
 * SL_ERR_NOMEM, SL_ERR_IO. */
int sl_device_open_cuda(struct sl_device **dev, int ordinal,
                        struct sl_device_contexts *contexts,
                        struct sl_error *err);
void sl_device_close(struct sl_device *dev); /* NULL is fine */

/* "12.4" of 12040. */
#define SL_VERSION_TEXT 16u
char *sl_device_version(char buf[SL_VERSION_TEXT], int version);

#endif
