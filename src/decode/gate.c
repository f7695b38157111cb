#include "config.h"

#include <stdbool.h>
#include <string.h>

#include "src/decode/gate.h"

/* A verdict of 24 passes ago counts a third of the last one. */
#define WINDOW 24.0
/* What is assumed counts as so many verdicts: little, so that drafts that are
 * never right are soon believed to be. */
#define PRIOR_WEIGHT 1.0
/* Passes from one that takes a draft more to the next: at least, and after
 * several that found nothing at most. */
#define PROBE_LEAST 16u
#define PROBE_MOST  256u
/* Passes with drafts until one goes without. */
#define PLAIN_AFTER 64u

void sl_gate_init(struct sl_gate *g, uint32_t most, double more)
{
    memset(g, 0, sizeof *g);
    sl_pass_times_init(&g->times, more);
    g->most = most < SL_DRAFT_MOST ? most : SL_DRAFT_MOST;
    g->interval = g->until_probe = PROBE_LEAST;
    g->since_plain = PLAIN_AFTER; /* T(1) comes first */
}

void sl_gate_add(struct sl_gate *g, uint32_t source,
                 const double prior[SL_DRAFT_CLASSES])
{
    for (uint32_t i = 0; i < SL_DRAFT_CLASSES; i++)
        g->sources[source].of[i].prior = prior[i];
}

/* What is known of a place is mixed with what is believed of the one before,
 * so that places that were never tried are judged by those that were. */
static double right_at(const struct sl_acceptance *a, uint32_t j, double before)
{
    return (PRIOR_WEIGHT * before + a->right[j]) / (PRIOR_WEIGHT + a->tried[j]);
}

double sl_gate_right(const struct sl_gate *g, uint32_t source,
                     uint32_t strength, uint32_t j)
{
    const struct sl_acceptance *a = &g->sources[source].of[strength];
    double p = a->prior;

    for (uint32_t i = 0; i <= j && i < SL_DRAFT_MOST; i++)
        p = right_at(a, i, p);
    return p;
}

/* A text's next draft, while drafts are dealt. */
struct next {
    double right;  /* belief of the last one that was dealt */
    double chance; /* that the next and all before it are right; 0: none */
};

static void go_on(const struct sl_gate *g, const struct sl_offer *o,
                  struct next *next, uint32_t dealt)
{
    const struct sl_acceptance *a = &g->sources[o->source].of[o->strength];

    if (dealt >= o->most || dealt >= g->most) {
        next->chance = 0;
        return;
    }
    next->right = right_at(a, dealt, dealt == 0 ? a->prior : next->right);
    next->chance = (dealt == 0 ? 1 : next->chance) * next->right;
}

/* A pass much larger than any before is not believed in. */
static uint32_t largest_pass(const struct sl_gate *g, uint32_t base,
                             uint32_t room)
{
    uint32_t all = base + room, seen = g->times.largest;
    uint32_t most = 2 * (seen > base ? seen : base) + 3;

    return all < most ? all : most;
}

static size_t best_next(const struct next *next, size_t n)
{
    size_t best = 0;

    for (size_t i = 1; i < n; i++) {
        if (next[i].chance > next[best].chance)
            best = i;
    }
    return best;
}

/* Deals drafts one by one, the likeliest first, at most `most`; returns how
 * many of them give most tokens a second. counts: what was dealt until then */
static uint32_t deal(const struct sl_gate *g, const struct sl_offer *offers,
                     size_t n, uint32_t base, uint32_t most, uint32_t *counts,
                     bool all)
{
    struct next next[SL_PASS_SIZES];
    uint32_t dealt[SL_PASS_SIZES] = {0}, best = 0;
    double tokens = base, cost = 0;
    double best_rate = tokens / sl_pass_times_of(&g->times, base);

    for (size_t i = 0; i < n; i++) {
        counts[i] = 0;
        go_on(g, &offers[i], &next[i], 0);
    }
    for (uint32_t k = 1; k <= most; k++) {
        size_t i = best_next(next, n);
        double rate;

        if (next[i].chance <= 0)
            break;
        tokens += next[i].chance;
        cost += g->sources[offers[i].source].seconds;
        go_on(g, &offers[i], &next[i], ++dealt[i]);
        rate = tokens / (sl_pass_times_of(&g->times, base + k) + cost);
        if (rate <= best_rate && !all)
            continue;
        best_rate = rate;
        best = k;
        memcpy(counts, dealt, n * sizeof *counts);
    }
    return best;
}

uint32_t sl_gate_choose(struct sl_gate *g, const struct sl_offer *offers,
                        size_t n, uint32_t base, uint32_t room,
                        uint32_t *counts)
{
    uint32_t most, best, more;
    bool any = false;

    g->probing = false;
    for (size_t i = 0; i < n; i++) {
        counts[i] = 0;
        any = any || offers[i].most > 0;
    }
    if (!any || n > SL_PASS_SIZES || base >= SL_PASS_SIZES)
        return 0;
    if (g->since_plain >= PLAIN_AFTER)
        return 0;
    most = largest_pass(g, base, room);
    if (most > SL_PASS_SIZES)
        most = SL_PASS_SIZES;
    most = most > base ? most - base : 0;
    best = deal(g, offers, n, base, most, counts, false);
    if (g->until_probe > 0)
        g->until_probe--;
    if (g->until_probe > 0 || best >= most)
        return best;
    more = deal(g, offers, n, base, best + 1, counts, true);
    g->probing = more > best;
    if (g->probing)
        g->until_probe = g->interval;
    return more;
}

void sl_gate_note(struct sl_gate *g, const struct sl_offer *offer, uint32_t n,
                  uint32_t n_right)
{
    struct sl_gate_source *s = &g->sources[offer->source];
    struct sl_acceptance *a = &s->of[offer->strength];

    g->counts.drafted[offer->source] += n;
    g->counts.accepted[offer->source] += n_right;
    for (uint32_t j = 0; j < n && j <= n_right; j++) {
        a->tried[j] = a->tried[j] * (1 - 1 / WINDOW) + 1;
        a->right[j] = a->right[j] * (1 - 1 / WINDOW) + (j < n_right);
    }
    if (!g->probing || n == 0)
        return;
    /* What was asked for is whether the last would be right. */
    if (n_right == n)
        g->interval = PROBE_LEAST;
    else if (n_right < n && g->interval < PROBE_MOST)
        g->interval *= 2;
    g->until_probe = g->interval;
}

void sl_gate_pass(struct sl_gate *g, uint32_t positions, uint32_t base,
                  uint32_t tokens, double draft_s, double pass_s)
{
    sl_pass_times_note(&g->times, positions, pass_s);
    g->counts.passes++;
    g->counts.tokens += tokens;
    g->counts.draft_s += draft_s;
    if (positions <= base) {
        g->since_plain = 0;
        return;
    }
    g->since_plain++;
    /* what as many tokens would have taken one by one, in as many passes */
    if (base <= SL_PASS_SIZES && g->times.of[base].n > 0)
        g->counts.saved_s +=
            (double)tokens / base * g->times.of[base].median - draft_s - pass_s;
}
