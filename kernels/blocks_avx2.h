/*
 * blocks_avx2.h - vec_blocks.h's products of bytes for AVX2
 *
 * VPMADDUBSW adds pairs of products of unsigned by signed bytes in 16 bits,
 * which hold a pair of values below 256 only where one of them is a code of
 * few bits: 2 * 15 * 128 eight times, 2 * 31 * 128 four times, 2 * 63 * 128
 * twice. Values of eight bits go in signed, their sign on the inputs: once,
 * 2 * 128 * 127.
 */
#ifndef SL_KERNELS_BLOCKS_AVX2_H
#define SL_KERNELS_BLOCKS_AVX2_H

#define DOT_BY_BITS

INLINE bool is_signed(const struct shape *s)
{
    return s->q_bits == 8 || s->codes == SL_CODES_IQ4;
}

/* Pairs that 16 bits can add. */
INLINE unsigned sums_of(const struct shape *s)
{
    if (is_signed(s))
        return 1;
    return s->q_bits == 6                                ? 2
           : s->q_bits == 5 || s->codes == SL_CODES_E2M1 ? 4
                                                         : 8;
}

INLINE int dot_offset(const struct shape *s)
{
    return is_signed(s) ? 0 : s->codes == SL_CODES_E2M1 ? 12 : s->q_off;
}

INLINE vi quad_operand(const uint8_t *w, unsigned j, const struct shape *s)
{
    if (is_signed(s))
        return quad_values(w, j, s);
    if (s->codes == SL_CODES_E2M1)
        return vi_look_up(
            quad_codes(w, j, s),
            _mm_add_epi8(_mm_setr_epi8(SL_E2M1_VALUES), _mm_set1_epi8(12)));
    return quad_codes(w, j, s);
}

/* acc[p] += products of four columns with n positions, u-th of a run; part
 * holds what is to be added still. */
INLINE void dot_quad(vi *acc, vi *part, vi w, const int8_t *q, size_t q_stride,
                     const int n, const unsigned u, const struct shape *s)
{
    const unsigned most = sums_of(s), at = u % most;
    const bool end = at + 1 == most || 4 * (u + 1) == s->run;
    vi size = is_signed(s) ? _mm256_abs_epi8(w) : w;

#pragma GCC unroll 4
    for (int p = 0; p < n; p++) {
        vi x = vi_set_bytes(q + (size_t)p * q_stride);

        if (is_signed(s))
            x = _mm256_sign_epi8(x, w);
        x = _mm256_maddubs_epi16(size, x);
        part[p] = at == 0 ? x : _mm256_add_epi16(part[p], x);
        vi_fix(&part[p]);
        if (end)
            acc[p] = vi_add(acc[p],
                            _mm256_madd_epi16(part[p], _mm256_set1_epi16(1)));
    }
}

#endif
