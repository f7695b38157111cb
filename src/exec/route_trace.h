/*
 * route_trace.h - which experts a run chose, layer by layer, kept in a file
 *
 * For measuring which records a cache should keep (bench/replay.c). All
 * numbers are little-endian:
 *
 *    0  "SLROUTE1"
 *    8  u32 layers that have experts   12  u32 experts of each
 *   16  u32 that a position takes      20  u32 bytes of the largest record /
 * 512 24  steps, one for each layer of each pass: u16 layer, the first with
 * experts being 0 u16 positions of the pass, 65535 being so many or more u16 n
 * experts that are used n times  u16 expert, ascending;  u16 of how many
 * positions
 */
#ifndef SL_ROUTE_TRACE_H
#define SL_ROUTE_TRACE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "src/base/error.h"

struct sl_route_shape {
    uint32_t n_layers, n_experts, n_used;
    uint64_t record_bytes; /* whole sectors */
};

struct sl_route_trace;

/* The file appears when it is closed. Errors: SL_ERR_IO, SL_ERR_NOSPACE,
 * SL_ERR_NOMEM. */
int sl_route_trace_open(struct sl_route_trace **t, const char *path,
                        const struct sl_route_shape *shape,
                        struct sl_error *err);
/* A layer's choice for n positions: pairs of expert e are those from first[e]
 * to first[e + 1]; first: (n_experts + 1). NULL is fine. What cannot be
 * written is said when it is closed. */
void sl_route_trace_add(struct sl_route_trace *t, uint32_t layer, uint32_t n,
                        const uint32_t *first);
/* Errors: SL_ERR_IO, SL_ERR_NOSPACE; NULL is fine. */
int sl_route_trace_close(struct sl_route_trace *t, struct sl_error *err);
void sl_route_trace_drop(struct sl_route_trace *t); /* NULL is fine */
/* Bytes that one takes while it is written. */
uint64_t sl_route_trace_bytes(void);

/* Reading one. Errors: SL_ERR_IO; SL_ERR_CORRUPT for another kind of file. */
int sl_route_read_head(FILE *f, const char *path, struct sl_route_shape *shape,
                       struct sl_error *err);
struct sl_route_step {
    uint32_t layer, n_positions, n; /* n experts */
};
/* The next step; experts, uses: (n_experts) room. *end: there is none. Errors:
 * SL_ERR_CORRUPT for what the head rules out and for a file cut short. */
int sl_route_read_step(FILE *f, const char *path,
                       const struct sl_route_shape *shape,
                       struct sl_route_step *step, uint16_t *experts,
                       uint16_t *uses, bool *end, struct sl_error *err);

#endif
