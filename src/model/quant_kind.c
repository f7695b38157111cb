#include "config.h"

#include <stdio.h>
#include <string.h>

#include "src/model/quant_kind.h"

struct kind {
    const char *name;
    struct sl_quant quant;
};

static const struct kind kinds[] = {
    {"keep", {true, SL_FMT_F16, 0, false}},
    {"f32", {false, SL_FMT_F32, 0, false}},
    {"f16", {false, SL_FMT_F16, 0, false}},
    {"bf16", {false, SL_FMT_BF16, 0, false}},
    {"int8", {false, SL_FMT_INT8, 0, false}},
    {"int4", {false, SL_FMT_INT4, 0, false}},
    {"int8-g32", {false, SL_FMT_INT8, 32, false}},
    {"int8-g64", {false, SL_FMT_INT8, 64, false}},
    {"int8-g128", {false, SL_FMT_INT8, 128, false}},
    {"int4-g32", {false, SL_FMT_INT4, 32, false}},
    {"int4-g64", {false, SL_FMT_INT4, 64, false}},
    {"int4-g128", {false, SL_FMT_INT4, 128, false}},
    {"int8-planes", {false, SL_FMT_INT8, 0, true}},
    {"int8-planes-g32", {false, SL_FMT_INT8, 32, true}},
    {"int8-planes-g64", {false, SL_FMT_INT8, 64, true}},
    {"int8-planes-g128", {false, SL_FMT_INT8, 128, true}},
};

/* Those of the embedding; the last is what belongs to grouped formats. */
static const struct kind heads[] = {
    {"f16", {false, SL_FMT_F16, 0, false}},
    {"bf16", {false, SL_FMT_BF16, 0, false}},
    {"int8-g64", {false, SL_FMT_INT8, 64, false}},
};
#define N_HEADS (sizeof heads / sizeof *heads)

const char *sl_quant_name_at(size_t n)
{
    return n < sizeof kinds / sizeof *kinds ? kinds[n].name : NULL;
}

int sl_quant_find(struct sl_quant *q, const char *name, struct sl_error *err)
{
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (strcmp(kinds[i].name, name) == 0) {
            *q = kinds[i].quant;
            return 0;
        }
    }
    return sl_fail(err, SL_ERR_USAGE,
                   "--quant %s is none of keep, f32, f16, bf16, int8, int4, "
                   "int8-planes, and int8-gN, int4-gN, int8-planes-gN with N "
                   "= 32, 64 or 128",
                   name);
}

int sl_quant_find_experts(struct sl_quant *q, char what[SL_QUANT_NAME],
                          const struct sl_quant *of, const char *name,
                          const struct sl_hparams *hp, struct sl_error *err)
{
    size_t n = strlen(what);

    if (name == NULL) {
        *q = *of;
        return 0;
    }
    if (hp->n_experts == 0)
        return sl_fail(err, SL_ERR_USAGE,
                       "--quant-experts %s: the model has no experts", name);
    if (sl_quant_find(q, name, err) != 0) {
        sl_error_prefix(err, "--quant-experts: ");
        return -1;
    }
    snprintf(what + n, SL_QUANT_NAME - n, "-experts-%s", name);
    return 0;
}

static const struct sl_quant *find_head(const char *name)
{
    for (size_t i = 0; i < N_HEADS; i++) {
        if (strcmp(heads[i].name, name) == 0)
            return &heads[i].quant;
    }
    return NULL;
}

int sl_quant_check_head(const char *head, struct sl_error *err)
{
    if (head != NULL && find_head(head) == NULL)
        return sl_fail(err, SL_ERR_USAGE,
                       "--head %s is none of f16, bf16 and int8-g64", head);
    return 0;
}

int sl_quant_check_tp(const struct sl_quant *q, const char *name, unsigned tp,
                      struct sl_error *err)
{
    if (tp > 1 && (q->keep || !sl_fmt_has_scales(q->fmt) || q->group > 0))
        return sl_fail(err, SL_ERR_USAGE,
                       "--quant-tp belongs to --quant int8 and int4; %s has "
                       "its own scales",
                       name);
    return 0;
}

/* GLM's row-wise scales: one for a full row, or one for the N-th of a row
 * that a rank of an N-way checkpoint would have had. */
static int row_group(uint32_t *group, const struct sl_tensor_spec *s,
                     unsigned tp, struct sl_error *err)
{
    tp = tp > 0 ? tp : 1;
    *group = s->cols;
    if (s->split != SL_SPLIT_COLS)
        return 0;
    if (s->cols % tp != 0)
        return sl_fail(err, SL_ERR_USAGE,
                       "--quant-tp %u does not divide the %u columns of %s", tp,
                       s->cols, s->name);
    *group = s->cols / tp;
    return 0;
}

int sl_quant_linear(struct sl_layout_matrix *l, const struct sl_quant *q,
                    const struct sl_tensor_spec *s, unsigned tp,
                    struct sl_error *err)
{
    struct sl_matrix *g = &l->geom;

    if (s->role == SL_ROLE_ROUTER) {
        g->fmt = SL_FMT_F32;
        return 0;
    }
    g->fmt = q->fmt;
    l->planes = q->planes && s->role != SL_ROLE_EXPERT;
    if (!sl_fmt_has_scales(q->fmt))
        return 0;
    g->group_cols = q->group;
    if (q->group > 0)
        return 0;
    l->scale_resident = s->role != SL_ROLE_EXPERT;
    return row_group(&g->group_cols, s, tp, err);
}

void sl_quant_head(struct sl_layout_matrix *l, const struct sl_quant *q,
                   enum sl_fmt own, const char *head)
{
    struct sl_quant of = {false, SL_FMT_F16, 0, false};

    if (head != NULL)
        of = *find_head(head);
    else if (q->keep)
        of.fmt = own;
    else if (q->group > 0)
        of = heads[N_HEADS - 1].quant;
    else if (sl_fmt_is_float(q->fmt))
        of.fmt = q->fmt;
    l->geom.fmt = of.fmt;
    l->geom.group_cols = of.group;
}
