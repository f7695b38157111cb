#include "config.h"

#define SL_PACK8 sl_pack8_base
#include "quant/pack8_tmpl.h"

sl_pack8_fn *sl_pack8_best(void)
{
#ifdef SL_X86_64
    if (__builtin_cpu_supports("avx2"))
        return sl_pack8_avx2;
#endif
    return sl_pack8_base;
}
