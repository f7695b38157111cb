#include "config.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "src/text/pretok_regex.h"

/* PCRE2's \s has U+180E, which is no whitespace since Unicode 6.3. */
#define SPACES                                                                 \
    "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}"           \
    "\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"

/* Memory for one match, in KiB, where PCRE2 has no JIT. */
#define HEAP_KIB 65536u

struct sl_regex {
    pcre2_code *code;
    pcre2_match_data *data;
    pcre2_match_context *context;
};

/* What stands for the escape s[0..2) in PCRE2, or NULL: itself. */
static const char *put_for(const char *s, bool in_class)
{
    if (s[1] == 's')
        return in_class ? SPACES : "[" SPACES "]";
    return s[1] == 'S' && !in_class ? "[^" SPACES "]" : NULL;
}

/* Bytes of [:alpha:] at s, or 0. */
static size_t posix_class(const char *s, size_t left)
{
    const char *end = left > 2 && memcmp(s, "[:", 2) == 0
                          ? memmem(s + 2, left - 2, ":]", 2)
                          : NULL;

    return end != NULL ? (size_t)(end + 2 - s) : 0;
}

/* Writes the expression as PCRE2 wants it. Set operations of Oniguruma would
 * silently mean something else, so they are refused. */
static int translate(struct sl_str *out, const char *s, size_t n,
                     struct sl_error *err)
{
    bool in_class = false;
    size_t first = 0; /* where a ] is a character of the class */

    for (size_t i = 0, size; i < n; i += size) {
        const char *put = NULL;

        size = 1;
        if (s[i] == '\\' && i + 1 < n) {
            size = 2;
            put = put_for(s + i, in_class);
        } else if (in_class && posix_class(s + i, n - i) > 0) {
            size = posix_class(s + i, n - i);
        } else if (in_class && (s[i] == '[' || (s[i] == '&' && i + 1 < n &&
                                                s[i + 1] == '&'))) {
            return sl_fail(err, SL_ERR_UNSUPPORTED,
                           "set operations in a regular expression's class, "
                           "at byte %zu of %zu",
                           i, n);
        } else if (!in_class && s[i] == '[') {
            in_class = true;
            first = i + 1 < n && s[i + 1] == '^' ? i + 2 : i + 1;
        } else if (in_class && s[i] == ']' && i != first) {
            in_class = false;
        }
        if (put != NULL ? sl_str_add(out, put, err) != 0
                        : sl_str_append(out, s + i, size, err) != 0)
            return -1;
    }
    return 0;
}

static int compile(struct sl_regex *re, const char *pattern, size_t n,
                   struct sl_error *err)
{
    pcre2_compile_context *context = pcre2_compile_context_create(NULL);
    PCRE2_UCHAR text[128] = "";
    int code;
    PCRE2_SIZE at;

    if (context == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory for an expression");
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    pcre2_set_parens_nest_limit(context, 64);
    re->code = pcre2_compile((PCRE2_SPTR)pattern, n,
                             PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C,
                             &code, &at, context);
    pcre2_compile_context_free(context);
    if (re->code == NULL) {
        pcre2_get_error_message(code, text, sizeof text);
        return sl_fail(err, SL_ERR_UNSUPPORTED,
                       "a regular expression that PCRE2 does not take: %s, at "
                       "byte %zu",
                       (const char *)text, (size_t)at);
    }
    /* Without JIT it is interpreted. */
    (void)pcre2_jit_compile(re->code, PCRE2_JIT_COMPLETE);
    return 0;
}

int sl_regex_create(struct sl_regex **out, const char *pattern, size_t n,
                    struct sl_error *err)
{
    struct sl_regex *re = calloc(1, sizeof *re);
    struct sl_str made = {0};

    if (re == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory for an expression");
    if (!sl_utf8_valid(pattern, n)) {
        sl_fail(err, SL_ERR_CORRUPT, "a regular expression that is not UTF-8");
        goto fail;
    }
    if (translate(&made, pattern, n, err) != 0 ||
        compile(re, made.n > 0 ? made.s : "", made.n, err) != 0)
        goto fail;
    re->data = pcre2_match_data_create(1, NULL);
    re->context = pcre2_match_context_create(NULL);
    if (re->data == NULL || re->context == NULL) {
        sl_fail(err, SL_ERR_NOMEM, "no memory for an expression");
        goto fail;
    }
    pcre2_set_heap_limit(re->context, HEAP_KIB);
    sl_str_fini(&made);
    *out = re;
    return 0;
fail:
    sl_str_fini(&made);
    sl_regex_destroy(re);
    return -1;
}

void sl_regex_destroy(struct sl_regex *re)
{
    if (re == NULL)
        return;
    pcre2_match_context_free(re->context);
    pcre2_match_data_free(re->data);
    pcre2_code_free(re->code);
    free(re);
}

int sl_regex_find(struct sl_regex *re, const char *s, size_t n, size_t from,
                  size_t *begin, size_t *end, struct sl_error *err)
{
    const PCRE2_SIZE *range;
    int rc = pcre2_match(re->code, (PCRE2_SPTR)s, n, from, PCRE2_NO_UTF_CHECK,
                         re->data, re->context);

    /* The machine code has 32 KiB of stack; what needs more is interpreted. */
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT)
        rc = pcre2_match(re->code, (PCRE2_SPTR)s, n, from,
                         PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, re->data,
                         re->context);
    if (rc == PCRE2_ERROR_NOMATCH)
        return 0;
    if (rc < 0)
        return sl_fail(err, SL_ERR_UNSUPPORTED,
                       "the tokenizer's regular expression fails at byte %zu "
                       "of %zu (PCRE2's error %d)",
                       from, n, rc);
    range = pcre2_get_ovector_pointer(re->data);
    *begin = range[0];
    *end = range[1] < range[0] ? range[0] : range[1]; /* \K in a lookahead */
    return 1;
}
