/*
 * upload_rig.h - a file, slabs, a plan, a device: all that an upload ring needs
 *
 * Passes are run as an executor would, but that "computing" on the device is
 * a copy to the host on the COMPUTE queue, so that what was there is seen.
 * Tests of the stream alone use the file and the slabs.
 */
#ifndef SL_TESTS_UPLOAD_RIG_H
#define SL_TESTS_UPLOAD_RIG_H

#include "offload/upload.h"
#include "tests/support.h"

#define UPLOAD_FILE_BYTES ((size_t)1500 * 4096)
#define UPLOAD_MAX_SLABS  40u

struct upload_rig {
    char dir[1024], path[1100];
    uint8_t *data; /* (UPLOAD_FILE_BYTES) */
    uint64_t seed;
    struct sl_slab slabs[UPLOAD_MAX_SLABS];
    size_t n;
    struct sl_plan plan;
    uint8_t *sink; /* what the device computed with, slab after slab */
    size_t sink_at[UPLOAD_MAX_SLABS + 1];

    struct sl_device *dev;
    struct sl_stream_config stream_config;
    struct sl_upload_config upload_config;
    struct sl_stream *stream;
    struct sl_upload *upload;
    void *ring, *residents; /* on the device */
    struct sl_event *end;   /* of a pass */
};

uint64_t upload_random(struct upload_rig *r);
/* For cmocka: makes and removes the file. */
int upload_setup(void **state);
int upload_teardown(void **state);

/* Slabs of one to four extents that begin and end anywhere. */
void upload_slabs(struct upload_rig *r, size_t n, uint64_t max_bytes);
/* A plan out of letters, one a slab, with that many device slots:
 *   D disk   V VRAM   C RAM, the CPU's   P RAM, the GPU's in prefill
 *   G RAM, the GPU's always */
void upload_plan(struct upload_rig *r, const char *letters, uint32_t n_slots);
/* The same with letters drawn by chance. */
void upload_random_plan(struct upload_rig *r, size_t n, uint32_t n_slots);

/* Opens stream and upload ring for the plan on r->dev; what failed is closed.
 */
int upload_open(struct upload_rig *r, struct sl_error *err);
/* One pass. Returns how many slabs were had before an error; the bytes of
 * all are checked. Stops before slab `until`, which then is held if `held`. */
size_t upload_pass(struct upload_rig *r, enum sl_phase phase, size_t until,
                   bool held, struct sl_error *err);
void upload_close(struct upload_rig *r);

#endif
