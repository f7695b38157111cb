/*
 * open_vocab.h - the vocabulary of a model file, or of a publisher's folder
 */
#ifndef SL_OPEN_VOCAB_H
#define SL_OPEN_VOCAB_H

#include "src/model/modelfile.h"
#include "src/text/tokenizer.h"

/* Reads it out of an open model file. Errors: SL_ERR_UNSUPPORTED when there is
 * none inside; those of sl_tokenizer_create. */
int sl_open_vocab_of(struct sl_tokenizer **t, const struct sl_modelfile *mf,
                     struct sl_error *err);
/* path: a model file, a folder with a vocabulary, or a vocabulary's file. */
int sl_open_vocab(struct sl_tokenizer **t, const char *path,
                  struct sl_error *err);

/* Fails for a model file without one: why, and what to do. */
int sl_no_vocab(const struct sl_modelfile *mf, struct sl_error *err);

#endif
