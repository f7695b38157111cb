/*
 * waiting.h - something moves while a person waits
 *
 * After a second of silence a line says what is being read and how far it is,
 * how fast and how long it will be: the weights of a first pass, a prompt, the
 * pass of the next token, queries that are done. It goes when text comes. On a
 * terminal it stands where the cursor is, or on the line below while a text is
 * open above; on one that is dumb, lines come every half minute; as JSON, a
 * line each second. A thread of its own draws.
 *
 *   create - begin "..." - watch RUN - aside, wrote ... - end - destroy
 *
 * All functions but create take NULL, which create makes where nobody looks.
 */
#ifndef SL_CMD_WAITING_H
#define SL_CMD_WAITING_H

#include <stddef.h>

#include "src/base/error.h"
#include "src/base/log.h"
#include "src/cmd/opts.h"
#include "src/runtime/runtime.h"

enum sl_progress_kind { SL_PROGRESS_AUTO, SL_PROGRESS_JSON, SL_PROGRESS_OFF };

enum { SL_OPT_PROGRESS = 0x2a0 };

/* The row of a command's table of options, in a group. */
#define SL_PROGRESS_ROW(group)                                                 \
    {                                                                          \
        "progress", SL_OPT_PROGRESS, "KIND", 0,                                \
            "auto, json or off: how far a silent run is: a line on a "         \
            "terminal (default), a JSON object a second on standard error, "   \
            "or nothing",                                                      \
            group                                                              \
    }

/* Takes that option; false: it is another. */
bool sl_opt_progress(enum sl_progress_kind *kind, int key, const char *arg,
                     struct argp_state *state);

struct sl_waiting;

/* quiet: auto is off. No signal goes to the thread. Errors: SL_ERR_NOMEM,
 * SL_ERR_IO. */
int sl_waiting_create(struct sl_waiting **w, enum sl_progress_kind kind,
                      bool quiet, struct sl_error *err);
void sl_waiting_destroy(struct sl_waiting *w);

/* The run whose passes count from now on, started; until NULL, which must come
 * before it ends. */
void sl_waiting_watch(struct sl_waiting *w, struct sl_runtime *rt);

/* Somebody waits for this (a word that stays: "opening the model"), for at most
 * so many passes behind the first; 0: nobody knows. */
void sl_waiting_begin(struct sl_waiting *w, const char *what,
                      uint32_t most_passes);
void sl_waiting_end(struct sl_waiting *w);
/* So many of all are done; unit: "queries". */
void sl_waiting_count(struct sl_waiting *w, const char *unit, uint64_t done,
                      uint64_t total);

/* Standard error is about to be written. */
void sl_waiting_aside(struct sl_waiting *w);
/* This text is about to go to standard output. */
void sl_waiting_text(struct sl_waiting *w, const char *text, size_t n);

/* A struct sl_log's write that goes aside first; opaque: a struct sl_waiting *
 * to be had at any time. */
void sl_waiting_log(void *opaque, enum sl_log_level level, const char *line);

#endif
