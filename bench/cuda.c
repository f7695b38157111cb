/*
 * bench_cuda: how fast are the kernels, against the device's own memory?
 *
 * usage: bench_cuda [DEVICE [ROWS [COLS [POSITIONS [FILE]]]]]
 *
 * Copies to, from and within the device; what a launch takes that has nothing
 * to do, on the host and on the device; products of a ROWS x COLS matrix with
 * the numbers of positions, up to POSITIONS, that different kernels serve;
 * attention of one layer with as many heads of 128 values as COLS holds.
 * Packed weights and more than 64 positions go both ways: by cuBLAS and in runs
 * of 64. ROWS are halved until the device has room for them as FP32.
 * Medians of seven turns by the device's own clock. Operations are held against
 * cuBLAS's plain FP16 product of POSITIONS, copies against the link.
 *
 * FILE gets a line for each: what it is, the most that the device lets it come
 * to, what it came to and the unit, with tabs between; 0 where the most is not
 * known. (bench/gpu-page reads it.)
 */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/median.h"
#include "kernels/cuda/cuda.h"
#include "offload/device.h"
#include "src/base/clock.h"
#include "src/base/mem.h"
#include "src/probe/probe.h"

#define REPEATS  7
#define MOST_N   1024u
#define LAUNCHES 1000u
#define HEAD_DIM 128u
/* As the planner has it (sl_cost_runs_to). */
#define MOST_IN_RUNS 256u
#define KEYS         2048u
#define PIECE        (UINT64_C(64) << 20) /* of what fills device memory */
/* By one copy, of memory that is pinned for it. */
#define MOST_COPIED (UINT64_C(256) << 20)

struct bench {
    struct sl_device *dev;
    struct sl_cuda c;
    struct sl_event *begin, *end;
    struct sl_device_rates rates;
    uint32_t rows, cols, most; /* positions */
    double f16_ops_per_s;      /* cuBLAS's, FP16 weights; 0: unknown */
    FILE *lines;               /* NULL: not wanted */
    /* device memory; any bytes do for weights, keys and values */
    void *w, *scale, *x, *y, *tables, *workspace;
    uint64_t w_bytes, workspace_bytes;
};

static uint64_t greater(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* --- measuring ----------------------------------------------------------- */

static int median_seconds(struct bench *b,
                          int (*fn)(struct bench *b, void *arg,
                                    struct sl_error *err),
                          void *arg, double *seconds, struct sl_error *err)
{
    const struct sl_device_ops *ops = b->dev->ops;
    double t[REPEATS];
    uint64_t at, ns;

    for (int i = -1; i < REPEATS; i++) { /* one to warm up */
        if (ops->record(b->dev, SL_QUEUE_COMPUTE, b->begin, err) != 0 ||
            fn(b, arg, err) != 0 ||
            ops->record(b->dev, SL_QUEUE_COMPUTE, b->end, err) != 0 ||
            ops->sync(b->dev, b->end, err) != 0 ||
            ops->span(b->dev, b->begin, b->end, &at, &ns, err) != 0)
            return -1;
        if (i >= 0)
            t[i] = (double)ns * 1e-9;
    }
    *seconds = bench_median(t, REPEATS);
    *seconds = *seconds > 0 ? *seconds : 1e-9;
    return 0;
}

static void line(struct bench *b, const char *what, double most, double came_to,
                 const char *unit)
{
    if (b->lines != NULL)
        fprintf(b->lines, "%s\t%.4g\t%.4g\t%s\n", what, most, came_to, unit);
}

/* --- launches ------------------------------------------------------------ */

/* One after another, as those of a token are. */
static int launches(struct bench *b, struct sl_error *err)
{
    const struct sl_device_ops *ops = b->dev->ops;
    uint64_t at, ns, host_ns = 0;
    double host_us, device_us;

    for (unsigned turn = 0; turn < 2; turn++) { /* one to warm up */
        if (ops->record(b->dev, SL_QUEUE_COMPUTE, b->begin, err) != 0)
            return -1;
        host_ns = sl_clock_ns();
        for (unsigned i = 0; i < LAUNCHES; i++) {
            if (sl_cuda_scale_plane(&b->c, b->y, b->scale, 8, err) != 0)
                return -1;
        }
        host_ns = sl_clock_ns() - host_ns;
        if (ops->record(b->dev, SL_QUEUE_COMPUTE, b->end, err) != 0 ||
            ops->sync(b->dev, b->end, err) != 0 ||
            ops->span(b->dev, b->begin, b->end, &at, &ns, err) != 0)
            return -1;
    }
    host_us = (double)host_ns * 1e-3 / LAUNCHES;
    device_us = (double)ns * 1e-3 / LAUNCHES;
    printf("a launch: %.2f us on the host, one every %.2f us on the device\n",
           host_us, device_us);
    line(b, "a launch, on the host", 0, host_us, "us");
    line(b, "a launch, on the device", 0, device_us, "us");
    return 0;
}

/* --- products ------------------------------------------------------------ */

struct product {
    struct sl_matrix m;
    uint32_t n;
};

static int multiply(struct bench *b, void *arg, struct sl_error *err)
{
    const struct product *p = arg;
    struct sl_cuda_matmul mm = {
        .m = &p->m,
        .n_blocks = sl_matrix_segment_blocks(&p->m),
        .w = {b->w},
        .scale = {sl_fmt_has_scales(p->m.fmt) ? b->scale : NULL},
    };

    return sl_cuda_matmul_run(&b->c, b->y, b->rows, SL_CUDA_F32, &mm, b->x,
                              b->cols, p->n, err);
}

/* The most that a product can come to, where cuBLAS makes it. */
static int find_ceiling(struct bench *b, struct sl_error *err)
{
    struct product p = {.m = {SL_FMT_F16, b->rows, b->cols, 1, 0},
                        .n = b->most};
    double seconds;

    if (!b->c.blas_ready || b->most <= SL_CUDA_SOME)
        return 0;
    if (median_seconds(b, multiply, &p, &seconds, err) != 0)
        return -1;
    b->f16_ops_per_s = 2.0 * b->rows * b->cols * b->most / seconds;
    return 0;
}

static int product(struct bench *b, enum sl_fmt fmt, uint32_t group, uint32_t n,
                   bool by_runs, struct sl_error *err)
{
    struct product p = {.m = {fmt, b->rows, b->cols, 1, 0}, .n = n};
    double seconds, bytes, ops = 2.0 * b->rows * b->cols * n;
    char name[16] = "", of_f16[16] = "-", what[64];

    if (sl_fmt_has_scales(fmt))
        p.m.group_cols = group != 0 ? group : b->cols;
    if (group != 0)
        snprintf(name, sizeof name, "%u", group);
    else if (sl_fmt_has_scales(fmt))
        snprintf(name, sizeof name, "row");
    b->c.runs_to[fmt] = by_runs ? n : 0;
    if (median_seconds(b, multiply, &p, &seconds, err) != 0)
        return -1;
    bytes = (double)(sl_matrix_bytes(&p.m) + sl_matrix_scale_bytes(&p.m));
    if (b->f16_ops_per_s > 0)
        snprintf(of_f16, sizeof of_f16, "%.0f%%",
                 100 * ops / seconds / b->f16_ops_per_s);
    printf("%-6s %5s %6u x %-6u %5u %10.3f %9.1f %6.0f%% %9.2f %7s%s\n",
           sl_fmt_name(fmt), name, b->rows, b->cols, n, seconds * 1e3,
           bytes / seconds * 1e-9, 100 * bytes / seconds / b->rates.vram_bps,
           ops / seconds * 1e-12, of_f16, by_runs ? "  in runs" : "");
    fflush(stdout);
    snprintf(what, sizeof what, "%s%s%s, %u positions%s", sl_fmt_name(fmt),
             name[0] != '\0' ? " " : "", name, n, by_runs ? " in runs" : "");
    /* What takes longer at the device's rates limits it. */
    if (b->f16_ops_per_s == 0 ||
        bytes / b->rates.vram_bps >= ops / b->f16_ops_per_s)
        line(b, what, b->rates.vram_bps * 1e-9, bytes / seconds * 1e-9, "GB/s");
    else
        line(b, what, b->f16_ops_per_s * 1e-12, ops / seconds * 1e-12,
             "TFLOP/s");
    return 0;
}

/* Whether so many positions may go in runs, in place of cuBLAS. */
static bool has_runs(const struct bench *b, enum sl_fmt fmt, uint32_t n)
{
    return b->c.blas_ready && n > SL_CUDA_SOME && n <= MOST_IN_RUNS &&
           fmt != SL_FMT_F16 && fmt != SL_FMT_F32;
}

static int products(struct bench *b, struct sl_error *err)
{
    static const uint32_t groups[] = {0, 128, 64};
    static const uint32_t positions[] = {1, 4, 16, 64, 128, 256, MOST_N};

    if (find_ceiling(b, err) != 0)
        return -1;
    printf("\n%-6s %5s %15s %5s %10s %9s %7s %9s %7s\n", "fmt", "group",
           "rows x cols", "n", "ms", "GB/s", "of VRAM", "TFLOP/s", "of F16");
    for (size_t i = 0; i < SL_FMT_COUNT * 3; i++) {
        enum sl_fmt fmt = (enum sl_fmt)(i / 3);

        if (i % 3 > 0 && !sl_fmt_has_scales(fmt))
            continue;
        for (size_t k = 0; k < sizeof positions / sizeof *positions; k++) {
            uint32_t n = positions[k], group = groups[i % 3];

            if (n > b->most)
                continue;
            if (product(b, fmt, group, n, false, err) != 0 ||
                (has_runs(b, fmt, n) &&
                 product(b, fmt, group, n, true, err) != 0))
                return -1;
        }
    }
    return 0;
}

/* --- attention ----------------------------------------------------------- */

struct attention {
    struct sl_cuda_kv kv;
    struct sl_cuda_rows rows;
    struct sl_cuda_item item;
};

static int attend(struct bench *b, void *arg, struct sl_error *err)
{
    const struct attention *a = arg;

    return sl_cuda_attend(&b->c, b->y, b->cols, b->x, b->cols, &a->kv, &a->rows,
                          err);
}

/* n queries that all see KEYS keys. */
static int attention(struct bench *b, uint32_t n, struct sl_error *err)
{
    uint32_t heads = b->cols / HEAD_DIM, pages = KEYS / SL_CUDA_PAGE_LEN;
    size_t stride = (size_t)heads * SL_CUDA_PAGE_LEN * HEAD_DIM;
    uint32_t *device = b->tables, host[3 * MOST_N + KEYS / SL_CUDA_PAGE_LEN];
    double seconds, bytes = 4.0 * KEYS * b->cols;
    char what[64];
    struct attention a = {
        .kv = {b->w, (uint16_t *)b->w + pages * stride, stride, heads,
               HEAD_DIM},
        .rows = {.n = n,
                 .position = device,
                 .n_keys = device + n,
                 .table = device + 2 * n,
                 .pages = device + 3 * n,
                 .n_items = 1},
        .item = {0, n, KEYS},
    };

    a.rows.items = &a.item;
    for (uint32_t i = 0; i < n; i++) {
        host[i] = KEYS - n + i;
        host[n + i] = KEYS;
        host[2 * n + i] = 0;
    }
    for (uint32_t i = 0; i < pages; i++)
        host[3 * n + i] = i;
    if (b->dev->ops->copy_up(b->dev, SL_QUEUE_COMPUTE, device, host,
                             (3 * n + pages) * sizeof *host, err) != 0 ||
        median_seconds(b, attend, &a, &seconds, err) != 0)
        return -1;
    printf("attention, %u heads, %u keys, %5u queries %10.3f ms %9.1f GB/s of "
           "keys and values (%.0f%% of VRAM) %9.2f TFLOP/s\n",
           heads, KEYS, n, seconds * 1e3, bytes / seconds * 1e-9,
           100 * bytes / seconds / b->rates.vram_bps,
           4.0 * n * KEYS * b->cols / seconds * 1e-12);
    snprintf(what, sizeof what, "attention, %u keys, %u queries", KEYS, n);
    if (n == 1)
        line(b, what, b->rates.vram_bps * 1e-9, bytes / seconds * 1e-9, "GB/s");
    else
        line(b, what, b->f16_ops_per_s * 1e-12,
             4.0 * n * KEYS * b->cols / seconds * 1e-12, "TFLOP/s");
    return 0;
}

/* --- the program --------------------------------------------------------- */

/* Bytes that are small normal numbers in every format. */
static int fill(struct bench *b, void *at, uint64_t bytes, struct sl_error *err)
{
    const struct sl_device_ops *ops = b->dev->ops;
    struct sl_region piece;
    int rc;

    if (sl_region_init(&piece, PIECE, "filling device memory", err) != 0)
        return -1;
    memset(piece.base, 0x2c, PIECE);
    rc = 0;
    for (uint64_t i = 0; rc == 0 && i < bytes; i += PIECE)
        rc = ops->copy_up(b->dev, SL_QUEUE_COMPUTE, (uint8_t *)at + i,
                          piece.base, bytes - i < PIECE ? bytes - i : PIECE,
                          err);
    if (rc == 0)
        rc = ops->record(b->dev, SL_QUEUE_COMPUTE, b->end, err);
    if (rc == 0)
        rc = ops->sync(b->dev, b->end, err);
    sl_region_fini(&piece);
    return rc;
}

static uint64_t y_bytes(const struct bench *b)
{
    return (uint64_t)MOST_N * greater(b->rows, b->cols) * 4;
}

/* Weights of the widest format lie in w, too. */
static void set_sizes(struct bench *b)
{
    struct sl_matrix m = {SL_FMT_F32, b->rows, b->cols, 1, 0};

    b->w_bytes = greater(sl_matrix_bytes(&m), (uint64_t)KEYS * b->cols * 4);
    b->workspace_bytes = greater(
        sl_cuda_matmul_workspace(&m, MOST_N),
        sl_cuda_attend_workspace(MOST_N, b->cols / HEAD_DIM, HEAD_DIM, KEYS));
}

static int setup(struct bench *b, int ordinal, struct sl_error *err)
{
    uint64_t x = (uint64_t)MOST_N * b->cols * 2, copied;
    struct sl_matrix m = {SL_FMT_INT8, b->rows, b->cols, 1, 64};
    const struct sl_device_ops *ops;

    if (sl_device_open_cuda(&b->dev, ordinal, NULL, err) != 0)
        return -1;
    ops = b->dev->ops;
    set_sizes(b);
    while (b->w_bytes + y_bytes(b) + b->workspace_bytes >
               b->dev->info.vram_free / 4 * 3 &&
           b->rows % 32 == 0) {
        b->rows /= 2;
        set_sizes(b);
    }
    m.rows = b->rows;
    copied = b->w_bytes < MOST_COPIED ? b->w_bytes : MOST_COPIED;
    if (sl_probe_device(&b->rates, b->dev, copied, err) != 0 ||
        ops->event_create(b->dev, &b->begin, true, err) != 0 ||
        ops->event_create(b->dev, &b->end, true, err) != 0 ||
        ops->alloc(b->dev, &b->w, b->w_bytes, err) != 0 ||
        ops->alloc(b->dev, &b->scale, sl_matrix_scale_bytes(&m), err) != 0 ||
        ops->alloc(b->dev, &b->x, x, err) != 0 ||
        ops->alloc(b->dev, &b->y, y_bytes(b), err) != 0 ||
        ops->alloc(b->dev, &b->tables, (4 * MOST_N + KEYS) * 4ull, err) != 0 ||
        ops->alloc(b->dev, &b->workspace, b->workspace_bytes, err) != 0 ||
        fill(b, b->w, b->w_bytes, err) != 0 ||
        fill(b, b->scale, sl_matrix_scale_bytes(&m), err) != 0 ||
        fill(b, b->x, x, err) != 0 ||
        sl_cuda_init(&b->c, ops->native_queue(b->dev, SL_QUEUE_COMPUTE), err) !=
            0)
        return -1;
    return sl_cuda_set_workspace(&b->c, b->workspace, b->workspace_bytes, err);
}

static void finish(struct bench *b)
{
    void *all[] = {b->w, b->scale, b->x, b->y, b->tables, b->workspace};

    if (b->dev == NULL)
        return;
    sl_cuda_fini(&b->c);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        b->dev->ops->free(b->dev, all[i]);
    if (b->begin != NULL)
        b->dev->ops->event_destroy(b->dev, b->begin);
    if (b->end != NULL)
        b->dev->ops->event_destroy(b->dev, b->end);
    sl_device_close(b->dev);
}

/* Bytes a second at most; 0: the link is unknown. A transfer is a bit of each
 * lane, of which framing and packet headers take their part. */
static double link_bps(const struct bench *b)
{
    const struct sl_device_info *d = &b->dev->info;

    return d->pcie_gtps * 1e9 / 8 * d->pcie_lanes;
}

/* " (91% of 16 GT/s x16)"; "" where the link is unknown. */
static const char *of_link(char text[48], const struct bench *b, double bps)
{
    const struct sl_device_info *d = &b->dev->info;
    double most = link_bps(b);

    text[0] = '\0';
    if (b->rates.pinned && most > 0)
        snprintf(text, 48, " (%.0f%% of %g GT/s x%u)", 100 * bps / most,
                 d->pcie_gtps, d->pcie_lanes);
    return text;
}

static int run(struct bench *b, int ordinal, struct sl_error *err)
{
    char up[48], down[48];

    if (setup(b, ordinal, err) != 0)
        return -1;
    printf("%s, compute capability %d.%d, %u multiprocessors\n",
           b->dev->info.name, b->dev->info.cc_major, b->dev->info.cc_minor,
           b->dev->info.n_sms);
    printf("copies: %.1f GB/s%s to the device, %.1f GB/s%s from it (%s); its "
           "memory %.1f GB/s (%.1f by its clocks)\n",
           b->rates.up_bps * 1e-9, of_link(up, b, b->rates.up_bps),
           b->rates.down_bps * 1e-9, of_link(down, b, b->rates.down_bps),
           b->rates.pinned ? "pinned" : "NOT pinned", b->rates.vram_bps * 1e-9,
           (double)b->dev->info.vram_bps * 1e-9);
    if (b->c.note[0] != '\0')
        printf("%s\n", b->c.note);
    line(b, "copies to the device", link_bps(b) * 1e-9, b->rates.up_bps * 1e-9,
         "GB/s");
    line(b, "copies from the device", link_bps(b) * 1e-9,
         b->rates.down_bps * 1e-9, "GB/s");
    line(b, "its memory, read and written",
         (double)b->dev->info.vram_bps * 1e-9, b->rates.vram_bps * 1e-9,
         "GB/s");
    if (launches(b, err) != 0 || products(b, err) != 0)
        return -1;
    printf("\n");
    if (attention(b, 1, err) != 0)
        return -1;
    return attention(b, b->most, err);
}

int main(int argc, char **argv)
{
    int ordinal = argc > 1 ? atoi(argv[1]) : SL_DEVICE_BEST;
    struct bench b = {
        .rows = argc > 2 ? (uint32_t)atoi(argv[2]) : 49152,
        .cols = argc > 3 ? (uint32_t)atoi(argv[3]) : 12288,
        .most = argc > 4 ? (uint32_t)atoi(argv[4]) : MOST_N,
    };
    struct sl_error err;
    int rc;

    if (b.most == 0 || b.most > MOST_N || b.rows == 0 || b.rows % 16 != 0 ||
        b.cols == 0 || b.cols % HEAD_DIM != 0) {
        fprintf(stderr,
                "bench_cuda: rows must be a multiple of 16, columns "
                "of 128, positions at most %u\n",
                MOST_N);
        return 2;
    }
    if (argc > 5 && (b.lines = fopen(argv[5], "w")) == NULL) {
        perror(argv[5]);
        return 1;
    }
    rc = run(&b, ordinal, &err);
    if (rc != 0)
        fprintf(stderr, "bench_cuda: %s\n", err.msg);
    finish(&b);
    if (b.lines != NULL && fclose(b.lines) != 0) {
        perror(argv[5]);
        rc = -1;
    }
    return rc != 0;
}
