/*
 * Which reads a stream asks for, and when: of a disk that counts them and
 * gives all that it was asked for at once.
 */
#include "config.h"

#include <semaphore.h>
#include <string.h>

#include "offload/stream.h"
#include "tests/support.h"

#define SLAB_BYTES ((uint64_t)1 << 20)
#define SLABS      80u

struct disk {
    struct sl_io io;
    sem_t wake;
    struct sl_io_done asked[SL_IO_DEPTH];
    unsigned in_flight;
    unsigned at_first;     /* in flight when they were first waited for */
    unsigned when_told;    /* and when somebody was first told of a slab */
    uint32_t largest_read; /* bytes */
    bool waited, told;
    /* The file ends before the third read; some are on their way when that is
     * seen. */
    bool cut, told_of_others;
};

static struct disk disk; /* one at a time: a clock knows nothing of it */

static int disk_submit(struct sl_io *io, const struct sl_io_read *r,
                       struct sl_error *err)
{
    (void)io;
    (void)err;
    assert_true(disk.in_flight < SL_IO_DEPTH);
    disk.asked[disk.in_flight++] =
        (struct sl_io_done){.tag = r->tag, .result = (int)r->bytes};
    if (r->bytes > disk.largest_read)
        disk.largest_read = r->bytes;
    return 0;
}

static int disk_wait(struct sl_io *io, struct sl_io_done *done, unsigned max,
                     struct sl_error *err)
{
    unsigned n = disk.in_flight;

    (void)io;
    (void)err;
    if (disk.waited)
        disk.told_of_others |= disk.told;
    if (!disk.waited && disk.cut) {
        disk.asked[2].result = 0;
        disk.asked[2].tries = 1;
        n = 3;
    }
    if (!disk.waited)
        disk.at_first = n;
    disk.waited = true;
    while (n == 0 && sem_wait(&disk.wake) != 0)
        ;
    assert_true(n <= max);
    memcpy(done, disk.asked, n * sizeof *done);
    disk.in_flight -= n;
    memmove(disk.asked, disk.asked + n, disk.in_flight * sizeof *done);
    return (int)n;
}

static void disk_wake(struct sl_io *io)
{
    (void)io;
    sem_post(&disk.wake);
}

static void disk_close(struct sl_io *io)
{
    (void)io;
    sem_destroy(&disk.wake);
}

static int disk_open(struct sl_io **io, const struct sl_io_config *config,
                     struct sl_error *err)
{
    static const struct sl_io_ops ops = {"counted", disk_submit, disk_wait,
                                         disk_wake, disk_close};

    (void)err;
    disk = (struct disk){.io = {.ops = &ops, .direct = true},
                         .cut = config->arg != NULL};
    sem_init(&disk.wake, 0, 0);
    *io = &disk.io;
    return 0;
}

/* --- the real clock, seen through --------------------------------------- */

static uint64_t clock_now(struct sl_clock *clock)
{
    (void)clock;
    return sl_clock_ns();
}

static void clock_wait(struct sl_clock *clock, pthread_cond_t *cond,
                       pthread_mutex_t *mutex)
{
    (void)clock;
    pthread_cond_wait(cond, mutex);
}

/* In the reader thread, as nobody pokes here. */
static void clock_broadcast(struct sl_clock *clock, pthread_cond_t *cond)
{
    (void)clock;
    if (!disk.told)
        disk.when_told = disk.in_flight;
    disk.told = true;
    pthread_cond_broadcast(cond);
}

static int clock_create(struct sl_clock *clock, pthread_t *thread,
                        const pthread_attr_t *attr, void *(*run)(void *),
                        void *arg)
{
    (void)clock;
    return pthread_create(thread, attr, run, arg);
}

static void clock_join(struct sl_clock *clock, pthread_t thread)
{
    (void)clock;
    pthread_join(thread, NULL);
}

/* Has the first slab of a stream through a ring of so many slots, and leaves
 * in `disk` what was seen until then, at least. */
static void stream_one(uint32_t slots, bool cut)
{
    static const struct sl_clock_ops ops = {.now = clock_now,
                                            .wait = clock_wait,
                                            .broadcast = clock_broadcast,
                                            .create = clock_create,
                                            .join = clock_join};
    struct sl_clock clock = {&ops};
    struct sl_slab slabs[SLABS] = {0};
    enum sl_tier tier[SLABS] = {SL_TIER_DISK};
    uint8_t worker[SLABS] = {0}; /* the host */
    struct sl_plan plan = {
        .tier = tier,
        .worker = {worker},
        .n_slabs = SLABS,
        .at[SL_HOST].n_slots = slots,
        .at[SL_HOST].slot_bytes = SLAB_BYTES,
        .at[SL_HOST].ring_bytes = slots * SLAB_BYTES,
        .streamed_bytes = SLABS * SLAB_BYTES,
    };
    struct sl_stream_config config = {.path = "a file",
                                      .slabs = slabs,
                                      .plan = &plan,
                                      .direct = true,
                                      .clock = &clock,
                                      .io_arg = cut ? &cut : NULL,
                                      .io_open = disk_open};
    struct sl_stream *st;
    const uint8_t *base;
    struct sl_error err;

    for (size_t i = 0; i < SLABS; i++) {
        slabs[i].n_extents = 1;
        slabs[i].extents[0] =
            (struct sl_extent){.off = i * SLAB_BYTES, .bytes = SLAB_BYTES};
    }
    assert_ok(sl_stream_open(&st, &config, &err), &err);
    assert_ok(sl_stream_get(st, 0, &base, &err), &err);
    sl_stream_close(st);
}

static void reads_in_flight_take_half_of_the_ring(void **state)
{
    static const struct {
        uint32_t slots;
        unsigned reads;
        uint32_t bytes;
    } rings[] = {
        {3, 6, 512u << 10}, /* no room for eight */
        {8, 8, 512u << 10}, {12, 12, 512u << 10}, {16, 16, 512u << 10},
        {32, 16, 1u << 20}, {64, 16, 1u << 20},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rings / sizeof *rings; i++) {
        stream_one(rings[i].slots, false);
        assert_int_equal(disk.at_first, rings[i].reads);
        assert_int_equal(disk.largest_read, rings[i].bytes);
    }
}

/* Half of the slots are free when the first reads come. */
static void more_is_asked_for_before_anybody_is_told(void **state)
{
    (void)state;
    stream_one(8, false);
    assert_true(disk.told);
    assert_int_equal(disk.when_told, 8);
}

/* The reads that are under way then may hang for long. */
static void what_came_before_a_failure_is_told_at_once(void **state)
{
    (void)state;
    stream_one(8, true);
    assert_true(disk.told_of_others);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_in_flight_take_half_of_the_ring),
        cmocka_unit_test(more_is_asked_for_before_anybody_is_told),
        cmocka_unit_test(what_came_before_a_failure_is_told_at_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
