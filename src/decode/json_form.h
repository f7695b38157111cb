/*
 * json_form.h - JSON of a given form, byte by byte
 *
 * An automaton with a stack that says of every byte whether JSON of a schema
 * can go on with it. Which tokens may come next follows: those all of whose
 * bytes go (serve/form_rule.c).
 *
 * Of JSON Schema (json-schema.org, 2020-12) it knows type (one or a list),
 * properties, required, items, enum, const, and additionalProperties: false,
 * which always holds where there are properties; titles, descriptions,
 * defaults and examples change nothing. Any other keyword is refused by name:
 * a form that is only half kept is worse than none. Properties come in the
 * order of the schema, as in OpenAI's structured outputs. Blanks between
 * tokens are allowed, a few in a row.
 */
#ifndef SL_JSON_FORM_H
#define SL_JSON_FORM_H

#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

#include "src/base/error.h"

enum { SL_JSON_FORM_DEPTH = 32 };

struct sl_json_form;

/* schema NULL: any object. Errors: SL_ERR_USAGE naming the keyword or what is
 * wrong; SL_ERR_NOMEM. */
int sl_json_form_create(struct sl_json_form **form, const json_t *schema,
                        struct sl_error *err);
void sl_json_form_destroy(struct sl_json_form *form); /* NULL is fine */

/* Where a text stands; copied freely. */
struct sl_json_state {
    uint8_t depth; /* values that are open: frames in use */
    uint8_t lex;   /* enum of json_form.c: within what */
    uint8_t blanks;
    uint8_t utf8; /* bytes of a character that are to come */
    uint16_t at;  /* byte of a literal or key */
    int16_t pick; /* one of the literals or keys that it may be */
    struct {
        uint16_t node;
        int16_t last; /* property that came last, -1: none; of an array:
                       * LAST_OF_ARRAY */
        uint8_t step; /* enum of json_form.c */
    } frame[SL_JSON_FORM_DEPTH];
};

void sl_json_state_init(struct sl_json_state *s,
                        const struct sl_json_form *form);
/* Goes on by a byte; false, and s is of no more use, where that cannot be. */
bool sl_json_state_push(struct sl_json_state *s,
                        const struct sl_json_form *form, uint8_t byte);
/* May the text end here? Must it? */
bool sl_json_state_may_end(const struct sl_json_state *s,
                           const struct sl_json_form *form);
bool sl_json_state_is_over(const struct sl_json_state *s);

#endif
