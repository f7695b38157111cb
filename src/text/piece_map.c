#include "config.h"

#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#include "src/base/bytes.h"
#include "src/base/mem.h"
#include "src/text/piece_map.h"

/* A power of two of which n are at most half. */
static size_t slots_for(size_t n)
{
    size_t slots = 16;

    while (slots / 2 < n)
        slots *= 2;
    return slots;
}

static size_t piece_slot(const struct sl_piece_map *m, const char *s, size_t n)
{
    size_t i = XXH3_64bits(s, n) & m->mask;

    while (m->slots[i] != 0) {
        size_t size;
        const char *p = sl_vocab_piece(m->v, m->slots[i] - 1, &size);

        if (size == n && memcmp(p, s, n) == 0)
            break;
        i = (i + 1) & m->mask;
    }
    return i;
}

int sl_piece_map_init(struct sl_piece_map *m, const struct sl_vocab *v,
                      struct sl_error *err)
{
    m->v = v;
    m->mask = slots_for(v->n_tokens) - 1;
    m->slots = sl_zalloc_array(m->mask + 1, sizeof *m->slots);
    if (m->slots == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory for %u pieces",
                       v->n_tokens);
    for (uint32_t id = 0; id < v->n_tokens; id++) {
        size_t n, i;
        const char *s = sl_vocab_piece(v, id, &n);

        if (n == 0 || !sl_vocab_in_model(v, id))
            continue;
        i = piece_slot(m, s, n);
        if (m->slots[i] == 0)
            m->slots[i] = id + 1;
    }
    return 0;
}

void sl_piece_map_fini(struct sl_piece_map *m)
{
    free(m->slots);
    *m = (struct sl_piece_map){0};
}

int32_t sl_piece_map_find(const struct sl_piece_map *m, const char *s, size_t n)
{
    return n == 0 ? -1 : (int32_t)m->slots[piece_slot(m, s, n)] - 1;
}

/* splitmix64's finaliser (Steele, Lea, Flood: Fast splittable pseudorandom
 * number generators, 2014) */
static uint64_t mix(uint64_t x)
{
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

static size_t merge_slot(const struct sl_merge_map *m, uint32_t left,
                         uint32_t right)
{
    size_t i = mix((uint64_t)left << 32 | right) & m->mask;

    while (m->slots[i].rank != UINT32_MAX &&
           (m->slots[i].left != left || m->slots[i].right != right))
        i = (i + 1) & m->mask;
    return i;
}

int sl_merge_map_init(struct sl_merge_map *m, const struct sl_vocab *v,
                      struct sl_error *err)
{
    const struct sl_vocab_span *part = &v->part[SL_VOCAB_MERGES];
    bool by_result = sl_vocab_number(v, SL_VOCAB_RANK_IS_RESULT) != 0;

    m->mask = slots_for(part->count) - 1;
    m->slots = sl_alloc_array(m->mask + 1, sizeof *m->slots);
    if (m->slots == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory for %u merges",
                       part->count);
    memset(m->slots, 0xff, (m->mask + 1) * sizeof *m->slots);
    for (uint32_t i = 0; i < part->count; i++) {
        const uint8_t *p = part->p + 12 * (size_t)i;
        struct sl_merge_entry e = {
            .left = sl_load_u32(p),
            .right = sl_load_u32(p + 4),
            .result = sl_load_u32(p + 8),
        };

        e.rank = by_result ? e.result : i;
        m->slots[merge_slot(m, e.left, e.right)] = e;
    }
    return 0;
}

void sl_merge_map_fini(struct sl_merge_map *m)
{
    free(m->slots);
    *m = (struct sl_merge_map){0};
}

const struct sl_merge_entry *sl_merge_map_find(const struct sl_merge_map *m,
                                               uint32_t left, uint32_t right)
{
    const struct sl_merge_entry *e = &m->slots[merge_slot(m, left, right)];

    return e->rank == UINT32_MAX ? NULL : e;
}
