#include "config.h"

#include <stdio.h>
#include <string.h>

#include "src/convert/synth.h"

/* 7b: the shape that Llama made common, in GLM-130B's architecture, to compare
 * with others; tiny: the demo's. */
static const struct preset {
    const char *name;
    const struct sl_arch *arch;
    struct sl_hparams hp;
} presets[] = {
    /* its sizes: sl_config_preset */
    {"glm-130b", &sl_arch_glm130b, {0}},
    /* THUDM/GLM config_tasks/model_blocklm_10B.sh */
    {"glm-10b",
     &sl_arch_glm,
     {.n_layers = 48,
      .hidden = 4096,
      .inner = 16384,
      .n_heads = 64,
      .vocab = 50304,
      .max_positions = 1024,
      .norm_eps = 1e-5f}},
    /* THUDM/chatglm-6b config.json */
    {"chatglm-6b",
     &sl_arch_chatglm6b,
     {.n_layers = 28,
      .hidden = 4096,
      .inner = 16384,
      .n_heads = 32,
      .vocab = 130528,
      .max_positions = 2048,
      .norm_eps = 1e-5f,
      .position_2d = true,
      .rotary = SL_ROTARY_F16}},
    /* THUDM/glm-4-9b config.json */
    {"glm-4-9b",
     &sl_arch_chatglm,
     {.n_layers = 40,
      .hidden = 4096,
      .inner = 13696,
      .n_heads = 32,
      .n_kv_heads = 2,
      .head_dim = 128,
      .vocab = 151552,
      .max_positions = 131072,
      .norm_eps = 1.5625e-7f,
      .untied = true}},
    /* zai-org/GLM-4-32B-0414 config.json */
    {"glm-4-32b",
     &sl_arch_glm4,
     {.n_layers = 61,
      .hidden = 6144,
      .inner = 23040,
      .n_heads = 48,
      .n_kv_heads = 2,
      .head_dim = 128,
      .rope_dims = 64,
      .vocab = 151552,
      .max_positions = 32768,
      .norm_eps = 1e-5f,
      .no_qkv_bias = true,
      .untied = true}},
    /* zai-org/GLM-4.5-Air config.json */
    {"glm-4.5-air",
     &sl_arch_glm4_moe,
     {.n_layers = 46,
      .hidden = 4096,
      .inner = 10944,
      .n_heads = 96,
      .n_kv_heads = 8,
      .head_dim = 128,
      .rope_dims = 64,
      .rope_base = 1e6f,
      .vocab = 151552,
      .max_positions = 131072,
      .norm_eps = 1e-5f,
      .untied = true,
      .n_experts = 128,
      .n_experts_used = 8,
      .expert_inner = 1408,
      .n_dense_layers = 1,
      .expert_norm = true}},
    /* zai-org/GLM-4.6 config.json */
    {"glm-4.6",
     &sl_arch_glm4_moe,
     {.n_layers = 92,
      .hidden = 5120,
      .inner = 12288,
      .n_heads = 96,
      .n_kv_heads = 8,
      .head_dim = 128,
      .rope_dims = 64,
      .rope_base = 1e6f,
      .vocab = 151552,
      .max_positions = 202752,
      .norm_eps = 1e-5f,
      .untied = true,
      .qk_norm = true,
      .n_experts = 160,
      .n_experts_used = 8,
      .expert_inner = 1536,
      .n_dense_layers = 3,
      .expert_norm = true,
      .expert_scale = 2.5f}},
    /* zai-org/GLM-4.7-Flash config.json */
    {"glm-4.7-flash",
     &sl_arch_glm4_moe_lite,
     {.n_layers = 47,
      .hidden = 2048,
      .inner = 10240,
      .n_heads = 20,
      .rope_dims = 64,
      .rope_base = 1e6f,
      .vocab = 154880,
      .max_positions = 202752,
      .norm_eps = 1e-5f,
      .untied = true,
      .q_lora = 768,
      .kv_lora = 512,
      .nope_dims = 192,
      .value_dims = 256,
      .n_experts = 64,
      .n_experts_used = 4,
      .expert_inner = 1536,
      .n_dense_layers = 1,
      .expert_norm = true,
      .expert_scale = 1.8f}},
    /* meta-llama/Llama-3.1-70B config.json */
    {"llama-70b",
     &sl_arch_llama,
     {.n_layers = 80,
      .hidden = 8192,
      .inner = 28672,
      .n_heads = 64,
      .n_kv_heads = 8,
      .head_dim = 128,
      .rope_base = 500000,
      .rope_scale = {.kind = SL_ROPE_SCALING_LLAMA3,
                     .factor = 8,
                     .original_positions = 8192,
                     .low = 1,
                     .high = 4},
      .vocab = 128256,
      .max_positions = 131072,
      .norm_eps = 1e-5f,
      .no_qkv_bias = true,
      .untied = true}},
    {"7b",
     &sl_arch_glm130b,
     {.n_layers = 32,
      .hidden = 4096,
      .inner = 11008,
      .n_heads = 32,
      .vocab = 32000,
      .max_positions = 2048,
      .norm_eps = 1e-5f,
      .glu = true}},
    {"tiny",
     &sl_arch_glm130b,
     {.n_layers = 8,
      .hidden = 256,
      .inner = 704,
      .n_heads = 8,
      .vocab = 8192,
      .max_positions = 512,
      .norm_eps = 1e-5f,
      .glu = true}},
};

#define N_PRESETS (sizeof presets / sizeof *presets)

static int unknown(const char *name, struct sl_error *err)
{
    char list[240];
    size_t n = 0;

    for (size_t i = 0; i < N_PRESETS; i++)
        n += (size_t)snprintf(list + n, sizeof list - n, "%s%s",
                              i == 0               ? ""
                              : i + 1 == N_PRESETS ? " and "
                                                   : ", ",
                              presets[i].name);
    return sl_fail(err, SL_ERR_USAGE, "there is no preset '%s'; there are %s",
                   name, list);
}

int sl_synth_preset(struct sl_config *c, const struct sl_arch **arch,
                    const char *name, struct sl_error *err)
{
    size_t i = 0;
    struct sl_config made;

    while (i < N_PRESETS && strcmp(presets[i].name, name) != 0)
        i++;
    if (i == N_PRESETS)
        return unknown(name, err);
    /* Says something about every field; no tokenizer, hence no ids that mean
     * anything. */
    if (sl_config_preset(&made, "glm-130b", err) != 0)
        return -1;
    if (presets[i].hp.n_layers != 0)
        made.hp = presets[i].hp;
    made.hp.text.n_image_tokens = made.hp.text.n_tokens = 0;
    made.hp.text.special =
        (struct sl_special_ids){-1, -1, -1, -1, -1, -1, -1, -1, -1, -1};
    *c = made;
    *arch = presets[i].arch;
    return 0;
}
