/*
 * bpe.h - merges the symbols of a word, the lowest rank first
 *
 * Sennrich, Haddow, Birch: Neural machine translation of rare words with
 * subword units (ACL 2016); of equal ranks the leftmost first. A heap of
 * candidates over a linked list of symbols: n log n, whatever the word.
 */
#ifndef SL_BPE_H
#define SL_BPE_H

#include "src/base/ids.h"
#include "src/text/piece_map.h"

struct sl_bpe_symbol {
    uint32_t id;
    int32_t prev, next; /* -1: none */
};

struct sl_bpe_pair { /* might merge, if both are still there */
    uint32_t rank, at, left, right, result;
};

struct sl_bpe { /* zeroed to begin with; one word at a time */
    struct sl_merge_map merges;
    struct sl_bpe_symbol *symbols;
    size_t n, room;
    struct sl_bpe_pair *heap;
    size_t n_heap, heap_room;
};

void sl_bpe_fini(struct sl_bpe *b);
/* A word begins, and its symbols from left to right. */
void sl_bpe_begin(struct sl_bpe *b);
int sl_bpe_add(struct sl_bpe *b, uint32_t id, struct sl_error *err);
/* Merges, and appends the ids of what is left. */
int sl_bpe_end(struct sl_bpe *b, struct sl_ids *ids, struct sl_error *err);

#endif
