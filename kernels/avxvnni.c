#include "config.h"

#include "kernels/isa.h"
#include "kernels/vec_avxvnni.h"

#include "kernels/vec_q8.h"

void ISA(sl_kernels_init)(struct sl_kernels *k)
{
    k->isa = ISA_NAME;
    k->matmul[SL_FMT_INT8][SL_ACT_INT8] = ISA(matmul_int8_q8);
    k->matmul[SL_FMT_INT4][SL_ACT_INT8] = ISA(matmul_int4_q8);
    ISA(sl_kernels_init_blocks)(k);
}
