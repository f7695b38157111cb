/*
 * kv_turns.h - caches that wait in RAM and come to a device in turns
 *
 * Where a layer's keys and values have no room on the device, those of some of
 * a pass's sequences are there in turn, while the layer's weights stay:
 *
 *   buffer 0:  copy turn 0 | attend 0        | copy turn 2 | attend 2
 *   buffer 1:                copy turn 1 | attend 1        | ...
 *
 * Turns are the same for all layers of a pass. A page that several sequences of
 * a turn share is in it once.
 */
#ifndef SL_KV_TURNS_H
#define SL_KV_TURNS_H

#include "src/base/mem.h"
#include "src/exec/engine.h"
#include "src/exec/kvcache.h"

#define SL_KV_TURN_BUFFERS 2u

/* Where in its turn a page lies is its place in the list. */
struct sl_kv_turn_page {
    uint32_t page;
    bool held;    /* it has keys from before this pass */
    bool written; /* it gets some in this pass */
};

struct sl_kv_turn {
    size_t first_item, n_items;   /* of the pass, one after another */
    uint32_t first_page, n_pages; /* in pages */
};

struct sl_kv_turns {
    uint32_t room;                 /* pages of a buffer */
    struct sl_kv_turn *turn;       /* (most_items) */
    struct sl_kv_turn_page *pages; /* of all turns */
    uint32_t n_turns;
    /* (n_pages) by page of the cache: the last turn that it was in, counted
     * through all passes, and its place there */
    uint64_t *seen;
    uint32_t *place;
    uint64_t count;
};

/* Pages of a buffer for passes of so many sequences: a sequence's, or those of
 * several while they take no more than most_bytes. */
uint32_t sl_kv_turn_room(const struct sl_kv_config *config, uint32_t items,
                         uint64_t most_bytes);
/* Device bytes of all buffers: keys and values of a layer, FP16. */
uint64_t sl_kv_turn_bytes(const struct sl_kv_config *config, uint32_t items,
                          uint64_t most_bytes);
/* A good most_bytes, of device memory that nothing must have. */
uint64_t sl_kv_turn_most(uint64_t spare_bytes);

/* Lists for passes of so many sequences, and buffers of t->room; what was
 * carved must be all zero. */
void sl_kv_turns_carve(struct sl_kv_turns *t, struct sl_carver *c,
                       const struct sl_kv_config *config, uint32_t items);
/* The turns of a pass. Writes to table where each item's list begins, and to
 * lists the places of its pages, in order of position. */
void sl_kv_turns_make(struct sl_kv_turns *t, const struct sl_kv *kv,
                      const struct sl_pass *pass, uint32_t *table,
                      uint32_t *lists);

#endif
