#include "config.h"

#ifdef SL_X86_64
#include <cpuid.h>
#endif

#include "kernels/kernels.h"

#ifdef SL_X86_64
/* clang 14 has no name for it (Intel SDM volume 2, CPUID leaf 1). */
static bool has_f16c(void)
{
    unsigned a, b, c, d;

    return __get_cpuid(1, &a, &b, &c, &d) && (c & 1u << 29);
}
#endif

/* The builtin asks cpuid for the instructions and xgetbv whether the system
 * saves the registers (gcc: common/config/i386/cpuinfo.h). */
enum sl_isa sl_cpu_best_isa(void)
{
#ifdef SL_X86_64
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") ||
        !has_f16c())
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
