#include "config.h"

#include <string.h>

#include "src/exec/exec_cpu_impl.h"

/* What a device gives of the experts that lie in its memory, while the cores
 * compute those that lie in RAM. Which ones these are is fixed for a run, and
 * what they give is added in the order of experts as anything else, to what the
 * one gives that all positions use: so neither budgets of RAM nor what the
 * cache holds change a bit. */

static bool is_shared(const struct sl_cpu *x, uint32_t expert)
{
    return expert == x->c.experts->n_experts;
}

uint32_t sl_cpu_expert_rows(const struct sl_cpu *x, uint32_t expert)
{
    const struct sl_cpu_mixture *m = &x->mixture;

    return is_shared(x, expert) ? x->pass->n
                                : m->first[expert + 1] - m->first[expert];
}

void sl_cpu_mix_add(struct sl_cpu *x, uint32_t expert)
{
    struct sl_cpu_mixture *m = &x->mixture;

    m->shared_waits |= is_shared(x, expert);
    m->parts[m->n_parts++] = (struct sl_mix_part){
        .expert = expert,
        .n = sl_cpu_expert_rows(x, expert),
    };
}

/* Which rows of the pass a part has. */
static void list_rows(const struct sl_cpu *x, const struct sl_mix_part *p)
{
    const struct sl_cpu_mixture *m = &x->mixture;

    for (uint32_t i = 0; i < p->n; i++)
        m->mix_row[p->first + i] =
            is_shared(x, p->expert) ? i : m->row[m->first[p->expert] + i];
}

int sl_cpu_mix_begin(struct sl_cpu *x, uint32_t layer, struct sl_error *err)
{
    struct sl_cpu_mixture *m = &x->mixture;
    struct sl_exec_engine *device = x->c.experts->device;
    struct sl_mix mix = {
        .layer = layer,
        .in = sl_cpu_buffer(x, SL_BUF_NORM), /* as EXPERTS has it */
        .stride = x->width[SL_BUF_NORM],
        .row = m->mix_row,
        .parts = m->parts + m->mix_to,
    };

    m->mix_from = m->mix_to;
    while (m->mix_to < m->n_parts &&
           mix.n_rows + m->parts[m->mix_to].n <= m->n_out) {
        struct sl_mix_part *p = &m->parts[m->mix_to++];

        p->first = mix.n_rows;
        list_rows(x, p);
        mix.n_rows += p->n;
        mix.n_parts++;
    }
    return mix.n_parts > 0 ? device->ops->mix(device, &mix, err) : 0;
}

static void count(const struct sl_cpu *x, uint32_t layer,
                  const struct sl_mix_part *p)
{
    if (is_shared(x, p->expert))
        return;
    sl_experts_mixed(x->c.experts,
                     sl_experts_record(x->c.experts, layer, p->expert),
                     (double)p->n / x->pass->n);
}

int sl_cpu_mix_take(struct sl_cpu *x, const struct sl_layer_op *op,
                    uint32_t layer, struct sl_error *err)
{
    struct sl_cpu_mixture *m = &x->mixture;
    struct sl_exec_engine *device = x->c.experts->device;
    const float *rows;

    if (m->n_parts == 0)
        return 0;
    if (device->ops->mixed(device, &rows, err) != 0)
        return -1;
    for (uint32_t i = 0; i < m->n_parts; i++) {
        const struct sl_mix_part *p = &m->parts[i];
        float *to = is_shared(x, p->expert)
                        ? sl_cpu_buffer(x, op->out)
                        : m->out + (size_t)m->first[p->expert] * x->hidden;

        memcpy(to, rows + (size_t)p->first * x->hidden,
               (size_t)p->n * x->hidden * sizeof *to);
        count(x, layer, p);
    }
    return 0;
}

int sl_cpu_mix_part(struct sl_cpu *x, uint32_t layer, uint32_t part,
                    const float **out, struct sl_error *err)
{
    struct sl_cpu_mixture *m = &x->mixture;
    struct sl_exec_engine *device = x->c.experts->device;

    if (part == m->mix_to && sl_cpu_mix_begin(x, layer, err) != 0)
        return -1;
    if (device->ops->mixed(device, out, err) != 0)
        return -1;
    *out += (size_t)m->parts[part].first * x->hidden;
    m->shared_waits &= !is_shared(x, m->parts[part].expert);
    count(x, layer, &m->parts[part]);
    return 0;
}
