#include "config.h"

#include <stdlib.h>

#include "src/base/mem.h"
#include "src/decode/sequence.h"

/* What the requests of a pass feed, drafts left out. */
struct load {
    uint32_t n_items, n_positions, n_rows;
    bool reads;
};

uint32_t sl_stepper_draft_rows(const struct sl_lm *lm,
                               const struct sl_drafts *drafts, size_t n_rows)
{
    uint32_t most = SL_PASS_SIZES;

    if (drafts == NULL || drafts->n == 0)
        return 0;
    if (lm->pass_logits > 0 && lm->pass_logits < n_rows + most)
        most =
            lm->pass_logits > n_rows ? lm->pass_logits - (uint32_t)n_rows : 0;
    return most;
}

int sl_stepper_init(struct sl_stepper *p, size_t n_items, size_t n_rows,
                    struct sl_error *err)
{
    size_t n_logits;

    p->n_items = n_items;
    p->n_rows = n_rows + sl_stepper_draft_rows(p->lm, p->drafts, n_rows);
    if (sl_mul_size(&n_logits, p->n_rows, p->lm->vocab))
        p->logits = sl_alloc_array(n_logits, sizeof *p->logits);
    p->items = sl_alloc_array(n_items, sizeof *p->items);
    p->offers = sl_alloc_array(n_items, sizeof *p->offers);
    p->deals = sl_alloc_array(n_items, sizeof *p->deals);
    if (p->logits != NULL && p->items != NULL && p->offers != NULL &&
        p->deals != NULL)
        return 0;
    return sl_fail(err, SL_ERR_NOMEM, "out of memory for %zu rows of %u logits",
                   p->n_rows, p->lm->vocab);
}

void sl_stepper_fini(struct sl_stepper *p)
{
    free(p->items);
    free(p->offers);
    free(p->deals);
    free(p->logits);
    *p = (struct sl_stepper){0};
}

static struct load measure(struct sl_sequence *const *seqs, size_t n)
{
    struct load load = {0};

    for (size_t i = 0; i < n; i++) {
        load.n_items += (uint32_t)seqs[i]->n_items;
        load.n_positions += seqs[i]->n_positions;
        load.n_rows += seqs[i]->n_rows;
        load.reads = load.reads || seqs[i]->reads;
    }
    return load;
}

/* Positions and rows of logits that a pass has room for beside these. There may
 * be more requests than the model takes in a pass. */
static uint32_t room_beside(const struct sl_stepper *p, const struct load *load)
{
    const struct sl_lm *lm = p->lm;
    uint32_t room = (uint32_t)p->n_rows - load->n_rows;

    if (lm->pass_positions > 0 && lm->pass_positions - load->n_positions < room)
        room = lm->pass_positions - load->n_positions;
    if (lm->pass_logits > 0 && lm->pass_logits - load->n_rows < room)
        room = lm->pass_logits - load->n_rows;
    return room;
}

/* Decides how many drafts each item takes along. A pass that reads a text
 * takes none: it is long, and the memory that it has is the text's. */
static bool deal_drafts(struct sl_stepper *p, struct sl_sequence *const *seqs,
                        size_t n, const struct load *load)
{
    uint32_t room, most;
    size_t at = 0;

    if (p->drafts == NULL || p->drafts->n == 0 || load->reads)
        return false;
    room = room_beside(p, load);
    most = room < p->drafts->gate.most ? room : p->drafts->gate.most;
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < seqs[i]->n_items; k++)
            p->offers[at + k] = (struct sl_offer){0};
        if (most > 0 && seqs[i]->ops->offer != NULL)
            seqs[i]->ops->offer(seqs[i], p->offers + at, most);
        at += seqs[i]->n_items;
    }
    return sl_gate_choose(&p->drafts->gate, p->offers, load->n_items,
                          load->n_positions, room, p->deals) > 0;
}

static uint64_t now(const struct sl_stepper *p)
{
    return p->drafts != NULL ? sl_drafts_now(p->drafts) : 0;
}

static int feed(struct sl_stepper *p, struct sl_sequence *const *seqs, size_t n,
                uint32_t *n_tokens, struct sl_error *err)
{
    float *row = p->logits;

    *n_tokens = 0;
    for (size_t i = 0; i < n; i++) {
        size_t n_rows = seqs[i]->n_rows;

        if (seqs[i]->ops->feed(seqs[i], row, err) != 0)
            return -1;
        *n_tokens += seqs[i]->n_tokens;
        row += n_rows * p->lm->vocab;
    }
    return 0;
}

static uint32_t to_come(struct sl_sequence *const *seqs, size_t n)
{
    uint32_t most = 0;

    for (size_t i = 0; i < n; i++) {
        if (seqs[i]->to_come > most)
            most = seqs[i]->to_come;
    }
    return most;
}

int sl_stepper_run(struct sl_stepper *p, struct sl_sequence *const *seqs,
                   size_t n, struct sl_error *err)
{
    struct load load = measure(seqs, n), all;
    uint64_t begin = now(p), drafted, end;
    bool drafts = deal_drafts(p, seqs, n, &load);
    uint32_t n_tokens;
    size_t at = 0;

    p->interrupted = false;

    for (size_t i = 0; i < n; i++) {
        if (seqs[i]->ops->want(seqs[i], p->items + at,
                               drafts ? p->deals + at : NULL, err) != 0)
            return -1;
        at += seqs[i]->n_items;
    }
    all = measure(seqs, n);
    p->lm->to_come = to_come(seqs, n);
    drafted = now(p);
    if (p->lm->ops->forward(p->lm, p->items, load.n_items, p->logits, err) !=
        0) {
        p->interrupted = err->code == SL_ERR_INTERRUPTED;
        return -1;
    }
    end = now(p);
    if (feed(p, seqs, n, &n_tokens, err) != 0)
        return -1;
    if (p->drafts != NULL && !load.reads)
        sl_gate_pass(&p->drafts->gate, all.n_positions, load.n_positions,
                     n_tokens, (double)(drafted - begin) * 1e-9,
                     (double)(end - drafted) * 1e-9);
    return 0;
}
