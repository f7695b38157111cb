#include "config.h"

#include <string.h>

#include "src/arch/decoder.h"

void sl_decoder_derive_experts(struct sl_hparams *hp)
{
    if (hp->n_expert_groups == 0)
        hp->n_expert_groups = hp->n_expert_groups_used = 1;
    if (hp->expert_scale == 0)
        hp->expert_scale = 1;
    if (hp->shared_inner == 0)
        hp->shared_inner = hp->expert_inner;
}

/* GLM's classes choose in one way and ask nothing; others' say how. */
static int check_choice(const struct sl_settings *s, struct sl_error *err)
{
    static const char *const usual[][2] = {
        {"scoring_func", "sigmoid"},
        {"topk_method", "noaux_tc"},
    };

    for (size_t i = 0; i < sizeof usual / sizeof *usual; i++) {
        const char *key = usual[i][0], *says = usual[i][1];

        if (sl_settings_string(&says, s, key, SL_SETTING_OPTIONAL, err) != 0)
            return -1;
        if (strcmp(says, usual[i][1]) != 0)
            return sl_fail(err, SL_ERR_UNSUPPORTED,
                           "%s: %s is '%.32s'; sluice has '%s'",
                           sl_settings_file(s), key, says, usual[i][1]);
    }
    return 0;
}

int sl_decoder_configure_experts(struct sl_hparams *hp,
                                 const struct sl_settings *s,
                                 struct sl_error *err)
{
    uint32_t n_shared = 1;
    double scale = 1;

    hp->expert_norm = true; /* what the classes have */
    hp->n_expert_groups = hp->n_expert_groups_used = 1;
    if (check_choice(s, err) ||
        sl_settings_u32(&hp->n_experts, s, "n_routed_experts|num_experts",
                        SL_SETTING_REQUIRED, err) ||
        sl_settings_u32(&hp->n_experts_used, s, "num_experts_per_tok",
                        SL_SETTING_REQUIRED, err) ||
        sl_settings_u32(&hp->n_expert_groups, s, "n_group", SL_SETTING_OPTIONAL,
                        err) ||
        sl_settings_u32(&hp->n_expert_groups_used, s, "topk_group",
                        SL_SETTING_OPTIONAL, err) ||
        sl_settings_u32(&hp->expert_inner, s, "moe_intermediate_size",
                        SL_SETTING_REQUIRED, err) ||
        sl_settings_u32(&hp->n_layers_left_out, s, "num_nextn_predict_layers",
                        SL_SETTING_OPTIONAL, err) ||
        sl_settings_u32(&n_shared, s, "n_shared_experts", SL_SETTING_OPTIONAL,
                        err) ||
        sl_settings_u32(&hp->n_dense_layers, s, "first_k_dense_replace",
                        SL_SETTING_REQUIRED, err) ||
        sl_settings_bool(&hp->expert_norm, s, "norm_topk_prob",
                         SL_SETTING_OPTIONAL, err) ||
        sl_settings_f64(&scale, s, "routed_scaling_factor", SL_SETTING_OPTIONAL,
                        err))
        return -1;
    hp->expert_scale = (float)scale;
    if (n_shared == 0 || n_shared > 64 || hp->n_experts == 0)
        return sl_fail(err, SL_ERR_UNSUPPORTED,
                       "%s: %u experts and %u shared ones; sluice has mixtures "
                       "of some experts and 1 to 64 shared ones",
                       sl_settings_file(s), hp->n_experts, n_shared);
    if (hp->expert_inner > UINT32_MAX / 64)
        return sl_fail(err, SL_ERR_CORRUPT, "%s: moe_intermediate_size is %u",
                       sl_settings_file(s), hp->expert_inner);
    hp->shared_inner = n_shared * hp->expert_inner;
    return 0;
}
