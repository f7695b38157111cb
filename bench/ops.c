/*
 * bench_ops: how fast is what lies between the matrix products?
 *
 * usage: bench_ops [THREADS [KEYS [ISA]]]      ISA: ref avx2 avx512 amx
 *
 * Attention of one layer of 32 heads of 128 values: one query over KEYS keys
 * in pages (decoding: it reads them once), then with SHARE heads of queries for
 * each of HEADS / SHARE heads of keys, and KEYS queries over their own
 * keys (a prompt: it computes), which lie in rows of qkv or close together.
 * Then the operations on rows, GLM-130B's width.
 */
#include "config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/median.h"
#include "kernels/kernels.h"
#include "src/base/mem.h"
#include "src/base/pool.h"

#define HEADS      32u
#define SHARE      8u
#define D          128u
#define PAGE_LEN   16u
#define SCORE_ROWS SHARE           /* at least SL_ATTEND_QUERIES */
#define WIDE       (3 * HEADS * D) /* a row of qkv */
#define HIDDEN     12288u
#define INNER      32768u
#define ROWS       64u

struct bench {
    struct sl_kernels k;
    struct sl_pool *pool;
    uint32_t keys;
    struct sl_region kv, qkv, out, scores;
    const void **pages; /* (heads, 2, pages) */
    uint32_t *n_keys;
    struct sl_attend_args args; /* but for what a head changes */
    size_t head_step;           /* of new keys from head to head */
};

static float *floats(const struct sl_region *r)
{
    return (float *)(void *)r->base;
}

static uint32_t n_pages(const struct bench *b)
{
    return (uint32_t)sl_div_up(b->keys, PAGE_LEN);
}

/* --- attention ----------------------------------------------------------- */

static void attend_heads(void *arg, size_t begin, size_t end, unsigned worker)
{
    const struct bench *b = arg;

    for (size_t h = begin; h < end; h++) {
        struct sl_attend_args args = b->args;

        args.q += h * 3 * D;
        args.out += h * D;
        args.k_pages = b->pages + h * 2 * n_pages(b);
        args.v_pages = args.k_pages + n_pages(b);
        args.k_new += h * b->head_step;
        args.v_new += h * b->head_step;
        args.scores += (size_t)worker * SCORE_ROWS * b->keys;
        b->k.attend(&args);
    }
}

static void attend(void *arg)
{
    struct bench *b = arg;

    sl_pool_for(b->pool, HEADS, 1, attend_heads, b);
}

/* Places for a page of each kind; INT8 has its scales behind the values. */
static size_t page_bytes(enum sl_kv_kind kind)
{
    size_t values = (size_t)PAGE_LEN * D;

    return kind == SL_KV_F32   ? values * 4
           : kind == SL_KV_F16 ? values * 2
                               : values + PAGE_LEN * sizeof(struct sl_kv_scale);
}

static void decode(struct bench *b, enum sl_kv_kind kind, const char *name)
{
    size_t bytes = page_bytes(kind), n = (size_t)HEADS * 2 * n_pages(b);
    double s;

    for (size_t i = 0; i < n; i++)
        b->pages[i] = b->kv.base + i * bytes;
    for (size_t i = 0; i < b->keys; i++)
        b->n_keys[i] = b->keys;
    b->args.kv_kind = kind;
    b->args.n_paged = b->keys;
    b->args.n_q = 1;
    s = bench_median_seconds(attend, b);
    printf("%-7s decode %-4s  %26u keys %10.3f ms %8.2f GB/s\n", b->k.isa, name,
           b->keys, s * 1e3, (double)(n * bytes) / s * 1e-9);
}

static void attend_groups(void *arg, size_t begin, size_t end, unsigned worker)
{
    const struct bench *b = arg;

    for (size_t g = begin; g < end; g++) {
        struct sl_attend_args args = b->args;

        args.q += g * SHARE * D;
        args.out += g * SHARE * D;
        args.k_pages = b->pages + g * 2 * n_pages(b);
        args.v_pages = args.k_pages + n_pages(b);
        args.group = SHARE;
        args.q_head = args.out_head = D;
        args.scores += (size_t)worker * SCORE_ROWS * b->keys;
        args.score_rows = SCORE_ROWS;
        b->k.attend(&args);
    }
}

static void attend_shared(void *arg)
{
    struct bench *b = arg;

    sl_pool_for(b->pool, HEADS / SHARE, 1, attend_groups, b);
}

/* Of F16 pages, as decode left them. */
static void decode_shared(struct bench *b)
{
    size_t n = (size_t)HEADS / SHARE * 2 * n_pages(b);
    double s = bench_median_seconds(attend_shared, b);

    printf("%-7s decode f16  %2u heads share %11u keys %10.3f ms %8.2f GB/s\n",
           b->k.isa, SHARE, b->keys, s * 1e3,
           (double)(n * page_bytes(SL_KV_F16)) / s * 1e-9);
}

static void prefill(struct bench *b, bool gathered)
{
    double ops = 0, s;

    for (size_t i = 0; i < b->keys; i++) {
        b->n_keys[i] = (uint32_t)i + 1;
        ops += 4.0 * HEADS * D * (double)(i + 1);
    }
    b->args.n_paged = 0;
    b->args.n_q = b->keys;
    b->args.new_stride = gathered ? D : WIDE;
    b->head_step = gathered ? (size_t)b->keys * D * 2 : 3 * D;
    b->args.k_new = gathered ? floats(&b->kv) : floats(&b->qkv) + D;
    b->args.v_new = b->args.k_new + (gathered ? (size_t)b->keys * D : D);
    s = bench_median_seconds(attend, b);
    printf("%-7s prefill       %8s %17u keys %10.3f ms %8.2f GFLOP/s\n",
           b->k.isa, gathered ? "gathered" : "in qkv", b->keys, s * 1e3,
           ops / s * 1e-9);
}

/* --- rows ------------------------------------------------------------------
 */

static void norm_rows(void *arg)
{
    const struct bench *b = arg;
    const float *x = floats(&b->qkv);

    for (size_t i = 0; i < ROWS; i++)
        b->k.layer_norm(floats(&b->out), x + i * HIDDEN, x, x + HIDDEN, HIDDEN,
                        1e-5f);
}

static void rms_rows(void *arg)
{
    const struct bench *b = arg;
    const float *x = floats(&b->qkv);

    for (size_t i = 0; i < ROWS; i++)
        b->k.rms_norm(floats(&b->out), x + i * HIDDEN, x, HIDDEN, 1e-5f);
}

/* As of queries and keys: a norm a head. */
static void head_norms(void *arg)
{
    const struct bench *b = arg;
    const float *x = floats(&b->qkv);

    for (size_t i = 0; i < ROWS * HIDDEN / D; i++)
        b->k.rms_norm(floats(&b->out), x + i * D, x, D, 1e-6f);
}

static void quantize_rows(void *arg)
{
    const struct bench *b = arg;
    float *scale = floats(&b->scores);

    for (size_t i = 0; i < ROWS; i++)
        b->k.quantize_q8((int8_t *)b->out.base, scale,
                         (int32_t *)(void *)(scale + HIDDEN), 1,
                         floats(&b->qkv) + i * HIDDEN, HIDDEN);
}

static void rope_rows(void *arg)
{
    const struct bench *b = arg;
    float *cos_row = floats(&b->out), *sin_row = cos_row + D / 2;

    for (size_t i = 0; i < D / 2; i++) { /* lengths stay what they are */
        cos_row[i] = 0.8f;
        sin_row[i] = 0.6f;
    }
    for (size_t i = 0; i < ROWS * HIDDEN / D; i++)
        b->k.rope(floats(&b->qkv) + i * D, cos_row, sin_row, D / 2);
}

static void inter_rows(void *arg)
{
    const struct bench *b = arg;
    float *cos_row = floats(&b->out), *sin_row = cos_row + D / 2;

    for (size_t i = 0; i < D / 2; i++) {
        cos_row[i] = 0.8f;
        sin_row[i] = 0.6f;
    }
    for (size_t i = 0; i < ROWS * HIDDEN / D; i++)
        b->k.rope_inter(floats(&b->qkv) + i * D, cos_row, sin_row, D / 2);
}

static void swiglu_rows(void *arg)
{
    const struct bench *b = arg;
    const float *x = floats(&b->qkv);

    for (size_t i = 0; i < ROWS / 8; i++)
        b->k.swiglu(floats(&b->out), x + i * INNER, x + (i + 8) * INNER, INNER);
}

static void geglu_rows(void *arg)
{
    const struct bench *b = arg;
    const float *x = floats(&b->qkv);

    for (size_t i = 0; i < ROWS / 8; i++)
        b->k.geglu(floats(&b->out), x + i * INNER, x + (i + 8) * INNER, INNER);
}

static void add_rows(void *arg)
{
    const struct bench *b = arg;

    for (size_t i = 0; i < ROWS; i++)
        b->k.scale_add(floats(&b->out), 1.5f, floats(&b->qkv) + i * HIDDEN,
                       HIDDEN);
}

static void rows(struct bench *b)
{
    static const struct {
        const char *name;
        void (*fn)(void *arg);
        double values;
    } all[] = {
        {"layer_norm", norm_rows, ROWS * (double)HIDDEN},
        {"rms_norm", rms_rows, ROWS * (double)HIDDEN},
        {"rms of heads", head_norms, ROWS * (double)HIDDEN},
        {"quantize_q8", quantize_rows, ROWS * (double)HIDDEN},
        {"rope", rope_rows, ROWS * (double)HIDDEN},
        {"rope_inter", inter_rows, ROWS * (double)HIDDEN},
        {"swiglu", swiglu_rows, ROWS / 8 * (double)INNER},
        {"geglu", geglu_rows, ROWS / 8 * (double)INNER},
        {"scale_add", add_rows, ROWS * (double)HIDDEN},
    };

    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        double s = bench_median_seconds(all[i].fn, b);

        printf("%-7s %-12s 1 thread %8.0f values %15.3f ms %8.2f G/s\n",
               b->k.isa, all[i].name, all[i].values, s * 1e3,
               all[i].values / s * 1e-9);
    }
}

/* --- the program --------------------------------------------------------- */

static int setup(struct bench *b, unsigned threads, struct sl_error *err)
{
    size_t values = (size_t)b->keys * WIDE, least = 2 * ROWS * HIDDEN;
    size_t pages = (size_t)HEADS * 2 * n_pages(b);

    values = values > least ? values : least;
    if (sl_pool_create(&b->pool, threads, err) != 0 ||
        sl_region_init(&b->kv, pages * page_bytes(SL_KV_F32), "keys", err) ||
        sl_region_init(&b->qkv, values * 4, "qkv", err) != 0 ||
        sl_region_init(&b->out, values * 4, "outputs", err) != 0 ||
        sl_region_init(&b->scores,
                       sl_pool_threads(b->pool) * SCORE_ROWS *
                               (uint64_t)b->keys * 4 +
                           HIDDEN * 8,
                       "scores", err) != 0)
        return -1;
    b->pages = sl_zalloc_array(pages, sizeof *b->pages);
    b->n_keys = sl_zalloc_array(b->keys, sizeof *b->n_keys);
    if (b->pages == NULL || b->n_keys == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory for the tables");
    /* Bytes that are small normal numbers in every format. */
    memset(b->kv.base, 0x2c, b->kv.bytes);
    for (size_t i = 0; i < values; i++) {
        floats(&b->qkv)[i] = ((float)(i % 61) - 30) / 30;
        floats(&b->out)[i] = 0.5f;
    }
    b->args = (struct sl_attend_args){
        .out = floats(&b->out),
        .out_stride = HEADS * D,
        .q = floats(&b->qkv),
        .q_stride = WIDE,
        .n_keys = b->n_keys,
        .page_len = PAGE_LEN,
        .d = D,
        .k_new = floats(&b->qkv),
        .v_new = floats(&b->qkv),
        .new_stride = WIDE,
        .scale = 1 / sqrtf(D),
        .scores = floats(&b->scores),
    };
    return 0;
}

int main(int argc, char **argv)
{
    unsigned threads = argc > 1 ? (unsigned)atoi(argv[1]) : 0;
    struct bench b = {.keys = argc > 2 ? (uint32_t)atoi(argv[2]) : 1024};
    struct sl_error err;

    sl_kernels_init(&b.k, SL_ISA_AMX);
    for (int isa = SL_ISA_REF; argc > 3 && strcmp(b.k.isa, argv[3]) != 0;
         isa++) {
        if (isa > SL_ISA_AMX) {
            fprintf(stderr, "bench_ops: this CPU has no %s\n", argv[3]);
            return 1;
        }
        sl_kernels_init(&b.k, (enum sl_isa)isa);
    }
    if (b.keys == 0 || setup(&b, threads, &err) != 0) {
        fprintf(stderr, "bench_ops: %s\n", b.keys ? err.msg : "no keys");
        return 1;
    }
    decode(&b, SL_KV_F32, "f32");
    decode(&b, SL_KV_F16, "f16");
    decode_shared(&b);
    decode(&b, SL_KV_INT8, "int8");
    prefill(&b, false);
    prefill(&b, true);
    rows(&b);
    sl_region_fini(&b.kv);
    sl_region_fini(&b.qkv);
    sl_region_fini(&b.out);
    sl_region_fini(&b.scores);
    sl_pool_destroy(b.pool);
    free(b.pages);
    free(b.n_keys);
    return 0;
}
