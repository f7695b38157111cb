#include "config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "src/model/config_json.h"

enum kind { WHOLE, REAL, TRUTH, NOT_TRUTH, ROTARY, WHITESPACE };

/* SAT's argument names (SwissArmyTransformer arguments.py, GLM-130B
 * configs); the two that SAT does not know are ours. need: no default. */
static const struct field {
    enum sl_config_field field;
    const char *key; /* the flag has '-' for '_' */
    enum kind kind;
    size_t at; /* in struct sl_hparams */
    bool need;
} fields[] = {
#define AT(member) offsetof(struct sl_hparams, member)
    {SL_CONFIG_LAYERS, "num_layers", WHOLE, AT(n_layers), true},
    {SL_CONFIG_HIDDEN, "hidden_size", WHOLE, AT(hidden), true},
    {SL_CONFIG_INNER, "inner_hidden_size", WHOLE, AT(inner), false},
    {SL_CONFIG_HEADS, "num_attention_heads", WHOLE, AT(n_heads), true},
    {SL_CONFIG_VOCAB, "vocab_size", WHOLE, AT(vocab), true},
    {SL_CONFIG_POSITIONS, "max_sequence_length", WHOLE, AT(max_positions),
     true},
    {SL_CONFIG_NORM_EPS, "layernorm_epsilon", REAL, AT(norm_eps), false},
    {SL_CONFIG_POSITION_2D, "position_encoding_2d", TRUTH, AT(position_2d),
     false},
    {SL_CONFIG_GLU, "no_glu", NOT_TRUTH, AT(glu), false},
    {SL_CONFIG_ROTARY, "rotary_precision", ROTARY, AT(rotary), false},
    {SL_CONFIG_WHITESPACE, "whitespace", WHITESPACE, AT(text.whitespace),
     false},
    {SL_CONFIG_IMAGE_TOKENS, "num_image_tokens", WHOLE, AT(text.n_image_tokens),
     false},
    {SL_CONFIG_MAX_BLANK, "max_blank_length", WHOLE, AT(text.max_blank), false},
    {SL_CONFIG_BYTE_FALLBACK, "byte_fallback", TRUTH, AT(text.byte_fallback),
     false},
#undef AT
};
#define N_FIELDS (sizeof fields / sizeof *fields)

/* GLM-130B: THUDM/GLM-130B configs/model_glm_130b.sh; ids of icetk's text
 * part and of the control tokens behind it: SAT 0.2.12
 * tokenization/icetk_glm_130B. */
static const struct sl_hparams glm_130b = {
    .n_layers = 70,
    .hidden = 12288,
    .inner = 32768,
    .n_heads = 96,
    .vocab = 150528,
    .max_positions = 2048,
    .norm_eps = 1e-5f,
    .glu = true,
    .rotary = SL_ROTARY_F16,
    .text.whitespace = SL_WHITESPACE_COLLAPSE,
    .text.n_image_tokens = 20000,
    .text.n_tokens = 150008,
    .text.special = {150000, 150001, 150002, 150003, 150004, 150005, 150006,
                     150007, 20002, 20000},
};

static const struct {
    const char *name;
    const struct sl_hparams *hp;
} presets[] = {
    {"glm-130b", &glm_130b},
};

static const struct sl_special_ids no_ids = {-1, -1, -1, -1, -1,
                                             -1, -1, -1, -1, -1};

void sl_config_init(struct sl_config *c)
{
    memset(c, 0, sizeof *c);
    c->hp.text.special = no_ids;
}

int sl_config_preset(struct sl_config *c, const char *name,
                     struct sl_error *err)
{
    for (size_t i = 0; i < sizeof presets / sizeof *presets; i++) {
        if (strcmp(presets[i].name, name) != 0)
            continue;
        sl_config_init(c);
        c->hp = *presets[i].hp;
        for (size_t f = 0; f < N_FIELDS; f++)
            sl_config_mark(c, fields[f].field);
        sl_config_mark(c, SL_CONFIG_SPECIAL);
        return 0;
    }
    return sl_fail(err, SL_ERR_USAGE,
                   "there is no preset '%s'; there is: glm-130b", name);
}

/* NULL where the file does not say or says null. */
static const json_t *find(const json_t *root, const char *key)
{
    static const char *const nests[] = {"args", "model_args", "model_config"};
    const json_t *v = json_object_get(root, key);

    for (size_t i = 0; v == NULL && i < 3; i++)
        v = json_object_get(json_object_get(root, nests[i]), key);
    return json_is_null(v) ? NULL : v;
}

static int bad_value(struct sl_error *err, const char *file, const char *key,
                     const json_t *v, const char *wanted)
{
    char *text = json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT);

    sl_fail(err, SL_ERR_CORRUPT, "%s: %s is %.60s; it must be %s", file, key,
            text != NULL ? text : "unreadable", wanted);
    free(text);
    return -1;
}

/* Sizes, counts and ids fit in an int32: ids are of that type, and no model
 * has anything larger. */
static int take_whole(uint32_t *out, const json_t *v, const char *file,
                      const char *key, struct sl_error *err)
{
    json_int_t x = json_integer_value(v);

    if (!json_is_integer(v) || x < 0 || x > INT32_MAX)
        return bad_value(err, file, key, v, "a whole number below 2147483648");
    *out = (uint32_t)x;
    return 0;
}

static int take_field(struct sl_config *c, const struct field *f,
                      const json_t *v, const char *file, struct sl_error *err)
{
    void *out = (char *)&c->hp + f->at;
    const char *text = json_is_string(v) ? json_string_value(v) : "";

    sl_config_mark(c, f->field);
    switch (f->kind) {
    case WHOLE:
        return take_whole(out, v, file, f->key, err);
    case REAL:
        if (!json_is_number(v) || !isfinite(json_number_value(v)))
            return bad_value(err, file, f->key, v, "a number");
        *(float *)out = (float)json_number_value(v);
        return 0;
    case TRUTH:
    case NOT_TRUTH:
        if (!json_is_boolean(v))
            return bad_value(err, file, f->key, v, "true or false");
        *(bool *)out = json_is_true(v) == (f->kind == TRUTH);
        return 0;
    case ROTARY:
        if (!sl_rotary_find(out, text))
            return bad_value(err, file, f->key, v,
                             "\"exact\", \"inv-freq-f16\" or \"f16\"");
        return 0;
    default:
        if (!sl_whitespace_find(out, text))
            return bad_value(err, file, f->key, v,
                             "\"tokens\" or \"collapse\"");
        return 0;
    }
}

/* Ids that are not named are none: a vocabulary without them is no error
 * here, whoever needs one says so. */
static int take_special(struct sl_config *c, const json_t *root,
                        const char *file, struct sl_error *err)
{
    struct sl_special_ids *s = &c->hp.text.special;
    const struct {
        const char *name;
        int32_t *id;
    } names[] = {
        {"[MASK]", &s->mask}, {"[gMASK]", &s->gmask},   {"[sMASK]", &s->smask},
        {"<eod>", &s->eod},   {"<sop>", &s->sop},       {"<eop>", &s->eop},
        {"<ENC>", &s->enc},   {"<dBLOCK>", &s->dblock}, {"</s>", &s->eos},
        {"<unk>", &s->unk},
    };
    const json_t *ids = find(root, "special_tokens");

    if (ids == NULL)
        return 0;
    if (!json_is_object(ids))
        return bad_value(err, file, "special_tokens", ids,
                         "an object of names and ids");
    *s = no_ids;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const json_t *v = json_object_get(ids, names[i].name);
        uint32_t id;

        if (v == NULL)
            continue;
        if (take_whole(&id, v, file, names[i].name, err) != 0)
            return -1;
        *names[i].id = (int32_t)id;
    }
    sl_config_mark(c, SL_CONFIG_SPECIAL);
    return 0;
}

/* SAT can build many models from such a file; this program one kind. */
static int refuse_others(const json_t *root, const char *file,
                         struct sl_error *err)
{
    const char *order = json_string_value(find(root, "layernorm_order"));
    const json_t *groups = find(root, "num_multi_query_heads");

    if (order != NULL && strcmp(order, "post") != 0)
        return sl_fail(err, SL_ERR_UNSUPPORTED,
                       "%s: layernorm_order is \"%s\"; GLM-130B's architecture "
                       "has \"post\"",
                       file, order);
    if (json_integer_value(groups) > 0)
        return sl_fail(err, SL_ERR_UNSUPPORTED,
                       "%s: num_multi_query_heads is %lld; GLM-130B's "
                       "architecture has a key and value for every head",
                       file, (long long)json_integer_value(groups));
    return 0;
}

int sl_config_parse(struct sl_config *c, const char *text, size_t n,
                    const char *file, struct sl_error *err)
{
    json_error_t at;
    json_t *root = json_loadb(text, n, 0, &at);
    struct sl_config made;
    int rc = -1;

    if (root == NULL)
        return sl_fail(err, SL_ERR_CORRUPT, "%s:%d:%d: not JSON: %s", file,
                       at.line, at.column, at.text);
    sl_config_init(&made);
    if (!json_is_object(root)) {
        sl_fail(err, SL_ERR_CORRUPT,
                "%s: holds no object of hyper-parameters, but %s", file,
                json_is_array(root) ? "an array" : "a single value");
        goto out;
    }
    if (refuse_others(root, file, err) != 0)
        goto out;
    for (size_t i = 0; i < N_FIELDS; i++) {
        const json_t *v = find(root, fields[i].key);

        if (v != NULL && take_field(&made, &fields[i], v, file, err) != 0)
            goto out;
    }
    if (take_special(&made, root, file, err) != 0)
        goto out;
    *c = made;
    rc = 0;
out:
    json_decref(root);
    return rc;
}

static size_t field_bytes(const struct field *f)
{
    switch (f->kind) {
    case TRUTH:
    case NOT_TRUTH:
        return sizeof(bool);
    case ROTARY:
        return sizeof(enum sl_rotary);
    case WHITESPACE:
        return sizeof(enum sl_whitespace);
    default:
        return sizeof(uint32_t);
    }
}

void sl_config_overlay(struct sl_config *c, const struct sl_config *over)
{
    for (size_t i = 0; i < N_FIELDS; i++) {
        const struct field *f = &fields[i];

        if (sl_config_has(over, f->field))
            memcpy((char *)&c->hp + f->at, (const char *)&over->hp + f->at,
                   field_bytes(f));
    }
    if (sl_config_has(over, SL_CONFIG_SPECIAL))
        c->hp.text.special = over->hp.text.special;
    c->given |= over->given;
}

bool sl_config_missing(char list[SL_CONFIG_MISSING], const struct sl_config *c)
{
    size_t n = 0;

    list[0] = '\0';
    for (size_t i = 0; i < N_FIELDS; i++) {
        char flag[40];

        if (!fields[i].need || sl_config_has(c, fields[i].field))
            continue;
        snprintf(flag, sizeof flag, "%s", fields[i].key);
        for (char *p = flag; *p != '\0'; p++)
            *p = *p == '_' ? '-' : *p;
        n += (size_t)snprintf(list + n, SL_CONFIG_MISSING - n, "%s--%s",
                              n > 0 ? ", " : "", flag);
    }
    return n > 0;
}

static bool shaped_as_glm_130b(const struct sl_hparams *hp)
{
    return hp->n_layers == glm_130b.n_layers && hp->hidden == glm_130b.hidden &&
           hp->vocab == glm_130b.vocab;
}

/* SAT's model_config.json knows neither the rounding of the rotary table nor
 * the tokenizer's habits: a file of GLM-130B's own shape gets GLM-130B's. */
static void fill_in(struct sl_hparams *hp, const struct sl_config *c)
{
    bool is_130b = shaped_as_glm_130b(hp);

    if (!sl_config_has(c, SL_CONFIG_INNER))
        hp->inner = 4 * hp->hidden; /* SAT's default */
    if (!sl_config_has(c, SL_CONFIG_NORM_EPS))
        hp->norm_eps = 1e-5f; /* SAT's default */
    if (!sl_config_has(c, SL_CONFIG_GLU))
        hp->glu = true;
    if (!sl_config_has(c, SL_CONFIG_ROTARY))
        hp->rotary = is_130b ? SL_ROTARY_F16 : SL_ROTARY_EXACT;
    if (!sl_config_has(c, SL_CONFIG_WHITESPACE))
        hp->text.whitespace = sl_config_has(c, SL_CONFIG_MAX_BLANK)
                                  ? SL_WHITESPACE_TOKENS
                                  : SL_WHITESPACE_COLLAPSE;
    /* icetk puts its image codes first. */
    if (!sl_config_has(c, SL_CONFIG_IMAGE_TOKENS))
        hp->text.n_image_tokens = hp->vocab > 20000 ? 20000 : 0;
}

int sl_config_finish(struct sl_hparams *hp, const struct sl_arch *arch,
                     const struct sl_config *c, struct sl_error *err)
{
    struct sl_hparams made = c->hp;
    char missing[SL_CONFIG_MISSING];

    if (sl_config_missing(missing, c))
        return sl_fail(err, SL_ERR_USAGE,
                       "the model's size is not known: no config.json beside "
                       "the checkpoint says %s; give them, or --preset "
                       "glm-130b",
                       missing);
    fill_in(&made, c);
    sl_arch_derive(arch, &made);
    if (sl_hparams_check(&made, err) != 0)
        return -1;
    *hp = made;
    return 0;
}
