#include "config.h"

#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kernels/cudasim/fiber.h"
#include "kernels/cudasim/sim.h"

#if !defined(__x86_64__) || defined(CUDASIM_UCONTEXT)
#define USE_UCONTEXT 1
#include <ucontext.h>
#endif

#if defined(CUDASIM_ASAN) || defined(CUDASIM_TSAN)
#define STACK_BYTES (256u << 10)
#else
#define STACK_BYTES (64u << 10)
#endif

struct sim_fiber {
    char *map; /* a page that cannot be touched, then the stack */
    size_t map_bytes;
    sim_fiber_fn *fn;
    void *arg;
    struct sim_fiber *after;
#ifdef USE_UCONTEXT
    ucontext_t context;
#else
    void *sp;
#endif
    const void *bottom; /* of the stack, for AddressSanitizer */
    size_t bytes;
    void *fake_stack;
    void *tsan;
    struct sim_fiber *came_from;
};

/* The fiber that is being switched to, for its first instructions. */
static __thread struct sim_fiber *entering;

#ifndef USE_UCONTEXT
/* Keeps what the System V ABI wants kept across a call, on the stack.
 * rdi: where to put this stack pointer; rsi: the one to go on with. */
extern "C" void sim_fiber_swap(void **save, void *load);
__asm__(".text\n"
        ".p2align 4\n"
        ".globl sim_fiber_swap\n"
        ".hidden sim_fiber_swap\n"
        ".type sim_fiber_swap, @function\n"
        "sim_fiber_swap:\n"
        "    pushq %rbp\n"
        "    pushq %rbx\n"
        "    pushq %r12\n"
        "    pushq %r13\n"
        "    pushq %r14\n"
        "    pushq %r15\n"
        "    movq %rsp, (%rdi)\n"
        "    movq %rsi, %rsp\n"
        "    popq %r15\n"
        "    popq %r14\n"
        "    popq %r13\n"
        "    popq %r12\n"
        "    popq %rbx\n"
        "    popq %rbp\n"
        "    ret\n"
        ".size sim_fiber_swap, . - sim_fiber_swap\n");
#endif

/* The first thing after a switch, on the new stack. */
static void arrived(struct sim_fiber *self)
{
#ifdef CUDASIM_ASAN
    const void *bottom;
    size_t bytes;

    __sanitizer_finish_switch_fiber(self->fake_stack, &bottom, &bytes);
    if (!self->came_from->map) { /* a thread's own: learnt here */
        self->came_from->bottom = bottom;
        self->came_from->bytes = bytes;
    }
#else
    (void)self;
#endif
}

void sim_fiber_switch(struct sim_fiber *from, struct sim_fiber *to)
{
    to->came_from = from;
    entering = to;
#ifdef CUDASIM_ASAN
    __sanitizer_start_switch_fiber(&from->fake_stack, to->bottom, to->bytes);
#endif
#ifdef CUDASIM_TSAN
    __tsan_switch_to_fiber(to->tsan, 1); /* 1: orders nothing */
#endif
#ifdef USE_UCONTEXT
    swapcontext(&from->context, &to->context);
#else
    sim_fiber_swap(&from->sp, to->sp);
#endif
    arrived(from);
}

static void fiber_main(void)
{
    struct sim_fiber *self = entering;

    arrived(self);
    for (;;) {
        self->fn(self->arg);
        sim_fiber_switch(self, self->after);
    }
}

/* Makes the next switch begin at fiber_main. */
static void rewind_stack(struct sim_fiber *f)
{
    f->fake_stack = nullptr;
#ifdef USE_UCONTEXT
    getcontext(&f->context);
    f->context.uc_stack.ss_sp = const_cast<void *>(f->bottom);
    f->context.uc_stack.ss_size = f->bytes;
    f->context.uc_link = nullptr;
    makecontext(&f->context, fiber_main, 0);
#else
    /* At fiber_main the stack must look as after a call: 16n + 8. Stacks that
     * all ended at the end of a page would contend for the same few lines of
     * the first cache: each begins at another one. */
    size_t line = reinterpret_cast<uintptr_t>(f->map) / 4096 % 64;
    void **top =
        reinterpret_cast<void **>(f->map + f->map_bytes - 64 * line) - 3;

    *top = nullptr; /* where it would return to */
    *--top = reinterpret_cast<void *>(fiber_main);
    for (int i = 0; i < 6; i++)
        *--top = nullptr;
    f->sp = top;
#endif
}

struct sim_fiber *sim_fiber_of_thread(void)
{
    struct sim_fiber *f = static_cast<sim_fiber *>(calloc(1, sizeof *f));

#ifdef CUDASIM_TSAN
    if (f)
        f->tsan = __tsan_get_current_fiber();
#endif
    return f;
}

struct sim_fiber *sim_fiber_create(sim_fiber_fn *fn)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    struct sim_fiber *f = static_cast<sim_fiber *>(calloc(1, sizeof *f));
    void *map;

    if (!f)
        return nullptr;
    f->map_bytes = STACK_BYTES + page;
    map = mmap(nullptr, f->map_bytes, PROT_READ | PROT_WRITE,
               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED || mprotect(map, page, PROT_NONE) != 0) {
        free(f);
        return nullptr;
    }
    f->map = static_cast<char *>(map);
    f->fn = fn;
    f->bottom = f->map + page;
    f->bytes = STACK_BYTES;
#ifdef CUDASIM_TSAN
    f->tsan = __tsan_create_fiber(0);
#endif
    rewind_stack(f);
    return f;
}

void sim_fiber_destroy(struct sim_fiber *f)
{
    if (!f)
        return;
    if (f->map) {
#ifdef CUDASIM_TSAN
        __tsan_destroy_fiber(f->tsan);
#endif
        ASAN_UNPOISON_MEMORY_REGION(f->bottom, f->bytes);
        munmap(f->map, f->map_bytes);
    }
    free(f);
}

void sim_fiber_start(struct sim_fiber *fiber, void *arg,
                     struct sim_fiber *after)
{
    fiber->arg = arg;
    fiber->after = after;
}

void sim_fiber_abandon(struct sim_fiber *f)
{
#ifdef CUDASIM_TSAN /* which has a stack of its own for each */
    __tsan_destroy_fiber(f->tsan);
    f->tsan = __tsan_create_fiber(0);
#endif
    ASAN_UNPOISON_MEMORY_REGION(f->bottom, f->bytes);
    rewind_stack(f);
}
