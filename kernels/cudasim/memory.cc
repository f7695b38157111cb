/* Device memory and registered host memory. */
#include "config.h"

#include <errno.h>
#include <map>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kernels/cudasim/sim.h"

#define ALIGN        256u          /* what cudaMalloc promises */
#define FILL_MOST    (64ull << 20) /* of an allocation is made NaNs */
#define QUARANTINE   64            /* freed allocations kept out of reach */
#define MOST_DEVICES 16

struct allocation {
    char *map;
    size_t map_bytes, bytes;
    int device;
};

struct pinned {
    size_t bytes;
    bool ours; /* from cudaMallocHost */
};

struct freed {
    char *map;
    size_t map_bytes;
};

typedef std::map<uintptr_t, allocation> allocations;
typedef std::map<uintptr_t, pinned> pins;

struct memory {
    allocations device;
    pins host;
    size_t used[MOST_DEVICES], pinned_bytes;
    bool context[MOST_DEVICES];
    struct freed freed[QUARANTINE];
    size_t n_freed;
    int key; /* protection key; -1: the CPU has none */
    bool ready;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* The lock is held. Never destroyed: streams may outlive main. */
static struct memory *get(void)
{
    static struct memory *m;

    if (!m)
        m = new memory();
    if (!m->ready) {
        m->key = pkey_alloc(0, PKEY_DISABLE_ACCESS);
        m->ready = true;
    }
    return m;
}

int cudasim_guards_memory(void)
{
    struct sim_lock held(&lock);

    return get()->key >= 0;
}

void sim_open_memory(bool open)
{
    struct sim_lock held(&lock);
    int key = get()->key;

    if (key >= 0)
        pkey_set(key, open ? 0 : PKEY_DISABLE_ACCESS);
}

/* The entry of map that at lies in, or its end. */
template <class M> static typename M::iterator entry_of(M &map, uintptr_t at)
{
    typename M::iterator i = map.upper_bound(at);

    if (i == map.begin())
        return map.end();
    --i;
    return at - i->first < i->second.bytes ? i : map.end();
}

enum sim_place sim_place_of(const void *p, size_t *room)
{
    struct sim_lock held(&lock);
    uintptr_t at = reinterpret_cast<uintptr_t>(p);
    struct memory *m = get();
    allocations::iterator d = entry_of(m->device, at);

    if (d != m->device.end()) {
        *room = d->second.bytes - (at - d->first);
        return SIM_DEVICE;
    }
    pins::iterator h = entry_of(m->host, at);
    if (h != m->host.end()) {
        *room = h->second.bytes - (at - h->first);
        return SIM_PINNED;
    }
    *room = (size_t)-1;
    return SIM_HOST;
}

/* Whether p is memory of another device than the calling thread's. */
static bool is_elsewhere(const void *p)
{
    struct sim_lock held(&lock);
    struct memory *m = get();
    allocations::iterator d =
        entry_of(m->device, reinterpret_cast<uintptr_t>(p));

    return d != m->device.end() && d->second.device != sim_device();
}

size_t sim_live_memory(void)
{
    struct sim_lock held(&lock);

    return get()->device.size() + get()->host.size();
}

cudaError_t sim_check_range(const char *what, const void *p, size_t bytes,
                            bool device)
{
    size_t room;
    enum sim_place place = sim_place_of(p, &room);

    if ((place == SIM_DEVICE) != device)
        return sim_refuse(cudaErrorInvalidValue, "%s: %p is %s memory", what, p,
                          device ? "not device" : "device");
    if (device && bytes > room)
        return sim_refuse(cudaErrorInvalidValue,
                          "%s: %zu bytes at %p, where the allocation has %zu "
                          "more",
                          what, bytes, p, room);
    return cudaSuccess;
}

/* Whether p is host memory that is not pinned: an address that is mapped is
 * hardly anything else. Never with sanitizers, whose shadows cover much of what
 * numbers may look like. */
static bool is_pageable(const void *p)
{
#if !defined(CUDASIM_ASAN) && !defined(CUDASIM_TSAN)
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t at = reinterpret_cast<uintptr_t>(p);
    unsigned char there;
    size_t room;

    return at >= page && !(at >> 47) && sim_place_of(p, &room) == SIM_HOST &&
           mincore(reinterpret_cast<void *>(at / page * page), 1, &there) == 0;
#else
    (void)p;
    return false;
#endif
}

cudaError_t sim_check_arguments(const cudasim_kernel *kernel)
{
    for (size_t i = 0; i < kernel->n_pointers; i++) {
        const void *p = kernel->pointers[i];

        if (is_elsewhere(p))
            return sim_refuse(cudaErrorInvalidValue,
                              "cudaLaunchKernel: %p among the arguments is "
                              "memory of another device than %d",
                              p, sim_device());
        if (is_pageable(p))
            return sim_refuse(cudaErrorInvalidValue,
                              "cudaLaunchKernel: %p among the arguments is "
                              "host memory that is not pinned",
                              p);
    }
    return cudaSuccess;
}

/* --- device memory ------------------------------------------------------- */

static size_t round_up(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

/* The allocation ends where a page begins that nobody may touch. */
static char *map_device(struct allocation *a, int key)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t room = round_up(a->bytes, ALIGN), inner = round_up(room, page);
    char *at;
    void *map;

    a->map_bytes = inner + 2 * page;
    map = mmap(nullptr, a->map_bytes, PROT_NONE,
               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED)
        return nullptr;
    a->map = static_cast<char *>(map);
    if (pkey_mprotect(a->map + page, inner, PROT_READ | PROT_WRITE, key) != 0) {
        munmap(a->map, a->map_bytes);
        return nullptr;
    }
    at = a->map + page + inner - room;
    if (key >= 0)
        pkey_set(key, 0);
    memset(at, 0xff, room < FILL_MOST ? room : FILL_MOST);
    if (key >= 0)
        pkey_set(key, PKEY_DISABLE_ACCESS);
    ASAN_POISON_MEMORY_REGION(a->map, (size_t)(at - a->map));
    ASAN_POISON_MEMORY_REGION(at + a->bytes,
                              (size_t)(a->map + a->map_bytes - at) - a->bytes);
    return at;
}

cudaError_t cudaMalloc(void **p, size_t bytes)
{
    cudaError_t e = sim_enter("cudaMalloc");
    struct cudasim_config c = sim_config();
    struct allocation a = {};
    char *at;

    if (e)
        return sim_leave(e);
    a.bytes = bytes;
    a.device = sim_device();
    if (!p || a.device >= MOST_DEVICES)
        return sim_leave(cudaErrorInvalidValue);
    sim_make_context();
    if (bytes == 0) {
        *p = nullptr;
        return cudaSuccess;
    }
    {
        struct sim_lock held(&lock);
        struct memory *m = get();
        size_t taken = m->used[a.device] + c.context_bytes + c.others_bytes;

        if (taken > c.memory_bytes || bytes > c.memory_bytes - taken ||
            round_up(bytes, ALIGN) > c.memory_bytes - taken)
            e = cudaErrorMemoryAllocation;
        at = e ? nullptr : map_device(&a, m->key);
        if (at) {
            m->device[reinterpret_cast<uintptr_t>(at)] = a;
            m->used[a.device] += round_up(bytes, ALIGN);
        }
    }
    if (!at)
        return sim_refuse(cudaErrorMemoryAllocation,
                          "cudaMalloc: %zu bytes do not fit", bytes);
    *p = at;
    return cudaSuccess;
}

/* Keeps the addresses out of reach for a while: a later use is a fault. */
static void quarantine(struct memory *m, const struct allocation *a)
{
    struct freed *slot = &m->freed[m->n_freed++ % QUARANTINE];

    if (slot->map) {
        ASAN_UNPOISON_MEMORY_REGION(slot->map, slot->map_bytes);
        munmap(slot->map, slot->map_bytes);
    }
    mmap(a->map, a->map_bytes, PROT_NONE,
         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    ASAN_POISON_MEMORY_REGION(a->map, a->map_bytes);
    *slot = {a->map, a->map_bytes};
}

cudaError_t cudaFree(void *p)
{
    cudaError_t e = sim_enter("cudaFree");
    bool found;

    if (!e)
        sim_make_context();
    if (!p)
        return sim_leave(e);
    sim_drain(); /* cudaFree waits for the device */
    {
        struct sim_lock held(&lock);
        struct memory *m = get();
        allocations::iterator d =
            m->device.find(reinterpret_cast<uintptr_t>(p));

        found = d != m->device.end();
        if (found) {
            m->used[d->second.device] -= round_up(d->second.bytes, ALIGN);
            quarantine(m, &d->second);
            m->device.erase(d);
        }
    }
    if (e)
        return sim_leave(e);
    if (!found)
        return sim_refuse(cudaErrorInvalidValue,
                          "cudaFree: %p is not what cudaMalloc gave", p);
    return cudaSuccess;
}

void sim_make_context(void)
{
    struct sim_lock held(&lock);

    if (sim_device() < MOST_DEVICES)
        get()->context[sim_device()] = true;
}

void sim_drop_context(void)
{
    struct sim_lock held(&lock);

    if (sim_device() < MOST_DEVICES)
        get()->context[sim_device()] = false;
}

bool sim_has_memory(int device)
{
    struct sim_lock held(&lock);

    return get()->used[device] > 0;
}

size_t sim_free_memory(int device)
{
    struct cudasim_config c = sim_config();
    struct sim_lock held(&lock);
    struct memory *m = get();
    size_t used = m->used[device] + c.others_bytes;

    if (m->context[device])
        used += c.context_bytes;
    return used < c.memory_bytes ? c.memory_bytes - used : 0;
}

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total_bytes)
{
    cudaError_t e = sim_enter("cudaMemGetInfo");
    struct cudasim_config c = sim_config();

    if (e)
        return sim_leave(e);
    sim_make_context();
    *total_bytes = c.memory_bytes;
    *free_bytes = sim_free_memory(sim_device());
    return cudaSuccess;
}

/* --- host memory --------------------------------------------------------- */

/* The lock is held. */
static cudaError_t pin(struct memory *m, void *p, size_t bytes, bool ours)
{
    uintptr_t at = reinterpret_cast<uintptr_t>(p);
    pins::iterator next = m->host.lower_bound(at);
    size_t most = sim_config().pin_bytes;

    if ((next != m->host.end() && next->first - at < bytes) ||
        entry_of(m->host, at) != m->host.end())
        return cudaErrorHostMemoryAlreadyRegistered;
    if (m->pinned_bytes > most || bytes > most - m->pinned_bytes)
        return cudaErrorMemoryAllocation;
    m->host[at] = {bytes, ours};
    m->pinned_bytes += bytes;
    return cudaSuccess;
}

cudaError_t cudaHostRegister(void *p, size_t bytes, unsigned int flags)
{
    cudaError_t e = sim_enter("cudaHostRegister");
    size_t room;

    if (e)
        return sim_leave(e);
    if (!p || !bytes || sim_place_of(p, &room) == SIM_DEVICE)
        return sim_leave(cudaErrorInvalidValue);
    {
        struct sim_lock held(&lock);

        e = pin(get(), p, bytes, false);
    }
    if (e)
        return sim_refuse(e, "cudaHostRegister: %zu bytes at %p: %s", bytes, p,
                          cudaGetErrorString(e));
    return cudaSuccess;
}

/* Takes p from the table; false if it is not in it. */
static bool unpin(void *p, bool ours)
{
    struct sim_lock held(&lock);
    struct memory *m = get();
    pins::iterator h = m->host.find(reinterpret_cast<uintptr_t>(p));

    if (h == m->host.end() || h->second.ours != ours)
        return false;
    m->pinned_bytes -= h->second.bytes;
    m->host.erase(h);
    return true;
}

cudaError_t cudaHostUnregister(void *p)
{
    cudaError_t e = sim_enter("cudaHostUnregister");

    sim_drain();
    if (!unpin(p, false) && !e)
        return sim_refuse(cudaErrorHostMemoryNotRegistered,
                          "cudaHostUnregister: %p is not registered", p);
    return sim_leave(e);
}

cudaError_t cudaHostAlloc(void **p, size_t bytes, unsigned int flags)
{
    cudaError_t e = sim_enter("cudaHostAlloc");
    void *at = nullptr;

    if (e)
        return sim_leave(e);
    if (posix_memalign(&at, 4096, bytes) != 0)
        return sim_leave(cudaErrorMemoryAllocation);
    {
        struct sim_lock held(&lock);

        e = pin(get(), at, bytes, true);
    }
    if (e) {
        free(at);
        return sim_refuse(e, "cudaHostAlloc: %zu bytes", bytes);
    }
    *p = at;
    return cudaSuccess;
}

cudaError_t cudaMallocHost(void **p, size_t bytes)
{
    return cudaHostAlloc(p, bytes, cudaHostAllocDefault);
}

cudaError_t cudaFreeHost(void *p)
{
    cudaError_t e = sim_enter("cudaFreeHost");

    if (!p)
        return sim_leave(e);
    sim_drain();
    if (unpin(p, true))
        free(p);
    else if (!e)
        return sim_refuse(cudaErrorInvalidValue,
                          "cudaFreeHost: %p is not what cudaHostAlloc gave", p);
    return sim_leave(e);
}

cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *a,
                                     const void *p)
{
    cudaError_t e = sim_enter("cudaPointerGetAttributes");
    size_t room;

    if (e)
        return sim_leave(e);
    memset(a, 0, sizeof *a);
    switch (sim_place_of(p, &room)) {
    case SIM_DEVICE:
        a->type = cudaMemoryTypeDevice;
        a->devicePointer = const_cast<void *>(p);
        break;
    case SIM_PINNED:
        a->type = cudaMemoryTypeHost;
        a->hostPointer = a->devicePointer = const_cast<void *>(p);
        break;
    case SIM_HOST:
        a->type = cudaMemoryTypeUnregistered;
        a->hostPointer = const_cast<void *>(p);
    }
    return cudaSuccess;
}
