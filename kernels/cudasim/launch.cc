/* Kernel launches: what a device would refuse is refused here. */
#include "config.h"

#include <map>
#include <stddef.h>

#include "kernels/cudasim/sim.h"

#define MOST_THREADS 1024u

typedef std::map<const void *, int> limits;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* Dynamic shared memory by kernel. The lock is held. Never destroyed. */
static limits *get(void)
{
    static limits *l;

    if (!l)
        l = new limits();
    return l;
}

cudaError_t cudasim_set_attribute(const void *function,
                                  enum cudaFuncAttribute attr, int value)
{
    cudaError_t e = sim_enter("cudaFuncSetAttribute");

    if (e)
        return sim_leave(e);
    if (attr != cudaFuncAttributeMaxDynamicSharedMemorySize)
        return cudaSuccess;
    if (value < 0 || (unsigned)value > SIM_SHARED_MOST)
        return sim_refuse(cudaErrorInvalidValue,
                          "cudaFuncSetAttribute: %d bytes of shared memory, a "
                          "block has %u",
                          value, SIM_SHARED_MOST);
    struct sim_lock held(&lock);
    (*get())[function] = value;
    return cudaSuccess;
}

static size_t shared_limit(const void *function)
{
    struct sim_lock held(&lock);
    limits::iterator i = get()->find(function);

    return i == get()->end() || (unsigned)i->second < SIM_SHARED_DEFAULT
               ? SIM_SHARED_DEFAULT
               : (size_t)i->second;
}

struct launch_op : sim_op {
    std::unique_ptr<cudasim_kernel> kernel;
    dim3 grid, block;
    size_t shared_bytes;

    void run(struct sim_block *b) override
    {
        sim_block_run(b, kernel.get(), grid, block, shared_bytes);
    }
};

static cudaError_t check_shape(dim3 grid, dim3 block)
{
    if (!grid.x || !grid.y || !grid.z || !block.x || !block.y || !block.z ||
        grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535 ||
        block.x > MOST_THREADS || block.y > MOST_THREADS || block.z > 64 ||
        block.x * block.y * block.z > MOST_THREADS)
        return sim_refuse(cudaErrorInvalidConfiguration,
                          "cudaLaunchKernel: grid (%u,%u,%u) of blocks "
                          "(%u,%u,%u)",
                          grid.x, grid.y, grid.z, block.x, block.y, block.z);
    return cudaSuccess;
}

cudaError_t cudasim_launch(cudasim_kernel *kernel, dim3 grid, dim3 block,
                           size_t shared_bytes, cudaStream_t stream)
{
    std::unique_ptr<launch_op> op(new launch_op());
    cudaError_t e = sim_enter("cudaLaunchKernel");

    op->kernel.reset(kernel);
    if (e)
        return sim_leave(e);
    e = check_shape(grid, block);
    if (!e)
        e = sim_check_stream("cudaLaunchKernel", stream, sim_device());
    if (!e)
        e = sim_check_arguments(kernel);
    if (e)
        return e;
    if (shared_bytes > shared_limit(kernel->function))
        return sim_refuse(cudaErrorInvalidValue,
                          "cudaLaunchKernel: %zu bytes of shared memory, the "
                          "kernel may have %zu (cudaFuncSetAttribute)",
                          shared_bytes, shared_limit(kernel->function));
    op->grid = grid;
    op->block = block;
    op->shared_bytes = shared_bytes;
    return sim_enqueue("cudaLaunchKernel", stream, std::move(op));
}
