/*
 * slab.h - a slab: the bytes one step of a pass needs, as extents of a file
 *
 * offload/ knows no tensors: a slab is a short list of byte ranges of the
 * model file that are loaded together into one slot. Ranges may begin
 * anywhere; they are read from the page below to the page above, so that
 * every read is direct, and lie in the slot one after another, each at its
 * own offset within a page. (The file's length is a multiple of a page.)
 *
 *   file:  ...|....aaaa|aaaa....|............|..bbbb..|...
 *   slot:     |....aaaa|aaaa....|..bbbb..|
 *
 * A slab may lie in a run that is kept compressed (compressed.h). Its extents
 * are where its bytes are meant to be; other ones are read.
 */
#ifndef SL_OFFLOAD_SLAB_H
#define SL_OFFLOAD_SLAB_H

#include <stdbool.h>
#include <stdint.h>

#include "offload/compressed.h"

#define SL_SLAB_EXTENTS 4u

struct sl_extent {
    uint64_t off;   /* in the file */
    uint64_t bytes; /* > 0 */
};

struct sl_slab {
    struct sl_extent extents[SL_SLAB_EXTENTS];
    uint32_t n_extents;
    const struct sl_compressed *compressed; /* borrowed; NULL: not compressed */
    bool keep; /* where some slabs are to stay (plan.h), this is one */
};

/* The file pages that cover an extent. */
static inline uint64_t sl_extent_load_off(const struct sl_extent *e)
{
    return sl_round_down(e->off, SL_PAGE_BYTES);
}

static inline uint64_t sl_extent_load_bytes(const struct sl_extent *e)
{
    return sl_round_up(e->off + e->bytes, SL_PAGE_BYTES) -
           sl_extent_load_off(e);
}

/* What is read of the file for extent i: whole pages. */
static inline struct sl_extent sl_slab_read_extent(const struct sl_slab *s,
                                                   uint32_t i)
{
    const struct sl_compressed *p = s->compressed;
    struct sl_extent r = {sl_extent_load_off(&s->extents[i]),
                          sl_extent_load_bytes(&s->extents[i])};
    uint64_t first, last;

    if (p == NULL)
        return r;
    first = p->at[(r.off - p->off) / p->chunk_bytes];
    last = p->at[(r.off + r.bytes - 1 - p->off) / p->chunk_bytes + 1];
    r.off = p->off + sl_round_down(first, SL_PAGE_BYTES);
    r.bytes = p->off + sl_round_up(last, SL_PAGE_BYTES) - r.off;
    return r;
}

/* Bytes that are read of the file for a slab. */
static inline uint64_t sl_slab_read_bytes(const struct sl_slab *s)
{
    uint64_t n = 0;

    for (uint32_t i = 0; i < s->n_extents; i++)
        n += sl_slab_read_extent(s, i).bytes;
    return n;
}

/* Bytes a slab takes in a slot or a tier, as it is kept and as it is meant: a
 * multiple of a page. */
static inline uint64_t sl_slab_load_bytes(const struct sl_slab *s)
{
    uint64_t n = 0, read;

    for (uint32_t i = 0; i < s->n_extents; i++)
        n += sl_extent_load_bytes(&s->extents[i]);
    read = s->compressed != NULL ? sl_slab_read_bytes(s) : 0;
    return n > read ? n : read;
}

/* The same of all slabs together, and of the largest. */
static inline uint64_t sl_slabs_load_bytes(const struct sl_slab *s, size_t n)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < n; i++)
        sum += sl_slab_load_bytes(&s[i]);
    return sum;
}

static inline uint64_t sl_slabs_largest(const struct sl_slab *s, size_t n)
{
    uint64_t largest = 0;

    for (size_t i = 0; i < n; i++) {
        uint64_t bytes = sl_slab_load_bytes(&s[i]);

        largest = bytes > largest ? bytes : largest;
    }
    return largest;
}

/* Where extent i's first byte lies, from the slot's first byte. */
static inline uint64_t sl_slab_extent_at(const struct sl_slab *s, uint32_t i)
{
    uint64_t n = 0;

    for (uint32_t j = 0; j < i; j++)
        n += sl_extent_load_bytes(&s->extents[j]);
    return n + s->extents[i].off % SL_PAGE_BYTES;
}

#endif
