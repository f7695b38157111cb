/*
 * stopper.h - finds the texts that end an answer, in text that is growing
 *
 * Text goes through it piece by piece; what could still be the beginning of a
 * stop is held back. The stop itself and what follows never come out.
 */
#ifndef SL_STOPPER_H
#define SL_STOPPER_H

#include <stdbool.h>

#include "src/base/str.h"

enum { SL_MOST_STOPS = 16 };

struct sl_stops {
    char *v[SL_MOST_STOPS]; /* owned, none empty */
    size_t n;
};

void sl_stops_fini(struct sl_stops *stops);

struct sl_stopper {
    const struct sl_stops *stops; /* borrowed */
    struct sl_str held;
    const char *found; /* the stop that came, or NULL */
};

/* Appends to out what is final now. After a stop nothing more comes. last:
 * there is no more, and what is held comes too. Errors: SL_ERR_NOMEM. */
int sl_stopper_push(struct sl_stopper *st, struct sl_str *out, const char *text,
                    size_t n, bool last, struct sl_error *err);
/* What comes next is another text. */
void sl_stopper_restart(struct sl_stopper *st);
/* Bytes of a whole text before the first stop: all of them where none is. */
size_t sl_stops_cut(const struct sl_stops *stops, const char *text, size_t n);
void sl_stopper_fini(struct sl_stopper *st);

#endif
