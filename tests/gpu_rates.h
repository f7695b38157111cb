/*
 * gpu_rates.h - a machine with a GPU of which nothing need be measured
 */
#ifndef TESTS_GPU_RATES_H
#define TESTS_GPU_RATES_H

#include "offload/cost.h"

/* The GPU computes faster than the CPU, which reads faster than the disk. */
extern const struct sl_rates test_gpu_rates;

#endif
