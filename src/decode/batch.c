#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "src/base/clock.h"
#include "src/base/mem.h"
#include "src/decode/batch.h"
#include "src/decode/blank.h"
#include "src/exec/kvcache.h"

/* A text under way. */
struct slot {
    struct sl_text text;
    struct sl_fill_common common; /* the batch's, but for its config */
    uint64_t n_pages;             /* that are its own until it ends */
    uint64_t served;              /* the pass that took it last */
    bool ready;                   /* next has told what it wants */
    bool passed_over;             /* by the pass that is made */
};

struct sl_batch {
    struct sl_batch_config c;
    struct sl_fill_common common;
    struct sl_rules_room room_of_rules;
    struct sl_kept kept;
    struct sl_ids banned, ends;
    struct sl_stepper stepper;
    struct slot **running; /* (most), in the order they came */
    size_t n_running;
    struct sl_sequence **pass;     /* (most) of a pass */
    struct sl_fill_text **waiting; /* owned: the list, a ring of room */
    size_t first, n_waiting, room;
    size_t n_rows;    /* of logits in a pass, drafts left out */
    uint64_t n_pages; /* that running texts have */
    uint64_t n_passes;
    struct sl_batch_pass last;
};

/* --- before ----------------------------------------------------------------
 */

/* Everything that must not be generated: marks and other control tokens (a
 * mark would be filled again without end, the reference fails to print
 * [dBLOCK]), image codes, the padding rows of the embedding. */
int sl_fill_list_banned(struct sl_ids *banned, const struct sl_hparams *hp,
                        uint32_t vocab, struct sl_error *err)
{
    const struct sl_special_ids *s = &hp->text.special;
    const int32_t control[] = {s->mask, s->gmask, s->smask, s->eod,
                               s->sop,  s->enc,   s->dblock};
    uint32_t end = hp->text.n_tokens > 0 ? hp->text.n_tokens : vocab;

    for (uint32_t i = 0; i < hp->text.n_image_tokens && i < vocab; i++) {
        if (sl_ids_add(banned, (int32_t)i, err) != 0)
            return -1;
    }
    for (uint32_t i = end; i < vocab; i++) {
        if (sl_ids_add(banned, (int32_t)i, err) != 0)
            return -1;
    }
    for (size_t i = 0; i < sizeof control / sizeof *control; i++) {
        if (control[i] >= 0 && (uint32_t)control[i] < vocab &&
            sl_ids_add(banned, control[i], err) != 0)
            return -1;
    }
    return 0;
}

static int list_ends(struct sl_ids *ends, const struct sl_batch_config *c,
                     struct sl_error *err)
{
    const struct sl_special_ids *special = &c->hp->text.special;

    if ((special->eop >= 0 && sl_ids_add(ends, special->eop, err) != 0) ||
        (special->eos >= 0 && sl_ids_add(ends, special->eos, err) != 0))
        return -1;
    return c->stops == NULL
               ? 0
               : sl_ids_append(ends, c->stops->v, c->stops->n, err);
}

static int prepare(struct sl_batch *b, struct sl_error *err)
{
    const struct sl_batch_config *c = &b->c;
    size_t n;

    b->running = sl_zalloc_array(c->most, sizeof(struct slot *));
    b->pass = sl_alloc_array(c->most, sizeof(struct sl_sequence *));
    b->common.scratch = malloc(sl_sampler_scratch_bytes(c->lm->vocab));
    if (b->running == NULL || b->pass == NULL || b->common.scratch == NULL ||
        !sl_mul_size(&n, c->most, sl_strategy_of(c->config)->room(c->config)))
        return sl_fail(err, SL_ERR_NOMEM,
                       "out of memory for %zu texts with %u logits each",
                       c->most, c->lm->vocab);
    b->n_rows = n + c->score_rows;
    b->stepper.lm = c->lm;
    b->stepper.drafts = c->config->drafts;
    if (sl_stepper_init(&b->stepper, n, b->n_rows, err) != 0 ||
        (c->rules &&
         sl_rules_room_init(&b->room_of_rules, c->lm->vocab, err) != 0) ||
        (c->keeps && sl_kept_init(&b->kept, c->lm, c->most, err) != 0) ||
        sl_fill_list_banned(&b->banned, c->hp, c->lm->vocab, err) != 0 ||
        list_ends(&b->ends, c, err) != 0)
        return -1;
    b->common = (struct sl_fill_common){
        .lm = c->lm,
        .hp = c->hp,
        .config = c->config,
        .ends = b->ends.v,
        .n_ends = b->ends.n,
        .banned = b->banned.v,
        .n_banned = b->banned.n,
        .scratch = b->common.scratch,
        .room = c->rules ? &b->room_of_rules : NULL,
        .kept = c->keeps ? &b->kept : NULL,
        .part_positions = c->part_positions,
        .part_rows = c->score_rows,
        .alone = c->alone,
        .start_ns = sl_clock_ns(),
    };
    return 0;
}

int sl_batch_create(struct sl_batch **out, const struct sl_batch_config *config,
                    struct sl_error *err)
{
    struct sl_batch *b = sl_zalloc_array(1, sizeof *b);

    if (b == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "out of memory for a batch");
    b->c = *config;
    if (prepare(b, err) != 0) {
        sl_batch_close(b);
        return -1;
    }
    *out = b;
    return 0;
}

void sl_batch_close(struct sl_batch *b)
{
    if (b == NULL)
        return;
    for (size_t i = 0; i < b->n_running; i++) {
        sl_text_close(&b->running[i]->text);
        free(b->running[i]);
    }
    free(b->running);
    free(b->pass);
    free(b->waiting);
    free(b->common.scratch);
    sl_stepper_fini(&b->stepper);
    sl_rules_room_fini(&b->room_of_rules);
    sl_kept_fini(&b->kept);
    sl_ids_fini(&b->banned);
    sl_ids_fini(&b->ends);
    free(b);
}

struct sl_batch_pass sl_batch_last(const struct sl_batch *b)
{
    return b->last;
}

size_t sl_batch_running(const struct sl_batch *b)
{
    return b->n_running;
}

size_t sl_batch_waiting(const struct sl_batch *b)
{
    return b->n_waiting;
}

/* --- coming ----------------------------------------------------------------
 */

static const struct sl_fill_config *config_of(const struct sl_batch *b,
                                              const struct sl_fill_text *text)
{
    return text->config != NULL ? text->config : b->c.config;
}

/* The most pages that a text can come to have. One that is too long ends
 * before it has any. */
static uint64_t pages_of(const struct sl_batch *b,
                         const struct sl_fill_text *text)
{
    struct sl_workload load = {0};
    struct sl_error ignored;

    if (b->c.n_pages == 0 ||
        sl_fill_workload(&load, text->prompt, b->c.hp, config_of(b, text),
                         &ignored) != 0)
        return 0;
    return sl_kv_pages_needed(load.n_sequences, load.max_tokens,
                              load.shared_tokens);
}

static int grow(struct sl_batch *b, struct sl_error *err)
{
    size_t room = b->room > 0 ? 2 * b->room : 16;
    struct sl_fill_text **more = sl_alloc_array(room, sizeof *more);

    if (more == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "out of memory for %zu texts", room);
    for (size_t i = 0; i < b->n_waiting; i++)
        more[i] = b->waiting[(b->first + i) % b->room];
    free(b->waiting);
    b->waiting = more;
    b->room = room;
    b->first = 0;
    return 0;
}

int sl_batch_admit(struct sl_batch *b, struct sl_fill_text *text,
                   struct sl_error *err)
{
    uint64_t n = pages_of(b, text);

    if (b->c.n_pages > 0 && n > b->c.n_pages)
        return sl_fail(err, SL_ERR_BUDGET,
                       "a text that can grow to %llu pages of %u tokens does "
                       "not fit a KV cache of %llu",
                       (unsigned long long)n, SL_KV_PAGE_LEN,
                       (unsigned long long)b->c.n_pages);
    if (b->n_waiting == b->room && grow(b, err) != 0)
        return -1;
    text->ended = text->failed = false;
    b->waiting[(b->first + b->n_waiting++) % b->room] = text;
    return 0;
}

/* What is wrong with a text alone ends it: 0. */
static int own_error(const struct sl_batch *b, struct slot *slot,
                     const struct sl_error *err)
{
    if (err->code != SL_ERR_USAGE && !(b->c.alone && err->code == SL_ERR_NOMEM))
        return -1;
    sl_text_fail(&slot->text, err);
    return 0;
}

static bool is_cancelled(const struct sl_fill_text *text)
{
    return text->cancelled != NULL &&
           atomic_load_explicit(text->cancelled, memory_order_relaxed);
}

static void end_cancelled(struct slot *slot)
{
    struct sl_error why;

    if (slot->text.seq.over || !is_cancelled(slot->text.io))
        return;
    sl_fail(&why, SL_ERR_INTERRUPTED, "cancelled");
    sl_text_fail(&slot->text, &why);
}

/* The first that waits begins, if it has room: nobody overtakes it. */
static int let_in(struct sl_batch *b, bool *done, struct sl_error *err)
{
    struct sl_fill_text *text;
    struct slot *slot;
    uint64_t n;

    *done = b->n_waiting == 0 || b->n_running == b->c.most;
    if (*done)
        return 0;
    text = b->waiting[b->first];
    n = pages_of(b, text);
    if (b->c.n_pages > 0 && b->n_pages + n > b->c.n_pages) {
        *done = true;
        return 0;
    }
    slot = sl_zalloc_array(1, sizeof *slot);
    if (slot == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "out of memory for a text");
    b->running[b->n_running++] = slot;
    b->first = (b->first + 1) % b->room;
    b->n_waiting--;
    b->n_pages += slot->n_pages = n;
    slot->served = b->n_passes;
    slot->common = b->common;
    slot->common.config = config_of(b, text);
    if (sl_text_open(&slot->text, &slot->common, text, err) == 0)
        return 0;
    return own_error(b, slot, err);
}

/* --- going -----------------------------------------------------------------
 */

static int leave(struct sl_batch *b, size_t i, struct sl_error *err)
{
    struct slot *slot = b->running[i];
    struct sl_fill_text *text = slot->text.io;

    b->n_pages -= slot->n_pages;
    sl_text_close(&slot->text);
    free(slot);
    b->n_running--;
    memmove(b->running + i, b->running + i + 1,
            (b->n_running - i) * sizeof *b->running);
    return b->c.ended != NULL ? b->c.ended(b->c.opaque, text, err) : 0;
}

/* Asks all that were in the last pass, or have just come, what they want.
 * What is wrong with one of them ends that one. */
static int ask_all(struct sl_batch *b, struct sl_error *err)
{
    for (size_t i = 0; i < b->n_running;) {
        struct slot *slot = b->running[i];
        struct sl_sequence *seq = &slot->text.seq;

        end_cancelled(slot);
        if (!slot->ready && !seq->over && seq->ops->next(seq, err) != 0 &&
            own_error(b, slot, err) != 0)
            return -1;
        slot->ready = true;
        if (!seq->over)
            i++;
        else if (leave(b, i, err) != 0)
            return -1;
    }
    return 0;
}

static int gather(struct sl_batch *b, struct sl_error *err)
{
    bool done = false;

    /* Who leaves at once makes room for who waits. */
    do {
        while (!done) {
            if (let_in(b, &done, err) != 0)
                return -1;
        }
        if (ask_all(b, err) != 0)
            return -1;
        done = b->n_waiting == 0 || b->n_running > 0;
    } while (!done);
    return 0;
}

/* --- a pass ----------------------------------------------------------------
 */

/* Whether a pass has room for so many positions and rows beside what it has;
 * the first always has. */
static bool has_room(const struct sl_batch *b, size_t n, uint64_t positions,
                     uint64_t rows)
{
    const struct sl_lm *lm = b->c.lm;

    return n == 0 ||
           ((lm->pass_positions == 0 || positions <= lm->pass_positions) &&
            (lm->pass_logits == 0 || rows <= lm->pass_logits) &&
            rows <= b->n_rows);
}

/* Those who were served longest ago come first, of equals who came first. */
static struct slot *longest_waiting(const struct sl_batch *b, uint64_t before)
{
    struct slot *first = NULL;

    for (size_t i = 0; i < b->n_running; i++) {
        struct slot *s = b->running[i];

        if (s->served < before && !s->passed_over &&
            (first == NULL || s->served < first->served))
            first = s;
    }
    return first;
}

/* Who takes part in the next pass, in the order they came where all do. */
static size_t choose(struct sl_batch *b)
{
    uint64_t positions = 0, rows = 0;
    struct slot *s;
    size_t n = 0;

    b->n_passes++;
    for (size_t i = 0; i < b->n_running; i++) {
        positions += b->running[i]->text.seq.n_positions;
        rows += b->running[i]->text.seq.n_rows;
    }
    if (has_room(b, b->n_running - 1, positions, rows)) {
        for (size_t i = 0; i < b->n_running; i++) {
            b->running[i]->served = b->n_passes;
            b->pass[n++] = &b->running[i]->text.seq;
        }
        return n;
    }
    positions = rows = 0;
    for (size_t i = 0; i < b->n_running; i++)
        b->running[i]->passed_over = false;
    while ((s = longest_waiting(b, b->n_passes)) != NULL) {
        const struct sl_sequence *seq = &s->text.seq;

        if (!has_room(b, n, positions + seq->n_positions, rows + seq->n_rows)) {
            /* A prompt that does not fit keeps nobody from going on. */
            if (!seq->reads)
                break;
            s->passed_over = true;
            continue;
        }
        positions += seq->n_positions;
        rows += seq->n_rows;
        s->served = b->n_passes;
        b->pass[n++] = &s->text.seq;
    }
    return n;
}

/* Those of the pass alone. */
static void end_interrupted(struct sl_batch *b, const struct sl_error *why)
{
    for (size_t i = 0; i < b->n_running; i++) {
        if (b->running[i]->served == b->n_passes)
            sl_text_fail(&b->running[i]->text, why);
    }
}

static int end_waiting(struct sl_batch *b, const struct sl_error *why,
                       struct sl_error *err)
{
    while (b->n_waiting > 0) {
        struct sl_fill_text *text = b->waiting[b->first];

        b->first = (b->first + 1) % b->room;
        b->n_waiting--;
        text->err = *why;
        text->ended = text->failed = true;
        if (b->c.ended != NULL && b->c.ended(b->c.opaque, text, err) != 0)
            return -1;
    }
    return 0;
}

int sl_batch_fail(struct sl_batch *b, const struct sl_error *why,
                  struct sl_error *err)
{
    while (b->n_running > 0) {
        sl_text_fail(&b->running[0]->text, why);
        if (leave(b, 0, err) != 0)
            return -1;
    }
    return end_waiting(b, why, err);
}

static int interrupt(struct sl_batch *b, struct sl_error *err)
{
    struct sl_error why = *err;

    if (b->c.alone) {
        end_interrupted(b, &why);
        return ask_all(b, err);
    }
    while (b->n_running > 0) {
        if (sl_text_interrupt(&b->running[0]->text, err) != 0 ||
            leave(b, 0, err) != 0)
            return -1;
    }
    return end_waiting(b, &why, err);
}

int sl_batch_step(struct sl_batch *b, bool *more, struct sl_error *err)
{
    size_t n;

    *more = false;
    b->last = (struct sl_batch_pass){0};
    if (gather(b, err) != 0)
        return -1;
    if (b->n_running == 0)
        return 0;
    n = choose(b);
    if (sl_stepper_run(&b->stepper, b->pass, n, err) != 0) {
        if (!b->stepper.interrupted || interrupt(b, err) != 0)
            return -1;
        *more = b->n_running > 0 || b->n_waiting > 0;
        return 0;
    }
    for (size_t i = 0; i < n; i++) {
        b->last.positions += b->pass[i]->n_positions;
        b->last.reads = b->last.reads || b->pass[i]->reads;
    }
    for (size_t i = 0; i < b->n_running; i++) {
        if (b->running[i]->served == b->n_passes)
            b->running[i]->ready = false;
    }
    if (ask_all(b, err) != 0)
        return -1;
    *more = b->n_running > 0 || b->n_waiting > 0;
    return 0;
}
