#include "config.h"

#include <sched.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "offload/touch.h"
#include "src/base/bytes.h"
#include "tests/support.h"

#define REGION_BYTES (((size_t)66 << 20) + 3 * SL_PAGE_BYTES)

static size_t pages_there(const struct sl_region *r)
{
    size_t n = r->bytes / SL_PAGE_BYTES, there = 0;
    unsigned char *in = malloc(n);

    assert_non_null(in);
    assert_int_equal(mincore(r->base, r->bytes, in), 0);
    for (size_t i = 0; i < n; i++)
        there += in[i] & 1;
    free(in);
    return there;
}

/* Linux before 5.14 leaves all to the reads. */
static bool kernel_can(const struct sl_region *r)
{
    return madvise(r->base, SL_PAGE_BYTES, 23 /* MADV_POPULATE_WRITE */) == 0;
}

static void all_of_a_region_comes_and_what_was_written_stays(void **state)
{
    struct sl_region r;
    struct sl_touch t;
    struct sl_error err;

    (void)state;
    assert_int_equal(sl_region_init(&r, REGION_BYTES, "a region", &err), 0);
    r.base[0] = 1;
    r.base[REGION_BYTES / 2] = 2;
    r.base[REGION_BYTES - 1] = 3;
    assert_true(pages_there(&r) < REGION_BYTES / SL_PAGE_BYTES);
    sl_touch_start(&t, &r, 3);
    while (kernel_can(&r) && pages_there(&r) < REGION_BYTES / SL_PAGE_BYTES)
        sched_yield();
    sl_touch_stop(&t);
    assert_int_equal(r.base[0], 1);
    assert_int_equal(r.base[REGION_BYTES / 2], 2);
    assert_int_equal(r.base[REGION_BYTES - 1], 3);
    sl_region_fini(&r);
}

static void a_small_region_has_no_threads(void **state)
{
    struct sl_region r;
    struct sl_touch t;
    struct sl_error err;

    (void)state;
    assert_int_equal(sl_region_init(&r, 1 << 20, "a region", &err), 0);
    sl_touch_start(&t, &r, 3);
    assert_int_equal(t.n_threads, 0);
    sl_touch_stop(&t);
    sl_region_fini(&r);
}

static void one_that_has_not_begun_can_be_stopped(void **state)
{
    struct sl_region r;
    struct sl_touch t = {.n_threads = 0};
    struct sl_error err;

    (void)state;
    sl_touch_stop(&t);
    assert_int_equal(sl_region_init(&r, REGION_BYTES, "a region", &err), 0);
    sl_touch_start(&t, &r, 2);
    sl_touch_stop(&t);
    sl_touch_stop(&t);
    sl_region_fini(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_of_a_region_comes_and_what_was_written_stays),
        cmocka_unit_test(a_small_region_has_no_threads),
        cmocka_unit_test(one_that_has_not_begun_can_be_stopped),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
