/* Threads of a block as fibers; see device.h for what they may wait for. */
#include "config.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <vector>

#include "kernels/cudasim/fiber.h"
#include "kernels/cudasim/sim.h"

#define MOST_THREADS 1024u
#define MOST_STATICS 64
#define SHARED_GAP   64u  /* between arrays: AddressSanitizer sees it */
#define SHARED_ALIGN 128u /* of the dynamic part */
#define SHARED_MAP   (1u << 20)

__thread struct cudasim_thread *cudasim_self;

/* The scheduler makes a thread READY; everything else it does itself. */
enum sim_state { SIM_NEW, SIM_READY, SIM_AT_BLOCK, SIM_AT_WARP, SIM_DONE };

struct sim_thread : cudasim_thread {
    struct sim_block *block;
    struct sim_fiber *fiber;
    enum sim_state state;
    unsigned index, lane;
    /* what it waits for */
    const char *what;
    cudasim_site site;
    unsigned mask;
    cudasim_complete *complete;
    void *record;
    std::vector<sim_async> async;
    unsigned async_group;
};

struct sim_warp {
    unsigned alive, waiting; /* lanes */
    unsigned meetings;       /* of all lanes: which of `order` is in use */
    char order[2];           /* what sim_release and sim_acquire name */
};

struct sim_static {
    const void *tag;
    char *at;
};

struct sim_block {
    struct sim_fiber *scheduler;
    std::vector<sim_fiber *> fibers, idle;
    std::vector<sim_thread> threads;
    std::vector<sim_warp> warps;
    std::vector<unsigned> ready; /* a stack */
    char *shared;                /* SHARED_MAP bytes */
    size_t shared_used, shared_asked, shared_dynamic;
    char *dynamic;
    struct sim_static statics[MOST_STATICS];
    unsigned n_statics;
    unsigned n, n_done, n_at_barrier, barriers;
    const cudasim_kernel *kernel;
    char order[2], start, end;
    bool failed;
    cudasim_site barrier;
};

static struct sim_thread *self(void)
{
    return static_cast<sim_thread *>(cudasim_self);
}

static char *thread_name(char *text, size_t len, const struct sim_thread *t)
{
    snprintf(text, len, "block (%u,%u,%u) thread (%u,%u,%u)", t->block_idx.x,
             t->block_idx.y, t->block_idx.z, t->thread_idx.x, t->thread_idx.y,
             t->thread_idx.z);
    return text;
}

static void fail_block(struct sim_block *b, const char *text)
{
    if (!b->failed)
        sim_set_fault(cudaErrorLaunchFailure, text);
    b->failed = true;
}

void cudasim_stop(const char *format, ...)
{
    struct sim_thread *t = self();
    char name[96], said[256], text[400];
    va_list args;

    va_start(args, format);
    vsnprintf(said, sizeof said, format, args);
    va_end(args);
    if (!t) {
        fprintf(stderr, "cudasim: device code on the host: %s\n", said);
        abort();
    }
    snprintf(text, sizeof text, "%s %s", thread_name(name, sizeof name, t),
             said);
    fail_block(t->block, text);
    sim_release(&t->block->end);
    for (;;)
        sim_fiber_switch(t->fiber, t->block->scheduler);
}

/* --- fibers -------------------------------------------------------------- */

static void complete_warp(struct sim_thread *t);

/* Most are the same string, not only an equal one. */
static bool differ(const char *a, const char *b)
{
    return a != b && strcmp(a, b) != 0;
}

static bool elsewhere(const struct sim_thread *a, const struct sim_thread *b)
{
    return a->site.line != b->site.line || differ(a->what, b->what) ||
           differ(a->site.file, b->site.file);
}

static void thread_main(void *arg)
{
    struct sim_thread *t = static_cast<sim_thread *>(arg);
    struct sim_block *b = t->block;
    struct sim_warp *w = &b->warps[t->index / 32];

    sim_acquire(&b->start);
    b->kernel->run();
    sim_release(&b->end);
    t->state = SIM_DONE;
    b->n_done++;
    w->alive &= ~(1u << t->lane);
    /* Others of the warp may have waited for this thread alone. */
    for (unsigned rest = w->waiting; rest; rest &= rest - 1)
        complete_warp(
            &b->threads[t->index / 32 * 32 + (unsigned)__builtin_ctz(rest)]);
}

static struct sim_fiber *idle_fiber(struct sim_block *b)
{
    struct sim_fiber *f;

    if (!b->idle.empty()) {
        f = b->idle.back();
        b->idle.pop_back();
        return f;
    }
    f = sim_fiber_create(thread_main);
    if (f)
        b->fibers.push_back(f);
    return f;
}

/* Runs thread i, and those that it makes way for, until one ends or nobody is
 * ready. */
static void step(struct sim_block *b, unsigned i)
{
    struct sim_thread *t = &b->threads[i];

    if (t->state == SIM_NEW) {
        t->fiber = idle_fiber(b);
        if (!t->fiber) {
            fail_block(b, "no memory for a thread's stack");
            return;
        }
        sim_fiber_start(t->fiber, t, b->scheduler);
    }
    t->state = SIM_READY;
    cudasim_self = t;
    sim_fiber_switch(b->scheduler, t->fiber);
    t = self(); /* who came back */
    cudasim_self = nullptr;
#ifndef CUDASIM_TSAN /* there, two threads of a block are never the same */
    if (t->state == SIM_DONE)
        b->idle.push_back(t->fiber);
#endif
}

/* Makes way for one that is ready, else for the scheduler. */
static void park(struct sim_thread *t, enum sim_state state)
{
    struct sim_block *b = t->block;
    struct sim_fiber *to = b->scheduler;

    t->state = state;
    sim_release(&b->end); /* in case it is never continued */
    if (!b->ready.empty()) {
        struct sim_thread *next = &b->threads[b->ready.back()];

        b->ready.pop_back();
        next->state = SIM_READY;
        cudasim_self = next;
        to = next->fiber;
    }
    sim_fiber_switch(t->fiber, to);
}

/* --- waiting for the block ----------------------------------------------- */

void cudasim_sync_threads(cudasim_site site)
{
    struct sim_thread *t = self();
    struct sim_block *b = t->block;
    const char *order = &b->order[b->barriers & 1];

    if (b->n_at_barrier == 0)
        b->barrier = site;
    if (b->barrier.line != site.line || differ(b->barrier.file, site.file))
        cudasim_stop("is at __syncthreads of %s:%d, others at that of %s:%d",
                     site.file, site.line, b->barrier.file, b->barrier.line);
    t->what = "__syncthreads";
    t->site = site;
    sim_release(order);
    if (++b->n_at_barrier < b->n) {
        park(t, SIM_AT_BLOCK);
    } else {
        b->n_at_barrier = 0;
        b->barriers++;
        for (unsigned i = b->n; i-- > 0;)
            if (&b->threads[i] != t)
                b->ready.push_back(i);
    }
    sim_acquire(order);
}

/* --- waiting for the warp ------------------------------------------------ */

/* The lanes of `need` are there, and t is one of them: ends their meeting and
 * makes the parked ones ready. */
static void end_meeting(struct sim_thread *t, struct sim_warp *w, unsigned need)
{
    struct sim_block *b = t->block;
    unsigned first = t->index - t->lane;
    void *records[32] = {};

    for (unsigned rest = need; rest; rest &= rest - 1) {
        unsigned lane = (unsigned)__builtin_ctz(rest);
        struct sim_thread *other = &b->threads[first + lane];

        if (other->mask != t->mask)
            return;
        if (elsewhere(t, other))
            cudasim_stop("is at %s of %s:%d, lane %u at %s of %s:%d", t->what,
                         t->site.file, t->site.line, lane, other->what,
                         other->site.file, other->site.line);
        records[lane] = other->record;
    }
    if (t->complete)
        t->complete(records);
    w->waiting &= ~need;
    if (need == 0xffffffffu)
        w->meetings++;
    for (unsigned lane = 32; lane-- > 0;) {
        struct sim_thread *other = &b->threads[first + lane];

        if (need >> lane & 1 && other->state == SIM_AT_WARP) {
            other->state = SIM_READY;
            b->ready.push_back(first + lane);
        }
    }
}

/* Ends the meeting of t if all lanes that it waits for are there. Every lane
 * asks, and for most the answer is no. */
static void complete_warp(struct sim_thread *t)
{
    struct sim_warp *w = &t->block->warps[t->index / 32];
    unsigned need = t->mask & w->alive;

    if (w->waiting >> t->lane & 1 && (w->waiting & need) == need)
        end_meeting(t, w, need);
}

void cudasim_meet(const char *what, unsigned mask, cudasim_complete *complete,
                  void *record, cudasim_site site)
{
    struct sim_thread *t = self();
    struct sim_warp *w = &t->block->warps[t->index / 32];

    t->what = what;
    t->site = site;
    t->mask = mask;
    t->complete = complete;
    t->record = record;
    if (!(mask >> t->lane & 1))
        cudasim_stop("is at %s of %s:%d, but not in its mask %08x", what,
                     site.file, site.line, mask);
    w->waiting |= 1u << t->lane;
    complete_warp(t);
    if (w->waiting >> t->lane & 1)
        park(t, SIM_AT_WARP);
}

/* __syncwarp alone orders what lanes do with memory. Meetings of some lanes
 * only may overlap with others: then more is ordered than needs to be. */
void cudasim_sync_warp(unsigned mask, cudasim_site site)
{
    struct sim_thread *t = self();
    struct sim_warp *w = &t->block->warps[t->index / 32];
    unsigned turn = w->meetings & 1;

    sim_release(&w->order[turn]);
    if (mask != 0xffffffffu)
        sim_release(&w->order[!turn]);
    cudasim_meet("__syncwarp", mask, nullptr, nullptr, site);
    sim_acquire(&w->order[turn]);
    if (mask != 0xffffffffu)
        sim_acquire(&w->order[!turn]);
}

unsigned cudasim_lane(void)
{
    return self()->lane;
}

void cudasim_shuffle(void *const records[32])
{
    for (unsigned lane = 0; lane < 32; lane++) {
        struct cudasim_exchange *x =
            static_cast<cudasim_exchange *>(records[lane]);

        if (!x)
            continue;
        if (x->source >= 32 || !records[x->source])
            cudasim_stop("at a shuffle of lanes that take no part: lane %u "
                         "reads lane %u",
                         lane, x->source);
        x->result = static_cast<cudasim_exchange *>(records[x->source])->value;
    }
}

void cudasim_ballot(void *const records[32])
{
    uint64_t votes = 0;

    for (unsigned lane = 0; lane < 32; lane++)
        if (records[lane])
            votes |= static_cast<cudasim_exchange *>(records[lane])->value
                     << lane;
    for (unsigned lane = 0; lane < 32; lane++)
        if (records[lane])
            static_cast<cudasim_exchange *>(records[lane])->result = votes;
}

/* --- shared memory ------------------------------------------------------- */

/* n bytes that look like NaNs, and a gap that AddressSanitizer watches. */
static char *take_shared(struct sim_block *b, size_t bytes, size_t align)
{
    size_t at = (b->shared_used + SHARED_GAP + align - 1) / align * align;

    b->shared_asked += bytes;
    if (b->shared_asked > SIM_SHARED_MOST)
        cudasim_stop("wants %zu bytes of shared memory, a block has %u",
                     b->shared_asked, SIM_SHARED_MOST);
    b->shared_used = at + bytes;
    struct sim_hidden hidden;
    ASAN_UNPOISON_MEMORY_REGION(b->shared + at, bytes);
    memset(b->shared + at, 0xff, bytes);
    return b->shared + at;
}

void *cudasim_shared(const void *tag, size_t bytes, size_t align)
{
    struct sim_block *b = self()->block;

    for (unsigned i = 0; i < b->n_statics; i++)
        if (b->statics[i].tag == tag)
            return b->statics[i].at;
    if (b->n_statics == MOST_STATICS)
        cudasim_stop("has more than %d arrays of shared memory", MOST_STATICS);
    b->statics[b->n_statics].tag = tag;
    b->statics[b->n_statics].at = take_shared(b, bytes, align);
    return b->statics[b->n_statics++].at;
}

void *cudasim_shared_dynamic(void)
{
    return self()->block->dynamic;
}

bool sim_is_shared(const void *p, size_t bytes)
{
    const struct sim_block *b = self()->block;
    const char *at = static_cast<const char *>(p);

    return at >= b->shared && at + bytes <= b->shared + b->shared_used;
}

std::vector<sim_async> *sim_async_copies(unsigned **group)
{
    *group = &self()->async_group;
    return &self()->async;
}

/* --- running ------------------------------------------------------------- */

/* Nobody can go on: says who waits for what. */
static void stuck(struct sim_block *b)
{
    char name[96], text[400];
    const struct sim_thread *t = nullptr;
    unsigned at_warp = 0;

    for (unsigned i = 0; i < b->n; i++) {
        const struct sim_thread *other = &b->threads[i];

        at_warp += other->state == SIM_AT_WARP;
        if (other->state != SIM_DONE && !t)
            t = other;
    }
    if (!t)
        return;
    snprintf(text, sizeof text,
             "%s waits at %s of %s:%d for ever: of %u threads %u are at the "
             "block's barrier, %u wait within their warps, %u have ended",
             thread_name(name, sizeof name, t), t->what, t->site.file,
             t->site.line, b->n, b->n_at_barrier, at_warp, b->n_done);
    fail_block(b, text);
}

static void prepare(struct sim_block *b, dim3 grid, dim3 dim, uint3 at)
{
    b->n_done = b->n_at_barrier = b->n_statics = 0;
    b->shared_used = b->shared_asked = 0;
    b->ready.clear();
    ASAN_POISON_MEMORY_REGION(b->shared, SHARED_MAP);
    b->dynamic = b->shared_dynamic
                     ? take_shared(b, b->shared_dynamic, SHARED_ALIGN)
                     : nullptr;
    for (unsigned i = 0; i < b->n; i++) {
        struct sim_thread *t = &b->threads[i];

        t->thread_idx = {i % dim.x, i / dim.x % dim.y, i / dim.x / dim.y};
        t->block_idx = at;
        t->block_dim = dim;
        t->grid_dim = grid;
        t->block = b;
        t->state = SIM_NEW;
        t->index = i;
        t->lane = i % 32;
        t->async.clear();
        t->async_group = 0;
    }
    for (unsigned i = 0; i < (b->n + 31) / 32; i++) {
        unsigned lanes = b->n - 32 * i;

        b->warps[i].alive = lanes < 32 ? (1u << lanes) - 1 : 0xffffffffu;
        b->warps[i].waiting = 0;
    }
}

/* Prefers threads that have begun: few stacks are in use at a time. */
static void run_one(struct sim_block *b, bool reverse)
{
    unsigned next = 0;

    sim_release(&b->start);
    while (b->n_done < b->n && !b->failed) {
        if (!b->ready.empty()) {
            unsigned i = b->ready.back();

            b->ready.pop_back();
            step(b, i);
        } else if (next < b->n) {
            step(b, reverse ? b->n - 1 - next : next);
            next++;
        } else {
            stuck(b);
        }
    }
    sim_acquire(&b->end);
}

/* After a fault fibers are wherever they were. */
static void abandon(struct sim_block *b)
{
    b->idle.clear();
    for (sim_fiber *f : b->fibers) {
        sim_fiber_abandon(f);
        b->idle.push_back(f);
    }
    b->failed = false;
}

void sim_block_run(struct sim_block *b, const cudasim_kernel *kernel, dim3 grid,
                   dim3 dim, size_t shared_bytes)
{
    uint64_t n_blocks = (uint64_t)grid.x * grid.y * grid.z;
    bool reverse = sim_config().reverse != 0;

    b->n = dim.x * dim.y * dim.z;
    b->threads.resize(b->n);
    b->ready.reserve(b->n); /* fibers must not move it: see fiber.h */
    b->warps.assign((b->n + 31) / 32, sim_warp());
    b->kernel = kernel;
    b->shared_dynamic = shared_bytes;
    for (uint64_t i = 0; i < n_blocks && !b->failed; i++) {
        uint64_t k = reverse ? n_blocks - 1 - i : i;
        uint3 at = {(unsigned)(k % grid.x), (unsigned)(k / grid.x % grid.y),
                    (unsigned)(k / grid.x / grid.y)};

        prepare(b, grid, dim, at);
        run_one(b, reverse);
#ifdef CUDASIM_TSAN
        b->idle.assign(b->fibers.rbegin(), b->fibers.rend());
#endif
    }
    if (b->failed)
        abandon(b);
}

struct sim_block *sim_block_create(void)
{
    struct sim_block *b = new sim_block();
    void *map = mmap(nullptr, SHARED_MAP, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    b->shared = map == MAP_FAILED ? nullptr : static_cast<char *>(map);
    b->scheduler = sim_fiber_of_thread();
    if (!b->shared || !b->scheduler) {
        sim_block_destroy(b);
        return nullptr;
    }
    return b;
}

void sim_block_destroy(struct sim_block *b)
{
    if (!b)
        return;
    for (sim_fiber *f : b->fibers)
        sim_fiber_destroy(f);
    sim_fiber_destroy(b->scheduler);
    if (b->shared) {
        ASAN_UNPOISON_MEMORY_REGION(b->shared, SHARED_MAP);
        munmap(b->shared, SHARED_MAP);
    }
    delete b;
}
