#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "src/base/mem.h"
#include "src/exec/exec_experts.h"
#include "src/exec/expert_floor.h"
#include "src/sim/sim_mixture.h"

#define SEED 20260731u
/* Looked at so often what the disk has done. */
#define POSITIONS_A_TURN 16u

int sl_sim_mixture_init(struct sl_sim_mixture *m, struct sl_experts *experts,
                        struct sl_sim_machine *machine, uint32_t pass_positions,
                        struct sl_error *err)
{
    const struct sl_hparams *hp = &experts->mf->hp;
    double resident =
        ((double)experts->n_places + experts->n_device) / experts->n_records;

    *m = (struct sl_sim_mixture){
        .machine = machine,
        .experts = experts,
        .served = experts->curve.n > 0
                      ? sl_hit_curve_served(&experts->curve, resident)
                      : -1,
        .ops = sl_expert_ops(experts),
        .small_positions =
            sl_mixture_pairs(hp, pass_positions) / sl_mixture_each(hp),
        .n_rows = sl_zalloc_array(hp->n_experts, sizeof *m->n_rows),
        .records = sl_zalloc_array(hp->n_experts, sizeof *m->records),
        .among = sl_zalloc_array(hp->n_experts, sizeof *m->among),
        .swept = sl_zalloc_array(hp->n_experts, sizeof *m->swept),
        .chances = sl_zalloc_array(hp->n_experts, sizeof *m->chances),
        .parts = sl_zalloc_array(hp->n_experts + 1, sizeof *m->parts),
    };
    sl_rng_seed(&m->rng, SEED);
    if (m->n_rows != NULL && m->records != NULL && m->among != NULL &&
        m->swept != NULL && m->chances != NULL && m->parts != NULL)
        return 0;
    sl_sim_mixture_fini(m);
    return sl_fail(err, SL_ERR_NOMEM, "no memory for the model of a router");
}

void sl_sim_mixture_fini(struct sl_sim_mixture *m)
{
    free(m->n_rows);
    free(m->records);
    free(m->among);
    free(m->swept);
    free(m->chances);
    free(m->parts);
    *m = (struct sl_sim_mixture){.machine = NULL};
}

/* The n records of a layer that the cache has first. */
static int fill_layer(struct sl_experts *e, uint32_t layer, uint32_t n,
                      struct sl_error *err)
{
    for (uint32_t i = 0; i < e->n_experts && n > 0; i++) {
        uint32_t record = layer * e->n_experts + i;
        const uint8_t *base;

        if (e->device_place[record] != SL_NO_PLACE)
            continue;
        n--;
        if (sl_slab_cache_want(e->cache, &record, 1, err) != 0 ||
            sl_slab_cache_get(e->cache, record, &base, err) != 0 ||
            sl_slab_cache_put(e->cache, record, 1, err) != 0)
            return -1;
    }
    return 0;
}

int sl_sim_mixture_fill(struct sl_sim_mixture *m, struct sl_error *err)
{
    struct sl_experts *e = m->experts;
    uint64_t n = e->n_places;

    for (uint32_t layer = 0; layer < e->n_layers; layer++) {
        uint64_t from = n * layer / e->n_layers;

        if (fill_layer(e, layer,
                       (uint32_t)(n * (layer + 1) / e->n_layers - from),
                       err) != 0)
            return -1;
    }
    return 0;
}

/* --- the router ----------------------------------------------------------- */

static uint32_t below(struct sl_sim_mixture *m, uint32_t n)
{
    return (uint32_t)(sl_rng_uniform(&m->rng) * n);
}

static bool is_there(const struct sl_experts *e, uint32_t record)
{
    return e->device_place[record] != SL_NO_PLACE ||
           sl_slab_cache_there(e->cache, record);
}

static bool is_chosen(const uint32_t *chosen, uint32_t n_chosen, uint32_t i)
{
    uint32_t j = 0;

    while (j < n_chosen && chosen[j] != i)
        j++;
    return j < n_chosen;
}

/* One of the experts that the position has not chosen yet; there: of those
 * whose records are, or are not; of the others where there are none. */
static uint32_t draw_by_curve(struct sl_sim_mixture *m, uint32_t first,
                              const uint32_t *chosen, uint32_t n_chosen)
{
    const struct sl_experts *e = m->experts;
    bool there = sl_rng_uniform(&m->rng) < m->served;

    for (int attempt = 0;; attempt++) {
        uint32_t n = 0;

        for (uint32_t i = 0; i < e->n_experts; i++) {
            if (!is_chosen(chosen, n_chosen, i) &&
                (attempt > 0 || is_there(e, first + i) == there))
                m->among[n++] = i;
        }
        if (n > 0)
            return m->among[below(m, n)];
    }
}

static uint32_t draw_alike(struct sl_sim_mixture *m, const uint32_t *chosen,
                           uint32_t n_chosen)
{
    for (;;) {
        uint32_t i = below(m, m->experts->n_experts);

        if (!is_chosen(chosen, n_chosen, i))
            return i;
    }
}

/* As sl_cpu_sweep. */
static int sweep(struct sl_sim_mixture *m, uint32_t layer, uint32_t n,
                 struct sl_error *err)
{
    struct sl_experts *e = m->experts;

    if (layer >= e->mf->hp.n_layers || n <= SL_AHEAD_POSITIONS)
        return 0;
    return sl_experts_sweep(e, layer, n, m->chances, m->swept, err);
}

int sl_sim_mixture_begin(struct sl_sim_mixture *m, uint32_t n,
                         struct sl_error *err)
{
    return sweep(m, m->experts->first_layer, n, err);
}

void sl_sim_compute(struct sl_sim_mixture *m, double bytes, double ops,
                    uint32_t n)
{
    uint32_t turns = 1 + n / POSITIONS_A_TURN;

    for (uint32_t i = 0; i < turns; i++) {
        sl_machine_compute(m->machine, bytes / turns, ops / turns);
        sl_slab_cache_go_on(m->experts->cache);
    }
}

static void add_part(struct sl_sim_mixture *m, struct sl_mix *mix,
                     uint32_t expert, uint32_t n)
{
    m->parts[m->n_parts++] = (struct sl_mix_part){expert, mix->n_rows, n};
    mix->n_rows += n;
}

/* Those on the device begin, the others are asked for. */
static int ask(struct sl_sim_mixture *m, uint32_t layer, uint32_t n,
               uint32_t first, struct sl_error *err)
{
    struct sl_experts *e = m->experts;
    struct sl_mix mix = {.layer = layer, .parts = m->parts};

    m->n_used = m->n_parts = 0;
    if (sl_experts_shared_there(e, layer))
        add_part(m, &mix, e->n_experts, n);
    for (uint32_t i = 0; i < e->n_experts; i++) {
        if (m->n_rows[i] == 0)
            continue;
        if (e->device_place[first + i] == SL_NO_PLACE) {
            m->records[m->n_used++] = first + i;
            continue;
        }
        add_part(m, &mix, i, m->n_rows[i]);
    }
    mix.n_parts = m->n_parts;
    if (sl_experts_want(e, layer, n, m->records, m->n_used, err) != 0 ||
        sweep(m, layer + 1, n, err) != 0)
        return -1;
    return m->n_parts > 0 ? e->device->ops->mix(e->device, &mix, err) : 0;
}

int sl_sim_route(struct sl_sim_mixture *m, uint32_t layer, uint32_t n,
                 bool reads, struct sl_error *err)
{
    const struct sl_experts *e = m->experts;
    uint32_t k = e->mf->hp.n_experts_used;
    uint32_t first = sl_experts_record(e, layer, 0);
    uint32_t *chosen = m->records; /* of a position, as long as that is open */

    memset(m->n_rows, 0, e->n_experts * sizeof *m->n_rows);
    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t j = 0; j < k; j++)
            chosen[j] = m->served >= 0 && !reads
                            ? draw_by_curve(m, first, chosen, j)
                            : draw_alike(m, chosen, j);
        for (uint32_t j = 0; j < k; j++)
            m->n_rows[chosen[j]]++;
    }
    return ask(m, layer, n, first, err);
}

/* --- experts -------------------------------------------------------------- */

static int run_expert(struct sl_sim_mixture *m, uint32_t record, uint32_t n,
                      struct sl_error *err)
{
    struct sl_experts *e = m->experts;
    uint32_t rows = m->n_rows[record % e->n_experts];
    const uint8_t *base;

    uint64_t begin = sl_experts_first_bytes(e, record);
    double part = (double)begin / (double)e->records[record].bytes;

    if (sl_slab_cache_get_first(e->cache, record, begin, &base, err) != 0)
        return -1;
    sl_machine_compute(m->machine, (double)begin, m->ops * rows * part);
    if (sl_slab_cache_get(e->cache, record, &base, err) != 0)
        return -1;
    sl_machine_compute(m->machine, (double)(e->records[record].bytes - begin),
                       m->ops * rows * (1 - part));
    return sl_slab_cache_put(e->cache, record, (double)rows / n, err);
}

/* What the device had begun. */
static int take_mixed(struct sl_sim_mixture *m, uint32_t layer, uint32_t n,
                      struct sl_error *err)
{
    struct sl_exec_engine *device = m->experts->device;
    const float *ignored;

    if (m->n_parts == 0)
        return 0;
    for (uint32_t i = 0; i < m->n_parts; i++) {
        const struct sl_mix_part *p = &m->parts[i];

        if (p->expert < m->experts->n_experts)
            sl_experts_mixed(m->experts,
                             sl_experts_record(m->experts, layer, p->expert),
                             (double)p->n / n);
    }
    return device->ops->mixed(device, &ignored, err);
}

/* SL_NO_PLACE: the one that is always used. */
static int take_lent(struct sl_sim_mixture *m, uint32_t n, uint32_t left,
                     struct sl_error *err)
{
    struct sl_experts *e = m->experts;
    const float *ignored;

    while (m->n_lent > left) {
        uint32_t record = m->lent[0];

        sl_slab_cache_go_on(e->cache);
        if (e->device->ops->lent(e->device, &ignored, err) != 0)
            return -1;
        memmove(m->lent, m->lent + 1, --m->n_lent * sizeof *m->lent);
        if (record != SL_NO_PLACE &&
            sl_slab_cache_put(e->cache, record,
                              (double)m->n_rows[record % e->n_experts] / n,
                              err) != 0)
            return -1;
    }
    return 0;
}

static int lend(struct sl_sim_mixture *m, uint32_t record,
                const struct sl_loan *loan, struct sl_error *err)
{
    struct sl_experts *e = m->experts;

    m->lent[m->n_lent++] = record;
    e->lent_bytes += loan->bytes;
    return e->device->ops->lend(e->device, loan, err);
}

static int lend_record(struct sl_sim_mixture *m, uint32_t layer,
                       uint32_t record, struct sl_error *err)
{
    struct sl_experts *e = m->experts;
    struct sl_loan loan = {
        .bytes = e->records[record].bytes,
        .n_rows = m->n_rows[record % e->n_experts],
    };

    sl_expert_matrices(e, layer, record % e->n_experts, loan.m, loan.part);
    if (sl_slab_cache_get(e->cache, record, &loan.base, err) != 0)
        return -1;
    return lend(m, record, &loan, err);
}

bool sl_sim_lends_shared(const struct sl_sim_mixture *m, uint32_t n)
{
    const struct sl_experts *e = m->experts;

    return e->lend_rows > 0 && n >= e->lend_rows && n > m->small_positions;
}

int sl_sim_lend_shared(struct sl_sim_mixture *m,
                       const struct sl_model_matrix *const matrices[2],
                       uint32_t n, struct sl_error *err)
{
    struct sl_loan loan = {
        .m = {matrices[0], matrices[1]},
        .bytes = matrices[0]->bytes + matrices[1]->bytes,
        .n_rows = n,
    };

    return lend(m, SL_NO_PLACE, &loan, err);
}

/* As they lie in the file, those that are lent beside the others. */
static int run_large(struct sl_sim_mixture *m, uint32_t layer, uint32_t n,
                     struct sl_error *err)
{
    const struct sl_experts *e = m->experts;

    for (uint32_t i = 0; i < m->n_used; i++) {
        uint32_t record = m->records[i];

        if (e->lend_rows > 0 &&
            m->n_rows[record % e->n_experts] >= e->lend_rows) {
            if (take_lent(m, n, SL_LENT - 1, err) != 0 ||
                lend_record(m, layer, record, err) != 0)
                return -1;
        } else if (run_expert(m, record, n, err) != 0 ||
                   take_lent(m, n, 0, err) != 0) {
            return -1;
        }
    }
    return take_lent(m, n, 0, err);
}

/* What is there first. */
static int run_small(struct sl_sim_mixture *m, uint32_t n, struct sl_error *err)
{
    uint32_t left = m->n_used;

    while (left > 0) {
        uint32_t record = sl_experts_take(m->experts, m->records, &left);

        if (run_expert(m, record, n, err) != 0)
            return -1;
    }
    return 0;
}

/* In the order of a run. */
int sl_sim_mix(struct sl_sim_mixture *m, uint32_t layer, uint32_t n, bool reads,
               struct sl_error *err)
{
    if ((n <= m->small_positions ? run_small(m, n, err)
                                 : run_large(m, layer, n, err)) != 0)
        return -1;
    if (take_mixed(m, layer, n, err) != 0)
        return -1;
    sl_experts_count(m->experts, reads);
    return 0;
}
