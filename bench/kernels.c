/*
 * bench_kernels: how fast are the matrix products, against plain reading?
 *
 * usage: bench_kernels [THREADS [ISA [FORMAT...]]]
 *        ISA: ref avx2 avxvnni avxvnni-evex avx512 amx; FORMAT: int4 q4_k ...,
 * else all
 *
 * One position (a product that only reads weights) on a matrix that fits the
 * caches and on one that does not; many positions (a product that only
 * computes). Attention and the rest: bench_ops.
 */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/median.h"
#include "kernels/matmul.h"
#include "src/base/mem.h"
#include "src/probe/probe.h"
#include "tests/isa_kernels.h"

#define BIG_BYTES (UINT64_C(384) << 20)
#define BIG_COLS  12288u
#define SIDE      4096u
#define MANY      512u

struct bench {
    struct sl_kernels k;
    struct sl_pool *pool;
    struct sl_region w, scale; /* shared by all matrices; any bytes do */
    float *x, *y, *q_scale;
    int8_t *q;
    int32_t *q_sum;
    char **names; /* of formats to be measured; none: all */
    int n_names;
    uint8_t *bf16;
    double read_gbps; /* of memory beyond the caches */
};

struct turn {
    struct bench *b;
    struct sl_matmul mm;
    struct sl_acts acts;
    enum sl_act act;
};

static void multiply(void *arg)
{
    struct turn *t = arg;

    sl_matmul_run(&t->b->k, t->b->pool, t->b->y, t->mm.m->rows, &t->mm,
                  &t->acts, t->act);
}

static void measure(struct bench *b, const struct sl_matrix *m, enum sl_act act,
                    size_t n)
{
    double bytes = (double)(sl_matrix_bytes(m) + sl_matrix_scale_bytes(m));
    struct turn t = {
        .b = b,
        .mm = {.m = m,
               .n_blocks = sl_matrix_segment_blocks(m),
               .w = {b->w.base},
               .scale = {(const uint16_t *)(const void *)b->scale.base}},
        .acts = {.n = n,
                 .cols = m->cols,
                 .x = b->x,
                 .x_stride = m->cols,
                 .q = b->q,
                 .q_stride = sl_q8_stride(m->cols),
                 .q_scale = b->q_scale,
                 .q_sum = b->q_sum,
                 .group_stride = n,
                 .bf16 = b->bf16,
                 .bf16_stride = (size_t)m->cols * b->k.bf16_bytes},
        .act = act,
    };
    double s, gbps;
    char group[16] = "";

    if (!sl_matmul_takes(&b->k, m, act))
        return;
    s = bench_median_seconds(multiply, &t);
    gbps = bytes / s * 1e-9;
    if (m->group_cols == m->cols)
        snprintf(group, sizeof group, "row");
    else if (m->group_cols != 0)
        snprintf(group, sizeof group, "%u", m->group_cols);
    printf("%-7s %-5s %5s %-5s %6u x %-6u %5zu %10.3f %8.2f %6.0f%% %9.1f\n",
           b->k.isa, sl_fmt_name(m->fmt), group, sl_act_name(act), m->rows,
           m->cols, n, s * 1e3, gbps, 100 * gbps / b->read_gbps,
           2.0 * m->rows * m->cols * (double)n / s * 1e-9);
    fflush(stdout);
}

/* Only formats that are named, if some are. */
static bool is_wanted(const struct bench *b, enum sl_fmt fmt)
{
    for (int i = 0; i < b->n_names; i++) {
        if (strcmp(b->names[i], sl_fmt_name(fmt)) == 0)
            return true;
    }
    return b->n_names == 0;
}

static void measure_all(struct bench *b, size_t n, bool big)
{
    static const uint32_t groups[] = {0, 64, 32}; /* 0: the row's */

    for (int i = 0; i < SL_FMT_COUNT * 3; i++) {
        enum sl_fmt fmt = (enum sl_fmt)(i / 3);
        struct sl_matrix m = {fmt, 16, big ? BIG_COLS : SIDE, 1, 0};

        if (!is_wanted(b, fmt))
            continue;
        if (sl_fmt_has_scales(fmt))
            m.group_cols = i % 3 ? groups[i % 3] : m.cols;
        else if (i % 3)
            continue;
        m.rows = big ? 16 * (uint32_t)(BIG_BYTES / sl_matrix_bytes(&m)) : SIDE;
        for (int act = 0; act < SL_ACT_COUNT; act++)
            measure(b, &m, (enum sl_act)act, n);
    }
}

static int setup(struct bench *b, unsigned threads, struct sl_error *err)
{
    struct sl_probe_dram_config dram = {.bytes = BIG_BYTES};
    struct sl_dram_rate read;
    size_t values = (size_t)MANY * SIDE;

    if (sl_pool_create(&b->pool, threads, err) != 0 ||
        sl_region_init(&b->w, BIG_BYTES, "weights", err) != 0 ||
        sl_region_init(&b->scale, BIG_BYTES / 8, "scales", err) != 0)
        return -1;
    dram.pool = b->pool;
    dram.buffer = b->w.base;
    if (sl_probe_dram(&read, &dram, err) != 0)
        return -1;
    b->read_gbps = read.bps * 1e-9;
    b->x = sl_zalloc_array(values, sizeof *b->x);
    b->y = sl_zalloc_array(values, sizeof *b->y);
    b->q = sl_zalloc_array(values + MANY * 64, sizeof *b->q);
    b->q_scale = sl_zalloc_array(values / SL_Q8_GROUP, sizeof *b->q_scale);
    b->q_sum = sl_zalloc_array(values / SL_Q8_GROUP * 2, sizeof *b->q_sum);
    b->bf16 = sl_zalloc_array(values, b->k.bf16_bytes);
    if (!b->x || !b->y || !b->q || !b->q_scale || !b->q_sum || !b->bf16)
        return sl_fail(err, SL_ERR_NOMEM, "no memory for the inputs");
    /* Bytes that are small normal numbers in every format. */
    memset(b->w.base, 0x2c, b->w.bytes);
    memset(b->scale.base, 0x2c, b->scale.bytes);
    for (size_t i = 0; i < values; i++)
        b->x[i] = (float)(i % 61) - 30;
    for (size_t i = 0; i < MANY; i++)
        b->k.quantize_q8(b->q + i * sl_q8_stride(SIDE), b->q_scale + i,
                         b->q_sum + i, MANY, b->x + i * SIDE, SIDE);
    b->k.round_bf16(b->bf16, b->x, (uint32_t)values);
    return 0;
}

int main(int argc, char **argv)
{
    unsigned threads = argc > 1 ? (unsigned)atoi(argv[1]) : 0;
    struct bench b = {.pool = NULL};
    struct sl_error err;

    if (argc > 3) {
        b.names = argv + 3;
        b.n_names = argc - 3;
    }
    sl_kernels_init(&b.k, SL_ISA_AMX);
    for (int isa = 0; argc > 2 && strcmp(b.k.isa, argv[2]) != 0; isa++) {
        if (isa == TEST_ISAS) {
            fprintf(stderr, "bench_kernels: this CPU has no %s\n", argv[2]);
            return 1;
        }
        test_isa_init(&b.k, isa);
    }
    if (setup(&b, threads, &err) != 0) {
        fprintf(stderr, "bench_kernels: %s\n", err.msg);
        return 1;
    }
    printf("%u threads; memory is read at %.2f GB/s\n", sl_pool_threads(b.pool),
           b.read_gbps);
    printf("%-7s %-5s %5s %-5s %15s %5s %10s %8s %7s %9s\n", "isa", "fmt",
           "group", "act", "rows x cols", "n", "ms", "GB/s", "of read",
           "GOP/s");
    measure_all(&b, 1, true);
    measure_all(&b, 1, false);
    measure_all(&b, 4, false);
    if (strcmp(b.k.isa, "ref") != 0)
        measure_all(&b, MANY, false);
    sl_region_fini(&b.w);
    sl_region_fini(&b.scale);
    sl_pool_destroy(b.pool);
    free(b.x);
    free(b.y);
    free(b.q);
    free(b.q_scale);
    free(b.q_sum);
    free(b.bf16);
    return 0;
}
