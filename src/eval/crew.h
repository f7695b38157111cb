/*
 * crew.h - processes that evaluate together, on one machine or many
 *
 * Ranks from 0 to n - 1, each a process with its own model, budgets and
 * threads, that send each other lines of text. What these say is the business
 * of share.h; how they travel is that of whoever made the crew: MPI
 * (crew_mpi.c, all that knows of it, in a file that crew_file.c opens), or a
 * test.
 *
 *   open      before anything else: which rank this is, its part of the host
 *   listen    from then on lines are heard, and ranks missed
 *   say       a line to another rank
 *   leave     all of them, together
 */
#ifndef SL_EVAL_CREW_H
#define SL_EVAL_CREW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/base/error.h"

struct sl_crew;

/* Called from a thread of the crew's, one at a time. */
struct sl_crew_ears {
    void (*heard)(void *opaque, unsigned from, const char *text, size_t n);
    void (*lost)(void *opaque, unsigned rank); /* once: it will not be back */
    void *opaque;
};

struct sl_crew_ops {
    /* Errors: SL_ERR_NOMEM, SL_ERR_IO. */
    int (*listen)(struct sl_crew *c, const struct sl_crew_ears *ears,
                  struct sl_error *err);
    /* Copies the line and returns at once; to a lost rank it says nothing.
     * From any thread, ears included. Errors: SL_ERR_NOMEM. */
    int (*say)(struct sl_crew *c, unsigned to, const char *text, size_t n,
               struct sl_error *err);
    /* Rank 0 ends the crew; others wait until it does, or is lost. Nothing is
     * heard after it. */
    void (*leave)(struct sl_crew *c);
};

struct sl_crew { /* what made it knows more of it */
    const struct sl_crew_ops *ops;
    unsigned rank, n;
    unsigned place, n_places; /* among the ranks of this host */
    uint64_t ram_bytes;       /* its part of what is free there; 0: unknown */
};

/* The crew that MPI has started this process in; NULL: it is alone, also where
 * the program was built without MPI. share_cores: takes its part of the cores,
 * if the launcher gave all ranks of the host the same ones; to be called
 * before there are threads. Errors: SL_ERR_IO; those of opening the file with
 * the code for MPI. */
int sl_crew_open(struct sl_crew **crew, bool share_cores, struct sl_error *err);
/* Leaves, if it listens, and frees. NULL is fine. */
void sl_crew_close(struct sl_crew *crew);

#endif
