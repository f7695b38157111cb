/*
 * decompress.h - compressed slabs, made what they stand for
 *
 * A compressed slab is read into its place as it is kept; get has all threads
 * decompress it into one buffer, where it stays until put. What is resident
 * is put back into its place decompressed, once.
 */
#ifndef SL_OFFLOAD_DECOMPRESS_H
#define SL_OFFLOAD_DECOMPRESS_H

#include "offload/slab.h"
#include "src/base/error.h"
#include "src/base/pool.h"

struct sl_decompress;

/* Bytes that one takes for these slabs; 0 where none is compressed. */
uint64_t sl_decompress_bytes(const struct sl_slab *slabs, size_t n_slabs,
                             unsigned n_threads);
/* *u is NULL where none is compressed. Borrows the pool. Errors:
 * SL_ERR_NOMEM. */
int sl_decompress_create(struct sl_decompress **u, const struct sl_slab *slabs,
                         size_t n_slabs, struct sl_pool *pool,
                         struct sl_error *err);
void sl_decompress_destroy(struct sl_decompress *u); /* NULL is fine */

/* *to: the slab as it is meant, until the next call. Errors: SL_ERR_CORRUPT
 * with the chunk's place in the file. */
int sl_decompress_run(struct sl_decompress *u, const struct sl_slab *slab,
                      const uint8_t *kept, uint8_t **to, struct sl_error *err);

#endif
