/*
 * feed_rig.h - a file, slabs, a plan, a device: all that a feed needs
 *
 * Passes are run as an executor would, but that "computing" on the device is
 * a copy to the host on the COMPUTE queue, so that what was there is seen.
 * Tests of the stream alone use the file and the slabs.
 */
#ifndef SL_TESTS_FEED_RIG_H
#define SL_TESTS_FEED_RIG_H

#include "offload/feed.h"
#include "tests/support.h"

#define FEED_FILE_BYTES ((size_t)1500 * 4096)
#define FEED_MAX_SLABS  40u

struct feed_rig {
    char dir[1024], path[1100];
    uint8_t *data; /* (FEED_FILE_BYTES) */
    uint64_t seed;
    struct sl_slab slabs[FEED_MAX_SLABS];
    size_t n;
    struct sl_plan plan;
    uint8_t *sink; /* what the device computed with, slab after slab */
    size_t sink_at[FEED_MAX_SLABS + 1];

    struct sl_device *dev;
    struct sl_stream_config stream_config;
    struct sl_feed_config feed_config;
    struct sl_stream *stream;
    struct sl_feed *feed;
    void *ring, *residents; /* on the device */
    struct sl_event *end;   /* of a pass */
};

uint64_t feed_random(struct feed_rig *r);
/* For cmocka: makes and removes the file. */
int feed_setup(void **state);
int feed_teardown(void **state);

/* Slabs of one to four extents that begin and end anywhere. */
void feed_slabs(struct feed_rig *r, size_t n, uint64_t max_bytes);
/* A plan out of letters, one a slab, with that many device slots:
 *   D disk   V VRAM   C RAM, the CPU's   P RAM, the GPU's in prefill
 *   G RAM, the GPU's always */
void feed_plan(struct feed_rig *r, const char *letters, uint32_t n_slots);
/* The same with letters drawn by chance. */
void feed_random_plan(struct feed_rig *r, size_t n, uint32_t n_slots);

/* Opens stream and feed for the plan on r->dev; what failed is closed. */
int feed_open(struct feed_rig *r, struct sl_error *err);
/* One pass. Returns how many slabs were had before an error; the bytes of
 * all are checked. Stops before slab `until`, which then is held if `held`. */
size_t feed_pass(struct feed_rig *r, enum sl_phase phase, size_t until,
                 bool held, struct sl_error *err);
void feed_close(struct feed_rig *r);

#endif
