#include "config.h"

#include <unistd.h>

#ifdef SL_X86_64
#include <cpuid.h>
#include <sys/syscall.h>
#endif

#include "kernels/isa.h"
#include "kernels/kernels.h"

#define L2_BYTES (1u << 20)

#ifdef SL_X86_64
/* clang 14 has no name for it (Intel SDM volume 2, CPUID leaf 1). */
static bool has_f16c(void)
{
    unsigned a, b, c, d;

    return __get_cpuid(1, &a, &b, &c, &d) && (c & 1u << 29);
}

#define ARCH_REQ_XCOMP_PERM 0x1023 /* asm/prctl.h, Linux 5.16 */
#define XFEATURE_XTILEDATA  18

/* CPUID leaf 7: AMX-TILE and AMX-INT8. The system saves tiles only for those
 * who have asked (torvalds/linux Documentation/arch/x86/xstate.rst); an older
 * one refuses. */
static bool has_amx(void)
{
    unsigned a, b, c, d;

    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & 1u << 24) &&
           (d & 1u << 25) &&
           syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) ==
               0;
}

/* CPUID leaf 7, subleaf 1 (Intel SDM volume 2): AVX-VNNI. The registers are
 * AVX2's. */
bool sl_cpu_has_avxvnni(void)
{
    unsigned a, b, c, d;

    return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & 1u << 4);
}

/* CPUID leaf 7: AMX-BF16, and with it AVX512-BF16 (subleaf 1). */
bool sl_cpu_has_amx_bf16(void)
{
    unsigned a, b, c, d;

    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & 1u << 22) &&
           __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & 1u << 5);
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
        return sl_cpu_has_avxvnni() ? SL_ISA_AVXVNNI : SL_ISA_AVX2;
    return has_amx() ? SL_ISA_AMX : SL_ISA_AVX512;
#else
    return SL_ISA_REF;
#endif
}

size_t sl_cpu_l2_bytes(void)
{
    long bytes = 0;

#ifdef _SC_LEVEL2_CACHE_SIZE
    bytes = sysconf(_SC_LEVEL2_CACHE_SIZE);
#endif
    return bytes > 0 ? (size_t)bytes : L2_BYTES;
}
