#include "config.h"

#include <string.h>

#include "src/exec/exec_cpu_impl.h"

/* Experts in RAM that a device computes for a long pass, while the cores do
 * others: those with so many positions that copying them pays, and the one that
 * all positions use. That is told by positions and not by what the cache holds:
 * so neither changes a bit. */

/* In the place of an expert: the one that is always used. */
static uint32_t shared(const struct sl_cpu *x)
{
    return x->c.experts->n_experts;
}

bool sl_cpu_lends(const struct sl_cpu *x, uint32_t expert)
{
    const struct sl_experts *e = x->c.experts;

    return e->lend_rows > 0 && sl_cpu_expert_rows(x, expert) >= e->lend_rows;
}

bool sl_cpu_mixes_long(const struct sl_cpu *x)
{
    return (uint64_t)x->pass->n * sl_mixture_each(&x->c.mf->hp) >
           x->mixture.n_out;
}

static int lend(struct sl_cpu *x, uint32_t expert, struct sl_loan *loan,
                struct sl_error *err)
{
    struct sl_cpu_mixture *m = &x->mixture;
    struct sl_experts *e = x->c.experts;

    loan->in = sl_cpu_buffer(x, SL_BUF_NORM); /* as both have it */
    loan->stride = x->width[SL_BUF_NORM];
    loan->n_rows = sl_cpu_expert_rows(x, expert);
    m->lent[m->n_lent++] = expert;
    e->lent_bytes += loan->bytes;
    return e->device->ops->lend(e->device, loan, err);
}

int sl_cpu_lend(struct sl_cpu *x, uint32_t layer, uint32_t expert,
                struct sl_error *err)
{
    struct sl_experts *e = x->c.experts;
    uint32_t record = sl_experts_record(e, layer, expert);
    struct sl_loan loan = {
        .bytes = e->records[record].bytes,
        .row = x->mixture.row + x->mixture.first[expert],
    };

    sl_expert_matrices(e, layer, expert, loan.m, loan.part);
    if (sl_slab_cache_get(e->cache, record, &loan.base, err) != 0)
        return -1;
    return lend(x, expert, &loan, err);
}

/* It is whole in the slab, behind the router. */
static bool is_shared(const struct sl_cpu *x, uint32_t part, uint32_t end)
{
    static const enum sl_slot slots[] = {SL_SLOT_SHARED_IN, SL_SLOT_SHARED_OUT};

    for (uint32_t i = 0; i < 2; i++) {
        const struct sl_part *p = &x->c.partition->parts[part + i];
        const struct sl_model_matrix *m;

        if (part + i >= end)
            return false;
        m = &x->c.mf->matrices[p->matrix];
        if (m->spec.slot != slots[i] || p->of != SL_PART_ALL ||
            sl_cpu_adapter(x, m) != NULL ||
            p->n_blocks != sl_matrix_segment_blocks(&m->geom))
            return false;
    }
    return true;
}

int sl_cpu_lend_shared(struct sl_cpu *x, size_t slab, uint32_t part,
                       const uint8_t *base, bool *lent, struct sl_error *err)
{
    const struct sl_partition *partition = x->c.partition;
    const struct sl_part *p = &partition->parts[part];
    struct sl_loan loan = {.base = base};
    struct sl_error later;
    const float *ignored;
    uint64_t from;

    *lent = false;
    if (x->c.experts == NULL || x->c.experts->lend_rows == 0 ||
        !is_shared(x, part, partition->first_part[slab + 1]) ||
        !sl_cpu_mixes_long(x) || !sl_cpu_lends(x, shared(x)))
        return 0;
    from = sl_round_down(p->weight_at[0], 256);
    loan.base += from;
    loan.bytes = sl_slab_load_bytes(&partition->slabs[slab]) - from;
    if (loan.bytes > x->c.experts->loan_bytes)
        return 0;
    for (uint32_t i = 0; i < 2; i++) {
        loan.m[i] = &x->c.mf->matrices[p[i].matrix];
        loan.part[i] = p[i];
        for (uint32_t s = 0; s < 2; s++) {
            loan.part[i].weight_at[s] -= from;
            loan.part[i].scale_at[s] -= from;
        }
    }
    *lent = true;
    if (lend(x, shared(x), &loan, err) == 0)
        return 0;
    (void)sl_cpu_take_lent(x, 0, &ignored, &later);
    return -1;
}

int sl_cpu_take_lent(struct sl_cpu *x, uint32_t layer, const float **out,
                     struct sl_error *err)
{
    struct sl_cpu_mixture *m = &x->mixture;
    struct sl_experts *e = x->c.experts;
    uint32_t expert = m->lent[0];
    double part = (double)sl_cpu_expert_rows(x, expert) / x->pass->n;
    struct sl_error later;
    int rc;

    sl_slab_cache_go_on(e->cache);
    rc = e->device->ops->lent(e->device, out, err);
    memmove(m->lent, m->lent + 1, --m->n_lent * sizeof *m->lent);
    if (expert == shared(x))
        return rc;
    if (sl_slab_cache_put(e->cache, sl_experts_record(e, layer, expert), part,
                          rc == 0 ? err : &later) != 0)
        return -1;
    return rc;
}
