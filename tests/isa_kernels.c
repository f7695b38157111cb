#include "config.h"

#include "kernels/isa.h"
#include "tests/isa_kernels.h"

#ifdef SL_X86_64
static bool has_avxvnni(void)
{
    return sl_cpu_best_isa() >= SL_ISA_AVX2 && sl_cpu_has_avxvnni();
}

static bool init_evex(struct sl_kernels *k)
{
    if (has_avxvnni() || !__builtin_cpu_supports("avx512vl") ||
        !__builtin_cpu_supports("avx512vnni"))
        return false;
    sl_kernels_init(k, SL_ISA_AVX2);
    sl_kernels_init_avxvnni_evex(k);
    return true;
}
#else
static bool has_avxvnni(void)
{
    return false;
}

static bool init_evex(struct sl_kernels *k)
{
    return false;
}
#endif

bool test_isa_init(struct sl_kernels *k, int i)
{
    if (i == TEST_ISAS - 1)
        return init_evex(k);
    if (i > (int)sl_cpu_best_isa() || (i == SL_ISA_AVXVNNI && !has_avxvnni()))
        return false;
    sl_kernels_init(k, (enum sl_isa)i);
    return true;
}
