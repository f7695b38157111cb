#include "config.h"

#include <assert.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/mem.h"
#include "src/exec/kvcache.h"

struct sequence {
    bool alive;
    uint32_t len;
    uint32_t n_pages;
    uint32_t *pages; /* room for max_tokens */
};

struct sl_kv {
    struct sl_kv_config config;
    uint64_t head_bytes; /* of one head's keys in one page */
    struct sl_region region;
    uint32_t *counts; /* (n_pages) sequences that hold the page */
    uint32_t *free_pages;
    uint32_t n_free;
    struct sequence *seqs; /* (n_sequences) and the one that all begin as */
    uint32_t *place; /* (n_layers) of those that lie here: how many before */
    struct sl_kv_page_store store;
};

const char *const sl_kv_kind_names[] = {
    [SL_KV_F32] = "f32",
    [SL_KV_F16] = "f16",
    [SL_KV_INT8] = "int8",
    NULL,
};

/* The sequence that all begin as: nobody else's, and never destroyed. */
static struct sequence *root_of(const struct sl_kv *kv)
{
    return &kv->seqs[kv->config.n_sequences];
}

static uint32_t pages_of(uint32_t tokens)
{
    return (uint32_t)sl_div_up(tokens, SL_KV_PAGE_LEN);
}

static bool is_here(const struct sl_kv_config *c, uint32_t layer)
{
    return c->elsewhere == NULL || !c->elsewhere[layer];
}

/* Layers whose cache a device holds take no memory of this one. */
static uint32_t layers_here(const struct sl_kv_config *c)
{
    uint32_t n = 0;

    for (uint32_t l = 0; l < c->n_layers; l++)
        n += is_here(c, l);
    return n;
}

enum sl_kv_kind sl_kv_layer_kind(const struct sl_kv_config *c, uint32_t layer)
{
    return is_here(c, layer) ? c->kind : SL_KV_F16;
}

/* Of one position's values of a head, without their scale. */
static uint64_t row_bytes(const struct sl_kv_config *c, enum sl_kv_kind kind)
{
    static const uint8_t value_bytes[] = {
        [SL_KV_F32] = 4,
        [SL_KV_F16] = 2,
        [SL_KV_INT8] = 1,
    };

    return (uint64_t)c->head_dim * value_bytes[kind];
}

static uint64_t scale_bytes(enum sl_kv_kind kind)
{
    return kind == SL_KV_INT8 ? sizeof(struct sl_kv_scale) : 0;
}

/* Of one head's keys in one page. */
static uint64_t head_bytes(const struct sl_kv_config *c, enum sl_kv_kind kind)
{
    return SL_KV_PAGE_LEN * (row_bytes(c, kind) + scale_bytes(kind));
}

uint64_t sl_kv_plane_bytes(const struct sl_kv_config *c, enum sl_kv_kind kind)
{
    return c->n_heads * head_bytes(c, kind);
}

uint64_t sl_kv_page_bytes(const struct sl_kv_config *c)
{
    return (c->one_plane ? 1ull : 2ull) * layers_here(c) *
           sl_kv_plane_bytes(c, c->kind);
}

uint64_t sl_kv_bytes(const struct sl_kv_config *c)
{
    uint64_t lists =
        (c->n_sequences + 1ull) *
            (sizeof(struct sequence) + 4ull * pages_of(c->max_tokens)) +
        4ull * c->n_layers;

    return c->n_pages * (sl_kv_page_bytes(c) + 8) + lists;
}

uint64_t sl_kv_pages_needed(uint32_t n_sequences, uint32_t max_tokens,
                            uint32_t shared_tokens)
{
    /* Whole pages of the shared part are held once; the page in which the
     * sequences part is copied for each. */
    uint32_t shared = shared_tokens / SL_KV_PAGE_LEN;
    uint32_t all = pages_of(max_tokens);

    if (n_sequences <= 1)
        return all;
    if (shared > all)
        shared = all;
    /* One page more: while a beam's fork replaces its parent, the parent's
     * last page may still be held. */
    return shared + (uint64_t)(all - shared) * n_sequences + n_sequences;
}

/* Everything for the most pages and sequences there may be: later a page is
 * taken and given back without allocating. */
static int create_lists(struct sl_kv *kv)
{
    const struct sl_kv_config *c = &kv->config;
    uint32_t room = pages_of(c->max_tokens);

    kv->counts = sl_zalloc_array(c->n_pages, sizeof *kv->counts);
    kv->free_pages = sl_zalloc_array(c->n_pages, sizeof *kv->free_pages);
    kv->seqs = sl_zalloc_array(c->n_sequences + 1ull, sizeof *kv->seqs);
    kv->place = sl_zalloc_array(c->n_layers, sizeof *kv->place);
    if (kv->counts == NULL || kv->free_pages == NULL || kv->seqs == NULL ||
        kv->place == NULL)
        return -1;
    for (uint32_t l = 0, n = 0; l < c->n_layers; l++) {
        kv->place[l] = n;
        n += is_here(c, l);
    }
    for (uint32_t i = 0; i <= c->n_sequences; i++) {
        kv->seqs[i].pages = sl_zalloc_array(room, sizeof(uint32_t));
        if (kv->seqs[i].pages == NULL)
            return -1;
    }
    /* Handed out from the end: low pages first. */
    for (uint32_t i = 0; i < c->n_pages; i++)
        kv->free_pages[i] = c->n_pages - 1 - i;
    kv->n_free = c->n_pages;
    return 0;
}

int sl_kv_create(struct sl_kv **out, const struct sl_kv_config *config,
                 struct sl_error *err)
{
    struct sl_kv *kv = calloc(1, sizeof *kv);

    if (kv == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "KV cache: no memory");
    kv->config = *config;
    kv->head_bytes = head_bytes(config, config->kind);
    if (create_lists(kv) != 0) {
        sl_kv_destroy(kv);
        return sl_fail(err, SL_ERR_NOMEM, "KV cache: no memory");
    }
    if (sl_region_init(&kv->region, config->n_pages * sl_kv_page_bytes(config),
                       "KV cache", err) != 0) {
        sl_kv_destroy(kv);
        return -1;
    }
    root_of(kv)->alive = true;
    if (sl_kv_extend(kv, config->n_sequences, config->n_begin, err) != 0) {
        sl_kv_destroy(kv);
        return -1;
    }
    *out = kv;
    return 0;
}

void sl_kv_destroy(struct sl_kv *kv)
{
    if (kv == NULL)
        return;
    for (uint32_t i = 0; kv->seqs != NULL && i <= kv->config.n_sequences; i++)
        free(kv->seqs[i].pages);
    sl_region_fini(&kv->region);
    free(kv->place);
    free(kv->seqs);
    free(kv->free_pages);
    free(kv->counts);
    free(kv);
}

/* child, which is empty, holds what parent does. */
static void share_pages(struct sl_kv *kv, struct sequence *child,
                        const struct sequence *parent)
{
    child->len = parent->len;
    child->n_pages = parent->n_pages;
    for (uint32_t i = 0; i < parent->n_pages; i++) {
        child->pages[i] = parent->pages[i];
        kv->counts[parent->pages[i]]++;
    }
}

static int take_sequence(struct sl_kv *kv, uint32_t *seq, struct sl_error *err)
{
    for (uint32_t i = 0; i < kv->config.n_sequences; i++) {
        struct sequence *s = &kv->seqs[i];

        if (s->alive)
            continue;
        s->alive = true;
        s->len = 0;
        s->n_pages = 0;
        *seq = i;
        return 0;
    }
    return sl_fail(err, SL_ERR_BUDGET,
                   "the KV cache was planned for %u sequences, and all are in "
                   "use",
                   kv->config.n_sequences);
}

int sl_kv_seq_create(struct sl_kv *kv, uint32_t *seq, struct sl_error *err)
{
    return sl_kv_seq_fork(kv, seq, kv->config.n_sequences, err);
}

int sl_kv_seq_fork(struct sl_kv *kv, uint32_t *seq, uint32_t from,
                   struct sl_error *err)
{
    if (take_sequence(kv, seq, err) != 0)
        return -1;
    share_pages(kv, &kv->seqs[*seq], &kv->seqs[from]);
    return 0;
}

/* The last page given back is the next one taken, as it is warm. */
static void drop_page(struct sl_kv *kv, uint32_t page)
{
    assert(kv->counts[page] > 0);
    if (--kv->counts[page] == 0)
        kv->free_pages[kv->n_free++] = page;
}

/* The page that n ends in stays as it is: what lies behind n is written over
 * before it is looked at. */
static void cut(struct sl_kv *kv, struct sequence *s, uint32_t n)
{
    assert(s->alive && n <= s->len);
    while (s->n_pages > pages_of(n))
        drop_page(kv, s->pages[--s->n_pages]);
    s->len = n;
}

void sl_kv_seq_cut(struct sl_kv *kv, uint32_t seq, uint32_t n)
{
    assert(n >= kv->config.n_begin);
    cut(kv, &kv->seqs[seq], n);
}

static void move_here(struct sl_kv *kv, const struct sl_kv_move *m)
{
    const struct sl_kv_config *c = &kv->config;

    for (uint32_t l = 0; l < c->n_layers; l++) {
        if (!is_here(c, l))
            continue;
        for (unsigned value = 0; value < (c->one_plane ? 1u : 2u); value++) {
            for (uint32_t h = 0; h < c->n_heads; h++)
                sl_kv_copy_row(kv, sl_kv_at(kv, l, m->to_page, h, value), m->to,
                               sl_kv_at(kv, l, m->from_page, h, value),
                               m->from);
        }
    }
}

/* Nobody is moved to a place that is still to be moved from: places in path
 * only fall. */
int sl_kv_seq_pick(struct sl_kv *kv, uint32_t seq, uint32_t n,
                   const uint32_t *path, uint32_t n_path, struct sl_error *err)
{
    struct sequence *s = &kv->seqs[seq];
    struct sl_kv_move moves[SL_LM_TREE];
    uint32_t n_moves = 0;

    assert(n_path <= SL_LM_TREE && n + n_path <= s->len);
    for (uint32_t i = 0; i < n_path; i++) {
        uint32_t from = n + path[i], to = n + i;

        assert(from >= to && from < s->len);
        if (from == to)
            continue;
        moves[n_moves++] = (struct sl_kv_move){
            s->pages[from / SL_KV_PAGE_LEN], from % SL_KV_PAGE_LEN,
            s->pages[to / SL_KV_PAGE_LEN], to % SL_KV_PAGE_LEN};
        move_here(kv, &moves[n_moves - 1]);
    }
    if (n_moves > 0 && kv->store.move != NULL &&
        kv->store.move(kv->store.arg, moves, n_moves, err) != 0)
        return -1;
    cut(kv, s, n + n_path);
    return 0;
}

void sl_kv_seq_clear(struct sl_kv *kv, uint32_t seq)
{
    cut(kv, &kv->seqs[seq], kv->config.n_begin);
}

void sl_kv_seq_destroy(struct sl_kv *kv, uint32_t seq)
{
    cut(kv, &kv->seqs[seq], 0);
    kv->seqs[seq].alive = false;
}

uint32_t sl_kv_n_begin(const struct sl_kv *kv)
{
    return kv->config.n_begin;
}

uint32_t sl_kv_len(const struct sl_kv *kv, uint32_t seq)
{
    return kv->seqs[seq].len;
}

static uint32_t take_page(struct sl_kv *kv)
{
    uint32_t page = kv->free_pages[--kv->n_free];

    kv->counts[page] = 1;
    return page;
}

void sl_kv_set_page_store(struct sl_kv *kv,
                          const struct sl_kv_page_store *store)
{
    kv->store = store != NULL ? *store : (struct sl_kv_page_store){0};
}

/* Engines that keep pages elsewhere copy theirs through the page store. */
static int copy_page(struct sl_kv *kv, uint32_t to, uint32_t from,
                     struct sl_error *err)
{
    const struct sl_kv_page_store *store = &kv->store;
    uint64_t bytes = kv->head_bytes * kv->config.n_heads;

    for (uint32_t l = 0; l < kv->config.n_layers; l++) {
        if (!is_here(&kv->config, l))
            continue;
        for (unsigned value = 0; value < (kv->config.one_plane ? 1u : 2u);
             value++)
            memcpy(sl_kv_at(kv, l, to, 0, value),
                   sl_kv_at(kv, l, from, 0, value), bytes);
    }
    return store->copy != NULL ? store->copy(store->arg, to, from, err) : 0;
}

int sl_kv_extend(struct sl_kv *kv, uint32_t seq, uint32_t n,
                 struct sl_error *err)
{
    struct sequence *s = &kv->seqs[seq];
    uint32_t new_pages, last;
    bool copy;

    if (n > kv->config.max_tokens - s->len)
        return sl_fail(err, SL_ERR_BUDGET,
                       "a sequence of %u tokens cannot take %u more: %u were "
                       "planned for",
                       s->len, n, kv->config.max_tokens);
    new_pages = pages_of(s->len + n) - s->n_pages;
    last = s->n_pages ? s->pages[s->n_pages - 1] : 0;
    copy = s->len % SL_KV_PAGE_LEN != 0 && kv->counts[last] > 1;
    if (new_pages + copy > kv->n_free)
        return sl_fail(err, SL_ERR_BUDGET,
                       "the KV cache is full: %u pages of %u tokens wanted, %u "
                       "of %u free",
                       new_pages + copy, SL_KV_PAGE_LEN, kv->n_free,
                       kv->config.n_pages);
    if (copy) {
        uint32_t own = take_page(kv);

        if (copy_page(kv, own, last, err) != 0) {
            drop_page(kv, own);
            return -1;
        }
        drop_page(kv, last);
        s->pages[s->n_pages - 1] = own;
    }
    while (new_pages-- > 0)
        s->pages[s->n_pages++] = take_page(kv);
    s->len += n;
    return 0;
}

uint32_t sl_kv_pages_held(const struct sl_kv *kv)
{
    return kv->config.n_pages - kv->n_free;
}

const uint32_t *sl_kv_pages(const struct sl_kv *kv, uint32_t seq, uint32_t *n)
{
    *n = kv->seqs[seq].n_pages;
    return kv->seqs[seq].pages;
}

void *sl_kv_at(const struct sl_kv *kv, uint32_t layer, uint32_t page,
               uint32_t head, unsigned value)
{
    uint64_t plane = kv->config.one_plane ? kv->place[layer]
                                          : 2ull * kv->place[layer] + value;
    uint64_t at = (plane * kv->config.n_pages + page) * kv->config.n_heads;

    return kv->region.base + (at + head) * kv->head_bytes;
}

int sl_kv_plane_get(const struct sl_kv *kv, uint32_t layer, uint32_t page,
                    unsigned value, uint32_t n_used, void *to,
                    struct sl_error *err)
{
    const struct sl_kv_config *c = &kv->config;
    enum sl_kv_kind kind = sl_kv_layer_kind(c, layer);
    size_t rows = (size_t)row_bytes(c, kind), scales = scale_bytes(kind);
    size_t head = (size_t)head_bytes(c, kind), behind = SL_KV_PAGE_LEN * rows;
    uint32_t n = n_used < SL_KV_PAGE_LEN ? n_used : SL_KV_PAGE_LEN;
    uint32_t none = SL_KV_PAGE_LEN - n;

    if (is_here(c, layer))
        memcpy(to, sl_kv_at(kv, layer, page, 0, value), c->n_heads * head);
    else if (kv->store.get(kv->store.arg, layer, page, value, to, err) != 0)
        return -1;
    for (uint32_t h = 0; h < c->n_heads; h++) {
        uint8_t *at = (uint8_t *)to + h * head;

        memset(at + n * rows, 0, none * rows);
        memset(at + behind + n * scales, 0, none * scales);
    }
    return 0;
}

int sl_kv_plane_put(struct sl_kv *kv, uint32_t layer, uint32_t page,
                    unsigned value, const void *from, struct sl_error *err)
{
    if (!is_here(&kv->config, layer))
        return kv->store.put(kv->store.arg, layer, page, value, from, err);
    memcpy(sl_kv_at(kv, layer, page, 0, value), from,
           kv->head_bytes * kv->config.n_heads);
    return 0;
}

void sl_kv_store(const struct sl_kv *kv, const struct sl_kernels *k, void *keys,
                 uint32_t at, const float *row)
{
    uint32_t d = kv->config.head_dim;
    struct sl_kv_scale scale;
    uint8_t *scales;

    switch (kv->config.kind) {
    case SL_KV_F32:
        memcpy((float *)keys + (size_t)at * d, row, d * sizeof *row);
        break;
    case SL_KV_F16:
        k->f32_to_f16((uint16_t *)keys + (size_t)at * d, row, d);
        break;
    case SL_KV_INT8:
        k->quantize_row((int8_t *)keys + (size_t)at * d, &scale, row, d);
        scales = (uint8_t *)keys + (size_t)SL_KV_PAGE_LEN * d;
        memcpy(scales + at * sizeof scale, &scale, sizeof scale);
        break;
    }
}

void sl_kv_copy_row(const struct sl_kv *kv, void *to_keys, uint32_t to,
                    const void *from_keys, uint32_t from)
{
    size_t row = (size_t)row_bytes(&kv->config, kv->config.kind);
    size_t scale = scale_bytes(kv->config.kind), behind = SL_KV_PAGE_LEN * row;
    uint8_t *a = to_keys;
    const uint8_t *b = from_keys;

    memcpy(a + to * row, b + from * row, row);
    if (scale > 0)
        memcpy(a + behind + to * scale, b + behind + from * scale, scale);
}

size_t sl_kv_head_bytes(const struct sl_kv *kv)
{
    return kv->head_bytes;
}

/* Page p of what all begin with, for a layer that lies elsewhere. */
static int begin_put_elsewhere(struct sl_kv *kv, const struct sl_kernels *k,
                               uint32_t layer, unsigned value, uint32_t p,
                               uint16_t *plane, const float *rows,
                               struct sl_error *err)
{
    const struct sl_kv_config *c = &kv->config;
    size_t d = c->head_dim, head = SL_KV_PAGE_LEN * d;
    uint32_t first = p * SL_KV_PAGE_LEN;

    memset(plane, 0, c->n_heads * head * sizeof *plane);
    for (uint32_t at = first; at < c->n_begin && at < first + SL_KV_PAGE_LEN;
         at++) {
        for (uint32_t h = 0; h < c->n_heads; h++)
            k->f32_to_f16(plane + h * head + (at - first) * d,
                          rows + ((size_t)at * c->n_heads + h) * d, d);
    }
    return sl_kv_plane_put(kv, layer, root_of(kv)->pages[p], value, plane, err);
}

static void begin_put_here(struct sl_kv *kv, const struct sl_kernels *k,
                           uint32_t layer, unsigned value, const float *rows)
{
    const struct sl_kv_config *c = &kv->config;
    const uint32_t *pages = root_of(kv)->pages;

    for (uint32_t at = 0; at < c->n_begin; at++) {
        for (uint32_t h = 0; h < c->n_heads; h++)
            sl_kv_store(
                kv, k,
                sl_kv_at(kv, layer, pages[at / SL_KV_PAGE_LEN], h, value),
                at % SL_KV_PAGE_LEN,
                rows + ((size_t)at * c->n_heads + h) * c->head_dim);
    }
}

int sl_kv_begin_put(struct sl_kv *kv, const struct sl_kernels *k,
                    uint32_t layer, unsigned value, const float *rows,
                    struct sl_error *err)
{
    uint16_t *plane;
    int rc = 0;

    if (is_here(&kv->config, layer)) {
        begin_put_here(kv, k, layer, value, rows);
        return 0;
    }
    plane = sl_alloc_array(sl_kv_plane_bytes(&kv->config, SL_KV_F16), 1);
    if (plane == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "KV cache: no memory");
    for (uint32_t p = 0; p < root_of(kv)->n_pages && rc == 0; p++)
        rc = begin_put_elsewhere(kv, k, layer, value, p, plane, rows, err);
    free(plane);
    return rc;
}
