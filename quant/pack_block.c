#include "config.h"

#define SL_PACK_BLOCK sl_pack_block_base
#include "quant/pack_block_tmpl.h"

sl_pack_block_fn *sl_pack_block_best(void)
{
#ifdef SL_X86_64
    if (__builtin_cpu_supports("avx512f") &&
        __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl"))
        return sl_pack_block_avx512;
    if (__builtin_cpu_supports("avx2"))
        return sl_pack_block_avx2;
#endif
    return sl_pack_block_base;
}
