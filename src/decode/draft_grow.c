#include "config.h"

#include <math.h>

#include "src/decode/draft_grow.h"

/* A node that the tree could have. */
struct candidate {
    int32_t id;      /* the model's */
    uint32_t parent; /* among candidates; SL_LM_ROOT: the first of the tree */
    uint32_t fed;    /* place in the list of what was fed; SL_LM_ROOT: not */
    double chance;
    uint32_t node; /* of the tree, in the end */
};

struct growth {
    const struct sl_grower *g;
    struct candidate of[SL_LM_TREE * SL_TREE_WIDTH];
    uint32_t n;
    uint32_t order[SL_LM_TREE * SL_TREE_WIDTH]; /* the likeliest first */
    /* what was fed, with what stands before the first guess */
    int32_t ids[SL_LM_TREE];
    uint32_t parents[SL_LM_TREE], depths[SL_LM_TREE];
    uint32_t from[SL_LM_TREE]; /* candidates */
    uint32_t n_fed;
};

/* The width likeliest words of a row, best first; of equals the lower. */
static uint32_t find_best(const struct sl_grower *g, const float *row,
                          uint32_t width, uint32_t best[SL_TREE_WIDTH])
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < g->vocab; i++) {
        uint32_t at = n;

        if ((g->words != NULL && g->words[i] < 0) ||
            (n == width && !(row[i] > row[best[n - 1]])))
            continue;
        if (n < width)
            n++;
        else
            at--;
        for (; at > 0 && row[i] > row[best[at - 1]]; at--)
            best[at] = best[at - 1];
        best[at] = i;
    }
    return n;
}

/* Keeps `order` in order; of equals who came first is first, so that a parent
 * stands before its children. */
static void add(struct growth *w, struct candidate c)
{
    uint32_t at = w->n;

    for (; at > 0 && w->of[w->order[at - 1]].chance < c.chance; at--)
        w->order[at] = w->order[at - 1];
    w->order[at] = w->n;
    w->of[w->n++] = c;
}

/* What might follow what was fed last but i. */
static void look(struct growth *w, uint32_t fed, const float *row,
                 uint32_t width)
{
    const struct sl_grower *g = w->g;
    uint32_t best[SL_TREE_WIDTH], n = find_best(g, row, width, best);
    uint32_t parent = w->from[fed];
    double chance = parent == SL_LM_ROOT ? 1 : w->of[parent].chance, sum = 0;

    if (n == 0)
        return;
    /* a chain asks for no chances */
    for (uint32_t i = 0; width > 1 && i < g->vocab; i++)
        sum += (double)expf(row[i] - row[best[0]]);
    for (uint32_t i = 0; i < n && w->n < sizeof w->of / sizeof *w->of; i++) {
        double part =
            width > 1 ? (double)expf(row[best[i]] - row[best[0]]) / sum : 1;

        add(w, (struct candidate){.id = (int32_t)best[i],
                                  .parent = parent,
                                  .fed = SL_LM_ROOT,
                                  .chance = chance * part});
    }
}

/* Appends to what is fed those of the n likeliest that were not, and whose
 * children could be among these. No more are ever fed than a chain would be:
 * for so many there is room in the sequence. */
static uint32_t choose(struct growth *w, uint32_t n)
{
    uint32_t before = w->n_fed;

    for (uint32_t k = 0; k + 1 < n && k < w->n; k++) {
        struct candidate *c = &w->of[w->order[k]];

        if (c->fed != SL_LM_ROOT)
            continue;
        if (w->n_fed == n || w->n_fed - before == w->g->most_rows)
            break;
        c->fed = w->n_fed;
        w->ids[w->n_fed] = c->id;
        w->parents[w->n_fed] =
            c->parent == SL_LM_ROOT ? 0 : w->of[c->parent].fed;
        w->depths[w->n_fed] = w->depths[w->parents[w->n_fed]] + 1;
        w->from[w->n_fed++] = w->order[k];
    }
    return w->n_fed - before;
}

/* The n likeliest become the tree's. */
static void plant(struct growth *w, struct sl_tree *t, uint32_t n)
{
    for (uint32_t k = 0; k < n && k < w->n; k++) {
        struct candidate *c = &w->of[w->order[k]];
        uint32_t parent = c->parent == SL_LM_ROOT ? 0 : w->of[c->parent].node;

        c->node = sl_tree_add(t, parent,
                              w->g->words != NULL ? w->g->words[c->id] : c->id);
    }
}

int sl_tree_grow(struct sl_tree *t, uint32_t n, const struct sl_grower *g,
                 struct sl_error *err)
{
    uint32_t width = t->width < SL_TREE_WIDTH ? t->width : SL_TREE_WIDTH;
    struct growth w = {.g = g};
    uint32_t n_new = 1;
    int rc = 0;

    if (n == 0)
        return 0;
    w.n_fed = 1;
    w.ids[0] = t->ids[0];
    w.parents[0] = SL_LM_ROOT;
    w.from[0] = SL_LM_ROOT;
    while (n_new > 0) {
        uint32_t first = w.n_fed - n_new;
        const float *rows;

        rc = g->feed(g->opaque, w.ids + first, w.parents, w.depths + first,
                     first, n_new, &rows, err);
        if (rc != 0)
            break;
        for (uint32_t i = 0; i < n_new; i++)
            look(&w, first + i, rows + (size_t)i * g->stride, width);
        n_new = choose(&w, n);
    }
    plant(&w, t, n);
    return rc < 0 ? -1 : 0;
}
