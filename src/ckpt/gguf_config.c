#include "config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "src/arch/arch.h"
#include "src/ckpt/gguf_config.h"

#define KEY_ROOM 96

/* A configuration being made. */
struct making {
    const struct sl_gguf *g;
    const struct sl_ckpt *c;
    const struct sl_arch *arch;
    json_t *root, *own, *scaling;
};

/* "llama.block_count" */
static const char *full_key(char buf[KEY_ROOM], const struct making *m,
                            const char *key)
{
    snprintf(buf, KEY_ROOM, "%s.%s", m->arch->gguf_name, key);
    return buf;
}

static bool has(const struct making *m, const char *key)
{
    char buf[KEY_ROOM];

    return sl_gguf_has(m->g, full_key(buf, m, key));
}

static int get_count(uint32_t *v, const struct making *m, const char *key,
                     struct sl_error *err)
{
    char buf[KEY_ROOM];
    uint64_t x;

    if (sl_gguf_get_u64(m->g, full_key(buf, m, key), &x, err) != 0)
        return -1;
    if (x > INT32_MAX)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "metadata '%s' is %llu; 0 to %d are possible", buf,
                       (unsigned long long)x, INT32_MAX);
    *v = (uint32_t)x;
    return 0;
}

static int get_real(double *v, const struct making *m, const char *key,
                    struct sl_error *err)
{
    char buf[KEY_ROOM];
    double x;

    if (sl_gguf_get_f64(m->g, full_key(buf, m, key), &x, err) != 0)
        return -1;
    if (!isfinite(x))
        return sl_fail(err, SL_ERR_CORRUPT, "metadata '%s' is no finite number",
                       buf);
    *v = x;
    return 0;
}

static const struct sl_ckpt_tensor *find(const struct making *m,
                                         const char *name)
{
    return sl_ckpt_find(m->c, 0, name);
}

/* --- what is the same but for its name ------------------------------------ */

static const struct same {
    const char *key, *setting;
    bool real;
    bool required;
} same[] = {
    {"context_length", "max_position_embeddings", false, true},
    {"embedding_length", "hidden_size", false, true},
    {"feed_forward_length", "intermediate_size", false, true},
    {"attention.head_count", "num_attention_heads", false, true},
    {"attention.head_count_kv", "num_key_value_heads", false, false},
    {"attention.layer_norm_rms_epsilon", "rms_norm_eps", true, true},
    {"attention.sliding_window", "sliding_window", false, false},
    {"rope.freq_base", "rope_theta", true, false},
};

static int take_list(struct making *m, const struct same *list, size_t n,
                     struct sl_error *err)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t count;
        double real;

        if (!list[i].required && !has(m, list[i].key))
            continue;
        if (list[i].real) {
            if (get_real(&real, m, list[i].key, err) != 0)
                return -1;
            json_object_set_new(m->root, list[i].setting, json_real(real));
        } else {
            if (get_count(&count, m, list[i].key, err) != 0)
                return -1;
            json_object_set_new(m->root, list[i].setting, json_integer(count));
        }
    }
    return 0;
}

static int take_same(struct making *m, struct sl_error *err)
{
    return take_list(m, same, sizeof same / sizeof *same, err);
}

static const struct same of_experts[] = {
    {"expert_count", "n_routed_experts", false, true},
    {"expert_used_count", "num_experts_per_tok", false, true},
    {"expert_feed_forward_length", "moe_intermediate_size", false, true},
    {"expert_shared_count", "n_shared_experts", false, true},
    {"expert_group_count", "n_group", false, false},
    {"expert_group_used_count", "topk_group", false, false},
    {"leading_dense_block_count", "first_k_dense_replace", false, true},
    {"expert_weights_scale", "routed_scaling_factor", true, false},
};

#define GATING_SOFTMAX 1u
#define GATING_SIGMOID 2u

/* Where a file does not say: DeepSeek's first models had softmax, but
 * GLM-4.7-Flash goes by their name (ggml-org/llama.cpp
 * src/models/deepseek2.cpp: known by its layers and its vocabulary). */
static int usual_gating(uint32_t *gating, const struct making *m,
                        struct sl_error *err)
{
    const struct sl_ckpt_tensor *t = find(m, "token_embd.weight");
    uint32_t blocks;

    *gating = GATING_SIGMOID;
    if (strcmp(m->arch->gguf_name, "deepseek2") != 0)
        return 0;
    if (get_count(&blocks, m, "block_count", err) != 0)
        return -1;
    if ((blocks != 47 && blocks != 48) || t == NULL || t->shape[0] != 154880)
        *gating = GATING_SOFTMAX;
    return 0;
}

static int take_experts(struct making *m, struct sl_error *err)
{
    uint32_t gating;
    bool norm = false;
    char buf[KEY_ROOM];

    if (m->arch->expert_rows == NULL)
        return 0;
    if (take_list(m, of_experts, sizeof of_experts / sizeof *of_experts, err) !=
            0 ||
        (has(m, "expert_weights_norm") &&
         sl_gguf_get_bool(m->g, full_key(buf, m, "expert_weights_norm"), &norm,
                          err) != 0) ||
        usual_gating(&gating, m, err) != 0 ||
        (has(m, "expert_gating_func") &&
         get_count(&gating, m, "expert_gating_func", err) != 0))
        return -1;
    json_object_set_new(m->root, "norm_topk_prob", json_boolean(norm));
    if (gating == GATING_SIGMOID)
        return 0;
    return sl_fail(err, SL_ERR_UNSUPPORTED,
                   "metadata: expert_gating_func is %u; sluice has 2, sigmoid",
                   gating);
}

/* --- sizes that take a little thought --------------------------------------
 */

/* block_count counts layers that predict further tokens, which no pass uses. */
static int take_layers(struct making *m, struct sl_error *err)
{
    uint32_t blocks, next = 0;

    if (get_count(&blocks, m, "block_count", err) != 0 ||
        (has(m, "nextn_predict_layers") &&
         get_count(&next, m, "nextn_predict_layers", err) != 0))
        return -1;
    if (next >= blocks)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "metadata: %u blocks of which %u predict further tokens "
                       "leave no model",
                       blocks, next);
    json_object_set_new(m->root, "num_hidden_layers",
                        json_integer(blocks - next));
    json_object_set_new(m->root, "num_nextn_predict_layers",
                        json_integer(next));
    return 0;
}

/* Attention to a latent: keys and values of heads have sizes of their own, and
 * the one head that is kept is as wide as the latent. (Files from before its
 * matrices lay apart say nothing of the first two: they have to be made anew.)
 */
static int take_latent(struct making *m, struct sl_error *err)
{
    static const struct same sizes[] = {
        {"attention.q_lora_rank", "q_lora_rank", false, true},
        {"attention.kv_lora_rank", "kv_lora_rank", false, true},
        {"attention.value_length_mla", "v_head_dim", false, true},
    };
    uint32_t key, rope;
    double eps;

    if (get_count(&key, m, "attention.key_length_mla", err) != 0 ||
        take_list(m, sizes, sizeof sizes / sizeof *sizes, err) != 0 ||
        get_count(&rope, m, "rope.dimension_count", err) != 0 ||
        get_real(&eps, m, "attention.layer_norm_rms_epsilon", err) != 0)
        return -1;
    if (key <= rope)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "metadata: keys of %u values in a head, of which %u "
                       "rotate, leave none that does not",
                       key, rope);
    json_object_set_new(m->root, "qk_rope_head_dim", json_integer(rope));
    json_object_set_new(m->root, "qk_nope_head_dim", json_integer(key - rope));
    json_object_set_new(m->own, "latent_eps", json_real(eps));
    return 0;
}

static int take_head(struct making *m, struct sl_error *err)
{
    uint32_t hidden, heads, d, value;

    if (has(m, "attention.kv_lora_rank"))
        return take_latent(m, err);
    if (get_count(&hidden, m, "embedding_length", err) != 0 ||
        get_count(&heads, m, "attention.head_count", err) != 0)
        return -1;
    d = heads > 0 ? hidden / heads : 0;
    if (has(m, "attention.key_length") &&
        get_count(&d, m, "attention.key_length", err) != 0)
        return -1;
    value = d;
    if (has(m, "attention.value_length") &&
        get_count(&value, m, "attention.value_length", err) != 0)
        return -1;
    if (value != d)
        return sl_fail(err, SL_ERR_UNSUPPORTED,
                       "metadata: keys of %u values and values of %u in a head "
                       "are not what sluice has",
                       d, value);
    json_object_set_new(m->root, "head_dim", json_integer(d));
    if (!has(m, "rope.dimension_count"))
        return 0;
    if (get_count(&d, m, "rope.dimension_count", err) != 0)
        return -1;
    json_object_set_new(m->own, "rope_dims", json_integer(d));
    return 0;
}

/* The embedding says how many rows there are: the metadata may say nothing,
 * and padding rows count. */
static int take_vocab(struct making *m, struct sl_error *err)
{
    const struct sl_ckpt_tensor *t = find(m, "token_embd.weight");

    if (t == NULL || t->n_dims != 2)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "tensor token_embd.weight is missing, or no matrix");
    if (t->shape[0] > INT32_MAX)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "tensor token_embd.weight has %llu rows",
                       (unsigned long long)t->shape[0]);
    json_object_set_new(m->root, "vocab_size",
                        json_integer((json_int_t)t->shape[0]));
    json_object_set_new(m->root, "tie_word_embeddings",
                        json_boolean(find(m, "output.weight") == NULL));
    return 0;
}

/* --- what the tensors tell -------------------------------------------------
 */

/* Do q, k and v of a layer differ in a way that no one format holds them all?
 * Numbers of several types become FP32. */
static bool differ(const struct making *m, uint32_t layer)
{
    static const char *const names[] = {"attn_q", "attn_k", "attn_v"};
    const struct sl_ckpt_tensor *t[3];
    bool differs = false, blocks = false;

    for (size_t i = 0; i < 3; i++) {
        char name[64];

        snprintf(name, sizeof name, "blk.%u.%s.weight", layer, names[i]);
        t[i] = find(m, name);
        if (t[i] == NULL)
            return false;
        differs |= t[i]->dtype != t[0]->dtype;
        blocks |= sl_dtype_block_values(t[i]->dtype) > 1;
    }
    return differs && blocks;
}

static void take_tensors(struct making *m)
{
    bool bias = find(m, "blk.0.attn_q.bias") != NULL ||
                find(m, "blk.0.attn_qkv.bias") != NULL;
    uint32_t n = (uint32_t)json_integer_value(
        json_object_get(m->root, "num_hidden_layers"));
    bool split = false;

    for (uint32_t i = 0; i < n && !split; i++) {
        char name[64];

        snprintf(name, sizeof name, "blk.%u.attn_norm.weight", i);
        if (find(m, name) == NULL)
            break; /* fewer layers than were said: told later */
        split = differ(m, i);
    }
    json_object_set_new(m->root, "attention_bias", json_boolean(bias));
    json_object_set_new(
        m->root, "use_qk_norm",
        json_boolean(find(m, "blk.0.attn_q_norm.weight") != NULL));
    json_object_set_new(m->root, "mlp_bias",
                        json_boolean(find(m, "blk.0.ffn_down.bias") != NULL));
    json_object_set_new(
        m->own, "attn_out_bias",
        json_boolean(find(m, "blk.0.attn_output.bias") != NULL));
    json_object_set_new(m->own, "rope_factors",
                        json_boolean(find(m, "rope_freqs.weight") != NULL));
    json_object_set_new(m->own, "split_qkv", json_boolean(split));
    /* The converter reorders the rows of q and k of this one alone. */
    json_object_set_new(m->own, "rope_interleaved",
                        json_boolean(m->arch == &sl_arch_llama));
}

/* --- longer contexts -------------------------------------------------------
 */

static int take_scale(const struct making *m, const char *key,
                      const char *setting, struct sl_error *err)
{
    double v;

    if (!has(m, key))
        return 0;
    if (get_real(&v, m, key, err) != 0)
        return -1;
    json_object_set_new(m->scaling, setting, json_real(v));
    return 0;
}

/* What multiplies cos and sin: attn_factor times what YaRN has anyway. */
static int take_yarn(const struct making *m, double factor,
                     struct sl_error *err)
{
    double attn = 1;

    if (take_scale(m, "rope.scaling.yarn_beta_fast", "beta_fast", err) != 0 ||
        take_scale(m, "rope.scaling.yarn_beta_slow", "beta_slow", err) != 0)
        return -1;
    if (!has(m, "rope.scaling.attn_factor"))
        return 0;
    if (get_real(&attn, m, "rope.scaling.attn_factor", err) != 0)
        return -1;
    json_object_set_new(
        m->scaling, "attention_factor",
        json_real(attn * (factor > 1 ? 0.1 * log(factor) + 1 : 1)));
    return 0;
}

static int take_scaling(struct making *m, struct sl_error *err)
{
    char buf[KEY_ROOM];
    const char *type = "none";
    double factor = 1;
    uint32_t original;

    if (has(m, "rope.scaling.type") &&
        sl_gguf_get_string(m->g, full_key(buf, m, "rope.scaling.type"), &type,
                           err) != 0)
        return -1;
    if (has(m, "rope.scaling.factor")) {
        if (get_real(&factor, m, "rope.scaling.factor", err) != 0)
            return -1;
    } else if (has(m, "rope.scale_linear")) {
        type = "linear";
        if (get_real(&factor, m, "rope.scale_linear", err) != 0)
            return -1;
    }
    if (strcmp(type, "none") == 0 || factor == 0 || factor == 1)
        return 0;
    json_object_set_new(m->scaling, "rope_type", json_string(type));
    json_object_set_new(m->scaling, "factor", json_real(factor));
    json_object_set(m->root, "rope_scaling", m->scaling);
    if (has(m, "rope.scaling.original_context_length")) {
        if (get_count(&original, m, "rope.scaling.original_context_length",
                      err) != 0)
            return -1;
        json_object_set_new(m->scaling, "original_max_position_embeddings",
                            json_integer(original));
    }
    return strcmp(type, "yarn") == 0 ? take_yarn(m, factor, err) : 0;
}

/* --- what would be another model -------------------------------------------
 */

static int check_other(const struct making *m, struct sl_error *err)
{
    static const struct {
        const char *key;
        double usual;
    } others[] = {
        {"expert_count", 0},
        {"logit_scale", 1},
        {"embedding_scale", 1},
        {"residual_scale", 1},
        {"attention.scale", 0},
        {"rope.scaling.yarn_log_multiplier", 0},
        {"attention.clamp_kqv", 0},
        {"attn_logit_softcapping", 0},
        {"final_logit_softcapping", 0},
        {"attention.max_alibi_bias", 0},
    };

    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        struct sl_error no;
        char buf[KEY_ROOM];
        uint64_t count = 0;
        double v;

        if (!has(m, others[i].key) ||
            (m->arch->expert_rows != NULL &&
             strcmp(others[i].key, "expert_count") == 0))
            continue;
        full_key(buf, m, others[i].key);
        if (sl_gguf_get_u64(m->g, buf, &count, &no) == 0)
            v = (double)count;
        else if (sl_gguf_get_f64(m->g, buf, &v, err) != 0)
            return -1;
        if (v == 0 || v == others[i].usual)
            continue;
        return sl_fail(err, SL_ERR_UNSUPPORTED,
                       "metadata '%s' is %g: a model of a kind that sluice "
                       "does not run",
                       buf, v);
    }
    return 0;
}

static int find_arch(struct making *m, struct sl_error *err)
{
    char list[200] = "";
    const char *name, *lacks;
    size_t n = 0;

    if (sl_gguf_get_string(m->g, "general.architecture", &name, err) != 0)
        return -1;
    for (size_t i = 0; (m->arch = sl_arch_at(i)) != NULL; i++) {
        if (m->arch->gguf_name == NULL)
            continue;
        if (strcmp(m->arch->gguf_name, name) == 0)
            return 0;
        if (n < sizeof list)
            n += (size_t)snprintf(list + n, sizeof list - n, "%s%s",
                                  n > 0 ? ", " : "", m->arch->gguf_name);
    }
    lacks = sl_arch_lacks(name);
    return sl_fail(err, SL_ERR_UNSUPPORTED,
                   "architecture '%.48s' is not one that sluice runs from GGUF "
                   "files: %s",
                   name, lacks != NULL ? lacks : list);
}

static int make(struct making *m, struct sl_error *err)
{
    if (find_arch(m, err) != 0)
        return -1;
    json_object_set_new(m->root, "architectures",
                        json_pack("[s]", m->arch->hf_names[0]));
    json_object_set_new(m->root, "model_type", json_string(m->arch->name));
    json_object_set(m->root, "gguf", m->own);
    if (check_other(m, err) != 0 || take_same(m, err) != 0 ||
        take_experts(m, err) != 0 || take_layers(m, err) != 0 ||
        take_head(m, err) != 0 || take_vocab(m, err) != 0 ||
        take_scaling(m, err) != 0)
        return -1;
    take_tensors(m);
    return 0;
}

int sl_gguf_config(char **text, const struct sl_gguf *g,
                   const struct sl_ckpt *c, struct sl_error *err)
{
    struct making m = {
        .g = g,
        .c = c,
        .root = json_object(),
        .own = json_object(),
        .scaling = json_object(),
    };
    int rc = make(&m, err);

    if (rc == 0) {
        *text = json_dumps(m.root, JSON_INDENT(1));
        if (*text == NULL)
            rc = sl_fail(err, SL_ERR_NOMEM, "no memory for a configuration");
    } else {
        sl_error_prefix(err, "%s: ", c->shards[0].file);
    }
    json_decref(m.scaling);
    json_decref(m.own);
    json_decref(m.root);
    return rc;
}
