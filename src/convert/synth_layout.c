#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/mem.h"
#include "src/convert/synth.h"
#include "src/model/quant_kind.h"

/* Published files have heads and embeddings in blocks, too. */
static void choose_head(struct sl_layout_matrix *l, const struct sl_quant *q,
                        const char *head)
{
    if (head != NULL || !sl_fmt_has_blocks(q->fmt))
        sl_quant_head(l, q, SL_FMT_F16, head);
    else
        l->geom.fmt = q->fmt;
}

static int describe(struct sl_layout_matrix *matrices, size_t *n,
                    const struct sl_synth_options *o, const struct sl_quant *q,
                    const struct sl_quant *experts, struct sl_error *err)
{
    struct sl_hparams hp = o->hp;
    struct sl_tensor_spec spec;

    *n = 0;
    sl_arch_derive(o->arch, &hp);
    for (uint32_t i = 0; sl_arch_tensor(o->arch, &spec, &hp, i); i++) {
        struct sl_layout_matrix l = {
            .geom = {.rows = spec.rows,
                     .cols = spec.cols,
                     .n_segments = spec.n_segments},
        };

        if (spec.role == SL_ROLE_VECTOR)
            continue;
        if (spec.role == SL_ROLE_EMBED)
            choose_head(&l, q, o->head);
        else if (sl_quant_linear(&l, spec.role == SL_ROLE_EXPERT ? experts : q,
                                 &spec, o->quant_tp, err) != 0)
            return -1;
        if (matrices != NULL)
            matrices[*n] = l;
        ++*n;
    }
    return 0;
}

/* Formats of published files are no choice where weights are packed anew, but
 * random ones may be of any. */
static int find_quant(struct sl_quant *q, const char *name,
                      struct sl_error *err)
{
    enum sl_fmt fmt;

    if (!sl_fmt_find(&fmt, name) || !sl_fmt_has_blocks(fmt))
        return sl_quant_find(q, name, err);
    *q = (struct sl_quant){.fmt = fmt};
    return 0;
}

int sl_synth_layout(struct sl_layout *layout, char name[SL_SYNTH_QUANT],
                    const struct sl_synth_options *o, struct sl_error *err)
{
    const char *quant = o->quant != NULL ? o->quant : "int4-g64";
    struct sl_layout_config config = {
        .arch = o->arch,
        .hp = &o->hp,
        .name = o->name,
        .quant = name,
        .tokenizer_bytes = o->tokenizer_bytes,
    };
    struct sl_layout_matrix *matrices;
    struct sl_quant q = {0}, experts = {0};
    int rc;

    if (find_quant(&q, quant, err) != 0 ||
        sl_quant_check_head(o->head, err) != 0 ||
        sl_quant_check_tp(&q, quant, o->quant_tp, err) != 0)
        return -1;
    if (q.keep)
        return sl_fail(err, SL_ERR_USAGE,
                       "--quant keep belongs to a checkpoint; random weights "
                       "have no precision to keep");
    snprintf(name, SL_SYNTH_QUANT, "%s", quant);
    if (o->quant_tp > 1)
        snprintf(name, SL_SYNTH_QUANT, "%s-tp%u", quant, o->quant_tp);
    if (sl_quant_find_experts(&experts, name, &q, o->quant_experts, &o->hp,
                              err) != 0)
        return -1;
    if (experts.keep)
        return sl_fail(err, SL_ERR_USAGE,
                       "--quant-experts keep belongs to a checkpoint");
    if (describe(NULL, &config.n_matrices, o, &q, &experts, err) != 0)
        return -1;
    matrices = sl_zalloc_array(config.n_matrices, sizeof *matrices);
    if (matrices == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory to plan %zu matrices",
                       config.n_matrices);
    rc = describe(matrices, &config.n_matrices, o, &q, &experts, err);
    config.matrices = matrices;
    if (rc == 0)
        rc = sl_layout_init(layout, &config, err);
    free(matrices);
    return rc;
}

int sl_synth_imagine(struct sl_modelfile *mf, const char *preset,
                     const char *quant, struct sl_error *err)
{
    struct sl_synth_options o = {.name = preset, .quant = quant};
    char name[SL_SYNTH_QUANT];
    struct sl_layout layout;
    struct sl_config c;
    int rc;

    if (sl_synth_preset(&c, &o.arch, preset, err) != 0 ||
        sl_config_finish(&o.hp, o.arch, &c, err) != 0 ||
        sl_synth_layout(&layout, name, &o, err) != 0)
        return -1;
    rc = sl_modelfile_imagine(mf, preset, &layout, err);
    sl_layout_fini(&layout);
    return rc;
}
