#include "config.h"

#include <string.h>

#include "kernels/matmul.h"
#include "src/base/clock.h"
#include "src/base/mem.h"
#include "src/probe/meminfo.h"
#include "src/probe/probe.h"

#define OPS_TIME_NS 100000000u
#define MOST_BYTES  (64u << 20)
#define ROWS        1024u /* a thread's, at most */
#define FIRST       2u    /* blocks a thread, to see how fast it goes */
#define TURNS       4u    /* in the time there is, at least */

/* As wide as a model's matrices are, and as many positions of it as a core's
 * own cache holds at a time: what the products of a long prompt are made of.
 * With little memory, less. */
static const struct shape {
    uint32_t cols, positions;
} shapes[] = {{4096, 256}, {1024, 128}};

struct ops {
    const struct sl_probe_ops_config *config;
    struct sl_matrix m;
    uint32_t n;              /* positions */
    struct sl_region region; /* all that follows, one after another */
    uint8_t *w;
    uint16_t *scale;
    float *x, *y, *q_scale;
    uint8_t *bf16;
    int8_t *q;
    int32_t *q_sum;
};

static void *take(const struct ops *o, size_t *at, size_t bytes)
{
    void *p = o->region.base != NULL ? o->region.base + *at : NULL;

    *at += (size_t)sl_round_up(bytes, 64);
    return p;
}

/* Hands the region out; only counts while there is none. */
static size_t carve(struct ops *o)
{
    uint32_t cols = o->m.cols;
    size_t groups = (size_t)o->n * (cols / SL_Q8_GROUP), at = 0;
    size_t values = (size_t)o->n * cols;
    bool int8 = o->config->act == SL_ACT_INT8;
    bool bf16 = o->config->act == SL_ACT_BF16;

    o->w = take(o, &at, sl_matrix_bytes(&o->m));
    o->scale = take(o, &at, sl_matrix_scale_bytes(&o->m));
    o->y = take(o, &at, (size_t)o->n * o->m.rows * sizeof *o->y);
    o->x = take(o, &at, int8 ? 0 : values * sizeof *o->x);
    o->bf16 = take(o, &at, bf16 ? values * o->config->kernels->bf16_bytes : 0);
    o->q = take(o, &at, int8 ? o->n * sl_q8_stride(cols) : 0);
    o->q_scale = take(o, &at, int8 ? groups * sizeof *o->q_scale : 0);
    o->q_sum = take(o, &at, int8 ? 2 * groups * sizeof *o->q_sum : 0);
    return at;
}

/* Numbers of every format that are small, normal, and of both signs. */
static void fill(struct ops *o)
{
    uint32_t cols = o->m.cols;
    size_t values = (size_t)o->n * cols;

    memset(o->y, 0, (size_t)o->n * o->m.rows * sizeof *o->y);
    memset(o->w, 0x2c, sl_matrix_bytes(&o->m));
    memset(o->scale, 0x2c, sl_matrix_scale_bytes(&o->m));
    if (o->config->act != SL_ACT_INT8) {
        for (size_t i = 0; i < values; i++)
            o->x[i] = (float)(i % 61) - 30;
        if (o->config->act == SL_ACT_BF16)
            o->config->kernels->round_bf16(o->bf16, o->x, (uint32_t)values);
        return;
    }
    for (size_t p = 0; p < o->n; p++) {
        int8_t *q = o->q + p * sl_q8_stride(cols);

        for (size_t i = 0; i < cols; i++) {
            q[i] = (int8_t)((i + p) % 253 - 126);
            o->q_scale[i / SL_Q8_GROUP * o->n + p] = 1;
            o->q_sum[i / 16 * o->n + p] += q[i];
        }
    }
}

static void product(const struct ops *o, const struct sl_matmul *mm,
                    const struct sl_acts *acts)
{
    sl_matmul_run(o->config->kernels, o->config->pool, o->y, o->m.rows, mm,
                  acts, o->config->act);
}

/* A product of few rows, then of as many as the time allows. */
static double measure(const struct ops *o)
{
    const struct sl_probe_ops_config *c = o->config;
    struct sl_matmul mm = {
        .m = &o->m,
        .n_blocks = sl_matrix_segment_blocks(&o->m),
        .w = {o->w},
        .scale = {sl_fmt_has_scales(o->m.fmt) ? o->scale : NULL},
    };
    struct sl_acts acts = {
        .n = o->n,
        .cols = o->m.cols,
        .x = o->x,
        .x_stride = o->m.cols,
        .q = o->q,
        .q_stride = sl_q8_stride(o->m.cols),
        .q_scale = o->q_scale,
        .q_sum = o->q_sum,
        .group_stride = o->n,
        .bf16 = o->bf16,
        .bf16_stride = (size_t)o->m.cols * c->kernels->bf16_bytes,
    };
    uint64_t time_ns = c->time_ns > 0 ? c->time_ns : OPS_TIME_NS;
    uint64_t begin = sl_clock_ns(), ns, turns = 0;
    uint32_t all = mm.n_blocks;
    double fit;

    if (FIRST * sl_pool_threads(c->pool) < all)
        mm.n_blocks = FIRST * sl_pool_threads(c->pool);
    product(o, &mm, &acts);
    ns = sl_clock_ns() - begin;
    fit = mm.n_blocks * (double)time_ns / TURNS / (double)(ns + 1);
    if (fit > mm.n_blocks)
        mm.n_blocks = fit < all ? (uint32_t)fit : all;
    begin = sl_clock_ns();
    do {
        product(o, &mm, &acts);
        turns++;
        ns = sl_clock_ns() - begin;
    } while (ns < time_ns);
    return 2.0 * mm.n_blocks * SL_BLOCK_ROWS * o->m.cols * o->n *
           (double)turns * 1e9 / (double)(ns > 0 ? ns : 1);
}

/* The first shape that fits, with no fewer rows than that takes; else the
 * least. */
static void choose(struct ops *o)
{
    const struct sl_probe_ops_config *c = o->config;
    uint64_t most =
        sl_meminfo_room(c->most_bytes > 0 ? c->most_bytes : MOST_BYTES);
    unsigned threads = sl_pool_threads(c->pool);

    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        uint32_t cols = shapes[i].cols, group = cols;

        if (c->group_cols > 0 && c->group_cols < cols)
            group = c->group_cols;
        o->n = shapes[i].positions;
        for (uint32_t rows = ROWS; rows >= SL_BLOCK_ROWS; rows /= 2) {
            o->m = (struct sl_matrix){c->fmt, rows * threads, cols, 1,
                                      sl_fmt_has_scales(c->fmt) ? group : 0};
            if (carve(o) <= most)
                return;
        }
    }
}

int sl_probe_ops(double *ops_per_s, const struct sl_probe_ops_config *config,
                 struct sl_error *err)
{
    struct ops o = {.config = config};

    choose(&o);
    if (sl_region_init(&o.region, carve(&o), "measuring arithmetic", err) != 0)
        return -1;
    carve(&o);
    fill(&o);
    *ops_per_s = measure(&o);
    sl_region_fini(&o.region);
    return 0;
}
