#include "config.h"

#include <stddef.h>
#include <string.h>

#include "src/arch/text_params.h"

static const char *const whitespace_names[] = {
    [SL_WHITESPACE_TOKENS] = "tokens",
    [SL_WHITESPACE_COLLAPSE] = "collapse",
};

const char *sl_whitespace_name(enum sl_whitespace whitespace)
{
    return whitespace_names[whitespace];
}

bool sl_whitespace_find(enum sl_whitespace *whitespace, const char *name)
{
    for (size_t i = 0; i < sizeof whitespace_names / sizeof *whitespace_names;
         i++) {
        if (strcmp(whitespace_names[i], name) == 0) {
            *whitespace = (enum sl_whitespace)i;
            return true;
        }
    }
    return false;
}

static int check_count(const char *what, uint32_t v, uint32_t vocab,
                       struct sl_error *err)
{
    if (v <= vocab)
        return 0;
    return sl_fail(err, SL_ERR_CORRUPT, "%s is %u; %u to %u are possible", what,
                   v, 0u, vocab);
}

/* -1 is an id that the vocabulary does not have. */
static int check_special(const struct sl_special_ids *s, uint32_t vocab,
                         struct sl_error *err)
{
    const struct {
        const char *name;
        int32_t id;
    } ids[] = {
        {"[MASK]", s->mask}, {"[gMASK]", s->gmask}, {"[sMASK]", s->smask},
        {"eod", s->eod},     {"sop", s->sop},       {"eop", s->eop},
        {"ENC", s->enc},     {"dBLOCK", s->dblock}, {"</s>", s->eos},
        {"<unk>", s->unk},
    };

    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
        if (ids[i].id < -1 || ids[i].id >= (int32_t)vocab)
            return sl_fail(err, SL_ERR_CORRUPT,
                           "the id of %s is %d; the vocabulary has %u",
                           ids[i].name, ids[i].id, vocab);
    }
    return 0;
}

int sl_text_params_check(const struct sl_text_params *tp, uint32_t vocab,
                         struct sl_error *err)
{
    if (check_count("number of image tokens", tp->n_image_tokens, vocab, err) ||
        check_count("longest run of blanks", tp->max_blank, vocab, err) ||
        check_count("number of tokens", tp->n_tokens, vocab, err))
        return -1;
    return check_special(&tp->special, vocab, err);
}
