#include "config.h"

#include <cstdlib>
#include <cstring>
#include <vector>

#include "src/text/tokenizer_impl.h"

struct sl_detok {
    struct sl_tokenizer *t;
    std::vector<int> run; /* sentencepiece ids since the last special one */
    size_t emitted;       /* bytes of the run's text that were given out */
    std::string out;
};

namespace
{

/* What SAT's detokenize prints for them, in brackets. */
const char *const special_names[SL_N_SPECIAL] = {
    "[MASK]", "[gMASK]", "[sMASK]", "eod", "sop", "eop", "ENC", "dBLOCK",
};

/* The name of an id at which detokenize cuts; empty for ordinary ones. */
std::string special_name(const struct sl_tokenizer *t, int32_t id)
{
    int32_t k = id - (int32_t)(t->tp.n_image_tokens + t->n_pieces);

    if (id == t->tp.special.eos)
        return "</s>";
    if (k < 0)
        return "";
    if (k < SL_N_SPECIAL)
        return special_names[k];
    k -= SL_N_SPECIAL;
    if (k >= (int32_t)t->tp.max_blank)
        return "";
    return k == 0 ? "<t>" : "<blank_" + std::to_string(k + 1) + ">";
}

/* Bytes a UTF-8 character beginning with lead should have; 1 if it is none. */
size_t utf8_length(uint8_t lead)
{
    if (lead >= 0xc2 && lead < 0xe0)
        return 2;
    if (lead >= 0xe0 && lead < 0xf0)
        return 3;
    return lead >= 0xf0 && lead < 0xf5 ? 4 : 1;
}

/* Is s[0..n) a whole character? n is utf8_length of its first byte, > 1. */
bool utf8_valid(const uint8_t *s, size_t n)
{
    uint32_t c = s[0] & (0x7fu >> n);

    for (size_t i = 1; i < n; i++)
        c = c << 6 | (s[i] & 0x3fu);
    if (n == 3)
        return c >= 0x800 && (c < 0xd800 || c > 0xdfff);
    return n == 2 || (c >= 0x10000 && c <= 0x10ffff);
}

/* How many byte pieces at the end of the run are the beginning of a character
 * that is not complete. sentencepiece goes through a stretch of byte pieces
 * from its start: a whole character, or else one byte that is none. */
size_t held_bytes(const struct sl_tokenizer *t, const std::vector<int> &run)
{
    std::vector<uint8_t> bytes;
    size_t begin = run.size(), i = 0;

    while (begin > 0 && t->sp.IsByte(run[begin - 1]))
        begin--;
    for (size_t k = begin; k < run.size(); k++)
        bytes.push_back((uint8_t)strtol(t->sp.IdToPiece(run[k]).c_str() + 3,
                                        NULL, 16)); /* "<0xNN>" */
    while (i < bytes.size()) {
        size_t want = utf8_length(bytes[i]), have = 1;

        while (have < want && i + have < bytes.size() &&
               (bytes[i + have] & 0xc0) == 0x80)
            have++;
        if (have < want && i + have == bytes.size())
            return have;
        i += have == want && want > 1 && utf8_valid(&bytes[i], want) ? want : 1;
    }
    return 0;
}

/* Length of a whitespace mark at s, 0 if there is none; *c is what it stands
 * for and *n how many of them. *open: s[0..left) may become one. */
size_t mark_at(const char *s, size_t left, uint32_t max_blank, char *c,
               uint32_t *n, bool *open)
{
    static const char head[] = "<|blank_";
    size_t n_head = sizeof head - 1, i;

    *open = false;
    *n = 1;
    for (const char *mark : {"<n>", "<|tab|>"}) {
        size_t size = strlen(mark);

        *c = mark[1] == 'n' ? '\n' : '\t';
        if (mark[1] == '|' && max_blank == 0)
            continue;
        if (left >= size && memcmp(s, mark, size) == 0)
            return size;
        *open = *open || (left < size && memcmp(s, mark, left) == 0);
    }
    if (max_blank < 2 || memcmp(s, head, left < n_head ? left : n_head) != 0)
        return 0;
    *c = ' ';
    *n = 0;
    for (i = n_head; i < left && s[i] >= '0' && s[i] <= '9'; i++) {
        *n = *n * 10 + (uint32_t)(s[i] - '0');
        if (*n > max_blank || *n == 0)
            return 0;
    }
    if (left - (i < left ? i : left) >= 2)
        return *n >= 2 && memcmp(s + i, "|>", 2) == 0 ? i + 2 : 0;
    *open = i >= left || s[i] == '|';
    return 0;
}

/* Appends text from byte `from` on with its whitespace marks resolved, and
 * returns how far it came: unless last, an unfinished mark is left. */
size_t append_text(std::string *out, const std::string &text, size_t from,
                   uint32_t max_blank, bool last)
{
    for (size_t i = from, size; i < text.size(); i += size) {
        uint32_t n;
        bool open;
        char c;

        size = 1;
        if (text[i] != '<') {
            *out += text[i];
            continue;
        }
        size = mark_at(&text[i], text.size() - i, max_blank, &c, &n, &open);
        if (size > 0) {
            out->append(n, c);
            continue;
        }
        if (open && !last)
            return i;
        size = 1;
        *out += '<';
    }
    return text.size();
}

/* Gives out what is final of the run, all of it if last. */
int advance(struct sl_detok *d, bool last, struct sl_error *err)
{
    std::vector<int> part = d->run;
    std::string text;
    size_t held = 0;

    if (!last)
        part.resize(part.size() - (held = held_bytes(d->t, part)));
    auto status = d->t->sp.Decode(part, &text);
    if (!status.ok())
        return sl_fail(err, SL_ERR_INTERNAL, "tokenizer: %s",
                       status.error_message());
    if (d->emitted < text.size())
        d->emitted =
            append_text(&d->out, text, d->emitted, d->t->tp.max_blank, last);
    if (last) {
        d->run.clear();
        d->emitted = 0;
        return 0;
    }
    /* All that later text depends on is whether something stands before it,
     * so one piece that shows can stand for the whole run. */
    if (held == 0 && !part.empty() && d->emitted == text.size() &&
        !d->t->sp.IsByte(part.back())) {
        std::vector<int> anchor(1, part.back());

        status = d->t->sp.Decode(anchor, &text);
        if (status.ok() && !text.empty()) {
            d->run = anchor;
            d->emitted = text.size();
        }
    }
    return 0;
}

int push(struct sl_detok *d, const int32_t *ids, size_t n, bool last,
         struct sl_error *err)
{
    int32_t n_image = (int32_t)d->t->tp.n_image_tokens;

    for (size_t i = 0; i < n; i++) {
        if (ids[i] < n_image || ids[i] >= (int32_t)d->t->tp.n_tokens)
            continue;
        std::string name = special_name(d->t, ids[i]);
        if (name.empty()) {
            d->run.push_back(ids[i] - n_image);
            continue;
        }
        if (advance(d, true, err) != 0)
            return -1;
        d->out += "[" + name + "]";
    }
    return advance(d, last, err);
}

} /* namespace */

int sl_tokenizer_decode(struct sl_tokenizer *t, const int32_t *ids, size_t n,
                        char **text, struct sl_error *err)
{
    return sl_guarded(err, [&] {
        struct sl_detok d = {t, {}, 0, {}};
        char *copy;

        if (push(&d, ids, n, true, err) != 0)
            return -1;
        copy = (char *)malloc(d.out.size() + 1);
        if (copy == NULL)
            throw std::bad_alloc();
        memcpy(copy, d.out.c_str(), d.out.size() + 1);
        *text = copy;
        return 0;
    });
}

int sl_detok_create(struct sl_detok **d, struct sl_tokenizer *t,
                    struct sl_error *err)
{
    return sl_guarded(err, [&] {
        *d = new sl_detok{t, {}, 0, {}};
        return 0;
    });
}

void sl_detok_destroy(struct sl_detok *d)
{
    delete d;
}

int sl_detok_push(struct sl_detok *d, const int32_t *ids, size_t n,
                  const char **text, size_t *n_text, struct sl_error *err)
{
    return sl_guarded(err, [&] {
        d->out.clear();
        if (push(d, ids, n, false, err) != 0)
            return -1;
        *text = d->out.data();
        *n_text = d->out.size();
        return 0;
    });
}

int sl_detok_end(struct sl_detok *d, const char **text, size_t *n_text,
                 struct sl_error *err)
{
    return sl_guarded(err, [&] {
        d->out.clear();
        if (push(d, NULL, 0, true, err) != 0)
            return -1;
        *text = d->out.data();
        *n_text = d->out.size();
        return 0;
    });
}
