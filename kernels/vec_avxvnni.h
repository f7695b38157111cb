/*
 * vec_avxvnni.h - what products by INT8 inputs are written in, for AVX-VNNI:
 * AVX2's registers and VPDPBUSD; see vec_avx512.h for the meaning of the names
 *
 * Compiled without AVX-VNNI it is a set of its own for tests, of the same
 * instructions but for the encoding of VPDPBUSD, which is AVX-512's: so what
 * is written here can be run on CPUs that have only that one.
 */
#ifndef SL_KERNELS_VEC_AVXVNNI_H
#define SL_KERNELS_VEC_AVXVNNI_H

#define PACKED_TILE   2
#define Q8_TILE       4
#define PANEL_BLOCKS  1u
#define PANEL_PLANES  1u
#define PANEL_TILE    6
#define PANEL_LEAST   6
#define PANEL_TILES_H "kernels/panel_vnni.h"
#define BLOCKS_DOT_H  "kernels/blocks_vnni.h"
#define BLOCKS_TILE   4
#define BLOCKS_LEAST  9

#ifdef __AVXVNNI__
#define ISA(name) name##_avxvnni
#define ISA_NAME  "avxvnni"
#else
#define ISA(name) name##_avxvnni_evex
#define ISA_NAME  "avxvnni-evex"
#endif

#include "kernels/vec_256.h"

INLINE vi vi_dot(vi acc, vi w, vi x)
{
#ifdef __AVXVNNI__
    return _mm256_dpbusd_avx_epi32(acc, w, x);
#else
    __asm__("%{evex%} vpdpbusd %2, %1, %0" : "+x"(acc) : "x"(w), "x"(x));
    return acc;
#endif
}

#include "kernels/dot_vnni.h"

#endif
