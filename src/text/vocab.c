#include "config.h"

#include <string.h>

#include "src/base/bytes.h"
#include "src/base/mem.h"
#include "src/text/vocab.h"

enum { SECTION_BYTES = 24, STEP_HEAD = 12, ADDED_HEAD = 12 };

/* Name for messages, and bytes of an element; 0: the section says itself. */
static const struct {
    const char *name;
    size_t element;
} tags[SL_VOCAB_N_TAGS] = {
    [SL_VOCAB_PIECES] = {"pieces", 0},   [SL_VOCAB_TYPES] = {"types", 1},
    [SL_VOCAB_MERGES] = {"merges", 12},  [SL_VOCAB_ADDED] = {"added", 0},
    [SL_VOCAB_NORMS] = {"norms", 0},     [SL_VOCAB_SPLITS] = {"splits", 0},
    [SL_VOCAB_PREFIX] = {"prefix", 4},   [SL_VOCAB_SUFFIX] = {"suffix", 4},
    [SL_VOCAB_STOPS] = {"stops", 4},     [SL_VOCAB_CONTROLS] = {"controls", 4},
    [SL_VOCAB_NUMBERS] = {"numbers", 4}, [SL_VOCAB_MODEL] = {"model", 1},
};

bool sl_vocab_is_blob(const void *data, size_t n)
{
    return n >= 8 && memcmp(data, SL_VOCAB_MAGIC, 8) == 0;
}

static int bad(struct sl_error *err, const char *what, uint64_t is,
               uint64_t other)
{
    return sl_fail(err, SL_ERR_CORRUPT,
                   "vocabulary: %s (%llu, %llu); convert again", what,
                   (unsigned long long)is, (unsigned long long)other);
}

/* One entry of the table: in order, behind the one before, inside. */
static int parse_section(struct sl_vocab *v, const uint8_t *data, size_t n,
                         uint32_t i, uint64_t *end, int *last,
                         struct sl_error *err)
{
    const uint8_t *entry = data + SL_VOCAB_HEAD + (size_t)i * SECTION_BYTES;
    uint32_t tag = sl_load_u32(entry), count = sl_load_u32(entry + 4);
    uint64_t off = sl_load_u64(entry + 8), bytes = sl_load_u64(entry + 16);

    if (tag >= SL_VOCAB_N_TAGS || (int)tag <= *last)
        return bad(err, "a section of an unknown kind or out of order", tag, i);
    if (off != sl_round_up(*end, 8) || off > n || bytes > n - off)
        return bad(err, "a section does not lie where it must", off, bytes);
    if (tags[tag].element != 0 && bytes != count * (uint64_t)tags[tag].element)
        return bad(err, "a section has not the size of its elements", bytes,
                   count);
    for (uint64_t k = *end; k < off; k++) {
        if (data[k] != 0)
            return bad(err, "padding that is not zero, at", k, data[k]);
    }
    v->part[tag] = (struct sl_vocab_span){data + off, (size_t)bytes, count};
    *last = (int)tag;
    *end = off + bytes;
    return 0;
}

static int check_pieces(const struct sl_vocab *v, struct sl_error *err)
{
    const struct sl_vocab_span *pieces = &v->part[SL_VOCAB_PIECES];
    const struct sl_vocab_span *types = &v->part[SL_VOCAB_TYPES];
    uint64_t head = 4 * ((uint64_t)v->n_tokens + 1);
    uint32_t before = 0;

    if (pieces->count != v->n_tokens || types->count != v->n_tokens ||
        pieces->bytes < head)
        return bad(err, "fewer or more pieces than ids", pieces->count,
                   v->n_tokens);
    for (uint32_t i = 0; i <= v->n_tokens; i++) {
        uint32_t at = sl_load_u32(pieces->p + 4 * (size_t)i);

        if (at < before || (i == 0 && at != 0))
            return bad(err, "pieces that overlap, at id", i, at);
        before = at;
    }
    if (head + before != pieces->bytes)
        return bad(err, "pieces that do not fill their section", head + before,
                   pieces->bytes);
    for (uint32_t i = 0; i < v->n_tokens; i++) {
        uint8_t type = types->p[i] & SL_PIECE_TYPE;

        if (type < SL_PIECE_NORMAL || type > SL_PIECE_BYTE ||
            (types->p[i] & ~(SL_PIECE_TYPE | SL_PIECE_MODEL)) != 0)
            return bad(err, "a piece of no known type, at id", i, types->p[i]);
    }
    return 0;
}

static int check_ids(const struct sl_vocab *v, enum sl_vocab_tag tag,
                     size_t stride, size_t n, bool none, struct sl_error *err)
{
    const struct sl_vocab_span *part = &v->part[tag];

    for (size_t i = 0; i < part->count; i++) {
        for (size_t k = 0; k < n; k++) {
            uint32_t id = sl_load_u32(part->p + i * stride + 4 * k);

            if (id >= v->n_tokens && !(none && id == UINT32_MAX))
                return sl_fail(err, SL_ERR_CORRUPT,
                               "vocabulary: %s, item %zu: id %u of %u; "
                               "convert again",
                               tags[tag].name, i, id, v->n_tokens);
        }
    }
    return 0;
}

static int check_added(const struct sl_vocab *v, struct sl_error *err)
{
    const struct sl_vocab_span *part = &v->part[SL_VOCAB_ADDED];
    size_t at = 0;

    for (uint32_t i = 0; i < part->count; i++) {
        uint32_t id, n;

        if (part->bytes - at < ADDED_HEAD)
            return bad(err, "an added token that is cut off", i, at);
        id = sl_load_u32(part->p + at);
        n = sl_load_u32(part->p + at + 8);
        at += ADDED_HEAD;
        if (id >= v->n_tokens || n == 0 || n > part->bytes - at)
            return bad(err, "an added token of an impossible id or size", id,
                       n);
        at += n;
    }
    if (at != part->bytes)
        return bad(err, "bytes behind the last added token", at, part->bytes);
    return 0;
}

static int check_steps(const struct sl_vocab *v, enum sl_vocab_tag tag,
                       struct sl_error *err)
{
    const struct sl_vocab_span *part = &v->part[tag];
    size_t at = 0;

    for (uint32_t i = 0; i < part->count; i++) {
        uint64_t n;

        if (part->bytes - at < STEP_HEAD)
            return bad(err, "a step that is cut off", i, at);
        n = (uint64_t)sl_load_u32(part->p + at + 4) +
            sl_load_u32(part->p + at + 8);
        at += STEP_HEAD;
        if (n > part->bytes - at)
            return bad(err, "a step that is cut off", i, n);
        at += (size_t)n;
    }
    if (at != part->bytes)
        return bad(err, "bytes behind the last step", at, part->bytes);
    return 0;
}

static int check_parts(const struct sl_vocab *v, struct sl_error *err)
{
    if (v->part[SL_VOCAB_CONTROLS].count != SL_N_CONTROLS ||
        v->part[SL_VOCAB_NUMBERS].count != SL_N_NUMBERS)
        return bad(err, "as many controls and numbers as another version has",
                   v->part[SL_VOCAB_CONTROLS].count,
                   v->part[SL_VOCAB_NUMBERS].count);
    if (check_pieces(v, err) != 0 ||
        check_ids(v, SL_VOCAB_MERGES, 12, 3, false, err) != 0 ||
        check_added(v, err) != 0 ||
        check_ids(v, SL_VOCAB_PREFIX, 4, 1, false, err) != 0 ||
        check_ids(v, SL_VOCAB_SUFFIX, 4, 1, false, err) != 0 ||
        check_ids(v, SL_VOCAB_STOPS, 4, 1, false, err) != 0 ||
        check_ids(v, SL_VOCAB_CONTROLS, 4, 1, true, err) != 0 ||
        check_steps(v, SL_VOCAB_NORMS, err) != 0 ||
        check_steps(v, SL_VOCAB_SPLITS, err) != 0)
        return -1;
    return 0;
}

int sl_vocab_parse(struct sl_vocab *v, const void *data, size_t n,
                   struct sl_error *err)
{
    const uint8_t *p = data;
    uint32_t n_sections;
    uint64_t end;
    int last = -1;

    *v = (struct sl_vocab){0};
    if (n < SL_VOCAB_HEAD || !sl_vocab_is_blob(data, n))
        return bad(err, "not one: its head is missing", n, SL_VOCAB_HEAD);
    v->code = sl_load_u32(p + 8);
    v->n_tokens = sl_load_u32(p + 12);
    n_sections = sl_load_u32(p + 16);
    if (v->n_tokens == 0 || v->n_tokens > SL_VOCAB_MAX)
        return bad(err, "an impossible number of ids", v->n_tokens,
                   SL_VOCAB_MAX);
    if (n_sections > SL_VOCAB_N_TAGS || sl_load_u32(p + 20) != 0)
        return bad(err, "of another version", n_sections, sl_load_u32(p + 20));
    if (sl_load_u64(p + 24) != n)
        return bad(err, "cut off or too long", sl_load_u64(p + 24), n);
    end = SL_VOCAB_HEAD + (uint64_t)n_sections * SECTION_BYTES;
    if (end > n)
        return bad(err, "cut off", end, n);
    for (uint32_t i = 0; i < n_sections; i++) {
        if (parse_section(v, p, n, i, &end, &last, err) != 0)
            return -1;
    }
    if (end != n)
        return bad(err, "bytes behind the last section", end, n);
    return check_parts(v, err);
}

const char *sl_vocab_piece(const struct sl_vocab *v, uint32_t id, size_t *n)
{
    const uint8_t *offs = v->part[SL_VOCAB_PIECES].p;
    uint32_t begin = sl_load_u32(offs + 4 * (size_t)id);

    *n = sl_load_u32(offs + 4 * (size_t)id + 4) - begin;
    return (const char *)offs + 4 * ((size_t)v->n_tokens + 1) + begin;
}

enum sl_piece_type sl_vocab_type(const struct sl_vocab *v, uint32_t id)
{
    return (enum sl_piece_type)(v->part[SL_VOCAB_TYPES].p[id] & SL_PIECE_TYPE);
}

bool sl_vocab_in_model(const struct sl_vocab *v, uint32_t id)
{
    return (v->part[SL_VOCAB_TYPES].p[id] & SL_PIECE_MODEL) != 0;
}

int32_t sl_vocab_control(const struct sl_vocab *v, enum sl_vocab_control which)
{
    return (int32_t)sl_load_u32(v->part[SL_VOCAB_CONTROLS].p +
                                4 * (size_t)which);
}

uint32_t sl_vocab_number(const struct sl_vocab *v, enum sl_vocab_number which)
{
    return sl_load_u32(v->part[SL_VOCAB_NUMBERS].p + 4 * (size_t)which);
}

struct sl_vocab_step sl_vocab_step_next(const uint8_t **p)
{
    const uint8_t *s = *p;
    struct sl_vocab_step step = {
        .what = sl_load_u32(s),
        .n_a = sl_load_u32(s + 4),
        .n_b = sl_load_u32(s + 8),
    };

    step.a = (const char *)s + STEP_HEAD;
    step.b = step.a + step.n_a;
    *p = s + STEP_HEAD + step.n_a + step.n_b;
    return step;
}

struct sl_vocab_added sl_vocab_added_next(const uint8_t **p)
{
    struct sl_vocab_added added = {
        .id = sl_load_u32(*p),
        .flags = sl_load_u32(*p + 4),
        .s = (const char *)*p + ADDED_HEAD,
        .n = sl_load_u32(*p + 8),
    };

    *p += ADDED_HEAD + added.n;
    return added;
}
