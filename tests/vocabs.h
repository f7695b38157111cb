/*
 * vocabs.h - vocabularies for tests, compiled from files of any name
 */
#ifndef SL_TESTS_VOCABS_H
#define SL_TESTS_VOCABS_H

#include "src/text/tokenizer.h"
#include "src/text/vocab_compile.h"
#include "tests/support.h"

/* A folder put together out of files from elsewhere, or of texts. */
struct test_file {
    const char *name; /* in the folder */
    const char *path; /* a file of ours; NULL: text */
    const char *text;
};

/* An sl_vocab_source over a list of them that ends with a NULL name. */
int test_files_read(void *files, const char *name, uint8_t **data, size_t *n,
                    struct sl_error *err);

/* Compiles and opens; fails the test when that does not work. */
struct sl_tokenizer *test_vocab_files(const struct test_file *files,
                                      const struct sl_vocab_options *o);
struct sl_tokenizer *test_vocab_dir(const char *dir,
                                    const struct sl_vocab_options *o);
struct sl_tokenizer *test_vocab_open(struct sl_vocab_made *made); /* consumed */

/* Encodes into ids, which are emptied first. */
void test_encode(struct sl_tokenizer *t, struct sl_ids *ids, const char *text,
                 size_t n, bool special);
/* Fails the test unless ids are those of the JSON array; text is shown. */
void test_same_ids(const struct sl_ids *ids, const json_t *want,
                   const char *text);

/* xorshift64*: a stream of numbers that is the same everywhere. */
uint64_t test_random(uint64_t *state);
/* A text of up to room bytes out of letters, blanks, digits, punctuation,
 * accents, Chinese, emoji, names of special tokens, and, if bytes, of what is
 * no UTF-8. Returns its size. */
size_t test_random_text(uint64_t *state, char *buf, size_t room, bool bytes);

#endif
