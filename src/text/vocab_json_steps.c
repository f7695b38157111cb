#include "config.h"

#include <string.h>

#include "src/text/pretok.h"
#include "src/text/textnorm.h"
#include "src/text/vocab_read.h"

/* --- normalizer ------------------------------------------------------------
 */

static int add_norm(struct sl_vocab_builder *b, uint32_t what,
                    struct sl_error *err)
{
    return sl_vocab_add_norm(b, what, NULL, 0, NULL, 0, err);
}

int sl_vocab_add_bert(struct sl_vocab_builder *b, bool clean, bool cjk,
                      bool accents, bool lower, struct sl_error *err)
{
    if ((clean && add_norm(b, SL_NORM_CLEAN, err) != 0) ||
        (cjk && add_norm(b, SL_NORM_CJK, err) != 0) ||
        (accents && (add_norm(b, SL_NORM_NFD, err) != 0 ||
                     add_norm(b, SL_NORM_STRIP_ACCENTS, err) != 0)))
        return -1;
    return lower ? add_norm(b, SL_NORM_LOWER, err) : 0;
}

static int read_bert(struct sl_vocab_builder *b, const json_t *norm,
                     struct sl_error *err)
{
    bool lower = sl_json_true(norm, "lowercase", true);

    return sl_vocab_add_bert(b, sl_json_true(norm, "clean_text", true),
                             sl_json_true(norm, "handle_chinese_chars", true),
                             sl_json_true(norm, "strip_accents", lower), lower,
                             err);
}

static int read_replace(struct sl_vocab_builder *b, struct sl_unsupported *u,
                        const json_t *norm, struct sl_error *err)
{
    const json_t *what =
        json_object_get(json_object_get(norm, "pattern"), "String");
    const json_t *by = json_object_get(norm, "content");

    if (!json_is_string(what) || !json_is_string(by)) {
        sl_unsupported_add(u, "normalizer", "Replace by an expression");
        return 0;
    }
    return sl_vocab_add_norm(b, SL_NORM_REPLACE, json_string_value(what),
                             json_string_length(what), json_string_value(by),
                             json_string_length(by), err);
}

static int read_strip(struct sl_vocab_builder *b, const json_t *norm,
                      struct sl_error *err)
{
    bool left = sl_json_true(norm, "strip_left", true);
    bool right = sl_json_true(norm, "strip_right", true);

    return sl_vocab_add_norm(b, SL_NORM_STRIP, "l", left, "r", right, err);
}

static int read_norms(struct sl_vocab_builder *b, struct sl_unsupported *u,
                      const json_t *norm, unsigned depth, struct sl_error *err)
{
    static const struct {
        const char *type;
        uint32_t what;
    } plain[] = {
        {"NFC", SL_NORM_NFC},         {"NFD", SL_NORM_NFD},
        {"NFKC", SL_NORM_NFKC},       {"NFKD", SL_NORM_NFKD},
        {"Lowercase", SL_NORM_LOWER}, {"StripAccents", SL_NORM_STRIP_ACCENTS},
    };
    const char *type = sl_json_text_of(norm, "type");
    const json_t *v, *prepend = json_object_get(norm, "prepend");
    size_t i;

    for (i = 0; i < sizeof plain / sizeof *plain; i++) {
        if (strcmp(type, plain[i].type) == 0)
            return add_norm(b, plain[i].what, err);
    }
    if (strcmp(type, "BertNormalizer") == 0)
        return read_bert(b, norm, err);
    if (strcmp(type, "Replace") == 0)
        return read_replace(b, u, norm, err);
    if (strcmp(type, "Strip") == 0)
        return read_strip(b, norm, err);
    if (strcmp(type, "Prepend") == 0 && json_is_string(prepend))
        return sl_vocab_add_norm(b, SL_NORM_PREPEND, json_string_value(prepend),
                                 json_string_length(prepend), NULL, 0, err);
    if (strcmp(type, "Sequence") != 0 || depth == 0) {
        sl_unsupported_add(u, "normalizer", type);
        return 0;
    }
    json_array_foreach(json_object_get(norm, "normalizers"), i, v)
    {
        if (read_norms(b, u, v, depth - 1, err) != 0)
            return -1;
    }
    return 0;
}

int sl_vocab_read_norms(struct sl_vocab_builder *b, struct sl_unsupported *u,
                        const json_t *norm, struct sl_error *err)
{
    return norm == NULL ? 0 : read_norms(b, u, norm, 4, err);
}

/* --- pre_tokenizer ---------------------------------------------------------
 */

static int add_regex(struct sl_vocab_builder *b, uint32_t what, const char *s,
                     struct sl_error *err)
{
    return sl_vocab_add_split(b, what, s, strlen(s), NULL, 0, err);
}

int sl_vocab_add_bert_splits(struct sl_vocab_builder *b, struct sl_error *err)
{
    /* Punctuation: Unicode's, and all of ASCII that is no letter or digit. */
    if (add_regex(b, SL_PRETOK_REMOVED, "\\s", err) != 0)
        return -1;
    return add_regex(b, SL_PRETOK_ISOLATED,
                     "[\\x{21}-\\x{2f}\\x{3a}-\\x{40}\\x{5b}-\\x{60}"
                     "\\x{7b}-\\x{7e}\\p{P}]",
                     err);
}

/* A pattern that is a text and no expression: every character of ASCII that
 * could mean something is escaped. */
static int add_literal(struct sl_vocab_builder *b, uint32_t what, const char *s,
                       size_t n, struct sl_error *err)
{
    struct sl_str re = {0};
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < n; i++) {
        uint8_t c = (uint8_t)s[i];
        bool plain = c >= 0x80 || (c >= '0' && c <= '9') ||
                     ((c | 32) >= 'a' && (c | 32) <= 'z') || c <= ' ';

        if (!plain)
            rc = sl_str_append(&re, "\\", 1, err);
        if (rc == 0)
            rc = sl_str_append(&re, s + i, 1, err);
    }
    if (rc == 0)
        rc = sl_vocab_add_split(b, what, re.s, re.n, NULL, 0, err);
    sl_str_fini(&re);
    return rc;
}

static int read_split(struct sl_vocab_builder *b, struct sl_unsupported *u,
                      const json_t *pre, struct sl_error *err)
{
    static const struct {
        const char *behavior;
        uint32_t what;
    } behaviors[] = {
        {"Isolated", SL_PRETOK_ISOLATED},
        {"Removed", SL_PRETOK_REMOVED},
        {"MergedWithPrevious", SL_PRETOK_PREVIOUS},
        {"MergedWithNext", SL_PRETOK_NEXT},
        {"Contiguous", SL_PRETOK_CONTIGUOUS},
    };
    const json_t *pattern = json_object_get(pre, "pattern");
    const json_t *re = json_object_get(pattern, "Regex");
    const json_t *text = json_object_get(pattern, "String");
    size_t i = 0, n = sizeof behaviors / sizeof *behaviors;
    uint32_t what;

    while (i < n &&
           strcmp(behaviors[i].behavior, sl_json_text_of(pre, "behavior")) != 0)
        i++;
    if (i == n || (!json_is_string(re) && !json_is_string(text))) {
        sl_unsupported_add(u, "pre_tokenizer Split",
                           sl_json_text_of(pre, "behavior"));
        return 0;
    }
    what = behaviors[i].what |
           (sl_json_true(pre, "invert", false) ? SL_PRETOK_INVERT : 0);
    if (json_is_string(re))
        return sl_vocab_add_split(b, what, json_string_value(re),
                                  json_string_length(re), NULL, 0, err);
    return add_literal(b, what, json_string_value(text),
                       json_string_length(text), err);
}

static int read_byte_level(struct sl_vocab_builder *b, const json_t *pre,
                           struct sl_error *err)
{
    if (sl_json_true(pre, "add_prefix_space", true) &&
        sl_vocab_add_split(b, SL_PRETOK_BLANK_FIRST, NULL, 0, NULL, 0, err) !=
            0)
        return -1;
    return sl_json_true(pre, "use_regex", true)
               ? sl_vocab_set_pre(b, "gpt-2", err)
               : 0;
}

static int read_metaspace(struct sl_vocab_builder *b, const json_t *pre,
                          struct sl_error *err)
{
    const char *by = sl_json_text_of(pre, "replacement");
    const char *scheme = sl_json_text_of(pre, "prepend_scheme");

    if (*scheme == '\0') /* as it was before prepend_scheme */
        scheme =
            sl_json_true(pre, "add_prefix_space", true) ? "always" : "never";
    if (sl_vocab_add_split(b, SL_PRETOK_METASPACE, by, strlen(by), scheme,
                           strlen(scheme), err) != 0)
        return -1;
    return sl_json_true(pre, "split", true)
               ? add_literal(b, SL_PRETOK_NEXT, by, strlen(by), err)
               : 0;
}

static int read_splits(struct sl_vocab_builder *b, struct sl_unsupported *u,
                       const json_t *pre, bool *bytes, unsigned depth,
                       struct sl_error *err)
{
    static const struct {
        const char *type;
        uint32_t what;
        const char *re;
    } plain[] = {
        {"WhitespaceSplit", SL_PRETOK_REMOVED, "\\s"},
        {"Whitespace", SL_PRETOK_REMOVED | SL_PRETOK_INVERT, "\\w+|[^\\w\\s]+"},
    };
    const char *type = sl_json_text_of(pre, "type");
    const json_t *v;
    size_t i;

    if (*bytes) { /* what comes now would see GPT-2's alphabet */
        sl_unsupported_add(u, "pre_tokenizer behind ByteLevel:", type);
        return 0;
    }
    for (i = 0; i < sizeof plain / sizeof *plain; i++) {
        if (strcmp(type, plain[i].type) == 0)
            return add_regex(b, plain[i].what, plain[i].re, err);
    }
    if (strcmp(type, "Split") == 0)
        return read_split(b, u, pre, err);
    if (strcmp(type, "Digits") == 0)
        return add_regex(b, SL_PRETOK_ISOLATED,
                         sl_json_true(pre, "individual_digits", false)
                             ? "\\p{N}"
                             : "\\p{N}+",
                         err);
    if (strcmp(type, "BertPreTokenizer") == 0)
        return sl_vocab_add_bert_splits(b, err);
    if (strcmp(type, "Metaspace") == 0)
        return read_metaspace(b, pre, err);
    if (strcmp(type, "ByteLevel") == 0) {
        *bytes = true;
        return read_byte_level(b, pre, err);
    }
    if (strcmp(type, "Sequence") != 0 || depth == 0) {
        sl_unsupported_add(u, "pre_tokenizer", type);
        return 0;
    }
    json_array_foreach(json_object_get(pre, "pretokenizers"), i, v)
    {
        if (read_splits(b, u, v, bytes, depth - 1, err) != 0)
            return -1;
    }
    return 0;
}

int sl_vocab_read_splits(struct sl_vocab_builder *b, struct sl_unsupported *u,
                         const json_t *pre, struct sl_error *err)
{
    bool bytes = false;

    return pre == NULL ? 0 : read_splits(b, u, pre, &bytes, 4, err);
}

/* --- post_processor --------------------------------------------------------
 */

static int add_special(struct sl_vocab_builder *b, const json_t *root,
                       const char *name, enum sl_vocab_tag to,
                       struct sl_error *err)
{
    const json_t *ids = json_object_get(
        json_object_get(json_object_get(root, "special_tokens"), name), "ids");
    const json_t *v;
    size_t i;

    if (json_array_size(ids) == 0)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "the template names '%.40s', which has no ids", name);
    json_array_foreach(ids, i, v)
    {
        json_int_t id = json_integer_value(v);

        if (!json_is_integer(v) || id < 0 || id >= SL_VOCAB_MAX)
            return sl_fail(err, SL_ERR_CORRUPT,
                           "the template's '%.40s' has an impossible id", name);
        if (sl_vocab_add_id(b, to, (int32_t)id, err) != 0)
            return -1;
    }
    return 0;
}

static int read_single(struct sl_vocab_builder *b, const json_t *post,
                       struct sl_error *err)
{
    enum sl_vocab_tag to = SL_VOCAB_PREFIX;
    const json_t *v;
    size_t i;

    json_array_foreach(json_object_get(post, "single"), i, v)
    {
        const json_t *special = json_object_get(v, "SpecialToken");

        if (special == NULL)
            to = SL_VOCAB_SUFFIX;
        else if (add_special(b, post, sl_json_text_of(special, "id"), to,
                             err) != 0)
            return -1;
    }
    return 0;
}

/* ["<s>", 0] */
static int add_pair(struct sl_vocab_builder *b, const json_t *pair,
                    enum sl_vocab_tag to, struct sl_error *err)
{
    const json_t *id = json_array_get(pair, 1);
    json_int_t at = json_integer_value(id);

    if (!json_is_integer(id) || at < 0 || at >= SL_VOCAB_MAX)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "the post_processor's sep or cls has no id");
    return sl_vocab_add_id(b, to, (int32_t)at, err);
}

int sl_vocab_read_template(struct sl_vocab_builder *b, struct sl_unsupported *u,
                           const json_t *post, struct sl_error *err)
{
    const char *type = sl_json_text_of(post, "type");
    const json_t *v;
    size_t i;

    if (post == NULL || strcmp(type, "ByteLevel") == 0)
        return 0;
    if (strcmp(type, "TemplateProcessing") == 0)
        return read_single(b, post, err);
    if (strcmp(type, "RobertaProcessing") == 0 ||
        strcmp(type, "BertProcessing") == 0)
        return add_pair(b, json_object_get(post, "cls"), SL_VOCAB_PREFIX,
                        err) != 0
                   ? -1
                   : add_pair(b, json_object_get(post, "sep"), SL_VOCAB_SUFFIX,
                              err);
    if (strcmp(type, "Sequence") != 0) {
        sl_unsupported_add(u, "post_processor", type);
        return 0;
    }
    json_array_foreach(json_object_get(post, "processors"), i, v)
    {
        if (strcmp(sl_json_text_of(v, "type"), "Sequence") == 0)
            sl_unsupported_add(u, "post_processor", "Sequence in a Sequence");
        else if (sl_vocab_read_template(b, u, v, err) != 0)
            return -1;
    }
    return 0;
}
