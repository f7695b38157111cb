#include "config.h"

#include <cstdlib>
#include <cstring>
#include <vector>

#include "src/text/vocab_sp.h"

namespace
{

struct run {
    const struct sl_sp *s;
    std::vector<int> ids; /* of the library, since the run began */
    size_t emitted;       /* bytes of the run's text that were given out */
};

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
size_t held_bytes(const struct sl_sp *s, const std::vector<int> &run)
{
    std::vector<uint8_t> bytes;
    size_t begin = run.size(), i = 0;

    while (begin > 0 && s->sp.IsByte(run[begin - 1]))
        begin--;
    for (size_t k = begin; k < run.size(); k++)
        bytes.push_back((uint8_t)strtol(s->sp.IdToPiece(run[k]).c_str() + 3,
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
size_t resolve_marks(std::string *out, const std::string &text, size_t from,
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

/* Appends text from byte `from` on, and returns how far it came. */
size_t append_text(const struct sl_sp *s, std::string *out,
                   const std::string &text, size_t from, bool last)
{
    if (s->marks)
        return resolve_marks(out, text, from, s->max_blank, last);
    out->append(text, from, std::string::npos);
    return text.size();
}

/* Gives out what is final of the run, all of it if last. */
int advance(struct run *r, std::string *out, bool last, struct sl_error *err)
{
    std::vector<int> part = r->ids;
    std::string text;
    size_t held = 0;

    if (!last)
        part.resize(part.size() - (held = held_bytes(r->s, part)));
    auto status = r->s->sp.Decode(part, &text);
    if (!status.ok())
        return sl_fail(err, SL_ERR_INTERNAL, "tokenizer: %s",
                       status.error_message());
    if (r->emitted < text.size())
        r->emitted = append_text(r->s, out, text, r->emitted, last);
    if (last) {
        r->ids.clear();
        r->emitted = 0;
        return 0;
    }
    /* All that later text depends on is whether something stands before it,
     * so one piece that shows can stand for the whole run. */
    if (held == 0 && !part.empty() && r->emitted == text.size() &&
        !r->s->sp.IsByte(part.back())) {
        std::vector<int> anchor(1, part.back());

        status = r->s->sp.Decode(anchor, &text);
        if (status.ok() && !text.empty()) {
            r->ids = anchor;
            r->emitted = text.size();
        }
    }
    return 0;
}

int push(struct run *r, const int32_t *ids, size_t n, bool last,
         struct sl_str *out, struct sl_error *err)
{
    return sl_guarded(err, [&] {
        std::string text;

        for (size_t i = 0; i < n; i++) {
            int id = ids[i] - r->s->offset;

            if (id >= 0 && id < r->s->sp.GetPieceSize())
                r->ids.push_back(id);
        }
        if (advance(r, &text, last, err) != 0)
            return -1;
        return sl_str_append(out, text.data(), text.size(), err);
    });
}

} /* namespace */

int sl_sp_run_create(void **out, struct sl_tokenizer *t, struct sl_error *err)
{
    return sl_guarded(err, [&] {
        *out = new run{(const struct sl_sp *)t->impl, {}, 0};
        return 0;
    });
}

void sl_sp_run_destroy(void *r)
{
    delete (struct run *)r;
}

int sl_sp_run_push(void *r, const int32_t *ids, size_t n, struct sl_str *out,
                   struct sl_error *err)
{
    return push((struct run *)r, ids, n, false, out, err);
}

int sl_sp_run_end(void *r, bool last, struct sl_str *out, struct sl_error *err)
{
    return push((struct run *)r, NULL, 0, true, out, err);
}
