#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "src/decode/batch.h"
#include "src/exec/kvcache.h"
#include "tests/arch_models.h"
#include "tests/exec_rig.h"
#include "tests/script.h"
#include "tests/support.h"

/* Texts that come and go between passes. */

struct request {
    struct sl_prompt prompt;
    struct sl_rng rng;
    struct sl_fill_sink sink;
    struct sl_fill_text text;
    struct sl_ids said;
    struct crowd *crowd;
    uint64_t begun, first, ended; /* passes; 0: not yet */
};

/* All requests of a test and the batch they go through. */
struct crowd {
    struct sl_batch *batch;
    struct request *r; /* (n) */
    size_t n, n_begun, n_ended;
    uint64_t n_passes;
};

static int listen(void *opaque, const int32_t *ids, size_t n, bool blank,
                  struct sl_error *err)
{
    struct request *r = opaque;

    if (!blank)
        return 0;
    if (n == 0) { /* a blank begins: in the order in which they came */
        assert_ptr_equal(r, &r->crowd->r[r->crowd->n_begun]);
        r->crowd->n_begun++;
        r->begun = r->crowd->n_passes + 1;
        return 0;
    }
    if (r->first == 0)
        r->first = r->crowd->n_passes + 1;
    return sl_ids_append(&r->said, ids, n, err);
}

static int note_end(void *opaque, struct sl_fill_text *text,
                    struct sl_error *err)
{
    struct crowd *c = opaque;
    struct request *r =
        (struct request *)((char *)text - offsetof(struct request, text));

    assert_true(text->ended && r->ended == 0);
    r->ended = c->n_passes + 1;
    c->n_ended++;
    return 0;
}

static uint32_t chance(uint64_t *random, uint32_t n)
{
    *random =
        *random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(*random >> 33) % n;
}

/* A beginning of 1 to `most` ids. */
static void make_request(struct request *r, uint64_t *random, uint32_t most,
                         uint32_t vocab, bool causal)
{
    uint32_t n = 1 + chance(random, most);
    struct sl_error err;

    r->prompt = (struct sl_prompt){.mask = causal ? SL_PROMPT_END : GMASK,
                                   .gmask = !causal};
    for (uint32_t i = 0; i < n; i++)
        assert_ok(sl_ids_add(&r->prompt.ids,
                             13 + (int32_t)chance(random, vocab), &err),
                  &err);
    assert_ok(sl_ids_add(&r->prompt.ids, r->prompt.mask, &err), &err);
    sl_rng_seed(&r->rng, *random);
    r->sink = (struct sl_fill_sink){listen, r};
    r->text = (struct sl_fill_text){
        .prompt = &r->prompt, .rng = &r->rng, .sink = &r->sink};
}

static void crowd_init(struct crowd *c, size_t n)
{
    *c = (struct crowd){.r = calloc(n, sizeof *c->r), .n = n};
    for (size_t i = 0; i < n; i++)
        c->r[i].crowd = c;
}

static void crowd_fini(struct crowd *c)
{
    for (size_t i = 0; i < c->n; i++) {
        sl_fill_result_fini(&c->r[i].text.result);
        sl_prompt_fini(&c->r[i].prompt);
        sl_ids_fini(&c->r[i].said);
    }
    free(c->r);
}

static void step(struct crowd *c, bool *more)
{
    struct sl_error err;

    assert_ok(sl_batch_step(c->batch, more, &err), &err);
    c->n_passes++;
}

/* All come at times of their own, and go. */
static void run_all(struct crowd *c, const struct sl_batch_config *config,
                    uint64_t random)
{
    struct sl_error err;
    size_t next = 0;
    bool more = true;

    assert_ok(sl_batch_create(&c->batch, config, &err), &err);
    while (next < c->n || more) {
        for (uint32_t k = chance(&random, 4); k > 0 && next < c->n; k--)
            assert_ok(sl_batch_admit(c->batch, &c->r[next++].text, &err), &err);
        step(c, &more);
        assert_in_range(sl_batch_running(c->batch), 0, config->most);
    }
    assert_int_equal(c->n_ended, c->n);
    assert_int_equal(sl_batch_running(c->batch), 0);
    assert_int_equal(sl_batch_waiting(c->batch), 0);
    sl_batch_close(c->batch);
}

static void check_alone(const struct crowd *c,
                        const struct sl_batch_config *config, uint64_t *random,
                        uint32_t most, uint32_t vocab)
{
    for (size_t i = 0; i < c->n; i++) {
        struct crowd one;
        struct sl_fill_result result;
        struct sl_error err;

        crowd_init(&one, 1);
        make_request(one.r, random, most, vocab, config->hp->causal);
        assert_ok(sl_fill(&result, config->lm, &one.r->prompt, config->hp,
                          config->config, &one.r->rng, &one.r->sink, &err),
                  &err);
        assert_int_equal(one.r->said.n, c->r[i].said.n);
        if (one.r->said.n > 0)
            assert_memory_equal(one.r->said.v, c->r[i].said.v,
                                one.r->said.n * sizeof(int32_t));
        assert_memory_equal(&one.r->rng, &c->r[i].rng, sizeof one.r->rng);
        sl_fill_result_fini(&result);
        crowd_fini(&one);
    }
}

/* --- on a scripted model ---------------------------------------------------
 */

static const struct sl_hparams hparams = {
    .vocab = V,
    .max_positions = MAX_LEN,
    .text.n_image_tokens = N_IMAGE,
    .text.n_tokens = N_TOKENS,
    .text.special = {MASK, GMASK, SMASK, EOD, SOP, EOP, ENC, DBLOCK, EOS, 11},
};

static const struct sl_fill_config drawn = {
    .strategy = SL_STRATEGY_BASE,
    .sampler = {4, 0, 0},
    .out_seq_length = 48,
};

static void texts_that_come_and_go_are_the_same_as_alone(void **state)
{
    static const struct {
        size_t most;
        uint64_t n_pages;
        uint32_t pass_positions, pass_logits;
    } rooms[] = {
        {1, 0, 0, 0},  {8, 0, 0, 0},  {8, 7, 0, 0},
        {5, 0, 24, 0}, {8, 9, 24, 3}, {16, 20, 30, 5},
    };

    for (size_t i = 0; i < sizeof rooms / sizeof *rooms; i++) {
        struct script s;
        struct sl_batch_config config = {
            .lm = &s.lm,
            .hp = &hparams,
            .config = &drawn,
            .most = rooms[i].most,
            .n_pages = rooms[i].n_pages,
            .ended = note_end,
        };
        uint64_t random = i, same = i;
        struct crowd c;

        crowd_init(&c, 150);
        for (size_t k = 0; k < c.n; k++)
            make_request(&c.r[k], &random, 20, 30, false);
        test_script_init(&s);
        s.end_at = 30;
        s.lm.pass_positions = rooms[i].pass_positions;
        s.lm.pass_logits = rooms[i].pass_logits;
        config.opaque = &c;
        run_all(&c, &config, i);
        assert_int_equal(s.n_alive, 0);
        assert_in_range(s.most_alive, 1, rooms[i].most);
        if (rooms[i].n_pages > 0)
            assert_in_range(s.most_alive, 1, rooms[i].n_pages / 3);
        if (rooms[i].pass_positions > 0)
            assert_in_range(s.pass_positions, 1, rooms[i].pass_positions);
        check_alone(&c, &config, &same, 20, 30);
        crowd_fini(&c);
    }
}

/* A long prompt comes among short texts that fill every pass. */
static void nobody_starves(void **state)
{
    struct script s;
    struct sl_batch_config config = {
        .lm = &s.lm,
        .hp = &hparams,
        .config = &drawn,
        .most = 12,
        .ended = note_end,
    };
    uint64_t random = 3;
    struct crowd c;
    struct sl_error err;
    bool more = true;
    size_t next = 0;

    crowd_init(&c, 60);
    for (size_t k = 0; k < c.n; k++) {
        make_request(&c.r[k], &random, 2, 30, false);
        if (k % 20 == 5) { /* with [gMASK] and [sop] as large as a pass */
            sl_prompt_fini(&c.r[k].prompt);
            c.r[k].prompt = (struct sl_prompt){.mask = GMASK, .gmask = true};
            for (int i = 0; i < 18; i++)
                assert_ok(sl_ids_add(&c.r[k].prompt.ids, 20, &err), &err);
            assert_ok(sl_ids_add(&c.r[k].prompt.ids, GMASK, &err), &err);
        }
    }
    test_script_init(&s);
    s.end_at = 40;
    s.lm.pass_positions = 20;
    config.opaque = &c;
    assert_ok(sl_batch_create(&c.batch, &config, &err), &err);
    while (next < c.n || more) {
        while (next < c.n && sl_batch_waiting(c.batch) < 3)
            assert_ok(sl_batch_admit(c.batch, &c.r[next++].text, &err), &err);
        step(&c, &more);
    }
    for (size_t k = 0; k < c.n; k++) {
        assert_true(c.r[k].text.ended && !c.r[k].text.failed);
        assert_in_range(c.r[k].first - c.r[k].begun, 0, 2);
        /* of those who come with it three may be as large, and a step of each
         * token waits for none for long */
        assert_in_range(c.r[k].ended - c.r[k].first, 0,
                        3 * (c.r[k].said.n + 4));
    }
    sl_batch_close(c.batch);
    crowd_fini(&c);
}

static void a_text_that_never_fits_is_refused_with_the_numbers(void **state)
{
    struct script s;
    struct sl_batch_config config = {
        .lm = &s.lm,
        .hp = &hparams,
        .config = &drawn,
        .most = 2,
        .n_pages = 2,
        .ended = note_end,
    };
    uint64_t random = 1;
    struct crowd c;
    struct sl_error err;

    crowd_init(&c, 1);
    make_request(c.r, &random, 5, 30, false);
    test_script_init(&s);
    config.opaque = &c;
    assert_ok(sl_batch_create(&c.batch, &config, &err), &err);
    assert_int_equal(sl_batch_admit(c.batch, &c.r->text, &err), -1);
    assert_int_equal(err.code, SL_ERR_BUDGET);
    assert_non_null(strstr(err.msg, "3 pages"));
    assert_int_equal(sl_batch_waiting(c.batch), 0);
    sl_batch_close(c.batch);
    crowd_fini(&c);
}

/* Those under way keep what they have; those who wait learn why not. */
static void an_interrupted_batch_ends_all(void **state)
{
    for (int at = 0; at < 30; at++) {
        struct script s;
        struct sl_batch_config config = {
            .lm = &s.lm,
            .hp = &hparams,
            .config = &drawn,
            .most = 3,
            .ended = note_end,
        };
        uint64_t random = 1;
        struct crowd c;
        struct sl_error err;
        bool more = true;

        crowd_init(&c, 6);
        test_script_init(&s);
        s.end_at = 30;
        s.fail_at = at;
        s.fail_code = SL_ERR_INTERRUPTED;
        config.opaque = &c;
        assert_ok(sl_batch_create(&c.batch, &config, &err), &err);
        for (size_t k = 0; k < c.n; k++) {
            make_request(&c.r[k], &random, 5, 30, false);
            assert_ok(sl_batch_admit(c.batch, &c.r[k].text, &err), &err);
        }
        while (more)
            step(&c, &more);
        assert_int_equal(c.n_ended, c.n);
        assert_int_equal(s.n_alive, 0);
        for (size_t k = 0; k < c.n; k++) {
            const struct sl_fill_text *t = &c.r[k].text;

            if (t->failed)
                assert_int_equal(t->err.code, SL_ERR_INTERRUPTED);
            else
                assert_int_equal(t->result.n_answers, 1);
            assert_true(t->failed || !t->result.interrupted ||
                        c.r[k].begun > 0);
        }
        sl_batch_close(c.batch);
        crowd_fini(&c);
    }
}

/* --- on a model ------------------------------------------------------------
 */

/* Every page can be had: as many texts of full length fit as were planned. */
static void check_pages(struct sl_lm *lm, uint32_t n_seqs, uint32_t length,
                        bool causal)
{
    int32_t *ids = calloc(2 * length, sizeof *ids), *positions = ids + length;
    float *logits = calloc(lm->vocab, sizeof *logits);
    uint32_t *seqs = calloc(n_seqs, sizeof *seqs);
    struct sl_error err;

    for (uint32_t i = 0; i < length; i++)
        positions[i] = (int32_t)i;
    for (uint32_t i = 0; i < n_seqs; i++) {
        struct sl_lm_item item = {
            .ids = ids,
            .positions = positions,
            .blocks = ids,
            .n = length,
            .n_context = causal ? 0 : length,
            .n_logits = 1,
        };

        assert_ok(lm->ops->seq_create(lm, &seqs[i], &err), &err);
        item.seq = seqs[i];
        assert_ok(lm->ops->forward(lm, &item, 1, logits, &err), &err);
    }
    for (uint32_t i = 0; i < n_seqs; i++)
        lm->ops->seq_destroy(lm, seqs[i]);
    free(ids);
    free(logits);
    free(seqs);
}

static struct test_model first_model(const struct sl_arch **arch, bool causal)
{
    struct test_model m;

    for (size_t a = 0; (*arch = sl_arch_at(a)) != NULL; a++) {
        struct sl_hparams hp;

        m = arch_model(*arch, 0);
        hp = m.hp;
        sl_arch_derive(*arch, &hp);
        if (hp.causal == causal)
            break;
    }
    assert_non_null(*arch);
    return m;
}

/* n texts, each with so many answers, through a cache that has pages for four
 * of the longest, with guesses; then each alone and without. */
static void run_many(const char *dir, bool causal, size_t n, uint32_t n_answers)
{
    enum { LENGTH = 36, MOST = 4 };
    struct sl_fill_config fill = {
        .strategy = SL_STRATEGY_BASE,
        .sampler = {.top_k = n_answers > 1 ? 8 : 1},
        .out_seq_length = LENGTH,
        .n_answers = n_answers,
    };
    const struct sl_arch *arch;
    struct test_model m = first_model(&arch, causal);
    struct sl_hparams hp = m.hp;
    char path[ARCH_PATH];
    struct sl_runtime_config run = {.threads = 1, .ram_bytes = 1ull << 32};
    struct sl_workload load = {
        .n_sequences = n_answers,
        .max_tokens = LENGTH,
        .pass_positions = 40,
        .pass_logits = MOST * n_answers,
        .n_texts = MOST,
        .draft_positions = 3,
    };
    struct sl_drafts drafts;
    struct sl_batch_config config = {
        .hp = &hp,
        .config = &fill,
        .most = 2 * MOST,
        .n_pages = MOST * sl_kv_pages_needed(n_answers, LENGTH, 0),
        .ended = note_end,
    };
    uint64_t random = 1, same = 1;
    uint32_t words = hp.vocab - 13;
    struct sl_runtime *rt;
    struct sl_error err;
    struct crowd c;

    sl_arch_derive(arch, &hp);
    if (!causal) {
        hp.text.special = hparams.text.special;
        words = MASK - 13; /* marks are none */
    }
    /* ids that end texts at all lengths */
    hp.text.special.eos = 3;
    hp.text.special.eop = 5;
    run.model = arch_model_write(path, dir, &m);
    rt = rig_start(&run, &load);
    sl_drafts_init(&drafts, 3, 0.1);
    assert_ok(sl_drafts_add(&drafts, &sl_draft_lookup, NULL, &err), &err);
    config.lm = sl_runtime_lm(rt);
    config.opaque = &c;
    crowd_init(&c, n);
    for (size_t k = 0; k < c.n; k++)
        make_request(&c.r[k], &random, 20, words, causal);
    fill.drafts = &drafts;
    run_all(&c, &config, 9);
    check_pages(config.lm, MOST * n_answers, LENGTH, causal);
    fill.drafts = NULL;
    check_alone(&c, &config, &same, 20, words);
    crowd_fini(&c);
    sl_runtime_close(rt);
}

static void a_thousand_texts_leave_no_page_behind(void **state)
{
    run_many(*state, true, 700, 1);
    run_many(*state, false, 250, 1);
    run_many(*state, false, 50, 3); /* which share their prompts' pages */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts_that_come_and_go_are_the_same_as_alone),
        cmocka_unit_test(nobody_starves),
        cmocka_unit_test(a_text_that_never_fits_is_refused_with_the_numbers),
        cmocka_unit_test(an_interrupted_batch_ends_all),
        cmocka_unit_test(a_thousand_texts_leave_no_page_behind),
    };

    return cmocka_run_group_tests(tests, test_dir_set_up, test_dir_tear_down);
}
