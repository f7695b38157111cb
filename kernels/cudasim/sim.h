/*
 * sim.h - what the parts of cudasim share
 *
 * Sanitizers. cudasim itself is not instrumented for ThreadSanitizer, and its
 * locks are hidden from it (struct sim_lock): a worker that takes the next
 * operation from its queue must not thereby order two streams. The orders
 * that CUDA promises are told explicitly, by sim_release and sim_acquire.
 */
#ifndef SL_CUDASIM_SIM_H
#define SL_CUDASIM_SIM_H

#include <memory>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <vector>

#include "kernels/cudasim/cuda_runtime.h"
#include "kernels/cudasim/cudasim.h"

#if defined(__SANITIZE_ADDRESS__)
#define CUDASIM_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define CUDASIM_ASAN 1
#endif
#endif

#ifdef CUDASIM_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#else
#define ASAN_POISON_MEMORY_REGION(p, n)   ((void)(p), (void)(n))
#define ASAN_UNPOISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#endif

#ifdef CUDASIM_TSAN /* from the Makefile: this library is not instrumented */
extern "C" {
void *__tsan_get_current_fiber(void);
void *__tsan_create_fiber(unsigned flags);
void __tsan_destroy_fiber(void *fiber);
void __tsan_switch_to_fiber(void *fiber, unsigned flags);
void __tsan_acquire(void *at);
void __tsan_release(void *at);
void __tsan_read_range(void *at, size_t bytes);
void __tsan_write_range(void *at, size_t bytes);
void AnnotateIgnoreSyncBegin(const char *file, int line);
void AnnotateIgnoreSyncEnd(const char *file, int line);
void AnnotateIgnoreReadsBegin(const char *file, int line);
void AnnotateIgnoreReadsEnd(const char *file, int line);
void AnnotateIgnoreWritesBegin(const char *file, int line);
void AnnotateIgnoreWritesEnd(const char *file, int line);
}
#endif

/* What was done before the release is seen by whoever acquires later. */
static inline void sim_release(const void *at)
{
#ifdef CUDASIM_TSAN
    __tsan_release(const_cast<void *>(at));
#else
    (void)at;
#endif
}

static inline void sim_acquire(const void *at)
{
#ifdef CUDASIM_TSAN
    __tsan_acquire(const_cast<void *>(at));
#else
    (void)at;
#endif
}

/* Accesses of cudasim's own that ThreadSanitizer is to see. */
static inline void sim_reads(const void *at, size_t bytes)
{
#ifdef CUDASIM_TSAN
    __tsan_read_range(const_cast<void *>(at), bytes);
#else
    (void)at, (void)bytes;
#endif
}

static inline void sim_writes(void *at, size_t bytes)
{
#ifdef CUDASIM_TSAN
    __tsan_write_range(at, bytes);
#else
    (void)at, (void)bytes;
#endif
}

/* Within, ThreadSanitizer learns of neither orders nor accesses. */
struct sim_hidden {
    sim_hidden()
    {
#ifdef CUDASIM_TSAN
        AnnotateIgnoreSyncBegin(__FILE__, __LINE__);
        AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
        AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
#endif
    }
    ~sim_hidden()
    {
#ifdef CUDASIM_TSAN
        AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
        AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
        AnnotateIgnoreSyncEnd(__FILE__, __LINE__);
#endif
    }
    sim_hidden(const sim_hidden &) = delete;
    sim_hidden &operator=(const sim_hidden &) = delete;
};

/* A mutex held for a scope, hidden from ThreadSanitizer. */
struct sim_lock {
    sim_hidden hidden;
    pthread_mutex_t *mutex;

    explicit sim_lock(pthread_mutex_t *m) : mutex(m)
    {
        pthread_mutex_lock(mutex);
    }
    ~sim_lock()
    {
        pthread_mutex_unlock(mutex);
    }
};

struct sim_block;

/* --- calls (calls.cc) ---------------------------------------------------- */

/* First in every function of the runtime: counts the call, and says whether
 * it is to fail: as planned, because of a fault, or for want of a device. */
cudaError_t sim_enter(const char *call);
/* As sim_enter for what works without a device and after a fault. */
cudaError_t sim_enter_always(const char *call);
/* Notes error, if it is one, for cudaGetLastError; returns it. */
cudaError_t sim_leave(cudaError_t error);
/* The same with a reason for cudasim_fault. */
cudaError_t sim_refuse(cudaError_t error, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* A kernel or an operation went wrong: every call fails from now on. */
void sim_set_fault(cudaError_t error, const char *text);
cudaError_t sim_fault_error(void);

/* --- the machine (machine.cc) -------------------------------------------- */

struct cudasim_config sim_config(void);
int sim_device(void); /* the calling thread's */
void sim_reread_environment(void);

/* --- memory (memory.cc) -------------------------------------------------- */

enum sim_place { SIM_HOST, SIM_PINNED, SIM_DEVICE };

/* Where p lies; *room is how many bytes follow in the same allocation (or
 * registered range), (size_t)-1 for SIM_HOST. */
enum sim_place sim_place_of(const void *p, size_t *room);
/* Lets the calling thread touch device memory, or not. */
void sim_open_memory(bool open);
size_t sim_live_memory(void); /* allocations and registered ranges */
/* The present device's context takes memory from the first call that needs it
 * until cudaDeviceReset. */
void sim_make_context(void);
void sim_drop_context(void);
bool sim_has_memory(int device); /* there are allocations of it */
/* What nobody has of a device's memory; without a context, more. */
size_t sim_free_memory(int device);
/* Refuses what is no place for bytes of a copy; what says which end. */
cudaError_t sim_check_range(const char *what, const void *p, size_t bytes,
                            bool device);
/* Host pointers among a kernel's arguments, and those of another device than
 * the present one. */
cudaError_t sim_check_arguments(const cudasim_kernel *kernel);

/* --- streams (stream.cc) ------------------------------------------------- */

/* What a stream does. */
struct sim_op {
    virtual ~sim_op() = default;
    virtual void run(struct sim_block *block) = 0;
    /* instead of run, after a fault */
    virtual void skip()
    {
    }
};

/* Puts op at the end of the stream's queue (NULL: the NULL stream's). */
cudaError_t sim_enqueue(const char *call, cudaStream_t stream,
                        std::unique_ptr<sim_op> op);
/* Refuses what belongs to one device on a stream of another. */
cudaError_t sim_check_stream(const char *call, cudaStream_t stream, int device);
/* NULL if there is no such stream; of NULL, the NULL stream. */
cudaStream_t sim_find_stream(cudaStream_t stream);
/* Until all that was put before is done. */
void sim_wait_idle(cudaStream_t stream);
/* Waits for everything on every stream. */
void sim_drain(void);
size_t sim_live_streams(void); /* streams and events */
void sim_forget_copies(void);  /* copy.cc: the count of pageable ones */

/* --- blocks (block.cc) --------------------------------------------------- */

/* A stream's place to execute blocks in: fibers and shared memory. */
struct sim_block *sim_block_create(void);
void sim_block_destroy(struct sim_block *block);
/* Runs all blocks; faults are set. */
void sim_block_run(struct sim_block *block, const cudasim_kernel *kernel,
                   dim3 grid, dim3 dim, size_t shared_bytes);
/* Whether [p, p + bytes) is shared memory of the running block. */
bool sim_is_shared(const void *p, size_t bytes);

/* A cp.async that has not been waited for. */
struct sim_async {
    void *shared;
    const void *from;
    unsigned bytes, group;
};
/* Of the running thread; *group is the one that is being filled. */
std::vector<sim_async> *sim_async_copies(unsigned **group);

/* Largest shared memory a block may have, and without being asked for. */
#define SIM_SHARED_MOST    (99u << 10)
#define SIM_SHARED_DEFAULT (48u << 10)

#endif
