/*
 * vec_table.h - puts the kernels of one instruction set into the table
 */
#ifndef SL_KERNELS_VEC_TABLE_H
#define SL_KERNELS_VEC_TABLE_H

#include "kernels/isa.h"

void ISA(sl_kernels_init)(struct sl_kernels *k)
{
    k->isa = ISA_NAME;
    k->matmul[SL_FMT_F32][SL_ACT_F32] = ISA(matmul_f32);
    k->matmul[SL_FMT_F16][SL_ACT_F32] = ISA(matmul_f16);
    k->matmul[SL_FMT_BF16][SL_ACT_F32] = ISA(matmul_bf16);
    k->matmul[SL_FMT_F32][SL_ACT_BF16] = ISA(matmul_f32_bf16);
    k->matmul[SL_FMT_F16][SL_ACT_BF16] = ISA(matmul_f16_bf16);
    k->matmul[SL_FMT_BF16][SL_ACT_BF16] = ISA(matmul_bf16_bf16);
    k->matmul[SL_FMT_INT8][SL_ACT_BF16] = ISA(matmul_int8_bf16);
    k->matmul[SL_FMT_INT4][SL_ACT_BF16] = ISA(matmul_int4_bf16);
    k->round_bf16 = ISA(round_bf16);
    k->bf16_bytes = sizeof(float);
    k->matmul[SL_FMT_INT8][SL_ACT_F32] = ISA(matmul_int8_f32);
    k->matmul[SL_FMT_INT8][SL_ACT_INT8] = ISA(matmul_int8_q8);
    k->matmul[SL_FMT_INT4][SL_ACT_F32] = ISA(matmul_int4_f32);
    k->matmul[SL_FMT_INT4][SL_ACT_INT8] = ISA(matmul_int4_q8);
    ISA(sl_kernels_init_blocks)(k);
    k->layer_norm = ISA(layer_norm);
    k->rms_norm = ISA(rms_norm);
    k->quantize_q8 = ISA(quantize_q8);
    k->quantize_row = ISA(quantize_row);
    k->rope = ISA(rope);
    k->rope_inter = ISA(rope_inter);
    k->attend = ISA(attend);
    k->geglu = ISA(geglu);
    k->swiglu = ISA(swiglu);
    k->gelu_tanh = ISA(gelu_tanh);
    k->join_planes = ISA(join_planes);
    k->add = ISA(add);
    k->scale_add = ISA(scale_add);
    k->f16_to_f32 = ISA(f16_to_f32);
    k->f32_to_f16 = ISA(f32_to_f16);
}

#endif
