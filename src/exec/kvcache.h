/*
 * kvcache.h - keys and values of all layers, in pages that sequences share
 *
 * A page holds 16 positions of every layer; its keys lie head by head:
 *
 *   layer, K or V:  [page][head][position in page][value]    f32, f16 or int8
 *
 * and each head's 16 scales and offsets behind its int8 (enum sl_kv_kind).
 *
 * A sequence is a list of pages. A fork shares all its parent's pages by
 * count; whoever writes next into a shared page gets a copy first. So the
 * context of a beam search is held once however many beams there are. The
 * memory is mapped whole when the cache is made; nothing is allocated later.
 * Layers whose pages lie elsewhere have the same page numbers there; whoever
 * keeps them is told of copies. One thread at a time.
 *
 * All sequences may begin with the same positions (a P-Tuning v2 prefix,
 * prefix.h): they are put once, and shared like a fork's.
 */
#ifndef SL_KVCACHE_H
#define SL_KVCACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/kernels.h"
#include "src/base/error.h"
#include "src/exec/lm.h"

#define SL_KV_PAGE_LEN 16u

struct sl_kv_config {
    uint32_t n_layers;
    uint32_t n_heads;
    uint32_t head_dim;
    uint32_t n_pages;     /* in all */
    uint32_t n_sequences; /* alive at the same time */
    uint32_t max_tokens;  /* of one sequence, those it begins with included */
    uint32_t n_begin;     /* positions that every sequence begins with */
    enum sl_kv_kind kind;
    bool one_plane; /* values are keys */
    /* (n_layers) true where a layer's keys and values lie elsewhere, on a
     * device; borrowed for the cache's life. NULL: all lie here. */
    const bool *elsewhere;
};

struct sl_kv;

/* By kind, as options and reports have them; ends in NULL. */
extern const char *const sl_kv_kind_names[];

/* Bytes of one page over all layers that lie here, and of a whole cache with
 * its lists. */
uint64_t sl_kv_page_bytes(const struct sl_kv_config *config);
uint64_t sl_kv_bytes(const struct sl_kv_config *config);
/* How a layer's keys and values are kept: elsewhere it is FP16. */
enum sl_kv_kind sl_kv_layer_kind(const struct sl_kv_config *config,
                                 uint32_t layer);
/* Bytes of a plane: the keys, or the values, of all heads of one page and
 * layer, which lie one after another. */
uint64_t sl_kv_plane_bytes(const struct sl_kv_config *config,
                           enum sl_kv_kind kind);
/* Pages that n_sequences sequences of max_tokens need when they share their
 * first shared_tokens. */
uint64_t sl_kv_pages_needed(uint32_t n_sequences, uint32_t max_tokens,
                            uint32_t shared_tokens);

/* Errors: SL_ERR_NOMEM; SL_ERR_BUDGET where n_begin positions have no room. */
int sl_kv_create(struct sl_kv **kv, const struct sl_kv_config *config,
                 struct sl_error *err);
void sl_kv_destroy(struct sl_kv *kv);

/* A position that takes another's place. */
struct sl_kv_move {
    uint32_t from_page, from, to_page, to; /* from, to: in the page */
};

/* Who keeps the layers that lie elsewhere. */
struct sl_kv_page_store {
    /* Page `to` becomes what page `from` is, in all those layers. */
    int (*copy)(void *arg, uint32_t to, uint32_t from, struct sl_error *err);
    /* One move after another, n <= SL_LM_TREE of them, in all those layers. */
    int (*move)(void *arg, const struct sl_kv_move *moves, uint32_t n,
                struct sl_error *err);
    /* A plane (heads, SL_KV_PAGE_LEN, head_dim) f16 to and from host memory;
     * the copy is done on return. */
    int (*get)(void *arg, uint32_t layer, uint32_t page, unsigned value,
               void *to, struct sl_error *err);
    int (*put)(void *arg, uint32_t layer, uint32_t page, unsigned value,
               const void *from, struct sl_error *err);
    void *arg; /* borrowed until the cache ends or another is set */
};
/* NULL: nobody does. */
void sl_kv_set_page_store(struct sl_kv *kv,
                          const struct sl_kv_page_store *store);

/* What every sequence begins with, before the first is made: the keys (value =
 * 0) or the values (1) of a layer, rows: (n_begin, n_heads, head_dim) f32.
 * Errors: its page store's, SL_ERR_NOMEM. */
int sl_kv_begin_put(struct sl_kv *kv, const struct sl_kernels *k,
                    uint32_t layer, unsigned value, const float *rows,
                    struct sl_error *err);
uint32_t sl_kv_n_begin(const struct sl_kv *kv);

/* Errors: SL_ERR_BUDGET when n_sequences are alive already. */
int sl_kv_seq_create(struct sl_kv *kv, uint32_t *seq, struct sl_error *err);
int sl_kv_seq_fork(struct sl_kv *kv, uint32_t *seq, uint32_t from,
                   struct sl_error *err);
void sl_kv_seq_destroy(struct sl_kv *kv, uint32_t seq);

/* Leaves a sequence what it began with. */
void sl_kv_seq_clear(struct sl_kv *kv, uint32_t seq);
/* Keeps the first n positions of a sequence, which holds at least so many (and
 * began with no more);
 * pages behind them are free again where no other sequence has them. */
void sl_kv_seq_cut(struct sl_kv *kv, uint32_t seq, uint32_t n);
/* Keeps the first n positions of a sequence and, behind them in this order,
 * those at n + path[i]: (n_path) ascending, at most SL_LM_TREE, none of a page
 * that another sequence has. Errors: its page store's. */
int sl_kv_seq_pick(struct sl_kv *kv, uint32_t seq, uint32_t n,
                   const uint32_t *path, uint32_t n_path, struct sl_error *err);

/* Positions held by a sequence, those it began with included. */
uint32_t sl_kv_len(const struct sl_kv *kv, uint32_t seq);
/* Makes room for n more positions that seq alone will write, and counts them
 * in. Errors: SL_ERR_BUDGET with the numbers, and those of copying a page; the
 * sequence is unchanged. */
int sl_kv_extend(struct sl_kv *kv, uint32_t seq, uint32_t n,
                 struct sl_error *err);

/* Of all pages those that sequences hold. */
uint32_t sl_kv_pages_held(const struct sl_kv *kv);

/* Pages of a sequence, in order of position. */
const uint32_t *sl_kv_pages(const struct sl_kv *kv, uint32_t seq, uint32_t *n);
/* Keys (value = 0) or values (value = 1) of one head of one page of a layer
 * that lies here: (SL_KV_PAGE_LEN, head_dim) and the scales there are. */
void *sl_kv_at(const struct sl_kv *kv, uint32_t layer, uint32_t page,
               uint32_t head, unsigned value);
/* Copies a plane whose first n_used positions (or all) hold something, with
 * zeros for the others. Errors: its page store's. */
int sl_kv_plane_get(const struct sl_kv *kv, uint32_t layer, uint32_t page,
                    unsigned value, uint32_t n_used, void *to,
                    struct sl_error *err);
/* The other way. */
int sl_kv_plane_put(struct sl_kv *kv, uint32_t layer, uint32_t page,
                    unsigned value, const void *from, struct sl_error *err);
/* Puts a row (head_dim) into position `at` of such keys or values. Threads may
 * store different rows at the same time. */
void sl_kv_store(const struct sl_kv *kv, const struct sl_kernels *k, void *keys,
                 uint32_t at, const float *row);
/* Position `from` of such keys or values into position `to` of others, bit for
 * bit. */
void sl_kv_copy_row(const struct sl_kv *kv, void *to_keys, uint32_t to,
                    const void *from_keys, uint32_t from);
/* Bytes of one head's keys, or values, of a page that lies here. */
size_t sl_kv_head_bytes(const struct sl_kv *kv);

#endif
