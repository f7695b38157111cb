/*
 * cudasim.h - what tests may ask of the simulated CUDA device
 *
 * cudasim stands in for the CUDA runtime and cuBLAS on machines without a
 * GPU (configure --with-cuda=sim). It is strict where a GPU is lenient:
 *
 * - A stream is a thread that executes in order. Nothing orders two streams
 *   but events: a missing cudaStreamWaitEvent is a race, gives wrong results
 *   (cudasim_hold makes it certain) and is reported by ThreadSanitizer. There
 *   is no legacy default stream: streams must be cudaStreamNonBlocking, and
 *   the NULL stream orders with no other.
 * - Streams and events are of the device that was current when they were made:
 *   what a thread launches or records for another is refused, and so is a
 *   kernel that is given another device's memory.
 * - Device memory cannot be touched by host threads (protection keys, where
 *   the CPU has them: else only what the runtime is handed is checked). New
 *   memory is full of NaNs; allocations end at a page that cannot be touched;
 *   freed ones stay out of reach. AddressSanitizer sees every byte beyond.
 * - Copies must lie within one allocation and go the way they say. cudaMemcpy
 *   of memory that is not pinned returns when that is read, not when the device
 *   has it: what reads that on another stream must be told to wait.
 * - A device whose memory somebody has is not reset: a GPU takes it away from
 *   whoever has it.
 * - A block's threads are fibers of the stream's thread. Shared memory begins
 *   as NaNs in each block. __syncthreads and warp functions that not all
 *   threads reach end the kernel with a message (cudasim_fault).
 *
 * The state is the process's, as a GPU is the machine's: it starts from the
 * environment (see cudasim_reset) and any thread may call anything here.
 */
#ifndef SL_CUDASIM_CUDASIM_H
#define SL_CUDASIM_CUDASIM_H

#include <stddef.h>
#include <stdint.h>

#include <cuda_runtime_api.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What a simulated machine has. */
struct cudasim_config {
    int n_devices;          /* CUDASIM_DEVICES, default 1 */
    int cc_major, cc_minor; /* CUDASIM_CC=8.6, the default */
    int driver;             /* CUDASIM_DRIVER=13000: cudaDriverGetVersion */
    size_t memory_bytes;    /* CUDASIM_MEMORY (K, M, G), default 1G, each */
    size_t context_bytes;   /* taken by using a device at all: 1/64 of it */
    size_t others_bytes;    /* CUDASIM_OTHERS: of it, other programs have */
    size_t stack_bytes; /* CUDASIM_STACK: of its caller's that a call uses */
    size_t pin_bytes;   /* CUDASIM_PIN: most that can be registered */
    int reverse; /* CUDASIM_REVERSE=1: blocks and threads, last to first */
};

void cudasim_get_config(struct cudasim_config *config);
/* From now on; what exists stays. */
void cudasim_set_config(const struct cudasim_config *config);

/* Waits for all streams, forgets the fault and the planned failures and reads
 * the environment again. Returns how many allocations, registered ranges,
 * streams and events still exist: 0 if nothing was leaked. */
size_t cudasim_reset(void);

/* Makes the nth call from now (1 is the next) of the function of that name,
 * or of any with NULL, return error instead of doing anything. The
 * environment's form is CUDASIM_FAIL=name:nth:error ("any" for NULL).
 * Launches count as "cudaLaunchKernel". nth 0 forgets the plan. */
void cudasim_fail(const char *call, uint64_t nth, cudaError_t error);
/* How many calls of the function (NULL: of all) were made since the start or
 * cudasim_reset. */
uint64_t cudasim_calls(const char *call);

/* Why the last call or kernel was refused or ended, "" if none was: a copy
 * of at most len bytes, 0 at its end. Returns text. A fault within a kernel
 * is also written to standard error, and all later calls fail with it
 * (cudaErrorLaunchFailure) as they do on a GPU, until cudasim_reset. */
char *cudasim_fault(char *text, size_t len);

/* A held stream starts nothing new until it is released. */
void cudasim_hold(cudaStream_t stream);
void cudasim_release(cudaStream_t stream);

/* Asynchronous copies that had to wait for, or go through, memory that is
 * not pinned, since the start or cudasim_reset. */
uint64_t cudasim_pageable_copies(void);
/* 1 if a host thread that touches device memory gets SIGSEGV. */
int cudasim_guards_memory(void);

#ifdef __cplusplus
}
#endif

#endif
