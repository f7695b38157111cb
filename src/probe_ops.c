#include "config.h"

#include <string.h>

#include "kernels/matmul.h"
#include "src/base/clock.h"
#include "src/base/mem.h"
#include "src/probe.h"

#define OPS_TIME_NS 100000000u
/* A thread's part of the weights, the inputs and the outputs stay in its own
 * cache together; one product takes long enough for a fork and a join to
 * vanish beside it. */
#define COLS      1024u
#define POSITIONS 128u
#define ROWS      512u /* a thread's, at most */

struct ops {
    const struct sl_probe_ops_config *config;
    struct sl_matrix m;
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
    size_t groups = (size_t)POSITIONS * (COLS / SL_Q8_GROUP), at = 0;
    size_t values = (size_t)POSITIONS * COLS;
    bool int8 = o->config->act == SL_ACT_INT8;
    bool bf16 = o->config->act == SL_ACT_BF16;

    o->w = take(o, &at, sl_matrix_bytes(&o->m));
    o->scale = take(o, &at, sl_matrix_scale_bytes(&o->m));
    o->y = take(o, &at, (size_t)POSITIONS * o->m.rows * sizeof *o->y);
    o->x = take(o, &at, int8 ? 0 : values * sizeof *o->x);
    o->bf16 = take(o, &at, bf16 ? values * o->config->kernels->bf16_bytes : 0);
    o->q = take(o, &at, int8 ? POSITIONS * sl_q8_stride(COLS) : 0);
    o->q_scale = take(o, &at, int8 ? groups * sizeof *o->q_scale : 0);
    o->q_sum = take(o, &at, int8 ? groups * sizeof *o->q_sum : 0);
    return at;
}

/* Numbers of every format that are small, normal, and of both signs. */
static void fill(struct ops *o)
{
    size_t values = (size_t)POSITIONS * COLS;

    memset(o->w, 0x2c, sl_matrix_bytes(&o->m));
    memset(o->scale, 0x2c, sl_matrix_scale_bytes(&o->m));
    if (o->config->act != SL_ACT_INT8) {
        for (size_t i = 0; i < values; i++)
            o->x[i] = (float)(i % 61) - 30;
        if (o->config->act == SL_ACT_BF16)
            o->config->kernels->round_bf16(o->bf16, o->x, (uint32_t)values);
        return;
    }
    for (size_t p = 0; p < POSITIONS; p++) {
        int8_t *q = o->q + p * sl_q8_stride(COLS);

        for (size_t i = 0; i < COLS; i++) {
            size_t g = i / SL_Q8_GROUP * POSITIONS + p;

            q[i] = (int8_t)((i + p) % 253 - 126);
            o->q_scale[g] = 1;
            o->q_sum[g] += q[i];
        }
    }
}

/* The best of the products: a floor is what the machine can do. */
static double measure(struct ops *o)
{
    const struct sl_probe_ops_config *c = o->config;
    struct sl_matmul mm = {
        .m = &o->m,
        .n_blocks = sl_matrix_segment_blocks(&o->m),
        .w = {o->w},
        .scale = {sl_fmt_packed(o->m.fmt) ? o->scale : NULL},
    };
    struct sl_acts acts = {
        .n = POSITIONS,
        .cols = COLS,
        .x = o->x,
        .x_stride = COLS,
        .q = o->q,
        .q_stride = sl_q8_stride(COLS),
        .q_scale = o->q_scale,
        .q_sum = o->q_sum,
        .group_stride = POSITIONS,
        .bf16 = o->bf16,
        .bf16_stride = (size_t)COLS * c->kernels->bf16_bytes,
    };
    uint64_t time_ns = c->time_ns ? c->time_ns : OPS_TIME_NS;
    uint64_t begin = sl_clock_ns(), now = begin, best = UINT64_MAX;

    do {
        uint64_t before = now;

        sl_matmul_run(c->kernels, c->pool, o->y, o->m.rows, &mm, &acts, c->act);
        now = sl_clock_ns();
        if (now - before < best)
            best = now - before;
    } while (now - begin < time_ns);
    return 2.0 * o->m.rows * COLS * POSITIONS * 1e9 / (double)(best ? best : 1);
}

int sl_probe_ops(double *ops_per_s, const struct sl_probe_ops_config *config,
                 struct sl_error *err)
{
    struct ops o = {.config = config};
    uint32_t rows = ROWS;

    o.m = (struct sl_matrix){config->fmt, 0, COLS, 1, 0};
    if (sl_fmt_packed(config->fmt))
        o.m.group_cols = config->group_cols > 0 && config->group_cols < COLS
                             ? config->group_cols
                             : COLS;
    do {
        o.m.rows = rows * sl_pool_threads(config->pool);
        rows /= 2;
    } while (config->most_bytes > 0 && carve(&o) > config->most_bytes &&
             rows >= SL_BLOCK_ROWS);
    if (sl_region_init(&o.region, carve(&o), "measuring arithmetic", err) != 0)
        return -1;
    carve(&o);
    fill(&o);
    *ops_per_s = measure(&o);
    sl_region_fini(&o.region);
    return 0;
}
