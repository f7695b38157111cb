#include "config.h"

#include <stdio.h>
#include <string.h>

#include "src/text/sp_proto.h"
#include "src/text/vocab_build.h"
#include "src/text/vocab_icetk.h"

static const struct {
    const char *piece, *label;
    enum sl_vocab_control control;
} specials[SL_ICETK_SPECIALS] = {
    {"[MASK]", "[MASK]", SL_CONTROL_MASK},
    {"[gMASK]", "[gMASK]", SL_CONTROL_GMASK},
    {"[sMASK]", "[sMASK]", SL_CONTROL_SMASK},
    {"<eod>", "eod", SL_CONTROL_EOD},
    {"<sop>", "sop", SL_CONTROL_SOP},
    {"<eop>", "eop", SL_CONTROL_EOP},
    {"<ENC>", "ENC", SL_CONTROL_ENC},
    {"<dBLOCK>", "dBLOCK", SL_CONTROL_DBLOCK},
};

uint32_t sl_icetk_n_extra(uint32_t max_blank, bool byte_fallback)
{
    return SL_ICETK_SPECIALS + max_blank + (byte_fallback ? 256 : 0);
}

void sl_icetk_extra(struct sl_icetk_piece *piece, uint32_t i,
                    uint32_t max_blank)
{
    if (i < SL_ICETK_SPECIALS) {
        piece->type = SL_PIECE_CONTROL;
        snprintf(piece->name, sizeof piece->name, "%s", specials[i].piece);
        return;
    }
    i -= SL_ICETK_SPECIALS;
    piece->type = i < max_blank ? SL_PIECE_USER : SL_PIECE_BYTE;
    if (i >= max_blank)
        snprintf(piece->name, sizeof piece->name, "<0x%02X>",
                 (i - max_blank) & 255);
    else if (i == 0)
        snprintf(piece->name, sizeof piece->name, "<|tab|>");
    else
        snprintf(piece->name, sizeof piece->name, "<|blank_%u|>", i + 1);
}

const char *sl_icetk_label(char buf[SL_ICETK_NAME], uint32_t i,
                           uint32_t max_blank)
{
    if (i < SL_ICETK_SPECIALS)
        return specials[i].label;
    i -= SL_ICETK_SPECIALS;
    if (i >= max_blank)
        return NULL;
    if (i == 0)
        return "<t>";
    snprintf(buf, SL_ICETK_NAME, "<blank_%u>", i + 1);
    return buf;
}

static bool same(const struct sl_sp_piece *p, const struct sl_sp_names *names,
                 int which)
{
    return p->n == names->name[which].n &&
           memcmp(p->s, names->name[which].s, p->n) == 0;
}

/* The pieces of the file, at their ids; the first </s> and <unk> count. */
static int add_model(struct sl_vocab_builder *b, uint32_t *n_pieces,
                     const void *model, size_t n, uint32_t offset,
                     struct sl_error *err)
{
    struct sl_sp_names names;
    struct sl_sp_reader r;
    struct sl_sp_piece p;
    int rc;

    *n_pieces = 0;
    sl_sp_read_names(&names, model, n);
    sl_sp_reader_init(&r, model, n);
    while ((rc = sl_sp_reader_next(&r, &p, err)) > 0) {
        uint32_t id = offset + (*n_pieces)++;

        if (sl_vocab_add_piece(b, id, p.s, p.n, (enum sl_piece_type)p.type,
                               err) != 0)
            return -1;
        if (p.type == SL_PIECE_CONTROL && same(&p, &names, SL_SP_EOS))
            sl_vocab_set_control(b, SL_CONTROL_EOS, (int32_t)id);
        if (p.type == SL_PIECE_CONTROL && same(&p, &names, SL_SP_PAD))
            sl_vocab_set_control(b, SL_CONTROL_PAD, (int32_t)id);
        if (p.type == SL_PIECE_UNKNOWN && same(&p, &names, SL_SP_UNK))
            sl_vocab_set_control(b, SL_CONTROL_UNK, (int32_t)id);
    }
    if (rc == 0 && *n_pieces == 0)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "tokenizer: not a sentencepiece model: no piece in %zu "
                       "bytes",
                       n);
    return rc;
}

static int add_extra(struct sl_vocab_builder *b, uint32_t first,
                     const struct sl_text_params *tp, struct sl_error *err)
{
    uint32_t n = sl_icetk_n_extra(tp->max_blank, tp->byte_fallback);
    struct sl_icetk_piece piece;

    for (uint32_t i = 0; i < n; i++) {
        sl_icetk_extra(&piece, i, tp->max_blank);
        if (sl_vocab_add_piece(b, first + i, piece.name, strlen(piece.name),
                               (enum sl_piece_type)piece.type, err) != 0)
            return -1;
        if (i >= SL_ICETK_SPECIALS)
            continue;
        sl_vocab_set_control(b, specials[i].control, (int32_t)(first + i));
        if (sl_vocab_add_added(b, first + i, piece.name, strlen(piece.name),
                               SL_ADDED_SPECIAL, err) != 0)
            return -1;
    }
    return 0;
}

static int build(struct sl_vocab_builder *b, const void *model, size_t n,
                 const struct sl_text_params *tp, bool chatglm,
                 struct sl_error *err)
{
    uint32_t n_pieces;
    int32_t eos;

    sl_vocab_set_number(b, SL_VOCAB_N_IMAGE, tp->n_image_tokens);
    sl_vocab_set_number(b, SL_VOCAB_MAX_BLANK, tp->max_blank);
    sl_vocab_set_number(b, SL_VOCAB_WHITESPACE, (uint32_t)tp->whitespace);
    sl_vocab_set_number(b, SL_VOCAB_BYTE_FALLBACK, tp->byte_fallback);
    sl_vocab_set_number(b, SL_VOCAB_CHATGLM, chatglm);
    if (add_model(b, &n_pieces, model, n, tp->n_image_tokens, err) != 0)
        return -1;
    sl_vocab_set_number(b, SL_VOCAB_N_MODEL, n_pieces);
    if (add_extra(b, tp->n_image_tokens + n_pieces, tp, err) != 0 ||
        sl_vocab_set_model(b, model, n, err) != 0 ||
        sl_vocab_add_id(b, SL_VOCAB_STOPS,
                        sl_vocab_get_control(b, SL_CONTROL_EOP), err) != 0)
        return -1;
    eos = sl_vocab_get_control(b, SL_CONTROL_EOS);
    if (chatglm) /* text, [gMASK], <sop>, then the answer */
        return sl_vocab_add_id(b, SL_VOCAB_SUFFIX,
                               sl_vocab_get_control(b, SL_CONTROL_GMASK),
                               err) != 0
                   ? -1
                   : sl_vocab_add_id(b, SL_VOCAB_SUFFIX,
                                     sl_vocab_get_control(b, SL_CONTROL_SOP),
                                     err);
    return eos < 0 ? 0 : sl_vocab_add_id(b, SL_VOCAB_STOPS, eos, err);
}

int sl_icetk_compile(uint8_t **blob, size_t *n_blob, const void *model,
                     size_t n, const struct sl_text_params *tp, bool chatglm,
                     struct sl_error *err)
{
    struct sl_vocab_builder *b;
    int rc;

    if (tp->n_image_tokens >= SL_VOCAB_MAX ||
        tp->max_blank > SL_ICETK_MAX_BLANK)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "tokenizer: %u image tokens, blanks up to %u: not a "
                       "model's numbers",
                       tp->n_image_tokens, tp->max_blank);
    if (sl_vocab_builder_create(&b, "icetk", err) != 0)
        return -1;
    rc = build(b, model, n, tp, chatglm, err);
    if (rc == 0)
        rc = sl_vocab_builder_finish(b, blob, n_blob, err);
    sl_vocab_builder_destroy(b);
    return rc;
}
