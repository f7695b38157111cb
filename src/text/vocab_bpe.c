#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/text/bpe.h"
#include "src/text/tokenizer_impl.h"
#include "src/text/wordpipe.h"

/* Two kinds that merge. A byte-level one begins with bytes, of which each is a
 * piece (GPT-2 and all that came after it); the other with characters, and
 * bytes "<0x0A>" where a character is none of its pieces (a sentencepiece
 * model written as tokenizer.json: Llama 2). huggingface/tokenizers
 * src/models/bpe/model.rs. */

struct bpe_vocab {
    const struct sl_vocab *v;
    struct sl_wordpipe words;
    struct sl_piece_map pieces;
    struct sl_bpe bpe;
    int32_t of_byte[256]; /* ids, or -1 */
    int32_t unk;
    bool chars; /* begins with characters */
    bool ignore_merges, fuse_unk;
};

static void close_bpe(void *impl)
{
    struct bpe_vocab *m = impl;

    sl_wordpipe_fini(&m->words);
    sl_piece_map_fini(&m->pieces);
    sl_bpe_fini(&m->bpe);
    free(m);
}

static void find_bytes(struct bpe_vocab *m)
{
    bool fallback = sl_vocab_number(m->v, SL_VOCAB_BYTE_FALLBACK) != 0;

    for (unsigned i = 0; i < 256; i++) {
        char name[8], byte = (char)i;

        snprintf(name, sizeof name, "<0x%02X>", i);
        if (!m->chars)
            m->of_byte[i] = sl_piece_map_find(&m->pieces, &byte, 1);
        else if (fallback)
            m->of_byte[i] = sl_piece_map_find(&m->pieces, name, 6);
        else
            m->of_byte[i] = -1;
    }
}

static int open_bpe(struct sl_tokenizer *t, bool chars, struct sl_error *err)
{
    struct bpe_vocab *m = calloc(1, sizeof *m);

    if (m == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "tokenizer: out of memory");
    t->impl = m;
    m->v = &t->vocab;
    m->chars = chars;
    m->unk = sl_vocab_control(m->v, SL_CONTROL_UNK);
    m->ignore_merges = sl_vocab_number(m->v, SL_VOCAB_IGNORE_MERGES) != 0;
    m->fuse_unk = sl_vocab_number(m->v, SL_VOCAB_FUSE_UNK) != 0;
    if (sl_wordpipe_init(&m->words, m->v, err) != 0 ||
        sl_piece_map_init(&m->pieces, m->v, err) != 0 ||
        sl_merge_map_init(&m->bpe.merges, m->v, err) != 0)
        return -1; /* sl_tokenizer_destroy closes it */
    find_bytes(m);
    return 0;
}

static int open_bytes(struct sl_tokenizer *t, struct sl_error *err)
{
    return open_bpe(t, false, err);
}

static int open_chars(struct sl_tokenizer *t, struct sl_error *err)
{
    return open_bpe(t, true, err);
}

/* --- encoding -------------------------------------------------------------
 */

/* A byte that is no piece is <unk>, or vanishes where there is none. */
static int add_bytes(struct bpe_vocab *m, const char *s, size_t n,
                     struct sl_error *err)
{
    for (size_t i = 0; i < n; i++) {
        int32_t id = m->of_byte[(uint8_t)s[i]];

        if (id < 0)
            id = m->unk;
        if (id >= 0 && sl_bpe_add(&m->bpe, (uint32_t)id, err) != 0)
            return -1;
    }
    return 0;
}

static bool all_bytes(const struct bpe_vocab *m, const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (m->of_byte[(uint8_t)s[i]] < 0)
            return false;
    }
    return true;
}

static int add_chars(struct bpe_vocab *m, const char *s, size_t n,
                     struct sl_error *err)
{
    bool was_unk = false;
    uint32_t c;

    for (size_t i = 0, size; i < n; i += size) {
        int32_t id;
        int rc = 0;

        size = sl_utf8_next(&c, s + i);
        id = sl_piece_map_find(&m->pieces, s + i, size);
        if (id >= 0)
            rc = sl_bpe_add(&m->bpe, (uint32_t)id, err);
        else if (all_bytes(m, s + i, size))
            rc = add_bytes(m, s + i, size, err);
        else if (m->unk >= 0 && !(was_unk && m->fuse_unk))
            rc = sl_bpe_add(&m->bpe, (uint32_t)m->unk, err);
        was_unk = id < 0 && !all_bytes(m, s + i, size);
        if (rc != 0)
            return -1;
    }
    return 0;
}

static int add_word(void *opaque, struct sl_ids *ids, const char *s, size_t n,
                    struct sl_error *err)
{
    struct bpe_vocab *m = opaque;

    if (m->ignore_merges) {
        int32_t id = sl_piece_map_find(&m->pieces, s, n);

        if (id >= 0)
            return sl_ids_add(ids, id, err);
    }
    sl_bpe_begin(&m->bpe);
    if ((m->chars ? add_chars : add_bytes)(m, s, n, err) != 0)
        return -1;
    return sl_bpe_end(&m->bpe, ids, err);
}

static int encode_bpe(struct sl_tokenizer *t, struct sl_ids *ids, const char *s,
                      size_t n, struct sl_section at, struct sl_error *err)
{
    struct bpe_vocab *m = t->impl;

    return sl_wordpipe_run(&m->words, ids, s, n, at, add_word, m, err);
}

/* --- decoding -------------------------------------------------------------
 */

struct run {
    const struct bpe_vocab *m;
    struct sl_str pending; /* bytes, perhaps not yet a character */
    bool strip, begun;     /* lose a first blank; something came */
};

static int run_create(void **out, struct sl_tokenizer *t, struct sl_error *err)
{
    struct run *r = calloc(1, sizeof *r);

    if (r == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "tokenizer: out of memory");
    r->m = t->impl;
    r->strip = sl_vocab_number(&t->vocab, SL_VOCAB_STRIP_BLANK) != 0;
    *out = r;
    return 0;
}

static void run_destroy(void *run)
{
    struct run *r = run;

    sl_str_fini(&r->pending);
    free(r);
}

/* U+2581 stands for a blank. */
static int add_meta(struct sl_str *out, const char *s, size_t n,
                    struct sl_error *err)
{
    static const char meta[] = "\xe2\x96\x81";
    size_t at = 0;

    while (at < n) {
        const char *hit = memmem(s + at, n - at, meta, 3);
        size_t size = hit != NULL ? (size_t)(hit - s) - at : n - at;

        if (sl_str_append(out, s + at, size, err) != 0 ||
            (hit != NULL && sl_str_append(out, " ", 1, err) != 0))
            return -1;
        at += size + (hit != NULL ? 3 : 0);
    }
    return 0;
}

/* The byte of "<0x0A>", or -1. */
static int byte_of(const char *s, size_t n)
{
    int byte = 0;

    if (n != 6 || memcmp(s, "<0x", 3) != 0 || s[5] != '>')
        return -1;
    for (int i = 3; i < 5; i++) {
        if (s[i] >= '0' && s[i] <= '9')
            byte = byte * 16 + s[i] - '0';
        else if (s[i] >= 'A' && s[i] <= 'F')
            byte = byte * 16 + s[i] - 'A' + 10;
        else
            return -1;
    }
    return byte;
}

/* What a piece stands for goes behind the pending bytes. */
static int add_piece(struct run *r, uint32_t id, struct sl_error *err)
{
    size_t n, before = r->pending.n;
    const char *s = sl_vocab_piece(r->m->v, id, &n);
    int byte = r->m->chars ? byte_of(s, n) : -1;
    char one = (char)byte;
    int rc;

    if (byte >= 0)
        rc = sl_str_append(&r->pending, &one, 1, err);
    else if (r->m->chars)
        rc = add_meta(&r->pending, s, n, err);
    else
        rc = sl_str_append(&r->pending, s, n, err);
    if (rc == 0 && r->strip && !r->begun && r->pending.n > before) {
        if (r->pending.s[before] == ' ') {
            memmove(r->pending.s + before, r->pending.s + before + 1,
                    r->pending.n - before);
            r->pending.n--; /* the zero byte came along */
        }
        r->begun = true;
    }
    return rc;
}

static int run_push(void *run, const int32_t *ids, size_t n, struct sl_str *out,
                    struct sl_error *err)
{
    struct run *r = run;

    for (size_t i = 0; i < n; i++) {
        if (add_piece(r, (uint32_t)ids[i], err) != 0)
            return -1;
    }
    return sl_utf8_flow(out, &r->pending,
                        r->m->chars ? SL_UTF8_BYTES : SL_UTF8_SUBPARTS, false,
                        err);
}

/* A blank at the beginning of the whole text goes, none behind what stands
 * apart (tokenizers' Strip looks at the whole). */
static int run_end(void *run, bool last, struct sl_str *out,
                   struct sl_error *err)
{
    struct run *r = run;

    r->begun = !last;
    return sl_utf8_flow(out, &r->pending,
                        r->m->chars ? SL_UTF8_BYTES : SL_UTF8_SUBPARTS, true,
                        err);
}

const struct sl_vocab_kind sl_vocab_byte_bpe = {
    .name = "byte-bpe",
    .code = 3,
    .cost = 48,
    .byte_level = true,
    .open = open_bytes,
    .close = close_bpe,
    .encode = encode_bpe,
    .run_create = run_create,
    .run_destroy = run_destroy,
    .run_push = run_push,
    .run_end = run_end,
};

const struct sl_vocab_kind sl_vocab_char_bpe = {
    .name = "char-bpe",
    .code = 4,
    .cost = 48,
    .open = open_chars,
    .close = close_bpe,
    .encode = encode_bpe,
    .run_create = run_create,
    .run_destroy = run_destroy,
    .run_push = run_push,
    .run_end = run_end,
};
