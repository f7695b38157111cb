#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "src/decode/draft_self.h"
#include "src/decode/fill.h"
#include "tests/arch_models.h"
#include "tests/exec_rig.h"
#include "tests/guesses.h"
#include "tests/support.h"
#include "tests/witness.h"

/* Of every architecture: guesses that go on while a pass waits change no bit of
 * the text, whatever they are; nor does an interrupt among them. */

enum { LENGTH = TEST_TEXT_LENGTH, MOST = 5 };

/* A model over the executor whose guesses are put in its mouth, those that are
 * made while a pass waits, too. */
struct liar {
    struct sl_lm lm; /* first */
    struct sl_lm *inner;
    const struct witness *text;
    const struct sl_ids *said; /* without guesses */
    enum guess kind;
    uint32_t at;
    uint64_t random;
    struct sl_lm_ahead *ahead; /* whose guesses these are */
    struct sl_lm_ahead mine;
    struct sl_runtime *rt; /* or NULL: is interrupted by that guess ahead: */
    uint32_t stop_at, n_ahead;
};

static uint32_t chance(struct liar *l, uint32_t n)
{
    l->random = l->random * UINT64_C(6364136223846793005) +
                UINT64_C(1442695040888963407);
    return (uint32_t)(l->random >> 33) % n;
}

/* What is said behind position i of an item. */
static void lie(struct liar *l, const struct sl_lm_item *item, uint32_t i,
                float *row)
{
    size_t at = (size_t)(test_stands_at(item, i) - l->text->from);
    uint32_t id = at < l->said->n ? (uint32_t)l->said->v[at] : 0;

    if (l->kind == GUESS_WRONG ||
        (l->kind == GUESS_WRONG_AT && at % (MOST + 3) == l->at) ||
        (l->kind == GUESS_RANDOM && chance(l, 4) == 0))
        id = (id + 1 + chance(l, l->lm.vocab - 1)) % l->lm.vocab;
    memset(row, 0, l->lm.vocab * sizeof *row);
    row[id] = 1;
}

static int liar_guess(struct sl_lm *lm, const struct sl_lm_item *items,
                      size_t n, float *logits, struct sl_error *err)
{
    struct liar *l = (struct liar *)lm;
    int rc = l->inner->ops->guess(l->inner, items, n, logits, err);

    for (uint32_t i = 0; rc == 0 && i < items->n_logits; i++)
        lie(l, items, items->n - items->n_logits + i,
            logits + (size_t)i * lm->vocab);
    return rc;
}

static bool liar_made(void *arg)
{
    struct liar *l = arg;
    bool more;

    lie(l, &l->mine.item, 0, l->mine.logits);
    if (++l->n_ahead == l->stop_at && l->rt != NULL)
        sl_runtime_interrupt(l->rt);
    more = l->ahead->made(l->ahead->arg);
    l->mine.item = l->ahead->item;
    return more;
}

static void liar_guess_ahead(struct sl_lm *lm, struct sl_lm_ahead *ahead)
{
    struct liar *l = (struct liar *)lm;

    l->ahead = ahead;
    if (ahead != NULL)
        l->mine =
            (struct sl_lm_ahead){ahead->item, ahead->logits, liar_made, l};
    l->inner->ops->guess_ahead(l->inner, ahead != NULL ? &l->mine : NULL);
}

static int liar_fork(struct sl_lm *lm, uint32_t *seq, uint32_t from,
                     struct sl_error *err)
{
    struct liar *l = (struct liar *)lm;

    return l->inner->ops->seq_fork(l->inner, seq, from, err);
}

static void liar_destroy(struct sl_lm *lm, uint32_t seq)
{
    struct liar *l = (struct liar *)lm;

    l->inner->ops->seq_destroy(l->inner, seq);
}

static void liar_cut(struct sl_lm *lm, uint32_t seq, uint32_t n)
{
    struct liar *l = (struct liar *)lm;

    l->inner->ops->seq_cut(l->inner, seq, n);
}

static const struct sl_lm_ops liar_ops = {
    .seq_fork = liar_fork,
    .seq_destroy = liar_destroy,
    .seq_cut = liar_cut,
    .guess = liar_guess,
    .guess_ahead = liar_guess_ahead,
};

/* A run whose guesses go on ahead, by what the liar says of them. */
static int speak_ahead(struct said *s, struct sl_drafts *drafts, struct liar *l,
                       const struct sl_hparams *hp, struct sl_runtime *rt,
                       struct sl_error *err)
{
    struct sl_draft_kind kind = sl_draft_self_kind;
    float *rows = calloc(2ull * hp->vocab, sizeof *rows);
    struct sl_draft_self self = {
        .lm = &l->lm,
        .logits = rows,
        .rows = 1,
        .ahead = sl_runtime_draft_ahead(rt),
        .ahead_row = rows + hp->vocab,
    };
    const struct sl_fill_config fill = {
        .strategy = SL_STRATEGY_BASE,
        .sampler = {3, 0, 0.9f},
        .out_seq_length = LENGTH,
        .drafts = drafts,
    };
    struct witness w;
    uint64_t calls = 0;
    int rc;

    kind.costs = false;
    sl_drafts_init(drafts, MOST, 0);
    drafts->now = test_even_time;
    drafts->now_arg = &calls;
    for (uint32_t i = 0; i < SL_DRAFT_CLASSES; i++)
        kind.prior[i] = 1;
    assert_ok(sl_drafts_add(drafts, &kind, &self, err), err);
    l->inner = sl_runtime_lm(rt);
    l->lm = *l->inner;
    l->lm.ops = &liar_ops;
    l->text = &w;
    l->random = 1;
    rc = test_speak_to(s, &w, l->inner, hp, &fill, true, err);
    free(rows);
    return rc;
}

struct tally {
    uint64_t right, guessed, ahead, discarded;
};

static void check_ahead(const struct said *plain, struct liar l,
                        const struct sl_hparams *hp, struct sl_runtime *rt,
                        struct tally *sum)
{
    struct sl_drafts drafts;
    struct sl_error err;
    struct said got;

    assert_ok(speak_ahead(&got, &drafts, &l, hp, rt, &err), &err);
    test_check_same(plain, &got, hp->vocab);
    test_said_fini(&got);
    /* brothers of what the liar says are right by chance */
    sum->right +=
        drafts.gate.counts.accepted[0] - drafts.gate.counts.beside_accepted[0];
    sum->guessed += drafts.gate.counts.drafted[0];
    sum->ahead += drafts.gate.counts.ahead[0];
    sum->discarded += drafts.gate.counts.discarded[0];
}

/* Whoever interrupts a run while it guesses hears so, and what comes next is as
 * if nothing had been. Returns how often that was. */
static uint32_t check_interrupted(const struct said *plain,
                                  const struct sl_hparams *hp,
                                  struct sl_runtime *rt, struct tally *sum)
{
    struct liar l = {.said = &plain->ids, .rt = rt};
    struct sl_drafts drafts;
    struct sl_error err;
    struct said got;
    uint32_t n = 0;

    for (l.stop_at = 1;; l.stop_at += 9, n++) {
        bool whole;

        l.n_ahead = 0;
        assert_ok(speak_ahead(&got, &drafts, &l, hp, rt, &err), &err);
        whole = !got.interrupted;
        assert_true(whole || got.ids.n < plain->ids.n);
        assert_true(got.ids.n <= plain->ids.n);
        assert_memory_equal(got.ids.v, plain->ids.v,
                            got.ids.n * sizeof *got.ids.v);
        test_said_fini(&got);
        sl_runtime_resume(rt);
        if (whole)
            break;
        check_ahead(plain, (struct liar){.said = l.said}, hp, rt, sum);
    }
    return n;
}

static struct sl_runtime *start_late(const struct sl_runtime_config *config,
                                     struct rig_late *cores, uint32_t late)
{
    const struct sl_workload load = {
        .n_sequences = 1,
        .max_tokens = LENGTH,
        .pass_positions = LENGTH,
        .pass_logits = 1,
        .draft_positions = MOST,
        .draft_keeps = true,
        .draft_ahead = sl_draft_self_span(MOST),
    };
    struct sl_runtime *rt = rig_start(config, &load);

    rig_be_late(cores, rt, SL_HOST, late);
    return rt;
}

/* Guesses that go on while a pass waits: right, wrong, by chance, wrong at a
 * place. */
static void guesses_ahead_change_no_bit_whatever_they_are(void **state)
{
    struct tally right = {0}, wrong = {0}, mixed = {0};
    const struct sl_arch *arch;
    uint32_t interrupted = 0;

    for (size_t a = 0; (arch = sl_arch_at(a)) != NULL; a++) {
        struct test_model m = arch_model(arch, (a + 1) % ARCH_MODELS);
        char path[ARCH_PATH];
        struct sl_runtime_config config = {
            .threads = 1,
            .ram_bytes = 1ull << 32,
            .kv_set = true,
            .kv = (enum sl_kv_kind)(a % 3),
        };
        const struct sl_fill_config fill = {
            .strategy = SL_STRATEGY_BASE,
            .sampler = {3, 0, 0.9f},
            .out_seq_length = LENGTH,
        };
        struct sl_hparams hp = test_hparams_of(&m);
        struct liar l = {.at = 0};
        struct sl_runtime *rt;
        struct rig_late cores;
        struct said plain;

        m.fmt = SL_FMT_INT8;
        m.group_cols = 32;
        m.planes = TEST_PLANES;
        config.model = arch_model_write(path, *state, &m);
        rt = start_late(&config, &cores, a % 2 ? 40 : 9);
        plain = test_speak(sl_runtime_lm(rt), &hp, &fill, true);
        l.said = &plain.ids;
        check_ahead(&plain, l, &hp, rt, &right);
        l.kind = GUESS_WRONG;
        check_ahead(&plain, l, &hp, rt, &wrong);
        l.kind = GUESS_RANDOM;
        check_ahead(&plain, l, &hp, rt, &mixed);
        l.kind = GUESS_WRONG_AT;
        for (uint32_t i = 0; i < 2; i++) {
            l.at = (a + 3 * i) % (MOST + 3);
            check_ahead(&plain, l, &hp, rt, &mixed);
        }
        interrupted += check_interrupted(&plain, &hp, rt, &right);
        test_said_fini(&plain);
        sl_runtime_close(rt);
    }
    assert_true(interrupted > 10);
    assert_true(right.ahead > 0 && right.guessed > 0);
    assert_int_equal(right.right, right.guessed);
    assert_int_equal(wrong.right, 0);
    assert_true(wrong.ahead > 0 && wrong.discarded >= wrong.ahead);
    assert_in_range(mixed.right, 1, mixed.guessed - 1);
    assert_in_range(mixed.discarded, 1, mixed.ahead);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(guesses_ahead_change_no_bit_whatever_they_are),
    };

    return cmocka_run_group_tests(tests, test_dir_set_up, test_dir_tear_down);
}
