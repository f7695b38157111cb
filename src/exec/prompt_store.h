/*
 * prompt_store.h - a folder of prompt files (prompt_file.h)
 *
 * Each is called by the checksum of what its values depend on, 16 digits and
 * ".prompt". All together have no more bytes than was said: who was of no use
 * for longest goes, by the time of the file. Nothing else in the folder is
 * touched.
 */
#ifndef SL_PROMPT_STORE_H
#define SL_PROMPT_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/base/error.h"

/* Ids of a prompt that are kept in a file of their own; passes that read one
 * end with them. */
#define SL_PROMPT_PART 512u

struct sl_prompt_store {
    const char *dir; /* borrowed */
    uint64_t most_bytes;
    uint32_t rows; /* prompts that a pass may take from it */
};

/* Bytes of a path, its end included. */
size_t sl_prompt_store_path_bytes(const struct sl_prompt_store *s);
void sl_prompt_store_path(char *path, const struct sl_prompt_store *s,
                          uint64_t sum);
/* Makes the folder, for its owner alone, where there is none, and throws away
 * what a program that was killed had begun. Errors: SL_ERR_IO. */
int sl_prompt_store_open(const struct sl_prompt_store *s, struct sl_error *err);
/* The file was of use now. */
void sl_prompt_store_touch(const char *path);
/* Throws files away until the others fit. Errors: SL_ERR_IO. */
int sl_prompt_store_trim(const struct sl_prompt_store *s, struct sl_error *err);

#endif
