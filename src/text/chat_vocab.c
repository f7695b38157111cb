#include "config.h"

#include <string.h>

#include "src/text/chat.h"

/* A tokenizer as a conversation's vocabulary. */

/* By its name, or by what it does in a vocabulary that calls it otherwise
 * (icetk's [sop]). */
static int32_t token(void *opaque, const char *name)
{
    const struct sl_chat_words *w = opaque;
    int32_t id = sl_tokenizer_find(w->tokenizer, name);
    const struct sl_special_ids *s = w->special;
    const struct {
        const char *name;
        int32_t id;
    } known[] = {
        {"[MASK]", s->mask}, {"[gMASK]", s->gmask}, {"[sMASK]", s->smask},
        {"<sop>", s->sop},   {"<eop>", s->eop},     {"</s>", s->eos},
    };

    for (size_t i = 0; id < 0 && i < sizeof known / sizeof *known; i++) {
        if (strcmp(known[i].name, name) == 0)
            id = known[i].id;
    }
    return id;
}

static int encode(void *opaque, struct sl_ids *ids, const char *text, size_t n,
                  struct sl_error *err)
{
    const struct sl_chat_words *w = opaque;

    return sl_tokenizer_encode(w->tokenizer, ids, text, n, err);
}

struct sl_chat_vocab sl_chat_vocab_of(struct sl_chat_words *words)
{
    return (struct sl_chat_vocab){token, encode, words};
}
