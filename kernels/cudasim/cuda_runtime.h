/*
 * cuda_runtime.h - the CUDA runtime as .cu files see it, on the host
 *
 * C++ only: launches know the types of a kernel's arguments, so they take the
 * kernel itself and not a pointer to void.
 */
#ifndef SL_CUDASIM_CUDA_RUNTIME_H
#define SL_CUDASIM_CUDA_RUNTIME_H

#include <stddef.h>
#include <tuple>
#include <type_traits>
#include <utility>

#include <cuda_runtime_api.h>

#include "kernels/cudasim/device.h"
#include "kernels/cudasim/device_math.h"

/* A kernel with its arguments, copied when it was launched. */
struct cudasim_kernel {
    virtual ~cudasim_kernel() = default;
    virtual void run() const = 0; /* as one thread */

    const void *function;
    /* Pointers among the arguments, and what else may be some. */
    const void *pointers[64];
    size_t n_pointers = 0;
};

template <class... A> struct cudasim_kernel_of final : cudasim_kernel {
    void (*kernel)(A...);
    std::tuple<A...> values;

    template <size_t... I>
    cudasim_kernel_of(void (*k)(A...), void **args, std::index_sequence<I...>)
        : kernel(k), values(*static_cast<A *>(args[I])...)
    {
        function = reinterpret_cast<const void *>(k);
        (note(std::get<I>(values)), ...);
    }

    void run() const override
    {
        std::apply(kernel, values);
    }

    void add(const void *p)
    {
        if (n_pointers < sizeof pointers / sizeof *pointers)
            pointers[n_pointers++] = p;
    }

    /* Of structures with padding nothing is known: it may look like one. */
    template <class T> void note(const T &value)
    {
        if constexpr (std::is_pointer_v<T>) {
            add(reinterpret_cast<const void *>(value));
        } else if constexpr (std::is_class_v<T> &&
                             std::has_unique_object_representations_v<T>) {
            const void *word;

            for (size_t i = 0; i + sizeof word <= sizeof value;
                 i += sizeof word) {
                __builtin_memcpy(&word,
                                 reinterpret_cast<const char *>(&value) + i,
                                 sizeof word);
                add(word);
            }
        }
    }
};

/* Takes kernel, also when it fails. */
cudaError_t cudasim_launch(cudasim_kernel *kernel, dim3 grid, dim3 block,
                           size_t shared_bytes, cudaStream_t stream);
cudaError_t cudasim_set_attribute(const void *function,
                                  enum cudaFuncAttribute attr, int value);

template <class... A>
cudaError_t cudaLaunchKernel(void (*kernel)(A...), dim3 grid, dim3 block,
                             void **args, size_t shared_bytes = 0,
                             cudaStream_t stream = nullptr)
{
    return cudasim_launch(new cudasim_kernel_of<A...>(
                              kernel, args, std::index_sequence_for<A...>()),
                          grid, block, shared_bytes, stream);
}

template <class... A>
cudaError_t cudaFuncSetAttribute(void (*kernel)(A...),
                                 enum cudaFuncAttribute attr, int value)
{
    return cudasim_set_attribute(reinterpret_cast<const void *>(kernel), attr,
                                 value);
}

template <class T> static inline cudaError_t cudaMalloc(T **p, size_t bytes)
{
    return cudaMalloc(reinterpret_cast<void **>(p), bytes);
}

template <class... A>
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *n,
                                                          void (*kernel)(A...),
                                                          int block_threads,
                                                          size_t shared_bytes)
{
    (void)kernel;
    if (block_threads <= 0)
        return cudaErrorInvalidValue;
    size_t by_shared = shared_bytes ? (100u << 10) / shared_bytes : 16;
    size_t by_threads = 1536 / (size_t)block_threads;

    *n = (int)(by_shared < by_threads ? by_shared : by_threads);
    return cudaSuccess;
}

#endif
