#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "src/base/mem.h"
#include "src/text/prompt.h"

enum { MARK, SMARK, GMARK, N_MARKS };

static const char *const marks[N_MARKS] = {"[MASK]", "[sMASK]", "[gMASK]"};

static int32_t mark_id(const struct sl_text_params *tp, int mark)
{
    const struct sl_special_ids *s = &tp->special;

    return mark == MARK ? s->mask : mark == SMARK ? s->smask : s->gmask;
}

static bool contains(const char *text, size_t n, const char *what)
{
    return memmem(text, n, what, strlen(what)) != NULL;
}

static bool ends_with(const char *text, size_t n, const char *what)
{
    size_t n_what = strlen(what);

    return n >= n_what && memcmp(text + n - n_what, what, n_what) == 0;
}

/* The mark that begins at text, or -1. */
static int mark_here(const char *text, size_t left)
{
    for (int i = 0; i < N_MARKS; i++) {
        size_t n = strlen(marks[i]);

        if (left >= n && memcmp(text, marks[i], n) == 0)
            return i;
    }
    return -1;
}

static int add_ids(struct sl_prompt *p, struct sl_tokenizer *t,
                   const struct sl_text_params *tp, const char *text, size_t n,
                   struct sl_error *err)
{
    size_t begin = 0, i = 0;

    while (i < n) {
        int mark = mark_here(text + i, n - i);

        if (mark < 0) {
            i++;
            continue;
        }
        if (sl_tokenizer_encode(t, &p->ids, text + begin, i - begin, err) !=
                0 ||
            sl_ids_add(&p->ids, mark_id(tp, mark), err) != 0)
            return -1;
        begin = i += strlen(marks[mark]);
    }
    return sl_tokenizer_encode(t, &p->ids, text + begin, n - begin, err);
}

/* Copies the text, with a mark behind it unless that is NULL. */
static int copy_text(struct sl_prompt *p, const char *text, size_t n,
                     const char *mark, struct sl_error *err)
{
    size_t room;

    if (!sl_add_size(&room, n, 1 + strlen(marks[GMARK]) + 1) || /* longest */
        (p->text = malloc(room)) == NULL)
        return sl_fail(err, SL_ERR_NOMEM,
                       "out of memory for a text of %zu bytes", n);
    if (n > 0)
        memcpy(p->text, text, n);
    p->n_text = n;
    if (mark != NULL) {
        p->text[p->n_text++] = ' ';
        memcpy(p->text + p->n_text, mark, strlen(mark));
        p->n_text += strlen(mark);
    }
    p->text[p->n_text] = '\0';
    return 0;
}

static bool is_ascii(const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if ((unsigned char)text[i] >= 0x80)
            return false;
    }
    return true;
}

int sl_prompt_make(struct sl_prompt *out, struct sl_tokenizer *t,
                   const struct sl_text_params *tp, const char *text, size_t n,
                   struct sl_error *err)
{
    bool append = !contains(text, n, "MASK]");
    struct sl_prompt p = {0};
    int mark = GMARK;

    if (contains(text, n, marks[MARK]))
        mark = MARK;
    else if (contains(text, n, marks[SMARK]))
        mark = SMARK;
    p.mask = mark_id(tp, mark);
    p.masks[p.n_masks++] = p.mask;
    p.gmask = mark == GMARK;
    if (copy_text(&p, text, n, append ? marks[GMARK] : NULL, err) != 0 ||
        add_ids(&p, t, tp, text, n, err) != 0 ||
        (append && sl_ids_add(&p.ids, p.mask, err) != 0))
        goto fail;
    if (!ends_with(p.text, p.n_text, "MASK]") && tp->special.eos >= 0 &&
        sl_ids_add(&p.ids, tp->special.eos, err) != 0)
        goto fail;
    p.english = is_ascii(p.text, p.n_text);
    *out = p;
    return 0;
fail:
    sl_prompt_fini(&p);
    return -1;
}

/* The first of the text's marks, in whatever order they stand. */
static int32_t first_mark(const struct sl_prompt *p)
{
    for (size_t i = 0; i < p->ids.n; i++) {
        if (sl_prompt_fills(p, p->ids.v[i]))
            return p->ids.v[i];
    }
    return p->masks[0];
}

int sl_prompt_make_glm(struct sl_prompt *out, struct sl_tokenizer *t,
                       const struct sl_text_params *tp,
                       enum sl_prompt_style style, const char *text, size_t n,
                       struct sl_error *err)
{
    bool append = !contains(text, n, "MASK]");
    const char *mark = marks[tp->special.gmask >= 0 ? GMARK : MARK];
    const char *no_eos = style == SL_STYLE_GLM ? marks[GMARK] : "MASK]";
    struct sl_prompt p = {0};

    for (int i = 0; i < N_MARKS; i++) {
        if (mark_id(tp, i) >= 0)
            p.masks[p.n_masks++] = mark_id(tp, i);
    }
    if (p.n_masks == 0)
        return sl_fail(err, SL_ERR_UNSUPPORTED,
                       "the model's vocabulary has no [MASK]: it fills no "
                       "blanks");
    if (copy_text(&p, text, n, append ? mark : NULL, err) != 0 ||
        (tp->special.enc >= 0 &&
         sl_ids_add(&p.ids, tp->special.enc, err) != 0) ||
        sl_tokenizer_encode_special(t, &p.ids, p.text, p.n_text, err) != 0 ||
        (!ends_with(p.text, p.n_text, no_eos) && tp->special.eos >= 0 &&
         sl_ids_add(&p.ids, tp->special.eos, err) != 0)) {
        sl_prompt_fini(&p);
        return -1;
    }
    p.mask = first_mark(&p);
    p.english = is_ascii(p.text, p.n_text);
    *out = p;
    return 0;
}

int sl_prompt_make_chatglm(struct sl_prompt *out, struct sl_tokenizer *t,
                           const struct sl_text_params *tp, const char *text,
                           size_t n, struct sl_error *err)
{
    int32_t mask = tp->special.gmask;
    struct sl_prompt p = {
        .mask = mask,
        .masks = {mask},
        .n_masks = 1,
        .gmask = true,
        .english = is_ascii(text, n),
    };

    if (mask < 0)
        return sl_fail(err, SL_ERR_UNSUPPORTED,
                       "the model's vocabulary has no [gMASK]: it goes on with "
                       "no text");
    if (copy_text(&p, text, n, NULL, err) != 0 ||
        sl_tokenizer_encode_special(t, &p.ids, text, n, err) != 0 ||
        (!sl_prompt_has_blank(&p) && sl_ids_add(&p.ids, mask, err) != 0)) {
        sl_prompt_fini(&p);
        return -1;
    }
    *out = p;
    return 0;
}

int sl_prompt_open(struct sl_prompt *out, struct sl_tokenizer *t,
                   const struct sl_ids *prefix, const char *text, size_t n,
                   struct sl_error *err)
{
    struct sl_prompt p = {
        .mask = SL_PROMPT_END,
        .masks = {SL_PROMPT_END},
        .n_masks = 1,
        .gmask = true,
    };

    if (copy_text(&p, text, n, NULL, err) != 0 ||
        (prefix != NULL &&
         sl_ids_append(&p.ids, prefix->v, prefix->n, err) != 0) ||
        sl_tokenizer_encode(t, &p.ids, text, n, err) != 0 ||
        sl_ids_add(&p.ids, SL_PROMPT_END, err) != 0) {
        sl_prompt_fini(&p);
        return -1;
    }
    p.english = is_ascii(p.text, p.n_text);
    *out = p;
    return 0;
}

void sl_prompt_fini(struct sl_prompt *p)
{
    free(p->text);
    sl_ids_fini(&p->ids);
    *p = (struct sl_prompt){0};
}

bool sl_prompt_fills(const struct sl_prompt *p, int32_t id)
{
    for (uint32_t i = 0; i < p->n_masks; i++) {
        if (p->masks[i] == id)
            return true;
    }
    return id == p->mask;
}

bool sl_prompt_has_blank(const struct sl_prompt *p)
{
    for (size_t i = 0; i < p->ids.n; i++) {
        if (sl_prompt_fills(p, p->ids.v[i]))
            return true;
    }
    return false;
}
