#include "config.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "src/cmd/opts_shape.h"

/* An option's key says which field it sets. */
#define KEY(field) (0x300 + (int)(field))

static const struct argp_option options[] = {
    {"num-layers", KEY(SL_CONFIG_LAYERS), "N", 0, "Number of layers", 0},
    {"hidden-size", KEY(SL_CONFIG_HIDDEN), "N", 0, "Width of the model", 0},
    {"inner-hidden-size", KEY(SL_CONFIG_INNER), "N", 0,
     "Width of the MLP (default: 4 times the hidden size)", 0},
    {"num-attention-heads", KEY(SL_CONFIG_HEADS), "N", 0, "Number of heads", 0},
    {"vocab-size", KEY(SL_CONFIG_VOCAB), "N", 0, "Rows of the embedding", 0},
    {"max-sequence-length", KEY(SL_CONFIG_POSITIONS), "N", 0,
     "Longest sequence the model was trained for", 0},
    {"layernorm-epsilon", KEY(SL_CONFIG_NORM_EPS), "X", 0, "Default: 1e-5", 0},
    {"position-encoding-2d", KEY(SL_CONFIG_POSITION_2D), 0, 0,
     "Positions have two dimensions", 0},
    {"no-glu", KEY(SL_CONFIG_GLU), 0, 0, "The MLP has no gate", 0},
    {"rotary-precision", KEY(SL_CONFIG_ROTARY), "KIND", 0,
     "exact, inv-freq-f16 or f16: how the rotary table was rounded when the "
     "model was trained (default: exact; f16 for glm-130b)",
     0},
    {"whitespace", KEY(SL_CONFIG_WHITESPACE), "KIND", 0,
     "tokens or collapse: newlines, tabs and blanks are tokens, or all become "
     "one blank (default: tokens where config.json has max_blank_length, else "
     "collapse)",
     0},
    {"num-image-tokens", KEY(SL_CONFIG_IMAGE_TOKENS), "N", 0,
     "Ids before the tokenizer's first (default: 20000)", 0},
    {"max-blank-length", KEY(SL_CONFIG_MAX_BLANK), "N", 0,
     "Longest run of blanks that is one token", 0},
    {"byte-fallback", KEY(SL_CONFIG_BYTE_FALLBACK), 0, 0,
     "Bytes are tokens, for what the tokenizer does not know", 0},
    {0},
};

/* Fields that are a whole number, and the least that makes sense. */
static const struct number {
    enum sl_config_field field;
    uint32_t least;
    size_t offset; /* of a uint32_t in struct sl_hparams */
} numbers[] = {
    {SL_CONFIG_LAYERS, 1, offsetof(struct sl_hparams, n_layers)},
    {SL_CONFIG_HIDDEN, 1, offsetof(struct sl_hparams, hidden)},
    {SL_CONFIG_INNER, 1, offsetof(struct sl_hparams, inner)},
    {SL_CONFIG_HEADS, 1, offsetof(struct sl_hparams, n_heads)},
    {SL_CONFIG_VOCAB, 1, offsetof(struct sl_hparams, vocab)},
    {SL_CONFIG_POSITIONS, 1, offsetof(struct sl_hparams, max_positions)},
    {SL_CONFIG_IMAGE_TOKENS, 0,
     offsetof(struct sl_hparams, text.n_image_tokens)},
    {SL_CONFIG_MAX_BLANK, 0, offsetof(struct sl_hparams, text.max_blank)},
};

static const char *name_of(enum sl_config_field field)
{
    const struct argp_option *o = options;

    while (o->key != KEY(field))
        o++;
    return o->name;
}

static void parse_number(struct sl_hparams *hp, enum sl_config_field field,
                         const char *arg, struct argp_state *state)
{
    const struct number *n = numbers;
    uint32_t v;

    while (n->field != field)
        n++;
    v = (uint32_t)sl_opt_u64(state, name_of(field), arg, n->least, INT32_MAX);
    memcpy((char *)hp + n->offset, &v, sizeof v);
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct sl_config *c = state->input;
    struct sl_hparams *hp = &c->hp;

    switch (key) {
    case KEY(SL_CONFIG_LAYERS):
    case KEY(SL_CONFIG_HIDDEN):
    case KEY(SL_CONFIG_INNER):
    case KEY(SL_CONFIG_HEADS):
    case KEY(SL_CONFIG_VOCAB):
    case KEY(SL_CONFIG_POSITIONS):
    case KEY(SL_CONFIG_IMAGE_TOKENS):
    case KEY(SL_CONFIG_MAX_BLANK):
        parse_number(hp, (enum sl_config_field)(key - KEY(0)), arg, state);
        break;
    case KEY(SL_CONFIG_NORM_EPS):
        hp->norm_eps =
            (float)sl_opt_f64(state, "layernorm-epsilon", arg, 1e-30, 1);
        break;
    case KEY(SL_CONFIG_POSITION_2D):
        hp->position_2d = true;
        break;
    case KEY(SL_CONFIG_GLU):
        hp->glu = false;
        break;
    case KEY(SL_CONFIG_ROTARY):
        if (!sl_rotary_find(&hp->rotary, arg))
            argp_error(state,
                       "--rotary-precision is exact, inv-freq-f16 or f16, not "
                       "'%s'",
                       arg);
        break;
    case KEY(SL_CONFIG_WHITESPACE):
        if (!sl_whitespace_find(&hp->text.whitespace, arg))
            argp_error(state, "--whitespace is tokens or collapse, not '%s'",
                       arg);
        break;
    case KEY(SL_CONFIG_BYTE_FALLBACK):
        hp->text.byte_fallback = true;
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    sl_config_mark(c, (enum sl_config_field)(key - KEY(0)));
    return 0;
}

const struct argp sl_shape_argp = {options, parse, 0, 0, 0, 0, 0};

void sl_shape_given(char list[SL_SHAPE_GIVEN], const struct sl_config *c)
{
    size_t n = 0;

    list[0] = '\0';
    for (const struct argp_option *o = options; o->name != NULL; o++) {
        if (sl_config_has(c, (enum sl_config_field)(o->key - KEY(0))) &&
            n < SL_SHAPE_GIVEN)
            n += (size_t)snprintf(list + n, SL_SHAPE_GIVEN - n, "%s--%s",
                                  n > 0 ? ", " : "", o->name);
    }
}
