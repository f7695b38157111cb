#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/text/vocab_folder.h"
#include "src/text/vocab_read.h"

static int read_object(json_t **out, const struct sl_vocab_source *source,
                       const char *name, struct sl_error *err)
{
    json_error_t at;
    uint8_t *data;
    size_t n;
    int rc = source->read(source->opaque, name, &data, &n, err);

    if (rc != 0)
        return rc < 0 ? -1 : 0;
    *out = json_loadb((char *)data, n, JSON_ALLOW_NUL, &at);
    free(data);
    if (*out == NULL)
        return sl_fail(err, SL_ERR_CORRUPT, "%s:%d:%d: not JSON: %s", name,
                       at.line, at.column, at.text);
    if (!json_is_object(*out))
        return sl_fail(err, SL_ERR_CORRUPT, "%s: holds no object", name);
    return 0;
}

int sl_vocab_folder_open(struct sl_vocab_folder *f,
                         const struct sl_vocab_source *source,
                         const struct sl_vocab_options *o, struct sl_error *err)
{
    const struct {
        json_t **to;
        const char *name;
    } files[] = {
        {&f->config, "config.json"},
        {&f->tokenizer_config, "tokenizer_config.json"},
        {&f->generation_config, "generation_config.json"},
        {&f->added, "added_tokens.json"},
        {&f->special, "special_tokens_map.json"},
    };

    *f =
        (struct sl_vocab_folder){.source = source, .o = o, .family = o->family};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        if (read_object(files[i].to, source, files[i].name, err) != 0) {
            sl_vocab_folder_close(f);
            return -1;
        }
    }
    return 0;
}

void sl_vocab_folder_close(struct sl_vocab_folder *f)
{
    json_decref(f->config);
    json_decref(f->tokenizer_config);
    json_decref(f->generation_config);
    json_decref(f->added);
    json_decref(f->special);
}

const char *sl_vocab_folder_class(const struct sl_vocab_folder *f)
{
    return sl_json_text_of(f->tokenizer_config, "tokenizer_class");
}

int64_t sl_vocab_folder_number(const struct sl_vocab_folder *f, const char *key)
{
    const json_t *v = json_object_get(f->config, key);

    return json_is_integer(v) ? json_integer_value(v) : -1;
}

/* --- added tokens ----------------------------------------------------------
 */

static unsigned flags_of(const json_t *v)
{
    bool special = sl_json_true(v, "special", false);

    return (special ? SL_ADDED_SPECIAL : 0u) |
           (sl_json_true(v, "lstrip", false) ? SL_ADDED_LSTRIP : 0u) |
           (sl_json_true(v, "rstrip", false) ? SL_ADDED_RSTRIP : 0u) |
           (sl_json_true(v, "single_word", false) ? SL_ADDED_WORD : 0u) |
           (sl_json_true(v, "normalized", !special) ? SL_ADDED_NORMALIZED : 0u);
}

/* {"151329": {"content": "<|endoftext|>", "special": true, ...}, ...} */
static int add_decoder(struct sl_vocab_builder *b, const json_t *list,
                       struct sl_error *err)
{
    const char *key;
    json_t *v;

    json_object_foreach((json_t *)list, key, v)
    {
        const json_t *s = json_object_get(v, "content");
        char *end;
        long id = strtol(key, &end, 10);

        if (*key == '\0' || *end != '\0' || id < 0 || id >= SL_VOCAB_MAX ||
            !json_is_string(s))
            return sl_fail(err, SL_ERR_CORRUPT,
                           "tokenizer_config.json: added_tokens_decoder: "
                           "'%.20s' is no id from 0 to %u with a content",
                           key, SL_VOCAB_MAX - 1);
        if (json_string_length(s) > 0 &&
            sl_vocab_add_added(b, (uint32_t)id, json_string_value(s),
                               json_string_length(s), flags_of(v), err) != 0)
            return -1;
    }
    return 0;
}

int sl_vocab_folder_added(const struct sl_vocab_folder *f,
                          struct sl_vocab_builder *b, struct sl_error *err)
{
    const char *name;
    json_t *v;

    if (add_decoder(
            b, json_object_get(f->tokenizer_config, "added_tokens_decoder"),
            err) != 0)
        return -1;
    /* {"[gMASK]": 50009, ...}: all special, as far as it is known here. */
    json_object_foreach(f->added, name, v)
    {
        json_int_t id = json_integer_value(v);

        if (!json_is_integer(v) || id < 0 || id >= SL_VOCAB_MAX)
            return sl_fail(err, SL_ERR_CORRUPT,
                           "added_tokens.json: '%.40s' has no id from 0 to %u",
                           name, SL_VOCAB_MAX - 1);
        if (*name == '\0' || (sl_vocab_find(b, name, strlen(name)) == id &&
                              sl_vocab_is_added(b, (uint32_t)id)))
            continue;
        if (sl_vocab_add_added(b, (uint32_t)id, name, strlen(name),
                               SL_ADDED_SPECIAL, err) != 0)
            return -1;
    }
    return 0;
}

/* --- where a text begins and ends ------------------------------------------
 */

/* "eos_token": "</s>" or {"content": "</s>", ...}; NULL: not said. */
static const char *token_name(const struct sl_vocab_folder *f, const char *key)
{
    const json_t *v = sl_json_find(f->tokenizer_config, key);

    if (v == NULL)
        v = sl_json_find(f->special, key);
    return json_is_object(v) ? json_string_value(json_object_get(v, "content"))
                             : json_string_value(v);
}

static int name_controls(const struct sl_vocab_folder *f,
                         struct sl_vocab_builder *b, struct sl_error *err)
{
    static const struct {
        const char *key;
        enum sl_vocab_control control;
    } keys[] = {
        {"bos_token", SL_CONTROL_BOS},
        {"eos_token", SL_CONTROL_EOS},
        {"unk_token", SL_CONTROL_UNK},
        {"pad_token", SL_CONTROL_PAD},
    };

    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const char *name = token_name(f, keys[i].key);
        int32_t id = name != NULL ? sl_vocab_find(b, name, strlen(name)) : -1;

        if (id < 0)
            continue;
        sl_vocab_set_control(b, keys[i].control, id);
        /* A piece that is named as special is one. */
        if (!sl_vocab_is_added(b, (uint32_t)id) &&
            sl_vocab_add_added(b, (uint32_t)id, name, strlen(name),
                               SL_ADDED_SPECIAL, err) != 0)
            return -1;
    }
    return 0;
}

/* A number or a list of them. */
static int add_stops(struct sl_vocab_builder *b, const json_t *eos,
                     const char *file, struct sl_error *err)
{
    size_t n = json_is_array(eos) ? json_array_size(eos) : 1;

    for (size_t i = 0; i < n; i++) {
        const json_t *v = json_is_array(eos) ? json_array_get(eos, i) : eos;
        json_int_t id = json_integer_value(v);

        if (!json_is_integer(v) || id < 0 || id >= SL_VOCAB_MAX)
            return sl_fail(err, SL_ERR_CORRUPT,
                           "%s: eos_token_id holds what is no id from 0 to %u",
                           file, SL_VOCAB_MAX - 1);
        if (sl_vocab_add_id(b, SL_VOCAB_STOPS, (int32_t)id, err) != 0)
            return -1;
    }
    return 0;
}

/* transformers generates by generation_config.json, which it makes of
 * config.json where there is none; the tokenizer's own end is where the
 * templates end a turn. */
static int find_stops(struct sl_vocab_folder *f, struct sl_vocab_builder *b,
                      struct sl_error *err)
{
    const json_t *eos = sl_json_find(f->generation_config, "eos_token_id");
    int32_t own = sl_vocab_get_control(b, SL_CONTROL_EOS);

    f->stops_from = "generation_config.json";
    if (eos == NULL) {
        eos = sl_json_find(f->config, "eos_token_id");
        f->stops_from = "config.json";
    }
    if (eos == NULL)
        f->stops_from = NULL;
    else if (add_stops(b, eos, f->stops_from, err) != 0)
        return -1;
    return own < 0 ? 0 : sl_vocab_add_id(b, SL_VOCAB_STOPS, own, err);
}

/* Llama's tokenizers put bos first unless they are told otherwise; others only
 * if their file's template does, or if they are told. */
static int find_bos(const struct sl_vocab_folder *f, struct sl_vocab_builder *b,
                    struct sl_error *err)
{
    const json_t *said = sl_json_find(f->tokenizer_config, "add_bos_token");
    bool llama = strncmp(sl_vocab_folder_class(f), "Llama", 5) == 0;
    bool plain = strcmp(sl_vocab_builder_kind(b)->name, "sentencepiece") == 0 &&
                 f->family == SL_FAMILY_PLAIN;
    int32_t bos = sl_vocab_get_control(b, SL_CONTROL_BOS);

    if (json_is_false(said) && llama)
        sl_vocab_clear_ids(b, SL_VOCAB_PREFIX);
    if (bos < 0 || sl_vocab_has_ids(b, SL_VOCAB_PREFIX) ||
        !(json_is_true(said) || (said == NULL && plain)))
        return 0;
    return sl_vocab_add_id(b, SL_VOCAB_PREFIX, bos, err);
}

int sl_vocab_folder_ends(struct sl_vocab_folder *f, struct sl_vocab_builder *b,
                         struct sl_error *err)
{
    if (name_controls(f, b, err) != 0 || find_stops(f, b, err) != 0)
        return -1;
    return find_bos(f, b, err);
}
