#include "config.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <utf8proc.h>

#include "src/base/mem.h"
#include "src/base/utf8.h"
#include "src/decode/sampler.h"
#include "src/eval/metrics.h"

#define BINS 10u

/* What Python's str.split() takes for white space. */
static bool is_space(uint32_t c)
{
    return (c >= 9 && c <= 13) || (c >= 0x1c && c <= 0x20) || c == 0x85 ||
           c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) ||
           c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f ||
           c == 0x3000;
}

static bool is_punctuation(uint32_t c)
{
    return c < 128 && strchr("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~", (int)c) &&
           c != 0;
}

/* What Python's \w takes: letters and numbers (no underscore is left). */
static bool is_word(uint32_t c)
{
    utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)c);

    return (k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_LO) ||
           (k >= UTF8PROC_CATEGORY_ND && k <= UTF8PROC_CATEGORY_NO);
}

/* Lower case, punctuation gone. */
static int lower(struct sl_str *to, const char *text, size_t n,
                 struct sl_error *err)
{
    struct sl_str valid = {0};
    int rc = sl_utf8_repair(&valid, text, n, SL_UTF8_SUBPARTS, err);

    for (size_t at = 0; rc == 0 && at < valid.n;) {
        uint32_t c;

        at += sl_utf8_next(&c, valid.s + at);
        if (!is_punctuation(c))
            rc = sl_utf8_put(
                to, (uint32_t)utf8proc_tolower((utf8proc_int32_t)c), err);
    }
    sl_str_fini(&valid);
    return rc;
}

static bool is_article(const char *word, size_t n)
{
    return (n == 1 && word[0] == 'a') || (n == 2 && !memcmp(word, "an", 2)) ||
           (n == 3 && !memcmp(word, "the", 3));
}

int sl_metric_normalise(struct sl_str *to, const char *text, size_t n,
                        struct sl_error *err)
{
    struct sl_str low = {0};
    bool blank = false;
    int rc = lower(&low, text, n, err);

    for (size_t at = 0, len; rc == 0 && at < low.n; at += len) {
        uint32_t c;

        len = sl_utf8_next(&c, low.s + at);
        if (is_word(c)) { /* to the end of the word */
            for (size_t more; at + len < low.n; len += more) {
                more = sl_utf8_next(&c, low.s + at + len);
                if (!is_word(c))
                    break;
            }
            c = 'w';
        }
        if (is_space(c) || (c == 'w' && is_article(low.s + at, len))) {
            blank = true;
            continue;
        }
        if (blank && to->n > 0)
            rc = sl_str_add(to, " ", err);
        blank = false;
        if (rc == 0)
            rc = sl_str_append(to, low.s + at, len, err);
    }
    sl_str_fini(&low);
    return rc;
}

static int normalise_both(struct sl_str *a, struct sl_str *b, const char *said,
                          const char *target, struct sl_error *err)
{
    if (sl_metric_normalise(a, said, strlen(said), err) != 0)
        return -1;
    return sl_metric_normalise(b, target, strlen(target), err);
}

int sl_metric_exact(double *score, const char *said, const char *target,
                    struct sl_error *err)
{
    struct sl_str a = {0}, b = {0};
    int rc = normalise_both(&a, &b, said, target, err);

    if (rc == 0)
        *score = strcmp(sl_str_text(&a), sl_str_text(&b)) == 0;
    sl_str_fini(&a);
    sl_str_fini(&b);
    return rc;
}

static size_t split(char **words, char *text)
{
    char *rest = text, *word;
    size_t n = 0;

    while ((word = strsep(&rest, " ")) != NULL) {
        if (word[0] != '\0')
            words[n++] = word;
    }
    return n;
}

/* Words that both have, each as often as both have it. */
static size_t in_common(char **a, size_t n_a, char **b, size_t n_b)
{
    size_t same = 0;

    for (size_t i = 0; i < n_a; i++) {
        for (size_t k = 0; k < n_b; k++) {
            if (b[k] != NULL && strcmp(a[i], b[k]) == 0) {
                b[k] = NULL;
                same++;
                break;
            }
        }
    }
    return same;
}

int sl_metric_f1(double *score, const char *said, const char *target,
                 struct sl_error *err)
{
    struct sl_str a = {0}, b = {0};
    char **words = NULL;
    size_t n_a, n_b, same;
    int rc = normalise_both(&a, &b, said, target, err);

    *score = 0;
    if (rc == 0 && a.n > 0 && b.n > 0) {
        words = sl_alloc_array(a.n + b.n + 2, sizeof(char *));
        if (words == NULL)
            rc = sl_fail(err, SL_ERR_NOMEM, "out of memory for a score");
    }
    if (words != NULL) {
        n_a = split(words, a.s);
        n_b = split(words + n_a, b.s);
        same = in_common(words, n_a, words + n_a, n_b);
        if (same > 0) {
            double precision = (double)same / (double)n_a;
            double recall = (double)same / (double)n_b;

            *score = 2 * precision * recall / (precision + recall);
        }
    }
    free(words);
    sl_str_fini(&a);
    sl_str_fini(&b);
    return rc;
}

double sl_metric_ppl(double loss, double n)
{
    double mean = n > 0 ? loss / n : 0;

    return exp(mean < 20 ? mean : 20);
}

double sl_metric_ece(const double *confidence, const uint8_t *right, size_t n)
{
    double sum[BINS] = {0}, hits[BINS] = {0}, ece = 0;

    for (size_t i = 0; i < n; i++) {
        size_t bin = (size_t)(confidence[i] * BINS);

        bin = bin < BINS ? bin : BINS - 1;
        sum[bin] += confidence[i];
        hits[bin] += right[i];
    }
    for (size_t i = 0; i < BINS; i++)
        ece += fabs(sum[i] - hits[i]);
    return n > 0 ? ece / (double)n : 0;
}

double sl_metric_mcnemar(size_t only_a, size_t only_b)
{
    size_t n = only_a + only_b, k = only_a < only_b ? only_a : only_b;
    double p = 0;

    for (size_t i = 0; i <= k; i++)
        p += exp(lgamma((double)n + 1) - lgamma((double)i + 1) -
                 lgamma((double)(n - i) + 1) - (double)n * log(2));
    p *= 2;
    return p < 1 ? p : 1;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

int sl_metric_bootstrap(double *low, double *high, const double *differences,
                        size_t n, size_t n_draws, uint64_t seed,
                        struct sl_error *err)
{
    double *means = sl_alloc_array(n_draws + 1, sizeof *means);
    struct sl_rng rng;

    if (means == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "out of memory for %zu samples",
                       n_draws);
    sl_rng_seed(&rng, seed);
    for (size_t i = 0; i < n_draws; i++) {
        double sum = 0;

        for (size_t k = 0; k < n; k++)
            sum += differences[(size_t)(sl_rng_uniform(&rng) * (double)n)];
        means[i] = n > 0 ? sum / (double)n : 0;
    }
    qsort(means, n_draws, sizeof *means, ascending);
    *low = n_draws > 0 ? means[n_draws / 40] : 0;
    *high = n_draws > 0 ? means[n_draws - 1 - n_draws / 40] : 0;
    free(means);
    return 0;
}
