/*
 * vocab_gguf.h - the vocabulary that a published GGUF file carries
 *
 * tokenizer.ggml.* of its metadata (ggml-org/ggml docs/gguf.md,
 * ggml-org/llama.cpp src/llama-vocab.cpp): a sentencepiece model as pieces
 * with scores, or byte-level BPE with its merges and the name of a
 * pre-tokenizer.
 */
#ifndef SL_VOCAB_GGUF_H
#define SL_VOCAB_GGUF_H

#include "src/model/gguf.h"
#include "src/text/vocab_compile.h"

/* 0; 1 when the file has no vocabulary; -1. rows: of the embedding, as in
 * struct sl_vocab_options. Errors: SL_ERR_CORRUPT naming the key,
 * SL_ERR_UNSUPPORTED naming a kind of vocabulary or pre-tokenizer that is not
 * known: the model's logits can be had all the same. */
int sl_vocab_compile_gguf(struct sl_vocab_made *made, const struct sl_gguf *g,
                          uint32_t rows, struct sl_error *err);

#endif
