#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "src/base/log.h"
#include "src/exec/exec_gpu_impl.h"

/* Layers whose cache waits in RAM (kv_turns.h). A turn's keys and values are
 * copied up while the turns before it are attended to, on a queue of their own,
 * as that of weights waits for places in their ring; what a pass adds to them
 * is copied down meanwhile. Kernels are those of other layers, so the bits are,
 * too.
 *
 * Turns of all such layers are counted through a pass; turn i is in buffer
 * i % SL_KV_TURN_BUFFERS. */

static uint32_t n_turns(const struct sl_gpu *g)
{
    return g->wait.n_layers * g->wait.turns.n_turns;
}

static const struct sl_kv_turn *turn_at(const struct sl_gpu *g, uint32_t i)
{
    return &g->wait.turns.turn[i % g->wait.turns.n_turns];
}

/* In RAM: (heads, 16, d). */
static uint16_t *plane_here(const struct sl_gpu *g, uint32_t layer,
                            uint32_t page, unsigned value)
{
    size_t plane = 2 * (size_t)g->kv_place[layer] + value;

    return (uint16_t *)(void *)g->wait.host.base +
           (plane * g->c.shape.n_pages + page) * g->page_values;
}

static uint16_t *plane_there(const struct sl_gpu *g, uint32_t i, unsigned value)
{
    return g->wait.buffer[i % SL_KV_TURN_BUFFERS] +
           (size_t)value * g->wait.turns.room * g->page_values;
}

/* --- copies --------------------------------------------------------------- */

static int copy(struct sl_gpu *g, bool up, void *there, void *here,
                uint32_t n_pages, struct sl_error *err)
{
    struct sl_device *dev = g->c.device;
    uint64_t bytes = (uint64_t)n_pages * g->page_values * sizeof(uint16_t);

    if (up)
        return dev->ops->copy_up(dev, SL_QUEUE_KEYS, there, here, bytes, err);
    return dev->ops->copy_down(dev, SL_QUEUE_DOWN, here, there, bytes, err);
}

static bool wanted(const struct sl_kv_turn_page *p, bool up)
{
    return up ? p->held : p->written;
}

/* Pages of turn i that are wanted, of which those that lie one after another in
 * RAM take one copy: a prompt's do. */
static int copy_pages(struct sl_gpu *g, uint32_t i, bool up,
                      struct sl_error *err)
{
    const struct sl_kv_turn *turn = turn_at(g, i);
    const struct sl_kv_turn_page *p = g->wait.turns.pages + turn->first_page;
    uint32_t layer = g->wait.layer[i / g->wait.turns.n_turns], n;

    for (uint32_t at = 0; at < turn->n_pages; at += n) {
        n = 1;
        if (!wanted(&p[at], up))
            continue;
        while (at + n < turn->n_pages && wanted(&p[at + n], up) &&
               p[at + n].page == p[at].page + n)
            n++;
        for (unsigned value = 0; value < 2; value++) {
            if (copy(g, up, plane_there(g, i, value) + at * g->page_values,
                     plane_here(g, layer, p[at].page, value), n, err) != 0)
                return -1;
        }
    }
    return 0;
}

/* Copies of the next turn, as soon as its buffer is done with. */
static int ask_next(struct sl_gpu *g, struct sl_error *err)
{
    struct sl_device *dev = g->c.device;
    const struct sl_gpu_buffer *b =
        &g->wait.of[g->wait.asked % SL_KV_TURN_BUFFERS];

    if (dev->ops->queue_wait(dev, SL_QUEUE_KEYS, b->used, err) != 0 ||
        dev->ops->queue_wait(dev, SL_QUEUE_KEYS, b->down, err) != 0 ||
        copy_pages(g, g->wait.asked, true, err) != 0 ||
        dev->ops->record(dev, SL_QUEUE_KEYS, b->up, err) != 0)
        return -1;
    g->wait.asked++;
    return 0;
}

static int ask(struct sl_gpu *g, struct sl_error *err)
{
    struct sl_gpu_waiting *w = &g->wait;

    while (w->asked < n_turns(g) && w->asked < w->taken + SL_KV_TURN_BUFFERS) {
        if (ask_next(g, err) != 0)
            return -1;
    }
    return 0;
}

/* What a turn's positions added, once it is there. */
static int send_down(struct sl_gpu *g, uint32_t i, struct sl_error *err)
{
    struct sl_device *dev = g->c.device;
    const struct sl_gpu_buffer *b = &g->wait.of[i % SL_KV_TURN_BUFFERS];

    g->wait.on_their_way = true;
    if (dev->ops->record(dev, SL_QUEUE_COMPUTE, b->stored, err) != 0 ||
        dev->ops->queue_wait(dev, SL_QUEUE_DOWN, b->stored, err) != 0 ||
        copy_pages(g, i, false, err) != 0)
        return -1;
    return dev->ops->record(dev, SL_QUEUE_DOWN, b->down, err);
}

/* A pass that was left before its end has asked for turns that it did not
 * take. */
int sl_gpu_waiting_settle(struct sl_gpu *g, struct sl_error *err)
{
    struct sl_gpu_waiting *w = &g->wait;
    bool up = w->asked > w->taken, down = w->on_their_way;

    w->asked = w->taken = 0;
    w->on_their_way = false;
    if (up && sl_gpu_wait(g, SL_QUEUE_KEYS, g->done, err) != 0)
        return -1;
    return down ? sl_gpu_wait(g, SL_QUEUE_DOWN, g->done, err) : 0;
}

/* --- a pass --------------------------------------------------------------- */

int sl_gpu_waiting_begin(struct sl_gpu *g, struct sl_error *err)
{
    if (sl_gpu_waiting_settle(g, err) != 0)
        return -1;
    return ask(g, err);
}

/* The pass's rows of a turn's items. */
static struct sl_cuda_rows rows_of(struct sl_gpu *g,
                                   const struct sl_kv_turn *turn)
{
    const struct sl_pass_item *first = &g->pass->run[turn->first_item];
    const struct sl_pass_item *last = first + turn->n_items - 1;
    size_t half = g->c.shape.mf->hp.rope_dims / 2, at = first->row;
    struct sl_cuda_rows rows = g->rows;

    rows.n = last->row + last->n - first->row;
    rows.position += at;
    rows.n_keys += at;
    rows.table = g->t.turn_table + at;
    rows.pages = g->t.turn_pages;
    rows.cos += at * half;
    rows.sin += at * half;
    rows.items = g->wait.items;
    rows.n_items = turn->n_items;
    if (rows.fork != NULL)
        rows.fork += at;
    rows.path += at;
    /* Launches have taken what those of the turn before were. */
    for (size_t i = 0; i < turn->n_items; i++) {
        g->wait.items[i] = g->items[turn->first_item + i];
        g->wait.items[i].row -= first->row;
    }
    return rows;
}

static int attend_turn(struct sl_gpu *g, uint32_t i, struct sl_error *err)
{
    struct sl_device *dev = g->c.device;
    const struct sl_kv_turn *turn = turn_at(g, i);
    const struct sl_gpu_buffer *b = &g->wait.of[i % SL_KV_TURN_BUFFERS];
    struct sl_cuda_rows rows = rows_of(g, turn);
    struct sl_cuda_kv kv = {
        .k = plane_there(g, i, 0),
        .v = plane_there(g, i, 1),
        .page_stride = g->page_values,
        .n_heads = g->n_kv_heads,
        .head_dim = g->head_dim,
    };
    uint32_t first = g->pass->run[turn->first_item].row;

    if (dev->ops->queue_wait(dev, SL_QUEUE_COMPUTE, b->up, err) != 0 ||
        sl_gpu_store_rows(g, &kv, &rows, first, err) != 0 ||
        send_down(g, i, err) != 0 ||
        sl_gpu_attend_rows(g, &kv, &rows, first, err) != 0)
        return -1;
    return dev->ops->record(dev, SL_QUEUE_COMPUTE, b->used, err);
}

/* The layers come in their order, all of them in every pass. */
int sl_gpu_waiting_attend(struct sl_gpu *g, struct sl_error *err)
{
    for (uint32_t t = 0; t < g->wait.turns.n_turns; t++) {
        if (attend_turn(g, g->wait.taken++, err) != 0 || ask(g, err) != 0)
            return -1;
    }
    return 0;
}

/* --- pages, between passes ------------------------------------------------ */

int sl_gpu_waiting_copy(struct sl_gpu *g, uint32_t to, uint32_t from,
                        struct sl_error *err)
{
    if (sl_gpu_waiting_settle(g, err) != 0)
        return -1;
    for (uint32_t i = 0; i < g->wait.n_layers; i++) {
        for (unsigned value = 0; value < 2; value++)
            memcpy(plane_here(g, g->wait.layer[i], to, value),
                   plane_here(g, g->wait.layer[i], from, value),
                   g->page_values * sizeof(uint16_t));
    }
    return 0;
}

static void move(struct sl_gpu *g, uint32_t layer, unsigned value,
                 const struct sl_kv_move *m)
{
    uint16_t *to = plane_here(g, layer, m->to_page, value);
    const uint16_t *from = plane_here(g, layer, m->from_page, value);
    size_t d = g->head_dim, head = SL_KV_PAGE_LEN * d;

    for (size_t h = 0; h < g->n_kv_heads; h++)
        memcpy(to + h * head + m->to * d, from + h * head + m->from * d,
               d * sizeof *to);
}

int sl_gpu_waiting_move(struct sl_gpu *g, const struct sl_kv_move *moves,
                        uint32_t n, struct sl_error *err)
{
    if (sl_gpu_waiting_settle(g, err) != 0)
        return -1;
    for (uint32_t i = 0; i < g->wait.n_layers; i++) {
        for (uint32_t m = 0; m < n; m++) {
            move(g, g->wait.layer[i], 0, &moves[m]);
            move(g, g->wait.layer[i], 1, &moves[m]);
        }
    }
    return 0;
}

int sl_gpu_waiting_get(struct sl_gpu *g, uint32_t layer, uint32_t page,
                       unsigned value, void *to, struct sl_error *err)
{
    if (sl_gpu_waiting_settle(g, err) != 0)
        return -1;
    memcpy(to, plane_here(g, layer, page, value),
           g->page_values * sizeof(uint16_t));
    return 0;
}

int sl_gpu_waiting_put(struct sl_gpu *g, uint32_t layer, uint32_t page,
                       unsigned value, const void *from, struct sl_error *err)
{
    if (sl_gpu_waiting_settle(g, err) != 0)
        return -1;
    memcpy(plane_here(g, layer, page, value), from,
           g->page_values * sizeof(uint16_t));
    return 0;
}

/* --- life ----------------------------------------------------------------- */

static int make_buffer(struct sl_gpu_buffer *b, struct sl_device *dev,
                       struct sl_error *err)
{
    if (dev->ops->event_create(dev, &b->up, false, err) != 0 ||
        dev->ops->event_create(dev, &b->stored, false, err) != 0 ||
        dev->ops->event_create(dev, &b->down, false, err) != 0)
        return -1;
    return dev->ops->event_create(dev, &b->used, false, err);
}

int sl_gpu_waiting_create(struct sl_gpu *g, uint16_t *buffers,
                          struct sl_error *err)
{
    struct sl_gpu_waiting *w = &g->wait;
    struct sl_device *dev = g->c.device;
    const struct sl_gpu_shape *s = &g->c.shape;
    struct sl_error why;

    if (s->n_layers_waiting == 0)
        return 0;
    w->layer = sl_zalloc_array(s->n_layers_waiting, sizeof *w->layer);
    if (w->layer == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "GPU engine: no memory");
    for (uint32_t l = 0; l < s->mf->hp.n_layers; l++) {
        if (g->c.layer_waits[l])
            w->layer[w->n_layers++] = l;
    }
    if (sl_region_init(&w->host, sl_gpu_waiting_bytes(s),
                       "a KV cache that waits for the GPU", err) != 0)
        return -1;
    if (g->c.place != NULL)
        g->c.place(g->c.place_arg, w->host.base, w->host.bytes);
    w->pinned = dev->ops->pin(dev, w->host.base, w->host.bytes, &why) == 0;
    if (!w->pinned)
        sl_log(g->c.log, SL_LOG_WARN, "%s", why.msg);
    for (uint32_t i = 0; i < SL_KV_TURN_BUFFERS; i++) {
        w->buffer[i] = buffers + 2 * i * w->turns.room * g->page_values;
        if (make_buffer(&w->of[i], dev, err) != 0)
            return -1;
    }
    return 0;
}

void sl_gpu_waiting_destroy(struct sl_gpu *g)
{
    struct sl_gpu_waiting *w = &g->wait;
    struct sl_device *dev = g->c.device;
    struct sl_error ignored;

    if (w->of[0].up != NULL)
        sl_gpu_wait(g, SL_QUEUE_KEYS, w->of[0].up, &ignored);
    if (w->of[0].down != NULL)
        sl_gpu_wait(g, SL_QUEUE_DOWN, w->of[0].down, &ignored);
    for (uint32_t i = 0; i < SL_KV_TURN_BUFFERS; i++) {
        dev->ops->event_destroy(dev, w->of[i].up);
        dev->ops->event_destroy(dev, w->of[i].stored);
        dev->ops->event_destroy(dev, w->of[i].down);
        dev->ops->event_destroy(dev, w->of[i].used);
    }
    if (w->pinned)
        dev->ops->unpin(dev, w->host.base);
    sl_region_fini(&w->host);
    free(w->layer);
}
