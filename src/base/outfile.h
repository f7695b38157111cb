/*
 * outfile.h - where the answers of a query are kept
 *
 * FOLDER/ID.txt, or FOLDER/PREFIX-MM-DD-HH-MM-SS.txt with the first 20
 * characters of the query (THUDM/GLM-130B generate.py). A file appears whole
 * under its name or not at all, and a time-stamped one never replaces
 * another.
 */
#ifndef SL_OUTFILE_H
#define SL_OUTFILE_H

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

/* id NULL: named after query and the present time. Errors: SL_ERR_IO,
 * SL_ERR_NOSPACE, SL_ERR_NOMEM. */
int sl_outfile_write(const char *folder, const char *id, const char *query,
                     size_t n_query, const char *text, size_t n,
                     struct sl_error *err);

#endif
