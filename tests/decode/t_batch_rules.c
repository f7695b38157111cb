#include "config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "src/decode/batch.h"
#include "src/decode/blank.h"
#include "tests/script.h"
#include "tests/support.h"

/* Texts of a batch that have rules of their own, are scored, cancelled, go
 * wrong, or go on with what another has read. */

enum { MOST = 4 };

struct request {
    struct sl_prompt prompt;
    struct sl_ids given;
    struct sl_rng rng;
    struct sl_rules rules;
    struct sl_fill_sink sink;
    struct sl_fill_text text;
    struct sl_ids said, scored;
    float score[MAX_LEN]; /* of what was scored, in order */
    struct sl_chance last;
    size_t cancel_at, fail_at, enough_at; /* so many ids; 0: never */
    atomic_bool cancelled;
};

static int listen(void *opaque, const int32_t *ids, size_t n, bool blank,
                  struct sl_error *err)
{
    struct request *r = opaque;

    if (!blank || n == 0)
        return 0;
    assert_int_equal(n, 1);
    assert_int_equal(r->rules.chance.id, *ids);
    r->last = r->rules.chance;
    assert_ok(sl_ids_add(&r->said, *ids, err), err);
    if (r->said.n == r->cancel_at)
        atomic_store(&r->cancelled, true);
    if (r->said.n == r->enough_at)
        r->rules.enough = true;
    return r->said.n == r->fail_at ? sl_fail(err, SL_ERR_IO, "not heard") : 0;
}

static int hear_score(void *opaque, uint32_t at, struct sl_error *err)
{
    struct request *r = opaque;

    r->score[r->scored.n] = r->rules.chance.logprob;
    return sl_ids_add(&r->scored, (int32_t)at, err);
}

static int note_end(void *opaque, struct sl_fill_text *text,
                    struct sl_error *err)
{
    (void)err;
    assert_true(text->ended);
    ++*(size_t *)opaque;
    return 0;
}

static void request_init(struct request *r, uint32_t n, int32_t mask)
{
    struct sl_error err;

    *r = (struct request){.prompt = {.mask = mask, .gmask = mask == GMASK}};
    for (uint32_t i = 0; i < n; i++)
        assert_ok(sl_ids_add(&r->prompt.ids, 13 + (int32_t)i, &err), &err);
    assert_ok(sl_ids_add(&r->prompt.ids, mask, &err), &err);
    sl_rng_seed(&r->rng, n);
    sl_rules_init(&r->rules);
    r->sink = (struct sl_fill_sink){listen, r};
    r->text = (struct sl_fill_text){
        .prompt = &r->prompt,
        .rng = &r->rng,
        .sink = &r->sink,
        .rules = &r->rules,
        .scored = hear_score,
        .cancelled = &r->cancelled,
    };
}

static void request_fini(struct request *r)
{
    sl_fill_result_fini(&r->text.result);
    sl_prompt_fini(&r->prompt);
    sl_rules_fini(&r->rules);
    sl_ids_fini(&r->given);
    sl_ids_fini(&r->said);
    sl_ids_fini(&r->scored);
}

/* A model, and a batch over it. */
struct stage {
    struct script s;
    struct sl_hparams hp;
    struct sl_fill_config fill;
    struct sl_batch_config config;
    struct sl_batch *batch;
    size_t n_ended;
};

static void stage_init(struct stage *g, bool causal)
{
    test_script_init(&g->s);
    g->s.scores = true;
    g->s.end_at = 40;
    g->hp = (struct sl_hparams){
        .causal = causal,
        .vocab = V,
        .max_positions = MAX_LEN,
        .text.n_image_tokens = N_IMAGE,
        .text.n_tokens = N_TOKENS,
        .text.special = {MASK, GMASK, SMASK, EOD, SOP, EOP, ENC, DBLOCK, EOS,
                         11},
    };
    g->fill = (struct sl_fill_config){
        .strategy = SL_STRATEGY_BASE,
        .sampler = {1, 1, 0},
        .out_seq_length = 48,
    };
    g->n_ended = 0;
    g->config = (struct sl_batch_config){
        .lm = &g->s.lm,
        .hp = &g->hp,
        .config = &g->fill,
        .most = MOST,
        .alone = true,
        .rules = true,
        .ended = note_end,
        .opaque = &g->n_ended,
    };
}

static void run(struct stage *g, struct request *r, size_t n)
{
    struct sl_error err;
    bool more = true;

    if (g->batch == NULL)
        assert_ok(sl_batch_create(&g->batch, &g->config, &err), &err);
    g->n_ended = 0;
    for (size_t i = 0; i < n; i++)
        assert_ok(sl_batch_admit(g->batch, &r[i].text, &err), &err);
    while (more)
        assert_ok(sl_batch_step(g->batch, &more, &err), &err);
    assert_int_equal(g->n_ended, n);
}

static void stage_fini(struct stage *g)
{
    sl_batch_close(g->batch);
    g->batch = NULL;
    assert_int_equal(g->s.n_alive, 0);
}

static void each_text_keeps_to_its_own_rules(void **state)
{
    static const struct sl_bias always = {33, 1000};
    struct stage g = {0};
    struct request r[4];

    (void)state;
    stage_init(&g, false);
    for (size_t i = 0; i < 4; i++)
        request_init(&r[i], 5, GMASK);
    r[1].rules.bias = &always;
    r[1].rules.n_bias = 1;
    r[2].rules.frequency = 1e6; /* nothing twice */
    r[3].rules.n_top = 3;
    run(&g, r, 4);
    assert_in_range(r[0].said.n, 5, 48);
    for (size_t i = 0; i < r[1].said.n; i++)
        assert_int_equal(r[1].said.v[i], 33);
    for (size_t i = 0; i < r[2].said.n; i++) {
        for (size_t k = 0; k < i; k++)
            assert_int_not_equal(r[2].said.v[i], r[2].said.v[k]);
    }
    /* to be told of changes nothing, and what was told fits together */
    assert_int_equal(r[3].said.n, r[0].said.n);
    assert_memory_equal(r[3].said.v, r[0].said.v,
                        r[0].said.n * sizeof(int32_t));
    assert_int_equal(r[3].last.n_top, 3);
    assert_true(r[3].last.top[0].logprob >= r[3].last.top[1].logprob);
    assert_true(r[3].last.logprob <= r[3].last.top[0].logprob);
    assert_true(r[3].last.top[0].logprob < 0);
    for (size_t i = 0; i < 4; i++)
        request_fini(&r[i]);
    stage_fini(&g);
}

static void what_happens_to_one_text_touches_no_other(void **state)
{
    struct stage g = {0};
    struct request r[4], alone;

    (void)state;
    stage_init(&g, false);
    request_init(&alone, 6, GMASK);
    run(&g, &alone, 1);
    for (size_t i = 0; i < 4; i++)
        request_init(&r[i], 6, GMASK);
    r[0].cancel_at = 3;
    r[1].fail_at = 2;
    r[2].enough_at = 4;
    run(&g, r, 4);
    assert_true(r[0].text.failed && r[0].said.n == 3);
    assert_int_equal(r[0].text.err.code, SL_ERR_INTERRUPTED);
    assert_true(r[1].text.failed && r[1].said.n == 2);
    assert_string_equal(r[1].text.err.msg, "not heard");
    assert_true(!r[2].text.failed && r[2].said.n == 4);
    assert_true(!r[3].text.failed && r[3].said.n == alone.said.n);
    assert_memory_equal(r[3].said.v, alone.said.v,
                        alone.said.n * sizeof(int32_t));
    for (size_t i = 0; i < 4; i++)
        request_fini(&r[i]);
    request_fini(&alone);
    stage_fini(&g);
}

/* ln softmax of the id `at` of a sequence, as the model says it. */
static float chance_of(const struct stage *g, const struct sl_ids *ids,
                       size_t at, const int32_t *positions)
{
    struct seq q = {.n = at};
    float row[V];
    double most;

    for (size_t i = 0; i < at; i++) {
        q.ids[i] = ids->v[i];
        q.positions[i] = positions[i];
    }
    test_script_speak(&g->s, &q, row);
    return (float)((double)row[ids->v[at]] - sl_row_log_sum(row, V, &most));
}

static void ids_are_scored_in_parts_as_in_one(void **state)
{
    static const uint32_t rows[] = {0, 1, 3, 40}, parts[] = {0, 4, 7};

    (void)state;
    for (size_t k = 0; k < 4 * 3; k++) {
        struct stage g = {0};
        struct request r;
        int32_t positions[MAX_LEN];

        stage_init(&g, true);
        g.config.score_rows = rows[k % 4];
        g.config.part_positions = parts[k / 4];
        request_init(&r, 20, SL_PROMPT_END);
        r.rules.n_top = 0;
        r.text.score_from = 1;
        r.text.only_scored = true;
        if (rows[k % 4] == 0) /* a pass has rows for so many alone */
            g.config.score_rows = 20;
        run(&g, &r, 1);
        assert_true(!r.text.failed && r.said.n == 0);
        assert_int_equal(r.scored.n, 19);
        for (int i = 0; i < 20; i++)
            positions[i] = i;
        for (size_t i = 0; i < 19; i++) {
            assert_int_equal(r.scored.v[i], i + 1);
            assert_true(fabsf(r.score[i] - chance_of(&g, &r.prompt.ids, i + 1,
                                                     positions)) < 1e-6f);
        }
        request_fini(&r);
        stage_fini(&g);
    }
}

static void an_answer_goes_on_from_its_given_beginning(void **state)
{
    struct stage g = {0};
    struct request whole, r;
    struct sl_error err;

    (void)state;
    stage_init(&g, false);
    request_init(&whole, 0, GMASK);
    request_init(&r, 0, GMASK);
    run(&g, &whole, 1);
    assert_in_range(whole.said.n, 6, 48);
    assert_ok(sl_ids_append(&r.given, whole.said.v, 5, &err), &err);
    for (int i = 0; i < 5; i++) /* that these were drawn with */
        sl_rng_uniform(&r.rng);
    r.text.given = &r.given;
    r.text.score_from = 2; /* [gMASK] [sop] */
    r.rules.n_top = 0;
    g.config.score_rows = 3;
    sl_batch_close(g.batch);
    g.batch = NULL;
    run(&g, &r, 1);
    assert_int_equal(r.scored.n, 5);
    assert_int_equal(r.said.n, whole.said.n - 5);
    assert_memory_equal(r.said.v, whole.said.v + 5, r.said.n * sizeof(int32_t));
    request_fini(&whole);
    request_fini(&r);
    stage_fini(&g);
}

static void what_was_read_is_not_read_again(void **state)
{
    struct stage g = {0};
    struct request r[3], cold;

    (void)state;
    stage_init(&g, true);
    request_init(&cold, 24, SL_PROMPT_END);
    run(&g, &cold, 1);
    assert_int_equal(cold.text.n_kept, 0);
    sl_batch_close(g.batch);
    g.batch = NULL;
    g.config.keeps = true;
    for (int i = 0; i < 3; i++)
        request_init(&r[i], i == 0 ? 20 : 24, SL_PROMPT_END);
    run(&g, &r[0], 1);
    assert_int_equal(g.s.n_alive, 1);
    run(&g, &r[1], 1);
    assert_int_equal(r[1].text.n_kept, 20);
    assert_int_equal(r[1].said.n, cold.said.n);
    assert_memory_equal(r[1].said.v, cold.said.v,
                        cold.said.n * sizeof(int32_t));
    run(&g, &r[2], 1);
    assert_int_equal(r[2].text.n_kept, 23);
    assert_int_equal(r[2].said.n, cold.said.n);
    for (int i = 0; i < 3; i++)
        request_fini(&r[i]);
    request_fini(&cold);
    /* never more sequences than texts there may be */
    for (int k = 0; k < 12; k++) {
        struct request more;

        request_init(&more, 9, SL_PROMPT_END);
        more.prompt.ids.v[0] = 13 + k;
        run(&g, &more, 1);
        assert_in_range(g.s.n_alive, 1, MOST);
        request_fini(&more);
    }
    stage_fini(&g);
}

static void
an_interrupted_pass_ends_those_in_it_and_the_batch_goes_on(void **state)
{
    struct stage g = {0};
    struct request r[2];
    struct sl_error err;

    (void)state;
    stage_init(&g, true);
    g.config.keeps = true;
    g.s.fail_at = 3;
    g.s.fail_code = SL_ERR_INTERRUPTED;
    request_init(&r[0], 12, SL_PROMPT_END);
    run(&g, &r[0], 1);
    assert_true(r[0].text.failed);
    assert_int_equal(r[0].text.err.code, SL_ERR_INTERRUPTED);
    g.s.fail_at = -1;
    request_init(&r[1], 12, SL_PROMPT_END);
    run(&g, &r[1], 1);
    assert_false(r[1].text.failed);
    assert_int_equal(r[1].text.n_kept, 11);
    request_fini(&r[0]);
    request_fini(&r[1]);
    /* all that is under way or waits can be told why there is no more */
    request_init(&r[0], 12, SL_PROMPT_END);
    assert_ok(sl_batch_admit(g.batch, &r[0].text, &err), &err);
    sl_fail(&err, SL_ERR_IO, "the disk is gone");
    assert_ok(sl_batch_fail(g.batch, &err, &err), &err);
    assert_string_equal(r[0].text.err.msg, "the disk is gone");
    request_fini(&r[0]);
    stage_fini(&g);
}

/* A text that ends while it is read leaves the parts that were. */
static void what_was_read_before_an_interruption_is_kept(void **state)
{
    struct stage g = {0};
    struct request r[2];

    (void)state;
    stage_init(&g, true);
    g.config.keeps = true;
    g.config.part_positions = 4;
    g.s.fail_at = 2;
    g.s.fail_code = SL_ERR_INTERRUPTED;
    for (int i = 0; i < 2; i++)
        request_init(&r[i], 16, SL_PROMPT_END);
    run(&g, &r[0], 1);
    assert_true(r[0].text.failed && r[0].said.n == 0);
    g.s.fail_at = -1;
    run(&g, &r[1], 1);
    assert_false(r[1].text.failed);
    assert_int_equal(r[1].text.n_kept, 8);
    for (int i = 0; i < 2; i++)
        request_fini(&r[i]);
    stage_fini(&g);
}

/* Two conversations that begin alike do not drive each other out. */
static void a_text_that_begins_alike_takes_nothing_away(void **state)
{
    struct stage g = {0};
    struct request r[3];

    (void)state;
    stage_init(&g, true);
    g.config.keeps = true;
    for (int i = 0; i < 3; i++)
        request_init(&r[i], i == 2 ? 24 : 20, SL_PROMPT_END);
    for (size_t k = 10; k < 20; k++)
        r[1].prompt.ids.v[k] ^= 1;
    run(&g, &r[0], 1);
    run(&g, &r[1], 1);
    assert_int_equal(r[1].text.n_kept, 10);
    run(&g, &r[2], 1);
    assert_int_equal(r[2].text.n_kept, 20);
    for (int i = 0; i < 3; i++)
        request_fini(&r[i]);
    stage_fini(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_text_keeps_to_its_own_rules),
        cmocka_unit_test(what_happens_to_one_text_touches_no_other),
        cmocka_unit_test(ids_are_scored_in_parts_as_in_one),
        cmocka_unit_test(an_answer_goes_on_from_its_given_beginning),
        cmocka_unit_test(what_was_read_is_not_read_again),
        cmocka_unit_test(what_was_read_before_an_interruption_is_kept),
        cmocka_unit_test(a_text_that_begins_alike_takes_nothing_away),
        cmocka_unit_test(
            an_interrupted_pass_ends_those_in_it_and_the_batch_goes_on),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
