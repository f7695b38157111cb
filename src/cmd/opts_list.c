#include "config.h"

#include <string.h>

#include "src/cmd/opts_list.h"

void sl_opts_each(const struct argp *argp,
                  void (*seen)(void *opaque, const struct argp_option *o,
                               const struct argp_option *of),
                  void *opaque)
{
    const struct argp_option *o = argp->options, *of = o;

    for (; o != NULL && (o->name != NULL || o->key != 0 || o->doc != NULL);
         o++) {
        if ((o->flags & OPTION_ALIAS) == 0)
            of = o;
        if (o->name == NULL && o->key == 0) /* a headline */
            continue;
        if ((o->flags & OPTION_HIDDEN) == 0 && (of->flags & OPTION_HIDDEN) == 0)
            seen(opaque, o, of);
    }
    for (const struct argp_child *c = argp->children;
         c != NULL && c->argp != NULL; c++)
        sl_opts_each(c->argp, seen, opaque);
}

/* --- what was meant ---------------------------------------------------------
 */

enum { LONGEST = 40 };

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Letters to add, drop, change or swap with their neighbours to come from one
 * word to the other (optimal string alignment). */
static size_t distance_of(const char *a, size_t n, const char *b, size_t m)
{
    size_t rows[3][LONGEST + 1]; /* of the letters before, and before those */

    for (size_t j = 0; j <= m; j++)
        rows[0][j] = j;
    for (size_t i = 1; i <= n; i++) {
        size_t *row = rows[i % 3], *above = rows[(i + 2) % 3];
        const size_t *beyond = rows[(i + 1) % 3];

        row[0] = i;
        for (size_t j = 1; j <= m; j++) {
            row[j] = least(least(above[j] + 1, row[j - 1] + 1),
                           above[j - 1] + (a[i - 1] != b[j - 1]));
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                row[j] = least(row[j], beyond[j - 2] + 1);
        }
    }
    return rows[n % 3][m];
}

/* Beyond, it is another word. */
static size_t most_distance(const struct sl_nearest *near)
{
    return near->n < 4 ? 1 : near->n < 7 ? 2 : near->n / 3;
}

void sl_nearest_look(struct sl_nearest *near, const char *name)
{
    size_t n = strlen(name), distance;

    if (n > LONGEST || near->n > LONGEST || near->n == 0)
        return;
    distance = distance_of(near->typed, near->n, name, n);
    if (distance > most_distance(near) ||
        (near->best != NULL && distance >= near->distance))
        return;
    near->best = name;
    near->distance = distance;
}
