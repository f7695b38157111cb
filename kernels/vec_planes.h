/*
 * vec_planes.h - two planes of weights joined, over any vec_<isa>.h
 */
#ifndef SL_KERNELS_VEC_PLANES_H
#define SL_KERNELS_VEC_PLANES_H

#include "kernels/kernels.h"
#include "kernels/vec_packed.h"

static void ISA(join_planes)(uint8_t *to, const uint8_t *high,
                             const uint8_t *low, size_t bytes)
{
    const vi nibble = vi_set(0x0f0f0f0f), upper = vi_set((int)0xf0f0f0f0u);
    const size_t step = sizeof(vi);

    for (size_t at = 0; at < bytes / 2; at += UNIT_BYTES, to += UNIT_BYTES) {
        _mm_prefetch((const char *)high + at + AHEAD, _MM_HINT_T0);
        _mm_prefetch((const char *)low + at + AHEAD, _MM_HINT_T0);
        for (size_t i = 0; i < UNIT_BYTES; i += step, to += step) {
            vi h = vi_load_bytes(high + at + i),
               l = vi_load_bytes(low + at + i);
            vi a = vi_or(vi_and(vi_left(h, 4), upper), vi_and(l, nibble));
            vi b = vi_or(vi_and(h, upper), vi_and(vi_right(l, 4), nibble));

            vi_store((int32_t *)(void *)to, vi_sub_bytes(a, 8));
            vi_store((int32_t *)(void *)(to + UNIT_BYTES), vi_sub_bytes(b, 8));
        }
    }
}

#endif
