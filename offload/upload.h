/*
 * upload.h - weights flowing on from the host to a device
 *
 *   stream: [slot][slot][slot]  [resident]...      host memory, pinned
 *                 \                 |
 *                  '-- copies, queue UP, ahead of use
 *                             |
 *   upload:     [slot][slot][slot]  [resident]...  device memory
 *                             |
 *                        get, compute, put         queue COMPUTE
 *
 * Which slabs the GPU computes in a pass, and in which order, is known; a
 * thread of its own copies them ahead of use, as far as there are free slots
 * and across the end of a pass. The next pass it takes for a decode; if a
 * prefill comes, what that wants in addition (slabs that stay in RAM) is
 * copied on demand, and nothing is read or copied twice. Slabs whose home is
 * VRAM are copied once.
 *
 * Queues wait for each other through events; the host waits for nothing but a
 * copy that has not been put on its queue yet.
 *
 * begin, get and put are called by one thread, slabs in ascending order
 * within a pass. Every slab of the pass that the GPU computes must be asked
 * for. The upload ring is the only one that takes slabs whose home is not RAM
 * from its stream.
 */
#ifndef SL_OFFLOAD_UPLOAD_H
#define SL_OFFLOAD_UPLOAD_H

#include "offload/device.h"
#include "offload/plan.h"
#include "offload/stream.h"
#include "offload/trace.h"
#include "src/base/clock.h"

struct sl_upload;

/* All borrowed for the upload ring's life. */
struct sl_upload_config {
    struct sl_device *dev;
    struct sl_stream *stream;
    const struct sl_slab *slabs;
    const struct sl_plan *plan;
    uint32_t worker; /* of the plan: the one that computes on dev */
    /* Device memory: ring_bytes and resident_bytes of plan->at[worker]; NULL
     * where those are 0. */
    void *ring, *residents;
    struct sl_trace *trace; /* NULL: none */
    struct sl_clock *clock; /* NULL: the real one */
};

struct sl_upload_stats {
    uint64_t bytes_up; /* copied, whole life */
    uint64_t copies;
    uint64_t copy_ns;      /* copies took this long on the device */
    uint64_t disk_wait_ns; /* nothing to copy: the disk is behind */
    uint64_t slot_wait_ns; /* nowhere to copy to: the device is behind */
    uint64_t get_wait_ns;  /* get waited for a copy to be put on its queue */
    uint64_t late;         /* slabs that the guess left out */
};

/* Starts copying. Errors: SL_ERR_NOMEM, those of the device. */
int sl_upload_open(struct sl_upload **upload,
                   const struct sl_upload_config *config, struct sl_error *err);
/* A pass begins; all slabs of the one before have been put. */
void sl_upload_begin(struct sl_upload *upload, enum sl_phase phase);
/* Where the slab's bytes are on the device, laid out as in the stream; what
 * is put on SL_QUEUE_COMPUTE from now on finds them there. Valid until put.
 * Errors: those of the stream and the device; they stay. */
int sl_upload_get(struct sl_upload *upload, size_t slab, const void **base,
                  struct sl_error *err);
/* Whether get would not wait for the copy to be on its queue. */
bool sl_upload_ready(struct sl_upload *upload, size_t slab);
/* What was put on SL_QUEUE_COMPUTE by now is the last that uses the slab. */
int sl_upload_put(struct sl_upload *upload, size_t slab, struct sl_error *err);
void sl_upload_stats(const struct sl_upload *upload,
                     struct sl_upload_stats *stats);
/* Ends copying at once: copies on the queue end, others are not begun. The
 * stream fails from then on, and is closed after the upload ring. NULL is fine.
 */
void sl_upload_close(struct sl_upload *upload);

/* Host memory that an upload ring of so many slabs takes at most, whatever
 * their tiers. */
uint64_t sl_upload_overhead_bytes(size_t n_slabs);

#endif
