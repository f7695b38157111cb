/*
 * gather.h - many small pieces of the model file at once
 *
 *   want, want, ... - run - get, get, ...
 *
 * Rows of an embedding lie anywhere in a table that no pass streams. One after
 * another they cost a disk's latency each, in flight together little more than
 * one of them. What could not be read is simply not there: the caller reads it
 * alone then, and finds out why. One thread wants and runs; any thread gets.
 */
#ifndef SL_GATHER_H
#define SL_GATHER_H

#include <stdbool.h>
#include <stdint.h>

#include "offload/io.h"
#include "src/base/mem.h"

struct sl_gather_piece {
    uint8_t *at;    /* its place, whole pages */
    uint64_t off;   /* of the pages that are read */
    uint32_t bytes; /* likewise; 0: nothing is wanted */
    uint32_t skip;  /* from there to what was wanted */
    bool there;
};

struct sl_gather {
    struct sl_io *io; /* NULL: none, nothing is ever there */
    /* borrowed, (n) with places of piece_bytes each */
    struct sl_gather_piece *pieces;
    uint32_t n;
};

/* Room for pieces of so many bytes anywhere in the file: whole pages. */
uint64_t sl_gather_place_bytes(uint64_t bytes);
/* Counts, or takes, the memory for n pieces; what the reader takes beside it
 * is sl_io_overhead_bytes. */
void sl_gather_carve(struct sl_gather *g, struct sl_carver *c, uint32_t n,
                     uint64_t piece_bytes);
/* A file that cannot be opened this way is no error: it is read otherwise. Of
 * path and its mirror (NULL: none). */
void sl_gather_open(struct sl_gather *g, const char *path,
                    struct sl_mirror *mirror, enum sl_io_kind kind);
void sl_gather_close(struct sl_gather *g);

/* Piece i is to be bytes at off of the file; 0 bytes: nothing. */
void sl_gather_want(struct sl_gather *g, uint32_t i, uint64_t off,
                    uint64_t bytes);
/* Reads the first n pieces. */
void sl_gather_run(struct sl_gather *g, uint32_t n);
/* Piece i, until it is wanted anew; NULL: it is not there. */
const uint8_t *sl_gather_get(const struct sl_gather *g, uint32_t i);

#endif
