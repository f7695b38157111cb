/*
 * launch.cuh - what every .cu file needs: shared memory and launches
 *
 * Nothing here differs between nvcc and cudasim but SL_SHARED.
 */
#ifndef SL_KERNELS_CUDA_LAUNCH_CUH
#define SL_KERNELS_CUDA_LAUNCH_CUH

#include <cuda_runtime.h>

#include "kernels/cuda/cuda.h"
#include "src/base/error.h"

/* SL_SHARED(float, tile, [8][32]): an array of shared memory.
 * SL_SHARED_DYNAMIC(float, rows): the one whose size the launch gives. */
#ifdef CUDA_SIM
#define SL_SHARED(type, name, dims)   CUDASIM_SHARED(type, name, dims)
#define SL_SHARED_DYNAMIC(type, name) CUDASIM_SHARED_DYNAMIC(type, name)
#else
#define SL_SHARED(type, name, dims) __shared__ type name dims
#define SL_SHARED_DYNAMIC(type, name)                                          \
    extern __shared__ __align__(16) unsigned char sl_dynamic_shared[];         \
    type *name = reinterpret_cast<type *>(sl_dynamic_shared)
#endif

/* Puts a kernel on the stream; what names it in errors. */
template <class... P, class... A>
static inline int sl_cuda_launch(const char *what, void (*kernel)(P...),
                                 dim3 grid, dim3 block, size_t shared_bytes,
                                 cudaStream_t stream, struct sl_error *err,
                                 A... given)
{
    struct {
        void *at[sizeof...(P)];
        size_t n;
    } args = {};
    cudaError_t e;
    auto put = [&](auto *value) { args.at[args.n++] = value; };

    auto launch = [&](P... values) {
        (put(&values), ...);
        return cudaLaunchKernel(kernel, grid, block, args.at, shared_bytes,
                                stream);
    };
    e = launch(given...);
    if (e == cudaErrorInvalidConfiguration || e == cudaErrorInvalidValue ||
        e == cudaErrorLaunchOutOfResources)
        return sl_fail(err, SL_ERR_IO,
                       "%s: the device refused a grid of %u x %u x %u blocks "
                       "of %u threads: %s",
                       what, grid.x, grid.y, grid.z,
                       block.x * block.y * block.z, cudaGetErrorString(e));
    if (e != cudaSuccess)
        return sl_fail(err, SL_ERR_IO, "%s: %s (CUDA error %d)", what,
                       sl_cuda_error_text((int)e), (int)e);
    return 0;
}

/* A kernel of one argument, on the context's stream. The argument has no
 * padding: cudasim looks for host pointers among all of its bytes. */
template <class P>
static inline int sl_launch(const struct sl_cuda *c, const char *what,
                            void (*kernel)(P), dim3 grid, uint32_t threads,
                            const P *args, struct sl_error *err)
{
    return sl_cuda_launch(what, kernel, grid, dim3(threads), 0,
                          (cudaStream_t)c->stream, err, *args);
}

#endif
