#include "config.h"

#include <string.h>

#include "offload/mirror.h"
#include "tests/support.h"

/* Time that goes on by hand. */
struct hand_clock {
    struct sl_clock clock; /* first */
    uint64_t now;
};

static uint64_t hand_now(struct sl_clock *clock)
{
    return ((struct hand_clock *)clock)->now;
}

/* Two disks that serve one read after the other, each of so many bytes in so
 * many nanoseconds, and the mirror that asks them. */
struct two_disks {
    struct hand_clock time;
    struct sl_mirror *mirror;
    uint64_t read_ns[SL_IO_FILES];
    uint64_t through_ns[SL_IO_FILES]; /* with all that it was asked for */
    uint64_t ends_ns[8];              /* of reads that are under way */
    unsigned at[8];                   /* where */
    uint64_t served[SL_IO_FILES], busy_ns[SL_IO_FILES];
};

#define HAND_READ (512u << 10)

static void ask(struct two_disks *t, size_t i)
{
    unsigned file = sl_mirror_begin(t->mirror, HAND_READ);
    uint64_t from = t->through_ns[file];

    t->at[i] = file;
    if (from < t->time.now)
        from = t->time.now;
    t->ends_ns[i] = t->through_ns[file] = from + t->read_ns[file];
}

/* Keeps eight reads under way for so long, which end as the disks serve them.
 */
static void serve(struct two_disks *t, uint64_t ns)
{
    uint64_t until = t->time.now + ns;

    memset(t->served, 0, sizeof t->served);
    memset(t->busy_ns, 0, sizeof t->busy_ns);
    while (t->time.now < until) {
        size_t first = 0;

        for (size_t i = 1; i < 8; i++)
            if (t->ends_ns[i] < t->ends_ns[first])
                first = i;
        t->time.now = t->ends_ns[first];
        t->served[t->at[first]]++;
        t->busy_ns[t->at[first]] += t->read_ns[t->at[first]];
        sl_mirror_end(t->mirror, t->at[first], HAND_READ, true);
        ask(t, first);
    }
}

/* Both read 2 GB/s, until the second takes so long for a read. */
static void open_disks(struct two_disks *t, uint64_t slow_ns)
{
    static const struct sl_clock_ops ops = {.now = hand_now};
    struct sl_mirror_config two = {.path = {"one", "two"}};
    struct sl_error err;

    *t = (struct two_disks){.time = {.clock = {&ops}, .now = 1},
                            .read_ns = {262144, 262144}};
    two.clock = &t->time.clock;
    assert_ok(sl_mirror_create(&t->mirror, &two, &err), &err);
    for (size_t i = 0; i < 8; i++)
        ask(t, i);
    serve(t, 3000000000u);
    assert_in_range(t->served[1] * 100 / (t->served[0] + t->served[1]), 45, 55);
    t->read_ns[1] = slow_ns;
    serve(t, 3000000000u);
    assert_true(t->served[1] * 20 < t->served[0]);
}

/* What was known of it then is not kept for good. */
static void a_disk_that_stalled_is_asked_again(void **state)
{
    (void)state;
    for (uint64_t slow_ns = 100000000u; slow_ns <= 3000000000u; slow_ns *= 30) {
        struct two_disks t;

        open_disks(&t, slow_ns);
        t.read_ns[1] = t.read_ns[0];
        serve(&t, 60000000000u); /* a trial comes, and its rate is seen */
        serve(&t, 3000000000u);
        assert_in_range(t.served[1] * 100 / (t.served[0] + t.served[1]), 45,
                        55);
        sl_mirror_destroy(t.mirror);
    }
}

static void one_that_stays_slow_is_asked_for_little(void **state)
{
    (void)state;
    for (uint64_t slow_ns = 20000000u; slow_ns <= 3000000000u; slow_ns *= 5) {
        struct two_disks t;

        open_disks(&t, slow_ns);
        serve(&t, 100 * slow_ns);
        assert_true(t.served[1] > 0);
        assert_true(t.busy_ns[1] * 10 < t.busy_ns[0]);
        sl_mirror_destroy(t.mirror);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_disk_that_stalled_is_asked_again),
        cmocka_unit_test(one_that_stays_slow_is_asked_for_little),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
