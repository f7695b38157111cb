#include "config.h"

#include <string.h>

#include "offload/trace.h"
#include "offload/upload.h"
#include "src/exec/exec_gpu_impl.h"

int sl_gpu_wait(struct sl_gpu *g, enum sl_queue queue, struct sl_event *event,
                struct sl_error *err)
{
    struct sl_device *dev = g->c.device;

    if (dev->ops->record(dev, queue, event, err) != 0)
        return -1;
    return dev->ops->sync(dev, event, err);
}

/* --- the tables of a pass ------------------------------------------------ */

/* Pages of all sequences, and scratch pages, that a pass looks at. */
static void count_pages(const struct sl_gpu *g, uint64_t *pages,
                        uint64_t *back_pages)
{
    *pages = *back_pages = 0;
    for (size_t i = 0; i < g->pass->n_items; i++) {
        uint32_t n;

        sl_kv_pages(g->c.kv, g->pass->run[i].seq, &n);
        *pages += n;
        if (g->pass->phase == SL_PHASE_PREFILL)
            *back_pages += sl_div_up(g->pass->run[i].n, SL_KV_PAGE_LEN);
    }
}

/* Item i's rows and lists; *page and *back_page are where its lists begin. */
static void fill_item(struct sl_gpu *g, const struct sl_gpu_tables *t, size_t i,
                      uint32_t *page, uint32_t *back_page)
{
    const struct sl_pass_item *r = &g->pass->run[i];
    uint32_t n_pages;
    const uint32_t *pages = sl_kv_pages(g->c.kv, r->seq, &n_pages);

    g->items[i] = (struct sl_cuda_item){
        .row = r->row, .n = r->n, .tree = r->parents != NULL};
    for (uint32_t j = 0; j < r->n; j++) {
        uint32_t row = r->row + j, n_keys = g->pass->n_keys[row];

        t->ids[row] = g->pass->items[i].ids[j];
        t->position[row] = r->base + j;
        t->table[row] = *page;
        t->back_table[row] = *back_page;
        if (g->wait.n_layers > 0)
            t->turn_table[row] = g->wait.table[i];
        t->fork[row] = UINT32_MAX;
        t->path[row] = 0;
        if (r->parents != NULL) {
            t->fork[row] = r->base - r->n_tree;
            t->path[row] = sl_pass_path(r, j);
        }
        if (n_keys > g->items[i].most_keys)
            g->items[i].most_keys = n_keys;
    }
    memcpy(t->pages + *page, pages, n_pages * sizeof *pages);
    *page += n_pages;
    if (g->pass->phase != SL_PHASE_PREFILL)
        return;
    n_pages = (uint32_t)sl_div_up(r->n, SL_KV_PAGE_LEN);
    for (uint32_t p = *back_page; p < *back_page + n_pages; p++)
        t->back_pages[p] = p;
    *back_page += n_pages;
}

/* Side by side in pinned memory: many small copies would each cost a hand-over.
 */
static void fill_tables(struct sl_gpu *g, const struct sl_gpu_tables *t)
{
    const struct sl_pass *pass = g->pass;
    size_t half = g->c.shape.mf->hp.rope_dims / 2;
    uint32_t page = 0, back_page = 0;

    if (g->wait.n_layers > 0)
        sl_kv_turns_make(&g->wait.turns, g->c.kv, pass, g->wait.table,
                         t->turn_pages);
    for (size_t i = 0; i < pass->n_items; i++)
        fill_item(g, t, i, &page, &back_page);
    memcpy(t->cos, pass->cos, pass->n * half * sizeof *t->cos);
    memcpy(t->sin, pass->sin, pass->n * half * sizeof *t->sin);
    memcpy(t->n_keys, pass->n_keys, pass->n * sizeof *t->n_keys);
    memcpy(t->rows, pass->rows, pass->n_rows * sizeof *t->rows);
}

static bool has_trees(const struct sl_pass *pass)
{
    for (size_t i = 0; i < pass->n_items; i++) {
        if (pass->run[i].parents != NULL)
            return true;
    }
    return false;
}

/* Makes the tables and sends them up in one copy. */
static int send_tables(struct sl_gpu *g, struct sl_error *err)
{
    const struct sl_pass *pass = g->pass;
    struct sl_device *dev = g->c.device;
    struct sl_carver host = {g->host_tables, 0}, device = {g->tables, 0};
    uint32_t half = g->c.shape.mf->hp.rope_dims / 2;
    struct sl_gpu_tables t;
    uint64_t pages, back_pages, turn_pages;

    count_pages(g, &pages, &back_pages);
    turn_pages = g->wait.n_layers > 0 ? pages : 0;
    sl_gpu_carve_tables(&t, &host, pass->n, pass->n_rows, pages, back_pages,
                        turn_pages, half);
    sl_gpu_carve_tables(&g->t, &device, pass->n, pass->n_rows, pages,
                        back_pages, turn_pages, half);
    fill_tables(g, &t);
    g->rows = (struct sl_cuda_rows){
        .n = pass->n,
        .position = g->t.position,
        .n_keys = g->t.n_keys,
        .table = g->t.table,
        .pages = g->t.pages,
        .cos = g->t.cos,
        .sin = g->t.sin,
        .items = g->items,
        .n_items = pass->n_items,
        .fork = has_trees(pass) ? g->t.fork : NULL,
        .path = g->t.path,
    };
    g->back_rows = g->rows;
    g->back_rows.table = g->t.back_table;
    g->back_rows.pages = g->t.back_pages;
    return dev->ops->copy_up(dev, SL_QUEUE_COMPUTE, g->tables, g->host_tables,
                             host.used, err);
}

/* --- the pass ------------------------------------------------------------ */

/* The thread may have worked with another run's device since the last time. */
static int attach(const struct sl_gpu *g, struct sl_error *err)
{
    return g->c.device->ops->attach(g->c.device, err);
}

static int gpu_begin(struct sl_exec_engine *e, const struct sl_pass *pass,
                     struct sl_error *err)
{
    struct sl_gpu *g = (struct sl_gpu *)e;

    if (attach(g, err) != 0)
        return -1;
    g->pass = pass;
    g->has_logits = false;
    /* High planes alone are those of the device: nothing is copied. */
    if (!pass->high_only)
        sl_upload_begin(g->c.upload, pass->phase);
    if (send_tables(g, err) != 0)
        return -1;
    return g->wait.n_layers > 0 ? sl_gpu_waiting_begin(g, err) : 0;
}

static int gpu_embed(struct sl_exec_engine *e, bool *done, struct sl_error *err)
{
    struct sl_gpu *g = (struct sl_gpu *)e;
    const struct sl_modelfile *mf = g->c.shape.mf;

    /* Of the embeddings only the head's matrix is ever on the device. */
    if (sl_modelfile_embedding(mf)->spec.slot != SL_SLOT_HEAD ||
        sl_modelfile_matrix(mf, SL_SLOT_EMBED_POSITIONS, mf->hp.n_layers))
        return 0;
    for (size_t i = 0; i < g->c.partition->n_slabs - g->first_head_slab; i++) {
        if (g->head_base[i] == NULL)
            return 0;
    }
    *done = true;
    return sl_gpu_embed(g, err);
}

static float *gpu_host_x(struct sl_exec_engine *e)
{
    return ((struct sl_gpu *)e)->host_x;
}

static uint64_t x_bytes(const struct sl_gpu *g)
{
    return (uint64_t)g->pass->n * g->hidden * sizeof *g->x;
}

/* On the compute queue, so that no event is needed before the kernels that read
 * x. */
static int gpu_load(struct sl_exec_engine *e, struct sl_error *err)
{
    struct sl_gpu *g = (struct sl_gpu *)e;
    struct sl_device *dev = g->c.device;

    return dev->ops->copy_up(dev, SL_QUEUE_COMPUTE, g->x, g->pass->x,
                             x_bytes(g), err);
}

/* The one wait within a pass: the CPU goes on with what the device has
 * computed. */
static int gpu_store(struct sl_exec_engine *e, struct sl_error *err)
{
    struct sl_gpu *g = (struct sl_gpu *)e;
    struct sl_device *dev = g->c.device;

    if (dev->ops->copy_down(dev, SL_QUEUE_COMPUTE, g->pass->x, g->x, x_bytes(g),
                            err) != 0)
        return -1;
    return sl_gpu_wait(g, SL_QUEUE_COMPUTE, g->done, err);
}

/* Only where a trace is written: an event around each slab's kernels has its
 * price. */
static int mark(struct sl_gpu *g, size_t slab, unsigned end,
                struct sl_error *err)
{
    struct sl_device *dev = g->c.device;

    if (g->marks == NULL)
        return 0;
    g->ran[slab] = true;
    return dev->ops->record(dev, SL_QUEUE_COMPUTE, g->marks[2 * slab + end],
                            err);
}

/* A slab's parts; those that are high planes with the parts of the next slab,
 * if it was had (low_base). */
static int run_parts(struct sl_gpu *g, size_t slab, const uint8_t *base,
                     const uint8_t *low_base, struct sl_error *err)
{
    const struct sl_partition *partition = g->c.partition;
    const struct sl_part *low =
        &partition->parts[partition->first_part[slab + 1]];
    int rc = 0;

    g->low_base = low_base;
    for (uint32_t p = partition->first_part[slab];
         rc == 0 && p < partition->first_part[slab + 1]; p++) {
        const struct sl_part *part = &partition->parts[p];
        bool both = part->of == SL_PART_HIGH && low_base != NULL;

        g->low = both ? low++ : NULL;
        rc = sl_gpu_run_part(g, part, base, err);
    }
    return rc;
}

/* High planes wait for their low ones, unless they are all that is wanted. */
static int run_low(struct sl_gpu *g, size_t slab, const uint8_t *base,
                   struct sl_error *err)
{
    if (mark(g, slab, 0, err) != 0 ||
        run_parts(g, slab - 1, g->high_base, base, err) != 0 ||
        mark(g, slab, 1, err) != 0 ||
        sl_upload_put(g->c.upload, slab - 1, err) != 0)
        return -1;
    return sl_upload_put(g->c.upload, slab, err);
}

static int gpu_run(struct sl_exec_engine *e, size_t slab, struct sl_error *err)
{
    struct sl_gpu *g = (struct sl_gpu *)e;
    enum sl_part_of of = sl_partition_of(g->c.partition, slab);
    const void *base;

    if (sl_upload_get(g->c.upload, slab, &base, err) != 0)
        return -1;
    if (of == SL_PART_LOW)
        return run_low(g, slab, base, err);
    if (of == SL_PART_HIGH && !g->pass->high_only) {
        g->high_base = base;
        return 0;
    }
    if (mark(g, slab, 0, err) != 0)
        return -1;
    if (slab >= g->first_head_slab) {
        g->has_logits = true;
        if (g->c.plan->tier[slab] == SL_TIER_VRAM)
            g->head_base[slab - g->first_head_slab] = base;
    }
    if (run_parts(g, slab, base, NULL, err) != 0 || mark(g, slab, 1, err) != 0)
        return -1;
    return sl_upload_put(g->c.upload, slab, err);
}

static bool gpu_ready(const struct sl_exec_engine *e, size_t slab)
{
    return sl_upload_ready(((const struct sl_gpu *)e)->c.upload, slab);
}

/* Copied all the same, as the order of slabs goes on without a gap. */
static int gpu_skip(struct sl_exec_engine *e, size_t slab, struct sl_error *err)
{
    struct sl_gpu *g = (struct sl_gpu *)e;
    const void *base;

    g->has_logits = false;
    if (sl_upload_get(g->c.upload, slab, &base, err) != 0)
        return -1;
    return sl_upload_put(g->c.upload, slab, err);
}

/* A few rows at a time, so that little memory need be pinned for them. */
static int fetch_logits(struct sl_gpu *g, struct sl_error *err)
{
    struct sl_device *dev = g->c.device;
    size_t vocab = g->c.shape.mf->hp.vocab;

    for (uint32_t row = 0; row < g->pass->n_rows; row += g->bounce_rows) {
        uint32_t left = g->pass->n_rows - row;
        size_t n = (left < g->bounce_rows ? left : g->bounce_rows) * vocab;

        if (dev->ops->copy_down(dev, SL_QUEUE_COMPUTE, g->bounce,
                                g->logits + row * vocab, n * sizeof *g->bounce,
                                err) != 0 ||
            sl_gpu_wait(g, SL_QUEUE_COMPUTE, g->done, err) != 0)
            return -1;
        memcpy(g->pass->logits + row * vocab, g->bounce, n * sizeof *g->bounce);
    }
    return 0;
}

/* What the queue did, now that it is done. */
static int trace_pass(struct sl_gpu *g, struct sl_error *err)
{
    const struct sl_modelfile *mf = g->c.shape.mf;
    const struct sl_partition *partition = g->c.partition;
    struct sl_device *dev = g->c.device;

    for (size_t slab = 0; slab < partition->n_slabs; slab++) {
        const struct sl_part *first =
            &partition->parts[partition->first_part[slab]];
        char name[SL_STAGE_NAME];
        uint64_t begin, length;

        if (!g->ran[slab])
            continue;
        g->ran[slab] = false;
        if (dev->ops->span(dev, g->marks[2 * slab], g->marks[2 * slab + 1],
                           &begin, &length, err) != 0)
            return -1;
        sl_arch_stage_name(name, &mf->hp,
                           (uint32_t)mf->matrices[first->matrix].spec.stage);
        sl_trace_span(g->c.trace, SL_TRACK_KERNELS, name, begin, begin + length,
                      sl_slab_load_bytes(&partition->slabs[slab]));
    }
    return 0;
}

static int gpu_end(struct sl_exec_engine *e, struct sl_error *err)
{
    struct sl_gpu *g = (struct sl_gpu *)e;
    int rc;

    /* Tables and x may be written again only when the queue is done, as it is
     * once logits are there. */
    if (g->has_logits && g->pass->n_rows > 0)
        rc = fetch_logits(g, err);
    else
        rc = sl_gpu_wait(g, SL_QUEUE_COMPUTE, g->done, err);
    if (rc != 0 || sl_gpu_back_drain(g, err) != 0 ||
        sl_gpu_waiting_settle(g, err) != 0)
        return -1;
    return g->marks != NULL ? trace_pass(g, err) : 0;
}

/* --- the cache ----------------------------------------------------------- */

/* All layers of a page, key and value planes: on the compute queue, before the
 * kernels that write the copy. */
static int copy_page(void *arg, uint32_t to, uint32_t from,
                     struct sl_error *err)
{
    struct sl_gpu *g = arg;
    struct sl_device *dev = g->c.device;
    size_t n_planes = g->n_planes * (size_t)g->c.shape.n_layers_here;

    if (attach(g, err) != 0)
        return -1;
    for (size_t plane = 0; plane < n_planes; plane++) {
        uint16_t *first = g->kv + plane * g->c.shape.n_pages * g->page_values;

        if (dev->ops->copy_within(dev, SL_QUEUE_COMPUTE,
                                  first + to * g->page_values,
                                  first + from * g->page_values,
                                  g->page_values * sizeof *g->kv, err) != 0)
            return -1;
    }
    return sl_gpu_waiting_copy(g, to, from, err);
}

_Static_assert(SL_KV_PAGE_LEN == SL_CUDA_PAGE_LEN,
               "a page is as long in RAM as on the device");
_Static_assert(SL_LM_TREE <= SL_CUDA_MOVES, "a tree's moves are one launch");

/* On the compute queue, so before whatever looks at them. */
static int move_positions(void *arg, const struct sl_kv_move *moves, uint32_t n,
                          struct sl_error *err)
{
    struct sl_gpu *g = arg;
    const struct sl_cuda_kv kv = {
        .k = g->kv,
        .page_stride = g->page_values,
        .n_heads = g->n_kv_heads,
        .head_dim = g->head_dim,
    };
    struct sl_cuda_move on_device[SL_CUDA_MOVES];

    if (attach(g, err) != 0 || sl_gpu_waiting_move(g, moves, n, err) != 0)
        return -1;
    if (g->c.shape.n_layers_here == 0)
        return 0;
    for (uint32_t i = 0; i < n; i++)
        on_device[i] = (struct sl_cuda_move){moves[i].from_page, moves[i].from,
                                             moves[i].to_page, moves[i].to};
    return sl_cuda_kv_move(
        g->c.cuda, &kv, g->n_planes * (size_t)g->c.shape.n_layers_here,
        g->c.shape.n_pages * g->page_values, on_device, n, err);
}

static uint16_t *plane_at(const struct sl_gpu *g, uint32_t layer, uint32_t page,
                          unsigned value)
{
    size_t plane = g->n_planes * (size_t)g->kv_place[layer];

    if (g->n_planes > 1) /* else it is the values, too */
        plane += value;
    return g->kv + (plane * g->c.shape.n_pages + page) * g->page_values;
}

/* Through the pinned buffer of logits, which is idle between passes. */
static int get_plane(void *arg, uint32_t layer, uint32_t page, unsigned value,
                     void *to, struct sl_error *err)
{
    struct sl_gpu *g = arg;
    struct sl_device *dev = g->c.device;
    size_t bytes = g->page_values * sizeof *g->kv;

    if (attach(g, err) != 0)
        return -1;
    if (sl_gpu_layer_waits(g, layer))
        return sl_gpu_waiting_get(g, layer, page, value, to, err);
    if (dev->ops->copy_down(dev, SL_QUEUE_COMPUTE, g->bounce,
                            plane_at(g, layer, page, value), bytes, err) != 0 ||
        sl_gpu_wait(g, SL_QUEUE_COMPUTE, g->done, err) != 0)
        return -1;
    memcpy(to, g->bounce, bytes);
    return 0;
}

/* Waits, as the buffer is written again by the next plane. */
static int put_plane(void *arg, uint32_t layer, uint32_t page, unsigned value,
                     const void *from, struct sl_error *err)
{
    struct sl_gpu *g = arg;
    struct sl_device *dev = g->c.device;
    size_t bytes = g->page_values * sizeof *g->kv;

    if (attach(g, err) != 0)
        return -1;
    if (sl_gpu_layer_waits(g, layer))
        return sl_gpu_waiting_put(g, layer, page, value, from, err);
    memcpy(g->bounce, from, bytes);
    if (dev->ops->copy_up(dev, SL_QUEUE_COMPUTE,
                          plane_at(g, layer, page, value), g->bounce, bytes,
                          err) != 0)
        return -1;
    return sl_gpu_wait(g, SL_QUEUE_COMPUTE, g->done, err);
}

void sl_gpu_keep_pages(struct sl_gpu *g)
{
    struct sl_kv_page_store store = {copy_page, move_positions, get_plane,
                                     put_plane, g};

    sl_kv_set_page_store(g->c.kv, &store);
}

const struct sl_engine_ops sl_gpu_ops = {
    .name = "cuda",
    .host_x = gpu_host_x,
    .begin = gpu_begin,
    .embed = gpu_embed,
    .load = gpu_load,
    .store = gpu_store,
    .ready = gpu_ready,
    .run = gpu_run,
    .skip = gpu_skip,
    .end = gpu_end,
    .mix = sl_gpu_mix,
    .mixed = sl_gpu_mixed,
    .lend = sl_gpu_lend,
    .lent = sl_gpu_lent,
    .destroy = sl_gpu_destroy,
};
