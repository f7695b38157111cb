#include "config.h"

#include <errno.h>
#include <stdlib.h>

#include "src/cmd/generate.h"

#define GREEN     "\033[0;32m"
#define UNDERLINE "\033[4m"
#define PLAIN     "\033[0m"

enum sl_specials sl_generate_specials(const struct sl_generate *g)
{
    return g->hp->causal || sl_runtime_modelfile(g->rt)->arch->prompts ==
                                SL_PROMPTS_CHATGLM
               ? SL_SPECIALS_HIDDEN
               : SL_SPECIALS_SHOWN;
}

int sl_shower_init(struct sl_shower *s, FILE *out, struct sl_generate *g,
                   const struct sl_prompt *prompt, enum sl_text_form form,
                   struct sl_error *err)
{
    bool styled = form == SL_TEXT_STYLED;

    *s = (struct sl_shower){
        .out = out,
        .styled = styled,
        .hides_given = form != SL_TEXT_WHOLE && g->o->text.hide_prompt,
        .stopper = {.stops = &g->o->text.stops},
        .color = styled && g->color,
        .gmask = prompt->gmask,
        .english = prompt->english,
        .line_open = out == stdout ? &g->line_open : NULL,
        .waiting = out == stdout ? g->waiting : NULL,
    };
    return sl_detok_create_as(&s->detok, g->tokenizer, sl_generate_specials(g),
                              err);
}

void sl_shower_fini(struct sl_shower *s)
{
    sl_detok_destroy(s->detok);
    s->detok = NULL;
    sl_stopper_fini(&s->stopper);
    sl_str_fini(&s->shown);
}

int sl_show_flush(FILE *out, struct sl_error *err)
{
    if (fflush(out) != 0 || ferror(out))
        return sl_fail_os(err, errno, "cannot write to standard output");
    return 0;
}

static int write_text(struct sl_shower *s, const char *text, size_t n,
                      struct sl_error *err)
{
    sl_waiting_text(s->waiting, text, n);
    if (n > 0 && fwrite(text, 1, n, s->out) != n)
        return sl_fail_os(err, errno, "cannot write to standard output");
    if (n > 0 && s->line_open != NULL)
        atomic_store(s->line_open, text[n - 1] != '\n');
    return 0;
}

/* What was generated goes through the stopper, which holds back what a stop
 * may begin with; last: no more comes of it. */
static int put_new(struct sl_shower *s, const char *text, size_t n, bool last,
                   struct sl_error *err)
{
    if (last && s->stopper.held.n == 0)
        return 0;
    sl_str_clear(&s->shown);
    if (sl_stopper_push(&s->stopper, &s->shown, text, n, last, err) != 0)
        return -1;
    return write_text(s, sl_str_text(&s->shown), s->shown.n, err);
}

static int put(struct sl_shower *s, const char *text, size_t n,
               struct sl_error *err)
{
    if (s->blank)
        return put_new(s, text, n, false, err);
    return s->hides_given ? 0 : write_text(s, text, n, err);
}

/* What comes next was generated, or not. */
static int turn(struct sl_shower *s, bool blank, struct sl_error *err)
{
    if (s->blank && put_new(s, "", 0, true, err) != 0)
        return -1;
    sl_stopper_restart(&s->stopper);
    s->blank = blank;
    return 0;
}

static int put_rest(struct sl_shower *s, struct sl_error *err)
{
    const char *text;
    size_t n;

    if (sl_detok_end(s->detok, &text, &n, err) != 0)
        return -1;
    return put(s, text, n, err);
}

/* From what was given to what was generated, or back. */
static int change(struct sl_shower *s, bool blank, struct sl_error *err)
{
    const char *start = s->gmask ? UNDERLINE : GREEN UNDERLINE;
    const char *end = s->gmask ? PLAIN : PLAIN PLAIN;
    int rc;

    if (put_rest(s, err) != 0 || turn(s, blank, err) != 0)
        return -1;
    s->in_blank = blank;
    sl_waiting_text(s->waiting, " ", s->english);
    if (blank)
        rc = fprintf(s->out, "%s%s", s->english ? " " : "",
                     s->color ? start : "");
    else
        rc =
            fprintf(s->out, "%s%s", s->color ? end : "", s->english ? " " : "");
    if (rc < 0)
        return sl_fail_os(err, errno, "cannot write to standard output");
    return 0;
}

int sl_shower_ids(void *opaque, const int32_t *ids, size_t n, bool blank,
                  struct sl_error *err)
{
    struct sl_shower *s = opaque;
    const char *text;
    size_t n_text;

    if (s->styled && (s->in_blank != blank || (blank && n == 0))) {
        /* two blanks in a row: the first ends before the second begins */
        if (s->in_blank && change(s, false, err) != 0)
            return -1;
        if (blank && change(s, true, err) != 0)
            return -1;
    }
    if ((s->blank != blank || (blank && n == 0)) && turn(s, blank, err) != 0)
        return -1;
    if (sl_detok_push(s->detok, ids, n, &text, &n_text, err) != 0 ||
        put(s, text, n_text, err) != 0)
        return -1;
    return sl_show_flush(s->out, err);
}

int sl_shower_end(struct sl_shower *s, struct sl_error *err)
{
    if (s->in_blank && change(s, false, err) != 0)
        return -1;
    if (put_rest(s, err) != 0 || turn(s, false, err) != 0)
        return -1;
    return sl_show_flush(s->out, err);
}

static int show_spans(struct sl_shower *s, const struct sl_fill_answer *a,
                      struct sl_error *err)
{
    size_t at = 0;

    for (size_t i = 0; i < a->n_blanks; i++) {
        const struct sl_fill_span *b = &a->blanks[i];

        if ((b->begin > at &&
             sl_shower_ids(s, a->ids.v + at, b->begin - at, false, err) != 0) ||
            sl_shower_ids(s, NULL, 0, true, err) != 0 ||
            sl_shower_ids(s, a->ids.v + b->begin, b->end - b->begin, true,
                          err) != 0)
            return -1;
        at = b->end;
    }
    if (a->ids.n > at &&
        sl_shower_ids(s, a->ids.v + at, a->ids.n - at, false, err) != 0)
        return -1;
    return sl_shower_end(s, err);
}

int sl_show_answer(char **text, size_t *n, struct sl_generate *g,
                   const struct sl_prompt *prompt,
                   const struct sl_fill_answer *answer, enum sl_text_form form,
                   struct sl_error *err)
{
    struct sl_shower s;
    char *buf = NULL;
    FILE *out = open_memstream(&buf, n);
    int rc;

    if (out == NULL)
        return sl_fail_os(err, errno, "cannot hold an answer");
    rc = sl_shower_init(&s, out, g, prompt, form, err);
    if (rc == 0)
        rc = show_spans(&s, answer, err);
    sl_shower_fini(&s);
    if (fclose(out) != 0 && rc == 0)
        rc = sl_fail(err, SL_ERR_NOMEM, "out of memory for an answer");
    if (rc != 0) {
        free(buf);
        return -1;
    }
    *text = buf;
    return 0;
}
