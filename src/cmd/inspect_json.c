#include "config.h"

#include <stdio.h>

#include "src/cmd/inspect.h"
#include "src/model/model_layout.h"

/* Checksums are text: JSON readers keep numbers as doubles. */
#define SUM_TEXT 17

/* Strings of a model file may hold any bytes, JSON only UTF-8. */
static json_t *string(const char *s)
{
    json_t *v = json_string(s);

    return v != NULL ? v : json_null();
}

static json_t *special_ids(const struct sl_special_ids *s)
{
    return json_pack("{s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i}",
                     "mask", s->mask, "gmask", s->gmask, "smask", s->smask,
                     "eod", s->eod, "sop", s->sop, "eop", s->eop, "enc", s->enc,
                     "dblock", s->dblock, "eos", s->eos, "unk", s->unk);
}

/* Settings of a kind that does not have them are 0. */
static json_t *scaling(const struct sl_rope_scale *r)
{
    if (r->kind == SL_ROPE_SCALING_NONE)
        return json_null();
    return json_pack("{s:s, s:f, s:i, s:f, s:f, s:f}", "type",
                     sl_rope_scaling_name(r->kind), "factor", (double)r->factor,
                     "original_positions", (int)r->original_positions, "low",
                     (double)r->low, "high", (double)r->high, "attention",
                     (double)r->attention);
}

static json_t *rope(const struct sl_hparams *hp)
{
    if (hp->rope == SL_ROPE_NONE)
        return json_null();
    return json_pack("{s:s, s:i, s:f, s:o}", "pairs", sl_rope_name(hp->rope),
                     "dims", (int)hp->rope_dims, "base", (double)hp->rope_base,
                     "scaling", scaling(&hp->rope_scale));
}

static json_t *latents(const struct sl_hparams *hp)
{
    if (hp->kv_lora == 0)
        return json_null();
    return json_pack("{s:i, s:i, s:i, s:i, s:i}", "kv_lora", (int)hp->kv_lora,
                     "q_lora", (int)hp->q_lora, "rope_dims", (int)hp->rope_dims,
                     "nope_dims", (int)hp->nope_dims, "value_dims",
                     (int)hp->value_dims);
}

static json_t *mixture(const struct sl_hparams *hp)
{
    if (hp->n_experts == 0)
        return json_null();
    return json_pack("{s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:b, s:f}",
                     "n_experts", (int)hp->n_experts, "n_used",
                     (int)hp->n_experts_used, "inner", (int)hp->expert_inner,
                     "shared_inner", (int)hp->shared_inner, "n_groups",
                     (int)hp->n_expert_groups, "n_groups_used",
                     (int)hp->n_expert_groups_used, "n_dense_layers",
                     (int)hp->n_dense_layers, "normed", hp->expert_norm,
                     "scale", (double)hp->expert_scale);
}

static json_t *hparams(const struct sl_modelfile *mf)
{
    const struct sl_hparams *hp = &mf->hp;

    return json_pack(
        "{s:i, s:i, s:i, s:i, s:i, s:i, s:f, s:b, s:b, s:s, s:i, s:i, s:s, "
        "s:s, s:o, s:f, s:b, s:b, s:b, s:b, s:b, s:b, s:b, s:o, s:o}",
        "n_layers", (int)hp->n_layers, "hidden", (int)hp->hidden, "inner",
        (int)hp->inner, "n_heads", (int)hp->n_heads, "vocab", (int)hp->vocab,
        "max_positions", (int)hp->max_positions, "norm_eps",
        (double)hp->norm_eps, "position_2d", hp->position_2d, "glu", hp->glu,
        "rotary_precision", sl_rotary_name(hp->rotary), "n_kv_heads",
        (int)hp->n_kv_heads, "head_dim", (int)hp->head_dim, "norm",
        sl_norm_name(hp->norm), "activation",
        sl_act_fn_name(sl_inspect_activation(mf)), "rope", rope(hp),
        "residual_scale", (double)hp->residual_scale, "causal", hp->causal,
        "untied", hp->untied, "qkv_bias", !hp->no_qkv_bias, "attn_out_bias",
        hp->attn_out_bias, "mlp_bias", hp->mlp_bias, "post_norms",
        hp->post_norms, "qk_norm", hp->qk_norm, "latents", latents(hp),
        "mixture", mixture(hp));
}

/* What is not given is null. */
static json_t *sampling(const struct sl_sampling *s)
{
    json_t *o = json_object();

#define ADD(bit, key, v)                                                       \
    json_object_set_new(o, key, s->given &(bit) ? (v) : json_null())
    ADD(SL_SAMPLING_TEMPERATURE, "temperature", json_real(s->temperature));
    ADD(SL_SAMPLING_TOP_K, "top_k", json_integer(s->top_k));
    ADD(SL_SAMPLING_TOP_P, "top_p", json_real(s->top_p));
    ADD(SL_SAMPLING_PENALTY, "repetition_penalty", json_real(s->penalty));
#undef ADD
    return o;
}

static json_t *tokenizer(const struct sl_modelfile *mf)
{
    const struct sl_hparams *hp = &mf->hp;

    return json_pack(
        "{s:I, s:I, s:s, s:i, s:i, s:b, s:i, s:o}", "offset",
        (json_int_t)mf->tokenizer_off, "bytes", (json_int_t)mf->tokenizer_bytes,
        "whitespace", sl_whitespace_name(hp->text.whitespace), "n_image_tokens",
        (int)hp->text.n_image_tokens, "max_blank", (int)hp->text.max_blank,
        "byte_fallback", hp->text.byte_fallback, "n_tokens",
        (int)hp->text.n_tokens, "special_ids", special_ids(&hp->text.special));
}

static json_t *parts(const struct sl_modelfile *mf)
{
    struct sl_inspect_parts p = sl_inspect_parts(mf);

    return json_pack(
        "{s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "header", (json_int_t)p.header,
        "vectors", (json_int_t)p.small, "scales", (json_int_t)p.scales,
        "layers", (json_int_t)p.layers, "experts", (json_int_t)p.experts,
        "head", (json_int_t)p.head, "tokenizer", (json_int_t)p.tokenizer);
}

static json_t *tensors(const struct sl_layout *l)
{
    json_t *list = json_array();

    for (size_t i = 0; i < l->n_tensors; i++) {
        const struct sl_layout_tensor *t = &l->tensors[i];
        json_t *shape = t->n_dims > 1
                            ? json_pack("[I, I]", (json_int_t)t->ne[0],
                                        (json_int_t)t->ne[1])
                            : json_pack("[I]", (json_int_t)t->ne[0]);

        json_array_append_new(
            list,
            json_pack("{s:s, s:s, s:o, s:I, s:I}", "name", t->name, "type",
                      sl_inspect_type(t->type), "ne", shape, "offset",
                      (json_int_t)t->off, "bytes", (json_int_t)t->bytes));
    }
    return list;
}

static json_t *matrices(const struct sl_modelfile *mf)
{
    json_t *list = json_array();

    for (size_t i = 0; i < mf->n_matrices; i++) {
        const struct sl_model_matrix *m = &mf->matrices[i];
        char text[SL_FORMAT_TEXT];

        json_array_append_new(
            list,
            json_pack("{s:s, s:s, s:i, s:i, s:i, s:i, s:b, s:i}", "name",
                      m->spec.name, "format", sl_inspect_format(text, m),
                      "rows", (int)m->geom.rows, "cols", (int)m->geom.cols,
                      "segments", (int)m->geom.n_segments, "group_cols",
                      (int)m->geom.group_cols, "scale_resident",
                      m->scale_resident, "stage", m->spec.stage));
    }
    return list;
}

static json_t *sections(const struct sl_modelfile *mf)
{
    json_t *list = json_array();

    for (size_t i = 0; i < mf->n_sections; i++) {
        const struct sl_model_section *s = &mf->sections[i];
        char sum[SUM_TEXT];
        json_t *o;

        snprintf(sum, sizeof sum, "%016llx", (unsigned long long)s->xxh3);
        o = json_pack("{s:s, s:I, s:I, s:s}", "name", s->name, "offset",
                      (json_int_t)s->off, "bytes", (json_int_t)s->bytes, "xxh3",
                      sum);
        if (s->planes > 0)
            json_object_set_new(o, "kept_bytes",
                                json_integer((json_int_t)sl_compressed_kept(
                                    &mf->compressed[i])));
        json_array_append_new(list, o);
    }
    return list;
}

static double bits_each(struct sl_inspect_bits b)
{
    return b.n_weights > 0 ? (double)b.bits / (double)b.n_weights : 0;
}

json_t *sl_inspect_json(const struct sl_modelfile *mf)
{
    struct sl_inspect_bits bits = sl_inspect_bits(mf, SL_INSPECT_LAYERS);
    struct sl_inspect_bits experts = sl_inspect_bits(mf, SL_INSPECT_EXPERTS);
    struct sl_inspect_bits head = sl_inspect_bits(mf, SL_INSPECT_HEAD);
    json_int_t kv = (json_int_t)sl_inspect_kv_bytes(&mf->hp);
    uint64_t n = bits.n_weights + experts.n_weights + head.n_weights;

    return json_pack(
        "{s:o, s:o, s:s, s:o, s:s, s:I, s:I, s:f, s:o, s:f, s:I, s:o, s:o, "
        "s:o, s:o, s:i, s:o, s:o, s:o}",
        "file", string(mf->path), "name", string(mf->name), "architecture",
        mf->arch->name, "quantization", string(mf->quant), "layout",
        SL_LAYOUT_NAME, "file_bytes", (json_int_t)mf->file_bytes, "n_weights",
        (json_int_t)n, "bits_per_weight", bits_each(bits),
        "expert_bits_per_weight",
        experts.n_weights > 0 ? json_real(bits_each(experts)) : json_null(),
        "head_bits_per_weight", bits_each(head), "kv_bytes_per_position_f16",
        kv, "hparams", hparams(mf), "tokenizer", tokenizer(mf), "sampling",
        sampling(&mf->hp.sampling), "parts", parts(mf), "n_stages",
        (int)sl_arch_n_stages(&mf->hp), "sections", sections(mf), "matrices",
        matrices(mf), "tensors", tensors(mf->layout));
}
