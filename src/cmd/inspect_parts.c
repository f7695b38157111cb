#include "config.h"

#include <stdio.h>

#include "src/cmd/inspect.h"
#include "src/model/model_layout.h"

char *sl_inspect_format(char buf[SL_FORMAT_TEXT],
                        const struct sl_model_matrix *m)
{
    const struct sl_matrix *g = &m->geom;
    const char *name = m->low_bytes > 0 ? "int8-planes" : sl_fmt_name(g->fmt);

    if (!sl_fmt_has_scales(g->fmt) ||
        (m->scale_resident && sl_matrix_groups(g) == 1))
        snprintf(buf, SL_FORMAT_TEXT, "%s", name);
    else if (m->scale_resident)
        snprintf(buf, SL_FORMAT_TEXT, "%s-tp%u", name, sl_matrix_groups(g));
    else
        snprintf(buf, SL_FORMAT_TEXT, "%s-g%u", name, g->group_cols);
    return buf;
}

const char *sl_inspect_type(enum sl_ggml_type type)
{
    switch (type) {
    case SL_GGML_F32:
        return "F32";
    case SL_GGML_F16:
        return "F16";
    case SL_GGML_BF16:
        return "BF16";
    default:
        return "I8";
    }
}

static enum sl_inspect_kind kind_of(const struct sl_model_matrix *m)
{
    switch (m->spec.role) {
    case SL_ROLE_EMBED:
        return SL_INSPECT_HEAD;
    case SL_ROLE_EXPERT:
        return SL_INSPECT_EXPERTS;
    default:
        return SL_INSPECT_LAYERS;
    }
}

/* They lie behind all others; n_sections: there are none. */
static size_t first_expert_section(const struct sl_modelfile *mf)
{
    const struct sl_hparams *hp = &mf->hp;

    if (!sl_arch_is_mixture(hp, hp->n_layers - 1))
        return mf->n_sections;
    return sl_modelfile_expert(mf, hp->n_dense_layers, 0)->section;
}

/* Low planes are layers, behind the head. */
static bool is_low(const struct sl_modelfile *mf, size_t section)
{
    size_t n = 0;

    while (n < mf->n_matrices && mf->matrices[n].low_bytes == 0)
        n++;
    for (; n < mf->n_matrices && mf->matrices[n].spec.stage >= 0; n++) {
        if (mf->matrices[n].low_section == section &&
            mf->matrices[n].low_bytes > 0)
            return true;
    }
    return false;
}

struct sl_inspect_parts sl_inspect_parts(const struct sl_modelfile *mf)
{
    struct sl_inspect_parts p = {.header = mf->sections[0].off};
    size_t head = mf->first_stage + sl_arch_n_stages(&mf->hp) - 1;
    size_t experts = first_expert_section(mf);

    for (size_t i = 0; i < mf->n_sections; i++) {
        const struct sl_model_section *s = &mf->sections[i];

        if (i < mf->n_small)
            p.small += s->bytes;
        else if (i < mf->first_stage)
            p.scales += s->bytes;
        else if (mf->tokenizer_bytes > 0 && s->off == mf->tokenizer_off)
            p.tokenizer += s->bytes;
        else if (i >= experts)
            p.experts += s->bytes;
        else if (i >= head && !is_low(mf, i)) /* and an embedding of its own */
            p.head += s->bytes;
        else
            p.layers += s->bytes;
    }
    return p;
}

bool sl_inspect_is(const struct sl_model_matrix *m, enum sl_inspect_kind kind)
{
    return kind_of(m) == kind;
}

struct sl_inspect_bits sl_inspect_bits(const struct sl_modelfile *mf,
                                       enum sl_inspect_kind kind)
{
    struct sl_inspect_bits b = {0};

    for (size_t i = 0; i < mf->n_matrices; i++) {
        const struct sl_model_matrix *m = &mf->matrices[i];

        if (!sl_inspect_is(m, kind))
            continue;
        b.n_weights += (uint64_t)m->geom.rows * m->geom.cols;
        b.bits += 8 * (m->bytes + m->low_bytes + m->scale_bytes);
    }
    return b;
}

uint64_t sl_inspect_kv_bytes(const struct sl_hparams *hp)
{
    /* Values that are the first of their keys have no plane. */
    unsigned n_planes = hp->kv_lora > 0 ? 1 : 2;

    return 2ull * n_planes * hp->n_layers * hp->n_kv_heads * hp->head_dim;
}

enum sl_act_fn sl_inspect_activation(const struct sl_modelfile *mf)
{
    return sl_stage_epilogue(&mf->arch->layers(&mf->hp)->mlp, SL_SLOT_MLP_IN);
}
