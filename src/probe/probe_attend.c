#include "config.h"

#include "src/base/clock.h"
#include "src/base/mem.h"
#include "src/probe/meminfo.h"
#include "src/probe/probe.h"

#define ATTEND_TIME_NS 100000000u
/* A head's keys and values stay in its thread's own cache; its queries are as
 * many as make one attention long enough for a fork and a join to vanish. */
#define D          128u
#define QUERIES    64u
#define MOST_KEYS  512u
#define LEAST_KEYS 16u

struct heads {
    const struct sl_kernels *kernels;
    uint32_t keys;
    uint32_t n_keys[QUERIES];
    struct sl_region region; /* a head's part after the other */
};

/* Of a head: queries, outputs, keys, values, scores. */
static size_t head_floats(const struct heads *h)
{
    return 2 * (size_t)QUERIES * D + 2 * (size_t)h->keys * D +
           (size_t)SL_ATTEND_QUERIES * h->keys;
}

static float *part_of(const struct heads *h, size_t head)
{
    return (float *)(void *)h->region.base + head * head_floats(h);
}

/* New keys alone, in no pages: the arithmetic is the same, and what memory
 * gives is measured elsewhere. */
static void attend(void *arg, size_t begin, size_t end, unsigned worker)
{
    const struct heads *h = arg;

    for (size_t i = begin; i < end; i++) {
        float *q = part_of(h, i), *out = q + (size_t)QUERIES * D;
        float *k = out + (size_t)QUERIES * D, *v = k + (size_t)h->keys * D;
        struct sl_attend_args args = {
            .out = out,
            .out_stride = D,
            .q = q,
            .q_stride = D,
            .n_q = QUERIES,
            .n_keys = h->n_keys,
            .d = D,
            .page_len = 1, /* there are no pages */
            .k_new = k,
            .v_new = v,
            .new_stride = D,
            .scale = 1.0f / D,
            .scores = v + (size_t)h->keys * D,
        };

        h->kernels->attend(&args);
    }
}

int sl_probe_attend(double *ops_per_s, const struct sl_probe_attend_config *c,
                    struct sl_error *err)
{
    unsigned n = sl_pool_threads(c->pool);
    uint64_t time_ns = c->time_ns > 0 ? c->time_ns : ATTEND_TIME_NS;
    struct heads h = {.kernels = c->kernels, .keys = MOST_KEYS};
    uint64_t begin, ns, turns = 0;
    uint64_t most =
        sl_meminfo_room(c->most_bytes > 0 ? c->most_bytes : UINT64_MAX);

    while (h.keys > LEAST_KEYS && n * head_floats(&h) * sizeof(float) > most)
        h.keys /= 2;
    if (sl_region_init(&h.region, n * head_floats(&h) * sizeof(float),
                       "measuring attention", err) != 0)
        return -1;
    for (size_t i = 0; i < n * head_floats(&h); i++)
        part_of(&h, 0)[i] = (float)(i % 61) / 30 - 1;
    for (size_t i = 0; i < QUERIES; i++)
        h.n_keys[i] = h.keys;
    begin = sl_clock_ns();
    do {
        sl_pool_for(c->pool, n, 1, attend, &h);
        turns++;
        ns = sl_clock_ns() - begin;
    } while (ns < time_ns);
    sl_region_fini(&h.region);
    *ops_per_s = 4.0 * D * h.keys * QUERIES * n * (double)turns * 1e9 /
                 (double)(ns > 0 ? ns : 1);
    return 0;
}
