#include "config.h"

#include "offload/trace.h"
#include "src/exec/exec_impl.h"

static bool is_low(const struct sl_exec *x, size_t slab)
{
    return sl_partition_of(x->c.partition, slab) == SL_PART_LOW;
}

void sl_exec_guess_end(struct sl_exec *x)
{
    if (x->now != NULL)
        sl_kv_seq_cut(x->c.kv, x->wish->item.seq, x->ahead_base);
    x->now = NULL;
    x->wish = NULL;
}

static void trace(const struct sl_exec *x, size_t slab, uint64_t begin)
{
    char name[SL_STAGE_NAME];

    if (x->c.trace == NULL)
        return;
    sl_exec_stage_name(name, x, slab);
    sl_trace_span(x->c.trace, SL_TRACK_GUESSES, name, begin,
                  sl_clock_now(x->c.clock), 0);
}

/* A slab of the guess under way; its end where none is left. */
static int run_next(struct sl_exec *x, struct sl_error *err)
{
    struct sl_order order = sl_plan_order(x->c.plan);
    uint64_t begin = sl_clock_now(x->c.clock);
    size_t slab;

    while (x->ahead_at < order.n &&
           is_low(x, sl_order_slab(&order, x->ahead_at)))
        x->ahead_at++;
    if (x->ahead_at < order.n) {
        slab = sl_order_slab(&order, x->ahead_at++);
        if (sl_exec_run_slab(x->ahead, slab, &x->now, err) != 0)
            return -1;
        trace(x, slab, begin);
        return 0;
    }
    if (sl_exec_end(x->ahead, err) != 0)
        return -1;
    x->now = NULL;
    if (!x->wish->made(x->wish->arg))
        x->wish = NULL;
    return 0;
}

/* A cache that is full ends it. */
static int begin_next(struct sl_exec *x, struct sl_error *err)
{
    x->ahead_at = 0;
    x->ahead_base = sl_kv_len(x->c.kv, x->wish->item.seq);
    if (sl_exec_begin(x->ahead, &x->wish->item, 1, true, x->wish->logits,
                      &x->now, err) == 0)
        return 0;
    x->now = NULL;
    x->wish = NULL;
    return err->code == SL_ERR_BUDGET ? 0 : -1;
}

int sl_exec_guess_meanwhile(struct sl_exec *x, size_t slab,
                            struct sl_error *err)
{
    struct sl_exec_engine *e = sl_exec_engine_of(x, slab);

    while (x->wish != NULL && e->ops->ready != NULL &&
           !e->ops->ready(e, slab) &&
           !atomic_load_explicit(x->c.stop, memory_order_relaxed)) {
        if ((x->now != NULL ? run_next : begin_next)(x, err) != 0)
            return -1;
    }
    return 0;
}

void sl_exec_guess_ahead(struct sl_lm *lm, struct sl_lm_ahead *ahead)
{
    struct sl_exec *x = (struct sl_exec *)lm;

    x->wish = x->ahead != NULL && x->stats.passes > 0 ? ahead : NULL;
}
