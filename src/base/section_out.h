/*
 * section_out.h - bytes of a model file's sections to the disk
 *
 * One section at a time, front to back, in large writes past the page cache,
 * with the checksum that its place in the header takes. Several of these may
 * write different sections of one file at the same time.
 */
#ifndef SL_SECTION_OUT_H
#define SL_SECTION_OUT_H

#include <stddef.h>
#include <stdint.h>

#include "src/base/error.h"

struct sl_out;

/* Opens a file that exists. Borrows path until close. Errors: SL_ERR_IO,
 * SL_ERR_NOMEM. */
int sl_out_open(struct sl_out **out, const char *path, struct sl_error *err);
void sl_out_close(struct sl_out *out); /* NULL is fine */
uint64_t sl_out_memory(void);          /* what one takes, page cache included */

/* A section begins at off, a multiple of a page. */
void sl_out_begin(struct sl_out *out, uint64_t off);
/* Errors of this and what follows: SL_ERR_IO, SL_ERR_NOSPACE, naming file and
 * offset. */
int sl_out_append(struct sl_out *out, const void *data, size_t n,
                  struct sl_error *err);
/* Zeros up to file offset off. */
int sl_out_pad(struct sl_out *out, uint64_t off, struct sl_error *err);
/* Leaves the bytes up to off, a multiple of a page, to a hole, which reads as
 * zeros; zeros are written where there are no holes. */
int sl_out_skip(struct sl_out *out, uint64_t off, struct sl_error *err);
/* Pads to end, a multiple of a page; *xxh3 is the sum from begin to end. */
int sl_out_end(struct sl_out *out, uint64_t end, uint64_t *xxh3,
               struct sl_error *err);
int sl_out_sync(struct sl_out *out, struct sl_error *err);

#endif
