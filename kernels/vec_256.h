/*
 * vec_256.h - the words of the vec_*.h kernels in registers of 256 bits, with
 * AVX2, FMA and F16C; see vec_avx512.h for their meaning
 */
#ifndef SL_KERNELS_VEC_256_H
#define SL_KERNELS_VEC_256_H

#include <immintrin.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define W            8
#define FLOAT_ROWS   2
#define FLOAT_TILE   4
#define ATTN_QUERIES 3

#define INLINE static inline __attribute__((always_inline))

typedef __m256 vf;
typedef __m256i vi;
typedef __m256d vd;

INLINE vi vec_mask(size_t n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n),
                              _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

INLINE vf vf_set(float x)
{
    return _mm256_set1_ps(x);
}

INLINE vf vf_load(const float *p)
{
    return _mm256_loadu_ps(p);
}

INLINE vf vf_load_n(const float *p, size_t n)
{
    return _mm256_maskload_ps(p, vec_mask(n));
}

INLINE void vf_store(float *p, vf x)
{
    _mm256_storeu_ps(p, x);
}

INLINE void vf_store_n(float *p, vf x, size_t n)
{
    _mm256_maskstore_ps(p, vec_mask(n), x);
}

INLINE vf vf_load_twice(const float *p)
{
    return _mm256_permutevar8x32_ps(_mm256_castps128_ps256(_mm_loadu_ps(p)),
                                    _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3));
}

INLINE vf vf_load_twice_n(const float *p, size_t n)
{
    return _mm256_permutevar8x32_ps(vf_load_n(p, n),
                                    _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3));
}

INLINE vf vf_load_half(const void *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128(p));
}

INLINE vf vf_load_half_n(const void *p, size_t n)
{
    uint16_t h[W] = {0};

    memcpy(h, p, n * sizeof *h);
    return vf_load_half(h);
}

INLINE vf vf_load_bf16(const void *p)
{
    return _mm256_castsi256_ps(
        _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(p)), 16));
}

INLINE vf vf_load_bf16_n(const void *p, size_t n)
{
    uint16_t h[W] = {0};

    memcpy(h, p, n * sizeof *h);
    return vf_load_bf16(h);
}

INLINE vf vf_load_i8(const int8_t *p)
{
    return _mm256_cvtepi32_ps(
        _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p)));
}

INLINE vf vf_load_i8_n(const int8_t *p, size_t n)
{
    int8_t b[W] = {0};

    memcpy(b, p, n);
    return vf_load_i8(b);
}

INLINE void vf_store_half(void *p, vf x)
{
    _mm_storeu_si128(p, _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
}

INLINE void vf_store_half_n(void *p, vf x, size_t n)
{
    uint16_t h[W];

    vf_store_half(h, x);
    memcpy(p, h, n * sizeof *h);
}

INLINE vf vf_add(vf a, vf b)
{
    return _mm256_add_ps(a, b);
}

INLINE vf vf_sub(vf a, vf b)
{
    return _mm256_sub_ps(a, b);
}

INLINE vf vf_mul(vf a, vf b)
{
    return _mm256_mul_ps(a, b);
}

INLINE vf vf_sub_add(vf a, vf b)
{
    return _mm256_addsub_ps(a, b);
}

INLINE vf vf_swap(vf a)
{
    return _mm256_permute_ps(a, 0xb1);
}

INLINE vf vf_div(vf a, vf b)
{
    return _mm256_div_ps(a, b);
}

INLINE vf vf_fma(vf a, vf b, vf c)
{
    return _mm256_fmadd_ps(a, b, c);
}

INLINE vf vf_max(vf a, vf b)
{
    return _mm256_max_ps(a, b);
}

INLINE vf vf_min(vf a, vf b)
{
    return _mm256_min_ps(a, b);
}

INLINE vf vf_abs(vf a)
{
    return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a);
}

INLINE vf vf_select_less(vf a, vf b, vf x, vf y)
{
    return _mm256_blendv_ps(y, x, _mm256_cmp_ps(a, b, _CMP_LT_OQ));
}

INLINE vi vf_to_int(vf a)
{
    return _mm256_cvtps_epi32(a);
}

INLINE vf vi_to_float(vi a)
{
    return _mm256_cvtepi32_ps(a);
}

INLINE vf vf_pow2(vi n)
{
    return _mm256_castsi256_ps(
        _mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23));
}

INLINE float vf_sum(vf a)
{
    __m128 q =
        _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));

    q = _mm_add_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_add_ss(q, _mm_movehdup_ps(q)));
}

INLINE __m128 vf_sums(vf a, vf b, vf c, vf d)
{
    vf ab = _mm256_add_ps(_mm256_permute2f128_ps(a, b, 0x20),
                          _mm256_permute2f128_ps(a, b, 0x31));
    vf cd = _mm256_add_ps(_mm256_permute2f128_ps(c, d, 0x20),
                          _mm256_permute2f128_ps(c, d, 0x31));
    vf all = _mm256_add_ps(_mm256_shuffle_ps(ab, cd, 0x44),
                           _mm256_shuffle_ps(ab, cd, 0xee));

    all = _mm256_add_ps(all, _mm256_movehdup_ps(all));
    /* a and c are in the low half, b and d in the high. */
    return _mm256_castps256_ps128(_mm256_permutevar8x32_ps(
        all, _mm256_setr_epi32(0, 4, 2, 6, 0, 0, 0, 0)));
}

/* Of two vectors: halves of a, then of b, added to each other. */
INLINE vf vf_add_halves(vf a, vf b)
{
    return _mm256_add_ps(_mm256_blend_ps(a, b, 0xf0),
                         _mm256_permute2f128_ps(a, b, 0x21));
}

/* Two rows of four; the others alone. */
INLINE void vf_tile_sums(float *to, size_t stride, vf (*v)[4], const int n,
                         float scale)
{
    vf key[4], even, odd;

    if (n % 2 != 0)
        _mm_storeu_ps(to + (size_t)(n - 1) * stride,
                      _mm_mul_ps(vf_sums(v[n - 1][0], v[n - 1][1], v[n - 1][2],
                                         v[n - 1][3]),
                                 _mm_set1_ps(scale)));
    if (n < 2)
        return;
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) /* a half for each row */
        key[j] = vf_add_halves(v[0][j], v[1][j]);
    even = _mm256_add_ps(_mm256_blend_ps(key[0], key[2], 0xcc),
                         _mm256_shuffle_ps(key[0], key[2], 0x4e));
    odd = _mm256_add_ps(_mm256_blend_ps(key[1], key[3], 0xcc),
                        _mm256_shuffle_ps(key[1], key[3], 0x4e));
    even = _mm256_add_ps(
        _mm256_blend_ps(even, odd, 0xaa),
        _mm256_permute_ps(_mm256_blend_ps(odd, even, 0xaa), 0xb1));
    even = _mm256_mul_ps(even, _mm256_set1_ps(scale));
    _mm_storeu_ps(to, _mm256_castps256_ps128(even));
    _mm_storeu_ps(to + stride, _mm256_extractf128_ps(even, 1));
}

INLINE float vf_largest(vf a)
{
    __m128 q =
        _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));

    q = _mm_max_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_max_ss(q, _mm_movehdup_ps(q)));
}

INLINE vd vd_set(double x)
{
    return _mm256_set1_pd(x);
}

INLINE vd vd_low(vf a)
{
    return _mm256_cvtps_pd(_mm256_castps256_ps128(a));
}

INLINE vd vd_high(vf a)
{
    return _mm256_cvtps_pd(_mm256_extractf128_ps(a, 1));
}

INLINE vd vd_add(vd a, vd b)
{
    return _mm256_add_pd(a, b);
}

INLINE vd vd_sub(vd a, vd b)
{
    return _mm256_sub_pd(a, b);
}

INLINE vd vd_mul(vd a, vd b)
{
    return _mm256_mul_pd(a, b);
}

INLINE double vd_sum(vd a)
{
    __m128d h =
        _mm_add_pd(_mm256_castpd256_pd128(a), _mm256_extractf128_pd(a, 1));

    return _mm_cvtsd_f64(_mm_add_sd(h, _mm_unpackhi_pd(h, h)));
}

INLINE vf vf_join(vd low, vd high)
{
    return _mm256_set_m128(_mm256_cvtpd_ps(high), _mm256_cvtpd_ps(low));
}

INLINE vi vi_set(int32_t x)
{
    return _mm256_set1_epi32(x);
}

INLINE vi vi_add(vi a, vi b)
{
    return _mm256_add_epi32(a, b);
}

INLINE vi vi_mul(vi a, vi b)
{
    return _mm256_mullo_epi32(a, b);
}

INLINE vi vi_load(const int32_t *p)
{
    return _mm256_loadu_si256((const __m256i *)(const void *)p);
}

INLINE vi vi_load_n(const int32_t *p, size_t n)
{
    return _mm256_maskload_epi32(p, vec_mask(n));
}

INLINE void vi_store(int32_t *p, vi a)
{
    _mm256_storeu_si256((__m256i *)(void *)p, a);
}

/* Makes the compiler compute a now: it would turn a chain of additions into a
 * tree of more values than there are registers (gcc -ftree-reassoc). */
INLINE void vi_fix(vi *a)
{
    __asm__("" : "+x"(*a));
}

INLINE int32_t vi_sum(vi a)
{
    __m128i q = _mm_add_epi32(_mm256_castsi256_si128(a),
                              _mm256_extracti128_si256(a, 1));

    q = _mm_add_epi32(q, _mm_unpackhi_epi64(q, q));
    return _mm_cvtsi128_si32(_mm_add_epi32(q, _mm_shuffle_epi32(q, 1)));
}

INLINE void vi_store_i8(int8_t *p, vi a)
{
    __m128i h = _mm_packs_epi32(_mm256_castsi256_si128(a),
                                _mm256_extracti128_si256(a, 1));

    _mm_storel_epi64((__m128i *)p, _mm_packs_epi16(h, h));
}

INLINE vi vi_load_bytes(const uint8_t *p)
{
    return _mm256_loadu_si256((const __m256i *)p);
}

INLINE vi vi_set_bytes(const int8_t *p)
{
    int32_t x;

    memcpy(&x, p, sizeof x);
    return _mm256_set1_epi32(x);
}

INLINE vf vf_nibble(vi v, int shift)
{
    v = _mm256_and_si256(_mm256_srli_epi32(v, shift), _mm256_set1_epi32(15));
    return _mm256_cvtepi32_ps(_mm256_sub_epi32(v, _mm256_set1_epi32(8)));
}

INLINE vf vf_round_bf16(vf a)
{
    vi v = _mm256_castps_si256(a);
    vi odd = _mm256_and_si256(_mm256_srli_epi32(v, 16), _mm256_set1_epi32(1));
    vi sum =
        _mm256_add_epi32(_mm256_add_epi32(v, _mm256_set1_epi32(0x7fff)), odd);
    vf r = _mm256_castsi256_ps(
        _mm256_and_si256(sum, _mm256_set1_epi32((int)0xffff0000u)));

    return _mm256_blendv_ps(r, a, _mm256_cmp_ps(a, a, _CMP_UNORD_Q));
}

INLINE vf vf_byte(vi v, int i)
{
    v = _mm256_xor_si256(v, _mm256_set1_epi32((int)0x80808080u));
    v = _mm256_slli_epi32(v, 24 - 8 * i);
    return _mm256_cvtepi32_ps(_mm256_srai_epi32(v, 24));
}

INLINE vi vi_left(vi a, unsigned n)
{
    return _mm256_slli_epi32(a, (int)n);
}

INLINE vi vi_right(vi a, unsigned n)
{
    return _mm256_srli_epi32(a, (int)n);
}

INLINE vi vi_right_signed(vi a, unsigned n)
{
    return _mm256_srai_epi32(a, (int)n);
}

INLINE vi vi_and(vi a, vi b)
{
    return _mm256_and_si256(a, b);
}

INLINE vi vi_or(vi a, vi b)
{
    return _mm256_or_si256(a, b);
}

INLINE vi vi_sub(vi a, vi b)
{
    return _mm256_sub_epi32(a, b);
}

INLINE vi vi_max(vi a, vi b)
{
    return _mm256_max_epi32(a, b);
}

INLINE vi vi_min(vi a, vi b)
{
    return _mm256_min_epi32(a, b);
}

INLINE vi vi_sub_bytes(vi a, int n)
{
    return _mm256_sub_epi8(a, _mm256_set1_epi8((char)n));
}

INLINE vi vi_look_up(vi codes, __m128i table)
{
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(table), codes);
}

INLINE vf vi_as_floats(vi a)
{
    return _mm256_castsi256_ps(a);
}

INLINE vf vf_low_half(vi a)
{
    const vi low = _mm256_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, -1, -1, -1, -1,
                                    -1, -1, -1, -1, 0, 1, 4, 5, 8, 9, 12, 13,
                                    -1, -1, -1, -1, -1, -1, -1, -1);

    a = _mm256_permute4x64_epi64(_mm256_shuffle_epi8(a, low), 0x08);
    return _mm256_cvtph_ps(_mm256_castsi256_si128(a));
}

INLINE vf vf_signed_byte(vi v, int i)
{
    v = _mm256_slli_epi32(v, 24 - 8 * i);
    return _mm256_cvtepi32_ps(_mm256_srai_epi32(v, 24));
}

#endif
