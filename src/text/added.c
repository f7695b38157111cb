#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "src/base/mem.h"
#include "src/text/added.h"
#include "src/text/textnorm.h"

static int compare(const void *a, const void *b)
{
    const struct sl_added_token *x = a, *y = b;

    if (x->s[0] != y->s[0])
        return (uint8_t)x->s[0] < (uint8_t)y->s[0] ? -1 : 1;
    if (x->n != y->n)
        return x->n > y->n ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

/* Where texts are normalised before added tokens are looked for, so is what
 * they are called. */
static int take(struct sl_added *a, const struct sl_vocab *v,
                const struct sl_vocab_added *from, unsigned flags,
                struct sl_error *err)
{
    const struct sl_vocab_span *norms = &v->part[SL_VOCAB_NORMS];
    struct sl_str out = {0}, spare = {0};
    int rc;

    if (!sl_utf8_valid(from->s, from->n))
        return sl_fail(err, SL_ERR_CORRUPT,
                       "vocabulary: the name of added token %u is not UTF-8; "
                       "convert again",
                       from->id);
    rc = flags & SL_ADDED_NORMALIZED
             ? sl_textnorm_run(norms, &out, &spare, from->s, from->n, err)
             : sl_str_append(&out, from->s, from->n, err);
    sl_str_fini(&spare);
    if (rc != 0 || out.n == 0) {
        sl_str_fini(&out); /* normalised to nothing: never found */
        return rc;
    }
    a->v[a->n++] = (struct sl_added_token){out.s, out.n, from->id, flags};
    return 0;
}

int sl_added_init(struct sl_added *a, const struct sl_vocab *v, bool normalized,
                  struct sl_error *err)
{
    const struct sl_vocab_span *part = &v->part[SL_VOCAB_ADDED];
    bool norms = v->part[SL_VOCAB_NORMS].count > 0;
    const uint8_t *at = part->p;

    *a = (struct sl_added){0};
    a->v = sl_alloc_array((size_t)part->count + 1, sizeof *a->v);
    if (a->v == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory for %u added tokens",
                       part->count);
    for (uint32_t i = 0; i < part->count; i++) {
        struct sl_vocab_added from = sl_vocab_added_next(&at);
        bool late = norms && from.flags & SL_ADDED_NORMALIZED;
        /* Where nothing is normalised one look is enough. */
        unsigned flags =
            norms ? from.flags : from.flags & ~(unsigned)SL_ADDED_NORMALIZED;

        if (late == normalized && take(a, v, &from, flags, err) != 0) {
            sl_added_fini(a);
            return -1;
        }
    }
    if (a->n > 0)
        qsort(a->v, a->n, sizeof *a->v, compare);
    for (size_t c = 0, i = 0; c <= 256; c++) {
        while (i < a->n && (uint8_t)a->v[i].s[0] < c)
            i++;
        a->from[c] = (uint32_t)i;
    }
    return 0;
}

void sl_added_fini(struct sl_added *a)
{
    for (size_t i = 0; i < a->n; i++)
        free(a->v[i].s);
    free(a->v);
    *a = (struct sl_added){0};
}

/* Start of the character that ends at s[at). */
static size_t char_before(uint32_t *c, const char *s, size_t at)
{
    do
        at--;
    while (at > 0 && ((uint8_t)s[at] & 0xc0) == 0x80);
    sl_utf8_next(c, s + at);
    return at;
}

/* "single_word" of tokenizer.json: neither before nor behind it is a letter,
 * digit or underscore. */
static bool is_word_of_its_own(const char *s, size_t n, size_t begin,
                               size_t end)
{
    uint32_t c;

    if (begin > 0) {
        char_before(&c, s, begin);
        if (sl_is_word(c))
            return false;
    }
    if (end < n) {
        sl_utf8_next(&c, s + end);
        if (sl_is_word(c))
            return false;
    }
    return true;
}

/* lstrip and rstrip of tokenizer.json: blanks beside the token become part
 * of it, but none that another token has taken (from). */
static void take_blanks(struct sl_added_hit *hit, unsigned flags, const char *s,
                        size_t n, size_t from)
{
    uint32_t c;

    while (flags & SL_ADDED_LSTRIP && hit->begin > from) {
        size_t at = char_before(&c, s, hit->begin);

        if (!sl_is_white_space(c))
            break;
        hit->begin = at;
    }
    while (flags & SL_ADDED_RSTRIP && hit->end < n) {
        size_t size = sl_utf8_next(&c, s + hit->end);

        if (!sl_is_white_space(c))
            break;
        hit->end += size;
    }
}

bool sl_added_find(const struct sl_added *a, struct sl_added_hit *hit,
                   const char *s, size_t n, size_t from, bool special)
{
    for (size_t i = from; a->n > 0 && i < n; i++) {
        unsigned c = (uint8_t)s[i];
        const struct sl_added_token *t = NULL;

        for (size_t k = a->from[c]; k < a->from[c + 1] && t == NULL; k++) {
            if (a->v[k].n <= n - i && memcmp(a->v[k].s, s + i, a->v[k].n) == 0)
                t = &a->v[k];
        }
        if (t == NULL)
            continue;
        if ((!special && t->flags & SL_ADDED_SPECIAL) ||
            (t->flags & SL_ADDED_WORD &&
             !is_word_of_its_own(s, n, i, i + t->n))) {
            i += t->n - 1; /* as the reference does, it is passed over whole */
            continue;
        }
        *hit = (struct sl_added_hit){t->id, i, i + t->n};
        take_blanks(hit, t->flags, s, n, from);
        return true;
    }
    return false;
}
