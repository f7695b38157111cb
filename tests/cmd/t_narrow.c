#include "config.h"

#include <string.h>

#include "src/cmd/narrow.h"
#include "tests/support.h"

/* What text looks like in so many columns. */
static struct sl_str narrowed(const char *text, size_t n, unsigned columns)
{
    struct sl_str to = {0};
    struct sl_error err;

    assert_ok(sl_narrow_text(&to, text, n, columns, &err), &err);
    return to;
}

static void what_fits_stays_and_tables_lose_blanks_first(void **state)
{
    static const struct {
        unsigned columns;
        const char *text, *wanted;
    } cases[] = {
        {40, "  a  b\n\nprose that fits\n", "  a  b\n\nprose that fits\n"},
        /* blanks of all rows become one */
        {20, "name           bytes\nlonger.name      12 \n",
         "name           bytes\nlonger.name      12\n"},
        {20, "name             bytes\nlonger.name         12\n",
         "name        bytes\nlonger.name    12\n"},
        /* rows go on in the next line, all from the same place */
        {24,
         "tensor                    type    bytes\n"
         "layers.0.norm.weight      F32      1024\n"
         "layers.1.attention.query  F16  12345678\n",
         "tensor\n    type    bytes\nlayers.0.norm.weight\n"
         "    F32      1024\nlayers.1.attention.query\n    F16  12345678\n"},
        /* a list keeps what is said beside what it is said of */
        {24, "  mlp      GEGLU, inner 704 and more\n  norms    layer norm\n",
         " mlp   GEGLU, inner 704\n       and more\n norms layer norm\n"},
        /* prose, and a name that no line holds */
        {20, "no GPU is used: there is none\n",
         "no GPU is used:\n  there is none\n"},
        {20, "transformer.word_embeddings\n",
         "transformer.word_\n  embeddings\n"},
        {21, "\xe9\xb4\xa8\xe9\xb4\xa8  of two characters\n",
         "\xe9\xb4\xa8\xe9\xb4\xa8  of two characters\n"},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct sl_str to =
            narrowed(cases[i].text, strlen(cases[i].text), cases[i].columns);

        assert_string_equal(sl_str_text(&to), cases[i].wanted);
        sl_str_fini(&to);
    }
}

/* Nothing is lost or added but blanks and line ends, and no line is longer. */
static void any_text_keeps_its_words_within_any_width(void **state)
{
    static const char letters[] = "ab. _\n  \n\xc3\xa4-9  ";
    unsigned seed = 1;
    char text[600], kept[600];

    for (unsigned columns = 20; columns < 60; columns += 3) {
        for (size_t i = 0; i < sizeof text; i++) {
            seed = seed * 1103515245u + 12345u;
            text[i] = letters[seed / 65536 % (sizeof letters - 1)];
        }
        struct sl_str to = narrowed(text, sizeof text, columns);
        size_t n = 0, m = 0, wide = 0;

        for (size_t i = 0; i < sizeof text; i++)
            if (text[i] != ' ' && text[i] != '\n')
                kept[n++] = text[i];
        for (size_t i = 0; i < to.n; i++) {
            char c = to.s[i];

            wide = c == '\n' ? 0 : wide + ((c & 0xc0) != 0x80);
            assert_true(wide <= columns);
            if (c != ' ' && c != '\n')
                assert_true(m < n && kept[m++] == c);
        }
        assert_int_equal(m, n);
        sl_str_fini(&to);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_fits_stays_and_tables_lose_blanks_first),
        cmocka_unit_test(any_text_keeps_its_words_within_any_width),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
