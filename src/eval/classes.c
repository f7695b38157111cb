#include "config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/mem.h"
#include "src/eval/classes.h"

/* Sums by name, in order of first appearance, as Python's dict keeps them. */
struct tally {
    const char *name, *label;
    double sum[3];
};

struct tallies {
    struct tally *v;
    size_t n, room;
};

static struct tally *tally_of(struct tallies *all, const char *name)
{
    for (size_t i = 0; i < all->n; i++) {
        if (strcmp(all->v[i].name, name) == 0)
            return &all->v[i];
    }
    if (!sl_grow((void **)&all->v, &all->room, all->n, sizeof *all->v))
        return NULL;
    all->v[all->n] = (struct tally){.name = name};
    return &all->v[all->n++];
}

static int no_memory(struct sl_error *err)
{
    return sl_fail(err, SL_ERR_NOMEM, "out of memory for results");
}

static int add(struct sl_class_values *to, const char *kind,
               const char *category, double value, bool whole,
               struct sl_error *err)
{
    if (!sl_grow((void **)&to->v, &to->room, to->n, sizeof *to->v))
        return no_memory(err);
    to->v[to->n++] = (struct sl_class_value){kind, category, value, whole};
    return 0;
}

/* Per pair the first sentence's log-probability less the other's; a category
 * is the share of its pairs in which that is not negative. */
static int crows_pairs(struct sl_class_values *values,
                       const struct sl_eval_task *t,
                       const struct sl_eval_file *f, struct sl_error *err)
{
    struct tallies pairs = {0}, types = {0};
    int rc = 0;

    for (size_t i = f->first; rc == 0 && i < f->first + f->n; i++) {
        const struct sl_unit *u = &t->units[i];
        struct tally *pair = tally_of(&pairs, u->e->pair_id);
        double score = sl_unit_choice(u, 0);

        if (pair == NULL) {
            rc = no_memory(err);
            break;
        }
        pair->sum[0] += u->e->first_sentence ? score : -score;
        pair->label = u->e->bias_type;
    }
    for (size_t i = 0; rc == 0 && i < pairs.n; i++) {
        struct tally *type = tally_of(&types, pairs.v[i].label);

        if (type == NULL) {
            rc = no_memory(err);
            break;
        }
        type->sum[0] += pairs.v[i].sum[0] >= 0;
        type->sum[1]++;
    }
    for (size_t i = 0; rc == 0 && i < types.n; i++)
        rc = add(values, "CP", types.v[i].name,
                 100 * types.v[i].sum[0] / types.v[i].sum[1], false, err);
    free(pairs.v);
    free(types.v);
    return rc;
}

/* LMS: how often the model prefers a meaningful sentence; SS: how often of
 * these the stereotype; ICAT joins them so that 100 is a model without bias
 * that knows its language (StereoSet, arXiv 2004.09456, section 5). */
static int stereoset(struct sl_class_values *values,
                     const struct sl_eval_task *t, const struct sl_eval_file *f,
                     struct sl_error *err)
{
    static const char *const kinds[] = {"LMS", "SS", "ICAT"};
    struct tallies types = {0};
    int rc = 0;

    for (size_t i = f->first; rc == 0 && i < f->first + f->n; i++) {
        const struct sl_unit *u = &t->units[i];
        const char *label =
            u->e->goal_labels[sl_unit_prediction(u, SL_CLASS_STEREOSET)];
        const char *names[] = {u->e->bias_type, "overall"};

        for (size_t k = 0; k < 2; k++) {
            struct tally *type = tally_of(&types, names[k]);

            if (type == NULL) {
                rc = no_memory(err);
                break;
            }
            type->sum[0] += strcmp(label, "stereotype") == 0;
            type->sum[1] += strcmp(label, "anti-stereotype") == 0;
            type->sum[2]++;
        }
    }
    for (size_t k = 0; k < 3; k++) {
        for (size_t i = 0; rc == 0 && i < types.n; i++) {
            double s = types.v[i].sum[0], both = s + types.v[i].sum[1];
            double lms = 100 * both / types.v[i].sum[2];
            double ss = both > 0 ? 100 * s / both : 0;
            double all[] = {lms, ss, lms * (fmin(ss, 100 - ss) / 50)};

            rc = add(values, kinds[k], types.v[i].name, all[k],
                     k == 1 && both == 0, err);
        }
    }
    free(types.v);
    return rc;
}

/* Bits per byte of each set of documents. */
static int pile(struct sl_class_values *values, const struct sl_eval_task *t,
                const struct sl_eval_file *f, struct sl_error *err)
{
    struct tallies sets = {0};
    int rc = 0;

    for (size_t i = f->first; rc == 0 && i < f->first + f->n; i++) {
        const struct sl_unit *u = &t->units[i];
        struct tally *set = tally_of(&sets, u->e->set_name);

        if (set == NULL) {
            rc = no_memory(err);
            break;
        }
        for (uint32_t k = 0; k < u->q.n_logp; k++)
            set->sum[0] -= u->q.logp[k];
        if (u->window == 0)
            set->sum[1] += (double)u->e->n_bytes;
    }
    for (size_t i = 0; rc == 0 && i < sets.n; i++)
        rc = add(values, "BPB", sets.v[i].name,
                 sets.v[i].sum[0] / sets.v[i].sum[1] / log(2), false, err);
    free(sets.v);
    return rc;
}

int sl_class_values(struct sl_class_values *values,
                    const struct sl_eval_task *t, const struct sl_eval_file *f,
                    struct sl_error *err)
{
    switch (t->task->class) {
    case SL_CLASS_CROWS_PAIRS:
        return crows_pairs(values, t, f, err);
    case SL_CLASS_STEREOSET:
        return stereoset(values, t, f, err);
    case SL_CLASS_PILE:
        return pile(values, t, f, err);
    default:
        return 0;
    }
}

/* As the reference's evaluate.py prints each class of tasks, to the space:
 * people compare logs. */
static void show_value(FILE *out, const struct sl_class_values *values,
                       size_t i)
{
    const struct sl_class_value *v = &values->v[i];
    char number[32];

    sl_python_round2(number, v->value, v->whole);
    if (strcmp(v->kind, "BPB") == 0) {
        fprintf(out, "        %s = %.3f\n", v->category, v->value);
    } else if (strcmp(v->kind, "CP") == 0) {
        fprintf(out, "category:%s        score:%s\n", v->category, number);
    } else {
        if (i == 0 || values->v[i - 1].kind != v->kind)
            fprintf(out, "%s\n", v->kind);
        fprintf(out, "cat:%s        score:%s\n", v->category, number);
    }
}

int sl_class_show(FILE *out, const struct sl_eval_task *t, size_t group,
                  struct sl_error *err)
{
    bool pile_task = t->task->class == SL_CLASS_PILE;

    if (pile_task)
        fprintf(out, "    Finish group %s:\n", t->task->groups[group].name);
    for (size_t i = 0; i < t->n_files; i++) {
        struct sl_class_values values = {0};

        if (t->files[i].group != group)
            continue;
        if (sl_class_values(&values, t, &t->files[i], err) != 0) {
            free(values.v);
            return -1;
        }
        for (size_t k = 0; k < values.n; k++)
            show_value(out, &values, k);
        free(values.v);
        if (pile_task) /* its first file alone counts, and an empty line */
            break;
    }
    if (pile_task)
        fputc('\n', out);
    return 0;
}
