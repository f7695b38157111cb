#include "config.h"

#include <stdlib.h>

#include "src/base/mem.h"
#include "src/text/tokenizer_impl.h"

struct sl_detok {
    struct sl_tokenizer *t;
    enum sl_specials specials;
    void *run; /* the kind's: ids since the last one that stands apart */
    struct sl_str out, label;
};

/* Control pieces, and what was added behind the pieces of the model. */
static int label_default(const struct sl_tokenizer *t, uint32_t id,
                         struct sl_str *out, struct sl_error *err)
{
    size_t n;
    const char *s = sl_vocab_piece(&t->vocab, id, &n);

    if (sl_vocab_type(&t->vocab, id) != SL_PIECE_CONTROL &&
        sl_vocab_in_model(&t->vocab, id))
        return 0;
    return sl_str_append(out, s, n, err) == 0 ? 1 : -1;
}

static bool means_something(const struct sl_vocab *v, int32_t id)
{
    return id >= 0 && (uint32_t)id < v->n_tokens &&
           sl_vocab_type(v, (uint32_t)id) != SL_PIECE_UNUSED;
}

/* What stands apart ends the run before it; hidden, it ends nothing: as if it
 * had not been there. */
static int push(struct sl_detok *d, const int32_t *ids, size_t n,
                struct sl_error *err)
{
    const struct sl_vocab_kind *kind = d->t->kind;
    size_t begin = 0;

    for (size_t i = 0; i < n; i++) {
        int apart = 1;

        sl_str_clear(&d->label);
        if (means_something(&d->t->vocab, ids[i]))
            apart = (kind->label != NULL ? kind->label : label_default)(
                d->t, (uint32_t)ids[i], &d->label, err);
        if (apart == 0)
            continue;
        if (apart < 0 ||
            kind->run_push(d->run, ids + begin, i - begin, &d->out, err) != 0)
            return -1;
        begin = i + 1;
        if (d->label.n == 0 || (d->specials == SL_SPECIALS_HIDDEN &&
                                sl_tokenizer_is_special(d->t, ids[i])))
            continue;
        if (kind->run_end(d->run, false, &d->out, err) != 0 ||
            sl_str_append(&d->out, d->label.s, d->label.n, err) != 0)
            return -1;
    }
    return kind->run_push(d->run, n > begin ? ids + begin : NULL, n - begin,
                          &d->out, err);
}

int sl_detok_create_as(struct sl_detok **out, struct sl_tokenizer *t,
                       enum sl_specials specials, struct sl_error *err)
{
    struct sl_detok *d = calloc(1, sizeof *d);

    if (d == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "tokenizer: out of memory");
    d->t = t;
    d->specials = specials;
    if (t->kind->run_create(&d->run, t, err) != 0) {
        free(d);
        return -1;
    }
    *out = d;
    return 0;
}

int sl_detok_create(struct sl_detok **d, struct sl_tokenizer *t,
                    struct sl_error *err)
{
    return sl_detok_create_as(d, t, SL_SPECIALS_SHOWN, err);
}

void sl_detok_destroy(struct sl_detok *d)
{
    if (d == NULL)
        return;
    d->t->kind->run_destroy(d->run);
    sl_str_fini(&d->out);
    sl_str_fini(&d->label);
    free(d);
}

int sl_detok_push(struct sl_detok *d, const int32_t *ids, size_t n,
                  const char **text, size_t *n_text, struct sl_error *err)
{
    sl_str_clear(&d->out);
    if (push(d, ids, n, err) != 0)
        return -1;
    *text = d->out.s != NULL ? d->out.s : "";
    *n_text = d->out.n;
    return 0;
}

int sl_detok_end(struct sl_detok *d, const char **text, size_t *n_text,
                 struct sl_error *err)
{
    sl_str_clear(&d->out);
    if (d->t->kind->run_end(d->run, true, &d->out, err) != 0)
        return -1;
    *text = d->out.s != NULL ? d->out.s : "";
    *n_text = d->out.n;
    return 0;
}

int sl_tokenizer_decode_as(struct sl_tokenizer *t, enum sl_specials specials,
                           const int32_t *ids, size_t n, char **text,
                           size_t *n_text, struct sl_error *err)
{
    struct sl_detok *d;
    int rc;

    if (sl_detok_create_as(&d, t, specials, err) != 0)
        return -1;
    rc = push(d, ids, n, err);
    if (rc == 0)
        rc = t->kind->run_end(d->run, true, &d->out, err);
    if (rc == 0)
        rc = sl_str_append(&d->out, "", 1, err);
    if (rc == 0) {
        *n_text = d->out.n - 1;
        *text = d->out.s;
        d->out = (struct sl_str){0};
    }
    sl_detok_destroy(d);
    return rc;
}

int sl_tokenizer_decode(struct sl_tokenizer *t, const int32_t *ids, size_t n,
                        char **text, struct sl_error *err)
{
    size_t n_text;

    return sl_tokenizer_decode_as(t, SL_SPECIALS_SHOWN, ids, n, text, &n_text,
                                  err);
}
