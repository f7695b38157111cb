/*
 * isa.h - the steps of the ladder that sl_kernels_init climbs
 *
 * The reference fills the whole table; each instruction set overwrites what
 * it does better and sets the name. Those of an instruction set may be called
 * on a CPU that has it only.
 */
#ifndef SL_KERNELS_ISA_H
#define SL_KERNELS_ISA_H

#include "kernels/kernels.h"

void sl_kernels_init_ref(struct sl_kernels *k);
void sl_kernels_init_avx2(struct sl_kernels *k);
/* Their part that multiplies ggml's blocks. */
void sl_kernels_init_blocks_avx2(struct sl_kernels *k);
void sl_kernels_init_blocks_avxvnni(struct sl_kernels *k);
void sl_kernels_init_blocks_avx512(struct sl_kernels *k);
/* Over AVX2: products by INT8 inputs. */
void sl_kernels_init_avxvnni(struct sl_kernels *k);
bool sl_cpu_has_avxvnni(void);
/* The same for tests, with VPDPBUSD encoded as AVX-512 does: for CPUs with
 * AVX512-VL and AVX512-VNNI. In libk_avxvnni_evex.a. */
void sl_kernels_init_avxvnni_evex(struct sl_kernels *k);
void sl_kernels_init_blocks_avxvnni_evex(struct sl_kernels *k);
void sl_kernels_init_avx512(struct sl_kernels *k);
void sl_kernels_init_amx(struct sl_kernels *k); /* over AVX-512 */

/* Over AMX, on CPUs with AMX-BF16 and AVX512-BF16. */
void sl_kernels_init_amx_bf16(struct sl_kernels *k);
bool sl_cpu_has_amx_bf16(void);

/* Where BF16 is kept as the floats that it stands for: as inputs in FP32. */
static inline struct sl_acts sl_acts_rounded(const struct sl_acts *a)
{
    struct sl_acts r = *a;

    r.x = a->bf16;
    r.x_stride = a->bf16_stride / sizeof *r.x;
    return r;
}

/* ref_attn.c; the meaning of struct sl_kernels' attend. */
void sl_attend_ref(const struct sl_attend_args *args);

#endif
