/*
 * generate.h - what the files of 'sluice generate' share
 *
 *   cmd_generate.c      options, start and end
 *   generate_modes.c    -p, interactive, file
 *   generate_query.c    one query: fill its blanks, print and keep answers
 *   generate_show.c     ids to the text on the terminal
 *   generate_stats.c    what the plan is, what the run did
 */
#ifndef SL_GENERATE_H
#define SL_GENERATE_H

#include <stdio.h>

#include <jansson.h>

#include "src/fill.h"
#include "src/interrupt.h"
#include "src/runtime.h"

struct sl_generate_options {
    struct sl_runtime_config run;
    struct sl_fill_config fill;
    const char *prompt;       /* -p; NULL: interactive or file */
    const char *input_source; /* "interactive" or a file */
    const char *output_path;  /* NULL: keep no files */
    uint64_t seed;
    bool with_id, print_all_beams, json, stats;
};

struct sl_generate {
    const struct sl_generate_options *o;
    struct sl_runtime *rt;
    struct sl_tokenizer *tokenizer;
    const struct sl_hparams *hp;
    struct sl_interrupt *interrupt;
    struct sl_rng rng;
    bool color;              /* standard output is a terminal that wants it */
    bool started;            /* the runtime is */
    uint64_t first_token_ns; /* of the first query, from its beginning */
};

/* A query as a mode found it. */
struct sl_query {
    const char *id; /* NULL: none */
    const char *text;
    size_t n_text;
    int64_t line; /* of the input file, from 0; -1: not from a file */
};

/* -- generate_modes.c: each returns an exit code -- */
int sl_generate_prompt(struct sl_generate *g);
int sl_generate_interactive(struct sl_generate *g);
int sl_generate_file(struct sl_generate *g);

/* -- generate_query.c -- */

/* How the answers of a query are printed. */
enum sl_show { SL_SHOW_TEXT, SL_SHOW_STYLED, SL_SHOW_JSON };

/* Does a query from tokens to files. Errors: SL_ERR_USAGE for what is wrong
 * with this query alone; after others nothing more can be generated.
 * *interrupted: on request, with what there was. */
int sl_generate_query(struct sl_generate *g, const struct sl_query *q,
                      enum sl_show show, bool *interrupted,
                      struct sl_error *err);
/* Adds the query to what the runtime will be planned for. Errors: as
 * sl_generate_query. */
int sl_generate_measure(struct sl_generate *g, const struct sl_query *q,
                        struct sl_workload *load, struct sl_error *err);

/* -- generate_show.c -- */

/* Text of an answer, written as its ids become final. Styled: every stretch
 * is decoded on its own, blanks stand between marks and, in English, blanks
 * (reference-behaviour 1.8). */
struct sl_shower {
    FILE *out;
    struct sl_detok *detok;
    bool styled, color, gmask, english;
    bool in_blank;
};

int sl_shower_init(struct sl_shower *s, FILE *out, struct sl_generate *g,
                   const struct sl_prompt *prompt, bool styled,
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
                   const struct sl_fill_answer *answer, bool styled,
                   struct sl_error *err);
/* Flushes standard output. Errors: SL_ERR_IO, EPIPE among them. */
int sl_show_flush(FILE *out, struct sl_error *err);

/* -- generate_stats.c -- */

void sl_generate_print_plan(const struct sl_generate *g);
/* Errors: SL_ERR_IO when the machine's rates cannot be measured. */
int sl_generate_print_stats(struct sl_generate *g, struct sl_error *err);
/* What happened between two readings, for --json; NULL without memory. */
json_t *sl_generate_stats_json(const struct sl_run_stats *before,
                               const struct sl_run_stats *after);

#endif
