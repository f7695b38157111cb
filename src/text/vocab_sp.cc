#include "config.h"

#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "src/text/sp_proto.h"
#include "src/text/vocab_icetk.h"
#include "src/text/vocab_sp.h"

namespace
{

/* The pieces that icetk adds behind those of the file. */
int extend_model(struct sl_str *model, const struct sl_vocab *v,
                 struct sl_error *err)
{
    uint32_t max_blank = sl_vocab_number(v, SL_VOCAB_MAX_BLANK);
    bool bytes = sl_vocab_number(v, SL_VOCAB_BYTE_FALLBACK) != 0;
    uint32_t n = sl_icetk_n_extra(max_blank, bytes);

    for (uint32_t i = 0; i < n; i++) {
        struct sl_icetk_piece piece;

        sl_icetk_extra(&piece, i, max_blank);
        if (sl_sp_add_piece(model, piece.name, strlen(piece.name), 0,
                            piece.type, err) != 0)
            return -1;
    }
    return bytes ? sl_sp_add_byte_fallback(model, err) : 0;
}

int load(struct sl_sp *s, const struct sl_vocab *v, bool icetk,
         struct sl_error *err)
{
    const struct sl_vocab_span *part = &v->part[SL_VOCAB_MODEL];
    struct sl_str model = {};
    int rc = sl_str_append(&model, (const char *)part->p, part->bytes, err);

    if (rc == 0 && icetk)
        rc = extend_model(&model, v, err);
    if (rc == 0) {
        auto status =
            s->sp.LoadFromSerializedProto(absl::string_view(model.s, model.n));
        if (!status.ok())
            rc = sl_fail(err, SL_ERR_CORRUPT,
                         "tokenizer: sentencepiece does not take the model: %s",
                         status.error_message());
    }
    sl_str_fini(&model);
    return rc;
}

int open_sp(struct sl_tokenizer *t, bool icetk, struct sl_error *err)
{
    const struct sl_vocab *v = &t->vocab;
    uint32_t offset = icetk ? sl_vocab_number(v, SL_VOCAB_N_IMAGE) : 0;

    if (v->part[SL_VOCAB_MODEL].bytes == 0 || offset > v->n_tokens ||
        sl_vocab_number(v, SL_VOCAB_MAX_BLANK) > SL_ICETK_MAX_BLANK)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "vocabulary: no sentencepiece model, or impossible "
                       "numbers about it (%u, %u); convert again",
                       offset, sl_vocab_number(v, SL_VOCAB_MAX_BLANK));
    return sl_guarded(err, [&] {
        struct sl_sp *s = new sl_sp{};

        s->offset = (int32_t)offset;
        s->marks = icetk;
        s->max_blank = icetk ? sl_vocab_number(v, SL_VOCAB_MAX_BLANK) : 0;
        if (sl_guarded(err, [&] { return load(s, v, icetk, err); }) != 0) {
            delete s;
            return -1;
        }
        if ((uint64_t)s->sp.GetPieceSize() + offset > v->n_tokens) {
            delete s;
            return sl_fail(err, SL_ERR_CORRUPT,
                           "vocabulary: its model has more pieces than it has "
                           "ids (%u); convert again",
                           v->n_tokens);
        }
        t->impl = s;
        return 0;
    });
}

int open_icetk(struct sl_tokenizer *t, struct sl_error *err)
{
    return open_sp(t, true, err);
}

int open_plain(struct sl_tokenizer *t, struct sl_error *err)
{
    return open_sp(t, false, err);
}

void close_sp(void *impl)
{
    delete (struct sl_sp *)impl;
}

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

int add_pieces(const struct sl_sp *s, struct sl_ids *ids,
               absl::string_view text, struct sl_error *err)
{
    std::vector<int> pieces;
    size_t before = ids->n;
    auto status = s->sp.Encode(text, &pieces);

    if (!status.ok())
        return sl_fail(err, SL_ERR_INTERNAL, "tokenizer: %s",
                       status.error_message());
    for (int piece : pieces) {
        if (sl_ids_add(ids, piece + s->offset, err) != 0) {
            ids->n = before;
            return -1;
        }
    }
    return 0;
}

int encode_icetk(struct sl_tokenizer *t, struct sl_ids *ids, const char *text,
                 size_t n, struct sl_section at, struct sl_error *err)
{
    const struct sl_sp *s = (const struct sl_sp *)t->impl;

    return sl_guarded(err, [&] {
        std::string marked = sl_vocab_number(&t->vocab, SL_VOCAB_WHITESPACE) ==
                                     SL_WHITESPACE_TOKENS
                                 ? mark_whitespace(text, n, s->max_blank)
                                 : collapse_whitespace(text, n);

        return add_pieces(s, ids, marked, err);
    });
}

int encode_plain(struct sl_tokenizer *t, struct sl_ids *ids, const char *text,
                 size_t n, struct sl_section at, struct sl_error *err)
{
    return sl_guarded(err, [&] {
        return add_pieces((const struct sl_sp *)t->impl, ids,
                          absl::string_view(text, n), err);
    });
}

/* SAT's detokenize prints control pieces and its tokens for whitespace in
 * brackets, "[[gMASK]]" and "[<t>]"; ChatGLM-6B's decode has the names alone,
 * and whitespace is whitespace. */
int label_icetk(const struct sl_tokenizer *t, uint32_t id, struct sl_str *out,
                struct sl_error *err)
{
    char name[SL_ICETK_NAME + 2];
    uint32_t n_model = sl_vocab_number(&t->vocab, SL_VOCAB_N_MODEL) +
                       sl_vocab_number(&t->vocab, SL_VOCAB_N_IMAGE);
    bool chatglm = sl_vocab_number(&t->vocab, SL_VOCAB_CHATGLM) != 0;
    const char *label = NULL;
    size_t n;

    if (chatglm) {
        if (sl_vocab_type(&t->vocab, id) != SL_PIECE_CONTROL)
            return 0;
        label = sl_vocab_piece(&t->vocab, id, &n);
        return sl_str_append(out, label, n, err) == 0 ? 1 : -1;
    }
    if ((int32_t)id == t->tp.special.eos)
        label = "</s>";
    else if (id >= n_model)
        label = sl_icetk_label(name, id - n_model, t->tp.max_blank);
    if (label == NULL)
        return 0;
    return sl_str_append(out, "[", 1, err) == 0 &&
                   sl_str_add(out, label, err) == 0 &&
                   sl_str_append(out, "]", 1, err) == 0
               ? 1
               : -1;
}

} /* namespace */

const struct sl_vocab_kind sl_vocab_icetk = {
    "icetk",
    1,
    false,
    256,
    open_icetk,
    close_sp,
    encode_icetk,
    label_icetk,
    sl_sp_run_create,
    sl_sp_run_destroy,
    sl_sp_run_push,
    sl_sp_run_end,
};

const struct sl_vocab_kind sl_vocab_sentencepiece = {
    "sentencepiece",
    2,
    false,
    256,
    open_plain,
    close_sp,
    encode_plain,
    NULL,
    sl_sp_run_create,
    sl_sp_run_destroy,
    sl_sp_run_push,
    sl_sp_run_end,
};
