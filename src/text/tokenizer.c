#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "src/base/bytes.h"
#include "src/text/bytelevel.h"
#include "src/text/tokenizer_impl.h"
#include "src/text/vocab_icetk.h"

enum { PREFIX, SUFFIX, STOPS };

/* --- opening --------------------------------------------------------------
 */

static void take_params(struct sl_text_params *tp, const struct sl_vocab *v)
{
    struct sl_special_ids *s = &tp->special;
    int32_t *const ids[] = {&s->mask, &s->gmask, &s->smask,  &s->eod, &s->sop,
                            &s->eop,  &s->enc,   &s->dblock, &s->eos, &s->unk};

    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++)
        *ids[i] = sl_vocab_control(v, (enum sl_vocab_control)i);
    tp->n_tokens = v->n_tokens;
    tp->n_image_tokens = sl_vocab_number(v, SL_VOCAB_N_IMAGE);
    tp->max_blank = sl_vocab_number(v, SL_VOCAB_MAX_BLANK);
    tp->byte_fallback = sl_vocab_number(v, SL_VOCAB_BYTE_FALLBACK) != 0;
    tp->whitespace = sl_vocab_number(v, SL_VOCAB_WHITESPACE) == 0
                         ? SL_WHITESPACE_TOKENS
                         : SL_WHITESPACE_COLLAPSE;
}

static int read_lists(struct sl_tokenizer *t, struct sl_error *err)
{
    static const enum sl_vocab_tag tags[] = {
        [PREFIX] = SL_VOCAB_PREFIX,
        [SUFFIX] = SL_VOCAB_SUFFIX,
        [STOPS] = SL_VOCAB_STOPS,
    };

    for (int k = 0; k < 3; k++) {
        const struct sl_vocab_span *part = &t->vocab.part[tags[k]];

        for (uint32_t i = 0; i < part->count; i++) {
            if (sl_ids_add(&t->lists[k],
                           (int32_t)sl_load_u32(part->p + 4 * (size_t)i),
                           err) != 0)
                return -1;
        }
    }
    return 0;
}

/* The blob is moved to the tokenizer. */
static int open_blob(struct sl_tokenizer *t, uint8_t *blob, size_t n,
                     struct sl_error *err)
{
    t->blob = blob;
    if (sl_vocab_parse(&t->vocab, blob, n, err) != 0)
        return -1;
    t->kind = sl_vocab_kind_of(t->vocab.code);
    if (t->kind == NULL)
        return sl_fail(err, SL_ERR_UNSUPPORTED,
                       "vocabulary: kind %u is not known to this version",
                       t->vocab.code);
    take_params(&t->tp, &t->vocab);
    if (read_lists(t, err) != 0 ||
        sl_added_init(&t->added, &t->vocab, false, err) != 0)
        return -1;
    return t->kind->open(t, err);
}

static int open_any(struct sl_tokenizer **out, const void *data, size_t n,
                    const struct sl_text_params *tp, struct sl_error *err)
{
    struct sl_tokenizer *t = calloc(1, sizeof *t);
    uint8_t *blob = NULL;
    size_t n_blob = n;

    if (t == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "tokenizer: out of memory");
    if (!sl_vocab_is_blob(data, n)) {
        if (sl_icetk_compile(&blob, &n_blob, data, n, tp, false, err) != 0)
            goto fail;
    } else {
        blob = malloc(n);
        if (blob == NULL) {
            sl_fail(err, SL_ERR_NOMEM, "tokenizer: no memory for %zu bytes", n);
            goto fail;
        }
        memcpy(blob, data, n);
    }
    if (open_blob(t, blob, n_blob, err) != 0)
        goto fail;
    *out = t;
    return 0;
fail:
    sl_tokenizer_destroy(t);
    return -1;
}

/* The ids of the model file and those of its tokenizer must be the same. */
static int check(const struct sl_tokenizer *t, const struct sl_text_params *tp,
                 uint32_t vocab, struct sl_error *err)
{
    const struct sl_special_ids *a = &t->tp.special, *b = &tp->special;

    if (memcmp(a, b, sizeof *a) != 0)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "tokenizer: its [MASK] is %d, [sop] %d, </s> %d, the "
                       "model says %d, %d, %d: they do not belong together",
                       a->mask, a->sop, a->eos, b->mask, b->sop, b->eos);
    if (tp->n_tokens != 0 && tp->n_tokens != t->tp.n_tokens)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "tokenizer: it has %u ids, the model says %u",
                       t->tp.n_tokens, tp->n_tokens);
    if (t->tp.n_tokens > vocab)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "tokenizer: it has %u ids, the model's vocabulary %u",
                       t->tp.n_tokens, vocab);
    return 0;
}

int sl_tokenizer_create(struct sl_tokenizer **out, const void *data, size_t n,
                        const struct sl_text_params *tp, uint32_t vocab,
                        struct sl_error *err)
{
    struct sl_tokenizer *t;

    if (open_any(&t, data, n, tp, err) != 0)
        return -1;
    if (check(t, tp, vocab, err) != 0) {
        sl_tokenizer_destroy(t);
        return -1;
    }
    *out = t;
    return 0;
}

void sl_tokenizer_destroy(struct sl_tokenizer *t)
{
    if (t == NULL)
        return;
    if (t->impl != NULL)
        t->kind->close(t->impl);
    for (int k = 0; k < 3; k++)
        sl_ids_fini(&t->lists[k]);
    sl_added_fini(&t->added);
    sl_str_fini(&t->text);
    free(t->blob);
    free(t);
}

int sl_tokenizer_describe(struct sl_text_params *tp, const void *data, size_t n,
                          struct sl_error *err)
{
    struct sl_tokenizer *t;

    if (open_any(&t, data, n, tp, err) != 0)
        return -1;
    *tp = t->tp;
    sl_tokenizer_destroy(t);
    return 0;
}

/* --- encoding -------------------------------------------------------------
 */

static int encode(struct sl_tokenizer *t, struct sl_ids *ids, const char *s,
                  size_t n, bool special, struct sl_error *err)
{
    struct sl_added_hit hit;
    size_t at = 0;

    while (at < n) {
        bool found = sl_added_find(&t->added, &hit, s, n, at, special);
        size_t end = found ? hit.begin : n;

        if (end > at &&
            t->kind->encode(t, ids, s + at, end - at,
                            (struct sl_section){at == 0, special}, err) != 0)
            return -1;
        if (found && sl_ids_add(ids, (int32_t)hit.id, err) != 0)
            return -1;
        at = found ? hit.end : n;
    }
    return 0;
}

static int encode_any(struct sl_tokenizer *t, struct sl_ids *ids,
                      const char *text, size_t n, bool special,
                      struct sl_error *err)
{
    size_t before = ids->n;

    if (n > 0 && !sl_utf8_valid(text, n)) {
        sl_str_clear(&t->text);
        if (sl_utf8_repair(&t->text, text, n, SL_UTF8_SUBPARTS, err) != 0)
            return -1;
        text = t->text.s;
        n = t->text.n;
    }
    if (encode(t, ids, text, n, special, err) == 0)
        return 0;
    ids->n = before;
    return -1;
}

int sl_tokenizer_encode(struct sl_tokenizer *t, struct sl_ids *ids,
                        const char *text, size_t n, struct sl_error *err)
{
    return encode_any(t, ids, text, n, false, err);
}

int sl_tokenizer_encode_special(struct sl_tokenizer *t, struct sl_ids *ids,
                                const char *text, size_t n,
                                struct sl_error *err)
{
    return encode_any(t, ids, text, n, true, err);
}

/* --- ids ------------------------------------------------------------------
 */

const char *sl_tokenizer_kind(const struct sl_tokenizer *t)
{
    return t->kind->name;
}

uint32_t sl_tokenizer_cost(const struct sl_tokenizer *t)
{
    return t->kind->cost;
}

size_t sl_text_most_bytes(uint32_t n_tokens)
{
    return 4096 + 32 * (size_t)n_tokens;
}

uint32_t sl_tokenizer_n_tokens(const struct sl_tokenizer *t)
{
    return t->vocab.n_tokens;
}

int32_t sl_tokenizer_find(const struct sl_tokenizer *t, const char *name)
{
    const uint8_t *at = t->vocab.part[SL_VOCAB_ADDED].p;

    for (uint32_t i = 0; i < t->vocab.part[SL_VOCAB_ADDED].count; i++) {
        struct sl_vocab_added added = sl_vocab_added_next(&at);

        if (added.n == strlen(name) && memcmp(added.s, name, added.n) == 0)
            return (int32_t)added.id;
    }
    return -1;
}

bool sl_tokenizer_is_special(const struct sl_tokenizer *t, int32_t id)
{
    return id >= 0 && (uint32_t)id < t->vocab.n_tokens &&
           sl_vocab_type(&t->vocab, (uint32_t)id) == SL_PIECE_CONTROL;
}

size_t sl_tokenizer_piece(const struct sl_tokenizer *t, int32_t id, char *buf,
                          size_t room)
{
    struct sl_str spelled = {0};
    struct sl_error err;
    size_t n = 0;
    const char *s;

    if (id < 0 || (uint32_t)id >= t->vocab.n_tokens) {
        s = "";
    } else {
        s = sl_vocab_piece(&t->vocab, (uint32_t)id, &n);
        if (t->kind->byte_level &&
            sl_vocab_type(&t->vocab, (uint32_t)id) == SL_PIECE_NORMAL &&
            sl_bytelevel_encode(&spelled, s, n, &err) == 0) {
            s = spelled.s;
            n = spelled.n;
        }
    }
    if (room > 0) {
        size_t fits = n < room ? n : room - 1;

        if (fits > 0)
            memcpy(buf, s, fits);
        buf[fits] = '\0';
    }
    sl_str_fini(&spelled);
    return n;
}

const struct sl_ids *sl_tokenizer_stops(const struct sl_tokenizer *t)
{
    return &t->lists[STOPS];
}

const struct sl_ids *sl_tokenizer_prefix(const struct sl_tokenizer *t)
{
    return &t->lists[PREFIX];
}

const struct sl_ids *sl_tokenizer_suffix(const struct sl_tokenizer *t)
{
    return &t->lists[SUFFIX];
}
