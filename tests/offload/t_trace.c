#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "offload/trace.h"
#include "src/base/clock.h"
#include "src/base/pool.h"
#include "tests/support.h"

struct temp {
    char dir[1024], path[1100];
};

static int setup(void **state)
{
    struct temp *t = malloc(sizeof *t);

    assert_non_null(t);
    test_temp_dir(t->dir);
    snprintf(t->path, sizeof t->path, "%s/trace.json", t->dir);
    *state = t;
    return 0;
}

static int teardown(void **state)
{
    struct temp *t = *state;

    test_remove_tree(t->dir);
    free(t);
    return 0;
}

/* The first event of this phase and name. */
static json_t *event(json_t *root, const char *phase, const char *name)
{
    json_t *events = json_object_get(root, "traceEvents"), *e;
    size_t i;

    json_array_foreach(events, i, e)
    {
        const char *n = json_string_value(json_object_get(e, "name"));

        if (strcmp(json_string_value(json_object_get(e, "ph")), phase) == 0 &&
            (name == NULL || strcmp(n, name) == 0))
            return e;
    }
    return NULL;
}

static double number(json_t *e, const char *key)
{
    return json_number_value(json_object_get(e, key));
}

static void spans_become_events_on_named_tracks(void **state)
{
    struct temp *t = *state;
    struct sl_trace *trace;
    struct sl_error err;
    uint64_t now;
    json_t *j, *b, *e, *x;

    assert_ok(sl_trace_open(&trace, t->path, &err), &err);
    now = sl_clock_ns() + 1000000;
    sl_trace_span(trace, SL_TRACK_READS, "slab 7", now, now + 2500, 4096);
    sl_trace_span(trace, SL_TRACK_STAGES, "layer 3 \"mlp\"\\\n\xc3\xa9", now,
                  now + 1250000, 0);
    sl_trace_span(trace, SL_TRACK_WAITS, "a name that is longer than any event",
                  now + 10, now, 0);
    assert_ok(sl_trace_close(trace, &err), &err);
    j = test_json(t->path);
    b = event(j, "b", "slab 7");
    e = event(j, "e", "slab 7");
    assert_non_null(b);
    assert_non_null(e);
    assert_int_equal(number(b, "id"), number(e, "id"));
    assert_true(number(b, "ts") >= 1000);
    assert_float_equal(number(e, "ts") - number(b, "ts"), 2.5, 2e-3);
    assert_int_equal(number(json_object_get(b, "args"), "bytes"), 4096);
    x = event(j, "X", "layer 3 \"mlp\"\\???");
    assert_non_null(x);
    assert_float_equal(number(x, "dur"), 1250.0, 2e-3);
    assert_null(json_object_get(x, "args"));
    x = event(j, "X", "a name that is longer than ");
    assert_non_null(x);
    assert_float_equal(number(x, "dur"), 0.0, 0.0);
    assert_non_null(event(j, "M", "process_name"));
    assert_non_null(event(j, "M", "thread_name"));
    assert_int_equal(number(json_object_get(j, "otherData"), "dropped"), 0);
    json_decref(j);
}

static void a_trace_can_begin_anew_by_another_clock(void **state)
{
    struct temp *t = *state;
    struct sl_trace *trace;
    struct sl_error err;
    json_t *j;

    assert_ok(sl_trace_open(&trace, t->path, &err), &err);
    sl_trace_span(trace, SL_TRACK_STAGES, "noted", 5000, 6000, 0);
    sl_trace_start_at(trace, 5000);
    sl_trace_span(trace, SL_TRACK_STAGES, "too early", 4999, 6000, 0);
    sl_trace_span(trace, SL_TRACK_STAGES, "in time", 7000, 9000, 0);
    assert_ok(sl_trace_close(trace, &err), &err);
    j = test_json(t->path);
    assert_null(event(j, "X", "noted"));
    assert_null(event(j, "X", "too early"));
    assert_float_equal(number(event(j, "X", "in time"), "ts"), 2, 1e-9);
    assert_float_equal(number(event(j, "X", "in time"), "dur"), 2, 1e-9);
    assert_int_equal(number(json_object_get(j, "otherData"), "dropped"), 0);
    json_decref(j);
    sl_trace_start_at(NULL, 0);
}

static void an_empty_trace_is_whole_json(void **state)
{
    struct temp *t = *state;
    struct sl_trace *trace;
    struct sl_error err;
    json_t *j;

    assert_ok(sl_trace_open(&trace, t->path, &err), &err);
    assert_ok(sl_trace_close(trace, &err), &err);
    j = test_json(t->path);
    assert_null(event(j, "X", NULL));
    json_decref(j);
    sl_trace_span(NULL, SL_TRACK_READS, "x", 0, 1, 2);
    assert_ok(sl_trace_close(NULL, &err), &err);
}

static void the_trace_of_before_stays_until_the_new_one_is_whole(void **state)
{
    struct temp *t = *state;
    char temp[1200];
    FILE *f;
    struct sl_trace *trace;
    struct sl_error err;
    struct stat st;

    f = fopen(t->path, "w");
    assert_non_null(f);
    fputs("before", f);
    assert_int_equal(fclose(f), 0);
    assert_ok(sl_trace_open(&trace, t->path, &err), &err);
    assert_int_equal(stat(t->path, &st), 0);
    assert_int_equal(st.st_size, 6);
    assert_ok(sl_trace_close(trace, &err), &err);
    json_decref(test_json(t->path));
    snprintf(temp, sizeof temp, "%s.partial", t->path);
    assert_int_equal(stat(temp, &st), -1);
}

static void span_many(void *arg, size_t begin, size_t end, unsigned worker)
{
    for (size_t i = begin; i < end; i++)
        sl_trace_span(arg, SL_TRACK_STAGES, "s", i, i + 1, 0);
}

static void spans_beyond_the_bound_are_counted(void **state)
{
    struct temp *t = *state;
    struct sl_trace *trace;
    struct sl_pool *pool;
    struct sl_error err;
    size_t n = sl_trace_bytes() / 32; /* more than can fit */
    json_t *j;

    assert_ok(sl_pool_create(&pool, 3, &err), &err);
    assert_ok(sl_trace_open(&trace, t->path, &err), &err);
    sl_pool_for(pool, n, 100, span_many, trace);
    sl_pool_destroy(pool);
    assert_ok(sl_trace_close(trace, &err), &err);
    j = test_json(t->path);
    size_t dropped = (size_t)number(json_object_get(j, "otherData"), "dropped");
    size_t kept = 0, i;
    json_t *e;

    json_array_foreach(json_object_get(j, "traceEvents"), i, e) kept +=
        json_string_value(json_object_get(e, "ph"))[0] == 'X';
    assert_true(dropped > 0);
    assert_int_equal(kept + dropped, n);
    json_decref(j);
}

static void a_path_that_cannot_be_written_is_refused_at_once(void **state)
{
    struct sl_trace *trace = NULL;
    struct sl_error err;

    assert_int_equal(sl_trace_open(&trace, "/nowhere/t.json", &err), -1);
    assert_int_equal(err.code, SL_ERR_IO);
    assert_non_null(strstr(err.msg, "/nowhere/t.json"));
    assert_null(trace);
}

static void a_full_disk_is_reported(void **state)
{
    struct sl_trace *trace;
    struct sl_error err;
    struct stat st;

    if (stat("/dev/full", &st) != 0)
        return;
    for (int n = 0; n <= 10000; n += 5000) {
        assert_ok(sl_trace_open(&trace, "/dev/full", &err), &err);
        for (int i = 0; i < n; i++)
            sl_trace_span(trace, SL_TRACK_WAITS, "w", 1, 2, 3);
        assert_int_equal(sl_trace_close(trace, &err), -1);
        assert_int_equal(err.code, SL_ERR_NOSPACE);
        assert_non_null(strstr(err.msg, "/dev/full"));
    }
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(spans_become_events_on_named_tracks),
        T(a_trace_can_begin_anew_by_another_clock),
        T(an_empty_trace_is_whole_json),
        T(the_trace_of_before_stays_until_the_new_one_is_whole),
        T(spans_beyond_the_bound_are_counted),
        T(a_path_that_cannot_be_written_is_refused_at_once),
        T(a_full_disk_is_reported),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
