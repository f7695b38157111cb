#include "config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/mem.h"
#include "src/exec/exec_experts.h"
#include "src/exec/expert_floor.h"

/* What a pass wants of a mixture's experts, and the least time that takes. */

static int by_part(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;

    return (x < y) - (x > y);
}

/* Bytes that a pass reads where those used most have the places. */
static double learned_bytes(const struct sl_experts *e, uint32_t positions)
{
    double n = 0;
    float *parts;

    if (e->usage == NULL)
        return -1;
    parts = sl_alloc_array(e->n_records, sizeof *parts);
    if (parts == NULL)
        return -1;
    memcpy(parts, e->usage, e->n_records * sizeof *parts);
    qsort(parts, e->n_records, sizeof *parts, by_part);
    for (uint32_t r = e->n_device + e->n_places; r < e->n_records; r++)
        n += 1 - pow(1 - (double)parts[r], positions);
    free(parts);
    return n / e->n_records * (double)e->bytes;
}

/* Between points in a straight line, from none that serve nothing to all that
 * serve all. */
double sl_hit_curve_served(const struct sl_hit_curve *curve, double resident)
{
    struct sl_hit_point from = {0, 0}, to = {1, 1};

    for (size_t i = 0; i < curve->n; i++) {
        if (curve->point[i].resident > resident) {
            to = curve->point[i];
            break;
        }
        from = curve->point[i];
    }
    if (to.resident <= from.resident)
        return to.served;
    return from.served + (to.served - from.served) *
                             (resident - from.resident) /
                             (to.resident - from.resident);
}

/* gate, up and down */
double sl_expert_ops(const struct sl_experts *e)
{
    const struct sl_hparams *hp = &e->mf->hp;

    return 2.0 * 3 * hp->hidden * (double)hp->expert_inner;
}

/* The part of all experts that n positions use, of those that are `of` of them
 * and have so much of the choices: of f experts that a position takes k of,
 * f (1 - (1 - k / f)^n). */
static double distinct(const struct sl_hparams *hp, double of, double choices,
                       uint32_t n)
{
    double k = choices * hp->n_experts_used / hp->n_experts;

    of = fmax(of, k);
    return of > 0 ? of * (1 - pow(1 - k / of, n)) : 0;
}

struct sl_expert_demand sl_expert_demand(const struct sl_experts *e,
                                         struct sl_plan_pass pass)
{
    const struct sl_hparams *hp = &e->mf->hp;
    struct sl_expert_demand d = {0};
    double resident, served, there;

    if (e->n_records == 0)
        return d;
    resident = fmin(((double)e->n_places + e->n_device) / e->n_records, 1);
    d.by_curve = e->curve.n > 0 && pass.positions <= pass.logits;
    served = d.by_curve ? sl_hit_curve_served(&e->curve, resident) : resident;
    there = distinct(hp, resident, served, pass.positions) * (double)e->bytes;
    d.disk_bytes = distinct(hp, 1 - resident, 1 - served, pass.positions) *
                   (double)e->bytes;
    d.wanted_bytes = there + d.disk_bytes;
    /* What is resident serves alike, wherever it lies. */
    if (e->n_device > 0)
        d.device_bytes = there * e->n_device / (resident * e->n_records);
    d.learned_bytes = learned_bytes(e, pass.positions);
    d.ops =
        sl_expert_ops(e) * hp->n_experts_used * pass.positions * e->n_layers;
    return d;
}

/* --- the floor ------------------------------------------------------------ */

/* Layer by layer, for what a layer will want is known when the one before it
 * is over:
 *
 *   max(what is always used, bytes read ahead / disk)
 *     + max(bytes that were missing / disk, the experts that were there)
 */
struct mixed {
    double ahead_s;       /* beyond the time of what is always used */
    double seconds;       /* of the experts, layer after layer */
    double disk_s;        /* all that was read */
    double dram_s, ops_s; /* of all that was there */
    double device_s;      /* of what a device computes beside */
};

struct prices { /* seconds a byte */
    double disk, dram, ops, device;
    /* seconds until the first does, of a device and back */
    double disk_begins, device_begins;
};

static double there_price(const struct prices *p)
{
    return fmax(p->dram, p->ops);
}

static struct prices prices_of(const struct sl_rates *r,
                               const struct sl_expert_demand *d)
{
    const struct sl_worker *device = &r->worker[SL_DEVICE];

    return (struct prices){
        .disk = r->disk_bps > 0 ? 1 / r->disk_bps : 0,
        .dram = r->dram_bps > 0 ? 1 / r->dram_bps : 0,
        .device = device->memory_bps > 0 ? 1 / device->memory_bps : 0,
        .disk_begins = r->disk_latency_s,
        .device_begins = device->stage_s + 2 * device->link_latency_s,
        .ops = r->worker[SL_HOST].ops_per_s > 0
                   ? d->ops / d->wanted_bytes / r->worker[SL_HOST].ops_per_s
                   : 0,
    };
}

static double binomial(uint32_t n, uint32_t k, double p)
{
    double sum = 0;

    if (p <= 0 || p >= 1)
        return k == (p >= 1 ? n : 0);
    for (uint32_t i = 1; i <= k; i++)
        sum += log((double)(n - k + i) / i);
    return exp(sum + k * log(p) + (n - k) * log1p(-p));
}

/* A layer, whose experts have so many bytes each. */
struct layer {
    uint32_t wanted;
    double bytes, shared_bytes; /* of the device, with each pass */
    double missing;             /* chance of each wanted one */
    double on_device;           /* of those that are not */
};

/* Chances that make no difference. */
#define LITTLE 1e-6

/* So many are missing, the others are there or on the device. waits: a third of
 * what is read last, down, is computed when it has come, and disk and device
 * have to begin. */
static double others_seconds(const struct layer *l, const struct prices *p,
                             uint32_t missing, bool waits)
{
    uint32_t n = l->wanted - missing, late = missing > 0 && waits;
    double here = l->bytes * there_price(p), sum = 0;
    double disk =
        missing * l->bytes * p->disk + late * (p->disk_begins + here / 3);

    for (uint32_t i = 0; i <= n; i++) {
        double part = binomial(n, i, l->on_device);
        double device = (i * l->bytes + l->shared_bytes) * p->device;

        if (part < LITTLE)
            continue;
        device += device > 0 && waits ? p->device_begins : 0;
        sum += part * fmax(fmax(disk, device), (n - i) * here);
    }
    return sum;
}

static double expected_seconds(const struct layer *l, const struct prices *p,
                               bool waits)
{
    double sum = 0;

    for (uint32_t i = 0; i <= l->wanted; i++) {
        double part = binomial(l->wanted, i, l->missing);

        if (part >= LITTLE)
            sum += part * others_seconds(l, p, i, waits);
    }
    return sum;
}

static struct mixed expect(const struct sl_experts *e,
                           const struct sl_expert_demand *d,
                           const struct prices *p, bool waits)
{
    double b = (double)e->bytes / e->n_records;
    double layers = e->n_layers;
    double n = fmax(1, round(d->wanted_bytes / b / layers));
    double there = d->wanted_bytes - d->disk_bytes;
    double host = there - d->device_bytes;
    double shared = (double)sl_experts_shared_bytes(e);
    struct layer l = {
        .wanted = (uint32_t)n,
        .bytes = d->wanted_bytes / layers / n,
        .shared_bytes = shared / layers,
        .missing = d->disk_bytes / d->wanted_bytes,
        .on_device = there > 0 ? d->device_bytes / there : 0,
    };

    return (struct mixed){
        .seconds = layers * expected_seconds(&l, p, waits),
        .disk_s = d->disk_bytes * p->disk,
        .dram_s = host * p->dram,
        .ops_s = host * p->ops,
        .device_s = (d->device_bytes + shared) * p->device,
    };
}

/* Of passes that were, on average. always_s: of a layer. */
static struct mixed sum_up(const struct sl_experts *e,
                           const struct sl_expert_use *use, double passes,
                           double always_s, const struct prices *p)
{
    struct mixed m = {0};
    double read = (double)use->read_bytes, hint = (double)use->hint_bytes;

    for (unsigned i = 0; i < SL_EXPERT_PARTS; i++) {
        const struct sl_expert_part *x = &use->part[i];

        m.seconds += fmax((double)x->read_bytes * p->disk,
                          (double)x->there_bytes * there_price(p));
        m.ahead_s += fmax(0, (double)use->ahead[i].bytes * p->disk -
                                 (double)use->ahead[i].layers * always_s);
    }
    m.disk_s = (read + hint) * p->disk / passes;
    m.dram_s = ((double)use->wanted_bytes - read) * p->dram / passes;
    m.ops_s = ((double)use->wanted_bytes - read) * p->ops / passes;
    m.device_s = ((double)use->device_bytes / passes +
                  (double)sl_experts_shared_bytes(e)) *
                 p->device;
    m.seconds /= passes;
    m.ahead_s /= passes;
    return m;
}

/* The part of what is always used that lies in layers with experts. */
static double part_of_mixtures(const struct sl_experts *e)
{
    uint64_t all = 0, mixtures = 0;

    for (size_t i = 0; i < e->mf->n_matrices; i++) {
        const struct sl_model_matrix *m = &e->mf->matrices[i];
        bool layer =
            m->spec.slot != SL_SLOT_HEAD && m->spec.layer >= e->first_layer;
        bool shared = m->spec.slot == SL_SLOT_SHARED_IN ||
                      m->spec.slot == SL_SLOT_SHARED_OUT;

        if (m->spec.stage < 0 ||
            (shared && sl_experts_shared_there(e, m->spec.layer)))
            continue;
        all += m->bytes;
        mixtures += layer ? m->bytes : 0;
    }
    return all > 0 ? (double)mixtures / (double)all : 0;
}

/* Of all that have no place. */
static double missing_bytes(const struct sl_experts *e)
{
    uint32_t there = e->n_places + e->n_device;

    return there < e->n_records ? (double)(e->n_records - there) /
                                      e->n_records * (double)e->bytes
                                : 0;
}

/* Bytes of RAM's experts that a pass lends: all where as many positions as an
 * expert has on average are enough. */
static double lent_bytes(const struct sl_experts *e,
                         const struct sl_expert_demand *d,
                         struct sl_plan_pass pass)
{
    double used = d->wanted_bytes / (double)e->bytes * e->n_records;
    double rows =
        (double)pass.positions * e->mf->hp.n_experts_used * e->n_layers / used;

    return e->lend_rows > 0 && pass.positions > SL_SMALL_PASS &&
                   rows >= e->lend_rows
               ? d->wanted_bytes - d->device_bytes
               : 0;
}

static void longest(struct sl_floor *f, double seconds, enum sl_limit limit)
{
    if (seconds <= f->seconds)
        return;
    f->seconds = seconds;
    f->limit = limit;
}

/* Of the experts that all positions use, of so many layers. */
static double shared_ops(const struct sl_experts *e, struct sl_plan_pass pass,
                         uint32_t n_layers)
{
    const struct sl_hparams *hp = &e->mf->hp;

    return 2.0 * 3 * hp->hidden * (double)hp->shared_inner * pass.positions *
           n_layers;
}

double sl_experts_shared_seconds(const struct sl_experts *e,
                                 const struct sl_rates *rates,
                                 struct sl_plan_pass pass)
{
    if (e->lend_rows == 0 || pass.positions < e->lend_rows ||
        pass.positions <= SL_SMALL_PASS || pass.positions <= pass.logits)
        return 0;
    return shared_ops(e, pass, e->n_layers - e->n_shared) /
           rates->worker[SL_HOST].ops_per_s;
}

/* What a device takes of a prompt's experts, in seconds. */
struct swept {
    double there;    /* those of VRAM, and the one that all positions use */
    double lent;     /* arithmetic of those of RAM, */
    double copies;   /* which are copied before */
    double rows[2];  /* what goes up and comes down of each of the two */
    double shared_s; /* that the cores need not do */
};

static struct swept swept_of(const struct sl_experts *e,
                             const struct sl_expert_demand *d,
                             const struct sl_rates *r, struct sl_plan_pass pass)
{
    const struct sl_worker *device = &r->worker[SL_DEVICE];
    double lent = lent_bytes(e, d, pass) / d->wanted_bytes;
    double there = d->device_bytes / d->wanted_bytes;
    struct swept s = {.shared_s = sl_experts_shared_seconds(e, r, pass)};
    double n_shared = s.shared_s > 0 ? e->n_layers : e->n_shared;
    double rows = (double)pass.positions * e->n_layers;
    double row_s;

    if (lent + there + n_shared <= 0)
        return s;
    row_s = SL_LENT_ROW_BYTES * e->mf->hp.hidden / device->link_bps;
    s.there = fmax(d->device_bytes / device->memory_bps,
                   there * d->ops / device->ops_per_s) +
              shared_ops(e, pass, (uint32_t)n_shared) / device->ops_per_s;
    s.lent = lent * d->ops / device->ops_per_s;
    s.copies = lent * d->wanted_bytes / device->link_bps;
    s.rows[0] = (rows * e->mf->hp.n_experts_used * there +
                 (double)pass.positions * n_shared) *
                row_s;
    s.rows[1] = rows * e->mf->hp.n_experts_used * lent * row_s;
    return s;
}

/* Of a prompt every expert is read, copied and computed while others are. */
static void add_swept(struct sl_floor *f, const struct sl_experts *e,
                      const struct sl_expert_demand *d,
                      const struct sl_rates *r, struct sl_plan_pass pass)
{
    struct prices p = prices_of(r, d);
    struct swept s = swept_of(e, d, r, pass);
    double lent = lent_bytes(e, d, pass);
    double host = d->wanted_bytes - d->device_bytes - lent;

    f->disk_s += d->disk_bytes * p.disk;
    f->dram_s += (host + lent + d->disk_bytes) * p.dram;
    f->worker_s[SL_HOST] = fmax(f->worker_s[SL_HOST] - s.shared_s, 0);
    f->worker_s[SL_HOST] += host * p.ops;
    f->worker_s[SL_DEVICE] += s.there + s.lent;
    f->link_s += s.copies;
    f->seconds = 0;
    longest(f, f->disk_s, SL_LIMIT_DISK);
    longest(f, f->dram_s, SL_LIMIT_DRAM);
    longest(f, f->worker_s[SL_HOST], SL_LIMIT_HOST);
    longest(f, f->link_s, SL_LIMIT_LINK);
    longest(f, f->worker_s[SL_DEVICE], SL_LIMIT_DEVICE);
}

void sl_experts_add_floor(struct sl_floor *floor, const struct sl_experts *e,
                          const struct sl_rates *rates,
                          struct sl_plan_pass pass)
{
    struct sl_expert_demand d = sl_expert_demand(e, pass);
    bool prompt = pass.positions > pass.logits;
    const struct sl_expert_use *use = prompt ? &e->prefill : &e->decode;
    struct prices p;
    struct mixed m;
    double passes;

    if (d.wanted_bytes <= 0)
        return;
    passes = (double)use->layers / e->n_layers;
    if (passes > 0) {
        d.device_bytes = (double)use->device_bytes / passes;
        d.wanted_bytes = (double)use->wanted_bytes / passes + d.device_bytes;
        d.disk_bytes = (double)use->read_bytes / passes;
        if (prompt) /* nothing need be read twice, nor in vain */
            d.disk_bytes = fmin(d.disk_bytes + (double)use->hint_bytes / passes,
                                missing_bytes(e));
    }
    if (prompt) {
        add_swept(floor, e, &d, rates, pass);
        return;
    }
    p = prices_of(rates, &d);
    m = passes > 0
            ? sum_up(e, use, passes,
                     floor->seconds * part_of_mixtures(e) / e->n_layers, &p)
            : expect(e, &d, &p, false);
    if (m.seconds + m.ahead_s > floor->seconds)
        floor->limit = m.disk_s >= fmax(m.dram_s, m.ops_s) ? SL_LIMIT_DISK
                       : m.dram_s >= m.ops_s               ? SL_LIMIT_DRAM
                                                           : SL_LIMIT_HOST;
    floor->disk_s += m.disk_s;
    floor->dram_s += m.dram_s;
    floor->worker_s[SL_HOST] += m.ops_s;
    floor->worker_s[SL_DEVICE] += m.device_s;
    floor->seconds += fmax(m.seconds, m.device_s) + m.ahead_s;
}

/* Experts that are lent come behind those of VRAM in the device's queue, where
 * rows go up and come down as well. */
static double swept_wait(const struct sl_experts *e,
                         const struct sl_expert_demand *d,
                         const struct sl_rates *r, struct sl_plan_pass pass)
{
    struct swept s = swept_of(e, d, r, pass);
    struct sl_floor all = {0};

    add_swept(&all, e, d, r, pass);
    return fmax(s.there + s.rows[0] + fmax(s.copies, s.lent) + s.rows[1] -
                    all.seconds,
                0);
}

double sl_experts_wait_seconds(const struct sl_experts *e,
                               const struct sl_rates *rates,
                               struct sl_plan_pass pass)
{
    struct sl_expert_demand d = sl_expert_demand(e, pass);
    struct prices p;

    if (d.wanted_bytes <= 0)
        return 0;
    if (pass.positions > pass.logits)
        return swept_wait(e, &d, rates, pass);
    p = prices_of(rates, &d);
    return expect(e, &d, &p, true).seconds - expect(e, &d, &p, false).seconds;
}
