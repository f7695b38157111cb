#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "src/base/bytes.h"
#include "src/base/mem.h"
#include "src/text/bytelevel.h"
#include "src/text/vocab_build_impl.h"

enum { SECTION_BYTES = 24 };

static int add_u32(struct sl_str *out, uint32_t v, struct sl_error *err)
{
    uint8_t bytes[4];

    sl_store_u32(bytes, v);
    return sl_str_append(out, (char *)bytes, 4, err);
}

/* The bytes that a piece stands for. A piece of a byte-level vocabulary that
 * is not spelt in its alphabet can never come out of a text: it stands for its
 * spelling and is no piece of the model. */
static int add_piece_text(struct sl_vocab_builder *b, struct sl_str *text,
                          uint32_t id, struct sl_error *err)
{
    struct sl_built_piece *p = &b->pieces[id];
    const char *s = b->text.s + p->off;
    bool is = false;

    if (p->type == 0)
        return 0;
    if (b->kind->byte_level && !p->added) {
        if (sl_bytelevel_decode(&is, text, s, p->n, err) != 0)
            return -1;
        if (is)
            return 0;
        p->type &= (uint8_t)~SL_PIECE_MODEL;
    }
    return sl_str_append(text, s, p->n, err);
}

static int write_pieces(struct sl_vocab_builder *b, struct sl_error *err)
{
    struct sl_str *pieces = &b->part[SL_VOCAB_PIECES], text = {0};
    struct sl_str *types = &b->part[SL_VOCAB_TYPES];
    int rc = add_u32(pieces, 0, err);

    for (uint32_t id = 0; rc == 0 && id < b->n_tokens; id++) {
        uint8_t type;

        rc = add_piece_text(b, &text, id, err);
        type = b->pieces[id].type != 0 ? b->pieces[id].type : SL_PIECE_UNUSED;
        if (rc == 0 && text.n > UINT32_MAX)
            rc = sl_fail(err, SL_ERR_CORRUPT,
                         "the pieces have more than 4 GiB of text");
        if (rc == 0)
            rc = add_u32(pieces, (uint32_t)text.n, err);
        if (rc == 0)
            rc = sl_str_append(types, (char *)&type, 1, err);
    }
    if (rc == 0)
        rc = sl_str_append(pieces, text.s, text.n, err);
    sl_str_fini(&text);
    b->count[SL_VOCAB_PIECES] = b->count[SL_VOCAB_TYPES] = b->n_tokens;
    return rc;
}

static int write_added(struct sl_vocab_builder *b, struct sl_error *err)
{
    struct sl_str *part = &b->part[SL_VOCAB_ADDED];

    for (size_t i = 0; i < b->n_added; i++) {
        const struct sl_built_added *a = &b->added[i];

        if (add_u32(part, a->id, err) != 0 ||
            add_u32(part, a->flags, err) != 0 ||
            add_u32(part, a->n, err) != 0 ||
            sl_str_append(part, b->text.s + a->off, a->n, err) != 0)
            return -1;
    }
    b->count[SL_VOCAB_ADDED] = (uint32_t)b->n_added;
    return 0;
}

static int write_settings(struct sl_vocab_builder *b, struct sl_error *err)
{
    for (int i = 0; i < SL_N_CONTROLS; i++) {
        if (add_u32(&b->part[SL_VOCAB_CONTROLS], (uint32_t)b->controls[i],
                    err) != 0)
            return -1;
    }
    for (int i = 0; i < SL_N_NUMBERS; i++) {
        if (add_u32(&b->part[SL_VOCAB_NUMBERS], b->numbers[i], err) != 0)
            return -1;
    }
    b->count[SL_VOCAB_CONTROLS] = SL_N_CONTROLS;
    b->count[SL_VOCAB_NUMBERS] = SL_N_NUMBERS;
    return 0;
}

/* Head, table and sections; those that hold nothing are left out. */
static uint8_t *lay_out(const struct sl_vocab_builder *b, size_t *n)
{
    uint32_t n_sections = 0;
    uint64_t at = SL_VOCAB_HEAD;
    uint8_t *blob, *entry;

    for (int i = 0; i < SL_VOCAB_N_TAGS; i++)
        n_sections += b->part[i].n > 0;
    at += (uint64_t)n_sections * SECTION_BYTES;
    for (int i = 0; i < SL_VOCAB_N_TAGS; i++) {
        if (b->part[i].n > 0)
            at = sl_round_up(at, 8) + b->part[i].n;
    }
    *n = (size_t)at;
    blob = sl_zalloc_array(*n, 1);
    if (blob == NULL)
        return NULL;
    memcpy(blob, SL_VOCAB_MAGIC, 8);
    sl_store_u32(blob + 8, b->kind->code);
    sl_store_u32(blob + 12, b->n_tokens);
    sl_store_u32(blob + 16, n_sections);
    sl_store_u64(blob + 24, *n);
    entry = blob + SL_VOCAB_HEAD;
    at = SL_VOCAB_HEAD + (uint64_t)n_sections * SECTION_BYTES;
    for (int i = 0; i < SL_VOCAB_N_TAGS; i++) {
        if (b->part[i].n == 0)
            continue;
        at = sl_round_up(at, 8);
        sl_store_u32(entry, (uint32_t)i);
        sl_store_u32(entry + 4, b->count[i]);
        sl_store_u64(entry + 8, at);
        sl_store_u64(entry + 16, b->part[i].n);
        memcpy(blob + at, b->part[i].s, b->part[i].n);
        at += b->part[i].n;
        entry += SECTION_BYTES;
    }
    return blob;
}

/* Ids of lists and controls come from other files than the pieces. */
static int check_ids(const struct sl_vocab_builder *b, struct sl_error *err)
{
    static const struct {
        enum sl_vocab_tag tag;
        const char *what;
    } lists[] = {
        {SL_VOCAB_STOPS, "that ends an answer"},
        {SL_VOCAB_PREFIX, "that stands before a text"},
        {SL_VOCAB_SUFFIX, "that stands behind a text"},
    };

    for (size_t k = 0; k < sizeof lists / sizeof *lists; k++) {
        for (uint32_t i = 0; i < b->count[lists[k].tag]; i++) {
            uint32_t id = sl_load_u32(b->part[lists[k].tag].s + 4 * (size_t)i);

            if (id >= b->n_tokens)
                return sl_fail(err, SL_ERR_CORRUPT,
                               "the id %s is %u, but the vocabulary has %u: "
                               "they do not belong together",
                               lists[k].what, id, b->n_tokens);
        }
    }
    return 0;
}

int sl_vocab_builder_finish(struct sl_vocab_builder *b, uint8_t **blob,
                            size_t *n, struct sl_error *err)
{
    struct sl_vocab v;
    uint8_t *made;

    if (b->kind == &sl_vocab_sentencepiece && b->part[SL_VOCAB_MODEL].n == 0 &&
        sl_vocab_make_model(b, err) != 0)
        return -1;
    if (check_ids(b, err) != 0 || write_pieces(b, err) != 0 ||
        write_added(b, err) != 0 || write_settings(b, err) != 0)
        return -1;
    made = lay_out(b, n);
    if (made == NULL)
        return sl_fail(err, SL_ERR_NOMEM,
                       "no memory for a vocabulary of %zu bytes", *n);
    /* What a reader would refuse is not written. */
    if (sl_vocab_parse(&v, made, *n, err) != 0) {
        free(made);
        return -1;
    }
    *blob = made;
    return 0;
}
