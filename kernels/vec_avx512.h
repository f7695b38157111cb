/*
 * vec_avx512.h - what the vec_*.h kernels are written in, for AVX-512
 *
 * vf: W floats. vi: W 32-bit integers. vd: W / 2 doubles. Functions ending in
 * _n touch the first n < W elements only (n may be 0) and read the others as
 * zero. Included by one .c file of the instruction set's own library, never
 * by the base library.
 */
#ifndef SL_KERNELS_VEC_AVX512_H
#define SL_KERNELS_VEC_AVX512_H

#include <immintrin.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define W            16
#define FLOAT_ROWS   4 /* rows and positions of a register tile of floats */
#define FLOAT_TILE   4
#define PACKED_TILE  4 /* positions of a tile, inputs in FP32 */
#define Q8_TILE      4 /* positions of a tile, inputs in INT8 */
#define ATTN_QUERIES 4 /* at most SL_ATTEND_QUERIES */
/* vec_panel_f32.h */
#define PANEL_F32_VECTORS 2
#define PANEL_F32_TILE    12
#define PANEL_F32_LEAST   12 /* positions from which it is faster */
/* vec_panel.h */
#define PANEL_BLOCKS  2u
#define PANEL_PLANES  1u
#define PANEL_TILE    6
#define PANEL_LEAST   6 /* positions from which it is faster */
#define PANEL_TILES_H "kernels/panel_vnni.h"
#define PANEL_AMX_H   "kernels/panel_amx.h"
#define BLOCKS_DOT_H  "kernels/blocks_vnni.h"
#define BLOCKS_TILE   4  /* positions of a tile of ggml's blocks */
#define BLOCKS_LEAST  6  /* PANEL_LEAST of these */
#define AMX_TILE      16 /* positions */
#define ISA(name)     name##_avx512
#define ISA_NAME      "avx512"

#define INLINE static inline __attribute__((always_inline))

typedef __m512 vf;
typedef __m512i vi;
typedef __m512d vd;

INLINE __mmask16 vec_mask(size_t n)
{
    return (__mmask16)((1u << n) - 1);
}

INLINE vf vf_set(float x)
{
    return _mm512_set1_ps(x);
}

INLINE vf vf_load(const float *p)
{
    return _mm512_loadu_ps(p);
}

INLINE vf vf_load_n(const float *p, size_t n)
{
    return _mm512_maskz_loadu_ps(vec_mask(n), p);
}

INLINE void vf_store(float *p, vf x)
{
    _mm512_storeu_ps(p, x);
}

INLINE void vf_store_n(float *p, vf x, size_t n)
{
    _mm512_mask_storeu_ps(p, vec_mask(n), x);
}

/* W / 2 values, each in two lanes. */
INLINE vf vf_load_twice(const float *p)
{
    return _mm512_permutexvar_ps(
        _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7),
        _mm512_castps256_ps512(_mm256_loadu_ps(p)));
}

INLINE vf vf_load_twice_n(const float *p, size_t n) /* n < W / 2 */
{
    return _mm512_permutexvar_ps(
        _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7),
        vf_load_n(p, n));
}

INLINE vf vf_load_half(const void *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256(p));
}

INLINE vf vf_load_half_n(const void *p, size_t n)
{
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(vec_mask(n), p));
}

/* BF16 is the first half of a float. */
INLINE vf vf_load_bf16(const void *p)
{
    return _mm512_castsi512_ps(
        _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(p)), 16));
}

INLINE vf vf_load_bf16_n(const void *p, size_t n)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(
        _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(vec_mask(n), p)), 16));
}

INLINE vf vf_load_i8(const int8_t *p)
{
    return _mm512_cvtepi32_ps(
        _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)));
}

INLINE vf vf_load_i8_n(const int8_t *p, size_t n)
{
    return _mm512_cvtepi32_ps(
        _mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(vec_mask(n), p)));
}

INLINE void vf_store_half(void *p, vf x)
{
    _mm256_storeu_si256(p, _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
}

INLINE void vf_store_half_n(void *p, vf x, size_t n)
{
    _mm256_mask_storeu_epi16(p, vec_mask(n),
                             _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
}

INLINE vf vf_add(vf a, vf b)
{
    return _mm512_add_ps(a, b);
}

INLINE vf vf_sub(vf a, vf b)
{
    return _mm512_sub_ps(a, b);
}

INLINE vf vf_mul(vf a, vf b)
{
    return _mm512_mul_ps(a, b);
}

/* a - b in even lanes, a + b in odd ones. (a * 1 is exact.) */
INLINE vf vf_sub_add(vf a, vf b)
{
    return _mm512_fmaddsub_ps(a, vf_set(1), b);
}

/* Neighbours (0, 1), (2, 3), ... change places. */
INLINE vf vf_swap(vf a)
{
    return _mm512_permute_ps(a, 0xb1);
}

INLINE vf vf_div(vf a, vf b)
{
    return _mm512_div_ps(a, b);
}

/* a * b + c, rounded once */
INLINE vf vf_fma(vf a, vf b, vf c)
{
    return _mm512_fmadd_ps(a, b, c);
}

/* The second operand where one of them is NaN, as the instruction does. */
INLINE vf vf_max(vf a, vf b)
{
    return _mm512_max_ps(a, b);
}

INLINE vf vf_min(vf a, vf b)
{
    return _mm512_min_ps(a, b);
}

INLINE vf vf_abs(vf a)
{
    return _mm512_abs_ps(a);
}

/* a < b ? x : y */
INLINE vf vf_select_less(vf a, vf b, vf x, vf y)
{
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), y, x);
}

INLINE vi vf_to_int(vf a) /* nearest, ties to even */
{
    return _mm512_cvtps_epi32(a);
}

INLINE vf vi_to_float(vi a)
{
    return _mm512_cvtepi32_ps(a);
}

INLINE vf vf_pow2(vi n) /* -127 < n < 128 */
{
    return _mm512_castsi512_ps(
        _mm512_slli_epi32(_mm512_add_epi32(n, _mm512_set1_epi32(127)), 23));
}

INLINE float vf_sum(vf a)
{
    __m256 h =
        _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    __m128 q =
        _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));

    q = _mm_add_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_add_ss(q, _mm_movehdup_ps(q)));
}

/* vf_sum of each of four, in its order. */
INLINE __m128 vf_sums(vf a, vf b, vf c, vf d)
{
    /* Halves side by side, of a and b, of c and d; then quarters of all. */
    vf ab = _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44),
                          _mm512_shuffle_f32x4(a, b, 0xee));
    vf cd = _mm512_add_ps(_mm512_shuffle_f32x4(c, d, 0x44),
                          _mm512_shuffle_f32x4(c, d, 0xee));
    vf all = _mm512_add_ps(_mm512_shuffle_f32x4(ab, cd, 0x88),
                           _mm512_shuffle_f32x4(ab, cd, 0xdd));

    all = _mm512_add_ps(all, _mm512_permute_ps(all, 0xee));
    all = _mm512_add_ps(all, _mm512_permute_ps(all, 0xf5));
    return _mm512_castps512_ps128(_mm512_permutexvar_ps(
        _mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0),
        all));
}

/* Of two vectors: halves of a, then of b, added to each other. One shuffle and
 * a blend, which any port does, where two shuffles were the obvious way. */
INLINE vf vf_add_halves(vf a, vf b)
{
    return _mm512_add_ps(_mm512_mask_blend_ps(0xff00, a, b),
                         _mm512_shuffle_f32x4(a, b, 0x4e));
}

/* Quarters of a and b in turns: of a, of b, of a, of b. */
INLINE vf vf_add_quarters(vf a, vf b)
{
    const __m512i others = _mm512_setr_epi32(4, 5, 6, 7, 16, 17, 18, 19, 12, 13,
                                             14, 15, 24, 25, 26, 27);

    return _mm512_add_ps(_mm512_mask_blend_ps(0xf0f0, a, b),
                         _mm512_permutex2var_ps(a, others, b));
}

/* vf_sum of each of n rows of four, in its order, times scale. */
INLINE void vf_tile_sums(float *to, size_t stride, vf (*v)[4], const int n,
                         float scale)
{
    vf key[4], even, odd;

    if (n != 4) {
        for (int i = 0; i < n; i++)
            _mm_storeu_ps(
                to + (size_t)i * stride,
                _mm_mul_ps(vf_sums(v[i][0], v[i][1], v[i][2], v[i][3]),
                           _mm_set1_ps(scale)));
        return;
    }
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) /* a quarter for each row */
        key[j] = vf_add_quarters(vf_add_halves(v[0][j], v[2][j]),
                                 vf_add_halves(v[1][j], v[3][j]));
    even = _mm512_add_ps(_mm512_mask_blend_ps(0xcccc, key[0], key[2]),
                         _mm512_shuffle_ps(key[0], key[2], 0x4e));
    odd = _mm512_add_ps(_mm512_mask_blend_ps(0xcccc, key[1], key[3]),
                        _mm512_shuffle_ps(key[1], key[3], 0x4e));
    even = _mm512_add_ps(
        _mm512_mask_blend_ps(0xaaaa, even, odd),
        _mm512_permute_ps(_mm512_mask_blend_ps(0xaaaa, odd, even), 0xb1));
    even = _mm512_mul_ps(even, _mm512_set1_ps(scale));
    _mm_storeu_ps(to, _mm512_castps512_ps128(even));
    _mm_storeu_ps(to + stride, _mm512_extractf32x4_ps(even, 1));
    _mm_storeu_ps(to + 2 * stride, _mm512_extractf32x4_ps(even, 2));
    _mm_storeu_ps(to + 3 * stride, _mm512_extractf32x4_ps(even, 3));
}

INLINE float vf_largest(vf a)
{
    return _mm512_reduce_max_ps(a);
}

INLINE vd vd_set(double x)
{
    return _mm512_set1_pd(x);
}

INLINE vd vd_low(vf a)
{
    return _mm512_cvtps_pd(_mm512_castps512_ps256(a));
}

INLINE vd vd_high(vf a)
{
    return _mm512_cvtps_pd(_mm512_extractf32x8_ps(a, 1));
}

INLINE vd vd_add(vd a, vd b)
{
    return _mm512_add_pd(a, b);
}

INLINE vd vd_sub(vd a, vd b)
{
    return _mm512_sub_pd(a, b);
}

INLINE vd vd_mul(vd a, vd b)
{
    return _mm512_mul_pd(a, b);
}

INLINE double vd_sum(vd a)
{
    return _mm512_reduce_add_pd(a);
}

INLINE vf vf_join(vd low, vd high)
{
    return _mm512_insertf32x8(_mm512_castps256_ps512(_mm512_cvtpd_ps(low)),
                              _mm512_cvtpd_ps(high), 1);
}

INLINE vi vi_set(int32_t x)
{
    return _mm512_set1_epi32(x);
}

INLINE vi vi_add(vi a, vi b)
{
    return _mm512_add_epi32(a, b);
}

INLINE vi vi_mul(vi a, vi b)
{
    return _mm512_mullo_epi32(a, b);
}

INLINE vi vi_load(const int32_t *p)
{
    return _mm512_loadu_si512(p);
}

INLINE vi vi_load_n(const int32_t *p, size_t n)
{
    return _mm512_maskz_loadu_epi32(vec_mask(n), p);
}

INLINE void vi_store(int32_t *p, vi a)
{
    _mm512_storeu_si512(p, a);
}

INLINE int32_t vi_sum(vi a)
{
    return _mm512_reduce_add_epi32(a);
}

INLINE void vi_store_i8(int8_t *p, vi a) /* values within -128 .. 127 */
{
    _mm_storeu_si128((__m128i *)p, _mm512_cvtepi32_epi8(a));
}

INLINE vi vi_load_bytes(const uint8_t *p)
{
    return _mm512_loadu_si512(p);
}

/* Four bytes to every lane. */
INLINE vi vi_set_bytes(const int8_t *p)
{
    int32_t x;

    memcpy(&x, p, sizeof x);
    return _mm512_set1_epi32(x);
}

/* The nibble at bit `shift` of each lane, less 8. The permutation looks at
 * the four low bits of its index only, so nothing needs masking. */
INLINE vf vf_nibble(vi v, int shift)
{
    const vf value =
        _mm512_setr_ps(-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7);

    return _mm512_permutexvar_ps(_mm512_srli_epi32(v, (unsigned)shift), value);
}

/* The nearest BF16; NaN stays what it is. */
INLINE vf vf_round_bf16(vf a)
{
    vi v = _mm512_castps_si512(a);
    vi odd = _mm512_and_si512(_mm512_srli_epi32(v, 16), vi_set(1));
    vi sum = _mm512_add_epi32(_mm512_add_epi32(v, vi_set(0x7fff)), odd);
    vf r = _mm512_castsi512_ps(
        _mm512_and_si512(sum, vi_set((int32_t)0xffff0000u)));

    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q), r, a);
}

/* Byte i of each lane, less 128. */
INLINE vf vf_byte(vi v, int i)
{
    v = _mm512_xor_si512(v, _mm512_set1_epi32((int)0x80808080u));
    v = _mm512_slli_epi32(v, (unsigned)(24 - 8 * i));
    return _mm512_cvtepi32_ps(_mm512_srai_epi32(v, 24));
}

/* Logical shifts of lanes. */
INLINE vi vi_left(vi a, unsigned n)
{
    return _mm512_slli_epi32(a, n);
}

INLINE vi vi_right(vi a, unsigned n)
{
    return _mm512_srli_epi32(a, n);
}

INLINE vi vi_and(vi a, vi b)
{
    return _mm512_and_si512(a, b);
}

INLINE vi vi_or(vi a, vi b)
{
    return _mm512_or_si512(a, b);
}

INLINE vi vi_sub(vi a, vi b)
{
    return _mm512_sub_epi32(a, b);
}

INLINE vi vi_max(vi a, vi b)
{
    return _mm512_max_epi32(a, b);
}

INLINE vi vi_min(vi a, vi b)
{
    return _mm512_min_epi32(a, b);
}

/* Every byte less n. */
INLINE vi vi_sub_bytes(vi a, int n)
{
    return _mm512_sub_epi8(a, _mm512_set1_epi8((char)n));
}

/* The bytes of a table by their numbers, 0 .. 15. */
INLINE vi vi_look_up(vi codes, __m128i table)
{
    return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(table), codes);
}

INLINE vf vi_as_floats(vi a)
{
    return _mm512_castsi512_ps(a);
}

/* The low half of each lane, an FP16. */
INLINE vf vf_low_half(vi a)
{
    return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(a));
}

/* Byte i of each lane, signed. */
INLINE vf vf_signed_byte(vi v, int i)
{
    v = _mm512_slli_epi32(v, (unsigned)(24 - 8 * i));
    return _mm512_cvtepi32_ps(_mm512_srai_epi32(v, 24));
}

/* Each lane by 2^-n, rounded down. */
INLINE vi vi_right_signed(vi a, unsigned n)
{
    return _mm512_srai_epi32(a, n);
}

/* acc += products of four unsigned by four signed bytes in each lane. */
INLINE vi vi_dot(vi acc, vi w, vi x)
{
    return _mm512_dpbusd_epi32(acc, w, x);
}

#include "kernels/dot_vnni.h"

#endif
