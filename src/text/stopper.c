#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "src/text/stopper.h"

void sl_stops_fini(struct sl_stops *stops)
{
    for (size_t i = 0; i < stops->n; i++)
        free(stops->v[i]);
    stops->n = 0;
}

void sl_stopper_fini(struct sl_stopper *st)
{
    sl_str_fini(&st->held);
}

/* The first stop in the text, of those that begin there the longest; NULL. */
static const char *find(const struct sl_stops *stops, const char *text,
                        size_t n, size_t *at)
{
    const char *best = NULL;

    *at = n;
    for (size_t i = 0; i < stops->n; i++) {
        size_t len = strlen(stops->v[i]);
        const char *p = memmem(text, n, stops->v[i], len);
        size_t here = p != NULL ? (size_t)(p - text) : n;

        if (p == NULL || here > *at)
            continue;
        if (here < *at || best == NULL || len > strlen(best))
            best = stops->v[i];
        *at = here;
    }
    return best;
}

/* Bytes at the end of the text that a stop may begin with. */
static size_t held_back(const struct sl_stops *stops, const char *text,
                        size_t n)
{
    size_t most = 0;

    for (size_t i = 0; i < stops->n; i++) {
        size_t len = strlen(stops->v[i]) - 1;

        for (len = len < n ? len : n; len > most; len--) {
            if (memcmp(text + n - len, stops->v[i], len) == 0)
                most = len;
        }
    }
    return most;
}

void sl_stopper_restart(struct sl_stopper *st)
{
    st->found = NULL;
    sl_str_clear(&st->held);
}

size_t sl_stops_cut(const struct sl_stops *stops, const char *text, size_t n)
{
    size_t at;

    find(stops, text, n, &at);
    return at;
}

int sl_stopper_push(struct sl_stopper *st, struct sl_str *out, const char *text,
                    size_t n, bool last, struct sl_error *err)
{
    size_t final;
    int rc;

    if (st->found != NULL)
        return 0;
    if (st->stops->n == 0)
        return sl_str_append(out, text, n, err);
    if (sl_str_append(&st->held, text, n, err) != 0)
        return -1;
    st->found = find(st->stops, st->held.s, st->held.n, &final);
    if (st->found == NULL && !last)
        final = st->held.n - held_back(st->stops, st->held.s, st->held.n);
    rc = sl_str_append(out, sl_str_text(&st->held), final, err);
    if (st->found != NULL)
        final = st->held.n;
    if (final > 0) {
        memmove(st->held.s, st->held.s + final, st->held.n - final);
        sl_str_cut(&st->held, st->held.n - final);
    }
    return rc;
}
