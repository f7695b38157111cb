#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/matmul.h"
#include "src/base/clock.h"
#include "src/base/mem.h"
#include "src/probe/meminfo.h"
#include "src/probe/probe.h"

#define COLS        4096u
#define BLOCKS      256u /* of a product, at least: 8 MiB of INT4 */
#define A_THREAD    64u /* and for each thread, so that it has some at a time */
#define LEAST_BYTES (64ull << 20)
#define MOST_BYTES  (128ull << 20)
#define CLEAR       0.97 /* of the first one's time; else that is noise */

/* The first is what is without a measurement, and stays unless another one is
 * clearly better. Distances are those of the places that are best. */
static const uint32_t places[] = {4, 1, 2, SL_PLACES_MOST};
static const uint32_t aheads[] = {2304, 1024, 4096};

struct weights {
    const struct sl_probe_reading_config *config;
    struct sl_matrix m;
    uint32_t blocks;         /* of a product */
    struct sl_region region; /* all that follows */
    uint8_t *w;              /* some products' */
    uint64_t bytes, at;      /* of w; where the next product begins */
    uint16_t *scale;
    float *y, *q_scale;
    int8_t *q;
    int32_t *q_sum;
};

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

size_t sl_reading_pick(const double *seconds, size_t turns, size_t n)
{
    double best = CLEAR, ratio[SL_READING_TURNS];
    size_t pick = 0;

    for (size_t c = 1; c < n; c++) {
        for (size_t t = 0; t < turns; t++)
            ratio[t] = seconds[t * n + c] / seconds[t * n];
        qsort(ratio, turns, sizeof *ratio, compare);
        /* The median, and three turns of four are better at all. */
        if (ratio[turns / 2] < best && ratio[turns * 3 / 4] < 1) {
            best = ratio[turns / 2];
            pick = c;
        }
    }
    return pick;
}

static void *take(struct weights *s, size_t *at, size_t bytes)
{
    void *p = s->region.base != NULL ? s->region.base + *at : NULL;

    *at += (size_t)sl_round_up(bytes, SL_PAGE_BYTES);
    return p;
}

/* Hands the region out; only counts while there is none. */
static size_t carve(struct weights *s)
{
    size_t at = 0;

    s->w = take(s, &at, s->bytes);
    s->scale = take(s, &at, sl_matrix_scale_bytes(&s->m));
    s->y = take(s, &at, s->m.rows * sizeof *s->y);
    s->q = take(s, &at, sl_q8_stride(COLS));
    s->q_scale = take(s, &at, COLS / SL_Q8_GROUP * sizeof *s->q_scale);
    s->q_sum = take(s, &at, COLS / 16 * sizeof *s->q_sum);
    return at;
}

/* Of the next weights in the buffer: when it comes back to them no cache has
 * them any more. */
static double multiply(struct weights *s, const struct sl_reading *reading)
{
    struct sl_kernels k = *s->config->kernels;
    const struct sl_matmul mm = {
        .m = &s->m,
        .n_blocks = s->blocks,
        .w = {s->w + s->at},
        .scale = {s->scale},
    };
    const struct sl_acts acts = {
        .n = 1,
        .cols = COLS,
        .q = s->q,
        .q_stride = sl_q8_stride(COLS),
        .q_scale = s->q_scale,
        .q_sum = s->q_sum,
        .group_stride = 1,
    };
    uint64_t begin = sl_clock_ns(), bytes = sl_matrix_bytes(&s->m);

    k.reading = *reading;
    sl_matmul_run(&k, s->config->pool, s->y, s->m.rows, &mm, &acts,
                  SL_ACT_INT8);
    s->at = s->bytes - s->at < 2 * bytes ? 0 : s->at + bytes;
    return (double)(sl_clock_ns() - begin + 1) * 1e-9;
}

/* In turns, each of which begins with another one. */
static size_t pick(struct weights *s, const struct sl_reading *of, size_t n)
{
    double seconds[SL_READING_TURNS * 4];
    unsigned turns = s->config->turns;

    turns = turns > 0 && turns < SL_READING_TURNS ? turns : SL_READING_TURNS;
    multiply(s, &of[0]);
    for (size_t t = 0; t < turns; t++) {
        for (size_t i = 0; i < n; i++) {
            size_t c = (t + i) % n;

            seconds[t * n + c] = multiply(s, &of[c]);
        }
    }
    return sl_reading_pick(seconds, turns, n);
}

static void choose(struct sl_reading *best, struct weights *s)
{
    const size_t n = sizeof places / sizeof *places;
    const size_t m = sizeof aheads / sizeof *aheads;
    struct sl_reading of[4];

    for (size_t i = 0; i < n; i++)
        of[i] = (struct sl_reading){places[i], aheads[0]};
    best->places = places[pick(s, of, n)];
    for (size_t i = 0; i < m; i++)
        of[i] = (struct sl_reading){best->places, aheads[i]};
    best->ahead = aheads[pick(s, of, m)];
}

static uint64_t default_bytes(void)
{
    uint64_t bytes = 2 * sl_probe_cache_bytes();

    bytes = bytes < LEAST_BYTES ? LEAST_BYTES : bytes;
    return sl_meminfo_room(bytes > MOST_BYTES ? MOST_BYTES : bytes);
}

int sl_probe_reading(struct sl_reading *best,
                     const struct sl_probe_reading_config *config,
                     struct sl_error *err)
{
    unsigned threads = sl_pool_threads(config->pool);
    struct weights s = {.config = config, .blocks = BLOCKS};

    *best = sl_reading_default;
    if (config->kernels->matmul[SL_FMT_INT4][SL_ACT_INT8] == NULL)
        return 0;
    if (s.blocks < threads * A_THREAD)
        s.blocks = threads * A_THREAD;
    s.m = (struct sl_matrix){SL_FMT_INT4, s.blocks * SL_BLOCK_ROWS, COLS, 1,
                             COLS};
    s.bytes = config->bytes > 0 ? config->bytes : default_bytes();
    if (s.bytes < sl_matrix_bytes(&s.m))
        s.bytes = sl_matrix_bytes(&s.m);
    if (sl_region_init(&s.region, carve(&s), "measuring memory", err) != 0)
        return -1;
    carve(&s);
    memset(s.w, 0x2c, s.bytes);
    memset(s.scale, 0x2c, sl_matrix_scale_bytes(&s.m));
    choose(best, &s);
    sl_region_fini(&s.region);
    return 0;
}
