/*
 * bench_pack: how fast do FP16 weights become quantized ones?
 *
 * usage: bench_pack [THREADS]
 *
 * Converting is limited by the disk where this reads faster than the disk.
 */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>

#include "bench/median.h"
#include "quant/pack.h"
#include "src/base/half.h"
#include "src/base/mem.h"

#define ROWS 1024u
#define COLS 12288u

struct bench {
    struct sl_pool *pool;
    struct sl_region source, w, scale;
    struct sl_matrix m;
    enum sl_scale_rule rule;
};

static void pack(void *arg)
{
    struct bench *b = arg;
    struct sl_pack_source source = {.rows = b->source.base, .fmt = SL_FMT_F16};
    struct sl_pack_error e = {0};

    sl_pack_rows(b->w.base, (uint16_t *)(void *)b->scale.base, &b->m, b->rule,
                 &source, ROWS, b->pool, &e);
}

static void measure(struct bench *b, enum sl_fmt fmt, uint32_t group_cols,
                    enum sl_scale_rule rule)
{
    double seconds;
    char group[16] = "row";

    b->m =
        (struct sl_matrix){fmt, ROWS, COLS, 1, group_cols ? group_cols : COLS};
    b->rule = rule;
    seconds = bench_median_seconds(pack, b);
    if (group_cols != 0)
        snprintf(group, sizeof group, "%u", group_cols);
    printf("%-5s %5s %-7s %10.3f ms %8.2f GB/s of FP16\n", sl_fmt_name(fmt),
           group, rule == SL_SCALE_MSE ? "mse" : "absmax", seconds * 1e3,
           (double)b->source.bytes / seconds * 1e-9);
}

int main(int argc, char **argv)
{
    unsigned threads = argc > 1 ? (unsigned)atoi(argv[1]) : 0;
    struct bench b = {.pool = NULL};
    struct sl_error err;
    uint64_t state = 1;

    if (sl_pool_create(&b.pool, threads, &err) != 0 ||
        sl_region_init(&b.source, (uint64_t)ROWS * COLS * 2, "source", &err) ||
        sl_region_init(&b.w, (uint64_t)ROWS * COLS, "weights", &err) != 0 ||
        sl_region_init(&b.scale, (uint64_t)ROWS * COLS / 8, "scales", &err)) {
        fprintf(stderr, "bench_pack: %s\n", err.msg);
        return 1;
    }
    for (size_t i = 0; i < (size_t)ROWS * COLS; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        ((uint16_t *)(void *)b.source.base)[i] =
            sl_float_to_half((float)(state >> 40) / 16777216.0f * 0.1f - 0.05f);
    }
    printf("%u threads\n", sl_pool_threads(b.pool));
    measure(&b, SL_FMT_INT8, 0, SL_SCALE_ABSMAX);
    measure(&b, SL_FMT_INT4, 0, SL_SCALE_ABSMAX);
    measure(&b, SL_FMT_INT4, 128, SL_SCALE_MSE);
    measure(&b, SL_FMT_INT4, 64, SL_SCALE_MSE);
    measure(&b, SL_FMT_INT4, 32, SL_SCALE_MSE);
    sl_region_fini(&b.source);
    sl_region_fini(&b.w);
    sl_region_fini(&b.scale);
    sl_pool_destroy(b.pool);
    return 0;
}
