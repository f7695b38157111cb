#include "config.h"

#include <string.h>

#include "src/decode/json_form_impl.h"

/* Within what the next byte comes. Of numbers what they have come to. */
enum {
    LEX_NONE,    /* between tokens: the frame's step tells */
    LEX_STRING,  /* of a value or a key that may be anything */
    LEX_ESCAPE,  /* behind a backslash */
    LEX_HEX,     /* \u: at counts */
    LEX_LITERAL, /* one of the node's values */
    LEX_KEY,     /* one of its keys */
    LEX_WORD,    /* true, false, null: pick says which */
    LEX_MINUS,
    LEX_ZERO,
    LEX_DIGITS,
    LEX_POINT,
    LEX_FRACTION,
    LEX_E,
    LEX_E_SIGN,
    LEX_E_DIGITS,
};

/* What a frame waits for. */
enum {
    STEP_VALUE, /* the value itself begins */
    STEP_FIRST, /* of an array or object: its first, or the end */
    STEP_NEXT,  /* behind a comma */
    STEP_COLON,
    STEP_COMMA, /* a comma or the end */
};

static const char *const literal_words[] = {"true", "false", "null"};

void sl_json_state_init(struct sl_json_state *s,
                        const struct sl_json_form *form)
{
    *s = (struct sl_json_state){.depth = 1};
    s->frame[0].node = form->root;
    s->frame[0].step = STEP_VALUE;
    s->frame[0].last = -1;
}

bool sl_json_state_is_over(const struct sl_json_state *s)
{
    return s->depth == 0;
}

static const struct node *top_node(const struct sl_json_state *s,
                                   const struct sl_json_form *f)
{
    return &f->nodes[s->frame[s->depth - 1].node];
}

/* A value is complete: what it stands in goes on. */
static bool value_ends(struct sl_json_state *s)
{
    s->lex = LEX_NONE;
    s->blanks = 0;
    s->depth--;
    if (s->depth > 0)
        s->frame[s->depth - 1].step = STEP_COMMA;
    return true;
}

static bool open_child(struct sl_json_state *s, uint16_t node)
{
    if (s->depth == SL_JSON_FORM_DEPTH)
        return false;
    s->frame[s->depth].node = node;
    s->frame[s->depth].step = STEP_VALUE;
    s->frame[s->depth].last = -1;
    s->depth++;
    s->blanks = 0;
    return true;
}

/* One of the literals from `from` on has the same bytes before and c next. */
static bool go_literal(struct sl_json_state *s, const struct literal *v,
                       size_t from, size_t to, uint8_t c)
{
    const struct literal *now = s->at > 0 ? &v[s->pick] : NULL;

    for (size_t i = from; i < to; i++) {
        if (s->at >= v[i].n || (uint8_t)v[i].text[s->at] != c ||
            (now != NULL && memcmp(v[i].text, now->text, s->at) != 0))
            continue;
        s->pick = (int16_t)i;
        s->at++;
        return true;
    }
    return false;
}

/* A literal may end here; *which is one that does. */
static bool literal_ends(const struct sl_json_state *s, const struct literal *v,
                         size_t from, size_t to, size_t *which)
{
    for (size_t i = from; i < to && s->at > 0; i++) {
        if (v[i].n == s->at && memcmp(v[i].text, v[s->pick].text, s->at) == 0) {
            *which = i;
            return true;
        }
    }
    return false;
}

/* Keys that may come next: up to the first that must. */
static size_t keys_to(const struct node *n, int16_t last)
{
    size_t i = (size_t)(last + 1);

    while (i < n->n_keys && !n->required[i])
        i++;
    return i < n->n_keys ? i + 1 : i;
}

static bool may_close(const struct node *n, int16_t last)
{
    for (size_t i = (size_t)(last + 1); i < n->n_keys; i++) {
        if (n->required[i])
            return false;
    }
    return true;
}

static bool begin_word(struct sl_json_state *s, int word)
{
    s->lex = LEX_WORD;
    s->pick = (int16_t)word;
    s->at = 1;
    return true;
}

/* Where the form says which values there may be, they are literals to be
 * gone through letter by letter; else the first letter tells the type. */
static bool begin_value(struct sl_json_state *s, const struct sl_json_form *f,
                        uint8_t c)
{
    const struct node *n = top_node(s, f);

    s->at = 0;
    if (n->values != NULL) {
        s->lex = LEX_LITERAL;
        s->pick = 0;
        return go_literal(s, n->values, 0, n->n_values, c);
    }
    if (c == '{' || c == '[') {
        s->frame[s->depth - 1].step = STEP_FIRST;
        s->frame[s->depth - 1].last = c == '[' ? LAST_OF_ARRAY : -1;
        s->blanks = 0;
        return (n->types & (c == '{' ? TYPE_OBJECT : TYPE_ARRAY)) != 0;
    }
    if (c == '"') {
        s->lex = LEX_STRING;
        return (n->types & TYPE_STRING) != 0;
    }
    if (c == 't' || c == 'f')
        return (n->types & TYPE_BOOLEAN) != 0 && begin_word(s, c == 'f');
    if (c == 'n')
        return (n->types & TYPE_NULL) != 0 && begin_word(s, 2);
    if ((n->types & (TYPE_NUMBER | TYPE_INTEGER)) == 0)
        return false;
    s->lex = c == '-' ? LEX_MINUS : c == '0' ? LEX_ZERO : LEX_DIGITS;
    return c == '-' || (c >= '0' && c <= '9');
}

/* The key of an object begins. */
static bool begin_key(struct sl_json_state *s, const struct sl_json_form *f,
                      uint8_t c)
{
    const struct node *n = top_node(s, f);
    int16_t last = s->frame[s->depth - 1].last;

    s->at = 0;
    if (c != '"')
        return false;
    if (n->keys == NULL) {
        s->lex = LEX_STRING;
        return true;
    }
    s->lex = LEX_KEY;
    s->pick = 0;
    return go_literal(s, n->keys, (size_t)(last + 1), keys_to(n, last), c);
}

/* Between tokens. */
static bool go_none(struct sl_json_state *s, const struct sl_json_form *f,
                    uint8_t c)
{
    const struct node *n;
    uint8_t step;

    if (c == ' ' || c == '\n' || c == '\t' || c == '\r')
        return s->depth > 0 && s->blanks++ < MOST_BLANKS;
    if (s->depth == 0)
        return false;
    n = top_node(s, f);
    step = s->frame[s->depth - 1].step;
    if (step == STEP_VALUE)
        return begin_value(s, f, c);
    if (step == STEP_COLON) {
        int16_t last = s->frame[s->depth - 1].last;

        return c == ':' &&
               open_child(s, n->keys != NULL ? n->children[last] : ANY_NODE);
    }
    s->blanks = 0;
    if (s->frame[s->depth - 1].last == LAST_OF_ARRAY) {
        if (c == ']' && step != STEP_NEXT)
            return value_ends(s);
        if (step == STEP_COMMA) {
            s->frame[s->depth - 1].step = STEP_NEXT;
            return c == ',';
        }
        return open_child(s, n->items) && begin_value(s, f, c);
    }
    if (c == '}' && step != STEP_NEXT)
        return may_close(n, s->frame[s->depth - 1].last) && value_ends(s);
    if (step == STEP_COMMA) {
        s->frame[s->depth - 1].step = STEP_NEXT;
        return c == ',' &&
               (n->keys == NULL ||
                (size_t)(s->frame[s->depth - 1].last + 1) < n->n_keys);
    }
    return begin_key(s, f, c);
}

static bool string_ends(struct sl_json_state *s)
{
    /* A key where the frame waits for one, else a value. */
    if (s->frame[s->depth - 1].step == STEP_VALUE)
        return value_ends(s);
    s->lex = LEX_NONE;
    s->blanks = 0;
    s->frame[s->depth - 1].step = STEP_COLON;
    return true;
}

static bool go_string(struct sl_json_state *s, uint8_t c)
{
    if (s->utf8 > 0) {
        s->utf8--;
        return (c & 0xc0) == 0x80;
    }
    if (c == '"')
        return string_ends(s);
    if (c == '\\') {
        s->lex = LEX_ESCAPE;
        return true;
    }
    if (c >= 0xc2 && c <= 0xf4)
        s->utf8 = c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : 1;
    else if (c >= 0x80)
        return false;
    return c >= 0x20;
}

static bool go_escape(struct sl_json_state *s, uint8_t c)
{
    s->lex = c == 'u' ? LEX_HEX : LEX_STRING;
    s->at = 0;
    return c != 0 && strchr("\"\\/bfnrtu", c) != NULL;
}

static bool go_hex(struct sl_json_state *s, uint8_t c)
{
    if (++s->at == 4)
        s->lex = LEX_STRING;
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') ||
           (c >= 'A' && c <= 'F');
}

static bool number_may_end(uint8_t lex)
{
    return lex == LEX_ZERO || lex == LEX_DIGITS || lex == LEX_FRACTION ||
           lex == LEX_E_DIGITS;
}

/* Ends what ends by what follows it, and goes on with that. */
static bool end_and_go(struct sl_json_state *s, const struct sl_json_form *f,
                       uint8_t c)
{
    value_ends(s);
    return go_none(s, f, c);
}

static bool go_number(struct sl_json_state *s, const struct sl_json_form *f,
                      uint8_t c)
{
    bool digit = c >= '0' && c <= '9';
    bool whole = (top_node(s, f)->types & TYPE_NUMBER) == 0;
    uint8_t lex = s->lex;

    if (digit && lex != LEX_ZERO) {
        if (lex == LEX_MINUS)
            s->lex = c == '0' ? LEX_ZERO : LEX_DIGITS;
        else if (lex == LEX_POINT)
            s->lex = LEX_FRACTION;
        else if (lex == LEX_E || lex == LEX_E_SIGN)
            s->lex = LEX_E_DIGITS;
        /* No number needs more: a model that likes digits shall end. */
        return ++s->at < 40;
    }
    if (c == '.' && !whole && (lex == LEX_ZERO || lex == LEX_DIGITS)) {
        s->lex = LEX_POINT;
        return true;
    }
    if ((c == 'e' || c == 'E') && !whole &&
        (lex == LEX_ZERO || lex == LEX_DIGITS || lex == LEX_FRACTION)) {
        s->lex = LEX_E;
        return true;
    }
    if ((c == '+' || c == '-') && lex == LEX_E) {
        s->lex = LEX_E_SIGN;
        return true;
    }
    return number_may_end(lex) && end_and_go(s, f, c);
}

static bool go_word(struct sl_json_state *s, uint8_t c)
{
    const char *word = literal_words[s->pick];

    if ((uint8_t)word[s->at++] != c)
        return false;
    return word[s->at] != '\0' || value_ends(s);
}

static bool go_value_literal(struct sl_json_state *s,
                             const struct sl_json_form *f, uint8_t c)
{
    const struct node *n = top_node(s, f);
    size_t which;

    if (go_literal(s, n->values, 0, n->n_values, c)) {
        /* Strings, lists, objects and words end by themselves. */
        uint8_t first = (uint8_t)n->values[s->pick].text[0];

        if (first != '-' && !(first >= '0' && first <= '9') &&
            literal_ends(s, n->values, 0, n->n_values, &which))
            return value_ends(s);
        return true;
    }
    return literal_ends(s, n->values, 0, n->n_values, &which) &&
           end_and_go(s, f, c);
}

static bool go_key(struct sl_json_state *s, const struct sl_json_form *f,
                   uint8_t c)
{
    const struct node *n = top_node(s, f);
    int16_t last = s->frame[s->depth - 1].last;
    size_t from = (size_t)(last + 1), to = keys_to(n, last), which;

    if (!go_literal(s, n->keys, from, to, c))
        return false;
    if (c != '"' || !literal_ends(s, n->keys, from, to, &which))
        return true;
    s->frame[s->depth - 1].last = (int16_t)which;
    s->frame[s->depth - 1].step = STEP_COLON;
    s->lex = LEX_NONE;
    s->blanks = 0;
    return true;
}

bool sl_json_state_push(struct sl_json_state *s, const struct sl_json_form *f,
                        uint8_t c)
{
    switch (s->lex) {
    case LEX_NONE:
        return go_none(s, f, c);
    case LEX_STRING:
        return go_string(s, c);
    case LEX_ESCAPE:
        return go_escape(s, c);
    case LEX_HEX:
        return go_hex(s, c);
    case LEX_LITERAL:
        return go_value_literal(s, f, c);
    case LEX_KEY:
        return go_key(s, f, c);
    case LEX_WORD:
        return go_word(s, c);
    default:
        return go_number(s, f, c);
    }
}

bool sl_json_state_may_end(const struct sl_json_state *s,
                           const struct sl_json_form *f)
{
    const struct node *n;
    size_t which;

    if (s->depth == 0)
        return true;
    if (s->depth > 1)
        return false;
    n = top_node(s, f);
    if (s->lex == LEX_LITERAL)
        return literal_ends(s, n->values, 0, n->n_values, &which);
    return s->lex >= LEX_MINUS && number_may_end(s->lex);
}
