#include "config.h"

#include <string.h>

#include "src/base/clock.h"
#include "src/decode/draft.h"

const struct sl_draft_kind *const sl_draft_kinds[] = {
    &sl_draft_lookup,
    NULL,
};

const struct sl_draft_kind *sl_draft_find(const char *name)
{
    for (size_t i = 0; sl_draft_kinds[i] != NULL; i++) {
        if (strcmp(sl_draft_kinds[i]->name, name) == 0)
            return sl_draft_kinds[i];
    }
    return NULL;
}

void sl_drafts_init(struct sl_drafts *d, uint32_t most, double more)
{
    *d = (struct sl_drafts){0};
    d->width = SL_TREE_WIDTH;
    sl_gate_init(&d->gate, most, more);
}

int sl_drafts_add(struct sl_drafts *d, const struct sl_draft_kind *kind,
                  void *arg, struct sl_error *err)
{
    if (d->n == SL_DRAFT_SOURCES)
        return sl_fail(err, SL_ERR_USAGE, "drafts come from at most %u sources",
                       SL_DRAFT_SOURCES);
    d->sources[d->n].kind = kind;
    d->sources[d->n].arg = arg;
    sl_gate_add(&d->gate, d->n++, kind->prior);
    return 0;
}

uint64_t sl_drafts_now(const struct sl_drafts *d)
{
    return d->now != NULL ? d->now(d->now_arg) : sl_clock_ns();
}

void sl_drafts_stop(struct sl_drafts *d)
{
    d->n = 0;
}

uint64_t sl_drafts_bytes(const struct sl_drafts *d, uint32_t n_texts,
                         uint32_t max_tokens)
{
    uint64_t bytes = d->n > 0 ? sl_tree_bytes(1 + d->gate.most) : 0;

    for (uint32_t i = 0; i < d->n; i++)
        bytes += d->sources[i].kind->bytes(max_tokens);
    return bytes * n_texts;
}

void sl_drafts_workload(const struct sl_drafts *d, struct sl_workload *load)
{
    uint64_t n = load->n_texts > 0 ? load->n_texts : 1, positions;

    if (d == NULL || d->n == 0)
        return;
    n *= load->n_sequences;
    /* a pass that has more than the gate knows takes none */
    positions = n * d->gate.most;
    load->draft_positions =
        positions < SL_PASS_SIZES ? (uint32_t)positions : SL_PASS_SIZES - 1;
    load->draft_bytes = sl_drafts_bytes(d, (uint32_t)n, load->max_tokens);
    load->draft_optional = d->optional;
}

int sl_drafter_init(struct sl_drafter *d, struct sl_drafts *all,
                    uint32_t max_tokens, struct sl_error *err)
{
    *d = (struct sl_drafter){.all = all};
    for (uint32_t i = 0; all != NULL && i < all->n; i++) {
        if (all->sources[i].kind->create(&d->sources[i], max_tokens,
                                         all->sources[i].arg, err) != 0) {
            sl_drafter_fini(d);
            return -1;
        }
        d->sources[i]->ahead = &all->gate.counts.ahead[i];
        d->sources[i]->discarded = &all->gate.counts.discarded[i];
    }
    return 0;
}

void sl_drafter_fini(struct sl_drafter *d)
{
    for (uint32_t i = 0; d->all != NULL && i < d->all->n; i++) {
        if (d->sources[i] != NULL)
            d->sources[i]->ops->destroy(d->sources[i]);
    }
    *d = (struct sl_drafter){0};
}

int sl_drafter_begin(struct sl_drafter *d, const struct sl_draft_text *t,
                     struct sl_error *err)
{
    for (uint32_t i = 0; d->all != NULL && i < d->all->n; i++) {
        if (d->sources[i]->ops->begin(d->sources[i], t, err) != 0)
            return -1;
    }
    return 0;
}

void sl_drafter_add(struct sl_drafter *d, int32_t id)
{
    for (uint32_t i = 0; d->all != NULL && i < d->all->n; i++)
        d->sources[i]->ops->add(d->sources[i], id);
}

/* Of several sources the one whose first draft is likeliest to be right, for
 * what it costs to make. */
struct sl_offer sl_drafter_offer(struct sl_drafter *d, uint32_t most)
{
    double best = 0;

    d->offer = (struct sl_offer){0};
    for (uint32_t i = 0; d->all != NULL && i < d->all->n; i++) {
        const struct sl_gate *g = &d->all->gate;
        struct sl_offer o = {.source = i};
        double worth;

        o.most = d->sources[i]->ops->offer(d->sources[i], most, &o.strength);
        if (o.most == 0)
            continue;
        o.width = 1;
        if (d->sources[i]->ops->branches != NULL &&
            d->sources[i]->ops->branches(d->sources[i]))
            o.width = d->all->width;
        if (d->sources[i]->ops->ready != NULL)
            o.ready = d->sources[i]->ops->ready(d->sources[i]);
        worth = sl_gate_right(g, i, o.strength, 0) *
                sl_pass_times_of(&g->times, 1) /
                (sl_pass_times_of(&g->times, 1) +
                 (o.ready > 0 ? 0 : g->sources[i].seconds));
        if (worth <= best)
            continue;
        best = worth;
        d->offer = o;
    }
    return d->offer;
}

/* What a draft takes: mostly what the last ones did. */
static void note_cost(struct sl_gate_source *s, double seconds)
{
    s->seconds = s->seconds > 0 ? 0.75 * s->seconds + 0.25 * seconds : seconds;
}

int sl_drafter_propose(struct sl_drafter *d, const struct sl_lm *lm,
                       const struct sl_draft_place *at, struct sl_tree *tree,
                       const struct sl_deal *deal, struct sl_error *err)
{
    uint32_t source = d->offer.source, ready = d->offer.ready, depth;
    uint64_t begin = 0;
    bool costs = false;

    if (deal != NULL && deal->n > 0) {
        struct sl_draft *from = d->sources[source];

        costs = d->all->sources[source].kind->costs;
        if (lm->ops->seq_pick != NULL)
            tree->width = deal->width;
        if (costs)
            begin = sl_drafts_now(d->all);
        if (from->ops->propose(from, at, tree, deal->n, err) != 0)
            return -1;
    }
    sl_tree_lay(tree);
    depth = tree->depths[tree->n - 1];
    if (costs && depth > ready)
        note_cost(&d->all->gate.sources[source],
                  (double)(sl_drafts_now(d->all) - begin) * 1e-9 /
                      (depth - ready));
    return 0;
}

/* Which of the brothers behind a node is next on the path. */
static struct sl_verdict verdict(const struct sl_tree *t, uint32_t node,
                                 uint32_t next)
{
    struct sl_verdict v = {0, 0};
    bool found = false;

    for (uint32_t i = node + 1; i < t->n; i++) {
        if (t->parents[i] != node)
            continue;
        found = found || i == next;
        v.right += !found;
        v.n++;
    }
    return v;
}

void sl_drafter_note(struct sl_drafter *d, const struct sl_tree *tree)
{
    struct sl_verdict verdicts[SL_DRAFT_MOST];
    uint32_t n = 0, beside = 0;

    if (tree->n == 1)
        return;
    for (uint32_t i = 0; i < tree->n_path && n < SL_DRAFT_MOST; i++) {
        uint32_t next = i + 1 < tree->n_path ? tree->path[i + 1] : SL_LM_ROOT;

        verdicts[n] = verdict(tree, tree->path[i], next);
        n += verdicts[n].n > 0;
    }
    for (uint32_t i = 1; i < tree->n; i++)
        beside += tree->parents[i] == tree->parents[i - 1];
    sl_gate_note(&d->all->gate, &d->offer, tree->n - 1, beside, verdicts, n);
}
