#include "config.h"

#include <stdbool.h>
#include <string.h>

#include "src/decode/gate.h"

/* A verdict of 24 passes ago counts a third of the last one. */
#define WINDOW 24.0
/* What is assumed counts as so many verdicts: little, so that drafts that are
 * never right are soon believed to be. */
#define PRIOR_WEIGHT 1.0
/* That a guess beside wrong ones is right, before any was tried: low, so that
 * a chain is what begins. */
#define BESIDE_PRIOR 0.1
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
static double mix(double before, double right, double tried)
{
    return (PRIOR_WEIGHT * before + right) / (PRIOR_WEIGHT + tried);
}

double sl_gate_right(const struct sl_gate *g, uint32_t source,
                     uint32_t strength, uint32_t j)
{
    const struct sl_acceptance *a = &g->sources[source].of[strength];
    double p = a->prior;

    for (uint32_t i = 0; i <= j && i < SL_DRAFT_MOST; i++)
        p = mix(p, a->right[i], a->tried[i]);
    return p;
}

/* That the r-th of brothers (from 1) is right where those before it are
 * wrong. */
static double beside(const struct sl_gate *g, uint32_t source,
                     uint32_t strength, uint32_t r)
{
    const struct sl_acceptance *a = &g->sources[source].of[strength];
    double p = BESIDE_PRIOR;

    for (uint32_t i = 0; i < r && i < SL_DRAFT_BESIDE; i++)
        p = mix(p, a->beside_right[i], a->beside_tried[i]);
    return p;
}

/* A node that a text might have next, while nodes are dealt. */
struct next {
    size_t text;
    uint32_t depth, place; /* from 0; among brothers */
    double chance;         /* that the text comes by it */
    double rest;           /* that it comes by its parent, and by neither it nor
                            * those before it */
};

/* Nodes that could be next: of each text one, and a brother of each that was
 * dealt. */
struct deal {
    const struct sl_gate *g;
    const struct sl_offer *offers;
    struct next next[2 * SL_PASS_SIZES];
    size_t n;
    struct sl_deal dealt[SL_PASS_SIZES]; /* to texts */
    uint32_t deepest[SL_PASS_SIZES];
};

static struct next first_child(const struct sl_gate *g,
                               const struct sl_offer *o, size_t text,
                               uint32_t depth, double chance)
{
    double right = sl_gate_right(g, o->source, o->strength, depth);

    return (struct next){text, depth, 0, chance * right, chance * (1 - right)};
}

static struct next brother(const struct sl_gate *g, const struct sl_offer *o,
                           const struct next *of)
{
    double right = beside(g, o->source, o->strength, of->place + 1);

    return (struct next){of->text, of->depth, of->place + 1, of->rest * right,
                         of->rest * (1 - right)};
}

static bool is_open(const struct deal *d, const struct next *next)
{
    uint32_t dealt = d->dealt[next->text].n;

    return dealt < d->offers[next->text].most && dealt < d->g->most;
}

/* The likeliest; d->n: there is none. */
static size_t best_next(const struct deal *d)
{
    size_t best = d->n;

    for (size_t i = 0; i < d->n; i++) {
        if (is_open(d, &d->next[i]) && d->next[i].chance > 0 &&
            (best == d->n || d->next[i].chance > d->next[best].chance))
            best = i;
    }
    return best;
}

/* Deals it. Returns what it takes to make. */
static double take(struct deal *d, size_t i)
{
    struct next took = d->next[i];
    const struct sl_offer *o = &d->offers[took.text];
    bool deeper = took.depth + 1 > d->deepest[took.text];

    d->dealt[took.text].n++;
    if (took.place > 0) /* which has them, knows best where */
        d->dealt[took.text].width = o->width;
    if (deeper)
        d->deepest[took.text]++;
    d->next[i] = first_child(d->g, o, took.text, took.depth + 1, took.chance);
    if (took.place + 1 < o->width && took.place < SL_DRAFT_BESIDE &&
        d->n < sizeof d->next / sizeof *d->next)
        d->next[d->n++] = brother(d->g, o, &took);
    return deeper && took.depth >= o->ready ? d->g->sources[o->source].seconds
                                            : 0;
}

/* A pass much larger than any before is not believed in. */
static uint32_t largest_pass(const struct sl_gate *g, uint32_t base,
                             uint32_t room)
{
    uint32_t all = base + room, seen = g->times.largest;
    uint32_t most = 2 * (seen > base ? seen : base) + 3;

    return all < most ? all : most;
}

/* Deals drafts one by one, the likeliest first, at most `most`; returns how
 * many of them give most tokens a second. deals: what was dealt until then. */
static uint32_t deal(const struct sl_gate *g, const struct sl_offer *offers,
                     size_t n, uint32_t base, uint32_t most,
                     struct sl_deal *deals, bool all)
{
    struct deal d = {.g = g, .offers = offers, .n = n};
    double tokens = base, cost = 0;
    double best_rate = tokens / sl_pass_times_of(&g->times, base);
    uint32_t best = 0;

    for (size_t i = 0; i < n; i++) {
        d.dealt[i] = deals[i] = (struct sl_deal){0, 1};
        d.next[i] = first_child(g, &offers[i], i, 0, 1);
    }
    for (uint32_t k = 1; k <= most; k++) {
        size_t i = best_next(&d);
        double rate;

        if (i == d.n)
            break;
        tokens += d.next[i].chance;
        cost += take(&d, i);
        rate = tokens / (sl_pass_times_of(&g->times, base + k) + cost);
        if (rate <= best_rate && !all)
            continue;
        best_rate = rate;
        best = k;
        memcpy(deals, d.dealt, n * sizeof *deals);
    }
    return best;
}

/* One draft more, and every other time brothers where there are some: whether
 * either would pay by now. */
static uint32_t probe(struct sl_gate *g, const struct sl_offer *offers,
                      size_t n, uint32_t base, uint32_t best,
                      struct sl_deal *deals)
{
    uint32_t more = deal(g, offers, n, base, best + 1, deals, true);

    g->probing = more > best;
    if (!g->probing)
        return more;
    g->until_probe = g->interval;
    g->beside = !g->beside;
    for (size_t i = 0; i < n && g->beside; i++) {
        if (deals[i].n > 1 && offers[i].width > 1)
            deals[i].width = offers[i].width;
    }
    return more;
}

uint32_t sl_gate_choose(struct sl_gate *g, const struct sl_offer *offers,
                        size_t n, uint32_t base, uint32_t room,
                        struct sl_deal *deals)
{
    uint32_t most, best;
    bool any = false;

    g->probing = false;
    for (size_t i = 0; i < n; i++) {
        deals[i] = (struct sl_deal){0, 1};
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
    best = deal(g, offers, n, base, most, deals, false);
    if (g->until_probe > 0)
        g->until_probe--;
    if (g->until_probe > 0 || best >= most)
        return best;
    return probe(g, offers, n, base, best, deals);
}

static void note(double *tried, double *right, bool was)
{
    *tried = *tried * (1 - 1 / WINDOW) + 1;
    *right = *right * (1 - 1 / WINDOW) + was;
}

static void note_beside(struct sl_acceptance *a, const struct sl_verdict *v)
{
    for (uint32_t r = 1; r < v->n && r <= v->right && r <= SL_DRAFT_BESIDE; r++)
        note(&a->beside_tried[r - 1], &a->beside_right[r - 1], r == v->right);
}

void sl_gate_note(struct sl_gate *g, const struct sl_offer *offer, uint32_t n,
                  uint32_t beside, const struct sl_verdict *verdicts,
                  uint32_t n_verdicts)
{
    struct sl_acceptance *a = &g->sources[offer->source].of[offer->strength];
    bool all = true; /* as far as was guessed */

    g->counts.drafted[offer->source] += n;
    g->counts.beside[offer->source] += beside;
    for (uint32_t j = 0; j < n_verdicts && j < SL_DRAFT_MOST; j++) {
        const struct sl_verdict *v = &verdicts[j];

        all = v->right < v->n;
        g->counts.accepted[offer->source] += all;
        g->counts.beside_accepted[offer->source] += all && v->right > 0;
        note(&a->tried[j], &a->right[j], v->right == 0);
        if (v->right > 0)
            note_beside(a, v);
    }
    if (!g->probing || n == 0)
        return;
    /* What was asked for is whether the last would be right. */
    if (all)
        g->interval = PROBE_LEAST;
    else if (g->interval < PROBE_MOST)
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
