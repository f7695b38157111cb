#include "config.h"

#include <string.h>

#include "src/base/lines.h"
#include "src/eval/wikitext.h"

bool sl_wikitext_is_name(const char *name)
{
    static const char end[] = ".tokens";
    size_t n = strlen(name);

    return n >= sizeof end && strcmp(name + n - (sizeof end - 1), end) == 0;
}

/* All of one text by another, from the left, as Python's str.replace does. */
static int replace(struct sl_str *text, const char *from, const char *to,
                   struct sl_error *err)
{
    size_t n_from = strlen(from);
    struct sl_str out = {0};
    const char *at = sl_str_text(text), *end = at + text->n, *hit;
    int rc = 0;

    while (rc == 0 && (hit = memmem(at, (size_t)(end - at), from, n_from))) {
        rc = sl_str_append(&out, at, (size_t)(hit - at), err);
        if (rc == 0)
            rc = sl_str_append(&out, to, strlen(to), err);
        at = hit + n_from;
    }
    if (rc == 0)
        rc = sl_str_append(&out, at, (size_t)(end - at), err);
    sl_str_fini(text);
    *text = out;
    return rc;
}

/* What stands between two marks loses the blanks at its ends; a mark whose
 * other is missing stays as it is. */
static int close_up(struct sl_str *text, const char marks[2],
                    struct sl_error *err)
{
    struct sl_str out = {0};
    const char *at = sl_str_text(text), *end = at + text->n, *open, *close;
    int rc = 0;

    while (rc == 0 && (open = memchr(at, marks[0], (size_t)(end - at))) &&
           (close = memchr(open + 1, marks[1], (size_t)(end - open - 1)))) {
        const char *within = open + 1;
        size_t n = (size_t)(close - within);

        sl_text_strip(&within, &n);
        rc = sl_str_append(&out, at, (size_t)(open + 1 - at), err);
        if (rc == 0)
            rc = sl_str_append(&out, within, n, err);
        if (rc == 0)
            rc = sl_str_append(&out, close, 1, err);
        at = close + 1;
    }
    if (rc == 0)
        rc = sl_str_append(&out, at, (size_t)(end - at), err);
    sl_str_fini(text);
    *text = out;
    return rc;
}

/* The original's rule for "/' 7/", of which it makes "/'[0-9]/". */
static int replace_quoted_digits(struct sl_str *text, struct sl_error *err)
{
    static const char from[] = "/' 0/", to[] = "/'[0-9]/";
    const size_t n = sizeof from - 1;
    struct sl_str out = {0};
    const char *at = sl_str_text(text), *end = at + text->n;
    int rc = 0;

    while (rc == 0 && at < end) {
        bool hit = (size_t)(end - at) >= n && memcmp(at, from, 3) == 0 &&
                   at[3] >= '0' && at[3] <= '9' && at[4] == '/';

        rc = hit ? sl_str_add(&out, to, err) : sl_str_append(&out, at, 1, err);
        at += hit ? n : 1;
    }
    sl_str_fini(text);
    *text = out;
    return rc;
}

int sl_wikitext_join(struct sl_str *out, const char *text, size_t n,
                     struct sl_error *err)
{
    static const char *const first[][2] = {
        {" @-@ ", "-"}, {" @,@ ", ","}, {" @.@ ", "."},
        {" : ", ": "},  {" ; ", "; "},  {" . ", ". "},
        {" ! ", "! "},  {" ? ", "? "},  {" , ", ", "},
    };
    static const char *const marks[] = {"()", "[]", "{}", "\"\"", "''"};
    static const char *const last[][2] = {
        {"= = = =", "===="}, {"= = =", "==="},
        {"= =", "=="},       {" \xc2\xb0 ", "\xc2\xb0"},
        {" \n", "\n"},       {"\n ", "\n"},
        {" N ", " 1 "},      {" 's", "'s"},
    };
    int rc = sl_str_append(out, text, n, err);

    if (rc == 0)
        rc = replace(out, "s '", "s'", err);
    if (rc == 0)
        rc = replace_quoted_digits(out, err);
    for (size_t i = 0; rc == 0 && i < sizeof first / sizeof *first; i++)
        rc = replace(out, first[i][0], first[i][1], err);
    for (size_t i = 0; rc == 0 && i < sizeof marks / sizeof *marks; i++)
        rc = close_up(out, marks[i], err);
    for (size_t i = 0; rc == 0 && i < sizeof last / sizeof *last; i++)
        rc = replace(out, last[i][0], last[i][1], err);
    return rc;
}
