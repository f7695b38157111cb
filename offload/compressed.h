/*
 * compressed.h - a run of the file that is kept compressed
 *
 * The bytes [off, off + bytes) of the file are cut into chunks; what is kept
 * of them lies one after another from off on, each chunk LZ4 (src/base/lz.h)
 * or, where that is no smaller, as it is. What they leave free of the run is
 * a hole. So everything keeps its place in the file, as if nothing were
 * compressed, and only reading is different:
 *
 *   meant:  |chunk 0....|chunk 1....|chunk 2....|
 *   kept:   |0.....|1...|2.....|   (a hole)     |
 */
#ifndef SL_OFFLOAD_COMPRESSED_H
#define SL_OFFLOAD_COMPRESSED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/base/mem.h"

struct sl_compressed {
    uint64_t off, bytes;  /* multiples of a page */
    uint32_t chunk_bytes; /* multiple of a page */
    uint32_t planes;      /* 1, 2 or 4: see sl_lz_encode */
    uint64_t *at;         /* (n_chunks + 1) where each is kept, less off */
    size_t n_chunks;
};

/* Chunks of a run of so many bytes. */
static inline size_t sl_compressed_chunks(uint64_t bytes, uint32_t chunk_bytes)
{
    return (size_t)sl_div_up(bytes, chunk_bytes);
}

/* Bytes that chunk i stands for. */
static inline size_t sl_compressed_chunk_bytes(const struct sl_compressed *p,
                                               size_t i)
{
    uint64_t left = p->bytes - (uint64_t)i * p->chunk_bytes;

    return left < p->chunk_bytes ? (size_t)left : p->chunk_bytes;
}

/* Bytes that all chunks are kept in. */
static inline uint64_t sl_compressed_kept(const struct sl_compressed *p)
{
    return p->at[p->n_chunks];
}

/* Scratch memory of one thread for sl_compressed_decode. */
static inline size_t sl_compressed_scratch_bytes(const struct sl_compressed *p)
{
    return 2 * (size_t)p->chunk_bytes;
}

/* The part of chunk i that lies in [begin, end) of the file's bytes as they
 * are meant, to `to`, which stands for begin. kept: the chunk's bytes. False
 * when these are damaged. */
bool sl_compressed_decode(const struct sl_compressed *p, size_t i,
                          uint64_t begin, uint64_t end, uint8_t *to,
                          const uint8_t *kept, uint8_t *scratch);

#endif
