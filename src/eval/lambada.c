#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "src/base/lines.h"
#include "src/eval/lambada.h"

#define GLM_130B_VOCAB 150528u

static const char punctuation[] = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~";

int sl_lambada_init(struct sl_lambada *l, struct sl_tokenizer *t,
                    uint32_t vocab, struct sl_error *err)
{
    /* 46010 is so in the original, and changes its scores. */
    static const int32_t banned[] = {20068, 146010, 146337};
    static const int32_t begin[] = {46010, 146337};

    if (vocab == GLM_130B_VOCAB) {
        if (sl_ids_append(&l->invalid, banned, 3, err) != 0)
            return -1;
        for (; l->n_prefixes < 2; l->n_prefixes++) {
            if (sl_ids_add(&l->prefixes[l->n_prefixes], begin[l->n_prefixes],
                           err) != 0)
                return -1;
        }
    }
    for (const char *p = punctuation; *p != '\0'; p++) {
        struct sl_ids *ids = &l->prefixes[l->n_prefixes++];

        if (sl_tokenizer_encode(t, ids, p, 1, err) != 0)
            return -1;
        if (ids->n == 1 && sl_ids_add(&l->invalid, ids->v[0], err) != 0)
            return -1;
    }
    return 0;
}

void sl_lambada_fini(struct sl_lambada *l)
{
    for (size_t i = 0; i < l->n_prefixes; i++)
        sl_ids_fini(&l->prefixes[i]);
    sl_ids_fini(&l->invalid);
    l->n_prefixes = 0;
}

void sl_lambada_adjust(void *opaque, const int32_t *said, size_t n_said,
                       float *logits, uint32_t vocab)
{
    const struct sl_lambada *l = opaque;

    (void)vocab; /* they are ids of this vocabulary */
    for (size_t i = 0; i < l->invalid.n; i++)
        logits[l->invalid.v[i]] = SL_BANNED;
    for (size_t i = 0; i < l->n_prefixes; i++) {
        const struct sl_ids *p = &l->prefixes[i];

        if (p->n == n_said + 1 &&
            memcmp(p->v, said, n_said * sizeof *said) == 0)
            logits[p->v[n_said]] = SL_BANNED;
    }
}

/* A beam's text without the blanks around it; *second: its second word is part
 * of the row of marks. *text is moved to the caller, *n: bytes of the first
 * word. */
static int read_beam(char **text, const char **word, size_t *n, bool *second,
                     struct sl_tokenizer *t, const struct sl_fill_answer *a,
                     struct sl_error *err)
{
    struct sl_fill_span span = {0, 0};
    const char *blank;
    size_t len;

    if (a->n_blanks > 0)
        span = a->blanks[0];
    if (sl_tokenizer_decode_as(t, SL_SPECIALS_HIDDEN, a->ids.v + span.begin,
                               span.end - span.begin, text, &len, err) != 0)
        return -1;
    *word = *text;
    sl_text_strip(word, &len);
    (*text)[*word - *text + (long)len] = '\0';
    blank = strchr(*word, ' ');
    *n = blank != NULL ? (size_t)(blank - *word) : strlen(*word);
    *second = false;
    if (blank != NULL) {
        len = strcspn(blank + 1, " ");
        for (const char *p = punctuation; *p != '\0'; p++)
            *second |= strncmp(p, blank + 1, len) == 0;
    }
    return 0;
}

int sl_lambada_choose(struct sl_ids *said, struct sl_tokenizer *t,
                      const struct sl_fill_result *r, struct sl_error *err)
{
    size_t chosen = 0;

    for (size_t round = 0; round < 2; round++) {
        for (size_t i = round == 0 ? 0 : chosen; i < r->n_answers; i++) {
            char *text = NULL;
            const char *word;
            bool second;
            size_t n;
            int rc;

            if (read_beam(&text, &word, &n, &second, t, &r->answers[i], err))
                return -1;
            rc = round == 1 || second
                     ? sl_tokenizer_encode(t, said, word, n, err)
                     : 0;
            free(text);
            if (rc != 0 || round == 1 || second)
                return rc;
        }
    }
    return 0;
}
