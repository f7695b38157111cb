#include "config.h"

#include <string.h>

#include "src/text/vocab_kind.h"

static const struct sl_vocab_kind *const kinds[] = {
    &sl_vocab_icetk,    &sl_vocab_sentencepiece, &sl_vocab_byte_bpe,
    &sl_vocab_char_bpe, &sl_vocab_wordpiece,
};

const struct sl_vocab_kind *sl_vocab_kind_at(size_t n)
{
    return n < sizeof kinds / sizeof *kinds ? kinds[n] : NULL;
}

const struct sl_vocab_kind *sl_vocab_kind_find(const char *name)
{
    for (size_t i = 0; sl_vocab_kind_at(i) != NULL; i++) {
        if (strcmp(kinds[i]->name, name) == 0)
            return kinds[i];
    }
    return NULL;
}

const struct sl_vocab_kind *sl_vocab_kind_of(uint32_t code)
{
    for (size_t i = 0; sl_vocab_kind_at(i) != NULL; i++) {
        if (kinds[i]->code == code)
            return kinds[i];
    }
    return NULL;
}
