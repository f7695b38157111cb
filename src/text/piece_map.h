/*
 * piece_map.h - pieces by their text, pairs of pieces by their rank
 *
 * Built when a vocabulary is opened: 150,000 pieces and 300,000 merges take
 * some 20 ms and 10 MB.
 */
#ifndef SL_PIECE_MAP_H
#define SL_PIECE_MAP_H

#include "src/text/vocab.h"

struct sl_piece_map { /* zeroed to begin with */
    const struct sl_vocab *v;
    uint32_t *slots; /* (mask + 1) id + 1; 0: free */
    size_t mask;
};

/* Of all pieces that the model can say; v is borrowed. Of two that are equal
 * the first counts. */
int sl_piece_map_init(struct sl_piece_map *m, const struct sl_vocab *v,
                      struct sl_error *err);
void sl_piece_map_fini(struct sl_piece_map *m);
/* The id, or -1. */
int32_t sl_piece_map_find(const struct sl_piece_map *m, const char *s,
                          size_t n);

struct sl_merge_entry {
    uint32_t left, right, rank, result;
};

struct sl_merge_map {             /* zeroed to begin with */
    struct sl_merge_entry *slots; /* (mask + 1); rank UINT32_MAX: free */
    size_t mask;
};

/* Of a pair that is listed twice the last entry counts, as in the reference. */
int sl_merge_map_init(struct sl_merge_map *m, const struct sl_vocab *v,
                      struct sl_error *err);
void sl_merge_map_fini(struct sl_merge_map *m);
/* NULL if the two do not merge. */
const struct sl_merge_entry *sl_merge_map_find(const struct sl_merge_map *m,
                                               uint32_t left, uint32_t right);

#endif
