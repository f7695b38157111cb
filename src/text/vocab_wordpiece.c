#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "src/text/piece_map.h"
#include "src/text/tokenizer_impl.h"
#include "src/text/wordpipe.h"

/* WordPiece: the longest piece that fits, from the left; all but the first
 * begin with "##"; a word that cannot be covered is <unk> as a whole
 * (google-research/bert tokenization.py WordpieceTokenizer). */

#define GLUE "##"

struct wordpiece {
    struct sl_wordpipe words;
    struct sl_piece_map pieces;
    struct sl_str glued; /* "##" and the rest of a word */
    int32_t unk;
    uint32_t word_max; /* characters */
    size_t piece_max;  /* bytes of the longest piece */
};

static void close_wordpiece(void *impl)
{
    struct wordpiece *m = impl;

    sl_wordpipe_fini(&m->words);
    sl_piece_map_fini(&m->pieces);
    sl_str_fini(&m->glued);
    free(m);
}

static int open_wordpiece(struct sl_tokenizer *t, struct sl_error *err)
{
    struct wordpiece *m = calloc(1, sizeof *m);

    if (m == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "tokenizer: out of memory");
    t->impl = m;
    m->unk = sl_vocab_control(&t->vocab, SL_CONTROL_UNK);
    m->word_max = sl_vocab_number(&t->vocab, SL_VOCAB_WORD_MAX);
    if (sl_wordpipe_init(&m->words, &t->vocab, err) != 0 ||
        sl_piece_map_init(&m->pieces, &t->vocab, err) != 0)
        return -1; /* sl_tokenizer_destroy closes it */
    for (uint32_t id = 0; id < t->vocab.n_tokens; id++) {
        size_t n;

        sl_vocab_piece(&t->vocab, id, &n);
        if (n > m->piece_max)
            m->piece_max = n;
    }
    return 0;
}

static bool too_long(const struct wordpiece *m, const char *s, size_t n)
{
    size_t chars = 0;

    for (size_t i = 0; i < n; i++)
        chars += ((uint8_t)s[i] & 0xc0) != 0x80;
    return chars > m->word_max;
}

/* Bytes of the word's longest beginning that is a piece, and its id; 0: none.
 * head: bytes in front of the word ("##") that belong to the piece. */
static size_t longest(const struct wordpiece *m, int32_t *id, const char *s,
                      size_t head, size_t n)
{
    size_t end = head + n < m->piece_max ? head + n : m->piece_max;

    for (; end > head; end--) {
        bool cut = end < head + n && ((uint8_t)s[end] & 0xc0) == 0x80;

        if (cut)
            continue;
        *id = sl_piece_map_find(&m->pieces, s, end);
        if (*id >= 0)
            return end - head;
    }
    return 0;
}

static int add_word(void *opaque, struct sl_ids *ids, const char *s, size_t n,
                    struct sl_error *err)
{
    struct wordpiece *m = opaque;
    size_t before = ids->n, at = 0, size;
    bool whole = !too_long(m, s, n);
    int32_t id;

    /* Before each rest of the word there is room for the glue. */
    sl_str_clear(&m->glued);
    if (sl_str_add(&m->glued, GLUE, err) != 0 ||
        sl_str_append(&m->glued, s, n, err) != 0)
        return -1;
    while (whole && at < n) {
        char *rest = m->glued.s + at;

        if (at > 0)
            memcpy(rest, GLUE, 2);
        size = at == 0 ? longest(m, &id, s, 0, n)
                       : longest(m, &id, rest, 2, n - at);
        whole = size > 0;
        if (whole && sl_ids_add(ids, id, err) != 0)
            return -1;
        at += size;
    }
    if (whole)
        return 0;
    ids->n = before;
    return m->unk >= 0 ? sl_ids_add(ids, m->unk, err) : 0;
}

static int encode_wordpiece(struct sl_tokenizer *t, struct sl_ids *ids,
                            const char *s, size_t n, struct sl_section at,
                            struct sl_error *err)
{
    struct wordpiece *m = t->impl;

    return sl_wordpipe_run(&m->words, ids, s, n, at, add_word, m, err);
}

/* --- decoding: pieces with blanks between, but for the glued ---------------
 */

struct run {
    const struct sl_vocab *v;
    bool begun;
};

static int run_create(void **out, struct sl_tokenizer *t, struct sl_error *err)
{
    struct run *r = calloc(1, sizeof *r);

    if (r == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "tokenizer: out of memory");
    r->v = &t->vocab;
    *out = r;
    return 0;
}

static int run_push(void *run, const int32_t *ids, size_t n, struct sl_str *out,
                    struct sl_error *err)
{
    struct run *r = run;

    for (size_t i = 0; i < n; i++) {
        size_t size;
        const char *s = sl_vocab_piece(r->v, (uint32_t)ids[i], &size);
        bool glued = size > 2 && memcmp(s, GLUE, 2) == 0;

        if ((r->begun && !glued && sl_str_append(out, " ", 1, err) != 0) ||
            (r->begun && glued
                 ? sl_str_append(out, s + 2, size - 2, err)
                 : sl_utf8_repair(out, s, size, SL_UTF8_SUBPARTS, err)) != 0)
            return -1;
        r->begun = true;
    }
    return 0;
}

static int run_end(void *run, bool last, struct sl_str *out,
                   struct sl_error *err)
{
    struct run *r = run;

    /* What stands apart has a blank before and behind it like any piece. */
    if (!last && r->begun && sl_str_append(out, " ", 1, err) != 0)
        return -1;
    r->begun = !last;
    return 0;
}

const struct sl_vocab_kind sl_vocab_wordpiece = {
    .name = "wordpiece",
    .code = 5,
    .cost = 48,
    .open = open_wordpiece,
    .close = close_wordpiece,
    .encode = encode_wordpiece,
    .run_create = run_create,
    .run_destroy = free,
    .run_push = run_push,
    .run_end = run_end,
};
