#include "config.h"

#include "kernels/kernels.h"

/* The builtin asks cpuid for the instructions and xgetbv whether the system
 * saves the registers (gcc: common/config/i386/cpuinfo.h). */
enum sl_isa sl_cpu_best_isa(void)
{
#ifdef SL_X86_64
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") ||
        !__builtin_cpu_supports("f16c"))
        return SL_ISA_REF;
    if (!__builtin_cpu_supports("avx512f") ||
        !__builtin_cpu_supports("avx512bw") ||
        !__builtin_cpu_supports("avx512dq") ||
        !__builtin_cpu_supports("avx512vl") ||
        !__builtin_cpu_supports("avx512vnni"))
        return SL_ISA_AVX2;
    return SL_ISA_AVX512;
#else
    return SL_ISA_REF;
#endif
}
