#include "config.h"

#include "src/exec/exec_gpu_impl.h"

/* A prefill of a layer whose cache lies with the host: the GPU keeps keys and
 * values in scratch pages until they are copied down, the host puts them into
 * its cache when the next such layer comes, by which time they have long been
 * there. */

int sl_gpu_back_take(struct sl_gpu *g, struct sl_error *err)
{
    struct sl_device *dev = g->c.device;

    if (sl_gpu_back_drain(g, err) != 0)
        return -1;
    return dev->ops->queue_wait(dev, SL_QUEUE_COMPUTE, g->back.down, err);
}

int sl_gpu_back_give(struct sl_gpu *g, uint32_t layer, struct sl_error *err)
{
    struct sl_gpu_back *b = &g->back;
    struct sl_device *dev = g->c.device;
    uint64_t bytes = 0;

    for (size_t i = 0; i < g->pass->n_items; i++)
        bytes += sl_div_up(g->pass->run[i].n, SL_KV_PAGE_LEN) * g->page_values *
                 sizeof *b->k;
    if (dev->ops->record(dev, SL_QUEUE_COMPUTE, b->ready, err) != 0 ||
        dev->ops->queue_wait(dev, SL_QUEUE_DOWN, b->ready, err) != 0 ||
        dev->ops->copy_down(dev, SL_QUEUE_DOWN, b->host_k, b->k, bytes, err) !=
            0 ||
        (g->n_planes > 1 && dev->ops->copy_down(dev, SL_QUEUE_DOWN, b->host_v,
                                                b->v, bytes, err) != 0) ||
        dev->ops->record(dev, SL_QUEUE_DOWN, b->down, err) != 0)
        return -1;
    b->layer = layer;
    b->waiting = true;
    return 0;
}

struct back_job {
    const struct sl_gpu *g;
    const struct sl_pass_item *item;
    size_t first_page; /* of the item, in the scratch */
};

/* Heads of pages [begin, end) of an item. */
static void store_pages(void *arg, size_t begin, size_t end, unsigned worker)
{
    const struct back_job *job = arg;
    const struct sl_gpu *g = job->g;
    const struct sl_gpu_back *b = &g->back;
    uint32_t d = g->head_dim, n_pages;
    const uint32_t *pages = sl_kv_pages(g->c.kv, job->item->seq, &n_pages);
    float *row = g->back.rows + (size_t)worker * d;

    for (size_t unit = begin; unit < end; unit++) {
        size_t page = unit / g->n_kv_heads;
        uint32_t h = (uint32_t)(unit % g->n_kv_heads), rows = SL_KV_PAGE_LEN;
        size_t from = (job->first_page + page) * g->page_values +
                      (size_t)h * SL_KV_PAGE_LEN * d;
        void *k = sl_kv_at(g->c.kv, b->layer, pages[page], h, 0);
        void *v = sl_kv_at(g->c.kv, b->layer, pages[page], h, 1);

        if (job->item->n - page * SL_KV_PAGE_LEN < rows)
            rows = (uint32_t)(job->item->n - page * SL_KV_PAGE_LEN);
        for (uint32_t j = 0; j < rows; j++) {
            g->c.kernels->f16_to_f32(row, b->host_k + from + j * d, d);
            sl_kv_store(g->c.kv, g->c.kernels, k, j, row);
            if (g->n_planes == 1)
                continue;
            g->c.kernels->f16_to_f32(row, b->host_v + from + j * d, d);
            sl_kv_store(g->c.kv, g->c.kernels, v, j, row);
        }
    }
}

int sl_gpu_back_drain(struct sl_gpu *g, struct sl_error *err)
{
    struct sl_gpu_back *b = &g->back;
    struct back_job job = {.g = g};

    if (!b->waiting)
        return 0;
    if (g->c.device->ops->sync(g->c.device, b->down, err) != 0)
        return -1;
    b->waiting = false;
    for (size_t i = 0; i < g->pass->n_items; i++) {
        size_t n_pages = sl_div_up(g->pass->run[i].n, SL_KV_PAGE_LEN);

        job.item = &g->pass->run[i];
        sl_pool_for(g->c.pool, n_pages * g->n_kv_heads, 1, store_pages, &job);
        job.first_page += n_pages;
    }
    return 0;
}
