#include "config.h"

#include <cstdlib>
#include <cstring>
#include <new>
#include <string>
#include <vector>

#include <sentencepiece_processor.h>

#include "src/text/tokenizer_impl.h"

namespace
{

/* ModelProto.SentencePiece.Type of sentencepiece_model.proto */
enum { PIECE_CONTROL = 3, PIECE_USER_DEFINED = 4, PIECE_BYTE = 6 };

/* In the order of their ids (icetk; SAT tokenization/icetk_glm_130B). */
const char *const special_pieces[SL_N_SPECIAL] = {
    "[MASK]", "[gMASK]", "[sMASK]", "<eod>",
    "<sop>",  "<eop>",   "<ENC>",   "<dBLOCK>",
};

/* One protobuf varint; false at the end of the data. */
bool read_varint(const uint8_t **p, const uint8_t *end, uint64_t *v)
{
    *v = 0;
    for (unsigned shift = 0; shift < 64 && *p < end; shift += 7) {
        uint8_t b = *(*p)++;

        *v |= (uint64_t)(b & 127) << shift;
        if (b < 128)
            return true;
    }
    return false;
}

/* Steps over one field of a protobuf message; false where it is cut off. */
bool skip_field(const uint8_t **p, const uint8_t *end, uint64_t *field)
{
    uint64_t tag, size;

    if (!read_varint(p, end, &tag))
        return false;
    *field = tag >> 3;
    switch (tag & 7) {
    case 0:
        return read_varint(p, end, &size);
    case 1:
        size = 8;
        break;
    case 2:
        if (!read_varint(p, end, &size))
            return false;
        break;
    case 5:
        size = 4;
        break;
    default:
        return false;
    }
    if (size > (uint64_t)(end - *p))
        return false;
    *p += size;
    return true;
}

/* The pieces of a serialised ModelProto are its fields number 1: counting
 * them saves loading the model twice (the ids that are appended depend on
 * their number). */
int count_pieces(uint32_t *n_pieces, const void *model, size_t n,
                 struct sl_error *err)
{
    const uint8_t *p = (const uint8_t *)model, *end = p + n;
    uint64_t field;

    *n_pieces = 0;
    while (p < end) {
        if (!skip_field(&p, end, &field))
            return sl_fail(err, SL_ERR_CORRUPT,
                           "tokenizer: not a sentencepiece model: cut off or "
                           "garbled at byte %zu of %zu",
                           (size_t)(p - (const uint8_t *)model), n);
        *n_pieces += field == 1;
    }
    if (*n_pieces == 0 || *n_pieces > INT32_MAX / 4)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "tokenizer: not a sentencepiece model: %u pieces in "
                       "%zu bytes",
                       *n_pieces, n);
    return 0;
}

/* A SentencePiece message as a field of a ModelProto: piece, score 0, type.
 * All names here are short, so every length is one byte. */
void add_piece(std::string *model, const std::string &text, int type)
{
    std::string body;

    body += '\x0a';
    body += (char)text.size();
    body += text;
    body += '\x15';
    body.append(4, '\0');
    body += '\x18';
    body += (char)type;
    *model += '\x0a';
    *model += (char)body.size();
    *model += body;
}

/* Protobuf messages merge when they are concatenated, so the pieces icetk
 * adds can be appended to the file's own bytes. */
std::string extend_model(const void *model, size_t n,
                         const struct sl_text_params *tp)
{
    std::string out((const char *)model, n);
    char name[24];

    for (const char *piece : special_pieces)
        add_piece(&out, piece, PIECE_CONTROL);
    if (tp->max_blank > 0)
        add_piece(&out, "<|tab|>", PIECE_USER_DEFINED);
    for (uint32_t i = 2; i <= tp->max_blank; i++) {
        snprintf(name, sizeof name, "<|blank_%u|>", i);
        add_piece(&out, name, PIECE_USER_DEFINED);
    }
    if (tp->byte_fallback) {
        for (unsigned i = 0; i < SL_N_BYTES; i++) {
            snprintf(name, sizeof name, "<0x%02X>", i);
            add_piece(&out, name, PIECE_BYTE);
        }
        /* trainer_spec { byte_fallback: true } */
        out.append("\x12\x03\x98\x02\x01", 5);
    }
    return out;
}

int load(struct sl_tokenizer *t, const void *model, size_t n,
         const struct sl_text_params *tp, struct sl_error *err)
{
    struct sl_special_ids *s = &t->tp.special;
    uint64_t n_tokens;
    int32_t first;

    t->tp = *tp;
    if (count_pieces(&t->n_pieces, model, n, err) != 0)
        return -1;
    if (tp->n_image_tokens > INT32_MAX / 4 || tp->max_blank > 4096)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "tokenizer: %u image tokens, blanks up to %u: not a "
                       "model's numbers",
                       tp->n_image_tokens, tp->max_blank);
    auto status = t->sp.LoadFromSerializedProto(extend_model(model, n, tp));
    if (!status.ok())
        return sl_fail(err, SL_ERR_CORRUPT,
                       "tokenizer: sentencepiece does not take the model: %s",
                       status.error_message());
    n_tokens = (uint64_t)tp->n_image_tokens + t->n_pieces + SL_N_SPECIAL +
               tp->max_blank + (tp->byte_fallback ? SL_N_BYTES : 0);
    t->tp.n_tokens = (uint32_t)n_tokens;
    first = (int32_t)(tp->n_image_tokens + t->n_pieces);
    s->mask = first;
    s->gmask = first + 1;
    s->smask = first + 2;
    s->eod = first + 3;
    s->sop = first + 4;
    s->eop = first + 5;
    s->enc = first + 6;
    s->dblock = first + 7;
    s->eos = s->unk = -1;
    if (t->sp.eos_id() >= 0)
        s->eos = (int32_t)tp->n_image_tokens + t->sp.eos_id();
    if (t->sp.unk_id() >= 0)
        s->unk = (int32_t)tp->n_image_tokens + t->sp.unk_id();
    return 0;
}

/* The ids of the model file and those of its tokenizer must be the same. */
int check(const struct sl_tokenizer *t, const struct sl_text_params *tp,
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

} /* namespace */

int sl_tokenizer_create(struct sl_tokenizer **out, const void *model, size_t n,
                        const struct sl_text_params *tp, uint32_t vocab,
                        struct sl_error *err)
{
    return sl_guarded(err, [&] {
        struct sl_tokenizer *t = new sl_tokenizer;

        if (sl_guarded(err, [&] { return load(t, model, n, tp, err); }) != 0 ||
            check(t, tp, vocab, err) != 0) {
            delete t;
            return -1;
        }
        *out = t;
        return 0;
    });
}

void sl_tokenizer_destroy(struct sl_tokenizer *t)
{
    delete t;
}

int sl_tokenizer_describe(struct sl_text_params *tp, const void *model,
                          size_t n, struct sl_error *err)
{
    return sl_guarded(err, [&] {
        struct sl_tokenizer t;

        if (load(&t, model, n, tp, err) != 0)
            return -1;
        tp->n_tokens = t.tp.n_tokens;
        tp->special = t.tp.special;
        return 0;
    });
}

namespace
{

/* SAT from 0.3 on: newline, tab and runs of blanks, the longest first, become
 * pieces of their own. */
std::string mark_whitespace(const char *text, size_t n, uint32_t max_blank)
{
    std::string out;
    size_t run;

    for (size_t i = 0; i < n; i += run) {
        run = 1;
        if (text[i] == '\n') {
            out += "<n>";
        } else if (text[i] == '\t' && max_blank > 0) {
            out += "<|tab|>";
        } else if (text[i] == ' ') {
            while (i + run < n && text[i + run] == ' ' && run < max_blank)
                run++;
            out += run == 1 ? " " : "<|blank_" + std::to_string(run) + "|>";
        } else {
            out += text[i];
        }
    }
    return out;
}

/* SAT 0.2.12 leaves line ends to sentencepiece's normaliser, where every run
 * of whitespace becomes one blank. */
std::string collapse_whitespace(const char *text, size_t n)
{
    std::string out;
    bool blank = false;

    for (size_t i = 0; i < n; i++) {
        bool space = text[i] == ' ' || (text[i] >= '\t' && text[i] <= '\r');

        if (!space)
            out += text[i];
        else if (!blank)
            out += ' ';
        blank = space;
    }
    return out;
}

} /* namespace */

int sl_tokenizer_encode(struct sl_tokenizer *t, struct sl_ids *ids,
                        const char *text, size_t n, struct sl_error *err)
{
    return sl_guarded(err, [&] {
        std::string marked = t->tp.whitespace == SL_WHITESPACE_TOKENS
                                 ? mark_whitespace(text, n, t->tp.max_blank)
                                 : collapse_whitespace(text, n);
        std::vector<int> pieces;
        size_t before = ids->n;
        auto status = t->sp.Encode(marked, &pieces);

        if (!status.ok())
            return sl_fail(err, SL_ERR_INTERNAL, "tokenizer: %s",
                           status.error_message());
        for (int piece : pieces) {
            if (sl_ids_add(ids, piece + (int32_t)t->tp.n_image_tokens, err) !=
                0) {
                ids->n = before;
                return -1;
            }
        }
        return 0;
    });
}
