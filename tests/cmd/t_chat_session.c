#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "src/cmd/chat_session.h"
#include "tests/support.h"

/* --- a model that says what it is told to -----------------------------------
 */

enum { VOCAB = 300, LONGEST = 400 };
/* bytes are ids of their own */
enum { START = 256, END, THINK, THINK_END, GMASK_ID, SOP_ID, EOP_ID, MASK_ID };

struct parrot {
    struct sl_lm lm;
    int32_t held[LONGEST]; /* by the one sequence */
    size_t n_held;
    bool alive;
    const int32_t *says; /* one id a pass; ends in END or EOP_ID for ever */
    size_t n_passes, fail_at;
    enum sl_code fail_code;
};

static int seq_create(struct sl_lm *lm, uint32_t *seq, struct sl_error *err)
{
    struct parrot *p = (struct parrot *)lm;

    assert_false(p->alive);
    p->alive = true;
    p->n_held = 0;
    *seq = 7;
    return 0;
}

static void seq_destroy(struct sl_lm *lm, uint32_t seq)
{
    struct parrot *p = (struct parrot *)lm;

    assert_true(p->alive && seq == 7);
    p->alive = false;
}

static void seq_cut(struct sl_lm *lm, uint32_t seq, uint32_t n)
{
    struct parrot *p = (struct parrot *)lm;

    assert_in_range(n, 0, p->n_held);
    p->n_held = n;
}

static int forward(struct sl_lm *lm, const struct sl_lm_item *items, size_t n,
                   float *logits, struct sl_error *err)
{
    struct parrot *p = (struct parrot *)lm;

    assert_int_equal(n, 1);
    assert_true(p->alive);
    assert_in_range(p->n_held + items->n, 1, LONGEST);
    for (uint32_t i = 0; i < items->n; i++)
        p->held[p->n_held++] = items->ids[i];
    if (p->n_passes++ == p->fail_at)
        return sl_fail(err, p->fail_code, "told to");
    memset(logits, 0, VOCAB * sizeof *logits);
    logits[*p->says] = 100;
    if (*p->says != END && *p->says != EOP_ID)
        p->says++;
    return 0;
}

static const struct sl_lm_ops parrot_ops = {
    .seq_create = seq_create,
    .seq_destroy = seq_destroy,
    .seq_cut = seq_cut,
    .forward = forward,
};

/* --- its vocabulary ---------------------------------------------------------
 */

static int32_t token(void *opaque, const char *name)
{
    static const char *const names[] = {"<|im_start|>", "<|im_end|>", "<think>",
                                        "</think>",     "[gMASK]",    "<sop>"};

    for (int32_t i = 0; i < 6; i++) {
        if (strcmp(names[i], name) == 0)
            return START + i;
    }
    return -1;
}

static int encode(void *opaque, struct sl_ids *ids, const char *text, size_t n,
                  struct sl_error *err)
{
    for (size_t i = 0; i < n; i++) {
        if (sl_ids_add(ids, (unsigned char)text[i], err) != 0)
            return -1;
    }
    return 0;
}

static int push(void *opaque, const int32_t *ids, size_t n, const char **text,
                size_t *n_text, struct sl_error *err)
{
    char *c = opaque;

    assert_int_equal(n, 1);
    *c = (char)ids[0];
    *text = c;
    *n_text = ids[0] < 256;
    return 0;
}

static int end(void *opaque, const char **text, size_t *n_text,
               struct sl_error *err)
{
    *text = "";
    *n_text = 0;
    return 0;
}

static const struct sl_chat_vocab vocab = {token, encode, NULL};

/* --- a conversation ---------------------------------------------------------
 */

struct rig {
    struct parrot parrot;
    struct sl_hparams hp;
    struct sl_chat_speaker speaker;
    char last;
    struct sl_session s;
    struct sl_session_turn turn;
};

static void open_rig(struct rig *r, const char *tmpl, bool causal,
                     uint32_t max_tokens, uint32_t max_new)
{
    struct sl_session_config c = {
        .tmpl = sl_chat_template_named(tmpl),
        .vocab = &vocab,
        .sampler = {.temperature = 1, .top_k = 1},
        .repetition_penalty = 1,
        .max_new = max_new,
        .pass_positions = LONGEST,
        .seed = 1,
    };
    struct sl_error err;

    *r = (struct rig){
        .parrot = {.lm = {VOCAB, max_tokens, &parrot_ops}, .fail_at = SIZE_MAX},
        .hp = {.vocab = VOCAB,
               .max_positions = max_tokens,
               .causal = causal,
               .text = {.special = {MASK_ID, GMASK_ID, -1, -1, SOP_ID, EOP_ID,
                                    -1, -1, -1, -1}}},
    };
    r->speaker = (struct sl_chat_speaker){push, end, &r->last};
    c.lm = &r->parrot.lm;
    c.hp = &r->hp;
    c.speaker = &r->speaker;
    assert_ok(sl_session_open(&r->s, &c, &err), &err);
}

static void close_rig(struct rig *r)
{
    sl_session_close(&r->s);
    assert_false(r->parrot.alive);
}

static int try(struct rig *r, const char *text, const int32_t *says,
               struct sl_error *err)
{
    r->parrot.says = says;
    r->parrot.n_passes = 0;
    return sl_session_ask(&r->s, text, NULL, &r->turn, err);
}

static void ask(struct rig *r, const char *text, const int32_t *says)
{
    struct sl_error err;

    assert_ok(try(r, text, says, &err), &err);
}

static const struct sl_chat_message *last(const struct rig *r)
{
    return &r->s.history.v[r->s.history.n - 1];
}

static const int32_t hello[] = {'h', 'i', ' ', 'y', 'o', 'u', END};
static const int32_t hello_eop[] = {'h', 'i', ' ', 'y', 'o', 'u', EOP_ID};

static void a_turn_reads_only_what_is_new(void **state)
{
    struct rig r;
    uint32_t known;

    open_rig(&r, "chatml", true, LONGEST, 0);
    ask(&r, "a", hello);
    assert_int_equal(r.turn.end, SL_CAUSAL_STOP);
    assert_int_equal(r.turn.n_new, 6);
    assert_int_equal(r.turn.n_kept, 0);
    assert_string_equal(last(&r)->content, "hi you");
    known = r.turn.n_prompt + 6;
    ask(&r, "b", hello);
    assert_int_equal(r.turn.n_kept, known);
    /* the end of an answer and the line behind it; a message; where an answer
     * begins */
    assert_int_equal(r.turn.n_prompt - known, 2 + 9 + 11);
    assert_int_equal(r.s.history.n, 4);
    close_rig(&r);
}

static void a_context_seen_in_both_directions_is_read_again(void **state)
{
    struct rig r;

    open_rig(&r, "plain", false, LONGEST, 0);
    ask(&r, "a", hello_eop);
    assert_int_equal(r.turn.end, SL_CAUSAL_STOP);
    assert_int_equal(r.turn.n_kept, 0);
    assert_string_equal(last(&r)->content, "hi you");
    assert_int_equal(r.parrot.held[r.turn.n_prompt - 1], GMASK_ID);
    assert_int_equal(r.parrot.held[r.turn.n_prompt], SOP_ID);
    ask(&r, "b", hello_eop);
    assert_int_equal(r.turn.n_kept, 0);
    assert_int_equal(r.parrot.n_held, r.turn.n_prompt + 1 + 6);
    assert_false(r.parrot.alive);
    close_rig(&r);
    open_rig(&r, "chatglm-6b", false, LONGEST, 3);
    ask(&r, "a", hello_eop);
    assert_int_equal(r.turn.n_prompt, 2); /* a, [gMASK] */
    assert_int_equal(r.turn.end, SL_CAUSAL_LENGTH);
    assert_string_equal(last(&r)->content, "hi");
    close_rig(&r);
}

static void the_stop_text_ends_an_answer_of_a_base_model(void **state)
{
    /* "ok\n问：", in bytes */
    static const int32_t says[] = {'o',  'k',  '\n', 0xe9, 0x97,  0xae,
                                   0xef, 0xbc, 0x9a, 'x',  EOP_ID};
    struct rig r;

    open_rig(&r, "plain", false, LONGEST, 0);
    ask(&r, "a", says);
    assert_int_equal(r.turn.end, SL_CAUSAL_ENOUGH);
    assert_string_equal(last(&r)->content, "ok");
    close_rig(&r);
    open_rig(&r, "plain", true, LONGEST, 0);
    ask(&r, "a", says);
    assert_int_equal(r.turn.end, SL_CAUSAL_ENOUGH);
    assert_string_equal(last(&r)->content, "ok");
    close_rig(&r);
}

static void the_oldest_turns_go_when_the_context_is_full(void **state)
{
    for (int causal = 0; causal < 2; causal++) {
        struct sl_error err;
        struct rig r;
        size_t dropped = 0, n = 0;

        open_rig(&r, causal ? "chatml" : "plain", causal, 320, 0);
        assert_ok(sl_chat_history_set_system(&r.s.history, "S", &err), &err);
        while (dropped == 0 && n < 100) {
            ask(&r, "what?", causal ? hello : hello_eop);
            dropped = r.turn.n_dropped;
            n++;
            assert_in_range(r.turn.n_prompt, 1, 320 - 320 / 4);
        }
        assert_in_range(dropped, 1, n - 1);
        /* room for more than one turn was made, the history has them all */
        ask(&r, "what?", causal ? hello : hello_eop);
        assert_int_equal(r.turn.n_dropped, 0);
        assert_int_equal(r.s.history.n, 1 + 2 * (n + 1));
        assert_int_equal(r.s.history.v[r.s.first].role, SL_CHAT_USER);
        if (causal)
            assert_in_range(r.turn.n_kept, 20, 320);
        close_rig(&r);
    }
}

static void a_question_that_is_too_long_is_refused(void **state)
{
    struct rig r;
    struct sl_error err;
    char text[128];

    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    for (int causal = 0; causal < 2; causal++) {
        open_rig(&r, causal ? "chatml" : "plain", causal, 128, 0);
        ask(&r, "a", causal ? hello : hello_eop);
        assert_int_equal(try(&r, text, hello, &err), -1);
        assert_int_equal(err.code, SL_ERR_USAGE);
        assert_int_equal(r.s.history.n, 2);
        ask(&r, "b", causal ? hello : hello_eop);
        assert_int_equal(r.turn.n_dropped, 0);
        close_rig(&r);
    }
}

static void an_answer_that_fills_the_context_ends_there(void **state)
{
    int32_t says[LONGEST];
    struct rig r;

    for (int i = 0; i < LONGEST; i++)
        says[i] = 'x';
    for (int causal = 0; causal < 2; causal++) {
        uint32_t sop = causal ? 0 : 1;

        open_rig(&r, causal ? "chatml" : "plain", causal, 96, 0);
        ask(&r, "a", says);
        assert_int_equal(r.turn.end, SL_CAUSAL_FULL);
        /* the last one said need not be read */
        assert_in_range(r.turn.n_prompt + sop + r.turn.n_new, 96, 97);
        assert_int_equal(strlen(last(&r)->content), r.turn.n_new);
        close_rig(&r);
    }
}

static void an_interrupted_answer_is_kept_as_far_as_it_came(void **state)
{
    struct rig r;

    for (int causal = 0; causal < 2; causal++) {
        const int32_t *says = causal ? hello : hello_eop;

        open_rig(&r, causal ? "chatml" : "plain", causal, LONGEST, 0);
        r.parrot.fail_code = SL_ERR_INTERRUPTED;
        r.parrot.fail_at = 0;
        ask(&r, "a", says);
        assert_int_equal(r.turn.end, SL_CAUSAL_INTERRUPTED);
        assert_int_equal(r.s.history.n, 0);
        r.parrot.fail_at = 2;
        ask(&r, "a", says);
        assert_int_equal(r.turn.end, SL_CAUSAL_INTERRUPTED);
        assert_int_equal(r.s.history.n, 2);
        assert_string_equal(last(&r)->content, "hi");
        r.parrot.fail_at = SIZE_MAX;
        ask(&r, "b", says);
        assert_int_equal(r.turn.end, SL_CAUSAL_STOP);
        assert_int_equal(r.turn.n_kept > 0, causal);
        assert_int_equal(r.s.history.n, 4);
        close_rig(&r);
    }
}

static void after_an_error_all_is_as_it_was(void **state)
{
    struct sl_error err;
    struct rig r;

    open_rig(&r, "chatml", true, LONGEST, 0);
    ask(&r, "a", hello);
    r.parrot.fail_code = SL_ERR_IO;
    r.parrot.fail_at = 3;
    assert_int_equal(try(&r, "b", hello, &err), -1);
    assert_int_equal(err.code, SL_ERR_IO);
    assert_int_equal(r.s.history.n, 2);
    r.parrot.fail_at = SIZE_MAX;
    ask(&r, "c", hello);
    assert_int_equal(r.turn.n_kept, 0);
    assert_string_equal(last(&r)->content, "hi you");
    close_rig(&r);
}

static void thinking_is_kept_apart_and_not_said_again(void **state)
{
    static const int32_t says[] = {THINK, '\n',      'w',  'e', 'l', 'l',
                                   '\n',  THINK_END, '\n', 'o', 'k', END};
    struct rig r;
    size_t n = 0;

    open_rig(&r, "qwen3", true, LONGEST, 0);
    ask(&r, "a", says);
    assert_string_equal(last(&r)->content, "ok");
    assert_string_equal(last(&r)->reasoning, "well");
    assert_false(r.turn.cut_in_thought);
    ask(&r, "b", says);
    for (size_t i = 0; i < r.turn.n_prompt; i++)
        n += r.parrot.held[i] == THINK;
    assert_int_equal(n, 0);
    close_rig(&r);
    open_rig(&r, "qwen3", true, LONGEST, 4);
    ask(&r, "a", says);
    assert_true(r.turn.cut_in_thought);
    assert_int_equal(r.turn.end, SL_CAUSAL_LENGTH);
    assert_string_equal(last(&r)->content, "");
    close_rig(&r);
}

static void an_empty_answer_is_an_answer(void **state)
{
    struct rig r;

    open_rig(&r, "chatml", true, LONGEST, 0);
    ask(&r, "a", hello + 6);
    assert_int_equal(r.s.history.n, 2);
    assert_string_equal(last(&r)->content, "");
    close_rig(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_turn_reads_only_what_is_new),
        cmocka_unit_test(a_context_seen_in_both_directions_is_read_again),
        cmocka_unit_test(the_stop_text_ends_an_answer_of_a_base_model),
        cmocka_unit_test(the_oldest_turns_go_when_the_context_is_full),
        cmocka_unit_test(a_question_that_is_too_long_is_refused),
        cmocka_unit_test(an_answer_that_fills_the_context_ends_there),
        cmocka_unit_test(an_interrupted_answer_is_kept_as_far_as_it_came),
        cmocka_unit_test(after_an_error_all_is_as_it_was),
        cmocka_unit_test(thinking_is_kept_apart_and_not_said_again),
        cmocka_unit_test(an_empty_answer_is_an_answer),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
