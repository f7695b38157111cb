#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "src/base/mem.h"
#include "src/text/pretok.h"
#include "src/text/pretok_regex.h"

struct word_list {
    struct sl_pretok_word *v;
    size_t n, room;
};

struct step {
    unsigned what;
    bool invert;
    struct sl_regex *re; /* or NULL */
    char *a, *b;         /* owned, terminated */
};

struct sl_pretok {
    struct step *steps;
    size_t n_steps;
    struct sl_str text[2];        /* texts made, when a step changes them */
    struct word_list words[2];    /* of the step before, and of this one */
    struct sl_pretok_word *spans; /* matches and what lies between, in turn */
    size_t n_spans, spans_room;
    bool *matched; /* (spans_room) */
};

static int grow(void **v, size_t *room, size_t n, size_t size,
                struct sl_error *err)
{
    if (!sl_grow(v, room, n, size))
        return sl_fail(err, SL_ERR_NOMEM, "no memory for %zu words", n + 1);
    return 0;
}

static int add_word(struct word_list *words, size_t off, size_t n,
                    struct sl_error *err)
{
    if (n == 0)
        return 0;
    if (grow((void **)&words->v, &words->room, words->n, sizeof *words->v,
             err) != 0)
        return -1;
    words->v[words->n++] = (struct sl_pretok_word){off, n};
    return 0;
}

/* --- cutting by an expression ----------------------------------------------
 */

/* `matched` grows with the spans, so that one index has both. */
static int add_span(struct sl_pretok *p, size_t begin, size_t end, bool matched,
                    struct sl_error *err)
{
    size_t room = p->spans_room;

    if (begin == end)
        return 0;
    if (grow((void **)&p->spans, &p->spans_room, p->n_spans, sizeof *p->spans,
             err) != 0)
        return -1;
    if (p->spans_room != room) {
        bool *more = realloc(p->matched, p->spans_room * sizeof *more);

        if (more == NULL)
            return sl_fail(err, SL_ERR_NOMEM, "no memory for %zu words",
                           p->spans_room);
        p->matched = more;
    }
    p->spans[p->n_spans] = (struct sl_pretok_word){begin, end - begin};
    p->matched[p->n_spans++] = matched;
    return 0;
}

/* Spans that cover text[0..n): matches and what lies between them. */
static int find_spans(struct sl_pretok *p, const struct step *step,
                      const char *text, size_t n, struct sl_error *err)
{
    size_t at = 0, from = 0, begin, end;
    uint32_t c;
    int rc;

    p->n_spans = 0;
    while (from <= n) {
        rc = sl_regex_find(step->re, text, n, from, &begin, &end, err);
        if (rc < 0)
            return -1;
        if (rc == 0)
            break;
        if (begin < at)
            begin = at;
        if (end > begin) {
            if (add_span(p, at, begin, step->invert, err) != 0 ||
                add_span(p, begin, end, !step->invert, err) != 0)
                return -1;
            at = from = end;
        } else if (from < n) { /* nothing was matched: on by a character */
            from = begin < n ? begin : n;
            from += from < n ? sl_utf8_next(&c, text + from) : 1;
        } else {
            break;
        }
    }
    return add_span(p, at, n, step->invert, err);
}

/* A match joins the word before it unless that is a match too. */
static int join_previous(struct sl_pretok *p, struct word_list *words,
                         size_t off, struct sl_error *err)
{
    bool before = false;
    size_t first = words->n;

    for (size_t i = 0; i < p->n_spans; i++) {
        if (p->matched[i] && !before && words->n > first)
            words->v[words->n - 1].n += p->spans[i].n;
        else if (add_word(words, off + p->spans[i].off, p->spans[i].n, err) !=
                 0)
            return -1;
        before = p->matched[i];
    }
    return 0;
}

/* The same from behind: a match joins the word behind it. */
static int join_next(struct sl_pretok *p, struct word_list *words, size_t off,
                     struct sl_error *err)
{
    for (size_t i = 0; i < p->n_spans; i++) {
        size_t n = p->spans[i].n, at = p->spans[i].off;

        if (p->matched[i] && i + 1 < p->n_spans && !p->matched[i + 1])
            n += p->spans[++i].n;
        if (add_word(words, off + at, n, err) != 0)
            return -1;
    }
    return 0;
}

static int join_equal(struct sl_pretok *p, struct word_list *words, size_t off,
                      struct sl_error *err)
{
    for (size_t i = 0; i < p->n_spans; i++) {
        if (i > 0 && p->matched[i] == p->matched[i - 1])
            words->v[words->n - 1].n += p->spans[i].n;
        else if (add_word(words, off + p->spans[i].off, p->spans[i].n, err) !=
                 0)
            return -1;
    }
    return 0;
}

static int cut_word(struct sl_pretok *p, const struct step *step,
                    struct word_list *words, const char *text,
                    struct sl_pretok_word w, struct sl_error *err)
{
    if (find_spans(p, step, text + w.off, w.n, err) != 0)
        return -1;
    if (step->what == SL_PRETOK_PREVIOUS)
        return join_previous(p, words, w.off, err);
    if (step->what == SL_PRETOK_NEXT)
        return join_next(p, words, w.off, err);
    if (step->what == SL_PRETOK_CONTIGUOUS)
        return join_equal(p, words, w.off, err);
    for (size_t i = 0; i < p->n_spans; i++) {
        if (step->what == SL_PRETOK_REMOVED && p->matched[i])
            continue;
        if (add_word(words, w.off + p->spans[i].off, p->spans[i].n, err) != 0)
            return -1;
    }
    return 0;
}

/* --- steps that write a new text -------------------------------------------
 */

static bool begins_with(const char *s, size_t n, const char *what)
{
    size_t n_what = strlen(what);

    return n >= n_what && memcmp(s, what, n_what) == 0;
}

/* Appends the word with its blanks replaced and perhaps one in front. */
static int write_word(const struct step *step, struct sl_str *out,
                      const char *s, size_t n, bool begins,
                      struct sl_error *err)
{
    bool meta = step->what == SL_PRETOK_METASPACE;
    const char *blank = meta ? step->a : " ";
    bool put = !meta || strcmp(step->b, "always") == 0 ||
               (strcmp(step->b, "first") == 0 && begins);

    if (put && !begins_with(s, n, blank) && !begins_with(s, n, " ") &&
        sl_str_add(out, blank, err) != 0)
        return -1;
    for (size_t i = 0; i < n; i++) {
        int rc = meta && s[i] == ' ' ? sl_str_add(out, blank, err)
                                     : sl_str_append(out, s + i, 1, err);
        if (rc != 0)
            return -1;
    }
    return 0;
}

static int rewrite(const struct step *step, struct sl_str *out,
                   struct word_list *to, const struct word_list *from,
                   const char *text, bool first, struct sl_error *err)
{
    sl_str_clear(out);
    for (size_t i = 0; i < from->n; i++) {
        size_t at = out->n;

        if (write_word(step, out, text + from->v[i].off, from->v[i].n,
                       first && from->v[i].off == 0, err) != 0 ||
            add_word(to, at, out->n - at, err) != 0)
            return -1;
    }
    return 0;
}

/* --- all steps -------------------------------------------------------------
 */

int sl_pretok_run(struct sl_pretok *p, struct sl_pretok_words *words,
                  const char *s, size_t n, bool first, struct sl_error *err)
{
    unsigned in = 0, text_at = 0;

    p->words[0].n = 0;
    if (add_word(&p->words[0], 0, n, err) != 0)
        return -1;
    for (size_t k = 0; k < p->n_steps; k++) {
        const struct step *step = &p->steps[k];
        struct word_list *from = &p->words[in], *to = &p->words[1 - in];

        to->n = 0;
        in = 1 - in;
        if (step->re == NULL) {
            struct sl_str *made = &p->text[text_at];

            if (rewrite(step, made, to, from, s, first, err) != 0)
                return -1;
            s = made->s;
            text_at = 1 - text_at;
            continue;
        }
        for (size_t i = 0; i < from->n; i++) {
            if (cut_word(p, step, to, s, from->v[i], err) != 0)
                return -1;
        }
    }
    *words = (struct sl_pretok_words){s, p->words[in].v, p->words[in].n};
    return 0;
}

static char *copy(const char *s, size_t n)
{
    char *p = malloc(n + 1);

    if (p != NULL) {
        if (n > 0)
            memcpy(p, s, n);
        p[n] = '\0';
    }
    return p;
}

static int open_step(struct step *to, const struct sl_vocab_step *from,
                     struct sl_error *err)
{
    to->what = from->what & ~(unsigned)SL_PRETOK_INVERT;
    to->invert = (from->what & SL_PRETOK_INVERT) != 0;
    if (to->what >= SL_PRETOK_N)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "vocabulary: pre-tokenizer's step %u is not known; "
                       "convert again",
                       from->what);
    to->a = copy(from->a, from->n_a);
    to->b = copy(from->b, from->n_b);
    if (to->a == NULL || to->b == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory for a pre-tokenizer");
    if (to->what == SL_PRETOK_METASPACE &&
        (from->n_a == 0 || !sl_utf8_valid(from->a, from->n_a)))
        return sl_fail(err, SL_ERR_CORRUPT,
                       "vocabulary: blanks become nothing that is UTF-8");
    if (to->what >= SL_PRETOK_BLANK_FIRST)
        return 0;
    return sl_regex_create(&to->re, from->a, from->n_a, err);
}

int sl_pretok_create(struct sl_pretok **out, const struct sl_vocab_span *steps,
                     struct sl_error *err)
{
    struct sl_pretok *p = calloc(1, sizeof *p);
    const uint8_t *at = steps->p;

    if (p == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory for a pre-tokenizer");
    p->steps = sl_zalloc_array(steps->count + 1, sizeof *p->steps);
    if (p->steps == NULL) {
        sl_fail(err, SL_ERR_NOMEM, "no memory for a pre-tokenizer");
        goto fail;
    }
    for (; p->n_steps < steps->count; p->n_steps++) {
        struct sl_vocab_step step = sl_vocab_step_next(&at);

        if (open_step(&p->steps[p->n_steps], &step, err) != 0) {
            p->n_steps++; /* closed with the rest */
            goto fail;
        }
    }
    *out = p;
    return 0;
fail:
    sl_pretok_destroy(p);
    return -1;
}

void sl_pretok_destroy(struct sl_pretok *p)
{
    if (p == NULL)
        return;
    for (size_t i = 0; i < p->n_steps; i++) {
        sl_regex_destroy(p->steps[i].re);
        free(p->steps[i].a);
        free(p->steps[i].b);
    }
    for (int i = 0; i < 2; i++) {
        sl_str_fini(&p->text[i]);
        free(p->words[i].v);
    }
    free(p->steps);
    free(p->spans);
    free(p->matched);
    free(p);
}
