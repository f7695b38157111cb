/*
 * ckpt_src.h - a run of bytes: a file, several files end to end, or a part
 *
 * What lets a zip inside a tar inside sixty pieces be read in place. Reads
 * leave no page cache behind (what was read is dropped). Thread-safe.
 */
#ifndef SL_CKPT_SRC_H
#define SL_CKPT_SRC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/base/error.h"

struct sl_sums;
struct stat;
struct sl_src;

/* Files end to end, in the order given. Errors: SL_ERR_IO. */
int sl_src_open(struct sl_src **src, const char *const *paths, size_t n_paths,
                struct sl_error *err);
/* Memory, borrowed until close (tests, fuzzers). */
int sl_src_open_memory(struct sl_src **src, const void *data, size_t n,
                       const char *name, struct sl_error *err);
/* Part of another source, which must outlive it. name is for messages. */
int sl_src_slice(struct sl_src **src, struct sl_src *parent, uint64_t off,
                 uint64_t bytes, const char *name, struct sl_error *err);
void sl_src_close(struct sl_src *src);

uint64_t sl_src_bytes(const struct sl_src *src);
const char *sl_src_name(const struct sl_src *src);

struct sl_src_place {
    const char *file; /* borrowed from the source */
    uint64_t off;
    uint64_t bytes; /* of the file */
};

/* The file that holds byte off of the source and the place in that file, for
 * messages; memory counts as one file. off may be the source's end. */
struct sl_src_place sl_src_where(const struct sl_src *src, uint64_t off);

/* The files a source is made of, in order, each with the offset in the source
 * at which it begins. Memory and slices have none. */
size_t sl_src_n_parts(const struct sl_src *src);
struct sl_src_place sl_src_part(const struct sl_src *src, size_t i);

/* Is it (one of) the source's own files that st is of? */
bool sl_src_is(const struct sl_src *src, const struct stat *st);

/* What is read of the source, through slices too, is held against these sums,
 * which are moved; NULL: against none any more. No thread may read meanwhile.
 */
void sl_src_set_sums(struct sl_src *src, struct sl_sums *sums);
struct sl_sums *sl_src_sums(const struct sl_src *src); /* or NULL */
/* Reads what is missing of all that was begun, so that it is compared. Errors:
 * as sl_src_read. */
int sl_src_read_gaps(struct sl_src *src, struct sl_error *err);

/* All n bytes or an error: SL_ERR_IO (also for a file that has become shorter
 * since it was opened), or SL_ERR_CORRUPT when the source ends before
 * off + n, or its bytes are others than were written; all name file, offset and
 * sizes. */
int sl_src_read(struct sl_src *src, void *buf, uint64_t off, size_t n,
                struct sl_error *err);

#endif
