/*
 * vocab_sp.h - what the two kinds over the sentencepiece library share
 *
 * vocab_sp.cc loads and encodes, vocab_sp_run.cc decodes. icetk's kind appends
 * pieces of its own to the model and has its own whitespace; the other is the
 * library as it is.
 */
#ifndef SL_VOCAB_SP_H
#define SL_VOCAB_SP_H

#include <new>
#include <string>

#include <sentencepiece_processor.h>

#include "src/text/tokenizer_impl.h"

enum { SL_N_SPECIAL = 8, SL_N_BYTES = 256 };

struct sl_sp {
    sentencepiece::SentencePieceProcessor sp;
    int32_t offset;     /* id = the library's id + offset */
    uint32_t max_blank; /* 0: no whitespace marks */
    bool marks;         /* <n>, <|tab|> and <|blank_N|> stand for whitespace */
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

int sl_sp_run_create(void **run, struct sl_tokenizer *t, struct sl_error *err);
void sl_sp_run_destroy(void *run);
int sl_sp_run_push(void *run, const int32_t *ids, size_t n, struct sl_str *out,
                   struct sl_error *err);
int sl_sp_run_end(void *run, bool last, struct sl_str *out,
                  struct sl_error *err);

#endif
