#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/model/model_hparams.h"

#define KEY_ROOM 96

/* The control tokens, by key; -1 is written for one the model lacks. */
static const struct {
    const char *key;
    size_t at;
} specials[] = {
    {"sluice.tokenizer.mask_id", offsetof(struct sl_special_ids, mask)},
    {"sluice.tokenizer.gmask_id", offsetof(struct sl_special_ids, gmask)},
    {"sluice.tokenizer.smask_id", offsetof(struct sl_special_ids, smask)},
    {"sluice.tokenizer.eod_id", offsetof(struct sl_special_ids, eod)},
    {"sluice.tokenizer.sop_id", offsetof(struct sl_special_ids, sop)},
    {"sluice.tokenizer.eop_id", offsetof(struct sl_special_ids, eop)},
    {"sluice.tokenizer.enc_id", offsetof(struct sl_special_ids, enc)},
    {"sluice.tokenizer.dblock_id", offsetof(struct sl_special_ids, dblock)},
    {"sluice.tokenizer.eos_id", offsetof(struct sl_special_ids, eos)},
    {"sluice.tokenizer.unk_id", offsetof(struct sl_special_ids, unk)},
};

enum { N_SPECIALS = sizeof specials / sizeof *specials };

/* Numbers of the architecture, under its own name ("glm130b.block_count"). */
static const struct {
    const char *key;
    size_t at;
} counts[] = {
    {"block_count", offsetof(struct sl_hparams, n_layers)},
    {"embedding_length", offsetof(struct sl_hparams, hidden)},
    {"feed_forward_length", offsetof(struct sl_hparams, inner)},
    {"attention.head_count", offsetof(struct sl_hparams, n_heads)},
    {"vocab_size", offsetof(struct sl_hparams, vocab)},
    {"context_length", offsetof(struct sl_hparams, max_positions)},
};

/* Numbers of the tokenizer, with their whole key. */
static const struct {
    const char *key;
    size_t at;
} tokenizer_counts[] = {
    {"sluice.tokenizer.n_image_tokens",
     offsetof(struct sl_hparams, text.n_image_tokens)},
    {"sluice.tokenizer.max_blank", offsetof(struct sl_hparams, text.max_blank)},
    {"sluice.tokenizer.n_tokens", offsetof(struct sl_hparams, text.n_tokens)},
};

static uint32_t *count_at(struct sl_hparams *hp, size_t at)
{
    return (uint32_t *)((char *)hp + at);
}

static int32_t *special_at(struct sl_hparams *hp, size_t at)
{
    return (int32_t *)((char *)&hp->text.special + at);
}

static const char *arch_key(char buf[KEY_ROOM], const struct sl_arch *arch,
                            const char *key)
{
    snprintf(buf, KEY_ROOM, "%s.%s", arch->name, key);
    return buf;
}

/* What an architecture derives from the numbers above; written where a model
 * has something else. Keys are GGUF's where it has one (ggml-org/ggml
 * docs/gguf.md). */
static const struct option {
    const char *key;
    enum { U32, F32, TRUTH } type;
    size_t at;
} options[] = {
#define AT(member) offsetof(struct sl_hparams, member)
    {"attention.head_count_kv", U32, AT(n_kv_heads)},
    {"attention.key_length", U32, AT(head_dim)},
    {"attention.output_bias", TRUTH, AT(attn_out_bias)},
    {"attention.no_qkv_bias", TRUTH, AT(no_qkv_bias)},
    {"attention.qk_norm", TRUTH, AT(qk_norm)},
    {"attention.split_qkv", TRUTH, AT(split_qkv)},
    {"mlp_bias", TRUTH, AT(mlp_bias)},
    {"untied", TRUTH, AT(untied)},
    {"residual_scale", F32, AT(residual_scale)},
    {"rope.dimension_count", U32, AT(rope_dims)},
    {"rope.freq_base", F32, AT(rope_base)},
    {"rope.factors", TRUTH, AT(rope_factors)},
    {"rope.scaling.factor", F32, AT(rope_scale.factor)},
    {"rope.scaling.original_context_length", U32,
     AT(rope_scale.original_positions)},
    {"rope.scaling.low_freq_factor", F32, AT(rope_scale.low)},
    {"rope.scaling.high_freq_factor", F32, AT(rope_scale.high)},
    {"rope.scaling.attn_factor", F32, AT(rope_scale.attention)},
    {"attention.q_lora_rank", U32, AT(q_lora)},
    {"attention.kv_lora_rank", U32, AT(kv_lora)},
    {"attention.key_nope_length", U32, AT(nope_dims)},
    {"attention.value_length_mla", U32, AT(value_dims)},
    {"attention.latent_norm_rms_epsilon", F32, AT(latent_eps)},
    {"expert_count", U32, AT(n_experts)},
    {"expert_used_count", U32, AT(n_experts_used)},
    {"expert_group_count", U32, AT(n_expert_groups)},
    {"expert_group_used_count", U32, AT(n_expert_groups_used)},
    {"expert_feed_forward_length", U32, AT(expert_inner)},
    {"expert_shared_feed_forward_length", U32, AT(shared_inner)},
    {"leading_dense_block_count", U32, AT(n_dense_layers)},
    {"expert_weights_norm", TRUTH, AT(expert_norm)},
    {"expert_weights_scale", F32, AT(expert_scale)},
#undef AT
};

#define N_OPTIONS (sizeof options / sizeof *options)

static size_t option_bytes(const struct option *o)
{
    return o->type == TRUTH ? sizeof(bool) : sizeof(uint32_t);
}

static void *option_at(struct sl_hparams *hp, const struct option *o)
{
    return (char *)hp + o->at;
}

static const char *eps_key(const struct sl_hparams *hp)
{
    return hp->norm == SL_NORM_RMS ? "attention.layer_norm_rms_epsilon"
                                   : "attention.layer_norm_epsilon";
}

/* The first options are what the others may follow from. */
#define N_FIRST 2u

/* What follows from the numbers that every file has, and from the first
 * options where heads says so. */
static struct sl_hparams plain(const struct sl_arch *arch,
                               const struct sl_hparams *hp, bool heads)
{
    struct sl_hparams made = {
        .n_layers = hp->n_layers,
        .hidden = hp->hidden,
        .inner = hp->inner,
        .n_heads = hp->n_heads,
        .vocab = hp->vocab,
        .max_positions = hp->max_positions,
        .norm_eps = hp->norm_eps,
        .position_2d = hp->position_2d,
        .glu = hp->glu,
        .n_kv_heads = heads ? hp->n_kv_heads : 0,
        .head_dim = heads ? hp->head_dim : 0,
    };

    sl_arch_derive(arch, &made);
    return made;
}

/* --- writing -------------------------------------------------------------- */

static void write_option(struct sl_gguf_writer *w, const char *key,
                         const struct option *o, const void *v)
{
    uint32_t whole;
    float real;

    switch (o->type) {
    case TRUTH:
        sl_gguf_add_bool(w, key, *(const bool *)v);
        return;
    case F32:
        memcpy(&real, v, sizeof real);
        sl_gguf_add_f32(w, key, real);
        return;
    case U32:
        memcpy(&whole, v, sizeof whole);
        sl_gguf_add_u32(w, key, whole);
    }
}

static void write_options(struct sl_gguf_writer *w, const struct sl_arch *arch,
                          struct sl_hparams *hp)
{
    struct sl_hparams first = plain(arch, hp, false);
    struct sl_hparams others = plain(arch, hp, true);
    char key[KEY_ROOM];

    for (size_t i = 0; i < N_OPTIONS; i++) {
        const struct option *o = &options[i];
        struct sl_hparams *usual = i < N_FIRST ? &first : &others;

        if (memcmp(option_at(hp, o), option_at(usual, o), option_bytes(o)) != 0)
            write_option(w, arch_key(key, arch, o->key), o, option_at(hp, o));
    }
    if (hp->rope != others.rope)
        sl_gguf_add_string(w, arch_key(key, arch, "rope.pairs"),
                           sl_rope_name(hp->rope));
    if (hp->rope_scale.kind != SL_ROPE_SCALING_NONE)
        sl_gguf_add_string(w, arch_key(key, arch, "rope.scaling.type"),
                           sl_rope_scaling_name(hp->rope_scale.kind));
}

void sl_model_hparams_write(struct sl_gguf_writer *w,
                            const struct sl_arch *arch,
                            const struct sl_hparams *of)
{
    struct sl_hparams hp = *of;
    char key[KEY_ROOM];

    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        sl_gguf_add_u32(w, arch_key(key, arch, counts[i].key),
                        *count_at(&hp, counts[i].at));
    sl_gguf_add_f32(w, arch_key(key, arch, eps_key(&hp)), hp.norm_eps);
    sl_gguf_add_string(w, arch_key(key, arch, "rope.precision"),
                       sl_rotary_name(hp.rotary));
    sl_gguf_add_bool(w, arch_key(key, arch, "rope.position_2d"),
                     hp.position_2d);
    sl_gguf_add_bool(w, arch_key(key, arch, "glu"), hp.glu);
    write_options(w, arch, &hp);
}

void sl_model_text_write(struct sl_gguf_writer *w,
                         const struct sl_text_params *text)
{
    struct sl_hparams hp = {.text = *text};

    sl_gguf_add_string(w, "sluice.tokenizer.whitespace",
                       sl_whitespace_name(text->whitespace));
    sl_gguf_add_bool(w, "sluice.tokenizer.byte_fallback", text->byte_fallback);
    for (size_t i = 0; i < sizeof tokenizer_counts / sizeof *tokenizer_counts;
         i++)
        sl_gguf_add_u32(w, tokenizer_counts[i].key,
                        *count_at(&hp, tokenizer_counts[i].at));
    for (size_t i = 0; i < N_SPECIALS; i++)
        sl_gguf_add_i32(w, specials[i].key, *special_at(&hp, specials[i].at));
}

/* Numbers of struct sl_sampling, by the keys of llama.cpp's gguf-py. */
static const struct {
    const char *key;
    unsigned bit;
    size_t at;
} samplings[] = {
    {"general.sampling.temp", SL_SAMPLING_TEMPERATURE,
     offsetof(struct sl_sampling, temperature)},
    {"general.sampling.top_p", SL_SAMPLING_TOP_P,
     offsetof(struct sl_sampling, top_p)},
    {"general.sampling.penalty_repeat", SL_SAMPLING_PENALTY,
     offsetof(struct sl_sampling, penalty)},
};
#define TOP_K_KEY "general.sampling.top_k"
enum { N_SAMPLINGS = sizeof samplings / sizeof *samplings };

void sl_model_sampling_write(struct sl_gguf_writer *w,
                             const struct sl_sampling *s)
{
    for (size_t i = 0; i < N_SAMPLINGS; i++) {
        const void *v = (const char *)s + samplings[i].at;

        if (s->given & samplings[i].bit)
            sl_gguf_add_f32(w, samplings[i].key, (float)*(const double *)v);
    }
    if (s->given & SL_SAMPLING_TOP_K)
        sl_gguf_add_i32(w, TOP_K_KEY, (int32_t)s->top_k);
}

/* --- reading -------------------------------------------------------------- */

static int read_u32(const struct sl_gguf *g, const char *key, uint32_t *v,
                    struct sl_error *err)
{
    uint64_t x;

    if (sl_gguf_get_u64(g, key, &x, err) != 0)
        return -1;
    if (x > UINT32_MAX)
        return sl_fail(err, SL_ERR_CORRUPT, "metadata '%s' is %llu: too large",
                       key, (unsigned long long)x);
    *v = (uint32_t)x;
    return 0;
}

/* No float among the options makes sense at 0 or below, and NaN compares as
 * neither. */
static int read_option(struct sl_hparams *hp, const struct sl_gguf *g,
                       const char *key, const struct option *o,
                       struct sl_error *err)
{
    void *v = option_at(hp, o);
    double real;

    switch (o->type) {
    case TRUTH:
        return sl_gguf_get_bool(g, key, v, err);
    case F32:
        if (sl_gguf_get_f64(g, key, &real, err) != 0)
            return -1;
        *(float *)v = (float)real;
        if (real > 0 && real < 1e12)
            return 0;
        return sl_fail(err, SL_ERR_CORRUPT,
                       "metadata '%s' is %g; more than 0 is possible", key,
                       real);
    default:
        return read_u32(g, key, v, err);
    }
}

static int read_pairs(struct sl_hparams *hp, const struct sl_gguf *g,
                      const struct sl_arch *arch, struct sl_error *err)
{
    char key[KEY_ROOM];
    const char *name;

    arch_key(key, arch, "rope.pairs");
    if (!sl_gguf_has(g, key))
        return 0;
    if (sl_gguf_get_string(g, key, &name, err) != 0)
        return -1;
    for (int r = SL_ROPE_HALF; r <= SL_ROPE_INTERLEAVED; r++) {
        if (strcmp(name, sl_rope_name((enum sl_rope)r)) == 0) {
            hp->rope = (enum sl_rope)r;
            return 0;
        }
    }
    return sl_fail(err, SL_ERR_UNSUPPORTED, "rope pairs '%.64s' are not known",
                   name);
}

static int read_scaling(struct sl_hparams *hp, const struct sl_gguf *g,
                        const struct sl_arch *arch, struct sl_error *err)
{
    char key[KEY_ROOM];
    const char *name;

    arch_key(key, arch, "rope.scaling.type");
    if (!sl_gguf_has(g, key))
        return 0;
    if (sl_gguf_get_string(g, key, &name, err) != 0)
        return -1;
    if (sl_rope_scaling_find(&hp->rope_scale.kind, name))
        return 0;
    return sl_fail(err, SL_ERR_UNSUPPORTED, "rope scaling '%.64s' is not known",
                   name);
}

/* What the file says of sizes, what the architecture derives from them, then
 * what the file says otherwise. */
static int read_options(struct sl_hparams *hp, const struct sl_gguf *g,
                        const struct sl_arch *arch, struct sl_error *err)
{
    char key[KEY_ROOM];

    for (int again = 0; again < 2; again++) {
        for (size_t i = 0; i < N_OPTIONS; i++) {
            const struct option *o = &options[i];

            if (sl_gguf_has(g, arch_key(key, arch, o->key)) &&
                read_option(hp, g, key, o, err) != 0)
                return -1;
        }
        if (again == 0)
            sl_arch_derive(arch, hp);
    }
    return read_pairs(hp, g, arch, err) != 0 ? -1
                                             : read_scaling(hp, g, arch, err);
}

static int read_text(struct sl_text_params *text, const struct sl_gguf *g,
                     struct sl_error *err)
{
    struct sl_hparams hp = {0};
    const char *whitespace;
    int64_t id;

    for (size_t i = 0; i < sizeof tokenizer_counts / sizeof *tokenizer_counts;
         i++) {
        if (read_u32(g, tokenizer_counts[i].key,
                     count_at(&hp, tokenizer_counts[i].at), err) != 0)
            return -1;
    }
    for (size_t i = 0; i < N_SPECIALS; i++) {
        if (sl_gguf_get_i64(g, specials[i].key, &id, err) != 0)
            return -1;
        /* A number that does not fit becomes one that is refused. */
        *special_at(&hp, specials[i].at) =
            id < -1 || id > INT32_MAX ? INT32_MIN : (int32_t)id;
    }
    if (sl_gguf_get_bool(g, "sluice.tokenizer.byte_fallback",
                         &hp.text.byte_fallback, err) != 0 ||
        sl_gguf_get_string(g, "sluice.tokenizer.whitespace", &whitespace,
                           err) != 0)
        return -1;
    if (!sl_whitespace_find(&hp.text.whitespace, whitespace))
        return sl_fail(err, SL_ERR_UNSUPPORTED,
                       "whitespace rule '%.64s' is not known", whitespace);
    *text = hp.text;
    return 0;
}

/* The decimal number that was rounded to FP32: 0.8, not 0.800000012, so that
 * the file samples as the same number on the command line does. */
static double undo_rounding(double v)
{
    char text[32];

    snprintf(text, sizeof text, "%.7g", v);
    return strtod(text, NULL);
}

static int read_sampling(struct sl_sampling *s, const struct sl_gguf *g,
                         struct sl_error *err)
{
    int64_t k;

    for (size_t i = 0; i < N_SAMPLINGS; i++) {
        double *v = (double *)((char *)s + samplings[i].at);

        if (!sl_gguf_has(g, samplings[i].key))
            continue;
        if (sl_gguf_get_f64(g, samplings[i].key, v, err) != 0)
            return -1;
        *v = undo_rounding(*v);
        s->given |= samplings[i].bit;
    }
    if (sl_gguf_has(g, TOP_K_KEY)) {
        if (sl_gguf_get_i64(g, TOP_K_KEY, &k, err) != 0)
            return -1;
        s->top_k = k > 0 && k <= INT32_MAX ? (uint32_t)k : 0;
        s->given |= SL_SAMPLING_TOP_K;
    }
    if (sl_sampling_check(s, err) == 0)
        return 0;
    sl_error_prefix(err, "metadata 'general.sampling': ");
    return -1;
}

int sl_model_hparams_read(struct sl_hparams *hp, const struct sl_gguf *g,
                          const struct sl_arch *arch, struct sl_error *err)
{
    char key[KEY_ROOM];
    const char *rotary;
    double eps;

    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        if (read_u32(g, arch_key(key, arch, counts[i].key),
                     count_at(hp, counts[i].at), err) != 0)
            return -1;
    }
    arch_key(key, arch, "rope.position_2d");
    if (sl_gguf_get_bool(g, key, &hp->position_2d, err) != 0 ||
        sl_gguf_get_bool(g, arch_key(key, arch, "glu"), &hp->glu, err) != 0 ||
        sl_gguf_get_string(g, arch_key(key, arch, "rope.precision"), &rotary,
                           err) != 0)
        return -1;
    if (!sl_rotary_find(&hp->rotary, rotary))
        return sl_fail(err, SL_ERR_UNSUPPORTED,
                       "rotary precision '%.64s' is not known", rotary);
    if (read_options(hp, g, arch, err) != 0)
        return -1;
    if (sl_gguf_get_f64(g, arch_key(key, arch, eps_key(hp)), &eps, err) != 0)
        return -1;
    hp->norm_eps = (float)eps;
    if (read_sampling(&hp->sampling, g, err) != 0)
        return -1;
    return read_text(&hp->text, g, err);
}
