#include "config.h"

#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#include "src/base/bytes.h"
#include "src/base/mem.h"
#include "src/text/pretok.h"
#include "src/text/vocab_build.h"
#include "src/text/vocab_build_impl.h"

int sl_vocab_builder_create(struct sl_vocab_builder **out, const char *kind,
                            struct sl_error *err)
{
    struct sl_vocab_builder *b;
    const struct sl_vocab_kind *k = sl_vocab_kind_find(kind);

    if (k == NULL)
        return sl_fail(err, SL_ERR_UNSUPPORTED,
                       "there is no kind of vocabulary '%s'", kind);
    b = calloc(1, sizeof *b);
    if (b == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory for a vocabulary");
    b->kind = k;
    for (int i = 0; i < SL_N_CONTROLS; i++)
        b->controls[i] = -1;
    *out = b;
    return 0;
}

void sl_vocab_builder_destroy(struct sl_vocab_builder *b)
{
    if (b == NULL)
        return;
    for (int i = 0; i < SL_VOCAB_N_TAGS; i++)
        sl_str_fini(&b->part[i]);
    sl_str_fini(&b->text);
    free(b->pieces);
    free(b->added);
    free(b->names);
    free(b->slots);
    free(b);
}

/* --- pieces by their spelling ---------------------------------------------
 */

static size_t slot_of(const struct sl_vocab_builder *b, const char *s, size_t n)
{
    size_t i = XXH3_64bits(s, n) & (b->n_slots - 1);

    while (b->slots[i] != 0) {
        const struct sl_built_name *name = &b->names[b->slots[i] - 1];

        if (name->n == n && memcmp(b->text.s + name->off, s, n) == 0)
            break;
        i = (i + 1) & (b->n_slots - 1);
    }
    return i;
}

static int grow_slots(struct sl_vocab_builder *b, struct sl_error *err)
{
    size_t n = b->n_slots == 0 ? 1024 : 2 * b->n_slots;
    struct sl_built_name *names;
    uint32_t *slots;

    if (2 * (b->n_names + 1) <= b->n_slots)
        return 0;
    names = realloc(b->names, n / 2 * sizeof *names);
    if (names != NULL)
        b->names = names;
    slots = sl_zalloc_array(n, sizeof *slots);
    if (names == NULL || slots == NULL) {
        free(slots);
        return sl_fail(err, SL_ERR_NOMEM, "no memory for %zu pieces", n);
    }
    free(b->slots);
    b->slots = slots;
    b->n_slots = n;
    for (uint32_t i = 0; i < b->n_names; i++) {
        const struct sl_built_name *name = &b->names[i];

        b->slots[slot_of(b, b->text.s + name->off, name->n)] = i + 1;
    }
    return 0;
}

/* Writes a name down; from now on it leads to the id. */
static int add_name(struct sl_vocab_builder *b, uint32_t id, const char *s,
                    size_t n, struct sl_error *err)
{
    if (grow_slots(b, err) != 0)
        return -1;
    if (n > UINT32_MAX - b->text.n)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "the pieces have more than 4 GiB of text");
    b->names[b->n_names] =
        (struct sl_built_name){(uint32_t)b->text.n, (uint32_t)n, id};
    if (sl_str_append(&b->text, s, n, err) != 0)
        return -1;
    if (n > 0)
        b->slots[slot_of(b, s, n)] = ++b->n_names;
    return 0;
}

static int grow_pieces(struct sl_vocab_builder *b, uint32_t id,
                       struct sl_error *err)
{
    size_t room = b->room < 1024 ? 1024 : b->room;
    struct sl_built_piece *p;

    if (id >= SL_VOCAB_MAX)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "a token has the id %u; ids below %u are possible", id,
                       SL_VOCAB_MAX);
    while (room <= id)
        room *= 2;
    if (room > b->room) {
        p = realloc(b->pieces, room * sizeof *p);
        if (p == NULL)
            return sl_fail(err, SL_ERR_NOMEM, "no memory for %zu pieces", room);
        memset(p + b->room, 0, (room - b->room) * sizeof *p);
        b->pieces = p;
        b->room = room;
    }
    if (id >= b->n_tokens)
        b->n_tokens = id + 1;
    return 0;
}

/* The piece is spelt like this. */
static int spell_piece(struct sl_vocab_builder *b, uint32_t id, const char *s,
                       size_t n, struct sl_error *err)
{
    if (grow_pieces(b, id, err) != 0)
        return -1;
    b->pieces[id].off = (uint32_t)b->text.n;
    b->pieces[id].n = (uint32_t)n;
    return add_name(b, id, s, n, err);
}

int sl_vocab_add_piece(struct sl_vocab_builder *b, uint32_t id, const char *s,
                       size_t n, enum sl_piece_type type, struct sl_error *err)
{
    if (id < b->n_tokens && b->pieces[id].type != 0)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "two tokens have the id %u: '%.*s' and '%.*s'", id,
                       (int)b->pieces[id].n, b->text.s + b->pieces[id].off,
                       (int)(n < 40 ? n : 40), s);
    if (spell_piece(b, id, s, n, err) != 0)
        return -1;
    b->pieces[id].type = (uint8_t)(type | SL_PIECE_MODEL);
    return 0;
}

int sl_vocab_set_score(struct sl_vocab_builder *b, uint32_t id, float score,
                       struct sl_error *err)
{
    if (id >= b->n_tokens)
        return sl_fail(err, SL_ERR_CORRUPT, "a score of token %u of %u", id,
                       b->n_tokens);
    b->pieces[id].score = score;
    return 0;
}

int32_t sl_vocab_find(const struct sl_vocab_builder *b, const char *s, size_t n)
{
    uint32_t at;

    if (n == 0 || b->n_slots == 0)
        return -1;
    at = b->slots[slot_of(b, s, n)];
    return at == 0 ? -1 : (int32_t)b->names[at - 1].id;
}

const char *sl_vocab_spelling(const struct sl_vocab_builder *b, uint32_t id,
                              size_t *n)
{
    *n = id < b->n_tokens ? b->pieces[id].n : 0;
    return *n > 0 ? b->text.s + b->pieces[id].off : "";
}

bool sl_vocab_is_added(const struct sl_vocab_builder *b, uint32_t id)
{
    return id < b->n_tokens && b->pieces[id].added;
}

const struct sl_vocab_kind *
sl_vocab_builder_kind(const struct sl_vocab_builder *b)
{
    return b->kind;
}

uint32_t sl_vocab_n_pieces(const struct sl_vocab_builder *b)
{
    uint32_t n = b->n_tokens;

    while (n > 0 && !(b->pieces[n - 1].type & SL_PIECE_MODEL))
        n--;
    return n;
}

uint32_t sl_vocab_n_tokens(const struct sl_vocab_builder *b)
{
    return b->n_tokens;
}

/* --- merges, added tokens, steps -------------------------------------------
 */

static int add_u32(struct sl_vocab_builder *b, enum sl_vocab_tag tag,
                   const uint32_t *v, size_t n, struct sl_error *err)
{
    for (size_t i = 0; i < n; i++) {
        uint8_t bytes[4];

        sl_store_u32(bytes, v[i]);
        if (sl_str_append(&b->part[tag], (char *)bytes, 4, err) != 0)
            return -1;
    }
    return 0;
}

int sl_vocab_add_merge_ids(struct sl_vocab_builder *b, uint32_t left,
                           uint32_t right, uint32_t result,
                           struct sl_error *err)
{
    const uint32_t v[] = {left, right, result};

    if (left >= b->n_tokens || right >= b->n_tokens || result >= b->n_tokens)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "merge %u names the ids %u, %u, %u; there are %u",
                       b->count[SL_VOCAB_MERGES], left, right, result,
                       b->n_tokens);
    b->count[SL_VOCAB_MERGES]++;
    return add_u32(b, SL_VOCAB_MERGES, v, 3, err);
}

int sl_vocab_add_merge(struct sl_vocab_builder *b, const char *left,
                       size_t n_left, const char *right, size_t n_right,
                       struct sl_error *err)
{
    int32_t l = sl_vocab_find(b, left, n_left);
    int32_t r = sl_vocab_find(b, right, n_right), result = -1;

    /* Joined behind the text that is used, and taken away again. */
    if (sl_str_append(&b->text, left, n_left, err) != 0 ||
        sl_str_append(&b->text, right, n_right, err) != 0)
        return -1;
    result = sl_vocab_find(b, b->text.s + b->text.n - n_left - n_right,
                           n_left + n_right);
    sl_str_cut(&b->text, b->text.n - n_left - n_right);
    if (l < 0 || r < 0 || result < 0)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "merge %u, '%.*s %.*s': %s is no piece of the "
                       "vocabulary",
                       b->count[SL_VOCAB_MERGES],
                       (int)(n_left < 40 ? n_left : 40), left,
                       (int)(n_right < 40 ? n_right : 40), right,
                       l < 0   ? "the first"
                       : r < 0 ? "the second"
                               : "what they make");
    return sl_vocab_add_merge_ids(b, (uint32_t)l, (uint32_t)r, (uint32_t)result,
                                  err);
}

/* Its place in the list, or where it would be appended. */
static size_t added_at(const struct sl_vocab_builder *b, uint32_t id,
                       const char *s, size_t n)
{
    size_t i = id < b->n_tokens && b->pieces[id].added ? 0 : b->n_added;

    while (i < b->n_added && (b->added[i].id != id || b->added[i].n != n ||
                              memcmp(b->text.s + b->added[i].off, s, n) != 0))
        i++;
    return i;
}

/* A piece of the model keeps its spelling, whatever else it is called; what is
 * no piece is spelt by its first name. */
static int spell_added(struct sl_vocab_builder *b, uint32_t id, const char *s,
                       size_t n, unsigned flags, struct sl_error *err)
{
    uint8_t model = 0;

    if (id < b->n_tokens) {
        model = b->pieces[id].type & SL_PIECE_MODEL;
        if (b->pieces[id].added)
            return add_name(b, id, s, n, err);
    }
    if (model == 0) {
        if (spell_piece(b, id, s, n, err) != 0)
            return -1;
    } else if (sl_vocab_find(b, s, n) != (int32_t)id &&
               add_name(b, id, s, n, err) != 0) {
        return -1;
    }
    b->pieces[id].type =
        (uint8_t)(model | (flags & SL_ADDED_SPECIAL ? SL_PIECE_CONTROL
                                                    : SL_PIECE_USER));
    return 0;
}

int sl_vocab_add_added(struct sl_vocab_builder *b, uint32_t id, const char *s,
                       size_t n, unsigned flags, struct sl_error *err)
{
    size_t i = added_at(b, id, s, n);
    struct sl_built_added *more;

    if (n == 0)
        return sl_fail(err, SL_ERR_CORRUPT, "added token %u is empty", id);
    if (i < b->n_added) {
        b->added[i].flags = flags;
        b->pieces[id].type =
            (uint8_t)((b->pieces[id].type & SL_PIECE_MODEL) |
                      (flags & SL_ADDED_SPECIAL ? SL_PIECE_CONTROL
                                                : SL_PIECE_USER));
        return 0;
    }
    if (b->n_added >= b->added_room) {
        size_t room = b->added_room < 64 ? 64 : 2 * b->added_room;

        more = realloc(b->added, room * sizeof *more);
        if (more == NULL)
            return sl_fail(err, SL_ERR_NOMEM, "no memory for %zu added tokens",
                           room);
        b->added = more;
        b->added_room = room;
    }
    if (spell_added(b, id, s, n, flags, err) != 0)
        return -1;
    b->pieces[id].added = true;
    b->added[b->n_added++] =
        (struct sl_built_added){id, flags, (uint32_t)b->text.n, (uint32_t)n};
    return sl_str_append(&b->text, s, n, err);
}

static int add_step(struct sl_vocab_builder *b, enum sl_vocab_tag tag,
                    uint32_t what, const char *a, size_t n_a, const char *c,
                    size_t n_c, struct sl_error *err)
{
    const uint32_t v[] = {what, (uint32_t)n_a, (uint32_t)n_c};

    if (n_a > SL_STEP_MAX || n_c > SL_STEP_MAX)
        return sl_fail(err, SL_ERR_UNSUPPORTED,
                       "a tokenizer's step with a pattern of %zu bytes; %u are "
                       "possible",
                       n_a > n_c ? n_a : n_c, SL_STEP_MAX);
    if (add_u32(b, tag, v, 3, err) != 0 ||
        sl_str_append(&b->part[tag], a, n_a, err) != 0 ||
        sl_str_append(&b->part[tag], c, n_c, err) != 0)
        return -1;
    b->count[tag]++;
    return 0;
}

int sl_vocab_add_norm(struct sl_vocab_builder *b, uint32_t what, const char *a,
                      size_t n_a, const char *c, size_t n_c,
                      struct sl_error *err)
{
    return add_step(b, SL_VOCAB_NORMS, what, a, n_a, c, n_c, err);
}

int sl_vocab_add_split(struct sl_vocab_builder *b, uint32_t what, const char *a,
                       size_t n_a, const char *c, size_t n_c,
                       struct sl_error *err)
{
    return add_step(b, SL_VOCAB_SPLITS, what, a, n_a, c, n_c, err);
}

int sl_vocab_set_pre(struct sl_vocab_builder *b, const char *name,
                     struct sl_error *err)
{
    const char *const *patterns = sl_pretok_named(name);

    if (patterns == NULL)
        return sl_fail(err, SL_ERR_UNSUPPORTED,
                       "the pre-tokenizer '%.64s' is not known", name);
    for (; *patterns != NULL; patterns++) {
        if (sl_vocab_add_split(b, SL_PRETOK_ISOLATED, *patterns,
                               strlen(*patterns), NULL, 0, err) != 0)
            return -1;
    }
    return 0;
}

/* --- ids and settings ------------------------------------------------------
 */

int sl_vocab_add_id(struct sl_vocab_builder *b, enum sl_vocab_tag which,
                    int32_t id, struct sl_error *err)
{
    const uint32_t v = (uint32_t)id;

    if (id < 0 || (uint32_t)id >= SL_VOCAB_MAX)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "id %d; ids from 0 to %u are possible", id,
                       SL_VOCAB_MAX - 1);
    for (uint32_t i = 0; which == SL_VOCAB_STOPS && i < b->count[which]; i++) {
        if (sl_load_u32(b->part[which].s + 4 * (size_t)i) == v)
            return 0;
    }
    b->count[which]++;
    return add_u32(b, which, &v, 1, err);
}

void sl_vocab_clear_ids(struct sl_vocab_builder *b, enum sl_vocab_tag which)
{
    b->count[which] = 0;
    sl_str_clear(&b->part[which]);
}

bool sl_vocab_has_ids(const struct sl_vocab_builder *b, enum sl_vocab_tag which)
{
    return b->count[which] > 0;
}

void sl_vocab_set_control(struct sl_vocab_builder *b,
                          enum sl_vocab_control which, int32_t id)
{
    b->controls[which] = id;
}

int32_t sl_vocab_get_control(const struct sl_vocab_builder *b,
                             enum sl_vocab_control which)
{
    return b->controls[which];
}

void sl_vocab_set_number(struct sl_vocab_builder *b, enum sl_vocab_number which,
                         uint32_t value)
{
    b->numbers[which] = value;
}

int sl_vocab_set_model(struct sl_vocab_builder *b, const void *model, size_t n,
                       struct sl_error *err)
{
    if (n == 0 || n > UINT32_MAX)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "a sentencepiece model of %zu bytes", n);
    sl_str_clear(&b->part[SL_VOCAB_MODEL]);
    b->count[SL_VOCAB_MODEL] = (uint32_t)n;
    return sl_str_append(&b->part[SL_VOCAB_MODEL], model, n, err);
}
