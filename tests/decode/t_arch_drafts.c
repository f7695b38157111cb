#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "src/decode/causal.h"
#include "src/decode/draft_self.h"
#include "src/decode/fill.h"
#include "tests/arch_models.h"
#include "tests/exec_rig.h"
#include "tests/guesses.h"
#include "tests/support.h"

/* Of every architecture: a text that is guessed ahead is the text without, and
 * so is every bit of the logits that chose it, whatever is guessed. */

enum { LENGTH = 40, MOST = 5 };

/* A model over the executor that remembers the logits behind each position, as
 * they were computed last: those that chose what follows. */
struct witness {
    struct sl_lm lm; /* first */
    struct sl_lm *inner;
    uint32_t seq, held; /* the text's: guesses may have another */
    float *rows;        /* (LENGTH + 1, vocab) */
};

static int seq_create(struct sl_lm *lm, uint32_t *seq, struct sl_error *err)
{
    struct witness *w = (struct witness *)lm;

    w->held = 0;
    if (w->inner->ops->seq_create(w->inner, seq, err) != 0)
        return -1;
    w->seq = *seq;
    return 0;
}

static int seq_fork(struct sl_lm *lm, uint32_t *seq, uint32_t from,
                    struct sl_error *err)
{
    struct witness *w = (struct witness *)lm;

    return w->inner->ops->seq_fork(w->inner, seq, from, err);
}

static void seq_destroy(struct sl_lm *lm, uint32_t seq)
{
    struct witness *w = (struct witness *)lm;

    w->inner->ops->seq_destroy(w->inner, seq);
}

static void seq_cut(struct sl_lm *lm, uint32_t seq, uint32_t n)
{
    struct witness *w = (struct witness *)lm;

    if (seq == w->seq)
        w->held = n;
    w->inner->ops->seq_cut(w->inner, seq, n);
}

static int seq_pick(struct sl_lm *lm, uint32_t seq, uint32_t n,
                    const uint32_t *path, uint32_t n_path, struct sl_error *err)
{
    struct witness *w = (struct witness *)lm;

    for (uint32_t i = 0; i < n_path; i++)
        memmove(w->rows + (size_t)(n + i) * lm->vocab,
                w->rows + (size_t)(n + path[i]) * lm->vocab, 4ull * lm->vocab);
    w->held = n + n_path;
    return w->inner->ops->seq_pick(w->inner, seq, n, path, n_path, err);
}

static int forward(struct sl_lm *lm, const struct sl_lm_item *items, size_t n,
                   float *logits, struct sl_error *err)
{
    struct witness *w = (struct witness *)lm;

    assert_int_equal(n, 1);
    assert_in_range(w->held + items->n, 1, LENGTH);
    if (w->inner->ops->forward(w->inner, items, n, logits, err) != 0)
        return -1;
    w->held += items->n;
    memcpy(w->rows + (size_t)(w->held - items->n_logits) * lm->vocab, logits,
           4ull * items->n_logits * lm->vocab);
    return 0;
}

static int guess(struct sl_lm *lm, const struct sl_lm_item *items, size_t n,
                 float *logits, struct sl_error *err)
{
    struct witness *w = (struct witness *)lm;

    return w->inner->ops->guess(w->inner, items, n, logits, err);
}

static void guess_ahead(struct sl_lm *lm, struct sl_lm_ahead *ahead)
{
    struct witness *w = (struct witness *)lm;

    w->inner->ops->guess_ahead(w->inner, ahead);
}

static const struct sl_lm_ops witness_ops = {
    .seq_create = seq_create,
    .seq_fork = seq_fork,
    .seq_destroy = seq_destroy,
    .seq_cut = seq_cut,
    .seq_pick = seq_pick,
    .forward = forward,
    .guess = guess,
    .guess_ahead = guess_ahead,
};

/* What a run said, and of what. */
struct said {
    struct sl_ids ids;
    float *rows;
    uint32_t n_rows;
    struct sl_rng rng;
};

static int listen(void *opaque, const int32_t *ids, size_t n, bool blank,
                  struct sl_error *err)
{
    return blank ? sl_ids_append(opaque, ids, n, err) : 0;
}

/* A text with its blank in the middle, or a beginning; ids that repeat, so
 * that there is something to look up. */
static void make_prompt(struct sl_prompt *p, const struct sl_hparams *hp,
                        bool gmask)
{
    struct sl_error err;

    *p = (struct sl_prompt){.gmask = gmask};
    p->mask = hp->causal ? SL_PROMPT_END
              : gmask    ? hp->text.special.gmask
                         : hp->text.special.mask;
    for (int32_t i = 0; i < 12; i++) {
        if (i == 7 && !gmask && !hp->causal)
            assert_ok(sl_ids_add(&p->ids, p->mask, &err), &err);
        assert_ok(sl_ids_add(&p->ids, 8 + i % 5, &err), &err);
    }
    if (gmask || hp->causal)
        assert_ok(sl_ids_add(&p->ids, p->mask, &err), &err);
}

static struct said speak(struct sl_lm *inner, const struct sl_hparams *hp,
                         const struct sl_fill_config *config, bool gmask)
{
    struct witness w = {
        .lm = *inner,
        .inner = inner,
        .rows = calloc((LENGTH + 1) * (size_t)inner->vocab, sizeof(float)),
    };
    struct said s = {.rows = w.rows};
    const struct sl_fill_sink sink = {listen, &s.ids};
    struct sl_fill_result result;
    struct sl_prompt prompt;
    struct sl_error err;

    w.lm.ops = &witness_ops;
    make_prompt(&prompt, hp, gmask);
    sl_rng_seed(&s.rng, 11);
    assert_ok(sl_fill(&result, &w.lm, &prompt, hp, config, &s.rng, &sink, &err),
              &err);
    s.n_rows = (uint32_t)(prompt.ids.n + s.ids.n - hp->causal);
    sl_fill_result_fini(&result);
    sl_prompt_fini(&prompt);
    return s;
}

static void said_fini(struct said *s)
{
    sl_ids_fini(&s->ids);
    free(s->rows);
}

static void check_same(const struct said *a, const struct said *b,
                       uint32_t vocab)
{
    assert_int_equal(a->ids.n, b->ids.n);
    assert_memory_equal(a->ids.v, b->ids.v, a->ids.n * sizeof *a->ids.v);
    assert_memory_equal(&a->rng, &b->rng, sizeof a->rng);
    /* behind the last position that was fed there may be others */
    for (uint32_t i = 0; i < a->n_rows; i++)
        assert_memory_equal(a->rows + (size_t)i * vocab,
                            b->rows + (size_t)i * vocab, 4ull * vocab);
}

static void check_config(struct sl_lm *lm, const struct sl_hparams *hp,
                         struct sl_fill_config config, bool gmask)
{
    struct said plain = speak(lm, hp, &config, gmask);
    struct sl_drafts drafts;
    struct sl_error err;
    struct said got;

    assert_in_range(plain.ids.n, 10, LENGTH);
    config.drafts = &drafts;
    for (enum guess kind = 0; kind < GUESS_KINDS; kind++) {
        for (uint32_t at = 0; at < MOST; at += 2) {
            struct guesses g = {kind, at, 8, at, &plain.ids, 1, 0, 0};

            test_drafts_init(&drafts, &g, MOST);
            got = speak(lm, hp, &config, gmask);
            check_same(&plain, &got, lm->vocab);
            if (kind == GUESS_RIGHT)
                assert_int_equal(drafts.gate.counts.accepted[0],
                                 drafts.gate.counts.drafted[0]);
            if (kind != GUESS_RIGHT || plain.ids.n > 2)
                assert_in_range(drafts.gate.counts.drafted[0], 1, 1000);
            said_fini(&got);
            if (kind == GUESS_TREE_WRONG ||
                (kind >= GUESS_TREE && at % SL_TREE_WIDTH > 0))
                assert_in_range(drafts.gate.counts.beside[0], 1, 1000);
            if (kind != GUESS_RANDOM && kind != GUESS_WRONG_AT &&
                kind != GUESS_TREE && (kind != GUESS_TREE_ENDS || at > 0))
                break;
        }
    }
    sl_drafts_init(&drafts, MOST, 0);
    assert_ok(sl_drafts_add(&drafts, &sl_draft_lookup, NULL, &err), &err);
    got = speak(lm, hp, &config, gmask);
    check_same(&plain, &got, lm->vocab);
    said_fini(&got);
    said_fini(&plain);
}

static struct sl_hparams hparams_of(const struct test_model *m)
{
    struct sl_hparams hp = m->hp;

    sl_arch_derive(m->arch, &hp);
    if (!hp.causal)
        hp.text.special = (struct sl_special_ids){.mask = 1,
                                                  .gmask = 2,
                                                  .smask = 3,
                                                  .eod = -1,
                                                  .sop = 4,
                                                  .eop = -1,
                                                  .enc = -1,
                                                  .dblock = -1,
                                                  .eos = -1};
    return hp;
}

static void check_model(const struct sl_runtime_config *config,
                        const struct test_model *m)
{
    static const struct sl_sampler_config samplers[] = {{1, 1, 0}, {3, 0, 0.9}};
    struct sl_workload load = {
        .n_sequences = 1,
        .max_tokens = LENGTH,
        .pass_positions = LENGTH,
        .pass_logits = 1,
        .draft_positions = MOST,
    };
    struct sl_hparams hp = hparams_of(m);
    struct sl_runtime *rt = rig_start(config, &load);

    for (size_t i = 0; i < sizeof samplers / sizeof *samplers; i++) {
        struct sl_fill_config fill = {
            .strategy = SL_STRATEGY_BASE,
            .sampler = samplers[i],
            .out_seq_length = LENGTH,
        };

        check_config(sl_runtime_lm(rt), &hp, fill, true);
        if (!hp.causal)
            check_config(sl_runtime_lm(rt), &hp, fill, false);
    }
    sl_runtime_close(rt);
}

static const struct way {
    enum sl_fmt fmt;
    uint32_t group_cols;
    enum sl_kv_kind kv;
    enum sl_activations activations;
    unsigned threads;
    uint64_t ram_bytes;
} ways[] = {
    {SL_FMT_F32, 0, SL_KV_F16, SL_ACTIVATIONS_F32, 2, 1ull << 32},
    {SL_FMT_F16, 0, SL_KV_INT8, SL_ACTIVATIONS_AUTO, 1, SL_RAM_LEAST},
    {SL_FMT_INT8, 32, SL_KV_F16, SL_ACTIVATIONS_INT8, 3, SL_RAM_LEAST},
    {SL_FMT_INT4, 32, SL_KV_F32, SL_ACTIVATIONS_AUTO, 2, 1ull << 32},
    {SL_FMT_BF16, 0, SL_KV_F16, SL_ACTIVATIONS_BF16, 2, 1ull << 32},
};
#define N_WAYS (sizeof ways / sizeof *ways)

static void guesses_change_no_bit_of_any_architecture(void **state)
{
    const struct sl_arch *arch;

    for (size_t a = 0; (arch = sl_arch_at(a)) != NULL; a++) {
        for (size_t i = a; i < a + 2; i++) {
            const struct way *w = &ways[i % N_WAYS];
            struct test_model m = arch_model(arch, (2 * i + a) % ARCH_MODELS);
            char path[ARCH_PATH];
            struct sl_runtime_config config = {
                .threads = w->threads,
                .ram_bytes = w->ram_bytes,
                .activations = w->activations,
                .kv_set = true,
                .kv = w->kv,
            };

            m.fmt = w->fmt;
            m.head_fmt = w->fmt == SL_FMT_F32 ? SL_FMT_F32 : SL_FMT_F16;
            m.group_cols = w->group_cols;
            config.model = arch_model_write(path, *state, &m);
            check_model(&config, &m);
        }
    }
}

/* Greedy or drawn, with drafts or without. */
static struct said speak_planes(const struct sl_runtime_config *config,
                                const struct test_model *m, bool greedy,
                                struct sl_drafts *drafts,
                                struct sl_draft_self *self, uint32_t late)
{
    const struct sl_workload load = {
        .n_sequences = 1,
        .max_tokens = LENGTH,
        .pass_positions = LENGTH,
        .pass_logits = 1,
        .draft_positions = MOST,
        .draft_keeps = self != NULL,
        .draft_ahead = self != NULL ? sl_draft_self_span(MOST) : 0,
    };
    const struct sl_fill_config fill = {
        .strategy = SL_STRATEGY_BASE,
        .sampler = {greedy ? 1 : 3, greedy ? 1 : 0, 0.9f},
        .out_seq_length = LENGTH,
        .drafts = drafts,
    };
    struct sl_runtime *rt = rig_start(config, &load);
    struct sl_hparams hp = hparams_of(m);
    struct rig_late cores;
    struct said s;

    rig_be_late(&cores, rt, SL_HOST, late);
    if (self != NULL) {
        self->lm = sl_runtime_lm(rt);
        self->ahead = sl_runtime_draft_ahead(rt);
        self->ahead_row = self->logits + (size_t)self->rows * m->hp.vocab;
    }
    s = speak(sl_runtime_lm(rt), &hp, &fill, true);
    sl_runtime_close(rt);
    return s;
}

/* In two planes it is the same model, and so it is when the high ones guess,
 * between passes and while they run: all of its logits have the bits of the
 * integers in one piece. */
static void planes_change_no_bit_of_any_architecture(void **state)
{
    static const uint32_t late[] = {1, 60, 7, 25};
    const struct sl_arch *arch;
    uint64_t right = 0, guessed = 0, beside = 0, ahead = 0, discarded = 0;

    for (size_t a = 0; (arch = sl_arch_at(a)) != NULL; a++) {
        struct test_model m = arch_model(arch, a % ARCH_MODELS);
        struct sl_draft_kind kind = sl_draft_self_kind;
        struct sl_runtime_config config = {
            .threads = 1 + a % 3,
            .ram_bytes = a % 2 ? SL_RAM_LEAST : 1ull << 32,
            .kv_set = true,
            .kv = (enum sl_kv_kind)(a % 3),
        };
        struct sl_draft_self self;
        struct sl_drafts drafts;
        struct said one, two, three;
        char path[ARCH_PATH];
        uint64_t calls = 0;
        struct sl_error err;

        m.fmt = SL_FMT_INT8;
        m.group_cols = a % 2 ? 32 : 0;
        m.planes = TEST_ONE_PIECE;
        config.model = arch_model_write(path, *state, &m);
        one = speak_planes(&config, &m, a % 2, NULL, NULL, 1);
        m.planes = TEST_PLANES;
        config.model = arch_model_write(path, *state, &m);
        two = speak_planes(&config, &m, a % 2, NULL, NULL, 1);
        check_same(&one, &two, m.hp.vocab);
        self.rows = 1 + (uint32_t)a % 3; /* one after another, and together */
        self.logits =
            calloc((self.rows + 1ull) * m.hp.vocab, sizeof *self.logits);
        kind.costs = false; /* passes of both are alike here */
        for (uint32_t i = 0; i < SL_DRAFT_CLASSES; i++)
            kind.prior[i] = 0.3; /* so that brothers are worth a try */
        sl_drafts_init(&drafts, MOST, 0);
        drafts.now = test_even_time;
        drafts.now_arg = &calls;
        assert_ok(sl_drafts_add(&drafts, &kind, &self, &err), &err);
        three = speak_planes(&config, &m, a % 2, &drafts, &self, late[a % 4]);
        check_same(&one, &three, m.hp.vocab);
        right += drafts.gate.counts.accepted[0];
        guessed += drafts.gate.counts.drafted[0];
        beside += drafts.gate.counts.beside[0];
        ahead += drafts.gate.counts.ahead[0];
        discarded += drafts.gate.counts.discarded[0];
        free(self.logits);
        said_fini(&one);
        said_fini(&two);
        said_fini(&three);
    }
    assert_in_range(right, guessed / 20, guessed - 1); /* random weights */
    assert_in_range(beside, 1, guessed / 2);
    assert_in_range(ahead, guessed / 10, 1000);
    assert_in_range(discarded, 1, ahead - 1);
}

static int set_up(void **state)
{
    static char dir[1024];

    test_temp_dir(dir);
    *state = dir;
    return 0;
}

static int tear_down(void **state)
{
    test_remove_tree(*state);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(guesses_change_no_bit_of_any_architecture),
        cmocka_unit_test(planes_change_no_bit_of_any_architecture),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
