/*
 * tokenizer_impl.h - what the two halves of the tokenizer share: tokenizer.cc
 * loads and encodes, detok.cc decodes
 */
#ifndef SL_TOKENIZER_IMPL_H
#define SL_TOKENIZER_IMPL_H

#include <new>
#include <string>

#include <sentencepiece_processor.h>

#include "src/text/tokenizer.h"

enum { SL_N_SPECIAL = 8, SL_N_BYTES = 256 };

struct sl_tokenizer {
    sentencepiece::SentencePieceProcessor sp;
    struct sl_text_params tp; /* special and n_tokens as the model has them */
    uint32_t n_pieces;        /* of the file */
};

/* Runs body, which returns 0 or -1 with err filled; exceptions end here. */
template <typename F> int sl_guarded(struct sl_error *err, F body)
{
    try {
        return body();
    } catch (const std::bad_alloc &) {
        return sl_fail(err, SL_ERR_NOMEM, "tokenizer: out of memory");
    } catch (const std::exception &e) {
        return sl_fail(err, SL_ERR_INTERNAL, "tokenizer: %s", e.what());
    } catch (...) {
        return sl_fail(err, SL_ERR_INTERNAL, "tokenizer: unknown exception");
    }
}

#endif
