#include "config.h"

#include <stdio.h>
#include <string.h>

#include "src/text/vocab_read.h"

/* tokenizer.json as huggingface/tokenizers writes it (src/tokenizer/
 * serialization.rs): added_tokens, normalizer, pre_tokenizer, post_processor,
 * decoder, model. */

const json_t *sl_json_find(const json_t *object, const char *key)
{
    const json_t *v = json_object_get(object, key);

    return json_is_null(v) ? NULL : v;
}

const char *sl_json_text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));

    return text != NULL ? text : "";
}

bool sl_json_true(const json_t *object, const char *key, bool otherwise)
{
    const json_t *v = json_object_get(object, key);

    return json_is_boolean(v) ? json_is_true(v) : otherwise;
}

void sl_unsupported_add(struct sl_unsupported *u, const char *where,
                        const char *what)
{
    size_t n = strlen(u->list);

    if (n + 8 < sizeof u->list)
        snprintf(u->list + n, sizeof u->list - n, "%s%s %.48s",
                 n > 0 ? ", " : "", where, what);
}

/* Does the step, or one of a Sequence of steps, have this type? */
static bool has_type(const json_t *step, const char *list, const char *type)
{
    const json_t *steps = json_object_get(step, list);
    const json_t *v;
    size_t i;

    if (strcmp(sl_json_text_of(step, "type"), type) == 0)
        return true;
    json_array_foreach(steps, i, v)
    {
        if (has_type(v, list, type))
            return true;
    }
    return false;
}

/* --- the model -------------------------------------------------------------
 */

int sl_vocab_read_pieces(struct sl_vocab_builder *b, const json_t *vocab,
                         const char *file, struct sl_error *err)
{
    const char *key;
    json_t *v;

    if (!json_is_object(vocab) || json_object_size(vocab) == 0)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "%s: there is no vocabulary of pieces and ids", file);
    json_object_foreach((json_t *)vocab, key, v)
    {
        json_int_t id = json_integer_value(v);

        if (!json_is_integer(v) || id < 0 || id >= SL_VOCAB_MAX)
            return sl_fail(err, SL_ERR_CORRUPT,
                           "%s: the id of '%.40s' is no number from 0 to %u",
                           file, key, SL_VOCAB_MAX - 1);
        if (sl_vocab_add_piece(b, (uint32_t)id, key, strlen(key),
                               SL_PIECE_NORMAL, err) != 0) {
            sl_error_prefix(err, "%s: ", file);
            return -1;
        }
    }
    return 0;
}

/* "left right", or ["left", "right"] since tokenizers 0.20. */
static int read_merge(struct sl_vocab_builder *b, const json_t *v, size_t i,
                      struct sl_error *err)
{
    const json_t *l = json_array_get(v, 0), *r = json_array_get(v, 1);
    const char *text = json_string_value(v), *blank = NULL;

    if (json_is_string(l) && json_is_string(r) && json_array_size(v) == 2)
        return sl_vocab_add_merge(b, json_string_value(l),
                                  json_string_length(l), json_string_value(r),
                                  json_string_length(r), err);
    if (text != NULL)
        blank = memchr(text, ' ', json_string_length(v));
    if (blank == NULL || strchr(blank + 1, ' ') != NULL)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "merge %zu is neither \"left right\" nor a list of two",
                       i);
    return sl_vocab_add_merge(b, text, (size_t)(blank - text), blank + 1,
                              strlen(blank + 1), err);
}

static int read_bpe(struct sl_vocab_builder *b, struct sl_unsupported *u,
                    const json_t *model, struct sl_error *err)
{
    const json_t *merges = json_object_get(model, "merges"), *v;
    const char *unk = sl_json_text_of(model, "unk_token");
    size_t i;

    if (json_number_value(sl_json_find(model, "dropout")) > 0)
        sl_unsupported_add(u, "model", "dropout");
    if (*sl_json_text_of(model, "continuing_subword_prefix") != '\0')
        sl_unsupported_add(u, "model", "continuing_subword_prefix");
    if (*sl_json_text_of(model, "end_of_word_suffix") != '\0')
        sl_unsupported_add(u, "model", "end_of_word_suffix");
    if (u->list[0] != '\0')
        return 0;
    if (!json_is_array(merges))
        return sl_fail(err, SL_ERR_CORRUPT, "the model has no list of merges");
    json_array_foreach(merges, i, v)
    {
        if (read_merge(b, v, i, err) != 0)
            return -1;
    }
    sl_vocab_set_number(b, SL_VOCAB_IGNORE_MERGES,
                        sl_json_true(model, "ignore_merges", false));
    sl_vocab_set_number(b, SL_VOCAB_BYTE_FALLBACK,
                        sl_json_true(model, "byte_fallback", false));
    sl_vocab_set_number(b, SL_VOCAB_FUSE_UNK,
                        sl_json_true(model, "fuse_unk", false));
    sl_vocab_set_control(b, SL_CONTROL_UNK, sl_vocab_find(b, unk, strlen(unk)));
    return 0;
}

static int read_wordpiece(struct sl_vocab_builder *b, struct sl_unsupported *u,
                          const json_t *model, struct sl_error *err)
{
    const char *unk = sl_json_text_of(model, "unk_token");
    json_int_t most =
        json_integer_value(json_object_get(model, "max_input_chars_per_word"));

    if (strcmp(sl_json_text_of(model, "continuing_subword_prefix"), "##") != 0)
        sl_unsupported_add(u, "model", "continuing_subword_prefix");
    sl_vocab_set_number(b, SL_VOCAB_WORD_MAX,
                        most > 0 && most < UINT32_MAX ? (uint32_t)most : 100);
    sl_vocab_set_control(b, SL_CONTROL_UNK, sl_vocab_find(b, unk, strlen(unk)));
    return 0;
}

/* --- decoder ---------------------------------------------------------------
 */

/* A decoder must be what the kind does anyway; a Strip or a Metaspace that
 * drops a first blank is a setting. */
static int read_decoder(struct sl_vocab_builder *b, struct sl_unsupported *u,
                        const json_t *decoder, const char *kind)
{
    static const struct {
        const char *kind, *type;
    } known[] = {
        {"byte-bpe", "ByteLevel"}, {"wordpiece", "WordPiece"},
        {"char-bpe", "Replace"},   {"char-bpe", "ByteFallback"},
        {"char-bpe", "Fuse"},      {"char-bpe", "Strip"},
        {"char-bpe", "Metaspace"}, {"byte-bpe", "Sequence"},
        {"char-bpe", "Sequence"},
    };
    const char *type = sl_json_text_of(decoder, "type");
    size_t i, k = 0, n = sizeof known / sizeof *known;
    const json_t *v;

    if (decoder == NULL) {
        if (strcmp(kind, "char-bpe") == 0)
            sl_unsupported_add(u, "decoder", "null");
        return 0;
    }
    while (k < n && (strcmp(known[k].kind, kind) != 0 ||
                     strcmp(known[k].type, type) != 0))
        k++;
    if (k == n) {
        sl_unsupported_add(u, "decoder", type);
        return 0;
    }
    if ((strcmp(type, "Strip") == 0 &&
         json_integer_value(json_object_get(decoder, "start")) > 0) ||
        (strcmp(type, "Metaspace") == 0 &&
         strcmp(sl_json_text_of(decoder, "prepend_scheme"), "never") != 0 &&
         sl_json_true(decoder, "add_prefix_space", true)))
        sl_vocab_set_number(b, SL_VOCAB_STRIP_BLANK, 1);
    json_array_foreach(json_object_get(decoder, "decoders"), i, v)
        read_decoder(b, u, v, kind);
    return 0;
}

/* --- added tokens ----------------------------------------------------------
 */

static unsigned flag(const json_t *v, const char *key, unsigned bit,
                     bool otherwise)
{
    return sl_json_true(v, key, otherwise) ? bit : 0;
}

static int read_added(struct sl_vocab_builder *b, const json_t *list,
                      struct sl_error *err)
{
    const json_t *v;
    size_t i;

    json_array_foreach(list, i, v)
    {
        const json_t *s = json_object_get(v, "content");
        const json_t *id = json_object_get(v, "id");
        bool special = sl_json_true(v, "special", false);
        unsigned flags = flag(v, "special", SL_ADDED_SPECIAL, false) |
                         flag(v, "lstrip", SL_ADDED_LSTRIP, false) |
                         flag(v, "rstrip", SL_ADDED_RSTRIP, false) |
                         flag(v, "single_word", SL_ADDED_WORD, false) |
                         flag(v, "normalized", SL_ADDED_NORMALIZED, !special);
        json_int_t at = json_integer_value(id);

        if (!json_is_string(s) || !json_is_integer(id) || at < 0 ||
            at >= SL_VOCAB_MAX)
            return sl_fail(err, SL_ERR_CORRUPT,
                           "added token %zu has no content, or no id from 0 "
                           "to %u",
                           i, SL_VOCAB_MAX - 1);
        if (json_string_length(s) > 0 &&
            sl_vocab_add_added(b, (uint32_t)at, json_string_value(s),
                               json_string_length(s), flags, err) != 0)
            return -1;
    }
    return 0;
}

/* --- the whole -------------------------------------------------------------
 */

static const char *kind_of(const json_t *root, struct sl_unsupported *u)
{
    const json_t *model = json_object_get(root, "model");
    const char *type = sl_json_text_of(model, "type");

    if (*type == '\0' && json_object_get(model, "merges") != NULL)
        type = "BPE"; /* before tokenizers 0.9 models had no type */
    if (strcmp(type, "WordPiece") == 0)
        return "wordpiece";
    if (strcmp(type, "BPE") != 0) {
        sl_unsupported_add(u, "model", *type != '\0' ? type : "without type");
        return NULL;
    }
    return has_type(json_object_get(root, "pre_tokenizer"), "pretokenizers",
                    "ByteLevel") ||
                   has_type(json_object_get(root, "decoder"), "decoders",
                            "ByteLevel")
               ? "byte-bpe"
               : "char-bpe";
}

static int read_all(struct sl_vocab_builder *b, struct sl_unsupported *u,
                    const json_t *root, const char *kind, const char *file,
                    struct sl_error *err)
{
    const json_t *model = json_object_get(root, "model");
    bool wordpiece = strcmp(kind, "wordpiece") == 0;

    if (sl_vocab_read_norms(b, u, sl_json_find(root, "normalizer"), err) != 0 ||
        sl_vocab_read_splits(b, u, sl_json_find(root, "pre_tokenizer"), err) !=
            0 ||
        read_decoder(b, u, sl_json_find(root, "decoder"), kind) != 0 ||
        sl_vocab_read_pieces(b, json_object_get(model, "vocab"), file, err) !=
            0 ||
        (wordpiece ? read_wordpiece : read_bpe)(b, u, model, err) != 0 ||
        read_added(b, json_object_get(root, "added_tokens"), err) != 0)
        return -1;
    return sl_vocab_read_template(b, u, sl_json_find(root, "post_processor"),
                                  err);
}

static int unsupported(const struct sl_unsupported *u, const char *file,
                       struct sl_error *err)
{
    return sl_fail(err, SL_ERR_UNSUPPORTED,
                   "%s: parts that are not supported: %s", file, u->list);
}

int sl_vocab_read_json(struct sl_vocab_builder **out, const char *data,
                       size_t n, const char *file, struct sl_error *err)
{
    struct sl_unsupported u = {""};
    struct sl_vocab_builder *b = NULL;
    json_error_t at;
    json_t *root = json_loadb(data, n, JSON_ALLOW_NUL, &at);
    const char *kind;
    int rc = -1;

    if (root == NULL)
        return sl_fail(err, SL_ERR_CORRUPT, "%s:%d:%d: not JSON: %s", file,
                       at.line, at.column, at.text);
    kind = kind_of(root, &u);
    if (kind == NULL) {
        unsupported(&u, file, err);
    } else if (sl_vocab_builder_create(&b, kind, err) == 0) {
        rc = read_all(b, &u, root, kind, file, err);
        if (rc == 0 && u.list[0] != '\0')
            rc = unsupported(&u, file, err);
        else if (rc != 0 && strncmp(err->msg, file, strlen(file)) != 0)
            sl_error_prefix(err, "%s: ", file);
    }
    json_decref(root);
    if (rc != 0) {
        sl_vocab_builder_destroy(b);
        return -1;
    }
    *out = b;
    return 0;
}
