/*
 * outfile.h - where the answers of a query are kept
 *
 * FOLDER/ID.txt, or FOLDER/PREFIX-MM-DD-HH-MM-SS.txt with the first 20
 * characters of the query (THUDM/GLM-130B generate.py). A file appears whole
 * under its name or not at all, and none replaces another unless that is
 * wanted: ID-2.txt, ID-3.txt and so on come after ID.txt.
 */
#ifndef SL_OUTFILE_H
#define SL_OUTFILE_H

#include <stdbool.h>
#include <stddef.h>

#include "src/base/error.h"

/* Makes the folder with its parents. Errors: SL_ERR_IO. */
int sl_outfile_folder(const char *folder, struct sl_error *err);

/* The file has this text afterwards, or is as it was: written beside it, then
 * renamed. Who may read it stays as it was. Errors: SL_ERR_IO, SL_ERR_NOSPACE,
 * SL_ERR_NOMEM. */
int sl_outfile_replace(const char *path, const char *text, size_t n,
                       struct sl_error *err);

/* An id becomes a file's name: refuses what could lead elsewhere. Errors:
 * SL_ERR_USAGE. */
int sl_outfile_check_id(const char *id, struct sl_error *err);

struct sl_outfile { /* all borrowed */
    const char *folder;
    const char *id;    /* NULL: named after query and the present time */
    const char *query; /* (n_query) */
    size_t n_query;
    bool cut;        /* not all of an answer: ID.cut.txt */
    bool replace;    /* what there is of the name; else the next one is taken */
    unsigned number; /* with an id: the name to begin with, 1 being ID.txt */
};

/* *path (owned, free): the file that was written; may be NULL. *number, with an
 * id, is that of the name. Errors: SL_ERR_IO, SL_ERR_NOSPACE, SL_ERR_NOMEM. */
int sl_outfile_write(char **path, unsigned *number, const struct sl_outfile *o,
                     const char *text, size_t n, struct sl_error *err);

/* FOLDER/ID.txt for number 1, FOLDER/ID-2.txt and so on; free it. */
char *sl_outfile_path(const char *folder, const char *id, bool cut,
                      unsigned number);

#endif
