#include "config.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <jansson.h>

#include "src/base/json.h"
#include "src/base/mem.h"
#include "src/base/outfile.h"
#include "src/eval/classes.h"
#include "src/eval/metrics.h"
#include "src/eval/results.h"

#define BOOTSTRAP_SAMPLES 10000u

/* --- JSON ---------------------------------------------------------------- */

static json_t *reals(const double *v, size_t n)
{
    json_t *list = json_array();

    for (size_t i = 0; i < n; i++)
        json_array_append_new(list, json_real(v[i]));
    return list;
}

static json_t *integers(const int32_t *v, size_t n)
{
    json_t *list = json_array();

    for (size_t i = 0; i < n; i++)
        json_array_append_new(list, json_integer(v[i]));
    return list;
}

/* The ids that a unit's log-probabilities are of, in their order. */
static json_t *asked_ids(const struct sl_unit *u)
{
    int32_t *ids = sl_zalloc_array(u->q.n_logp + 1u, sizeof *ids);
    json_t *list;

    for (uint32_t i = 0; ids != NULL && i < u->q.n_strands; i++) {
        const struct sl_strand *s = &u->q.strands[i];

        for (uint32_t k = 0; k < s->n_asks; k++)
            ids[s->asks[k].to] = s->asks[k].id;
    }
    list = ids ? integers(ids, u->q.n_logp) : NULL;
    free(ids);
    return list;
}

static json_t *unit_json(const struct sl_eval_task *t, const struct sl_unit *u)
{
    json_t *o = json_pack("{sI}", "line", (json_int_t)u->e->line);
    json_t *scores, *lengths;

    if (t->generates) {
        json_object_set_new(o, "ids", integers(u->said.v, u->said.n));
        return o;
    }
    if (t->task->type == SL_TASK_LM)
        json_object_set_new(o, "window", json_integer(u->window));
    if (t->task->type == SL_TASK_MUL) {
        scores = json_array();
        lengths = json_array();
        for (uint32_t i = 0; i < u->e->n_choices; i++) {
            json_array_append_new(scores, json_real(sl_unit_choice(u, i)));
            json_array_append_new(lengths, json_integer(u->choice_len[i]));
        }
        json_object_set_new(o, "label", json_integer(u->e->label));
        json_object_set_new(
            o, "prediction",
            json_integer(sl_unit_prediction(u, t->task->class)));
        json_object_set_new(o, "scores", scores);
        json_object_set_new(o, "lengths", lengths);
    }
    json_object_set_new(o, "ids", asked_ids(u));
    json_object_set_new(o, "logprobs", reals(u->q.logp, u->q.n_logp));
    return o;
}

/* A file's metrics, or its class's numbers. */
static json_t *metrics_json(const struct sl_eval_task *t,
                            const struct sl_eval_file *f, struct sl_error *err)
{
    struct sl_class_values values = {0};
    json_t *o = json_object();

    if (!sl_class_hides_files(t->task->class)) {
        for (size_t m = 0; m < t->task->n_metrics; m++)
            json_object_set_new(o, sl_metric_name(t->task->metrics[m]),
                                json_real(f->values[m]));
        return o;
    }
    if (sl_class_values(&values, t, f, err) != 0) {
        free(values.v);
        json_decref(o);
        return NULL;
    }
    for (size_t i = 0; i < values.n; i++) {
        json_t *kind = json_object_get(o, values.v[i].kind);

        if (kind == NULL) {
            kind = json_object();
            json_object_set_new(o, values.v[i].kind, kind);
        }
        json_object_set_new(kind, values.v[i].category,
                            json_real(values.v[i].value));
    }
    free(values.v);
    return o;
}

static json_t *file_json(struct sl_eval_task *t, struct sl_eval_file *f,
                         struct sl_error *err)
{
    json_t *units = json_array(), *metrics = metrics_json(t, f, err);

    if (metrics == NULL) {
        json_decref(units);
        return NULL;
    }
    for (size_t i = f->first; i < f->first + f->n; i++)
        json_array_append_new(units, unit_json(t, &t->units[i]));
    return json_pack("{so ss sI so so}", "file", sl_json_text(f->name), "group",
                     t->task->groups[f->group].name, "n",
                     (json_int_t)f->n_examples, "metrics", metrics, "examples",
                     units);
}

static json_t *task_json(struct sl_eval_task *t, struct sl_error *err)
{
    json_t *files = json_array(), *file;

    for (size_t i = 0; i < t->n_files; i++) {
        file = file_json(t, &t->files[i], err);
        if (file == NULL) {
            json_decref(files);
            return NULL;
        }
        json_array_append_new(files, file);
    }
    return json_pack("{so so ss sI so}", "name", sl_json_text(t->task->name),
                     "config", sl_json_text(t->task->file), "type",
                     sl_task_type_name(t->task->type), "truncated",
                     (json_int_t)t->n_truncated, "files", files);
}

static int write_json(const char *path, const struct sl_results_head *head,
                      struct sl_eval *ev, struct sl_error *err)
{
    json_t *tasks = json_array(), *task, *root;
    char *text = NULL;
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < ev->n; i++) {
        task = task_json(&ev->v[i], err);
        rc = task != NULL ? 0 : -1;
        json_array_append_new(tasks, task);
    }
    root = json_pack(
        "{ss ss s{so so ss} so}", "program", "sluice", "version",
        PACKAGE_VERSION, "model", "name", sl_json_text(head->model), "file",
        sl_json_text(head->path), "id", head->model_id, "tasks", tasks);
    root = sl_json_versioned(root);
    if (rc == 0 && root != NULL)
        text = json_dumps(root, JSON_INDENT(1) | JSON_PRESERVE_ORDER |
                                    JSON_REAL_PRECISION(17));
    if (rc == 0 && text == NULL)
        rc = sl_fail(err, SL_ERR_NOMEM, "out of memory for the results");
    if (rc == 0)
        rc = sl_outfile_replace(path, text, strlen(text), err);
    free(text);
    json_decref(root);
    return rc;
}

/* --- Markdown ------------------------------------------------------------ */

static int add_rows(struct sl_str *to, const struct sl_eval_task *t, size_t g,
                    struct sl_error *err)
{
    double *values = sl_alloc_array(t->n_files + 1, sizeof *values);
    size_t *n_of = sl_alloc_array(t->n_files + 1, sizeof *n_of), n;
    char row[400];
    int rc = 0;

    if (values == NULL || n_of == NULL)
        rc = sl_fail(err, SL_ERR_NOMEM, "out of memory for the results");
    for (size_t m = 0; rc == 0 && m < t->task->n_metrics; m++) {
        struct sl_scores scores = {NULL, values, n_of, 0};
        struct sl_summary s;

        n = 0;
        for (size_t i = 0; i < t->n_files; i++) {
            if (t->files[i].group != g)
                continue;
            values[n] = t->files[i].values[m];
            n_of[n++] = t->files[i].n_examples;
        }
        scores.n = n;
        s = sl_scores_summary(&scores);
        snprintf(
            row, sizeof row, "| %.100s | %.100s | %s | %.3f | %.3f | %.3f |\n",
            t->task->name, t->task->groups[g].name,
            sl_metric_name(t->task->metrics[m]), s.max, s.median, s.average);
        rc = sl_str_add(to, row, err);
    }
    free(values);
    free(n_of);
    return rc;
}

static int add_class_rows(struct sl_str *to, const struct sl_eval_task *t,
                          size_t g, struct sl_error *err)
{
    char row[400];
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < t->n_files; i++) {
        struct sl_class_values values = {0};

        if (t->files[i].group != g)
            continue;
        rc = sl_class_values(&values, t, &t->files[i], err);
        for (size_t k = 0; rc == 0 && k < values.n; k++) {
            snprintf(row, sizeof row,
                     "| %.100s | %.100s | %s %.100s | | | %.3f |\n",
                     t->task->name, t->task->groups[g].name, values.v[k].kind,
                     values.v[k].category, values.v[k].value);
            rc = sl_str_add(to, row, err);
        }
        free(values.v);
    }
    return rc;
}

static int write_table(const char *path, const struct sl_results_head *head,
                       struct sl_eval *ev, struct sl_error *err)
{
    struct sl_str text = {0};
    char line[600];
    int rc;

    snprintf(line, sizeof line,
             "# %.100s\n\nsluice %s, %.200s (%s)\n\n"
             "| task | group | metric | max | median | average |\n"
             "|---|---|---|---:|---:|---:|\n",
             head->model, PACKAGE_VERSION, head->path, head->model_id);
    rc = sl_str_add(&text, line, err);
    for (size_t i = 0; i < ev->n; i++) {
        const struct sl_eval_task *t = &ev->v[i];

        for (size_t g = 0; rc == 0 && g < t->task->n_groups; g++)
            rc = sl_class_hides_files(t->task->class)
                     ? add_class_rows(&text, t, g, err)
                     : add_rows(&text, t, g, err);
    }
    if (rc == 0)
        rc = sl_outfile_replace(path, text.s, text.n, err);
    sl_str_fini(&text);
    return rc;
}

int sl_results_write(const char *folder, const struct sl_results_head *head,
                     struct sl_eval *ev, struct sl_error *err)
{
    char *json = sl_path_join(folder, "results.json");
    char *table = sl_path_join(folder, "results.markdown");
    int rc;

    if (json == NULL || table == NULL)
        rc = sl_fail(err, SL_ERR_NOMEM, "out of memory for the results");
    else if ((rc = write_json(json, head, ev, err)) == 0)
        rc = write_table(table, head, ev, err);
    free(json);
    free(table);
    return rc;
}

/* --- comparing ----------------------------------------------------------- */

/* The task of that name, and a file's examples, in the other's results. */
static const json_t *named(const json_t *list, const char *key,
                           const char *name)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *o = json_array_get(list, i);
        const char *is = json_string_value(json_object_get(o, key));

        if (is != NULL && strcmp(is, name) == 0)
            return o;
    }
    return NULL;
}

struct pairs {
    double *difference; /* (n) ours right less theirs right */
    size_t n, only_ours, only_theirs;
};

static void pair_units(struct pairs *p, const struct sl_eval_task *t,
                       const struct sl_eval_file *f, const json_t *examples)
{
    for (size_t i = 0; i < f->n && i < json_array_size(examples); i++) {
        const struct sl_unit *u = &t->units[f->first + i];
        const json_t *o = json_array_get(examples, i);
        bool ours = sl_unit_prediction(u, t->task->class) == u->e->label;
        bool theirs = json_integer_value(json_object_get(o, "prediction")) ==
                      (json_int_t)u->e->label;

        if (json_integer_value(json_object_get(o, "line")) !=
            (json_int_t)u->e->line)
            continue;
        p->difference[p->n++] = (double)ours - (double)theirs;
        p->only_ours += ours && !theirs;
        p->only_theirs += theirs && !ours;
    }
}

static int compare_task(FILE *out, const struct sl_eval_task *t,
                        const json_t *theirs, struct sl_error *err)
{
    const json_t *files = json_object_get(theirs, "files");
    struct pairs p = {.difference =
                          sl_alloc_array(t->n_units + 1, sizeof(double))};
    double low, high, mean = 0;
    int rc = 0;

    if (p.difference == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "out of memory for a comparison");
    for (size_t i = 0; i < t->n_files; i++)
        pair_units(&p, t, &t->files[i],
                   json_object_get(named(files, "file", t->files[i].name),
                                   "examples"));
    for (size_t i = 0; i < p.n; i++)
        mean += p.difference[i] / (double)p.n;
    rc = sl_metric_bootstrap(&low, &high, p.difference, p.n, BOOTSTRAP_SAMPLES,
                             1, err);
    if (rc == 0)
        fprintf(out,
                "Comparison of task %s: %zu examples, %zu right here alone, "
                "%zu there alone, McNemar p = %.4f, difference %+.3f "
                "[%+.3f, %+.3f]\n",
                t->task->name, p.n, p.only_ours, p.only_theirs,
                sl_metric_mcnemar(p.only_ours, p.only_theirs), 100 * mean,
                100 * low, 100 * high);
    free(p.difference);
    return rc;
}

static int read_results(json_t **root, const char *path, struct sl_error *err)
{
    size_t n;
    char *text;
    int rc;

    if (sl_file_read(&text, &n, path, err) != 0)
        return -1;
    rc = sl_json_parse(root, text, n, path, err);
    free(text);
    if (rc != 0)
        return -1;
    if (json_is_array(json_object_get(*root, "tasks")))
        return 0;
    json_decref(*root);
    return sl_fail(err, SL_ERR_CORRUPT,
                   "%s: no results of an evaluation: it lists no tasks", path);
}

int sl_results_check(const char *other, struct sl_error *err)
{
    struct stat st;
    json_t *root;

    if (stat(other, &st) == 0 && !S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode))
        return 0; /* a pipe is read once, when it is needed */
    if (read_results(&root, other, err) != 0)
        return -1;
    json_decref(root);
    return 0;
}

int sl_results_compare(FILE *out, struct sl_eval *ev, const char *other,
                       struct sl_error *err)
{
    const json_t *tasks, *theirs;
    json_t *root;
    size_t n = 0;
    int rc = 0;

    if (read_results(&root, other, err) != 0)
        return -1;
    tasks = json_object_get(root, "tasks");
    for (size_t i = 0; rc == 0 && i < ev->n; i++) {
        const struct sl_eval_task *t = &ev->v[i];

        theirs = named(tasks, "name", t->task->name);
        if (theirs == NULL || t->task->type != SL_TASK_MUL ||
            sl_class_hides_files(t->task->class))
            continue;
        rc = compare_task(out, t, theirs, err);
        n++;
    }
    json_decref(root);
    if (rc == 0 && n == 0)
        return sl_fail(err, SL_ERR_USAGE,
                       "%s: no task with choices is there that is here, too",
                       other);
    return rc;
}
