/*
 * bench_transport: how fast does a file flow through the ring, with nothing
 * to compute, by the size of a read and the number in flight?
 *
 * usage: bench_transport FILE [MIB_OF_A_READ,... [IN_FLIGHT,... [ROUNDS]]]
 *
 * All settings take turns, since a disk that others use drifts: compare
 * settings within a run, by their medians.
 */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "bench/median.h"
#include "offload/stream.h"
#include "src/base/clock.h"
#include "src/base/mem.h"

#define SLAB_BYTES  (UINT64_C(64) << 20)
#define SLOTS       4u
#define TURN_NS     UINT64_C(500000000)
#define MOST_VALUES 8u
#define MOST_ROUNDS 64u

struct list {
    double v[MOST_VALUES];
    size_t n;
};

struct transport {
    const char *path;
    struct sl_slab *slabs;
    struct sl_plan plan; /* everything streams */
};

static struct list parse(const char *text)
{
    struct list l = {.n = 0};

    for (char *end; l.n < MOST_VALUES; text = end + 1) {
        l.v[l.n] = strtod(text, &end);
        if (end == text || l.v[l.n] <= 0)
            break;
        l.n++;
        if (*end != ',')
            break;
    }
    return l;
}

/* Cuts the file into equal slabs, as far as whole ones go. */
static int lay_out(struct transport *t, struct sl_error *err)
{
    struct stat st;
    size_t n;

    if (stat(t->path, &st) != 0 || (uint64_t)st.st_size < SLOTS * SLAB_BYTES)
        return sl_fail(err, SL_ERR_USAGE, "%s is no file of 256 MiB or more",
                       t->path);
    n = (size_t)((uint64_t)st.st_size / SLAB_BYTES);
    t->slabs = sl_zalloc_array(n, sizeof *t->slabs);
    t->plan = (struct sl_plan){
        .tier = sl_zalloc_array(n, sizeof *t->plan.tier), /* disk */
        .worker = {sl_zalloc_array(n, 1)},                /* the host */
        .n_slabs = n,
        .at[SL_HOST].n_slots = SLOTS,
        .at[SL_HOST].slot_bytes = SLAB_BYTES,
        .at[SL_HOST].ring_bytes = SLOTS * SLAB_BYTES,
        .streamed_bytes = n * SLAB_BYTES,
    };
    if (t->slabs == NULL || t->plan.tier == NULL ||
        t->plan.worker[SL_PHASE_DECODE] == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory for %zu slabs", n);
    for (size_t i = 0; i < n; i++) {
        t->slabs[i].n_extents = 1;
        t->slabs[i].extents[0] =
            (struct sl_extent){.off = i * SLAB_BYTES, .bytes = SLAB_BYTES};
    }
    return 0;
}

/* Bytes/s over TURN_NS, after the ring was filled once. */
static int flow(double *bps, const struct transport *t, double read_mib,
                unsigned depth, struct sl_error *err)
{
    struct sl_stream_config config = {
        .path = t->path,
        .slabs = t->slabs,
        .plan = &t->plan,
        .direct = true,
        .depth = depth,
        .read_bytes = (uint32_t)(read_mib * (1 << 20)),
    };
    uint64_t begin = 0, now = 0, bytes = 0;
    struct sl_stream *st;
    int rc = 0;

    if (sl_stream_open(&st, &config, err) != 0)
        return -1;
    for (size_t i = 0; rc == 0 && (now == 0 || now - begin < TURN_NS); i++) {
        size_t slab = i % t->plan.n_slabs;
        const uint8_t *base;

        rc = sl_stream_get(st, slab, &base, err);
        if (rc == 0)
            sl_stream_put(st, slab);
        if (i + 1 < SLOTS)
            continue;
        now = sl_clock_ns();
        if (begin == 0)
            begin = now;
        else
            bytes += SLAB_BYTES;
    }
    sl_stream_close(st);
    *bps = (double)bytes * 1e9 / (double)(now - begin ? now - begin : 1);
    return rc;
}

static int measure(const struct transport *t, const struct list *sizes,
                   const struct list *depths, size_t rounds,
                   struct sl_error *err)
{
    double rate[MOST_VALUES * MOST_VALUES][MOST_ROUNDS];

    for (size_t r = 0; r < rounds; r++) {
        for (size_t i = 0; i < sizes->n * depths->n; i++) {
            if (flow(&rate[i][r], t, sizes->v[i / depths->n],
                     (unsigned)depths->v[i % depths->n], err) != 0)
                return -1;
        }
    }
    printf("%-10s %9s %8s %18s\n", "MiB a read", "in flight", "GB/s",
           "least .. most");
    for (size_t i = 0; i < sizes->n * depths->n; i++) {
        double median = bench_median(rate[i], rounds);

        printf("%-10g %9g %8.2f %8.2f .. %6.2f\n", sizes->v[i / depths->n],
               depths->v[i % depths->n], median * 1e-9, rate[i][0] * 1e-9,
               rate[i][rounds - 1] * 1e-9);
    }
    return 0;
}

int main(int argc, char **argv)
{
    struct transport t = {.path = argc > 1 ? argv[1] : ""};
    struct list sizes = parse(argc > 2 ? argv[2] : "0.25,1,4");
    struct list depths = parse(argc > 3 ? argv[3] : "2,4,8,16");
    size_t rounds = argc > 4 ? (size_t)atoi(argv[4]) : 5;
    struct sl_error err;
    int rc = 2;

    if (argc < 2 || sizes.n == 0 || depths.n == 0 || rounds < 1 ||
        rounds > MOST_ROUNDS) {
        fputs("usage: bench_transport FILE [MIB_OF_A_READ,... [IN_FLIGHT,... "
              "[ROUNDS]]]\n",
              stderr);
        return rc;
    }
    rc = lay_out(&t, &err) != 0 || measure(&t, &sizes, &depths, rounds, &err);
    if (rc != 0)
        fprintf(stderr, "bench_transport: %s\n", err.msg);
    free(t.slabs);
    free(t.plan.tier);
    free(t.plan.worker[SL_PHASE_DECODE]);
    return rc;
}
