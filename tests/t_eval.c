#include "config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/eval/console.h"
#include "src/eval/files.h"
#include "src/eval/metrics.h"
#include "src/eval/pack.h"
#include "tests/support.h"

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
        cmocka_unit_test(patterns_match_as_pythons_glob_does),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
