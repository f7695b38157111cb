#include "config.h"

#include <string.h>

#include "src/arch/hparams.h"

/* Far above any model, and low enough that three times a width fits 32 bits
 * and the product of two widths 64. */
#define MAX_LAYERS    4096u
#define MAX_WIDTH     (1u << 20)
#define MAX_VOCAB     (1u << 24)
#define MAX_POSITIONS (1u << 24)
#define MAX_EXPERTS   4096u

static const char *const rotary_names[] = {
    [SL_ROTARY_EXACT] = "exact",
    [SL_ROTARY_INV_FREQ_F16] = "inv-freq-f16",
    [SL_ROTARY_F16] = "f16",
};

const char *sl_rotary_name(enum sl_rotary rotary)
{
    return rotary_names[rotary];
}

bool sl_rotary_find(enum sl_rotary *rotary, const char *name)
{
    for (size_t i = 0; i < sizeof rotary_names / sizeof *rotary_names; i++) {
        if (strcmp(rotary_names[i], name) == 0) {
            *rotary = (enum sl_rotary)i;
            return true;
        }
    }
    return false;
}

static const char *const scaling_names[] = {
    [SL_ROPE_SCALING_NONE] = "none",     [SL_ROPE_SCALING_LINEAR] = "linear",
    [SL_ROPE_SCALING_NTK] = "dynamic",   [SL_ROPE_SCALING_YARN] = "yarn",
    [SL_ROPE_SCALING_LLAMA3] = "llama3",
};

const char *sl_rope_scaling_name(enum sl_rope_scaling kind)
{
    return scaling_names[kind];
}

bool sl_rope_scaling_find(enum sl_rope_scaling *kind, const char *name)
{
    for (size_t i = 0; i < sizeof scaling_names / sizeof *scaling_names; i++) {
        if (strcmp(scaling_names[i], name) == 0) {
            *kind = (enum sl_rope_scaling)i;
            return true;
        }
    }
    return false;
}

const char *sl_norm_name(enum sl_norm norm)
{
    return norm == SL_NORM_RMS ? "rms" : "layer";
}

const char *sl_rope_name(enum sl_rope rope)
{
    static const char *const names[] = {
        [SL_ROPE_NONE] = "none",
        [SL_ROPE_HALF] = "half",
        [SL_ROPE_INTERLEAVED] = "interleaved",
    };

    return names[rope];
}

static int check_range(const char *what, uint32_t v, uint32_t min, uint32_t max,
                       struct sl_error *err)
{
    if (v >= min && v <= max)
        return 0;
    return sl_fail(err, SL_ERR_CORRUPT, "%s is %u; %u to %u are possible", what,
                   v, min, max);
}

/* What is known when derived: a head's size is 0 where it was not to be had
 * from the others. */
static int check_heads(const struct sl_hparams *hp, struct sl_error *err)
{
    /* Rotary pairs take two elements of a head; 2-D ones two of each half. */
    uint32_t multiple = hp->position_2d ? 4 : 2;

    if (hp->head_dim == 0 || hp->head_dim % multiple != 0)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "hidden size %u does not split into %u heads of a "
                       "multiple of %u",
                       hp->hidden, hp->n_heads, multiple);
    if (check_range("size of a head", hp->head_dim, 1, MAX_WIDTH, err) ||
        check_range("number of key and value heads", hp->n_kv_heads, 1,
                    hp->n_heads, err))
        return -1;
    if (hp->n_heads % hp->n_kv_heads != 0)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "%u heads do not share %u heads of keys and values "
                       "evenly",
                       hp->n_heads, hp->n_kv_heads);
    if (hp->rope != SL_ROPE_NONE &&
        (hp->rope_dims == 0 || hp->rope_dims > hp->head_dim ||
         hp->rope_dims % multiple != 0))
        return sl_fail(err, SL_ERR_CORRUPT,
                       "%u values of a head of %u are to be rotated; a "
                       "multiple of %u is possible",
                       hp->rope_dims, hp->head_dim, multiple);
    if ((uint64_t)hp->n_heads * hp->head_dim > MAX_WIDTH)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "%u heads of %u values are more than %u", hp->n_heads,
                       hp->head_dim, MAX_WIDTH);
    return 0;
}

/* Matrices that multiply each head alone are cut between heads, which must
 * then not end within a block of sixteen rows. */
static int check_latent(const struct sl_hparams *hp, struct sl_error *err)
{
    if (hp->kv_lora == 0)
        return 0;
    if (check_range("q_lora_rank", hp->q_lora, 1, MAX_WIDTH, err) ||
        check_range("kv_lora_rank", hp->kv_lora, 1, MAX_WIDTH, err) ||
        check_range("values of a head before the latent", hp->nope_dims, 1,
                    MAX_WIDTH / hp->n_heads, err) ||
        check_range("values of a head's output", hp->value_dims, 1,
                    MAX_WIDTH / hp->n_heads, err))
        return -1;
    if (hp->kv_lora % 16 != 0 || hp->value_dims % 16 != 0)
        return sl_fail(err, SL_ERR_UNSUPPORTED,
                       "a latent of %u values and heads of %u: multiples of 16 "
                       "are what sluice has",
                       hp->kv_lora, hp->value_dims);
    if (hp->n_kv_heads == 1 && hp->head_dim == hp->kv_lora + hp->rope_dims &&
        hp->rope == SL_ROPE_INTERLEAVED && hp->latent_eps > 0)
        return 0;
    return sl_fail(err, SL_ERR_CORRUPT,
                   "%u heads of keys of %u values do not go with a latent of "
                   "%u and %u rotated",
                   hp->n_kv_heads, hp->head_dim, hp->kv_lora, hp->rope_dims);
}

/* A group is judged by the sum of its two best experts, so it needs two
 * (DeepSeek-V3, arXiv 2412.19437, and transformers' glm4_moe). */
static int check_experts(const struct sl_hparams *hp, struct sl_error *err)
{
    uint32_t in_group;

    if (hp->n_experts == 0)
        return 0;
    if (check_range("number of experts", hp->n_experts, 1, MAX_EXPERTS, err) ||
        check_range("number of experts used", hp->n_experts_used, 1,
                    hp->n_experts, err) ||
        check_range("number of groups of experts", hp->n_expert_groups, 1,
                    hp->n_experts, err) ||
        check_range("number of groups of experts used",
                    hp->n_expert_groups_used, 1, hp->n_expert_groups, err) ||
        check_range("inner size of an expert", hp->expert_inner, 1, MAX_WIDTH,
                    err) ||
        check_range("inner size of the shared expert", hp->shared_inner, 1,
                    MAX_WIDTH, err) ||
        check_range("number of layers without experts", hp->n_dense_layers, 0,
                    hp->n_layers, err))
        return -1;
    in_group = hp->n_experts / hp->n_expert_groups;
    if (hp->n_experts % hp->n_expert_groups != 0 ||
        (hp->n_expert_groups > 1 && in_group < 2) ||
        hp->n_experts_used > in_group * hp->n_expert_groups_used)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "%u experts in %u groups, of which %u groups and %u "
                       "experts are used: groups must be alike, of two or "
                       "more, and hold as many as are used",
                       hp->n_experts, hp->n_expert_groups,
                       hp->n_expert_groups_used, hp->n_experts_used);
    if (hp->expert_scale > 0 && hp->expert_scale < 1e6f)
        return 0;
    return sl_fail(err, SL_ERR_CORRUPT,
                   "the scale of experts' weights is %g; more than 0 is "
                   "possible",
                   (double)hp->expert_scale);
}

int sl_hparams_check(const struct sl_hparams *hp, struct sl_error *err)
{
    if (check_range("number of layers", hp->n_layers, 1, MAX_LAYERS, err) ||
        check_range("hidden size", hp->hidden, 1, MAX_WIDTH, err) ||
        check_range("inner hidden size", hp->inner, 1, MAX_WIDTH, err) ||
        check_range("number of heads", hp->n_heads, 1, MAX_WIDTH, err) ||
        check_range("vocabulary size", hp->vocab, 1, MAX_VOCAB, err) ||
        check_range("sequence length", hp->max_positions, 1, MAX_POSITIONS,
                    err))
        return -1;
    if (!(hp->norm_eps > 0 && hp->norm_eps < 1))
        return sl_fail(err, SL_ERR_CORRUPT,
                       "layernorm epsilon is %g; more than 0 and less than 1 "
                       "is possible",
                       (double)hp->norm_eps);
    if (check_heads(hp, err) != 0 || check_latent(hp, err) != 0 ||
        check_experts(hp, err) != 0)
        return -1;
    return sl_text_params_check(&hp->text, hp->vocab, err);
}
