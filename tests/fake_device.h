/*
 * fake_device.h - a device made of host memory and a thread for each queue
 *
 * Queues run in order and wait for nothing but events, so that a missing wait
 * is a race: it gives wrong bytes and ThreadSanitizer sees it. Loop n = 0, 1,
 * 2... of fake_device_fail until fake_device_failed says that there was no
 * n-th call.
 */
#ifndef SL_TESTS_FAKE_DEVICE_H
#define SL_TESTS_FAKE_DEVICE_H

#include "offload/device.h"

struct fake_device_config {
    unsigned copy_us;   /* a copy takes this long */
    uint64_t pin_bytes; /* more in one piece is refused; 0: no limit */
};

struct sl_device *fake_device_open(const struct fake_device_config *config);
/* The n-th call from now on, counted from 0, of anything that can fail does;
 * with `lost` all later ones as well, and copies do nothing. */
void fake_device_fail(struct sl_device *dev, long n, bool lost);
bool fake_device_failed(struct sl_device *dev);
/* A queue that is held begins nothing new. */
void fake_device_hold(struct sl_device *dev, enum sl_queue queue, bool hold);
/* Events and allocations that exist, and ranges that are pinned. */
unsigned fake_device_objects(struct sl_device *dev);

#endif
