#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <pty.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "src/base/bytes.h"
#include "src/base/half.h"
#include "src/base/log.h"
#include "src/base/mem.h"
#include "src/base/pool.h"
#include "src/base/progress.h"
#include "tests/support.h"

static void sizes_are_read_as_people_write_them(void **state)
{
    static const struct {
        const char *text;
        uint64_t bytes;
    } good[] = {
        {"4096", 4096},        {"16G", 17179869184},   {"16GiB", 17179869184},
        {"8GB", 8000000000},   {"1.5m", 1572864},      {"512 K", 524288},
        {"2 gib", 2147483648}, {"0.5T", 549755813888},
    };
    static const char *const bad[] = {"",    "G",   "-1",        "1,5G",
                                      "12Q", "1e9", "99999999T", "0x10"};
    struct sl_error err;
    uint64_t v;

    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        assert_ok(sl_size_parse(&v, good[i].text, &err), &err);
        assert_int_equal(v, good[i].bytes);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        v = 7;
        assert_int_equal(sl_size_parse(&v, bad[i], &err), -1);
        assert_int_equal(err.code, SL_ERR_USAGE);
        assert_int_equal(v, 7);
    }
}

static void sizes_are_printed_short(void **state)
{
    char buf[SL_SIZE_TEXT];

    assert_string_equal(sl_size_format(buf, 512), "512 B");
    assert_string_equal(sl_size_format(buf, 1536), "1.5 KiB");
    assert_string_equal(sl_size_format(buf, 67ull << 30), "67.0 GiB");
    assert_string_equal(sl_size_format(buf, 1023 * 1024), "1023 KiB");
}

static void every_half_survives_the_way_through_float(void **state)
{
    for (uint32_t h = 0; h < 65536; h++) {
        float f = sl_half_to_float((uint16_t)h);

        if (isnan(f))
            continue;
        assert_int_equal(sl_float_to_half(f), h);
    }
}

static void halves_round_to_nearest_even(void **state)
{
    /* Between each pair of neighbours: a bit below, at and above the middle. */
    for (uint16_t h = 0; h < 0x7bff; h++) {
        float lo = sl_half_to_float(h), hi = sl_half_to_float(h + 1);
        float mid = (float)(((double)lo + (double)hi) / 2);

        assert_int_equal(sl_float_to_half(nextafterf(mid, 0)), h);
        assert_int_equal(sl_float_to_half(mid), h & 1 ? h + 1 : h);
        assert_int_equal(sl_float_to_half(nextafterf(mid, hi)), h + 1);
    }
    assert_int_equal(sl_float_to_half(65520.0f), 0x7c00);
    assert_int_equal(sl_float_to_half(65519.0f), 0x7bff);
    assert_int_equal(sl_float_to_half(-1e-9f), 0x8000);
}

struct seen {
    atomic_int times[1000];
    atomic_int bad;
};

static void touch(void *arg, size_t begin, size_t end, unsigned worker)
{
    struct seen *s = arg;

    if (end - begin > 7 || begin % 7 != 0 || worker > 3)
        atomic_fetch_add(&s->bad, 1);
    for (size_t i = begin; i < end; i++)
        atomic_fetch_add(&s->times[i], 1);
}

static void the_pool_does_every_item_once(void **state)
{
    static const size_t sizes[] = {0, 1, 6, 7, 8, 999, 1000};
    struct sl_error err;
    struct sl_pool *pool;

    for (unsigned threads = 1; threads <= 4; threads++) {
        assert_ok(sl_pool_create(&pool, threads, &err), &err);
        assert_int_equal(sl_pool_threads(pool), threads);
        for (int turn = 0; turn < 200; turn++) {
            size_t n = sizes[(size_t)turn % 7];
            struct seen seen;

            memset(&seen, 0, sizeof seen);
            sl_pool_for(pool, n, 7, touch, &seen);
            assert_int_equal(seen.bad, 0);
            for (size_t i = 0; i < 1000; i++)
                assert_int_equal(seen.times[i], i < n);
        }
        sl_pool_destroy(pool);
    }
}

static void count_one(void *arg)
{
    ++*(unsigned *)arg;
}

static void do_nothing(void *arg, size_t begin, size_t end, unsigned worker)
{
}

static void errands_are_run_during_long_jobs(void **state)
{
    for (unsigned threads = 1; threads < 4; threads += 2) {
        struct sl_pool *pool;
        struct sl_error err;
        unsigned done = 0, before;

        assert_ok(sl_pool_create(&pool, threads, &err), &err);
        sl_pool_set_errand(pool, count_one, &done);
        while (done < 2)
            sl_pool_for(pool, 64, 1, do_nothing, NULL);
        before = done;
        sl_pool_set_errand(pool, NULL, NULL);
        sl_pool_for(pool, 64, 1, do_nothing, NULL);
        assert_int_equal(done, before);
        sl_pool_destroy(pool);
    }
}

struct owners {
    atomic_int worker[64]; /* that did the item, 1 and up */
    atomic_uint waiting;
};

/* Nobody goes on before everybody has begun: no share is taken over. */
static void note_owner(void *arg, size_t begin, size_t end, unsigned worker)
{
    struct owners *o = arg;

    atomic_fetch_sub(&o->waiting, 1);
    while (atomic_load(&o->waiting) != 0)
        sched_yield();
    for (size_t i = begin; i < end; i++)
        atomic_store(&o->worker[i], (int)worker + 1);
}

static void each_worker_begins_with_its_share(void **state)
{
    struct sl_error err;
    struct sl_pool *pool;

    assert_ok(sl_pool_create(&pool, 4, &err), &err);
    for (int turn = 0; turn < 50; turn++) {
        struct owners o;

        memset(&o, 0, sizeof o);
        atomic_store(&o.waiting, 4);
        sl_pool_for(pool, 63, 16, note_owner, &o);
        for (unsigned w = 0; w < 4; w++) {
            size_t begin, end;

            sl_pool_share(&begin, &end, 63, 16, w, 4);
            assert_int_equal(begin, w * 16);
            assert_int_equal(end, w == 3 ? 63 : begin + 16);
            for (size_t i = begin; i < end; i++)
                assert_int_equal(o.worker[i], w + 1);
        }
    }
    sl_pool_destroy(pool);
}

static void shares_cover_all_and_differ_by_a_chunk(void **state)
{
    for (size_t n = 0; n < 200; n++) {
        for (unsigned threads = 1; threads <= 7; threads++) {
            size_t at = 0, least = SIZE_MAX, most = 0;

            for (unsigned w = 0; w < threads; w++) {
                size_t begin, end, chunks;

                sl_pool_share(&begin, &end, n, 3, w, threads);
                assert_int_equal(begin, at);
                assert_true(begin % 3 == 0 || begin == n);
                chunks = (end - begin + 2) / 3;
                least = chunks < least ? chunks : least;
                most = chunks > most ? chunks : most;
                at = end;
            }
            assert_int_equal(at, n);
            assert_true(most - least <= 1);
        }
    }
}

struct lagging {
    struct sl_pool *pool;
    atomic_uint done;
};

/* Long enough for the others to fall asleep. */
static void lag(void *arg, size_t begin, size_t end, unsigned worker)
{
    struct lagging *l = arg;
    struct timespec pause = {0, 2000000};

    if (begin == 0)
        nanosleep(&pause, NULL);
    atomic_fetch_add(&l->done, 1);
}

static void sleepers_wake_up(void **state)
{
    struct timespec pause = {0, 2000000};
    struct sl_error err;
    struct lagging l = {NULL, 0};

    for (unsigned threads = 2; threads <= 5; threads++) {
        assert_ok(sl_pool_create(&l.pool, threads, &err), &err);
        for (int turn = 0; turn < 20; turn++) {
            atomic_store(&l.done, 0);
            sl_pool_for(l.pool, 16, 1, lag, &l);
            assert_int_equal(atomic_load(&l.done), 16);
            nanosleep(&pause, NULL);
        }
        sl_pool_destroy(l.pool);
    }
}

static void messages_keep_their_context_and_never_overflow(void **state)
{
    struct sl_error err;
    char word[700];

    memset(word, 'x', sizeof word - 1);
    word[sizeof word - 1] = 0;
    sl_fail_os(&err, ENOSPC, "write %s", "a.gguf");
    assert_int_equal(err.code, SL_ERR_NOSPACE);
    assert_string_equal(err.msg, "write a.gguf: No space left on device");
    sl_error_prefix(&err, "layer %d: ", 3);
    assert_string_equal(err.msg,
                        "layer 3: write a.gguf: No space left on device");
    sl_error_prefix(&err, "%s", word);
    assert_true(strlen(err.msg) < sizeof err.msg);
    sl_fail_os(&err, EIO, "%s", word);
    assert_true(strlen(err.msg) < sizeof err.msg);
    /* What would drive a terminal does not reach it. */
    sl_fail(&err, SL_ERR_CORRUPT, "a tensor is named %s", "a\n\033[2Jb\x7f");
    sl_error_prefix(&err, "%s: ", "x\ty");
    assert_string_equal(err.msg, "x?y: a tensor is named a??[2Jb?");
}

static void regions_are_aligned_and_zero(void **state)
{
    static const size_t sizes[] = {1, 4096, 5000000, 9 << 20};
    struct sl_error err;

    for (size_t i = 0; i < 4; i++) {
        struct sl_region r;

        assert_ok(sl_region_init(&r, sizes[i], "test", &err), &err);
        assert_int_equal((uintptr_t)r.base % 4096, 0);
        assert_int_equal(r.base[0] | r.base[sizes[i] - 1], 0);
        r.base[sizes[i] - 1] = 1;
        sl_region_fini(&r);
    }
}

/* What a progress line looks like on a terminal of that many columns. */
static size_t draw_on_terminal(char *text, size_t room, unsigned short columns)
{
    struct winsize size = {.ws_row = 24, .ws_col = columns};
    int master, slave, saved = dup(STDERR_FILENO);
    struct sl_progress p;
    ssize_t n;

    assert_int_equal(openpty(&master, &slave, NULL, NULL, &size), 0);
    dup2(slave, STDERR_FILENO);
    sl_progress_init(&p, "converting", 300ull << 30, 0, false);
    p.start_ns -= 3000000000;
    p.last_ns = 0;
    sl_progress_update(&p, 123ull << 30);
    dup2(saved, STDERR_FILENO);
    close(saved);
    close(slave);
    n = read(master, text, room - 1);
    close(master);
    assert_true(n > 0);
    text[n] = '\0';
    return (size_t)n;
}

static void a_progress_line_fits_the_terminal(void **state)
{
    static const unsigned short columns[] = {200, 100, 80, 60, 40, 20};
    static const char clear[] = "\r\033[K";

    for (size_t i = 0; i < sizeof columns / sizeof *columns; i++) {
        char text[512];
        size_t n = draw_on_terminal(text, sizeof text, columns[i]);

        assert_memory_equal(text, clear, strlen(clear));
        assert_true(n - strlen(clear) < columns[i]);
        assert_non_null(strstr(text, "41 %"));
        assert_int_equal(strchr(text, '#') != NULL, columns[i] >= 80);
    }
}

static void messages_are_wrapped_between_words(void **state)
{
    static const struct {
        const char *text, *wrapped;
        unsigned columns;
    } cases[] = {
        {"sluice: one two three", "sluice: one two three", 21},
        {"sluice: one two three", "sluice: one two\nthree", 20},
        {"sluice: one two three", "sluice: one\ntwo three", 12},
        {"sluice: one two three", "sluice: one\ntwo\nthree", 5},
        {"sluice: averylongword a", "sluice: averylongword\na", 10},
        {"sluice: 天下 天下 天", "sluice: 天下 天下\n天", 18},
        {"sluice: two\nlines are two", "sluice: two\nlines are\ntwo", 11},
        {"", "", 1},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[64];

        snprintf(text, sizeof text, "%s", cases[i].text);
        sl_message_wrap(text, cases[i].columns);
        assert_string_equal(text, cases[i].wrapped);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_progress_line_fits_the_terminal),
        cmocka_unit_test(sizes_are_read_as_people_write_them),
        cmocka_unit_test(sizes_are_printed_short),
        cmocka_unit_test(every_half_survives_the_way_through_float),
        cmocka_unit_test(halves_round_to_nearest_even),
        cmocka_unit_test(the_pool_does_every_item_once),
        cmocka_unit_test(errands_are_run_during_long_jobs),
        cmocka_unit_test(each_worker_begins_with_its_share),
        cmocka_unit_test(shares_cover_all_and_differ_by_a_chunk),
        cmocka_unit_test(sleepers_wake_up),
        cmocka_unit_test(messages_keep_their_context_and_never_overflow),
        cmocka_unit_test(messages_are_wrapped_between_words),
        cmocka_unit_test(regions_are_aligned_and_zero),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
