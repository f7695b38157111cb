/*
 * tokens.h - the demo model's tokenizer, for the tests of what builds on it
 */
#ifndef SL_TESTS_TOKENS_H
#define SL_TESTS_TOKENS_H

#include "src/arch/hparams.h"
#include "src/text/tokenizer.h"
#include "tests/support.h"

/* The numbers of demo/config.json, ids and all. Free with
 * sl_tokenizer_destroy. */
struct sl_tokenizer *test_demo_tokenizer(struct sl_hparams *hp);

/* Pushes the ids through sl_detok in pieces of every size up to 5 and fails
 * the test unless whole characters come out that together are want. */
void test_stream_equals(struct sl_tokenizer *t, const int32_t *ids, size_t n,
                        const char *want, size_t n_want);

/* A JSON array of numbers. */
void test_json_ids(struct sl_ids *ids, json_t *array);

#endif
