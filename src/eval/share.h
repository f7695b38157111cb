/*
 * share.h - who asks which question: one process alone, or a crew
 *
 * All ranks of a crew (crew.h) have the same units in the same order. Rank 0
 * keeps the list of what is not answered, and hands out parts of it as ranks
 * ask for more, itself among them: parts get smaller towards the end, so that
 * all end together and a slow rank has had fewer. Answers go to rank 0 as they
 * come, in the journal's own lines, and are put where they would be if it had
 * asked alone. What a lost rank did not answer is handed out again.
 *
 *   rank 0                                  another
 *   keeps owner of every unit               "hello" who it is, what it has
 *     "units 12 20": 20 from the 12th on  <-  "take 64"
 *     puts it there, and in the journal   <-  {"task":0,"file":...} an answer
 *     "wait", then more units, or "over"
 *
 * A process alone has all units to itself.
 */
#ifndef SL_EVAL_SHARE_H
#define SL_EVAL_SHARE_H

#include "src/base/log.h"
#include "src/eval/crew.h"
#include "src/eval/journal.h"

struct sl_share_config {
    /* borrowed */
    struct sl_eval *ev;
    struct sl_journal *journal; /* or NULL; of rank 0 alone */
    struct sl_crew *crew;       /* or NULL: alone */
    const char *model;          /* what tells one model file from another */
    const char *kernels;        /* that scores may depend on */
    const struct sl_log *log;   /* or NULL */
    /* On rank 0: a unit is answered, here or elsewhere. Called by the thread
     * that calls the functions below. Errors end the run. */
    int (*answered)(void *opaque, struct sl_eval_task *t, struct sl_unit *u,
                    bool here, struct sl_error *err);
    void *opaque;
};

struct sl_share;

/* Units that are done stay so. Errors: SL_ERR_NOMEM; those of listening. */
int sl_share_open(struct sl_share **s, const struct sl_share_config *config,
                  struct sl_error *err);
/* The task of the next unit to ask here; NULL: all are answered. Waits as long
 * as others may leave some. Errors: SL_ERR_IO where rank 0 is lost;
 * SL_ERR_USAGE where its questions are others; those of the journal and of
 * `answered`. */
int sl_share_task(struct sl_share *s, struct sl_eval_task **t,
                  struct sl_error *err);
/* The next unit of that task, to be asked here; NULL: the next is of another
 * task, or there is none now. wait: until it is known which. Errors: as
 * above. */
int sl_share_take(struct sl_share *s, struct sl_unit **u,
                  const struct sl_eval_task *t, bool wait,
                  struct sl_error *err);
/* A unit was answered here. Errors: as above. */
int sl_share_answer(struct sl_share *s, struct sl_eval_task *t,
                    struct sl_unit *u, struct sl_error *err);
/* Tells the crew that this rank answers no more, and why; what it has not
 * answered goes to others. */
void sl_share_give_up(struct sl_share *s, const struct sl_error *why);
void sl_share_close(struct sl_share *s); /* leaves the crew; NULL is fine */

#endif
