#include "config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/decode/row.h"
#include "src/eval/build.h"
#include "src/eval/console.h"
#include "src/eval/files.h"
#include "src/eval/lambada.h"
#include "src/eval/metrics.h"
#include "src/eval/pack.h"
#include "src/eval/wikitext.h"
#include "tests/support.h"
#include "tests/vocabs.h"

/* --- metrics ------------------------------------------------------------- */

static void answers_are_compared_as_squad_has_it(void **state)
{
    static const char *const cases[][2] = {
        {"The  Quick, brown-fox!", "quick brownfox"},
        {"an apple a day", "apple day"},
        {"a", ""},
        {"theatre and anthem", "theatre and anthem"},
        {"Ärger\u3000über\nÉcole", "ärger über école"},
        {"中国。a", "中国。"},
        {"中国a", "中国a"},
        {"", ""},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct sl_str out = {0};
        struct sl_error err;

        assert_int_equal(
            sl_metric_normalise(&out, cases[i][0], strlen(cases[i][0]), &err),
            0);
        assert_string_equal(sl_str_text(&out), cases[i][1]);
        sl_str_fini(&out);
    }
}

static void overlap_of_words_counts_each_as_often_as_both_have_it(void **state)
{
    static const struct {
        const char *said, *target;
        double exact, f1;
    } cases[] = {
        {"the cat", "Cat.", 1, 1},
        {"cat sat", "cat", 0, 2.0 / 3},
        {"b b b", "b b c", 0, 2.0 / 3},
        {"dog", "cat", 0, 0},
        {"", "cat", 0, 0},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct sl_error err;
        double exact, f1;

        assert_int_equal(
            sl_metric_exact(&exact, cases[i].said, cases[i].target, &err), 0);
        assert_int_equal(
            sl_metric_f1(&f1, cases[i].said, cases[i].target, &err), 0);
        assert_true(exact == cases[i].exact);
        assert_true(fabs(f1 - cases[i].f1) < 1e-12);
    }
}

static void numbers_of_statistics_are_those_of_the_books(void **state)
{
    const double sure[] = {0.95, 0.95, 0.55, 0.55};
    const uint8_t right[] = {1, 0, 1, 1};
    const double differences[] = {1, 1, 1, 1, 1};
    double low, high;
    struct sl_error err;

    (void)state;
    /* exact binomial: 2 * P(X <= 2), X of 10 at 1/2 */
    assert_true(fabs(sl_metric_mcnemar(2, 8) - 2 * 56.0 / 1024) < 1e-12);
    assert_true(sl_metric_mcnemar(0, 0) == 1);
    assert_true(sl_metric_mcnemar(5, 5) == 1);
    assert_true(fabs(sl_metric_mcnemar(0, 6) - 2.0 / 64) < 1e-12);
    assert_true(fabs(sl_metric_ece(sure, right, 4) - (0.9 + 0.9) / 4) < 1e-12);
    assert_true(sl_metric_ppl(100, 1) == exp(20));
    assert_true(sl_metric_ppl(6, 3) == exp(2));
    assert_int_equal(
        sl_metric_bootstrap(&low, &high, differences, 5, 100, 7, &err), 0);
    assert_true(low == 1 && high == 1);
}

static void a_rows_sum_stays_finite_whatever_the_logits(void **state)
{
    const float large[] = {10000, 10000, -10000}, bad[] = {1, NAN, 0};
    double most, sum = sl_row_log_sum(large, 3, &most);

    (void)state;
    assert_true(most == 10000 && fabs(sum - 10000 - log(2)) < 1e-9);
    assert_true(isnan(sl_row_log_sum(bad, 3, &most)));
}

/* --- console ------------------------------------------------------------- */

static char *printed(void (*print)(FILE *out))
{
    static const size_t room = 4096;
    char *text = calloc(1, room);
    FILE *out = fmemopen(text, room, "w");

    print(out);
    fclose(out);
    return text;
}

/* GLM-130B's README has these for CoLA, of files of one size. */
static void print_cola(FILE *out)
{
    static const double v[] = {42.665, 56.951, 65.197, 57.622, 65.197};
    static const size_t n[] = {1043, 1043, 1043, 1043, 1043};
    static const size_t uneven[] = {1, 0, 0, 0, 3};
    struct sl_scores scores[] = {{"Accuracy", v, n, 5}, {"F1", v, uneven, 5}};

    sl_console_summary(out, "validation", scores, 1, 1);
    sl_console_summary(out, "Overall", scores, 1, 0);
    sl_console_summary(out, "test", scores, 2, 1);
}

static void groups_are_summed_up_in_the_references_words(void **state)
{
    char *text = printed(print_cola);

    (void)state;
    assert_string_equal(
        text,
        "    Group validation Accuracy: max = 65.197, median = 57.622, average "
        "= 57.526\n"
        "Group Overall Accuracy: max = 65.197, median = 57.622, average = "
        "57.526\n"
        "      Group test: \n"
        "        Metric Accuracy: max = 65.197, median = 57.622, average = "
        "57.526\n"
        "        Metric F1: max = 65.197, median = 57.622, average = 59.564\n");
    free(text);
}

static void print_file(FILE *out)
{
    static const char *const names[] = {"EM", "F1"};
    static const double v[] = {12.3456, 100};

    sl_console_group(out, "dev");
    sl_console_file(out, "p/x.jsonl", names, v, 2);
    sl_console_total(out, 2, 61.26);
}

static void files_are_told_of_in_the_references_words(void **state)
{
    char *text = printed(print_file);

    (void)state;
    assert_string_equal(text, "    Evaluating group dev:\n"
                              "        Finish p/x.jsonl, EM = 12.346, F1 = "
                              "100.000\n"
                              "Finish 2 tasks in 61.3s\n");
    free(text);
}

static void numbers_are_rounded_as_python_prints_them(void **state)
{
    static const struct {
        double x;
        bool whole;
        const char *text;
    } cases[] = {
        {50, false, "50.0"},
        {66.6666, false, "66.67"},
        {66.7, false, "66.7"},
        {0, true, "0"},
    };
    char text[32];

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        sl_python_round2(text, cases[i].x, cases[i].whole);
        assert_string_equal(text, cases[i].text);
    }
}

static void floats_are_as_python_has_them(void **state)
{
    static const struct {
        double x;
        const char *text;
    } cases[] = {
        {1, "1.0"},
        {10, "10.0"},
        {70, "70.0"},
        {0.6, "0.6"},
        {0, "0.0"},
        {1.3846153846153846, "1.3846153846153846"},
        {1234567, "1234567.0"},
        {-0.25, "-0.25"},
        {0.0001, "0.0001"},
        {0.00001, "1e-05"},
        {1e15, "1000000000000000.0"},
        {1e16, "1e+16"},
    };
    char text[32];

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        sl_python_float(text, cases[i].x);
        assert_string_equal(text, cases[i].text);
    }
}

/* --- files --------------------------------------------------------------- */

static void patterns_match_as_pythons_glob_does(void **state)
{
    static const struct {
        const char *pattern, *path;
        bool matches;
    } cases[] = {
        {"**/*.json*", "a.json", true},
        {"**/*.json*", "a/b/c.jsonl", true},
        {"**/*.json*", "a/.b/c.jsonl", false},
        {"**/*.json*", ".c.jsonl", false},
        {"stem/*.json", "stem/a.json", true},
        {"stem/*.json", "stem/b/a.json", false},
        {"stem/*.json", "other/a.json", false},
        {"*/x", "a/x", true},
        {"*/x", "x", false},
        {"**/test.jsonl", "test.jsonl", true},
        {"**/test.jsonl", "atest.jsonl", false},
        {"a/**/b", "a/b", true},
        {"a/**/b", "a/c/d/b", true},
        {"[ab]?.txt", "bx.txt", true},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (sl_glob_match(cases[i].pattern, cases[i].path) != cases[i].matches)
            fail_msg("%s and %s", cases[i].pattern, cases[i].path);
    }
}

/* --- questions ------------------------------------------------------------ */

enum { MASK = 20, GMASK, SOP, EOS };

/* A text of ids 1, 2, 3 with the choices 10 and 11, 12. */
static int32_t text_ids[] = {1, 2, 3}, one_id[] = {10}, two_ids[] = {11, 12};
static struct sl_passage choices[] = {
    {.ids = {one_id, 1, 1}},
    {.ids = {two_ids, 2, 2}},
};
static const struct sl_example example = {
    .inputs = {.ids = {text_ids, 3, 3}},
    .choices = choices,
    .n_choices = 2,
};

struct asker {
    struct sl_tokenizer *t;
    struct sl_hparams hp;
    struct sl_builder b;
    struct sl_task task;
    struct sl_question q;
    uint32_t len[2];
};

static void asker_init(struct asker *a, bool is_glm, bool causal)
{
    struct sl_vocab_options o = {0};
    char path[1024];
    struct test_file files[] = {
        {"tokenizer.json",
         test_source(path, "tests/golden/tokenizers/smollm.json"), NULL},
        {NULL}};
    struct sl_builder_options none = {0};
    struct sl_error err;

    *a = (struct asker){
        .hp = {.vocab = 64, .max_positions = 64, .causal = causal},
        .t = test_vocab_files(files, &o),
    };
    a->hp.position_2d = is_glm;
    a->hp.text.special =
        (struct sl_special_ids){MASK, GMASK, -1, -1, SOP, -1, -1, -1, EOS, -1};
    assert_ok(sl_builder_init(&a->b, a->t, &a->hp, is_glm, &none, &err), &err);
    assert_ok(sl_task_init(&a->task, SL_TASK_MUL, "a", &err), &err);
}

static void asker_ask(struct asker *a)
{
    struct sl_error err;

    assert_ok(sl_build_choices(&a->q, a->len, &a->b, &a->task, &example, &err),
              &err);
}

static void asker_fini(struct asker *a)
{
    sl_question_fini(&a->q);
    sl_task_fini(&a->task);
    sl_builder_fini(&a->b);
    sl_tokenizer_destroy(a->t);
}

static int32_t position(const struct sl_strand *s, uint32_t at)
{
    return at < s->n_run ? s->start + (int32_t)at : s->held;
}

static int32_t block(const struct sl_strand *s, uint32_t at)
{
    return at < s->block_from ? 0 : s->block + (int32_t)(at - s->block_from);
}

/* want: id, position, block of each place. */
static void assert_strand(const struct sl_strand *s, uint32_t n,
                          const int32_t (*want)[3])
{
    assert_int_equal(s->n, n);
    for (uint32_t i = 0; i < n; i++) {
        assert_int_equal(s->ids[i], want[i][0]);
        assert_int_equal(position(s, i), want[i][1]);
        assert_int_equal(block(s, i), want[i][2]);
    }
}

static void glm130b_puts_all_choices_behind_one_context(void **state)
{
    static const int32_t root[][3] = {
        {1, 0, 0}, {2, 1, 0}, {3, 2, 0}, {MASK, 3, 0}, {SOP, 3, 0}};
    static const int32_t branch[][3] = {{11, 3, 0}};
    static const int32_t task_root[][3] = {
        {1, 0, 0}, {2, 1, 0}, {3, 2, 0}, {GMASK, 3, 0}, {SOP, 4, 0}};
    static const int32_t task_branch[][3] = {{11, 5, 0}};
    struct asker a;

    (void)state;
    asker_init(&a, false, false);
    asker_ask(&a);
    assert_int_equal(a.q.n_strands, 2);
    assert_int_equal(a.q.strands[0].n_context, 4);
    assert_strand(&a.q.strands[0], 5, root);
    assert_strand(&a.q.strands[1], 1, branch);
    /* 10 and 11 behind [sop], 12 behind 11 */
    assert_int_equal(a.q.strands[0].n_asks, 2);
    assert_int_equal(a.q.strands[0].asks[1].id, 11);
    assert_int_equal(a.q.strands[0].asks[1].to, 1);
    assert_int_equal(a.q.strands[1].asks[0].id, 12);
    assert_int_equal(a.q.strands[1].asks[0].to, 2);
    sl_question_fini(&a.q);
    a.task.use_task_mask = true;
    asker_ask(&a);
    assert_strand(&a.q.strands[0], 5, task_root);
    assert_strand(&a.q.strands[1], 1, task_branch);
    asker_fini(&a);
}

static void glm_closes_its_text_and_counts_a_second_position(void **state)
{
    static const int32_t root[][3] = {{1, 0, 0},    {2, 1, 0},   {3, 2, 0},
                                      {MASK, 3, 0}, {EOS, 4, 0}, {SOP, 3, 1}};
    static const int32_t branch[][3] = {{11, 3, 2}};
    struct asker a;

    (void)state;
    asker_init(&a, true, false);
    asker_ask(&a);
    assert_int_equal(a.q.strands[0].n_context, 5);
    assert_strand(&a.q.strands[0], 6, root);
    assert_strand(&a.q.strands[1], 1, branch);
    asker_fini(&a);
}

/* The text of choices stands behind [sop], of the last word of a text all but
 * its first id. */
static void one_way_glm_reads_its_text_where_it_answers(void **state)
{
    static const int32_t root[][3] = {
        {GMASK, 0, 0}, {SOP, 0, 1}, {1, 0, 2}, {2, 0, 3}, {3, 0, 4}};
    static const int32_t branch[][3] = {{11, 0, 5}};
    static const int32_t cloze[][3] = {{1, 0, 0},   {GMASK, 1, 0}, {EOS, 2, 0},
                                       {SOP, 1, 1}, {2, 1, 2},     {3, 1, 3}};
    struct asker a;

    (void)state;
    asker_init(&a, true, false);
    a.b.unidirectional = true;
    asker_ask(&a);
    assert_int_equal(a.q.strands[0].n_context, 1);
    assert_strand(&a.q.strands[0], 5, root);
    assert_strand(&a.q.strands[1], 1, branch);
    sl_question_fini(&a.q);
    a.task.type = SL_TASK_GEN;
    asker_ask(&a);
    assert_int_equal(a.q.strands[0].n_context, 3);
    assert_strand(&a.q.strands[0], 6, cloze);
    asker_fini(&a);
}

/* What tokens' blanks become; the rest stays. */
/* Its vocabulary's size is what tells GLM-130B; punctuation is banned in all.
 */
static void
ids_that_glm130b_bans_are_banned_in_its_vocabulary_alone(void **state)
{
    static const struct {
        uint32_t vocab;
        bool banned;
    } cases[] = {{150528, true}, {150529, false}, {130528, false}, {64, false}};
    struct asker a;
    struct sl_error err;

    (void)state;
    asker_init(&a, false, true);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bool banned = cases[i].banned;
        struct sl_lambada l = {0};

        assert_ok(sl_lambada_init(&l, a.t, cases[i].vocab, &err), &err);
        assert_int_equal(l.invalid.n, 32 + (banned ? 3 : 0));
        assert_int_equal(l.n_prefixes, 32 + (banned ? 2 : 0));
        if (banned) {
            assert_int_equal(l.invalid.v[0], 20068);
            assert_int_equal(l.invalid.v[1], 146010);
            assert_int_equal(l.invalid.v[2], 146337);
            assert_int_equal(l.prefixes[0].v[0], 46010);
            assert_int_equal(l.prefixes[1].v[0], 146337);
        }
        sl_lambada_fini(&l);
    }
    asker_fini(&a);
}

static void wikitext_is_joined_as_it_was_written(void **state)
{
    static const char *const cases[][2] = {
        {" = = Title = = \n a", " == Title ==\na"},
        {"1 @,@ 000 @.@ 5 @-@ day", "1,000.5-day"},
        {"a , b . c : d ; e ! f ? g ,", "a, b. c: d; e! f? g ,"},
        {"( a ( b ) c ) [ \xc2\xa0 d \n] { }", "(a ( b) c ) [d] {}"},
        {"\" a \" b \" c", "\"a\" b \" c"},
        {"' a ' s 's dogs ' ran", "'a' s's dogs' ran"},
        {"x /' 1/' 2/ y", "x /'[0-9]/' 2/ y"},
        {"90 \xc2\xb0 N N 5", "90\xc2\xb0N 1 5"},
        {"", ""},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct sl_str out = {0};
        struct sl_error err;

        assert_ok(
            sl_wikitext_join(&out, cases[i][0], strlen(cases[i][0]), &err),
            &err);
        assert_string_equal(sl_str_text(&out), cases[i][1]);
        sl_str_fini(&out);
    }
    assert_true(sl_wikitext_is_name("w/wiki.test.tokens"));
    assert_false(sl_wikitext_is_name("tokens") || sl_wikitext_is_name("a.txt"));
}

static void a_long_context_loses_its_beginning_and_is_counted(void **state)
{
    struct asker a;

    (void)state;
    asker_init(&a, false, false);
    a.task.max_seq_length = 7; /* less 3 ids of choices and 2: two remain */
    asker_ask(&a);
    assert_int_equal(a.q.strands[0].ids[0], 2);
    assert_int_equal(a.q.strands[0].n_context, 3);
    assert_true(a.q.truncated);
    assert_int_equal(a.b.n_truncated, 1);
    asker_fini(&a);
}

static void windows_score_every_id_of_a_text_once(void **state)
{
    static int32_t v[40];
    const struct sl_ids text = {v, 40, 40};
    struct asker a;
    struct sl_error err;

    (void)state;
    for (int32_t i = 0; i < 40; i++)
        v[i] = i + 24;
    for (unsigned kind = 0; kind < 2; kind++) {
        uint32_t scored = 0;
        size_t n;

        asker_init(&a, false, kind == 1);
        if (kind == 1) /* that vocabulary begins texts with nothing */
            assert_ok(sl_ids_add(&a.b.lead, 0, &err), &err);
        a.task.max_seq_length = 17;
        a.task.generation_length = 5;
        n = sl_build_n_windows(&a.b, &a.task, text.n);
        assert_int_equal(n, 6); /* 16, and 24 in fives */
        for (size_t i = 0; i < n; i++) {
            assert_ok(sl_build_window(&a.q, &a.b, &a.task, &text, i, &err),
                      &err);
            for (uint32_t k = 0; k < a.q.n_logp; k++)
                assert_int_equal(a.q.strands[0].asks[k].id, v[scored + k]);
            scored += a.q.n_logp;
            sl_question_fini(&a.q);
        }
        assert_int_equal(scored, 40);
        asker_fini(&a);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_are_compared_as_squad_has_it),
        cmocka_unit_test(overlap_of_words_counts_each_as_often_as_both_have_it),
        cmocka_unit_test(numbers_of_statistics_are_those_of_the_books),
        cmocka_unit_test(a_rows_sum_stays_finite_whatever_the_logits),
        cmocka_unit_test(groups_are_summed_up_in_the_references_words),
        cmocka_unit_test(files_are_told_of_in_the_references_words),
        cmocka_unit_test(numbers_are_rounded_as_python_prints_them),
        cmocka_unit_test(floats_are_as_python_has_them),
        cmocka_unit_test(patterns_match_as_pythons_glob_does),
        cmocka_unit_test(glm130b_puts_all_choices_behind_one_context),
        cmocka_unit_test(glm_closes_its_text_and_counts_a_second_position),
        cmocka_unit_test(one_way_glm_reads_its_text_where_it_answers),
        cmocka_unit_test(
            ids_that_glm130b_bans_are_banned_in_its_vocabulary_alone),
        cmocka_unit_test(wikitext_is_joined_as_it_was_written),
        cmocka_unit_test(a_long_context_loses_its_beginning_and_is_counted),
        cmocka_unit_test(windows_score_every_id_of_a_text_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
