#include "config.h"

#include <float.h>
#include <math.h>

#include "src/exec/exec_cpu_impl.h"

/* Which experts a position takes, and with which weights (huggingface/
 * transformers models/glm4_moe/modeling_glm4_moe.py, Glm4MoeTopkRouter):
 *
 *   s = sigmoid(logits);  c = s + bias, which only chooses
 *   with groups: those whose two best c sum up to most stay
 *   S = the k largest c;  w = s of S [/ (sum + 1e-20)] * scale
 *
 * Of equal ones the first is taken. */

struct route_job {
    struct sl_cpu *x;
    const float *bias;
};

static float two_best(const float *c, uint32_t n)
{
    float a = -INFINITY, b = -INFINITY;

    for (uint32_t i = 0; i < n; i++) {
        if (c[i] > a) {
            b = a;
            a = c[i];
        } else if (c[i] > b) {
            b = c[i];
        }
    }
    return a + b;
}

static uint32_t largest(const float *c, uint32_t n)
{
    uint32_t best = 0;

    for (uint32_t i = 1; i < n; i++) {
        if (c[i] > c[best])
            best = i;
    }
    return best;
}

/* The experts of all groups but the best count as -inf. group: room for one
 * value each. */
static void keep_groups(float *c, float *group, const struct sl_hparams *hp)
{
    uint32_t n = hp->n_expert_groups, each = hp->n_experts / n;

    for (uint32_t g = 0; g < n; g++)
        group[g] = two_best(c + (size_t)g * each, each);
    for (uint32_t i = 0; i < hp->n_expert_groups_used; i++)
        group[largest(group, n)] = -INFINITY;
    for (uint32_t g = 0; g < n; g++) {
        for (uint32_t e = 0; group[g] != -INFINITY && e < each; e++)
            c[(size_t)g * each + e] = -INFINITY;
    }
}

static void sort(uint32_t *v, uint32_t n)
{
    for (uint32_t i = 1; i < n; i++) {
        uint32_t x = v[i], j = i;

        for (; j > 0 && v[j - 1] > x; j--)
            v[j] = v[j - 1];
        v[j] = x;
    }
}

void sl_cpu_pick_experts(uint32_t *chosen, float *s, float *c,
                         const float *bias, const struct sl_hparams *hp)
{
    uint32_t n = hp->n_experts;

    for (uint32_t e = 0; e < n; e++) {
        s[e] = 1 / (1 + expf(-s[e]));
        c[e] = s[e] + (bias != NULL ? bias[e] : 0);
        /* What is no number comes last, but is not as if taken already: each
         * expert is chosen once, whatever a model's weights are. */
        c[e] = c[e] > -FLT_MAX ? c[e] : -FLT_MAX;
    }
    if (hp->n_expert_groups > 1)
        keep_groups(c, c + n, hp);
    for (uint32_t i = 0; i < hp->n_experts_used; i++) {
        chosen[i] = largest(c, n);
        c[chosen[i]] = -INFINITY;
    }
}

static void choose(uint32_t *chosen, float *weight, float *s, float *c,
                   const float *bias, const struct sl_hparams *hp)
{
    uint32_t k = hp->n_experts_used;
    float sum = 0;

    sl_cpu_pick_experts(chosen, s, c, bias, hp);
    sort(chosen, k);
    for (uint32_t i = 0; i < k; i++)
        sum += s[chosen[i]];
    for (uint32_t i = 0; i < k; i++) {
        weight[i] = s[chosen[i]];
        if (hp->expert_norm)
            weight[i] /= sum + 1e-20f;
        weight[i] *= hp->expert_scale;
    }
}

static void route_rows(void *arg, size_t begin, size_t end, unsigned worker)
{
    struct route_job *job = arg;
    struct sl_cpu *x = job->x;
    struct sl_cpu_mixture *m = &x->mixture;
    const struct sl_hparams *hp = &x->c.mf->hp;
    float *route = sl_cpu_buffer(x, SL_BUF_ROUTE);

    for (size_t i = begin; i < end; i++)
        choose(m->chosen + i * m->k, m->weight + i * m->k,
               route + i * x->width[SL_BUF_ROUTE],
               m->score + (size_t)worker * 2 * hp->n_experts, job->bias, hp);
}

/* Puts the pairs in order, and lists the experts that are used. */
static void list_pairs(struct sl_cpu_mixture *m, uint32_t n, uint32_t n_experts)
{
    uint32_t n_pairs = n * m->k;

    for (uint32_t e = 0; e <= n_experts; e++)
        m->first[e] = 0;
    for (uint32_t i = 0; i < n_pairs; i++)
        m->first[m->chosen[i] + 1]++;
    for (uint32_t e = 0; e < n_experts; e++)
        m->first[e + 1] += m->first[e];
    for (uint32_t i = 0; i < n_pairs; i++) {
        uint32_t at = m->first[m->chosen[i]]++;

        m->row[at] = i / m->k;
        m->pair_weight[at] = m->weight[i];
        m->pair_of[i] = at;
    }
    /* Each has become the next one's. */
    for (uint32_t e = n_experts; e > 0; e--)
        m->first[e] = m->first[e - 1];
    m->first[0] = 0;
}

int sl_cpu_route(struct sl_cpu *x, const struct sl_layer_op *op, uint32_t layer,
                 const float *bias, struct sl_error *err)
{
    struct sl_cpu_mixture *m = &x->mixture;
    struct sl_experts *experts = x->c.experts;
    uint32_t n_experts = x->c.mf->hp.n_experts;
    struct route_job job = {x, bias};

    sl_pool_for(x->c.pool, x->pass->n, 1, route_rows, &job);
    list_pairs(m, x->pass->n, n_experts);
    sl_route_trace_add(experts->route, layer - experts->first_layer, x->pass->n,
                       m->first);
    m->n_used = m->n_parts = m->mix_to = 0;
    m->shared_waits = false;
    if (sl_experts_shared_there(experts, layer))
        sl_cpu_mix_add(x, n_experts);
    for (uint32_t e = 0; e < n_experts; e++) {
        uint32_t record = sl_experts_record(experts, layer, e);

        if (m->first[e] == m->first[e + 1])
            continue;
        if (experts->device_place[record] != SL_NO_PLACE)
            sl_cpu_mix_add(x, e);
        else
            m->records[m->n_used++] = record;
    }
    if (sl_experts_want(experts, layer, x->pass->n, m->records, m->n_used,
                        err) != 0 ||
        sl_cpu_mix_begin(x, layer, err) != 0 ||
        sl_cpu_sweep(x, layer + 1, err) != 0)
        return -1;
    return sl_cpu_look_ahead(x, layer, SL_HINT_EARLY, err);
}
