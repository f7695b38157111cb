#include "config.h"

#include <stdlib.h>

#include "src/base/log.h"
#include "src/exec/exec_gpu_impl.h"

/* Logits cross in pieces of about this size. */
#define BOUNCE_BYTES (2ull << 20)

static uint64_t most(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

void sl_gpu_carve_tables(struct sl_gpu_tables *t, struct sl_carver *c,
                         uint64_t n, uint64_t n_rows, uint64_t n_pages,
                         uint64_t n_back_pages, uint64_t n_turn_pages,
                         uint64_t half)
{
    t->ids = sl_carve(c, n, sizeof *t->ids);
    t->cos = sl_carve(c, n * half, sizeof *t->cos);
    t->sin = sl_carve(c, n * half, sizeof *t->sin);
    t->position = sl_carve(c, n, sizeof *t->position);
    t->n_keys = sl_carve(c, n, sizeof *t->n_keys);
    t->path = sl_carve(c, n, sizeof *t->path);
    t->fork = sl_carve(c, n, sizeof *t->fork);
    t->rows = sl_carve(c, n_rows, sizeof *t->rows);
    t->table = sl_carve(c, n, sizeof *t->table);
    t->pages = sl_carve(c, n_pages, sizeof *t->pages);
    t->back_table = sl_carve(c, n, sizeof *t->back_table);
    t->back_pages = sl_carve(c, n_back_pages, sizeof *t->back_pages);
    t->turn_table = sl_carve(c, n, sizeof *t->turn_table);
    t->turn_pages = sl_carve(c, n_turn_pages, sizeof *t->turn_pages);
}

/* --- sizes --------------------------------------------------------------- */

static uint64_t back_pages(const struct sl_gpu_shape *s)
{
    return s->pass_positions / SL_KV_PAGE_LEN + s->pass_items;
}

static uint64_t page_values(const struct sl_gpu_shape *s)
{
    return (uint64_t)SL_KV_PAGE_LEN * s->mf->hp.n_kv_heads * s->mf->hp.head_dim;
}

/* Of all sequences of a pass. */
static uint64_t listed_pages(const struct sl_gpu_shape *s)
{
    return s->pass_items * sl_div_up(s->max_tokens, SL_KV_PAGE_LEN);
}

static bool may_wait(const struct sl_gpu_shape *s)
{
    return s->may_wait || s->n_layers_waiting > 0;
}

static uint64_t tables_bytes(const struct sl_gpu_shape *s)
{
    struct sl_carver c = {NULL, 0};
    struct sl_gpu_tables t;

    sl_gpu_carve_tables(&t, &c, s->pass_positions, s->pass_logits,
                        listed_pages(s), back_pages(s),
                        may_wait(s) ? listed_pages(s) : 0,
                        s->mf->hp.rope_dims / 2);
    return c.used;
}

/* Of a layer's cache: latents are keys and values at once. */
static uint32_t n_planes(const struct sl_gpu_shape *s)
{
    return s->mf->hp.kv_lora > 0 ? 1 : 2;
}

static struct sl_kv_config kv_of(const struct sl_gpu_shape *s)
{
    return (struct sl_kv_config){
        .n_heads = s->mf->hp.n_kv_heads,
        .head_dim = s->mf->hp.head_dim,
        .n_pages = s->n_pages,
        .max_tokens = s->max_tokens,
    };
}

uint64_t sl_gpu_waiting_bytes(const struct sl_gpu_shape *s)
{
    return (uint64_t)n_planes(s) * s->n_layers_waiting * s->n_pages *
           page_values(s) * sizeof(uint16_t);
}

static uint64_t stride_of(uint64_t values)
{
    return sl_round_up(values, 8);
}

static uint64_t buf_stride(const struct sl_gpu_shape *s, enum sl_buf buf)
{
    return stride_of(sl_arch_buf_width(s->mf->arch, &s->mf->hp, buf));
}

/* What is normed and what attention gives are never needed at the same time:
 * they share their memory. */
static void carve_activations(struct sl_gpu *g, struct sl_carver *c,
                              const struct sl_gpu_shape *s)
{
    const struct sl_hparams *hp = &s->mf->hp;
    uint64_t n = s->pass_positions;
    uint64_t norm = buf_stride(s, SL_BUF_NORM), att = buf_stride(s, SL_BUF_ATT);

    g->x = sl_carve(c, n * hp->hidden, sizeof *g->x);
    g->a = sl_carve(c, n * hp->hidden, sizeof *g->a);
    g->half[SL_BUF_NORM] = sl_carve(
        c, most(most(n, s->pass_logits) * norm, n * att), sizeof **g->half);
    g->half[SL_BUF_ATT] = g->half[SL_BUF_NORM];
    g->q = sl_carve(c, n * att, sizeof *g->q);
    g->half[SL_BUF_WIDE] =
        sl_carve(c, n * buf_stride(s, SL_BUF_WIDE), sizeof **g->half);
    for (enum sl_buf b = SL_BUF_LATENT; b <= SL_BUF_VALUES; b++)
        g->half[b] = sl_carve(c, n * buf_stride(s, b), sizeof **g->half);
    g->logits =
        sl_carve(c, (uint64_t)s->pass_logits * hp->vocab, sizeof *g->logits);
    g->tables = sl_carve(c, tables_bytes(s), 1);
    sl_gpu_carve_mix(&g->mix, c, hp, s->pass_positions);
    sl_gpu_carve_lend(&g->lend, c, s);
    c->used = sl_round_up(c->used, 256);
    g->joined_bytes = sl_gpu_joined_bytes(s->mf);
    if (!s->beside)
        g->joined = sl_carve(c, g->joined_bytes, 1);
    if (s->write_back) {
        uint64_t values = back_pages(s) * page_values(s);

        g->back.k = sl_carve(c, values, sizeof *g->back.k);
        if (n_planes(s) > 1)
            g->back.v = sl_carve(c, values, sizeof *g->back.v);
    }
    c->used = sl_round_up(c->used, 256);
}

/* A pass of many rows of logits takes turns: pinned memory is dear. */
static uint32_t bounce_rows(const struct sl_gpu_shape *s)
{
    uint64_t rows = BOUNCE_BYTES / (s->mf->hp.vocab * sizeof(float));

    if (rows > s->pass_logits)
        rows = s->pass_logits;
    return rows > 0 ? (uint32_t)rows : 1;
}

/* All of it pinned: copies from elsewhere go through the driver's own buffers,
 * and make the host wait. */
static void carve_staging(struct sl_gpu *g, struct sl_carver *c,
                          const struct sl_gpu_shape *s)
{
    const struct sl_hparams *hp = &s->mf->hp;

    g->host_tables = sl_carve(c, tables_bytes(s), 1);
    g->host_x = sl_carve(c, (uint64_t)s->pass_positions * hp->hidden,
                         sizeof *g->host_x);
    g->bounce = sl_carve(
        c, most((uint64_t)bounce_rows(s) * hp->vocab, page_values(s) / 2),
        sizeof *g->bounce);
    g->items = sl_carve(c, s->pass_items, sizeof *g->items);
    sl_gpu_carve_mix_host(&g->mix, c, hp, s->pass_positions);
    sl_gpu_carve_lend_host(&g->lend, c, s);
    if (may_wait(s)) {
        const struct sl_kv_config kv = kv_of(s);

        g->wait.turns.room =
            sl_kv_turn_room(&kv, s->pass_items, s->turn_most_bytes);
        sl_kv_turns_carve(&g->wait.turns, c, &kv, s->pass_items);
        g->wait.table = sl_carve(c, s->pass_items, sizeof *g->wait.table);
        g->wait.items = sl_carve(c, s->pass_items, sizeof *g->wait.items);
    }
    if (s->write_back) {
        uint64_t values = back_pages(s) * page_values(s);

        g->back.host_k = sl_carve(c, values, sizeof *g->back.host_k);
        if (n_planes(s) > 1)
            g->back.host_v = sl_carve(c, values, sizeof *g->back.host_v);
        g->back.rows =
            sl_carve(c, s->n_threads * hp->head_dim, sizeof *g->back.rows);
    }
}

/* Rows of attention that are split over keys, as many as fill a GPU; more of
 * them are taken in turns (kernels/cuda/attend.c). */
#define SPLIT_ROWS 64u

static uint64_t attend_workspace(const struct sl_gpu_shape *s, uint32_t rows)
{
    const struct sl_hparams *hp = &s->mf->hp;

    return sl_cuda_attend_workspace(
        rows, hp->n_heads, hp->kv_lora > 0 ? hp->kv_lora : hp->head_dim,
        s->max_tokens);
}

/* With what cuBLAS takes of a workspace that is large enough for both. */
static uint64_t beside_blas(uint64_t bytes)
{
    return bytes > SL_CUDA_LEAST_BYTES ? bytes + SL_CUDA_BLAS_BYTES : bytes;
}

struct sl_gpu_need sl_gpu_need(const struct sl_gpu_shape *s)
{
    struct sl_carver device = {NULL, 0}, host = {NULL, 0};
    const struct sl_kv_config kv = kv_of(s);
    struct sl_gpu counted;
    struct sl_gpu_need need;

    carve_activations(&counted, &device, s);
    carve_staging(&counted, &host, s);
    if (s->beside)
        return (struct sl_gpu_need){
            .activations = device.used,
            .host = sl_round_up(host.used, SL_PAGE_BYTES),
        };
    need = (struct sl_gpu_need){
        .small = sl_round_up(sl_small_tensors_bytes(s->mf), 256),
        .activations = device.used,
        .workspace_least = attend_workspace(s, 1),
        .kv = sl_round_up((uint64_t)n_planes(s) * s->n_layers_here *
                              s->n_pages * page_values(s) * sizeof(uint16_t),
                          256),
        .kv_host = sl_gpu_waiting_bytes(s),
        .host = sl_round_up(host.used, SL_PAGE_BYTES),
    };
    if (s->n_layers_waiting > 0)
        need.kv += sl_round_up(
            sl_kv_turn_bytes(&kv, s->pass_items, s->turn_most_bytes), 256);
    need.workspace = beside_blas(attend_workspace(
        s, s->pass_positions < SPLIT_ROWS ? s->pass_positions : SPLIT_ROWS));
    for (size_t i = 0; i < s->mf->n_matrices; i++) {
        const struct sl_model_matrix *m = &s->mf->matrices[i];
        uint32_t n =
            m->spec.slot == SL_SLOT_HEAD ? s->pass_logits : s->pass_positions;

        if (m->spec.stage < 0 && m->spec.role != SL_ROLE_EXPERT)
            continue;
        need.workspace_least = most(
            need.workspace_least, sl_cuda_matmul_workspace_least(&m->geom, n));
        need.workspace =
            most(need.workspace, sl_cuda_matmul_workspace(&m->geom, n));
    }
    /* Not nothing: kernels are told where it is. */
    need.workspace_least = most(beside_blas(need.workspace_least), 256);
    need.workspace = most(need.workspace, need.workspace_least);
    return need;
}

/* --- life ---------------------------------------------------------------- */

static size_t first_head_slab(const struct sl_gpu_config *c)
{
    size_t slab = c->partition->n_slabs;

    /* The head's stage has one matrix, so each of its slabs has one part. */
    while (slab > 0) {
        const struct sl_part *p =
            &c->partition->parts[c->partition->first_part[slab - 1]];

        if (c->shape.mf->matrices[p->matrix].spec.slot != SL_SLOT_HEAD)
            break;
        slab--;
    }
    return slab;
}

static int make_lists(struct sl_gpu *g, struct sl_error *err)
{
    uint32_t n_layers = g->c.shape.mf->hp.n_layers;
    size_t n_slabs = g->c.partition->n_slabs;

    g->first_head_slab = first_head_slab(&g->c);
    g->head_base =
        sl_zalloc_array(n_slabs - g->first_head_slab, sizeof *g->head_base);
    g->kv_place = sl_zalloc_array(n_layers, sizeof *g->kv_place);
    if (g->head_base == NULL || g->kv_place == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "GPU engine: no memory");
    for (uint32_t l = 0, n = 0, waiting = 0; l < n_layers; l++) {
        bool waits = sl_gpu_layer_waits(g, l);

        g->kv_place[l] = waits ? waiting : n;
        waiting += waits;
        n += g->c.layer_here[l] && !waits;
    }
    if (g->c.trace == NULL)
        return 0;
    g->marks = sl_zalloc_array(2 * n_slabs, sizeof(struct sl_event *));
    g->ran = sl_zalloc_array(n_slabs, sizeof *g->ran);
    if (g->marks == NULL || g->ran == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "GPU engine: no memory");
    return 0;
}

static int make_events(struct sl_gpu *g, struct sl_error *err)
{
    struct sl_device *dev = g->c.device;
    size_t n_marks = g->marks != NULL ? 2 * g->c.partition->n_slabs : 0;

    if (dev->ops->event_create(dev, &g->done, false, err) != 0 ||
        dev->ops->event_create(dev, &g->back.ready, false, err) != 0 ||
        dev->ops->event_create(dev, &g->back.down, false, err) != 0 ||
        dev->ops->event_create(dev, &g->mix.done, false, err) != 0 ||
        sl_gpu_lend_events(g, err) != 0)
        return -1;
    for (size_t i = 0; i < n_marks; i++) {
        if (dev->ops->event_create(dev, &g->marks[i], true, err) != 0)
            return -1;
    }
    return 0;
}

static void carve_device(struct sl_gpu *g)
{
    const struct sl_gpu_shape *s = &g->c.shape;
    const struct sl_gpu *other = (const struct sl_gpu *)g->c.other;
    struct sl_gpu_need need = sl_gpu_need(s);
    uint8_t *at = g->c.memory;
    struct sl_carver c;

    if (other != NULL) {
        c = (struct sl_carver){at, 0};
        carve_activations(g, &c, s);
        g->small = other->small;
        g->kv = other->kv;
        g->joined = other->joined;
        return;
    }
    g->small = at;
    at += need.small;
    c = (struct sl_carver){at, 0};
    carve_activations(g, &c, s);
    at += need.activations;
    g->kv = (uint16_t *)(void *)at;
}

/* Behind the caches that lie there. */
static uint16_t *turn_buffers(const struct sl_gpu *g)
{
    return g->kv + (size_t)g->n_planes * g->c.shape.n_layers_here *
                       g->c.shape.n_pages * g->page_values;
}

/* The workspace lies behind all else, so that it may be of any size. */
static int start_cuda(struct sl_gpu *g, struct sl_error *err)
{
    struct sl_gpu_need need = sl_gpu_need(&g->c.shape);
    struct sl_device *dev = g->c.device;
    uint8_t *workspace =
        (uint8_t *)g->c.memory + need.small + need.activations + need.kv;

    if (sl_cuda_set_workspace(g->c.cuda, workspace, g->c.workspace_bytes,
                              err) != 0)
        return -1;
    return dev->ops->copy_up(dev, SL_QUEUE_COMPUTE, g->c.memory,
                             g->c.small->region.base,
                             sl_small_tensors_bytes(g->c.shape.mf), err);
}

static int make_staging(struct sl_gpu *g, struct sl_error *err)
{
    struct sl_device *dev = g->c.device;
    struct sl_carver c;
    struct sl_error why;

    if (sl_region_init(&g->staging, sl_gpu_need(&g->c.shape).host,
                       "transfers to and from the GPU", err) != 0)
        return -1;
    if (g->c.place != NULL)
        g->c.place(g->c.place_arg, g->staging.base, g->staging.bytes);
    g->pinned =
        dev->ops->pin(dev, g->staging.base, g->staging.bytes, &why) == 0;
    if (!g->pinned)
        sl_log(g->c.log, SL_LOG_WARN, "%s", why.msg);
    c = (struct sl_carver){g->staging.base, 0};
    carve_staging(g, &c, &g->c.shape);
    g->bounce_rows = bounce_rows(&g->c.shape);
    return 0;
}

/* By what does not change from run to run, as sums do with it. cuBLAS takes
 * FP16 as it is. */
static void set_runs(struct sl_cuda *c, const struct sl_device_info *info)
{
    const struct sl_worker w = {.memory_bps = (double)info->vram_bps,
                                .ops_per_s = sl_device_ops(info)};

    for (int f = 0; f < SL_FMT_COUNT; f++) {
        uint32_t cols = 1024; /* whole blocks of any format */

        if (f != SL_FMT_F16)
            c->runs_to[f] = sl_cost_runs_to(
                &w, (double)sl_fmt_row_bytes((enum sl_fmt)f, cols) / cols);
    }
}

int sl_gpu_load(struct sl_cuda **cuda, struct sl_device *device,
                const struct sl_log *log, struct sl_error *err)
{
    struct sl_cuda *c = malloc(sizeof *c);

    if (c == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "GPU engine: no memory");
    if (sl_cuda_init(c, device->ops->native_queue(device, SL_QUEUE_COMPUTE),
                     err) != 0) {
        free(c);
        return -1;
    }
    set_runs(c, &device->info);
    if (c->note[0] != '\0')
        sl_log(log, SL_LOG_WARN, "%s", c->note);
    *cuda = c;
    return 0;
}

void sl_gpu_unload(struct sl_cuda *cuda)
{
    if (cuda == NULL)
        return;
    sl_cuda_fini(cuda);
    free(cuda);
}

int sl_gpu_create(struct sl_exec_engine **e, const struct sl_gpu_config *config,
                  struct sl_error *err)
{
    const struct sl_hparams *hp = &config->shape.mf->hp;
    struct sl_gpu *g = calloc(1, sizeof *g);

    if (g == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "GPU engine: no memory");
    g->engine.ops = &sl_gpu_ops;
    g->c = *config;
    g->hidden = hp->hidden;
    g->n_heads = hp->n_heads;
    g->n_kv_heads = hp->n_kv_heads;
    g->head_dim = hp->head_dim;
    for (enum sl_buf b = SL_BUF_X; b < SL_BUF_COUNT; b++)
        g->stride[b] = buf_stride(&config->shape, b);
    g->page_values = page_values(&config->shape);
    g->n_planes = n_planes(&config->shape);
    carve_device(g);
    if (make_lists(g, err) != 0 || make_events(g, err) != 0 ||
        make_staging(g, err) != 0 ||
        sl_gpu_waiting_create(g, turn_buffers(g), err) != 0 ||
        (g->c.other == NULL && start_cuda(g, err) != 0)) {
        sl_gpu_destroy(&g->engine);
        return -1;
    }
    if (g->c.other == NULL)
        sl_gpu_keep_pages(g);
    *e = &g->engine;
    return 0;
}

void sl_gpu_destroy(struct sl_exec_engine *e)
{
    struct sl_gpu *g = (struct sl_gpu *)e;
    struct sl_device *dev = g->c.device;
    struct sl_error ignored;

    if (g->c.other == NULL)
        sl_kv_set_page_store(g->c.kv, NULL);
    sl_gpu_waiting_destroy(g);
    /* After a failed pass copies may still be under way. */
    if (g->done != NULL)
        sl_gpu_wait(g, SL_QUEUE_COMPUTE, g->done, &ignored);
    if (g->back.down != NULL)
        sl_gpu_wait(g, SL_QUEUE_DOWN, g->back.down, &ignored);
    for (size_t i = 0; g->marks != NULL && i < 2 * g->c.partition->n_slabs; i++)
        dev->ops->event_destroy(dev, g->marks[i]);
    dev->ops->event_destroy(dev, g->done);
    dev->ops->event_destroy(dev, g->back.ready);
    dev->ops->event_destroy(dev, g->back.down);
    dev->ops->event_destroy(dev, g->mix.done);
    sl_gpu_lend_destroy(g);
    if (g->pinned)
        dev->ops->unpin(dev, g->staging.base);
    sl_region_fini(&g->staging);
    free(g->ran);
    free(g->marks);
    free(g->kv_place);
    free(g->head_base);
    free(g);
}
