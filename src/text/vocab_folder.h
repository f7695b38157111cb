/*
 * vocab_folder.h - a folder being compiled: what its files say
 *
 * vocab_compile.c takes the vocabulary itself, vocab_folder.c what stands
 * beside it.
 */
#ifndef SL_VOCAB_FOLDER_H
#define SL_VOCAB_FOLDER_H

#include <jansson.h>

#include "src/text/vocab_build.h"
#include "src/text/vocab_compile.h"

struct sl_vocab_folder {
    const struct sl_vocab_source *source;
    const struct sl_vocab_options *o;
    enum sl_vocab_family family;
    /* NULL where there is no such file */
    json_t *config, *tokenizer_config, *generation_config, *added, *special;
    const char *stops_from; /* file, or NULL */
};

/* Reads the files beside a vocabulary. Errors: SL_ERR_CORRUPT for one that is
 * no JSON object. */
int sl_vocab_folder_open(struct sl_vocab_folder *f,
                         const struct sl_vocab_source *source,
                         const struct sl_vocab_options *o,
                         struct sl_error *err);
void sl_vocab_folder_close(struct sl_vocab_folder *f);

/* "LlamaTokenizer", or "". */
const char *sl_vocab_folder_class(const struct sl_vocab_folder *f);
/* A whole number of config.json, or -1. */
int64_t sl_vocab_folder_number(const struct sl_vocab_folder *f,
                               const char *key);
/* added_tokens_decoder and added_tokens.json. */
int sl_vocab_folder_added(const struct sl_vocab_folder *f,
                          struct sl_vocab_builder *b, struct sl_error *err);
/* bos, eos, unk and pad by name, stops, and whether bos comes first. */
int sl_vocab_folder_ends(struct sl_vocab_folder *f, struct sl_vocab_builder *b,
                         struct sl_error *err);

#endif
