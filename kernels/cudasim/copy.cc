/* Copies and fills. */
#include "config.h"

#include <string.h>
#include <vector>

#include "kernels/cudasim/sim.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t n_pageable;

uint64_t cudasim_pageable_copies(void)
{
    struct sim_lock held(&lock);

    return n_pageable;
}

void sim_forget_copies(void)
{
    struct sim_lock held(&lock);

    n_pageable = 0;
}

struct copy_op : sim_op {
    void *dst;
    const void *src;
    size_t bytes;
    std::vector<char> staged; /* what the source held, if that is not pinned */

    void run(struct sim_block *block) override
    {
        memcpy(dst, src, bytes);
    }
};

struct set_op : sim_op {
    void *dst;
    int value;
    size_t bytes;

    void run(struct sim_block *block) override
    {
        memset(dst, value, bytes);
    }
};

/* Whether both ends are what kind says. *pageable: the host's end is not
 * pinned throughout. */
static cudaError_t check_copy(const char *call, const void *dst,
                              const void *src, size_t bytes,
                              enum cudaMemcpyKind *kind, bool *pageable)
{
    size_t dst_room, src_room;
    enum sim_place d = sim_place_of(dst, &dst_room);
    enum sim_place s = sim_place_of(src, &src_room);
    cudaError_t e;

    if (*kind == cudaMemcpyDefault)
        *kind = d == SIM_DEVICE ? (s == SIM_DEVICE ? cudaMemcpyDeviceToDevice
                                                   : cudaMemcpyHostToDevice)
                                : (s == SIM_DEVICE ? cudaMemcpyDeviceToHost
                                                   : cudaMemcpyHostToHost);
    if ((unsigned)*kind > cudaMemcpyDeviceToDevice)
        return sim_leave(cudaErrorInvalidMemcpyDirection);
    e = sim_check_range(call, dst, bytes, *kind & 1);
    if (!e)
        e = sim_check_range(call, src, bytes, *kind & 2);
    *pageable = (!(*kind & 1) && (d != SIM_PINNED || bytes > dst_room)) ||
                (!(*kind & 2) && (s != SIM_PINNED || bytes > src_room));
    return e;
}

/* Copies to and from memory that is not pinned do what CUDA does: those up go
 * through a buffer that is filled at once, and are waited for by nobody; those
 * down are waited for. (CUDA Runtime API, "API synchronization behavior".) */
static cudaError_t copy(const char *call, void *dst, const void *src,
                        size_t bytes, enum cudaMemcpyKind kind,
                        cudaStream_t stream, bool wait)
{
    std::unique_ptr<copy_op> op(new copy_op());
    bool pageable = false;
    cudaError_t e = check_copy(call, dst, src, bytes, &kind, &pageable);

    if (e || bytes == 0)
        return e;
    op->dst = dst;
    op->src = src;
    op->bytes = bytes;
    if (pageable && !wait) {
        struct sim_lock held(&lock);

        n_pageable++;
    }
    if (pageable && kind == cudaMemcpyHostToDevice) {
        if (wait)
            sim_wait_idle(sim_find_stream(stream));
        wait = false;
        op->staged.resize(bytes);
        memcpy(op->staged.data(), src, bytes);
        op->src = op->staged.data();
    }
    e = sim_enqueue(call, stream, std::move(op));
    if (e || !(wait || (pageable && kind != cudaMemcpyHostToDevice)))
        return e;
    sim_wait_idle(sim_find_stream(stream));
    return sim_leave(sim_fault_error());
}

cudaError_t cudaMemcpy(void *dst, const void *src, size_t bytes,
                       enum cudaMemcpyKind kind)
{
    cudaError_t e = sim_enter("cudaMemcpy");

    if (e)
        return sim_leave(e);
    return copy("cudaMemcpy", dst, src, bytes, kind, nullptr, true);
}

cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t bytes,
                            enum cudaMemcpyKind kind, cudaStream_t stream)
{
    cudaError_t e = sim_enter("cudaMemcpyAsync");

    if (e)
        return sim_leave(e);
    return copy("cudaMemcpyAsync", dst, src, bytes, kind, stream, false);
}

static cudaError_t set(const char *call, void *p, int value, size_t bytes,
                       cudaStream_t stream)
{
    std::unique_ptr<set_op> op(new set_op());
    cudaError_t e = sim_enter(call);

    if (e)
        return sim_leave(e);
    e = sim_check_range(call, p, bytes, true);
    if (e)
        return e;
    op->dst = p;
    op->value = value;
    op->bytes = bytes;
    return sim_enqueue(call, stream, std::move(op));
}

cudaError_t cudaMemsetAsync(void *p, int value, size_t bytes,
                            cudaStream_t stream)
{
    return set("cudaMemsetAsync", p, value, bytes, stream);
}

cudaError_t cudaMemset(void *p, int value, size_t bytes)
{
    return set("cudaMemset", p, value, bytes, nullptr);
}
