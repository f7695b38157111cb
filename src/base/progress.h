/*
 * progress.h - how far a long job is, on standard error
 *
 * On a terminal: one line rewritten in place with a bar, bytes, rate and
 * time left. Elsewhere: a plain line now and then (every 10 % or 30 s, but none
 * within 3 s of the one before), so that a log file stays readable. One thread
 * at a time may call a given progress.
 */
#ifndef SL_BASE_PROGRESS_H
#define SL_BASE_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct sl_progress {
    const char *what; /* borrowed: "converting" */
    uint64_t total;   /* bytes */
    uint64_t done;
    uint64_t skipped; /* bytes that were already done before the start */
    uint64_t start_ns;
    uint64_t last_ns;
    unsigned last_tenth;
    bool terminal;
    bool quiet;
    bool drawn;
};

void sl_progress_init(struct sl_progress *p, const char *what, uint64_t total,
                      uint64_t skipped, bool quiet);
/* done: bytes finished so far, the skipped ones included. */
void sl_progress_update(struct sl_progress *p, uint64_t done);
/* Ends the line; on a terminal the bar is erased. */
void sl_progress_fini(struct sl_progress *p);

/* Columns of the terminal that standard error is, which may be resized at any
 * time; 80 where it is none. */
unsigned sl_progress_columns(void);
/* "4:05", "1:02:03", "--:--" where nobody knows (negative, or days). */
#define SL_ETA_TEXT 16
const char *sl_eta_format(char text[SL_ETA_TEXT], double seconds);

/* The terminal, if there is one, takes escape sequences: $TERM is not dumb. */
bool sl_progress_screen(void);

#endif
