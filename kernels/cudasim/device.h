/*
 * device.h - what device code sees of the simulated block
 *
 * C++ only. A block's threads are fibers of one host thread, which runs one
 * at a time; they change only in the functions below that wait for others.
 */
#ifndef SL_CUDASIM_DEVICE_H
#define SL_CUDASIM_DEVICE_H

#include <stddef.h>
#include <stdint.h>

#include <vector_types.h>

#define __global__
#define __device__
#define __host__
#define __constant__    const
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __restrict__ __restrict
#define __align__(n) __attribute__((aligned(n)))

struct cudasim_thread {
    uint3 thread_idx, block_idx;
    dim3 block_dim, grid_dim;
};

/* The fiber that runs; NULL in host code. */
extern __thread struct cudasim_thread *cudasim_self;

#define threadIdx (cudasim_self->thread_idx)
#define blockIdx  (cudasim_self->block_idx)
#define blockDim  (cudasim_self->block_dim)
#define gridDim   (cudasim_self->grid_dim)

static const int warpSize = 32;

/* Where a call was made, for messages. */
struct cudasim_site {
    const char *file;
    int line;
};

#define CUDASIM_SITE                                                           \
    const char *file = __builtin_FILE(), int line = __builtin_LINE()

/* Ends the kernel with a message, as an illegal access does on a GPU. */
[[noreturn]] void cudasim_stop(const char *format, ...)
    __attribute__((format(printf, 1, 2)));

void cudasim_sync_threads(cudasim_site site);

/* The lanes of mask meet at one call. The last to come runs complete over the
 * records of all (records[lane], NULL for lanes outside of mask or gone). */
typedef void cudasim_complete(void *const records[32]);
void cudasim_meet(const char *what, unsigned mask, cudasim_complete *complete,
                  void *record, cudasim_site site);

/* One lane's part of a shuffle or vote; complete fills result. */
struct cudasim_exchange {
    uint64_t value, result;
    unsigned source; /* lane */
};
cudasim_complete cudasim_shuffle, cudasim_ballot;
void cudasim_sync_warp(unsigned mask, cudasim_site site);
unsigned cudasim_lane(void);

/* Shared memory of the block: the same bytes for the same tag in every
 * thread of it. */
void *cudasim_shared(const void *tag, size_t bytes, size_t align);
/* What cudaLaunchKernel was asked for. */
void *cudasim_shared_dynamic(void);

/* cudasim's half of SL_SHARED and SL_SHARED_DYNAMIC (kernels/cuda). The
 * lambda's constant is one object a place and template instance. */
#define CUDASIM_SHARED(type, name, dims)                                       \
    type(&name) dims = *static_cast<type(*) dims>(cudasim_shared(              \
        [] {                                                                   \
            static const char tag = 0;                                         \
            return &tag;                                                       \
        }(),                                                                   \
        sizeof(type dims), alignof(type) < 16 ? 16 : alignof(type)))
#define CUDASIM_SHARED_DYNAMIC(type, name)                                     \
    type *name = static_cast<type *>(cudasim_shared_dynamic())

static inline void __syncthreads(CUDASIM_SITE)
{
    cudasim_sync_threads(cudasim_site{file, line});
}

static inline void __syncwarp(unsigned mask = 0xffffffffu, CUDASIM_SITE)
{
    cudasim_sync_warp(mask, cudasim_site{file, line});
}

/* A shuffle from the lane `source`; width as in CUDA's. */
template <class T>
static inline T cudasim_shuffle_from(const char *what, unsigned mask, T value,
                                     unsigned source, cudasim_site site)
{
    struct cudasim_exchange x = {0, 0, source};
    T result;

    static_assert(sizeof(T) <= sizeof x.value, "shuffles move 8 bytes");
    __builtin_memcpy(&x.value, &value, sizeof value);
    cudasim_meet(what, mask, cudasim_shuffle, &x, site);
    __builtin_memcpy(&result, &x.result, sizeof result);
    return result;
}

template <class T>
static inline T __shfl_sync(unsigned mask, T value, int source, int width = 32,
                            CUDASIM_SITE)
{
    unsigned base = cudasim_lane() & ~((unsigned)width - 1);

    return cudasim_shuffle_from("__shfl_sync", mask, value,
                                base + ((unsigned)source & (width - 1)),
                                cudasim_site{file, line});
}

template <class T>
static inline T __shfl_xor_sync(unsigned mask, T value, int lanes,
                                int width = 32, CUDASIM_SITE)
{
    unsigned self = cudasim_lane(), source = self ^ (unsigned)lanes;

    if (source >= (self | ((unsigned)width - 1)) + 1)
        source = self;
    return cudasim_shuffle_from("__shfl_xor_sync", mask, value, source,
                                cudasim_site{file, line});
}

template <class T>
static inline T __shfl_down_sync(unsigned mask, T value, unsigned delta,
                                 int width = 32, CUDASIM_SITE)
{
    unsigned self = cudasim_lane(), source = self + delta;

    if (source > (self | ((unsigned)width - 1)))
        source = self;
    return cudasim_shuffle_from("__shfl_down_sync", mask, value, source,
                                cudasim_site{file, line});
}

template <class T>
static inline T __shfl_up_sync(unsigned mask, T value, unsigned delta,
                               int width = 32, CUDASIM_SITE)
{
    unsigned self = cudasim_lane();
    unsigned base = self & ~((unsigned)width - 1);

    return cudasim_shuffle_from("__shfl_up_sync", mask, value,
                                self < base + delta ? self : self - delta,
                                cudasim_site{file, line});
}

static inline unsigned __ballot_sync(unsigned mask, int predicate, CUDASIM_SITE)
{
    struct cudasim_exchange x = {predicate != 0, 0, 0};

    cudasim_meet("__ballot_sync", mask, cudasim_ballot, &x,
                 cudasim_site{file, line});
    return (unsigned)x.result;
}

static inline int __any_sync(unsigned mask, int predicate, CUDASIM_SITE)
{
    struct cudasim_exchange x = {predicate != 0, 0, 0};

    cudasim_meet("__any_sync", mask, cudasim_ballot, &x,
                 cudasim_site{file, line});
    return x.result != 0;
}

static inline int __all_sync(unsigned mask, int predicate, CUDASIM_SITE)
{
    struct cudasim_exchange x = {predicate == 0, 0, 0};

    cudasim_meet("__all_sync", mask, cudasim_ballot, &x,
                 cudasim_site{file, line});
    return x.result == 0;
}

/* Fibers of a block run on one host thread, and all of them see its stores in
 * order; between streams only events order. */
static inline void __threadfence()
{
    __asm__ volatile("" ::: "memory");
}

static inline void __threadfence_block()
{
    __asm__ volatile("" ::: "memory");
}

static inline long long clock64()
{
    return 0;
}

#endif
