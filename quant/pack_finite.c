#include "config.h"

#include <stdatomic.h>

#include "quant/pack.h"

/* Values that one worker looks at before it takes the next. */
#define RUN 65536u

struct job {
    const void *values;
    uint64_t n;
    uint32_t exponent; /* all of its bits: infinite, or no number */
    bool wide;
    atomic_uint_fast64_t found;
};

static uint64_t count16(const uint16_t *v, size_t n, uint16_t exponent)
{
    uint64_t found = 0;

    for (size_t i = 0; i < n; i++)
        found += (v[i] & exponent) == exponent;
    return found;
}

static uint64_t count32(const uint32_t *v, size_t n, uint32_t exponent)
{
    uint64_t found = 0;

    for (size_t i = 0; i < n; i++)
        found += (v[i] & exponent) == exponent;
    return found;
}

static void count_runs(void *arg, size_t begin, size_t end, unsigned worker)
{
    struct job *j = arg;
    uint64_t found = 0;

    for (size_t i = begin; i < end; i++) {
        uint64_t at = (uint64_t)i * RUN;
        size_t n = j->n - at < RUN ? (size_t)(j->n - at) : RUN;

        if (j->wide)
            found += count32((const uint32_t *)j->values + at, n, j->exponent);
        else
            found += count16((const uint16_t *)j->values + at, n,
                             (uint16_t)j->exponent);
    }
    /* a sum: whose comes first does not matter */
    atomic_fetch_add_explicit(&j->found, found, memory_order_relaxed);
}

uint64_t sl_pack_not_finite(const void *values, enum sl_fmt fmt, uint64_t n,
                            struct sl_pool *pool)
{
    struct job j = {.values = values, .n = n};

    switch (fmt) {
    case SL_FMT_F32:
        j.exponent = 0x7f800000u;
        j.wide = true;
        break;
    case SL_FMT_F16:
        j.exponent = 0x7c00u;
        break;
    case SL_FMT_BF16:
        j.exponent = 0x7f80u;
        break;
    default:
        return 0;
    }
    atomic_init(&j.found, 0);
    sl_pool_for(pool, (size_t)((n + RUN - 1) / RUN), 1, count_runs, &j);
    return atomic_load(&j.found);
}
