/*
 * generate.h - what the files of 'sluice generate' share
 *
 *   cmd_generate.c      options, start and end
 *   generate_run.c      the run: opening, planning, closing
 *   generate_modes.c    -p, interactive, file
 *   generate_file.c     the lines of a file, alone or together
 *   generate_query.c    queries: fill their blanks, print and keep answers
 *   generate_keep.c     answers as files, and those of earlier runs
 *   generate_json.c     ... as JSON
 *   generate_stop.c     texts that end them
 *   generate_show.c     ids to the text on the terminal
 *   generate_drafts.c   what came of guesses
 *   generate_stats.c    what the plan is, what the run did
 */
#ifndef SL_GENERATE_H
#define SL_GENERATE_H

#include <stdatomic.h>
#include <stdio.h>

#include <jansson.h>

#include "src/base/paths.h"
#include "src/cmd/interrupt.h"
#include "src/cmd/opts_draft.h"
#include "src/cmd/opts_launcher.h"
#include "src/cmd/opts_run.h"
#include "src/cmd/opts_sampling.h"
#include "src/cmd/opts_text.h"
#include "src/cmd/waiting.h"
#include "src/decode/fill.h"
#include "src/runtime/runtime.h"

struct sl_generate_options {
    struct sl_runtime_config run;
    struct sl_fill_config fill;
    char *prompt;             /* -p; NULL: interactive or file */
    const char *input_source; /* "interactive" or a file */
    const char *output_path;  /* NULL: keep no files */
    struct sl_sampling_options sampling;
    struct sl_text_options text;
    struct sl_launcher launcher;
    bool length_given; /* the total; else -n alone limits */
    uint32_t batch;    /* lines of a file filled together */
    struct sl_draft_options draft;
    enum sl_progress_kind progress;
    bool with_id, print_all_beams, json, stats;
    bool force;  /* replace answers of an earlier run */
    bool resume; /* leave them, and do not ask again */
};

struct sl_generate {
    const struct sl_generate_options *o;
    struct sl_runtime *rt;
    struct sl_tokenizer *tokenizer;
    /* of a causal model: what stands before a text, and what ends an answer;
     * NULL: nothing */
    const struct sl_ids *prefix, *stops;
    const struct sl_hparams *hp;
    struct sl_interrupt *interrupt;
    struct sl_waiting *waiting;
    struct sl_drafts drafts;
    struct sl_draft_file draft_file;
    struct sl_rng rng;        /* of the next query */
    struct sl_keeper *keeper; /* of answers, where they are kept */
    bool color;               /* standard output is a terminal that wants it */
    bool started;             /* the runtime is */
    bool rates_kept;          /* the machine's were found: */
    struct sl_rates rates;    /* by 'sluice probe' */
    atomic_bool line_open;    /* what is shown has begun a line, not ended */
    uint64_t first_token_ns;  /* of the first query, from its beginning */
    uint64_t n_generated;     /* tokens of all queries */
};

/* A query as a mode found it. */
struct sl_query {
    const char *id; /* NULL: none */
    char *text;
    size_t n_text;
    int64_t line; /* of the input file, from 0; -1: not from a file */
};

/* -- generate_run.c -- */

/* Opens the model file and what watches the run. Errors: as sl_runtime_open. */
int sl_generate_open(struct sl_generate *g, struct sl_error *err);
/* Gives all of it back. */
void sl_generate_close(struct sl_generate *g);
/* A struct sl_log's write, opaque being the run: a notice begins a line of its
 * own, even where the text that is being shown has left one open on the
 * terminal. From any thread. */
void sl_generate_log(void *opaque, enum sl_log_level level, const char *line);
/* Plans, takes the memory, starts to read. */
int sl_generate_start(struct sl_generate *g, const struct sl_workload *load,
                      struct sl_error *err);

/* -- generate_modes.c: each returns an exit code -- */
int sl_generate_prompt(struct sl_generate *g);
int sl_generate_interactive(struct sl_generate *g);
int sl_generate_file(struct sl_generate *g);

/* Reports what is wrong with one query. */
void sl_generate_report(const struct sl_generate *g, const struct sl_query *q,
                        struct sl_error *err);

/* -- generate_file.c -- */

/* All lines of a file. *n_bad counts those that were wrong. */
int sl_generate_lines(struct sl_generate *g, char *text, size_t n,
                      size_t *n_bad, bool *interrupted, struct sl_error *err);

/* -- generate_query.c -- */

/* Ends a text where one of --stop's comes, however its ids part that. */
struct sl_stop_watch {
    struct sl_fill_sink sink, reader; /* reader: what hears of them behind it */
    struct sl_rules rules;            /* told that it is enough */
    struct sl_detok *detok;           /* NULL: nobody watches */
    struct sl_stopper stopper;
    struct sl_str before;
};

/* Watches a text (borrowed, as w is by it) if --stop was said and one answer is
 * drawn; several and beams are cut when they are shown. Errors: SL_ERR_NOMEM.
 */
int sl_stop_watch_init(struct sl_stop_watch *w, struct sl_generate *g,
                       struct sl_fill_text *text, struct sl_error *err);
/* reader (borrowed, or NULL) hears of the text from now on. */
void sl_stop_watch_read(struct sl_stop_watch *w, struct sl_fill_text *text,
                        const struct sl_fill_sink *reader);
void sl_stop_watch_fini(struct sl_stop_watch *w); /* zeroed is fine */

/* A query on its way. */
struct sl_work {
    const struct sl_query *q;
    struct sl_prompt prompt;
    struct sl_fill_config fill; /* its own: as long as it may be */
    struct sl_stop_watch watch;
    struct sl_rng rng;
    struct sl_run_stats before, after;
    struct sl_gate_counts guessed_before, guessed_after;
    uint64_t start_ns, end_ns;
};

/* Bytes beyond which a text is refused unread: no text has so many a token.
 * Tokenizing takes some hundred times its text, which no budget counts. */
size_t sl_generate_most_bytes(const struct sl_generate *g);

/* Queries that are filled together. */
struct sl_group {
    struct sl_generate *g;
    struct sl_work *works;      /* (room), owned */
    struct sl_fill_text *texts; /* (room), owned; text i belongs to work i */
    size_t n, room;
};

int sl_group_init(struct sl_group *group, struct sl_generate *g, size_t room,
                  struct sl_error *err);
/* Adds a query (borrowed) that draws from rng. Errors: SL_ERR_USAGE for what
 * is wrong with this query alone; after others nothing more can be done. */
int sl_group_add(struct sl_group *group, const struct sl_query *q,
                 const struct sl_rng *rng, struct sl_error *err);
/* Fills all of them, printing nothing. Errors: as sl_fill_all. */
int sl_group_fill(struct sl_group *group, struct sl_error *err);
/* Prints and keeps the answers of a work; one that is alone and not yet
 * filled is filled now, and its text shown on the way. *interrupted: what
 * there was on request. Errors: SL_ERR_USAGE for what was wrong with this
 * query alone. */
int sl_group_show(struct sl_group *group, size_t i, bool *interrupted,
                  struct sl_error *err);
/* For whoever fills it otherwise: its times begin; the i-th text has ended. */
void sl_group_begin(struct sl_group *group);
void sl_group_ended(struct sl_group *group, size_t i);
void sl_group_clear(struct sl_group *group); /* makes it empty */
void sl_group_fini(struct sl_group *group);  /* a zeroed one is fine */

/* Adds the query to what the runtime will be planned for, beside those that
 * load has. Errors: as sl_group_add. */
int sl_generate_measure(struct sl_generate *g, const struct sl_query *q,
                        struct sl_workload *load, struct sl_error *err);

/* -- generate_keep.c -- */

/* All files of a run. */
void sl_generate_paths(struct sl_paths *p, const struct sl_generate_options *o);

struct sl_keeper;
/* Reads, with --resume, what the folder has. Errors: SL_ERR_IO, SL_ERR_NOMEM.
 */
int sl_keeper_create(struct sl_keeper **k, struct sl_generate *g,
                     struct sl_error *err);
void sl_keeper_destroy(struct sl_keeper *k); /* NULL is fine */
/* The query's answer is there, whole, and --resume was said. Asked once a
 * query. */
bool sl_keeper_has(struct sl_keeper *k, const struct sl_query *q);
/* Keeps an answer; cut: what there was of it when it was stopped. Errors: as
 * sl_outfile_write; SL_ERR_USAGE where a file that is read would go. */
int sl_keeper_write(struct sl_keeper *k, const struct sl_query *q,
                    const char *text, size_t n, bool cut, struct sl_error *err);

/* -- generate_json.c -- */

int sl_generate_print_json(struct sl_generate *g, const struct sl_work *w,
                           const struct sl_fill_result *result,
                           struct sl_error *err);

/* -- generate_show.c -- */

/* All of the text, for files and JSON; as -p prints it; as the modes do. */
enum sl_text_form { SL_TEXT_WHOLE, SL_TEXT_SHOWN, SL_TEXT_STYLED };

/* Text of an answer, written as its ids become final. Styled: every stretch
 * is decoded on its own, blanks stand between marks and, in English, blanks
 * (THUDM/GLM-130B generate.py). */
struct sl_shower {
    FILE *out;
    bool hides_given; /* what is new alone */
    struct sl_stopper stopper;
    struct sl_str shown; /* of what came last, */
    bool blank;          /* which was generated */
    struct sl_detok *detok;
    bool styled, color, gmask, english;
    bool in_blank;
    atomic_bool *line_open;     /* the run's; NULL: nobody sees out yet */
    struct sl_waiting *waiting; /* the same */
};

/* Marks are a part of texts with blanks; what stands before or behind the texts
 * of other models is not. */
enum sl_specials sl_generate_specials(const struct sl_generate *g);
int sl_shower_init(struct sl_shower *s, FILE *out, struct sl_generate *g,
                   const struct sl_prompt *prompt, enum sl_text_form form,
                   struct sl_error *err);
/* A struct sl_fill_sink's ids, opaque being the shower. */
int sl_shower_ids(void *opaque, const int32_t *ids, size_t n, bool blank,
                  struct sl_error *err);
/* The rest of the text; call fini all the same. */
int sl_shower_end(struct sl_shower *s, struct sl_error *err);
void sl_shower_fini(struct sl_shower *s);

/* The whole of an answer. *text is moved to the caller (free). */
int sl_show_answer(char **text, size_t *n, struct sl_generate *g,
                   const struct sl_prompt *prompt,
                   const struct sl_fill_answer *answer, enum sl_text_form form,
                   struct sl_error *err);
/* Flushes standard output. Errors: SL_ERR_IO, EPIPE among them. */
int sl_show_flush(FILE *out, struct sl_error *err);

/* -- generate_drafts.c -- */

/* One line, if anything was guessed. */
void sl_generate_print_drafts(const struct sl_generate *g);
/* Adds what came of guesses between two readings to stats. */
void sl_generate_drafts_json(json_t *stats, const struct sl_generate *g,
                             const struct sl_gate_counts *before,
                             const struct sl_gate_counts *after);

/* -- generate_stats.c -- */

void sl_generate_print_plan(const struct sl_generate *g);
/* Errors: SL_ERR_IO when the machine's rates cannot be measured. */
int sl_generate_print_stats(struct sl_generate *g, struct sl_error *err);
/* Somebody looks at standard error who has asked neither for statistics nor
 * for quiet. */
bool sl_generate_wants_summary(const struct sl_generate *g);
/* One line for that: tokens, their speed, and its share of the floor where the
 * machine's rates are known. Nothing where nothing was generated. */
void sl_generate_print_summary(const struct sl_generate *g);
/* What happened between two readings, for --json; NULL without memory. */
json_t *sl_generate_stats_json(const struct sl_generate *g,
                               const struct sl_work *w);

#endif
