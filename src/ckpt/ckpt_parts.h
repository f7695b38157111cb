/*
 * ckpt_parts.h - the files of a split archive
 *
 * The published GLM-130B is glm-130b-sat.tar.part_*, sixty pieces that `cat`
 * joins in the shell's order. Here they are found, put in that order, and
 * told apart from an incomplete download as far as their names go.
 */
#ifndef SL_CKPT_PARTS_H
#define SL_CKPT_PARTS_H

#include <stddef.h>

#include "src/base/error.h"
#include "src/ckpt/ckpt_src.h"

struct sl_parts {
    char **paths; /* owned */
    size_t n;
};

/* path: a folder (its *.tar.part_*, else its one *.tar), one of the parts
 * (with its siblings), or a .tar. A folder with none of them gives n = 0.
 * Errors: SL_ERR_IO; SL_ERR_USAGE (another kind of file, several archives);
 * SL_ERR_CORRUPT: a gap in the parts' names, naming the part that is missing.
 */
int sl_parts_find(struct sl_parts *parts, const char *path,
                  struct sl_error *err);
void sl_parts_fini(struct sl_parts *parts);

/* After src, made of parts, turned out to be damaged: puts the part that is
 * not as long as the others in front of err's message, if there is one. */
void sl_parts_explain(const struct sl_src *src, struct sl_error *err);

#endif
