/*
 * quant_kind.h - what --quant and --head mean for each matrix
 */
#ifndef SL_QUANT_KIND_H
#define SL_QUANT_KIND_H

#include "src/arch/arch.h"
#include "src/model/model_layout.h"

struct sl_quant {
    bool keep; /* the precision that the checkpoint has */
    enum sl_fmt fmt;
    uint32_t group; /* 0: rows as GLM quantises them */
    bool planes;    /* INT8 whose integers have two planes (quant/planes.h) */
};

/* Room for the name of what a file's matrices are. */
#define SL_QUANT_NAME 48

/* The n-th name that --quant takes; NULL beyond the last. */
const char *sl_quant_name_at(size_t n);
/* Errors: SL_ERR_USAGE naming what there is. */
int sl_quant_find(struct sl_quant *q, const char *name, struct sl_error *err);
/* The same for the experts' matrices: `of` where name is NULL. Adds it to
 * what: "int8-g64-experts-int4-g64". Errors: also for a model without
 * experts. */
int sl_quant_find_experts(struct sl_quant *q, char what[SL_QUANT_NAME],
                          const struct sl_quant *of, const char *name,
                          const struct sl_hparams *hp, struct sl_error *err);
/* NULL (as --quant leaves it), "f16", "bf16" and "int8-g64" are heads. Errors:
 * SL_ERR_USAGE. */
int sl_quant_check_head(const char *head, struct sl_error *err);
/* That --quant-tp (tp > 1) goes with q, called name. Errors: SL_ERR_USAGE. */
int sl_quant_check_tp(const struct sl_quant *q, const char *name, unsigned tp,
                      struct sl_error *err);

/* Format, groups and place of the scales of a matrix that comes in floats; q
 * is not "keep". A router stays FP32; an expert's scales are in its record,
 * and its planes in one piece. tp:
 * parts of a row with a scale each where s is split by columns. Errors:
 * SL_ERR_USAGE. */
int sl_quant_linear(struct sl_layout_matrix *l, const struct sl_quant *q,
                    const struct sl_tensor_spec *s, unsigned tp,
                    struct sl_error *err);
/* Format of the embedding; own: what it comes in. head was checked. */
void sl_quant_head(struct sl_layout_matrix *l, const struct sl_quant *q,
                   enum sl_fmt own, const char *head);

#endif
