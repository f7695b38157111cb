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

/* Of every architecture: a text that is guessed ahead is the text without, and
 * so is every bit of the logits that chose it, whatever is guessed. */

enum { LENGTH = TEST_TEXT_LENGTH, MOST = 5 };

static void check_config(struct sl_lm *lm, const struct sl_hparams *hp,
                         struct sl_fill_config config, bool gmask)
{
    struct said plain = test_speak(lm, hp, &config, gmask);
    struct sl_drafts drafts;
    struct sl_error err;
    struct said got;

    assert_in_range(plain.ids.n, 10, LENGTH);
    config.drafts = &drafts;
    for (enum guess kind = 0; kind < GUESS_KINDS; kind++) {
        for (uint32_t at = 0; at < MOST; at += 2) {
            struct guesses g = {kind, at, 8, at, &plain.ids, 1, 0, 0};

            test_drafts_init(&drafts, &g, MOST);
            got = test_speak(lm, hp, &config, gmask);
            test_check_same(&plain, &got, lm->vocab);
            if (kind == GUESS_RIGHT)
                assert_int_equal(drafts.gate.counts.accepted[0],
                                 drafts.gate.counts.drafted[0]);
            if (kind != GUESS_RIGHT || plain.ids.n > 2)
                assert_in_range(drafts.gate.counts.drafted[0], 1, 1000);
            test_said_fini(&got);
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
    got = test_speak(lm, hp, &config, gmask);
    test_check_same(&plain, &got, lm->vocab);
    test_said_fini(&got);
    test_said_fini(&plain);
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
    struct sl_hparams hp = test_hparams_of(m);
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
    struct sl_hparams hp = test_hparams_of(m);
    struct rig_late cores;
    struct said s;

    rig_be_late(&cores, rt, SL_HOST, late);
    if (self != NULL) {
        self->lm = sl_runtime_lm(rt);
        self->ahead = sl_runtime_draft_ahead(rt);
        self->ahead_row = self->logits + (size_t)self->rows * m->hp.vocab;
    }
    s = test_speak(sl_runtime_lm(rt), &hp, &fill, true);
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
        test_check_same(&one, &two, m.hp.vocab);
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
        test_check_same(&one, &three, m.hp.vocab);
        right += drafts.gate.counts.accepted[0];
        guessed += drafts.gate.counts.drafted[0];
        beside += drafts.gate.counts.beside[0];
        ahead += drafts.gate.counts.ahead[0];
        discarded += drafts.gate.counts.discarded[0];
        free(self.logits);
        test_said_fini(&one);
        test_said_fini(&two);
        test_said_fini(&three);
    }
    assert_in_range(right, guessed / 20, guessed - 1); /* random weights */
    assert_in_range(beside, 1, guessed / 2);
    assert_in_range(ahead, guessed / 10, 1000);
    assert_in_range(discarded, 1, ahead - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(guesses_change_no_bit_of_any_architecture),
        cmocka_unit_test(planes_change_no_bit_of_any_architecture),
    };

    return cmocka_run_group_tests(tests, test_dir_set_up, test_dir_tear_down);
}
