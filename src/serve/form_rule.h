/*
 * form_rule.h - answers that are JSON of a given form
 *
 * A table of what every token is spelt, made once for a vocabulary, sorted by
 * first bytes; and a rule (gen.h) that bans, before each choice, the tokens
 * with a byte that the form (decode/json_form.h) does not go on with. Tokens
 * that are only a part of a character are never chosen.
 */
#ifndef SL_FORM_RULE_H
#define SL_FORM_RULE_H

#include "src/decode/json_form.h"
#include "src/serve/gen.h"
#include "src/text/tokenizer.h"

struct sl_spellings;

/* Errors: SL_ERR_NOMEM, the tokenizer's. */
int sl_spellings_create(struct sl_spellings **s, struct sl_tokenizer *t,
                        uint32_t vocab, struct sl_error *err);
void sl_spellings_destroy(struct sl_spellings *s); /* NULL is fine */

struct sl_form_rule {
    struct sl_rule rule; /* for the gen; opaque is this */
    struct sl_json_form *form;
    struct sl_json_state state;
    const struct sl_spellings *spellings; /* borrowed */
};

/* schema NULL: any object. Errors: as sl_json_form_create. */
int sl_form_rule_create(struct sl_form_rule **r, const json_t *schema,
                        const struct sl_spellings *spellings,
                        struct sl_error *err);
void sl_form_rule_destroy(struct sl_form_rule *r); /* NULL is fine */

#endif
