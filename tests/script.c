#include "config.h"

#include <math.h>
#include <string.h>

#include "tests/script.h"

static int failing(struct script *s, struct sl_error *err)
{
    if (s->calls++ != s->fail_at)
        return 0;
    return sl_fail(err, s->fail_code, "scripted");
}

static int seq_create(struct sl_lm *lm, uint32_t *seq, struct sl_error *err)
{
    struct script *s = (struct script *)lm;

    for (uint32_t i = 0; i < MAX_SEQS; i++) {
        if (s->seqs[i].alive)
            continue;
        s->seqs[i] = (struct seq){.alive = true};
        s->n_alive++;
        if (s->n_alive > s->most_alive)
            s->most_alive = s->n_alive;
        *seq = i;
        return 0;
    }
    return sl_fail(err, SL_ERR_BUDGET, "no room");
}

static int seq_fork(struct sl_lm *lm, uint32_t *seq, uint32_t from,
                    struct sl_error *err)
{
    struct script *s = (struct script *)lm;
    struct seq *old = &s->seqs[from];

    assert_true(old->alive);
    if (failing(s, err) != 0 || seq_create(lm, seq, err) != 0)
        return -1;
    s->seqs[*seq] = *old;
    return 0;
}

static void seq_destroy(struct sl_lm *lm, uint32_t seq)
{
    struct script *s = (struct script *)lm;

    assert_true(s->seqs[seq].alive);
    s->seqs[seq].alive = false;
    s->n_alive--;
}

static void seq_cut(struct sl_lm *lm, uint32_t seq, uint32_t n)
{
    struct script *s = (struct script *)lm;

    assert_true(s->seqs[seq].alive);
    assert_in_range(n, 0, s->seqs[seq].n);
    s->seqs[seq].n = n;
}

static int seq_pick(struct sl_lm *lm, uint32_t seq, uint32_t n,
                    const uint32_t *path, uint32_t n_path, struct sl_error *err)
{
    struct script *s = (struct script *)lm;
    struct seq *q = &s->seqs[seq];

    assert_true(q->alive);
    for (uint32_t i = 0; i < n_path; i++) {
        assert_in_range(n + path[i], n + i, q->n - 1);
        q->ids[n + i] = q->ids[n + path[i]];
        q->positions[n + i] = q->positions[n + path[i]];
        q->blocks[n + i] = q->blocks[n + path[i]];
    }
    q->n = n + n_path;
    return 0;
}

/* What position k of an item sees: q before the item, and its ancestors. */
static struct seq seen_by(const struct sl_lm_item *it, const struct seq *q,
                          size_t base, uint32_t k)
{
    struct seq seen = *q;
    uint32_t path[MAX_LEN], n = 0;

    if (it->parents == NULL)
        return seen;
    base -= it->n_tree;
    for (uint32_t at = it->n_tree + k; at != SL_LM_ROOT; at = it->parents[at]) {
        assert_true(it->parents[at] == SL_LM_ROOT || it->parents[at] < at);
        path[n++] = at;
    }
    for (seen.n = base; n-- > 0; seen.n++) {
        seen.ids[seen.n] = q->ids[base + path[n]];
        seen.positions[seen.n] = q->positions[base + path[n]];
        seen.blocks[seen.n] = q->blocks[base + path[n]];
    }
    return seen;
}

void test_script_speak(const struct script *s, const struct seq *q,
                       float *logits)
{
    uint32_t x = (uint32_t)q->positions[q->n - 1];

    for (size_t i = 0; i < q->n; i++)
        x = (x ^ (uint32_t)q->ids[i]) * 16777619u;
    for (uint32_t t = 0; t < V; t++) {
        uint32_t h = (x ^ t * 2654435761u) * 2246822519u;

        logits[t] = (float)(h >> 20) / 512.0f;
    }
    logits[EOP] = logits[EOS] = -20;
    if (s->end_at >= 0 && q->n >= (size_t)s->end_at)
        logits[EOP] = 30;
    if (s->favourite >= 0)
        logits[s->favourite] = 25;
    if (s->nan)
        logits[3] = NAN;
}

static int forward(struct sl_lm *lm, const struct sl_lm_item *items, size_t n,
                   float *logits, struct sl_error *err)
{
    struct script *s = (struct script *)lm;
    size_t total = 0, row = 0;

    if (failing(s, err) != 0)
        return -1;
    s->forwards++;
    for (size_t i = 0; i < n; i++) {
        struct seq *q = &s->seqs[items[i].seq], seen;
        size_t base = q->n;

        assert_true(q->alive && items[i].n > 0);
        assert_in_range(items[i].n_logits, 1, items[i].n);
        if (!s->scores)
            assert_true(items[i].apart || items[i].n_logits == 1);
        assert_in_range(q->n + items[i].n, items[i].n_context + 1, MAX_LEN);
        for (size_t k = 0; k < i; k++)
            assert_int_not_equal(items[k].seq, items[i].seq);
        for (uint32_t k = 0; k < items[i].n; k++, q->n++) {
            q->ids[q->n] = items[i].ids[k];
            q->positions[q->n] = items[i].positions[k];
            q->blocks[q->n] = items[i].blocks ? items[i].blocks[k] : -1;
            if (k < items[i].n - items[i].n_logits)
                continue;
            q->n++;
            seen = seen_by(&items[i], q, base, k);
            test_script_speak(s, &seen, logits + row++ * V);
            q->n--;
        }
        total += items[i].n;
    }
    s->last = s->seqs[items[0].seq];
    if (total > s->pass_positions)
        s->pass_positions = total;
    return 0;
}

static const struct sl_lm_ops script_ops = {
    .seq_create = seq_create,
    .seq_fork = seq_fork,
    .seq_destroy = seq_destroy,
    .seq_cut = seq_cut,
    .seq_pick = seq_pick,
    .forward = forward,
};

void test_script_init(struct script *s)
{
    memset(s, 0, sizeof *s);
    s->lm = (struct sl_lm){
        .vocab = V,
        .max_tokens = MAX_LEN,
        .ops = &script_ops,
    };
    s->fail_at = s->end_at = -1;
    s->favourite = -1;
}
