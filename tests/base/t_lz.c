#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "src/base/half.h"
#include "src/base/lz.h"
#include "tests/support.h"

static uint32_t next(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

/* FP16 values near to each other: their first bytes are the same for long,
 * their second ones noise. */
static void fill(uint8_t *data, size_t n, uint32_t *state)
{
    for (size_t i = 0; i < n; i += 2) {
        float v = 1.5f + (float)(next(state) % 1024) / 5000;
        uint16_t h = sl_float_to_half(v);

        memcpy(data + i, &h, n - i < 2 ? 1 : 2);
    }
}

static void what_comes_back_is_what_went_in(void **state)
{
    static const size_t sizes[] = {1, 2, 3, 5, 63, 64, 1000, 4099, 65536};
    static const unsigned planes[] = {1, 2, 4};
    uint32_t random = 1;

    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        size_t n = sizes[s];
        uint8_t *in = malloc(n), *out = malloc(n), *scratch = malloc(n);
        uint8_t *packed = malloc(sl_lz_bound(n));

        for (size_t p = 0; p < sizeof planes / sizeof *planes; p++) {
            for (int zeros = 0; zeros < 2; zeros++) {
                size_t kept;

                memset(in, 0, n);
                if (!zeros)
                    fill(in, n, &random);
                kept = sl_lz_encode(packed, in, n, planes[p], scratch);
                assert_true(kept < n);
                if (zeros && n > 64)
                    assert_true(kept > 0 && kept < n / 16);
                if (kept == 0)
                    continue;
                memset(out, 1, n);
                assert_true(
                    sl_lz_decode(out, n, packed, kept, planes[p], scratch));
                assert_memory_equal(out, in, n);
            }
        }
        free(in);
        free(out);
        free(scratch);
        free(packed);
    }
}

static void planes_make_fp16_smaller(void **state)
{
    enum { N = 1 << 18 };
    uint8_t *in = malloc(N), *scratch = malloc(N),
            *out = malloc(sl_lz_bound(N));
    uint32_t random = 2;
    size_t with;

    fill(in, N, &random);
    with = sl_lz_encode(out, in, N, 2, scratch);
    assert_true(with > 0 && with < N * 6 / 10);
    assert_int_equal(sl_lz_encode(out, in, N, 1, NULL), 0);
    free(in);
    free(scratch);
    free(out);
}

/* Under AddressSanitizer: nothing is read or written beyond the blocks. */
static void damaged_blocks_are_refused_or_harmless(void **state)
{
    enum { N = 4096 };
    uint8_t *in = malloc(N), *scratch = malloc(N), *out = malloc(N);
    uint8_t *packed = malloc(sl_lz_bound(N));
    uint32_t random = 3;
    size_t kept;

    fill(in, N, &random);
    kept = sl_lz_encode(packed, in, N, 2, scratch);
    assert_true(kept > 0);
    for (int i = 0; i < 4000; i++) {
        size_t n = next(&random) % 2 ? kept : next(&random) % kept;
        uint8_t *bad = malloc(n + 1);

        memcpy(bad, packed, n);
        for (uint32_t k = next(&random) % 4; k > 0 && n > 0; k--)
            bad[next(&random) % n] = (uint8_t)next(&random);
        sl_lz_decode(out, N, bad, n, 2, scratch);
        free(bad);
    }
    assert_false(sl_lz_decode(out, N, packed, kept - 1, 2, scratch));
    assert_false(sl_lz_decode(out, N - 1, packed, kept, 2, scratch));
    assert_false(sl_lz_decode(out, N, packed, 0, 2, scratch));
    free(in);
    free(scratch);
    free(out);
    free(packed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_comes_back_is_what_went_in),
        cmocka_unit_test(planes_make_fp16_smaller),
        cmocka_unit_test(damaged_blocks_are_refused_or_harmless),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
