#include "config.h"

#include <string.h>

#include "src/base/bytes.h"
#include "src/text/sp_proto.h"

struct field {
    uint64_t number;
    unsigned wire; /* 0 varint, 1 and 5 fixed, 2 bytes */
    uint64_t value;
    const uint8_t *p; /* bytes of wire 2 and 5 */
    size_t n;
};

static bool read_varint(const uint8_t **p, const uint8_t *end, uint64_t *v)
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

/* The next field of a message; false where it is cut off or garbled. */
static bool read_field(const uint8_t **p, const uint8_t *end, struct field *f)
{
    uint64_t tag, size = 0;

    if (!read_varint(p, end, &tag))
        return false;
    *f = (struct field){.number = tag >> 3, .wire = tag & 7};
    if (f->wire == 0)
        return read_varint(p, end, &f->value);
    if (f->wire == 2) {
        if (!read_varint(p, end, &size))
            return false;
    } else if (f->wire == 1 || f->wire == 5) {
        size = f->wire == 1 ? 8 : 4;
    } else {
        return false;
    }
    if (size > (uint64_t)(end - *p))
        return false;
    f->p = *p;
    f->n = (size_t)size;
    *p += size;
    return true;
}

static bool read_piece(struct sl_sp_piece *piece, const uint8_t *p, size_t n)
{
    const uint8_t *end = p + n;
    struct field f;

    *piece = (struct sl_sp_piece){.s = "", .type = 1};
    while (p < end) {
        if (!read_field(&p, end, &f))
            return false;
        if (f.number == 1 && f.wire == 2) {
            piece->s = (const char *)f.p;
            piece->n = f.n;
        } else if (f.number == 2 && f.wire == 5) {
            uint32_t bits = sl_load_u32(f.p);

            memcpy(&piece->score, &bits, sizeof piece->score);
        } else if (f.number == 3 && f.wire == 0) {
            piece->type = f.value < 16 ? (int)f.value : 0;
        }
    }
    return true;
}

void sl_sp_reader_init(struct sl_sp_reader *r, const void *model, size_t n)
{
    r->begin = r->p = model;
    r->end = r->begin + n;
}

int sl_sp_reader_next(struct sl_sp_reader *r, struct sl_sp_piece *piece,
                      struct sl_error *err)
{
    struct field f;

    while (r->p < r->end) {
        const uint8_t *from = r->p;
        bool ok = read_field(&r->p, r->end, &f);

        if (ok && f.number != 1)
            continue;
        if (!ok || f.wire != 2 || !read_piece(piece, f.p, f.n) ||
            piece->type < 1 || piece->type > 6)
            return sl_fail(err, SL_ERR_CORRUPT,
                           "tokenizer: not a sentencepiece model: cut off or "
                           "garbled at byte %zu of %zu",
                           (size_t)(from - r->begin),
                           (size_t)(r->end - r->begin));
        return 1;
    }
    return 0;
}

bool sl_sp_is_model(const void *model, size_t n)
{
    struct sl_sp_reader r;
    struct sl_sp_piece piece;
    struct sl_error err;

    sl_sp_reader_init(&r, model, n);
    return n > 0 && sl_sp_reader_next(&r, &piece, &err) == 1;
}

void sl_sp_read_names(struct sl_sp_names *names, const void *model, size_t n)
{
    static const char *const defaults[] = {"<unk>", "<s>", "</s>", "<pad>"};
    const uint8_t *p = model, *end = p + n;
    struct field f, g;

    for (int i = 0; i < SL_SP_N_NAMES; i++) {
        names->name[i].s = defaults[i];
        names->name[i].n = strlen(defaults[i]);
    }
    while (p < end && read_field(&p, end, &f)) {
        const uint8_t *q, *q_end;

        if (f.number != 2 || f.wire != 2)
            continue;
        q = f.p;
        q_end = q + f.n;
        while (q < q_end && read_field(&q, q_end, &g)) {
            if (g.number < 45 || g.number > 48 || g.wire != 2)
                continue;
            names->name[g.number - 45].s = (const char *)g.p;
            names->name[g.number - 45].n = g.n;
        }
    }
}

static int add_varint(struct sl_str *out, uint64_t v, struct sl_error *err)
{
    char bytes[10];
    size_t n = 0;

    for (; v >= 128; v >>= 7)
        bytes[n++] = (char)(v | 128);
    bytes[n++] = (char)v;
    return sl_str_append(out, bytes, n, err);
}

static size_t varint_bytes(uint64_t v)
{
    size_t n = 1;

    for (; v >= 128; v >>= 7)
        n++;
    return n;
}

int sl_sp_add_piece(struct sl_str *model, const char *s, size_t n, float score,
                    int type, struct sl_error *err)
{
    size_t body = 1 + varint_bytes(n) + n + 5 + 2;
    uint32_t bits;
    char tail[7] = {0x15, 0, 0, 0, 0, 0x18, (char)type};

    memcpy(&bits, &score, sizeof bits);
    sl_store_u32(tail + 1, bits);
    if (sl_str_append(model, "\x0a", 1, err) != 0 ||
        add_varint(model, body, err) != 0 ||
        sl_str_append(model, "\x0a", 1, err) != 0 ||
        add_varint(model, n, err) != 0 || sl_str_append(model, s, n, err) != 0)
        return -1;
    return sl_str_append(model, tail, sizeof tail, err);
}

int sl_sp_add_byte_fallback(struct sl_str *model, struct sl_error *err)
{
    return sl_str_append(model, "\x12\x03\x98\x02\x01", 5, err);
}

int sl_sp_add_specs(struct sl_str *model, bool byte_fallback, bool dummy,
                    struct sl_error *err)
{
    /* name "identity", add_dummy_prefix, remove_extra_whitespaces false,
     * escape_whitespaces true */
    char spec[] = "\x1a\x10\x0a\x08identity\x18\x01\x20\x00\x28\x01";

    spec[13] = (char)dummy;
    if (sl_str_append(model, "\x12\x02\x18\x02", 4, err) != 0 ||
        (byte_fallback && sl_sp_add_byte_fallback(model, err) != 0))
        return -1;
    return sl_str_append(model, spec, sizeof spec - 1, err);
}
