#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/ckpt_maker.h"
#include "tests/logits_run.h"
#include "tests/support.h"

/* A real model, as its publisher gives it away: SmolLM2-135M-Instruct, Q4_1,
 * whose greedy ids by exact arithmetic are in golden/H_family/smollm2. A part
 * of them unless SLUICE_LONG is set. */

static char dir[1024], file[1024];
static json_t *cases;

/* The path, or why there is none; false then. */
static bool fetch(char text[1024])
{
    char path[1024], command[1200];
    FILE *p;
    size_t n;

    snprintf(command, sizeof command, "sh '%s' 2>&1",
             test_source(path, "tests/fetch_smollm2.sh"));
    p = popen(command, "r");
    assert_non_null(p);
    n = fread(text, 1, 1023, p);
    text[n] = '\0';
    text[strcspn(text, "\n")] = '\0';
    return pclose(p) == 0;
}

static int32_t best(const float *row, size_t vocab)
{
    size_t at = 0;

    for (size_t i = 1; i < vocab; i++)
        at = row[i] > row[at] ? i : at;
    return (int32_t)at;
}

/* Fed what was chosen, every choice is the same. */
static void check_greedy(const json_t *c, size_t most)
{
    const json_t *ids = json_object_get(c, "ids");
    const json_t *want =
        json_object_get(json_object_get(c, "exact_greedy"), "new_ids");
    size_t n_ids = json_array_size(ids), n = json_array_size(want);
    json_t *fed = json_copy((json_t *)ids);
    struct test_array got;
    size_t vocab;

    n = n < most ? n : most;
    assert_true(n > 0 && n_ids > 0);
    for (size_t i = 0; i + 1 < n; i++)
        json_array_append(fed, json_array_get(want, i));
    write_logits_input(dir, json_pack("{so}", "ids", fed));
    run_logits(dir, &got, "--activations f32 --ram 400M");
    vocab = got.shape[got.n_dims - 1];
    assert_int_equal(got.n, (n_ids + n - 1) * vocab);
    for (size_t i = 0; i < n; i++) {
        const float *row = (const float *)got.data + (n_ids - 1 + i) * vocab;

        assert_int_equal(best(row, vocab),
                         json_integer_value(json_array_get(want, i)));
    }
    test_array_fini(&got);
}

static void greedy_ids_are_those_of_exact_arithmetic(void **state)
{
    bool all = getenv("SLUICE_LONG") != NULL;
    const json_t *list = json_object_get(cases, "cases"), *c;
    size_t i;

    assert_int_equal(json_array_size(list), 6);
    json_array_foreach(list, i, c)
    {
        if (all || i == 0)
            check_greedy(c, all ? 1000 : 8);
    }
}

/* Its tokenizer is in the metadata: "smollm", 49152 tokens. */
static void texts_become_the_ids_of_its_publisher(void **state)
{
    const json_t *list = json_object_get(cases, "tokenizer_cases"), *c;
    char path[1200], out[1200];
    size_t i;

    json_array_foreach(list, i, c)
    {
        const json_t *text = json_object_get(c, "text");
        const json_t *want = json_object_get(c, "ids");
        char *data, *at;
        size_t n;

        snprintf(path, sizeof path, "%s/text", dir);
        snprintf(out, sizeof out, "%s/log", dir);
        maker_file(path, json_string_value(text), json_string_length(text));
        run_sluice(dir, "tokenize -m '%s/model.gguf' <'%s'", dir, path);
        at = data = (char *)test_read_file(out, &n);
        for (size_t k = 0; k < json_array_size(want); k++)
            assert_int_equal(strtol(at, &at, 10),
                             json_integer_value(json_array_get(want, k)));
        assert_int_equal(strspn(at, " \n"), strlen(at));
        free(data);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greedy_ids_are_those_of_exact_arithmetic),
        cmocka_unit_test(texts_become_the_ids_of_its_publisher),
    };
    char path[1024];
    int rc;

    if (test_shared(path, "golden/H_family/smollm2/cases.json") == NULL)
        test_skip_all("no golden data of SmolLM2");
    if (!fetch(file))
        test_skip_all(file);
    cases = test_json(path);
    test_temp_dir(dir);
    run_sluice(dir, "convert -q -o '%s/model.gguf' '%s'", dir, file);
    rc = cmocka_run_group_tests(tests, NULL, NULL);
    test_remove_tree(dir);
    json_decref(cases);
    return rc;
}
