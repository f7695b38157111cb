#include "config.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "src/cmd/opts.h"
#include "src/cmd/opts_draft.h"

/* So many positions a pass: beyond, even a disk's pass is no longer free. */
#define USUAL_MOST 31u
/* What a position more costs before any was measured, part of the first. */
#define USUAL_MORE 0.2

enum { OPT_DRAFT = 0x400, OPT_DRAFT_MAX, OPT_DRAFT_WIDTH };

static const struct argp_option options[] = {
    {"draft", OPT_DRAFT, "KIND", 0,
     "Guess what comes next and let passes check it: the text is the same, and "
     "comes faster where guesses are right. auto (default), lookup (what "
     "followed the same words before), self (what the part of an int8-planes "
     "file says that stays in memory), a smaller model's FILE, or off; may be "
     "given several times",
     0},
    {"draft-max", OPT_DRAFT_MAX, "N", 0,
     "Most guesses that a pass checks of a text (default: 31; at most 63)", 0},
    {"draft-width", OPT_DRAFT_WIDTH, "N", 0,
     "Guesses that may stand side by side for the same place, each with what "
     "would follow it, where that pays (default: 4, the most); 1: one after "
     "another alone",
     0},
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct sl_draft_options *o = state->input;

    switch (key) {
    case OPT_DRAFT:
        if (o->n == SL_DRAFT_SOURCES)
            argp_error(state, "--draft may be given at most %u times",
                       SL_DRAFT_SOURCES);
        o->names[o->n++] = arg;
        return 0;
    case OPT_DRAFT_MAX:
        o->most =
            (uint32_t)sl_opt_u64(state, "draft-max", arg, 1, SL_DRAFT_MOST);
        return 0;
    case OPT_DRAFT_WIDTH:
        o->width =
            (uint32_t)sl_opt_u64(state, "draft-width", arg, 1, SL_TREE_WIDTH);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

const struct argp sl_draft_argp = {options, parse, 0, 0, 0, 0, 0};

static int add_file(struct sl_drafts *d, struct sl_draft_file *file,
                    const char *path, struct sl_error *err)
{
    if (file->path != NULL)
        return sl_fail(err, SL_ERR_USAGE,
                       "--draft takes one model file, not %s and %s",
                       file->path, path);
    if (access(path, R_OK) != 0)
        return sl_fail_os(err, errno,
                          "--draft is auto, lookup, self, off or a model file; "
                          "'%s' cannot be read",
                          path);
    file->path = path;
    return sl_drafts_add(d, &sl_draft_model_kind, &file->model, err);
}

/* auto and off are words for what to do, and stand alone. */
static int add(struct sl_drafts *d, struct sl_draft_file *file,
               const struct sl_draft_options *o, const char *name,
               struct sl_error *err)
{
    const struct sl_draft_kind *kind = sl_draft_find(name);
    bool word = strcmp(name, "auto") == 0 || strcmp(name, "off") == 0;

    if (word && o->n > 1)
        return sl_fail(err, SL_ERR_USAGE,
                       "--draft %s goes with no other --draft", name);
    if (strcmp(name, "off") == 0)
        return 0;
    if (word) {
        d->optional = true;
        kind = &sl_draft_lookup;
    }
    if (strcmp(name, sl_draft_self_kind.name) == 0) {
        if (file->itself)
            return 0;
        file->itself = true;
        return sl_drafts_add(d, &sl_draft_self_kind, &file->self, err);
    }
    if (kind == NULL)
        return add_file(d, file, name, err);
    for (uint32_t i = 0; i < d->n; i++) {
        if (d->sources[i].kind == kind)
            return 0;
    }
    return sl_drafts_add(d, kind, NULL, err);
}

uint32_t sl_drafts_most(const struct sl_draft_options *o)
{
    return o->most > 0 ? o->most : USUAL_MOST;
}

bool sl_drafts_free(const struct sl_draft_options *o)
{
    for (uint32_t i = 0; i < o->n; i++) {
        const struct sl_draft_kind *kind = sl_draft_find(o->names[i]);

        if (strcmp(o->names[i], "auto") != 0 && (kind == NULL || kind->costs))
            return false;
    }
    return true;
}

void sl_draft_paths(struct sl_paths *p, const struct sl_draft_options *o)
{
    for (uint32_t i = 0; i < o->n; i++)
        sl_paths_read(p, "--draft", o->names[i]);
}

int sl_drafts_open(struct sl_drafts *d, struct sl_draft_file *file,
                   const struct sl_draft_options *o, struct sl_error *err)
{
    sl_drafts_init(d, sl_drafts_most(o), USUAL_MORE);
    if (o->width > 0)
        d->width = o->width;
    file->width = d->width;
    if (o->n == 0)
        return add(d, file, o, o->usual != NULL ? o->usual : "auto", err);
    for (uint32_t i = 0; i < o->n; i++) {
        if (add(d, file, o, o->names[i], err) != 0)
            return -1;
    }
    return 0;
}

/* What n positions take, one being 1, at rates that were measured. */
static void set_shape(struct sl_drafts *d, const struct sl_runtime *rt,
                      const struct sl_rates *rates)
{
    struct sl_pass_times *t = &d->gate.times;
    double first = 0;

    for (uint32_t n = 1; n <= SL_PASS_SIZES; n++) {
        struct sl_plan_pass pass = {n, n, 1};
        double s = sl_runtime_expected_at(rt, rates, pass);

        if (s <= 0)
            s = sl_runtime_floor_at(rt, rates, pass).seconds;
        if (n == 1)
            first = s;
        if (first <= 0)
            return;
        t->shape[n] = s / first;
    }
}

void sl_drafts_start(struct sl_drafts *d, struct sl_runtime *rt,
                     const struct sl_rates *kept, const struct sl_log *log)
{
    const struct sl_rates *rates = sl_runtime_rates(rt);

    if (sl_runtime_draft_positions(rt) == 0)
        sl_drafts_stop(d);
    if (d->n == 0)
        return;
    if (rates->disk_bps <= 0 && kept != NULL)
        rates = kept;
    if (rates->disk_bps > 0)
        set_shape(d, rt, rates);
    if (sl_runtime_device(rt, NULL) != NULL)
        sl_log(log, SL_LOG_INFO,
               "a GPU rounds products of several positions otherwise than of "
               "one: with --draft a text may differ from the one without");
}
