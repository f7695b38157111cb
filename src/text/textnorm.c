#include "config.h"

#include <stdlib.h>
#include <string.h>

#include <utf8proc.h>

#include "src/text/textnorm.h"

bool sl_is_white_space(uint32_t c)
{
    return (c >= 9 && c <= 13) || c == ' ' || c == 0x85 || c == 0xa0 ||
           c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 ||
           c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

bool sl_is_word(uint32_t c)
{
    switch (utf8proc_category((utf8proc_int32_t)c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
        return true;
    default:
        return false;
    }
}

/* BERT's clean_text (google-research/bert tokenization.py _clean_text). What
 * is not assigned stays: the tables of a program end at its Unicode version,
 * and what was learned from newer texts should not vanish. */
static bool is_control(uint32_t c)
{
    utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)c);

    return c == 0 || c == 0xfffd || k == UTF8PROC_CATEGORY_CC ||
           k == UTF8PROC_CATEGORY_CF || k == UTF8PROC_CATEGORY_CO;
}

/* google-research/bert tokenization.py _is_chinese_char */
static bool is_cjk(uint32_t c)
{
    return (c >= 0x4e00 && c <= 0x9fff) || (c >= 0x3400 && c <= 0x4dbf) ||
           (c >= 0x20000 && c <= 0x2a6df) || (c >= 0x2a700 && c <= 0x2b73f) ||
           (c >= 0x2b740 && c <= 0x2b81f) || (c >= 0x2b820 && c <= 0x2ceaf) ||
           (c >= 0xf900 && c <= 0xfaff) || (c >= 0x2f800 && c <= 0x2fa1f);
}

static int lower(struct sl_str *out, uint32_t c, struct sl_error *err)
{
    /* The one character whose small form is two (SpecialCasing.txt). */
    if (c == 0x130)
        return sl_str_append(out, "i\xcc\x87", 3, err);
    return sl_utf8_put(out, (uint32_t)utf8proc_tolower((utf8proc_int32_t)c),
                       err);
}

static int add_char_by(struct sl_str *out, uint32_t what, uint32_t c,
                       struct sl_error *err)
{
    switch (what) {
    case SL_NORM_LOWER:
        return lower(out, c, err);
    case SL_NORM_STRIP_ACCENTS:
        if (utf8proc_category((utf8proc_int32_t)c) == UTF8PROC_CATEGORY_MN)
            return 0;
        break;
    case SL_NORM_CLEAN:
        if (sl_is_white_space(c) &&
            (c < 0x7f ? c == ' ' || c == '\t' || c == '\n' || c == '\r'
                      : c != 0x85))
            c = ' ';
        else if (is_control(c))
            return 0;
        break;
    default: /* SL_NORM_CJK */
        if (is_cjk(c))
            return sl_str_append(out, " ", 1, err) != 0 ||
                           sl_utf8_put(out, c, err) != 0
                       ? -1
                       : sl_str_append(out, " ", 1, err);
        break;
    }
    return sl_utf8_put(out, c, err);
}

static int by_char(struct sl_str *out, uint32_t what, const char *s, size_t n,
                   struct sl_error *err)
{
    uint32_t c;

    for (size_t i = 0; i < n;) {
        i += sl_utf8_next(&c, s + i);
        if (add_char_by(out, what, c, err) != 0)
            return -1;
    }
    return 0;
}

static bool is_ascii(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if ((uint8_t)s[i] >= 0x80)
            return false;
    }
    return true;
}

static int unicode_form(struct sl_str *out, uint32_t what, const char *s,
                        size_t n, struct sl_error *err)
{
    static const utf8proc_option_t options[] = {
        [SL_NORM_NFC] = UTF8PROC_STABLE | UTF8PROC_COMPOSE,
        [SL_NORM_NFD] = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE,
        [SL_NORM_NFKC] = UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT,
        [SL_NORM_NFKD] = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT,
    };
    utf8proc_uint8_t *made;
    utf8proc_ssize_t size;
    int rc;

    if (is_ascii(s, n))
        return sl_str_append(out, s, n, err);
    size = utf8proc_map((const utf8proc_uint8_t *)s, (utf8proc_ssize_t)n, &made,
                        options[what]);
    if (size < 0)
        return sl_fail(err, SL_ERR_NOMEM,
                       "a text of %zu bytes cannot be normalised: %s", n,
                       utf8proc_errmsg(size));
    rc = sl_str_append(out, (char *)made, (size_t)size, err);
    free(made);
    return rc;
}

static int replace(struct sl_str *out, const struct sl_vocab_step *step,
                   const char *s, size_t n, struct sl_error *err)
{
    size_t at = 0;

    while (step->n_a > 0 && at < n) {
        const char *hit = memmem(s + at, n - at, step->a, step->n_a);
        size_t size = hit != NULL ? (size_t)(hit - s) - at : n - at;

        if (sl_str_append(out, s + at, size, err) != 0)
            return -1;
        at += size;
        if (hit == NULL)
            break;
        if (sl_str_append(out, step->b, step->n_b, err) != 0)
            return -1;
        at += step->n_a;
    }
    return step->n_a > 0 ? 0 : sl_str_append(out, s, n, err);
}

static int strip(struct sl_str *out, const struct sl_vocab_step *step,
                 const char *s, size_t n, struct sl_error *err)
{
    size_t begin = 0, end = 0;
    bool seen = false;
    uint32_t c;

    for (size_t i = 0; i < n;) {
        i += sl_utf8_next(&c, s + i);
        if (!sl_is_white_space(c)) {
            seen = true;
            end = i;
        } else if (!seen) {
            begin = i;
        }
    }
    if (!seen)
        end = begin = n;
    if (step->n_a == 0)
        begin = 0;
    if (step->n_b == 0)
        end = n;
    return sl_str_append(out, s + begin, end > begin ? end - begin : 0, err);
}

static int run_step(struct sl_str *out, const struct sl_vocab_step *step,
                    const char *s, size_t n, struct sl_error *err)
{
    switch (step->what) {
    case SL_NORM_NFC:
    case SL_NORM_NFD:
    case SL_NORM_NFKC:
    case SL_NORM_NFKD:
        return unicode_form(out, step->what, s, n, err);
    case SL_NORM_REPLACE:
        return replace(out, step, s, n, err);
    case SL_NORM_PREPEND:
        if (n > 0 && sl_str_append(out, step->a, step->n_a, err) != 0)
            return -1;
        return sl_str_append(out, s, n, err);
    case SL_NORM_STRIP:
        return strip(out, step, s, n, err);
    default:
        return by_char(out, step->what, s, n, err);
    }
}

int sl_textnorm_check(const struct sl_vocab_span *steps, struct sl_error *err)
{
    const uint8_t *at = steps->p;

    for (uint32_t i = 0; i < steps->count; i++) {
        struct sl_vocab_step step = sl_vocab_step_next(&at);

        if (step.what >= SL_NORM_N || !sl_utf8_valid(step.a, step.n_a) ||
            !sl_utf8_valid(step.b, step.n_b))
            return sl_fail(err, SL_ERR_CORRUPT,
                           "vocabulary: normaliser's step %u is not known; "
                           "convert again",
                           step.what);
    }
    return 0;
}

int sl_textnorm_run(const struct sl_vocab_span *steps, struct sl_str *out,
                    struct sl_str *spare, const char *s, size_t n,
                    struct sl_error *err)
{
    const uint8_t *at = steps->p;

    sl_str_clear(out);
    if (steps->count == 0)
        return sl_str_append(out, s, n, err);
    for (uint32_t i = 0; i < steps->count; i++) {
        struct sl_vocab_step step = sl_vocab_step_next(&at);

        sl_str_clear(spare);
        if (run_step(spare, &step, i == 0 ? s : out->s, i == 0 ? n : out->n,
                     err) != 0)
            return -1;
        struct sl_str swap = *out;
        *out = *spare;
        *spare = swap;
    }
    return 0;
}
