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
void sl_kernels_init_avx512(struct sl_kernels *k);
void sl_kernels_init_amx(struct sl_kernels *k); /* over AVX-512 */

/* ref_attn.c; the meaning of struct sl_kernels' attend. */
void sl_attend_ref(const struct sl_attend_args *args);

#endif
