/*
 * blocks_vnni.h - vec_blocks.h's products of bytes with VPDPBUSD
 */
#ifndef SL_KERNELS_BLOCKS_VNNI_H
#define SL_KERNELS_BLOCKS_VNNI_H

/* Made unsigned: VPDPBUSD multiplies unsigned by signed bytes. */
INLINE int dot_offset(const struct shape *s)
{
    return s->codes == SL_CODES_IQ4    ? 128
           : s->codes == SL_CODES_E2M1 ? 12
                                       : s->q_off;
}

INLINE vi quad_operand(const uint8_t *w, unsigned j, const struct shape *s)
{
    vi v = quad_codes(w, j, s);

    if (s->codes == SL_CODES_IQ4)
        return vi_look_up(v, _mm_xor_si128(_mm_setr_epi8(SL_IQ4_VALUES),
                                           _mm_set1_epi8((char)128)));
    if (s->codes == SL_CODES_E2M1)
        return vi_look_up(
            v, _mm_add_epi8(_mm_setr_epi8(SL_E2M1_VALUES), _mm_set1_epi8(12)));
    return v;
}

/* acc[p] += products of four columns with n positions, u-th of a run. */
INLINE void dot_quad(vi *acc, vi *part, vi w, const int8_t *q, size_t q_stride,
                     const int n, const unsigned u, const struct shape *s)
{
#pragma GCC unroll 8
    for (int p = 0; p < n; p++)
        acc[p] = vi_dot(acc[p], w, vi_set_bytes(q + (size_t)p * q_stride));
}

#endif
