/*
 * opts_list.h - the options that a command has, and which is nearly what was
 * typed
 */
#ifndef SL_OPTS_LIST_H
#define SL_OPTS_LIST_H

#include <argp.h>
#include <stddef.h>

/* Calls seen with each option of a command and of its children that no list
 * hides: o is a row of a table, of the row whose argument and words hold for
 * it (an alias has none of its own). */
void sl_opts_each(const struct argp *argp,
                  void (*seen)(void *opaque, const struct argp_option *o,
                               const struct argp_option *of),
                  void *opaque);

/* Of the names that it is shown the one that the typed word is nearest to. */
struct sl_nearest {
    const char *typed;
    size_t n;         /* bytes of it */
    const char *best; /* NULL: none is near */
    size_t distance;
};

void sl_nearest_look(struct sl_nearest *near, const char *name);

#endif
