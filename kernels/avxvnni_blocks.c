#include "config.h"

#include "kernels/isa.h"
#include "kernels/vec_avxvnni.h"

#include "kernels/vec_blocks.h"

void ISA(sl_kernels_init_blocks)(struct sl_kernels *k)
{
    blocks_q8_entries(k);
}
