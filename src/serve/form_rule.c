#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "src/base/mem.h"
#include "src/base/str.h"
#include "src/base/utf8.h"
#include "src/serve/form_rule.h"

struct sl_spellings {
    uint32_t n;
    struct sl_str bytes;
    uint32_t *at;        /* (n + 1) in bytes */
    uint32_t *order;     /* (n) ids by their first byte */
    uint32_t first[258]; /* where in order those with first byte b begin; at
                          * 256 those that are spelt with nothing */
};

/* What a token is within a text: behind another one. */
static int spell(struct sl_str *to, struct sl_tokenizer *t, int32_t before,
                 size_t n_before, int32_t id, struct sl_error *err)
{
    const int32_t ids[] = {before, id};
    char *text;
    size_t n;
    int rc;

    if (sl_tokenizer_decode_as(t, SL_SPECIALS_HIDDEN, ids, 2, &text, &n, err))
        return -1;
    /* U+FFFD stands for a part of a character. */
    rc = n > n_before && sl_utf8_valid(text + n_before, n - n_before) &&
                 strstr(text + n_before, "\xef\xbf\xbd") == NULL
             ? sl_str_append(to, text + n_before, n - n_before, err)
             : 0;
    free(text);
    return rc;
}

static int spell_all(struct sl_spellings *s, struct sl_tokenizer *t,
                     struct sl_error *err)
{
    uint32_t end = sl_tokenizer_n_tokens(t);
    struct sl_ids ids = {0};
    char *text = NULL;
    size_t n_before = 0;
    int rc = sl_tokenizer_encode(t, &ids, "a", 1, err);

    if (rc == 0 && ids.n == 0)
        rc = sl_fail(err, SL_ERR_UNSUPPORTED, "this vocabulary has no 'a'");
    if (rc == 0)
        rc = sl_tokenizer_decode_as(t, SL_SPECIALS_HIDDEN, &ids.v[ids.n - 1], 1,
                                    &text, &n_before, err);
    free(text);
    for (uint32_t i = 0; i < s->n && rc == 0; i++) {
        s->at[i] = (uint32_t)s->bytes.n;
        if (i < end && !sl_tokenizer_is_special(t, (int32_t)i))
            rc = spell(&s->bytes, t, ids.v[ids.n - 1], n_before, (int32_t)i,
                       err);
        s->at[i + 1] = (uint32_t)s->bytes.n;
    }
    sl_ids_fini(&ids);
    return rc;
}

static uint32_t bucket(const struct sl_spellings *s, uint32_t id)
{
    return s->at[id] == s->at[id + 1] ? 256 : (uint8_t)s->bytes.s[s->at[id]];
}

static void sort(struct sl_spellings *s)
{
    uint32_t next[258];

    for (uint32_t i = 0; i < s->n; i++)
        s->first[bucket(s, i) + 1]++;
    for (uint32_t b = 1; b < 258; b++)
        s->first[b] += s->first[b - 1];
    memcpy(next, s->first, sizeof next);
    for (uint32_t i = 0; i < s->n; i++)
        s->order[next[bucket(s, i)]++] = i;
}

int sl_spellings_create(struct sl_spellings **out, struct sl_tokenizer *t,
                        uint32_t vocab, struct sl_error *err)
{
    struct sl_spellings *s = calloc(1, sizeof *s);

    if (s == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "out of memory for a vocabulary");
    s->n = vocab;
    s->at = sl_zalloc_array((size_t)vocab + 1, sizeof *s->at);
    s->order = sl_zalloc_array(vocab, sizeof *s->order);
    if (s->at == NULL || s->order == NULL) {
        sl_spellings_destroy(s);
        return sl_fail(err, SL_ERR_NOMEM, "out of memory for a vocabulary");
    }
    if (spell_all(s, t, err) != 0) {
        sl_spellings_destroy(s);
        return -1;
    }
    sort(s);
    *out = s;
    return 0;
}

void sl_spellings_destroy(struct sl_spellings *s)
{
    if (s == NULL)
        return;
    sl_str_fini(&s->bytes);
    free(s->at);
    free(s->order);
    free(s);
}

/* --- the rule ---------------------------------------------------------------
 */

static bool goes(const struct sl_form_rule *r, struct sl_json_state *state,
                 uint32_t id, uint32_t from)
{
    const struct sl_spellings *s = r->spellings;

    for (uint32_t i = s->at[id] + from; i < s->at[id + 1]; i++) {
        if (!sl_json_state_push(state, r->form, (uint8_t)s->bytes.s[i]))
            return false;
    }
    return true;
}

static void limit(void *opaque, float *logits, uint32_t vocab)
{
    struct sl_form_rule *r = opaque;
    const struct sl_spellings *s = r->spellings;
    bool may_end = sl_json_state_may_end(&r->state, r->form);

    for (uint32_t b = 0; b < 257; b++) {
        struct sl_json_state behind = r->state;
        bool first = b == 256
                         ? may_end
                         : sl_json_state_push(&behind, r->form, (uint8_t)b);

        for (uint32_t i = s->first[b]; i < s->first[b + 1]; i++) {
            struct sl_json_state state = behind;

            if (!first || (b < 256 && !goes(r, &state, s->order[i], 1)))
                logits[s->order[i]] = SL_BANNED;
        }
    }
}

static int accept(void *opaque, int32_t id, struct sl_error *err)
{
    struct sl_form_rule *r = opaque;

    if (goes(r, &r->state, (uint32_t)id, 0))
        return 0;
    return sl_fail(err, SL_ERR_UNSUPPORTED,
                   "the model's vocabulary has no token that the form can go "
                   "on with");
}

static bool is_over(void *opaque)
{
    struct sl_form_rule *r = opaque;

    return sl_json_state_is_over(&r->state);
}

int sl_form_rule_create(struct sl_form_rule **out, const json_t *schema,
                        const struct sl_spellings *spellings,
                        struct sl_error *err)
{
    struct sl_form_rule *r = calloc(1, sizeof *r);

    if (r == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "out of memory for a form");
    if (sl_json_form_create(&r->form, schema, err) != 0) {
        free(r);
        return -1;
    }
    sl_json_state_init(&r->state, r->form);
    r->spellings = spellings;
    r->rule = (struct sl_rule){limit, accept, is_over, r};
    *out = r;
    return 0;
}

void sl_form_rule_destroy(struct sl_form_rule *r)
{
    if (r == NULL)
        return;
    sl_json_form_destroy(r->form);
    free(r);
}
