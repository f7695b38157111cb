/*
 * problems.h - many things wrong with one input, told in one go
 *
 * A checkpoint that lacks a layer lacks a dozen tensors. The first ten are
 * named, the rest counted. One problem alone is one error; of several each is
 * a line of the log, and the error says how many there are.
 */
#ifndef SL_BASE_PROBLEMS_H
#define SL_BASE_PROBLEMS_H

#include <stddef.h>

#include "src/base/error.h"
#include "src/base/log.h"

#define SL_PROBLEMS_NAMED 10u

struct sl_problems {
    const struct sl_log *log; /* borrowed; may be NULL */
    size_t n;                 /* begins as 0 */
    struct sl_error first;
};

/* Takes note of one; returns -1 when it is none that others may follow (no
 * memory, a disk that fails), which is then the error to give up with. */
int sl_problem(struct sl_problems *p, const struct sl_error *err);

/* 0 if there was none, else fills err with the one or with how many there
 * are: "WHAT: 12 problems, as listed; the first: ...". */
int sl_problems_end(const struct sl_problems *p, const char *what,
                    struct sl_error *err);

#endif
