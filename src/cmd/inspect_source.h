/*
 * inspect_source.h - what is in a checkpoint, and what convert would make of
 * it
 *
 * Between cmd_inspect.c, inspect_source.c and inspect_tensor.c.
 */
#ifndef SL_INSPECT_SOURCE_H
#define SL_INSPECT_SOURCE_H

#include <stdbool.h>

#include "src/base/error.h"

/* Whether a path is looked at as a checkpoint: a folder, or a file that one of
 * the kinds of checkpoints takes for its own by its name. */
bool sl_inspect_is_source(const char *path);

struct sl_inspect_how {
    bool tensors; /* list all of them */
    bool json;
};

/* To standard output. Errors: those of sl_ckpt_open. That convert would refuse
 * it is no error, but said. */
int sl_inspect_source(const char *path, struct sl_inspect_how how,
                      struct sl_error *err);

/* One tensor of a checkpoint or a model file to a .npy file of float32. Of a
 * checkpoint in the shape it has there; of one that is split over shards, or
 * is quantised, in the shape and with the values that the model has. Errors:
 * SL_ERR_USAGE (there is none of that name), those of reading and writing. */
int sl_inspect_tensor(const char *path, const char *name, const char *output,
                      struct sl_error *err);

#endif
