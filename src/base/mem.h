/*
 * mem.h - checked sizes and page-aligned memory
 *
 * Big memory (slots, residents, KV cache, activations) is mapped in whole
 * regions whose sizes the plan knows; small control objects use malloc.
 */
#ifndef SL_BASE_MEM_H
#define SL_BASE_MEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/base/error.h"

#define SL_PAGE_BYTES 4096u

/* *out = a * b or a + b; false (and *out untouched) on overflow. */
static inline bool sl_mul_size(size_t *out, size_t a, size_t b)
{
    size_t r;

    if (__builtin_mul_overflow(a, b, &r))
        return false;
    *out = r;
    return true;
}

static inline bool sl_add_size(size_t *out, size_t a, size_t b)
{
    size_t r;

    if (__builtin_add_overflow(a, b, &r))
        return false;
    *out = r;
    return true;
}

static inline uint64_t sl_round_down(uint64_t x, uint64_t to)
{
    return x - x % to;
}

/* The caller has checked that x + to does not overflow. */
static inline uint64_t sl_round_up(uint64_t x, uint64_t to)
{
    return sl_round_down(x + to - 1, to);
}

static inline uint64_t sl_div_up(uint64_t a, uint64_t b)
{
    return a / b + (a % b != 0);
}

/* malloc(n * size), NULL on overflow or failure; the second zeroes. */
void *sl_alloc_array(size_t n, size_t size);
void *sl_zalloc_array(size_t n, size_t size);
/* Makes room for item n of a list that doubles: *v (malloc; NULL when empty)
 * has *room items of size bytes. False without memory; the list stays. */
bool sl_grow(void **v, size_t *room, size_t n, size_t size);

/* A mapped, page-aligned, zeroed region. Pages take memory when first
 * touched. Regions of 4 MiB and more ask for transparent huge pages and are
 * aligned to 2 MiB (their size is not rounded up, so nothing beyond bytes is
 * ever resident but the rest of the last page). */
struct sl_region {
    uint8_t *base;
    size_t bytes;
    void *map;
    size_t map_bytes;
};

/* Errors: SL_ERR_NOMEM. what names the purpose in the message. */
int sl_region_init(struct sl_region *r, size_t bytes, const char *what,
                   struct sl_error *err);
void sl_region_fini(struct sl_region *r); /* a zeroed region is fine */

/* Cuts arrays out of one piece of memory; with base NULL it only counts. */
struct sl_carver {
    uint8_t *base;
    uint64_t used; /* begins as 0 */
};

/* Room for n items, at a cache line's beginning; NULL while counting. */
static inline void *sl_carve(struct sl_carver *c, uint64_t n, uint64_t item)
{
    uint64_t at = c->used;

    c->used = sl_round_up(at + n * item, 64);
    return c->base ? c->base + at : NULL;
}

#endif
