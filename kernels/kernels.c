#include "config.h"

#include "kernels/isa.h"
#include "kernels/kernels.h"

const char *sl_act_name(enum sl_act act)
{
    static const char *const names[] = {
        [SL_ACT_F32] = "f32",
        [SL_ACT_INT8] = "int8",
        [SL_ACT_BF16] = "bf16",
    };

    return names[act];
}

const struct sl_reading sl_reading_default = {.places = 4, .ahead = 2304};

void sl_kernels_init(struct sl_kernels *k, enum sl_isa isa)
{
    enum sl_isa best = sl_cpu_best_isa();

    if (isa < best)
        best = isa;
    sl_kernels_init_ref(k);
    k->l2_bytes = sl_cpu_l2_bytes();
    k->reading = sl_reading_default;
#ifdef SL_X86_64
    if (best >= SL_ISA_AVX2)
        sl_kernels_init_avx2(k);
    if (best >= SL_ISA_AVXVNNI && sl_cpu_has_avxvnni())
        sl_kernels_init_avxvnni(k);
    if (best >= SL_ISA_AVX512)
        sl_kernels_init_avx512(k);
    if (best >= SL_ISA_AMX)
        sl_kernels_init_amx(k);
    if (best >= SL_ISA_AMX && sl_cpu_has_amx_bf16())
        sl_kernels_init_amx_bf16(k);
#endif
}
