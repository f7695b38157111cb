/*
 * opts_draft.h - --draft, --draft-max and --draft-width, of all commands that
 * generate
 */
#ifndef SL_CMD_OPTS_DRAFT_H
#define SL_CMD_OPTS_DRAFT_H

#include <argp.h>

#include "src/base/paths.h"
#include "src/cmd/draft_file.h"
#include "src/decode/draft.h"

struct sl_draft_options {
    /* as they were given; none: what `usual` says */
    const char *names[SL_DRAFT_SOURCES];
    uint32_t n;
    const char *usual; /* NULL: auto */
    uint32_t most;     /* drafts of a pass; 0: as many as is usual */
    uint32_t width;    /* side by side; 0: as is usual */
};

/* A child of a command's argp; its input is a struct sl_draft_options. */
extern const struct argp sl_draft_argp;

/* Guesses of a pass, at most. */
uint32_t sl_drafts_most(const struct sl_draft_options *o);
/* None of these is anything but auto or lookup, which cost no time. */
bool sl_drafts_free(const struct sl_draft_options *o);
/* Once the model has its memory: none where there is none for drafts; what
 * passes of several positions take, by rates that were measured or kept (NULL:
 * none). */
void sl_drafts_start(struct sl_drafts *d, struct sl_runtime *rt,
                     const struct sl_rates *kept, const struct sl_log *log);

/* The files among them, which are read. */
void sl_draft_paths(struct sl_paths *p, const struct sl_draft_options *o);

/* What a run guesses with; a name that is no kind is a model file's, and noted
 * in file, which stays where it is. Errors: SL_ERR_USAGE. */
int sl_drafts_open(struct sl_drafts *d, struct sl_draft_file *file,
                   const struct sl_draft_options *o, struct sl_error *err);

#endif
