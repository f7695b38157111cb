#include "config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "offload/cache_policy.h"
#include "src/base/mem.h"

/* Turns of a layer in which a use comes to count half as much. */
static const double half_life[SL_CACHE_HORIZONS] = {8, 32, 128, 1024};

/* The same of how well each of them told what came. */
#define LOSS_HALF_LIFE 16.0
/* Turns that a record's layer counts for where the record is unknown. */
#define PRIOR_TURNS 1.0
/* No chance is smaller, nor larger than one less this. */
#define LEAST_CHANCE 1e-3

uint64_t sl_cache_policy_bytes(uint32_t n_records, uint32_t n_layers)
{
    return (uint64_t)n_records *
               (SL_CACHE_HORIZONS * sizeof(float) + 2 * sizeof(double)) +
           (uint64_t)(n_layers + n_records / n_layers) * SL_CACHE_HORIZONS *
               sizeof(float);
}

int sl_cache_policy_init(struct sl_cache_policy *p,
                         enum sl_cache_policy_kind kind, uint32_t n_records,
                         uint32_t n_layers, struct sl_error *err)
{
    bool all;

    *p = (struct sl_cache_policy){
        .kind = kind,
        .n_records = n_records,
        .n_layers = n_layers,
        .per_layer = n_records / n_layers,
        .positions = 1,
        .wait = sl_zalloc_array(n_records, sizeof *p->wait),
        .soon = sl_zalloc_array(n_records, sizeof *p->soon),
    };
    all = p->wait != NULL && p->soon != NULL;
    for (unsigned h = 0; h < SL_CACHE_HORIZONS; h++) {
        p->count[h] = sl_zalloc_array(n_records, sizeof **p->count);
        p->turns_of[h] = sl_zalloc_array(n_layers, sizeof **p->turns_of);
        p->told[h] = sl_zalloc_array(p->per_layer, sizeof **p->told);
        all = all && p->count[h] != NULL && p->turns_of[h] != NULL &&
              p->told[h] != NULL;
    }
    if (all)
        return 0;
    sl_cache_policy_fini(p);
    return sl_fail(err, SL_ERR_NOMEM,
                   "no memory to count the uses of %u records", n_records);
}

void sl_cache_policy_fini(struct sl_cache_policy *p)
{
    for (unsigned h = 0; h < SL_CACHE_HORIZONS; h++) {
        free(p->count[h]);
        free(p->turns_of[h]);
        free(p->told[h]);
    }
    free(p->wait);
    free(p->soon);
    memset(p, 0, sizeof *p);
}

/* What is believed of a record where its layer's are used so often on
 * average. */
static double chance_of(const struct sl_cache_policy *p, unsigned h,
                        uint32_t record, double mean)
{
    double turns = (double)p->turns_of[h][record / p->per_layer];

    return ((double)p->count[h][record] + PRIOR_TURNS * mean) /
           (turns + PRIOR_TURNS);
}

static double mean_of(const struct sl_cache_policy *p, unsigned h,
                      uint32_t layer)
{
    const float *count = p->count[h] + (size_t)layer * p->per_layer;
    double sum = 0, turns = (double)p->turns_of[h][layer];

    for (uint32_t i = 0; i < p->per_layer; i++)
        sum += (double)count[i];
    return turns > 0 ? sum / turns / p->per_layer : 0;
}

/* Turns of its layer until a record is used, of a chance in each: those are
   independent here, so the mean of a geometric distribution. Bounded, as what
   was never used is not thought to be gone for ever. */
static double wait_of(double chance)
{
    return 1 / fmax(chance, LEAST_CHANCE);
}

/* Of independent positions. */
static double any_of(uint32_t positions, double part)
{
    return part < 1 ? -expm1(positions * log1p(-part)) : 1;
}

/* Turns of its layer until the pass's positions use what one of them uses so
 * often. */
static double soon_of(const struct sl_cache_policy *p, double wait)
{
    return p->positions > 1 && wait > 1 ? 1 / any_of(p->positions, 1 / wait)
                                        : wait;
}

static void expect(struct sl_cache_policy *p, uint32_t record, double chance)
{
    p->wait[record] = wait_of(chance);
    p->soon[record] = soon_of(p, p->wait[record]);
}

void sl_cache_policy_pass(struct sl_cache_policy *p, uint32_t positions)
{
    if (positions == p->positions)
        return;
    p->positions = positions;
    for (uint32_t r = 0; r < p->n_records; r++)
        p->soon[r] = soon_of(p, p->wait[r]);
}

/* What a horizon tells of the turn; that none of the records is used surprises
 * so much, and a use takes that back. Then its counts fade. */
static void tell(struct sl_cache_policy *p, unsigned h, uint32_t layer)
{
    uint32_t from = layer * p->per_layer;
    float fade = (float)exp2(-1 / half_life[h]);
    double mean = mean_of(p, h, layer), none = 1;

    p->loss[h] *= exp2(-1 / (LOSS_HALF_LIFE * p->n_layers));
    for (uint32_t i = 0; i < p->per_layer; i++) {
        double chance = chance_of(p, h, from + i, mean);

        chance = fmin(fmax(chance, LEAST_CHANCE), 1 - LEAST_CHANCE);
        p->told[h][i] = (float)chance;
        p->count[h][from + i] *= fade;
        none *= 1 - chance;
        if (none < 1e-200 || i + 1 == p->per_layer) {
            p->loss[h] -= log(none);
            none = 1;
        }
    }
    p->turns_of[h][layer] = p->turns_of[h][layer] * fade + 1;
}

void sl_cache_policy_turn(struct sl_cache_policy *p, uint32_t layer)
{
    uint32_t from = layer * p->per_layer;
    double mean;

    p->layer = layer;
    p->turns++;
    if (p->kind == SL_CACHE_LRU)
        return;
    for (unsigned h = 0; h < SL_CACHE_HORIZONS; h++) {
        tell(p, h, layer);
        if (p->loss[h] < p->loss[p->best])
            p->best = h;
    }
    mean = mean_of(p, p->best, layer);
    for (uint32_t i = 0; i < p->per_layer; i++)
        expect(p, from + i, chance_of(p, p->best, from + i, mean));
}

void sl_cache_policy_use(struct sl_cache_policy *p, uint32_t record,
                         double part)
{
    uint32_t layer = record / p->per_layer;

    if (p->kind == SL_CACHE_LRU) {
        p->wait[record] = (double)p->turns;
        return;
    }
    for (unsigned h = 0; h < SL_CACHE_HORIZONS; h++) {
        double told = (double)p->told[h][record % p->per_layer];

        p->loss[h] += part * (log1p(-told) - log(told));
        p->count[h][record] += (float)part;
    }
    expect(p, record,
           chance_of(p, p->best, record, mean_of(p, p->best, layer)));
}

void sl_cache_policy_chances(const struct sl_cache_policy *p, uint32_t layer,
                             double usual, double *chances)
{
    unsigned h = SL_CACHE_HORIZONS - 1;
    const float *count = p->count[h] + (size_t)layer * p->per_layer;
    double turns = (double)p->turns_of[h][layer];

    /* As if a use had been seen in as many turns as one usually takes. */
    for (uint32_t i = 0; i < p->per_layer; i++)
        chances[i] =
            any_of(p->positions, ((double)count[i] + 1) / (turns + 1 / usual));
}

void sl_cache_policy_learned(const struct sl_cache_policy *p, float *parts,
                             float *turns)
{
    unsigned h = SL_CACHE_HORIZONS - 1;

    *turns = p->turns_of[h][0];
    for (uint32_t r = 0; r < p->n_records; r++) {
        float seen = p->turns_of[h][r / p->per_layer];

        parts[r] = seen > 0 ? p->count[h][r] / seen : 0;
        *turns = fminf(*turns, seen);
    }
}

void sl_cache_policy_take(struct sl_cache_policy *p, const float *parts,
                          float turns)
{
    for (unsigned h = 0; h < SL_CACHE_HORIZONS; h++) {
        /* As many as the horizon would remember of endless ones. */
        float most = (float)fmin(SL_CACHE_LEARNED_TURNS, half_life[h] / M_LN2);
        float seen = fminf(turns, most);

        for (uint32_t l = 0; l < p->n_layers; l++)
            p->turns_of[h][l] = seen;
        for (uint32_t r = 0; r < p->n_records; r++) {
            p->count[h][r] = parts[r] * seen;
            expect(p, r, (double)parts[r]);
        }
    }
}
