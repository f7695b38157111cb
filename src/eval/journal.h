/*
 * journal.h - what was answered, kept as it comes
 *
 * One line of JSON for each unit, written when it is over, so that a run that
 * was killed goes on where it was (--resume). A line that was cut off is as if
 * it had never been. An entry counts for a unit of the same task, file and
 * number that asks the very same thing.
 *
 *   {"sluice":"0.1.0","model":"..."}
 *   {"task":0,"file":"a.jsonl","unit":3,"key":"91ab...","logp":[...],
 *    "top":"01"}
 */
#ifndef SL_EVAL_JOURNAL_H
#define SL_EVAL_JOURNAL_H

#include "src/eval/eval.h"

struct sl_journal;

enum sl_journal_mode {
    SL_JOURNAL_BEGIN,  /* a new one: answers that are there are an error */
    SL_JOURNAL_RESUME, /* go on with those that are there */
    SL_JOURNAL_ANEW,   /* throw them away */
};

/* Opens FOLDER/journal.jsonl. To resume, what is in it is put into ev (*n_found
 * units), but lines that are damaged. model: what tells one model file from
 * another. Nothing is thrown away yet. Errors: SL_ERR_IO; SL_ERR_USAGE for a
 * journal of another model, or for answers that are neither to be kept nor to
 * be thrown away; SL_ERR_CORRUPT for what is no journal; SL_ERR_NOMEM. */
int sl_journal_open(struct sl_journal **j, const char *folder,
                    const char *model, enum sl_journal_mode mode,
                    struct sl_eval *ev, size_t *n_found, struct sl_error *err);
/* Before the first answer is added, when nothing can be refused any more: what
 * is not resumed is thrown away. Errors: SL_ERR_IO, SL_ERR_NOMEM. */
int sl_journal_begin(struct sl_journal *j, const char *model,
                     struct sl_error *err);
int sl_journal_add(struct sl_journal *j, const struct sl_eval_task *t,
                   const struct sl_unit *u, struct sl_error *err);
/* A line that somebody else made, without its end. */
int sl_journal_write(struct sl_journal *j, const char *line, size_t n,
                     struct sl_error *err);
/* Puts what was written on the disk. */
int sl_journal_sync(struct sl_journal *j, struct sl_error *err);
void sl_journal_close(struct sl_journal *j); /* NULL is fine */

/* A unit's line, without its end, moved to the caller. Errors: SL_ERR_NOMEM. */
int sl_journal_line(char **line, const struct sl_eval *ev,
                    const struct sl_eval_task *t, const struct sl_unit *u,
                    struct sl_error *err);

/* A line that is about a unit of ev. */
struct sl_journal_entry {
    struct json_t *o; /* owned */
    struct sl_eval_task *task;
    struct sl_eval_file *file;
    struct sl_unit *unit;
};
/* False: it is no line, or there is no such unit, or that asks something else;
 * nothing is to be freed. */
bool sl_journal_entry_init(struct sl_journal_entry *e, struct sl_eval *ev,
                           const char *line, size_t n);
/* Puts the answer there; done is left as it is. False: it is no answer. */
bool sl_journal_entry_take(const struct sl_journal_entry *e);
void sl_journal_entry_fini(struct sl_journal_entry *e);

#endif
