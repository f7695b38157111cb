#include "config.h"

#include <stdlib.h>

#include "src/base/json.h"
#include "src/cmd/hit_curve.h"
#include "src/eval/files.h"

/* One of two numbers of a point; false: it is none from least to 1. */
static bool take(double *to, const json_t *point, size_t i, double least)
{
    const json_t *v = json_array_get(point, i);

    *to = json_number_value(v);
    return json_is_number(v) && *to >= least && *to <= 1;
}

static int fill(struct sl_hit_curve *curve, const json_t *root,
                const char *path, struct sl_error *err)
{
    struct sl_hit_point before = {0, 0};
    const json_t *point;
    size_t i;

    if (!json_is_array(root) || json_array_size(root) == 0 ||
        json_array_size(root) > SL_HIT_POINTS)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "%s: a list of 1 to %u points [share resident, share "
                       "served] is expected",
                       path, SL_HIT_POINTS);
    json_array_foreach(root, i, point)
    {
        struct sl_hit_point *p = &curve->point[i];

        if (json_array_size(point) != 2 ||
            !take(&p->resident, point, 0, before.resident) ||
            !take(&p->served, point, 1, before.served))
            return sl_fail(err, SL_ERR_CORRUPT,
                           "%s: point %zu is no [share resident, share served] "
                           "of 0 to 1, neither less than before",
                           path, i + 1);
        before = *p;
    }
    curve->n = i;
    return 0;
}

int sl_hit_curve_read(struct sl_hit_curve *curve, const char *path,
                      struct sl_error *err)
{
    struct sl_hit_curve made = {0};
    char *text;
    json_t *root;
    size_t n;
    int rc;

    if (sl_file_read(&text, &n, path, err) != 0)
        return -1;
    rc = sl_json_parse(&root, text, n, path, err);
    free(text);
    if (rc != 0)
        return -1;
    rc = fill(&made, root, path, err);
    json_decref(root);
    if (rc == 0)
        *curve = made;
    return rc;
}

struct sl_hit_curve sl_opt_hit_curve(struct argp_state *state, const char *path)
{
    struct sl_hit_curve curve = {.n = 0};
    struct sl_error err;

    if (sl_hit_curve_read(&curve, path, &err) != 0)
        argp_error(state, "--hit-curve: %s", err.msg);
    return curve;
}
