/*
 * ckpt_sums.h - checksums of runs of bytes that are read in any order
 *
 * A zip has a CRC-32 for each of its members. What is read of a member is
 * summed as it comes, in pieces that are joined where they meet; when all of
 * it was there, its sum is compared. Bytes that are read again count once.
 * Thread-safe, but for adding.
 */
#ifndef SL_CKPT_SUMS_H
#define SL_CKPT_SUMS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/base/error.h"

struct sl_sums;

/* file is for messages, borrowed. NULL without memory. */
struct sl_sums *sl_sums_create(const char *file);
void sl_sums_destroy(struct sl_sums *s); /* NULL is fine */

/* Bytes [off, off + bytes) of the file have this CRC-32. what names them in
 * messages: "tensor X". A run that is known already is fine; want 0 says that
 * nobody has summed it, which is counted. Errors: SL_ERR_CORRUPT (it overlaps
 * another), SL_ERR_NOMEM. */
int sl_sums_add(struct sl_sums *s, uint64_t off, uint64_t bytes, uint32_t want,
                const char *what, struct sl_error *err);
size_t sl_sums_absent(const struct sl_sums *s);

/* A piece that was read. */
struct sl_sums_piece {
    uint64_t off, bytes;
    uint32_t crc;
};
/* The run that byte off lies in, with the CRC-32 that it should have; false:
 * none. */
bool sl_sums_find(const struct sl_sums *s, uint64_t off,
                  struct sl_sums_piece *run);

/* Bytes [off, off + n) of the file were read. Errors: SL_ERR_CORRUPT where a
 * run is complete and its sum is another; SL_ERR_NOMEM. */
int sl_sums_take(struct sl_sums *s, const void *data, uint64_t off, size_t n,
                 struct sl_error *err);

/* All pieces of runs that are not complete; *pieces is owned (free). Errors:
 * SL_ERR_NOMEM. */
int sl_sums_pieces(struct sl_sums *s, struct sl_sums_piece **pieces, size_t *n,
                   struct sl_error *err);
/* Takes a piece that an earlier run read. What fits no run is left out. Errors:
 * as sl_sums_take. */
int sl_sums_put(struct sl_sums *s, const struct sl_sums_piece *piece,
                struct sl_error *err);
/* The first bytes that are missing of a run that was begun; false: none. */
bool sl_sums_gap(struct sl_sums *s, uint64_t *off, uint64_t *bytes);

#endif
