#include "config.h"

#include <math.h>
#include <stdlib.h>

#include "src/base/mem.h"
#include "src/decode/row.h"
#include "src/eval/pack.h"
#include "src/exec/kvcache.h"

/* Questions that wait to fill what a pass has left. */
#define LOOK_AHEAD 64u
/* A cut strand's rows of logits take so many bytes at most. */
#define CHUNK_BYTES (192ull << 20)
#define CHUNK_LEAST 32u
#define CHUNK_MOST  2048u

struct piece {             /* of a strand, in a pass */
    struct sl_question *q; /* NULL: a stem */
    struct sl_strand *s;
    uint32_t n, n_logits;
    uint32_t ask, n_asks; /* of the strand that it answers */
    size_t row;           /* of the logits, its first */
};

/* Asks that read one row. */
struct reading {
    const struct piece *piece;
    uint32_t first, n; /* asks */
    size_t row;
};

struct packer {
    struct sl_pack_config c;
    struct sl_question *waiting[LOOK_AHEAD];
    size_t n_waiting;
    struct sl_question **live; /* (most_live) */
    size_t n_live;
    struct sl_stem **stems; /* of both, each once */
    size_t n_stems;
    uint64_t n_pages; /* of questions and stems under way */
    /* a pass */
    struct sl_lm_item *items;       /* (positions) */
    struct piece *pieces;           /* (positions) */
    struct reading *readings;       /* (rows) */
    int32_t *places, *blocks;       /* (positions) */
    struct sl_lm_item *other_items; /* (positions) */
    float *logits, *other_logits;   /* (rows, vocab) */
    size_t n_items, n_readings;
    uint32_t n_positions, n_rows;
};

uint32_t sl_pack_chunk_rows(uint32_t vocab)
{
    uint32_t rows = CHUNK_MOST;

    while (rows > CHUNK_LEAST && 4ull * rows * vocab > CHUNK_BYTES)
        rows /= 2;
    return rows;
}

/* --- measuring ----------------------------------------------------------- */

/* Rows of logits of positions [from, to) of a strand: those from the first ask
 * on, as an item has them. */
static uint32_t rows_of(const struct sl_strand *s, uint32_t from, uint32_t to)
{
    uint32_t first = s->n_asks > 0 ? s->asks[0].at : s->n;

    if (to <= first)
        return 0;
    return to - (from > first ? from : first);
}

/* How much of a strand goes into one pass: its context in one piece, rows of
 * logits up to a chunk. */
static uint32_t piece_len(const struct sl_strand *s, uint32_t from,
                          uint32_t chunk)
{
    uint32_t first = s->n_asks > 0 ? s->asks[0].at : s->n;
    uint32_t to = (from > first ? from : first) + chunk;

    if (to > s->n)
        to = s->n;
    return to - from;
}

static void measure_strand(struct sl_pack_needs *needs,
                           const struct sl_strand *s, uint32_t chunk)
{
    for (uint32_t at = 0; at < s->n;) {
        uint32_t n = piece_len(s, at, chunk), rows = rows_of(s, at, at + n);

        needs->positions = n > needs->positions ? n : needs->positions;
        needs->rows = rows > needs->rows ? rows : needs->rows;
        needs->n_rows += rows;
        at += n;
    }
    needs->n_positions += s->n;
}

void sl_pack_measure(struct sl_pack_needs *needs, const struct sl_question *q,
                     uint32_t vocab)
{
    uint32_t longest = sl_question_longest(q);
    uint64_t pages = sl_question_pages(q);

    for (uint32_t i = 0; i < q->n_strands; i++)
        measure_strand(needs, &q->strands[i], sl_pack_chunk_rows(vocab));
    if (q->stem != NULL)
        pages += sl_div_up(q->stem->strand.n, SL_KV_PAGE_LEN) + 1;
    needs->longest = longest > needs->longest ? longest : needs->longest;
    needs->pages = pages > needs->pages ? pages : needs->pages;
    if (q->n_strands + 1 > needs->sequences)
        needs->sequences = q->n_strands + 1;
    needs->n_questions++;
    needs->n_pages += pages;
}

void sl_pack_measure_stem(struct sl_pack_needs *needs,
                          const struct sl_stem *stem)
{
    const struct sl_strand *s = &stem->strand;

    needs->positions = s->n > needs->positions ? s->n : needs->positions;
    needs->n_positions += s->n;
    needs->rows = needs->rows > 1 ? needs->rows : 1;
}

/* --- reading logits ------------------------------------------------------ */

/* What the other model says of a row, too. most: this one's largest. */
static void read_other(const struct packer *p, const struct reading *r,
                       double most, double log_sum)
{
    uint32_t vocab = p->c.lm->vocab;
    const float *mine = p->logits + r->row * vocab;
    const float *other = p->other_logits + r->row * vocab;
    double top, other_sum = sl_row_log_sum(other, vocab, &top), sum = 0;
    bool same = false;

    for (uint32_t i = 0; i < vocab; i++) {
        double lp = (double)other[i] - other_sum;

        sum += exp(lp) * (lp - ((double)mine[i] - log_sum));
        same = same || ((double)other[i] >= top && (double)mine[i] >= most);
    }
    for (uint32_t k = r->first; k < r->first + r->n; k++) {
        const struct sl_ask *ask = &r->piece->s->asks[k];
        struct sl_question *q = r->piece->q;

        q->other_logp[ask->to] = (double)other[ask->id] - other_sum;
        q->divergence[ask->to] = sum > 0 ? sum : 0; /* but for rounding */
        q->same_top[ask->to] = same;
    }
}

static void read_rows(void *arg, size_t begin, size_t end, unsigned worker)
{
    struct packer *p = arg;
    uint32_t vocab = p->c.lm->vocab;

    (void)worker;
    for (size_t i = begin; i < end; i++) {
        const struct reading *r = &p->readings[i];
        const float *row = p->logits + r->row * vocab;
        double most, log_sum = sl_row_log_sum(row, vocab, &most);

        for (uint32_t k = r->first; k < r->first + r->n; k++) {
            const struct sl_ask *ask = &r->piece->s->asks[k];
            double x = (double)row[ask->id];

            r->piece->q->logp[ask->to] = x - log_sum;
            r->piece->q->top[ask->to] = x >= most;
        }
        if (p->other_logits != NULL)
            read_other(p, r, most, log_sum);
    }
}

/* Sorts the asks of the pass by the rows they read. */
static void list_readings(struct packer *p)
{
    p->n_readings = 0;
    for (size_t i = 0; i < p->n_items; i++) {
        const struct piece *piece = &p->pieces[i];
        const struct sl_strand *s = piece->s;
        uint32_t first = s->fed + piece->n - piece->n_logits;

        for (uint32_t k = piece->ask; k < piece->ask + piece->n_asks;) {
            uint32_t n = 1, at = s->asks[k].at;

            while (k + n < piece->ask + piece->n_asks &&
                   s->asks[k + n].at == at)
                n++;
            p->readings[p->n_readings++] =
                (struct reading){piece, k, n, piece->row + at - first};
            k += n;
        }
    }
}

/* --- sequences ----------------------------------------------------------- */

static void let_go(struct packer *p, struct sl_strand *s)
{
    if (s->live)
        p->c.lm->ops->seq_destroy(p->c.lm, s->seq);
    if (s->live && p->c.other != NULL)
        p->c.other->ops->seq_destroy(p->c.other, s->other_seq);
    s->live = false;
}

static uint64_t stem_pages(const struct sl_stem *stem)
{
    return sl_div_up(stem->strand.n, SL_KV_PAGE_LEN) + 1;
}

static void add_stem(struct packer *p, struct sl_stem *stem)
{
    if (stem != NULL && stem->n_users++ == 0)
        p->stems[p->n_stems++] = stem;
}

/* Lets go of stems that neither live nor waiting questions have. */
static void drop_stems(struct packer *p)
{
    size_t kept = 0;

    for (size_t i = 0; i < p->n_stems; i++) {
        struct sl_stem *stem = p->stems[i];

        if (stem->n_users > 0) {
            p->stems[kept++] = stem;
            continue;
        }
        if (stem->strand.live)
            p->n_pages -= stem_pages(stem);
        let_go(p, &stem->strand);
        stem->strand.fed = 0;
    }
    p->n_stems = kept;
}

static int make_sequence(struct sl_lm *lm, uint32_t *seq, const uint32_t *from,
                         struct sl_error *err)
{
    return from != NULL ? lm->ops->seq_fork(lm, seq, *from, err)
                        : lm->ops->seq_create(lm, seq, err);
}

static int take_sequence(struct packer *p, struct sl_strand *s,
                         const struct sl_strand *from, struct sl_error *err)
{
    if (s->live)
        return 0;
    if (make_sequence(p->c.lm, &s->seq, from ? &from->seq : NULL, err) != 0)
        return -1;
    if (p->c.other != NULL &&
        make_sequence(p->c.other, &s->other_seq, from ? &from->other_seq : NULL,
                      err) != 0) {
        p->c.lm->ops->seq_destroy(p->c.lm, s->seq);
        return -1;
    }
    s->live = true;
    return 0;
}

/* --- a pass -------------------------------------------------------------- */

static bool fits(const struct packer *p, uint32_t n, uint32_t rows)
{
    return p->n_positions + n <= p->c.positions &&
           p->n_rows + rows <= p->c.rows;
}

static int32_t place(const struct sl_strand *s, uint32_t at)
{
    return at < s->n_run ? s->start + (int32_t)at : s->held;
}

static int32_t block(const struct sl_strand *s, uint32_t at)
{
    return at < s->block_from ? 0 : s->block + (int32_t)(at - s->block_from);
}

/* Adds the next piece of a strand, if there is room; *added tells. parent: the
 * strand that it goes on from. */
static int add_piece(struct packer *p, struct sl_question *q,
                     struct sl_strand *s, const struct sl_strand *parent,
                     bool *added, struct sl_error *err)
{
    uint32_t n = piece_len(s, s->fed, sl_pack_chunk_rows(p->c.lm->vocab));
    uint32_t rows = q ? rows_of(s, s->fed, s->fed + n) : 1;
    struct piece *piece = &p->pieces[p->n_items];

    *added = fits(p, n, rows);
    if (!*added)
        return 0;
    if (take_sequence(p, s, parent, err) != 0)
        return -1;
    *piece = (struct piece){
        .q = q, .s = s, .n = n, .n_logits = rows, .row = p->n_rows};
    while (piece->ask < s->n_asks && s->asks[piece->ask].at < s->fed)
        piece->ask++;
    while (piece->ask + piece->n_asks < s->n_asks &&
           s->asks[piece->ask + piece->n_asks].at < s->fed + n)
        piece->n_asks++;
    for (uint32_t i = 0; i < n; i++) {
        p->places[p->n_positions + i] = place(s, s->fed + i);
        p->blocks[p->n_positions + i] = block(s, s->fed + i);
    }
    p->items[p->n_items++] = (struct sl_lm_item){
        .seq = s->seq,
        .ids = s->ids + s->fed,
        .positions = p->places + p->n_positions,
        .blocks = p->c.two ? p->blocks + p->n_positions : NULL,
        .n = n,
        .n_context = s->n_context,
        .n_logits = rows,
        .reads = true,
    };
    p->n_positions += n;
    p->n_rows += rows;
    return 0;
}

/* Adds what a question can go on with. */
static int add_question(struct packer *p, struct sl_question *q, bool *added,
                        struct sl_error *err)
{
    const struct sl_strand *stem = q->stem ? &q->stem->strand : NULL;
    struct sl_strand *root = &q->strands[0];
    bool one;

    *added = false;
    if (stem != NULL && stem->fed < stem->n)
        return 0;
    if (root->fed < root->n)
        return add_piece(p, q, root, stem, added, err);
    for (uint32_t i = 1; i < q->n_strands; i++) {
        struct sl_strand *s = &q->strands[i];

        if (s->fed == s->n)
            continue;
        /* Branches of branches have what all before them have. */
        if (add_piece(p, q, s, root, &one, err) != 0)
            return -1;
        *added |= one;
    }
    return 0;
}

/* Lets a question begin, its stem too. */
static int begin(struct packer *p, struct sl_question *q, bool *added,
                 struct sl_error *err)
{
    uint64_t pages = sl_question_pages(q), more = 0;
    struct sl_stem *stem = q->stem;
    struct sl_strand *root = &q->strands[0];
    uint32_t n = piece_len(root, 0, sl_pack_chunk_rows(p->c.lm->vocab));

    *added = false;
    if (stem != NULL && !stem->strand.live)
        more = stem_pages(stem);
    if (p->n_live > 0 && p->n_pages + pages + more > p->c.n_pages)
        return 0;
    if (stem != NULL && stem->strand.fed < stem->strand.n) {
        if (!stem->strand.live &&
            add_piece(p, NULL, &stem->strand, NULL, added, err) != 0)
            return -1;
        if (!stem->strand.live)
            return 0; /* no room in this pass */
        *added = true;
    } else if (fits(p, n, rows_of(root, 0, n))) {
        if (add_question(p, q, added, err) != 0)
            return -1;
    }
    if (!*added)
        return 0;
    q->n_pages = pages;
    q->n_open = q->n_strands;
    p->n_pages += pages + more;
    p->live[p->n_live++] = q;
    return 0;
}

/* Takes questions in, as many as may wait. */
static int refill(struct packer *p, struct sl_error *err)
{
    struct sl_question *q;

    while (p->n_waiting < LOOK_AHEAD) {
        if (p->c.next(p->c.opaque, &q, p->n_live + p->n_waiting == 0, err))
            return -1;
        if (q == NULL)
            break;
        p->waiting[p->n_waiting++] = q;
        add_stem(p, q->stem);
    }
    drop_stems(p);
    return 0;
}

static int begin_waiting(struct packer *p, struct sl_error *err)
{
    size_t kept = 0;
    int rc = 0;

    for (size_t i = 0; i < p->n_waiting; i++) {
        bool added = false;

        if (rc == 0 && p->n_live < p->c.most_live &&
            p->n_positions < p->c.positions)
            rc = begin(p, p->waiting[i], &added, err);
        if (!added)
            p->waiting[kept++] = p->waiting[i];
    }
    p->n_waiting = kept;
    return rc;
}

static int fill_pass(struct packer *p, struct sl_error *err)
{
    bool added;

    p->n_items = 0;
    p->n_positions = p->n_rows = 0;
    for (size_t i = 0; i < p->n_live; i++) {
        if (add_question(p, p->live[i], &added, err) != 0)
            return -1;
    }
    if (begin_waiting(p, err) != 0)
        return -1;
    if (p->n_items > 0)
        return 0;
    return sl_fail(err, SL_ERR_BUDGET,
                   "a question does not fit passes of %u positions and %u rows "
                   "of logits with %llu pages of KV cache",
                   p->c.positions, p->c.rows, (unsigned long long)p->c.n_pages);
}

/* Notes what the pass did, and ends questions. */
static int end_pass(struct packer *p, struct sl_error *err)
{
    size_t kept = 0;
    int rc = 0;

    for (size_t i = 0; i < p->n_items; i++) {
        struct piece *piece = &p->pieces[i];
        struct sl_strand *s = piece->s;

        s->fed += piece->n;
        if (s->fed < s->n || piece->q == NULL)
            continue;
        piece->q->n_open--;
        if (s != &piece->q->strands[0]) /* nothing goes on from it */
            let_go(p, s);
    }
    for (size_t i = 0; i < p->n_live; i++) {
        struct sl_question *q = p->live[i];

        if (q->n_open > 0) {
            p->live[kept++] = q;
            continue;
        }
        let_go(p, &q->strands[0]);
        p->n_pages -= q->n_pages;
        if (q->stem != NULL)
            q->stem->n_users--;
        for (uint32_t k = 0; rc == 0 && k < q->n_logp; k++) {
            if (!isfinite(q->logp[k]))
                rc = sl_fail(err, SL_ERR_CORRUPT,
                             "the model's logits are not numbers");
        }
        if (rc == 0)
            rc = p->c.done(p->c.opaque, q, err);
    }
    p->n_live = kept;
    return rc;
}

static int ask_other(struct packer *p, struct sl_error *err)
{
    struct sl_lm *other = p->c.other;

    if (other == NULL)
        return 0;
    for (size_t i = 0; i < p->n_items; i++) {
        p->other_items[i] = p->items[i];
        p->other_items[i].seq = p->pieces[i].s->other_seq;
    }
    return other->ops->forward(other, p->other_items, p->n_items,
                               p->other_logits, err);
}

static int run_pass(struct packer *p, struct sl_error *err)
{
    struct sl_lm *lm = p->c.lm;

    if (fill_pass(p, err) != 0)
        return -1;
    if (lm->ops->forward(lm, p->items, p->n_items, p->logits, err) != 0 ||
        ask_other(p, err) != 0)
        return -1;
    list_readings(p);
    if (p->c.pool != NULL)
        sl_pool_for(p->c.pool, p->n_readings, 1, read_rows, p);
    else
        read_rows(p, 0, p->n_readings, 0);
    if (p->c.passed != NULL &&
        p->c.passed(p->c.opaque, p->n_positions, p->n_rows, err) != 0)
        return -1;
    return end_pass(p, err);
}

static void close_all(struct packer *p)
{
    for (size_t i = 0; i < p->n_live; i++) {
        struct sl_question *q = p->live[i];

        for (uint32_t k = 0; k < q->n_strands; k++)
            let_go(p, &q->strands[k]);
    }
    for (size_t i = 0; i < p->n_stems; i++)
        p->stems[i]->n_users = 0;
    drop_stems(p);
    free(p->stems);
    free(p->live);
    free(p->items);
    free(p->pieces);
    free(p->readings);
    free(p->places);
    free(p->blocks);
    free(p->logits);
    free(p->other_items);
    free(p->other_logits);
}

static int open_all(struct packer *p, struct sl_error *err)
{
    const struct sl_pack_config *c = &p->c;

    p->stems = sl_alloc_array(c->most_live + (size_t)LOOK_AHEAD,
                              sizeof(struct sl_stem *));
    p->live = sl_alloc_array(c->most_live, sizeof(struct sl_question *));
    p->items = sl_alloc_array(c->positions, sizeof *p->items);
    p->pieces = sl_alloc_array(c->positions, sizeof *p->pieces);
    p->readings = sl_alloc_array(c->rows, sizeof *p->readings);
    p->places = sl_alloc_array(c->positions, sizeof *p->places);
    p->blocks = sl_alloc_array(c->positions, sizeof *p->blocks);
    p->logits = sl_alloc_array(c->rows, c->lm->vocab * sizeof(float));
    if (!p->stems || !p->live || !p->items || !p->pieces || !p->readings ||
        !p->places || !p->blocks || !p->logits)
        return sl_fail(err, SL_ERR_NOMEM,
                       "out of memory for passes of %u positions and %u rows "
                       "of logits",
                       c->positions, c->rows);
    if (c->other != NULL) {
        p->other_items = sl_alloc_array(c->positions, sizeof *p->other_items);
        p->other_logits = sl_alloc_array(c->rows, c->lm->vocab * sizeof(float));
        if (!p->other_items || !p->other_logits)
            return sl_fail(err, SL_ERR_NOMEM,
                           "out of memory for the logits of two models");
    }
    return 0;
}

int sl_pack_ask(const struct sl_pack_config *config, struct sl_error *err)
{
    struct packer p = {.c = *config};
    int rc = open_all(&p, err);

    if (rc == 0)
        rc = refill(&p, err);
    while (rc == 0 && p.n_live + p.n_waiting > 0) {
        rc = run_pass(&p, err);
        if (rc == 0)
            rc = refill(&p, err);
    }
    close_all(&p);
    return rc;
}
