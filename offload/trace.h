/*
 * trace.h - what happened when, as a Chrome / Perfetto trace
 *
 * Events go to a bounded buffer and are written as JSON ("traceEvents") by
 * sl_trace_close; beyond the bound they are counted and dropped. Tracks
 * appear by name in the viewer. Spans may come from any thread. The format:
 * "Trace Event Format", the document of Chrome's about:tracing (catapult).
 */
#ifndef SL_OFFLOAD_TRACE_H
#define SL_OFFLOAD_TRACE_H

#include <stdint.h>

#include "src/base/error.h"

enum sl_track {
    SL_TRACK_READS,   /* disk reads: overlapping, so async events */
    SL_TRACK_WAITS,   /* compute waiting for the disk */
    SL_TRACK_STAGES,  /* stages being computed */
    SL_TRACK_COPIES,  /* copies to the GPU */
    SL_TRACK_KERNELS, /* stages being computed by the GPU */
    SL_TRACK_MIRROR,  /* reads of the second disk, as SL_TRACK_READS */
    SL_TRACK_GUESSES, /* stages of guesses while a pass waits */
    SL_TRACK_COUNT,
};

#define SL_TRACE_NAME 28u

struct sl_trace;

/* Opens path for writing at once, so that a bad path is found before the
 * run. Errors: SL_ERR_IO, SL_ERR_NOMEM. */
int sl_trace_open(struct sl_trace **trace, const char *path,
                  struct sl_error *err);
/* Begins the trace anew at a time, which may be another clock's than
 * sl_clock_ns: what has been noted is forgotten, and spans that begin before it
 * are left out. trace may be NULL. */
void sl_trace_start_at(struct sl_trace *trace, uint64_t start_ns);
/* A span [begin_ns, end_ns) of sl_clock_ns; bytes 0 when meaningless. Of name
 * the first SL_TRACE_NAME - 1 bytes are copied. trace may be NULL. */
void sl_trace_span(struct sl_trace *trace, enum sl_track track,
                   const char *name, uint64_t begin_ns, uint64_t end_ns,
                   uint64_t bytes);
/* Writes the file and frees, on failure too; NULL is fine.
 * Errors: SL_ERR_IO, SL_ERR_NOSPACE. */
int sl_trace_close(struct sl_trace *trace, struct sl_error *err);
/* Frees without writing: what is there of that name stays. NULL is fine. */
void sl_trace_drop(struct sl_trace *trace);
/* Memory a trace takes at most, taken as events come. */
uint64_t sl_trace_bytes(void);

#endif
