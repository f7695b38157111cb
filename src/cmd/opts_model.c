#include "config.h"

#include "src/cmd/opts.h"
#include "src/model/config_json.h"

enum {
    OPT_LAYERS = 0x300,
    OPT_HIDDEN,
    OPT_INNER,
    OPT_HEADS,
    OPT_VOCAB,
    OPT_POSITIONS,
    OPT_NORM_EPS,
    OPT_POSITION_2D,
    OPT_NO_GLU,
    OPT_ROTARY,
    OPT_WHITESPACE,
    OPT_IMAGE_TOKENS,
    OPT_MAX_BLANK,
    OPT_BYTE_FALLBACK,
};

static const struct argp_option options[] = {
    {"num-layers", OPT_LAYERS, "N", 0, "Number of layers", 0},
    {"hidden-size", OPT_HIDDEN, "N", 0, "Width of the model", 0},
    {"inner-hidden-size", OPT_INNER, "N", 0,
     "Width of the MLP (default: 4 times the hidden size)", 0},
    {"num-attention-heads", OPT_HEADS, "N", 0, "Number of heads", 0},
    {"vocab-size", OPT_VOCAB, "N", 0, "Rows of the embedding", 0},
    {"max-sequence-length", OPT_POSITIONS, "N", 0,
     "Longest sequence the model was trained for", 0},
    {"layernorm-epsilon", OPT_NORM_EPS, "X", 0, "Default: 1e-5", 0},
    {"position-encoding-2d", OPT_POSITION_2D, 0, 0,
     "Positions have two dimensions", 0},
    {"no-glu", OPT_NO_GLU, 0, 0, "The MLP has no gate", 0},
    {"rotary-precision", OPT_ROTARY, "KIND", 0,
     "exact, inv-freq-f16 or f16: how the rotary table was rounded when the "
     "model was trained (default: exact; f16 for glm-130b)",
     0},
    {"whitespace", OPT_WHITESPACE, "KIND", 0,
     "tokens or collapse: newlines, tabs and blanks are tokens, or all become "
     "one blank (default: tokens where config.json has max_blank_length, else "
     "collapse)",
     0},
    {"num-image-tokens", OPT_IMAGE_TOKENS, "N", 0,
     "Ids before the tokenizer's first (default: 20000)", 0},
    {"max-blank-length", OPT_MAX_BLANK, "N", 0,
     "Longest run of blanks that is one token", 0},
    {"byte-fallback", OPT_BYTE_FALLBACK, 0, 0,
     "Bytes are tokens, for what the tokenizer does not know", 0},
    {0},
};

static uint32_t number(struct argp_state *state, const char *name,
                       const char *arg, enum sl_config_field field)
{
    sl_config_mark(state->input, field);
    return (uint32_t)sl_opt_u64(state, name, arg, 0, INT32_MAX);
}

static error_t parse_model(int key, char *arg, struct argp_state *state)
{
    struct sl_config *c = state->input;
    struct sl_hparams *hp = &c->hp;

    switch (key) {
    case OPT_LAYERS:
        hp->n_layers = number(state, "num-layers", arg, SL_CONFIG_LAYERS);
        return 0;
    case OPT_HIDDEN:
        hp->hidden = number(state, "hidden-size", arg, SL_CONFIG_HIDDEN);
        return 0;
    case OPT_INNER:
        hp->inner = number(state, "inner-hidden-size", arg, SL_CONFIG_INNER);
        return 0;
    case OPT_HEADS:
        hp->n_heads =
            number(state, "num-attention-heads", arg, SL_CONFIG_HEADS);
        return 0;
    case OPT_VOCAB:
        hp->vocab = number(state, "vocab-size", arg, SL_CONFIG_VOCAB);
        return 0;
    case OPT_POSITIONS:
        hp->max_positions =
            number(state, "max-sequence-length", arg, SL_CONFIG_POSITIONS);
        return 0;
    case OPT_NORM_EPS:
        hp->norm_eps = (float)sl_opt_f64(state, "layernorm-epsilon", arg, 0, 1);
        sl_config_mark(c, SL_CONFIG_NORM_EPS);
        return 0;
    case OPT_POSITION_2D:
        hp->position_2d = true;
        sl_config_mark(c, SL_CONFIG_POSITION_2D);
        return 0;
    case OPT_NO_GLU:
        hp->glu = false;
        sl_config_mark(c, SL_CONFIG_GLU);
        return 0;
    case OPT_ROTARY:
        if (!sl_rotary_find(&hp->rotary, arg))
            argp_error(state,
                       "--rotary-precision is exact, inv-freq-f16 or f16, not "
                       "'%s'",
                       arg);
        sl_config_mark(c, SL_CONFIG_ROTARY);
        return 0;
    case OPT_WHITESPACE:
        if (!sl_whitespace_find(&hp->text.whitespace, arg))
            argp_error(state, "--whitespace is tokens or collapse, not '%s'",
                       arg);
        sl_config_mark(c, SL_CONFIG_WHITESPACE);
        return 0;
    case OPT_IMAGE_TOKENS:
        hp->text.n_image_tokens =
            number(state, "num-image-tokens", arg, SL_CONFIG_IMAGE_TOKENS);
        return 0;
    case OPT_MAX_BLANK:
        hp->text.max_blank =
            number(state, "max-blank-length", arg, SL_CONFIG_MAX_BLANK);
        return 0;
    case OPT_BYTE_FALLBACK:
        hp->text.byte_fallback = true;
        sl_config_mark(c, SL_CONFIG_BYTE_FALLBACK);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

const struct argp sl_model_argp = {options, parse_model, 0, 0, 0, 0, 0};
