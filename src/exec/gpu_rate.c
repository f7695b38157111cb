#include "config.h"

#include <string.h>

#include "kernels/cuda/cuda.h"
#include "src/base/half.h"
#include "src/base/mem.h"
#include "src/exec/exec_gpu.h"
#include "src/probe/probe.h"

/* Products in a row, after one that makes the library ready. */
#define TURNS       8u
#define MOST_ROUNDS 16u

/* Rows of the products among a stage's launches: one thread block. */
#define FEW_ROWS 16u

/* side x side FP16 weights by n rows of inputs. */
struct rate {
    struct sl_device *dev;
    struct sl_cuda *cuda;
    struct sl_matrix m;
    uint32_t n;
    uint16_t *w, *x;
    float *y;
    void *workspace;
    struct sl_region host;
    struct sl_event *begin, *end;
};

/* Small numbers of both signs: a device is faster on zeros. */
static int fill(struct rate *r, void *to, uint64_t values, struct sl_error *err)
{
    const struct sl_device_ops *ops = r->dev->ops;
    uint16_t *v = (uint16_t *)(void *)r->host.base;

    for (uint64_t i = 0; i < values; i++)
        v[i] = sl_float_to_half((float)((int)(i * 40503u % 251) - 125) / 64);
    if (ops->copy_up(r->dev, SL_QUEUE_COMPUTE, to, v, 2 * values, err) != 0 ||
        ops->record(r->dev, SL_QUEUE_COMPUTE, r->end, err) != 0)
        return -1;
    return ops->sync(r->dev, r->end, err);
}

static int prepare(struct rate *r, struct sl_error *err)
{
    const struct sl_device_ops *ops = r->dev->ops;
    uint64_t side = r->m.cols, most = side > r->n ? side : r->n;
    uint64_t workspace = sl_cuda_matmul_workspace(&r->m, r->n);

    if (ops->event_create(r->dev, &r->begin, true, err) != 0 ||
        ops->event_create(r->dev, &r->end, true, err) != 0 ||
        sl_region_init(&r->host, 2 * side * most, "measuring products", err) !=
            0 ||
        ops->alloc(r->dev, (void **)&r->w, 2 * side * side, err) != 0 ||
        ops->alloc(r->dev, (void **)&r->x, 2 * side * r->n, err) != 0 ||
        ops->alloc(r->dev, (void **)&r->y, 4 * side * r->n, err) != 0 ||
        ops->alloc(r->dev, &r->workspace, workspace, err) != 0 ||
        fill(r, r->w, side * side, err) != 0 ||
        fill(r, r->x, side * r->n, err) != 0)
        return -1;
    return sl_cuda_set_workspace(r->cuda, r->workspace, workspace, err);
}

static int product(struct rate *r, const struct sl_matrix *m, uint32_t n,
                   struct sl_error *err)
{
    struct sl_cuda_matmul mm = {
        .m = m,
        .n_blocks = sl_matrix_segment_blocks(m),
        .w = {r->w},
    };

    return sl_cuda_matmul_run(r->cuda, r->y, m->rows, SL_CUDA_F32, &mm, r->x,
                              m->cols, n, err);
}

static int multiply(void *arg, struct sl_error *err)
{
    struct rate *r = arg;

    return product(r, &r->m, r->n, err);
}

static int norm(struct rate *r, struct sl_error *err)
{
    uint32_t side = r->m.cols;

    return sl_cuda_rms_norm(r->cuda, r->x, side, NULL, r->y,
                            (const float *)(const void *)r->w, NULL, 1, side,
                            1e-5f, err);
}

/* SL_STAGE_LAUNCHES kernels of one position that wait for each other, as those
 * of a stage do: norms take what others than products do. */
static int launch(void *arg, struct sl_error *err)
{
    struct rate *r = arg;
    struct sl_matrix few = r->m;

    few.rows = FEW_ROWS;
    if (norm(r, err) != 0 || product(r, &few, 1, err) != 0 ||
        product(r, &few, 1, err) != 0)
        return -1;
    return norm(r, err);
}

/* Seconds of a turn. */
static int measure(double *seconds, struct rate *r,
                   int (*turn)(void *arg, struct sl_error *err),
                   struct sl_error *err)
{
    const struct sl_device_work w = {
        .dev = r->dev,
        .queue = SL_QUEUE_COMPUTE,
        .begin = r->begin,
        .end = r->end,
        .turns = TURNS,
        .most_rounds = MOST_ROUNDS,
        .turn = turn,
        .arg = r,
    };
    uint64_t ns;

    if (sl_probe_device_work(&ns, &w, err) != 0)
        return -1;
    *seconds = (double)ns * 1e-9 / TURNS;
    return 0;
}

static void finish(struct rate *r)
{
    const struct sl_device_ops *ops = r->dev->ops;
    void *all[] = {r->w, r->x, r->y, r->workspace};
    struct sl_error ignored;

    /* After a failure products may be under way. */
    if (r->end != NULL &&
        ops->record(r->dev, SL_QUEUE_COMPUTE, r->end, &ignored) == 0)
        ops->sync(r->dev, r->end, &ignored);
    sl_cuda_set_workspace(r->cuda, NULL, 0, &ignored);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        ops->free(r->dev, all[i]);
    ops->event_destroy(r->dev, r->begin);
    ops->event_destroy(r->dev, r->end);
    sl_region_fini(&r->host);
}

int sl_gpu_measure(struct sl_kernel_rates *rates, struct sl_cuda *cuda,
                   struct sl_device *device, uint32_t side, uint32_t n,
                   struct sl_error *err)
{
    struct rate r = {
        .dev = device,
        .cuda = cuda,
        .m = {SL_FMT_F16, side, side, 1, 0},
        .n = n,
    };
    double product_s, stage_s;
    int rc = prepare(&r, err);

    if (rc == 0)
        rc = measure(&product_s, &r, multiply, err);
    if (rc == 0)
        rc = measure(&stage_s, &r, launch, err);
    if (rc == 0)
        *rates = (struct sl_kernel_rates){
            .ops_per_s = 2.0 * side * side * n / product_s,
            .stage_s = stage_s,
        };
    finish(&r);
    return rc;
}
