#include "config.h"

#include <assert.h>

#include "src/arch/layer.h"

bool sl_slot_is_first_of_attention(enum sl_slot slot)
{
    return slot == SL_SLOT_QKV || slot == SL_SLOT_Q || slot == SL_SLOT_KV_A;
}

bool sl_slot_is_gain(enum sl_slot slot)
{
    switch (slot) {
    case SL_SLOT_ATTN_NORM:
    case SL_SLOT_Q_NORM:
    case SL_SLOT_K_NORM:
    case SL_SLOT_KV_A_NORM:
    case SL_SLOT_Q_A_NORM:
    case SL_SLOT_ATTN_POST_NORM:
    case SL_SLOT_MLP_NORM:
    case SL_SLOT_MLP_POST_NORM:
    case SL_SLOT_FINAL_NORM:
    case SL_SLOT_ROPE_FACTORS:
        return true;
    default:
        return false;
    }
}

const char *sl_act_fn_name(enum sl_act_fn fn)
{
    static const char *const names[] = {
        [SL_FN_NONE] = "none",
        [SL_FN_GEGLU] = "geglu",
        [SL_FN_SWIGLU] = "swiglu",
        [SL_FN_GELU_TANH] = "gelu",
    };

    return names[fn];
}

uint32_t sl_stage_op_of(const struct sl_stage_ops *s, enum sl_slot matrix)
{
    uint32_t i = 0;

    while (i < s->n &&
           (s->ops[i].what != SL_DO_MATMUL || s->ops[i].weight != matrix))
        i++;
    assert(i < s->n);
    return i;
}

enum sl_act_fn sl_stage_epilogue(const struct sl_stage_ops *s,
                                 enum sl_slot matrix)
{
    return s->ops[sl_stage_op_of(s, matrix)].epilogue;
}

uint32_t sl_stage_next_matmul(const struct sl_stage_ops *s, int at)
{
    uint32_t i = (uint32_t)(at + 1);

    while (i < s->n && s->ops[i].what != SL_DO_MATMUL)
        i++;
    return i;
}
