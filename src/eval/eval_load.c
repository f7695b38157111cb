#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <xxhash.h>

#include "src/base/mem.h"
#include "src/decode/sampler.h"
#include "src/eval/eval.h"
#include "src/eval/files.h"

static struct sl_unit *add_unit(struct sl_eval_task *t)
{
    if (!sl_grow((void **)&t->units, &t->room, t->n_units, sizeof *t->units))
        return NULL;
    t->units[t->n_units] = (struct sl_unit){0};
    return &t->units[t->n_units++];
}

/* --- units --------------------------------------------------------------- */

static int add_choices(struct sl_eval *ev, struct sl_eval_task *t,
                       struct sl_example *e, struct sl_error *err)
{
    struct sl_unit *u = add_unit(t);

    if (u != NULL)
        u->choice_len = sl_zalloc_array(e->n_choices + 1u, sizeof(uint32_t));
    if (u == NULL || u->choice_len == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "out of memory for a question");
    u->e = e;
    return sl_build_choices(&u->q, u->choice_len, &ev->builder, t->task, e,
                            err);
}

/* Texts without ids, of which the Pile has some, are not asked about. A limit
 * counts windows of texts, but documents of the Pile, whose sums
 * would otherwise be of half a document. */
static int add_windows(struct sl_eval *ev, struct sl_eval_task *t,
                       struct sl_example *e, struct sl_error *err)
{
    struct sl_ids ids = {0};
    size_t n = 0;
    int rc = sl_build_ids(&ids, &ev->builder, &e->inputs, err);

    if (rc == 0)
        n = sl_build_n_windows(&ev->builder, t->task, ids.n);
    e->n_ids = ids.n;
    e->n_windows = n;
    if (ev->o.limit > 0 && t->task->class != SL_CLASS_PILE && n > ev->o.limit)
        n = ev->o.limit;
    for (size_t i = 0; rc == 0 && i < n; i++) {
        struct sl_unit *u = add_unit(t);

        if (u == NULL) {
            rc = sl_fail(err, SL_ERR_NOMEM, "out of memory for a window");
            break;
        }
        u->e = e;
        u->window = (uint32_t)i;
        rc = sl_build_window(&u->q, &ev->builder, t->task, &ids, i, err);
    }
    sl_ids_fini(&ids);
    return rc;
}

static int add_prompt(struct sl_eval *ev, struct sl_eval_task *t,
                      struct sl_example *e, struct sl_error *err)
{
    struct sl_unit *u = add_unit(t);
    bool causal;

    if (u == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "out of memory for a question");
    u->e = e;
    return sl_build_prompt(&u->prompt, &u->blank, &causal, &ev->builder,
                           t->task, e, err);
}

static int add_example(struct sl_eval *ev, struct sl_eval_task *t,
                       struct sl_example *e, struct sl_error *err)
{
    if (t->generates)
        return add_prompt(ev, t, e, err);
    return t->task->type == SL_TASK_LM ? add_windows(ev, t, e, err)
                                       : add_choices(ev, t, e, err);
}

/* The order in which examples are asked: as they stand, or shuffled. */
static size_t *order_of(const struct sl_eval *ev, size_t n)
{
    size_t *order = sl_alloc_array(n + 1, sizeof *order);
    struct sl_rng rng;

    for (size_t i = 0; order != NULL && i < n; i++)
        order[i] = i;
    if (order == NULL || !ev->o.shuffle)
        return order;
    sl_rng_seed(&rng, ev->o.seed);
    for (size_t i = n; i > 1; i--) {
        size_t k = (size_t)(sl_rng_uniform(&rng) * (double)i);
        size_t swap = order[i - 1];

        order[i - 1] = order[k];
        order[k] = swap;
    }
    return order;
}

/* Questions of causal models that begin alike share their beginning. */
static int share_beginning(struct sl_eval *ev, struct sl_eval_task *t,
                           struct sl_eval_file *f, struct sl_error *err)
{
    struct sl_question **q;
    int rc = 0;

    if (ev->builder.style != SL_EVAL_CAUSAL || t->task->type != SL_TASK_MUL)
        return 0;
    q = sl_alloc_array(f->n + 1, sizeof(struct sl_question *));
    if (q == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "out of memory for %zu questions",
                       f->n);
    for (size_t i = 0; i < f->n; i++)
        q[i] = &t->units[f->first + i].q;
    rc = sl_build_stem(&f->stem, &f->has_stem, q, f->n, err);
    free(q);
    return rc;
}

/* A limit counts examples in the order in which they are asked: shuffled, it
 * takes a sample of the file and not its begin. Units of a file lie
 * together. */
static int add_units(struct sl_eval *ev, struct sl_eval_task *t,
                     struct sl_eval_file *f, struct sl_error *err)
{
    size_t *order = order_of(ev, f->data.n);
    size_t n = f->data.n;
    int rc = 0;

    if (order == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "%s: out of memory", f->name);
    if (ev->o.limit > 0 && ev->o.limit < n)
        n = ev->o.limit;
    f->first = t->n_units;
    f->n_examples = n;
    for (size_t i = 0; rc == 0 && i < n; i++) {
        struct sl_example *e = &f->data.v[order[i]];

        rc = add_example(ev, t, e, err);
        if (rc != 0)
            sl_error_prefix(err, "%s:%zu: ", f->name, e->line);
    }
    free(order);
    if (rc == 0 && t->n_units == f->first && t->task->class != SL_CLASS_PILE)
        rc =
            sl_fail(err, SL_ERR_CORRUPT, "%s: there is no text in it", f->name);
    f->n = f->n_left = t->n_units - f->first;
    for (size_t i = f->first; i < t->n_units; i++)
        t->units[i].file = (uint32_t)(f - t->files);
    return rc;
}

/* --- files --------------------------------------------------------------- */

static struct sl_eval_file *add_file(struct sl_eval_task *t)
{
    struct sl_eval_file *more =
        realloc(t->files, (t->n_files + 1) * sizeof *more);

    if (more == NULL)
        return NULL;
    t->files = more;
    t->files[t->n_files] = (struct sl_eval_file){0};
    return &t->files[t->n_files++];
}

/* Files that are named (plain) need no task file: what they hold is told by
 * their form. */
static int load_file(struct sl_eval *ev, struct sl_eval_task *t,
                     const char *name, size_t group, struct sl_error *err)
{
    struct sl_eval_file *f = add_file(t);
    bool plain = t->task->file[0] == '\0';
    bool documents = !plain && ev->builder.style == SL_EVAL_GLM;
    int rc;

    if (f != NULL) {
        f->group = group;
        f->name = strdup(plain ? sl_file_shown(name) : name);
        f->path = plain ? strdup(name) : sl_path_join(t->path, name);
    }
    if (f == NULL || f->name == NULL || f->path == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "%s: out of memory", name);
    rc = plain && t->task->type == SL_TASK_MUL
             ? sl_data_read_plain(&f->data, f->path, err)
             : sl_data_read(&f->data, t->task, documents, ev->builder.hp->vocab,
                            f->path, f->name, err);
    if (rc == 0 && f->data.n == 0)
        rc = sl_fail(err, SL_ERR_CORRUPT, "%s: there is no example in it",
                     sl_file_shown(f->path));
    return rc == 0 ? add_units(ev, t, f, err) : -1;
}

static int load_group(struct sl_eval *ev, struct sl_eval_task *t, size_t group,
                      struct sl_error *err)
{
    const struct sl_task_group *g = &t->task->groups[group];
    struct sl_names names = {0};
    int rc = sl_files_find(&names, t->path, g->pattern, err);

    if (rc == 0 && names.n == 0)
        rc = sl_fail(err, SL_ERR_USAGE, "no file in %s is like %s (group %s)",
                     t->path, g->pattern, g->name);
    for (size_t i = 0; rc == 0 && i < names.n; i++)
        rc = load_file(ev, t, names.v[i], group, err);
    sl_names_fini(&names);
    return rc;
}

/* LAMBADA is generated in GLM-130B's style, and scored as a blank in GLM's. */
static int load_task(struct sl_eval *ev, struct sl_eval_task *t,
                     struct sl_error *err)
{
    uint64_t before = ev->builder.n_truncated;
    bool plain = t->task->file[0] == '\0';
    struct stat st;
    int rc = 0;

    t->path = plain ? strdup("") : sl_path_join(ev->o.data_path, t->task->path);
    if (t->path == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "out of memory for a task");
    t->generates =
        t->task->type == SL_TASK_GEN && (t->task->class != SL_CLASS_LAMBADA ||
                                         ev->builder.style != SL_EVAL_GLM);
    if (!plain && (stat(t->path, &st) != 0 || !S_ISDIR(st.st_mode)))
        return sl_fail(err, SL_ERR_USAGE, "there is no folder %s", t->path);
    if (!plain && ev->builder.style == SL_EVAL_CAUSAL && t->task->use_task_mask)
        sl_log(ev->o.log, SL_LOG_INFO,
               "%s: use_task_mask is ignored: nothing is masked for a model "
               "that is asked causally",
               t->task->name);
    for (size_t i = 0; rc == 0 && i < t->task->n_groups; i++)
        rc = plain ? load_file(ev, t, t->task->groups[i].pattern, i, err)
                   : load_group(ev, t, i, err);
    for (size_t i = 0; rc == 0 && i < t->n_files; i++)
        rc = share_beginning(ev, t, &t->files[i], err);
    t->n_truncated = ev->builder.n_truncated - before;
    if (rc == 0 && t->n_truncated > 0)
        sl_log(ev->o.log, SL_LOG_WARN,
               "%s: %llu of %zu contexts are longer than the model takes and "
               "lost their beginning",
               t->task->name, (unsigned long long)t->n_truncated, t->n_units);
    return rc;
}

int sl_eval_load(struct sl_eval *ev, const struct sl_tasks *tasks,
                 struct sl_tokenizer *tokenizer, const struct sl_hparams *hp,
                 bool is_glm, const struct sl_eval_options *o,
                 struct sl_error *err)
{
    ev->tasks = tasks;
    ev->o = *o;
    if (sl_builder_init(&ev->builder, tokenizer, hp, is_glm, &o->build, err))
        return -1;
    ev->v = sl_zalloc_array(tasks->n + 1, sizeof *ev->v);
    if (ev->v == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "out of memory for %zu tasks",
                       tasks->n);
    for (; ev->n < tasks->n; ev->n++) {
        ev->v[ev->n].task = &tasks->v[ev->n];
        if (load_task(ev, &ev->v[ev->n], err) != 0) {
            sl_error_prefix(err, "%s: ", tasks->v[ev->n].name);
            ev->n++;
            return -1;
        }
    }
    return 0;
}

static void task_fini(struct sl_eval_task *t)
{
    for (size_t i = 0; i < t->n_units; i++) {
        sl_question_fini(&t->units[i].q);
        sl_ids_fini(&t->units[i].prompt);
        sl_ids_fini(&t->units[i].said);
        free(t->units[i].choice_len);
    }
    for (size_t i = 0; i < t->n_files; i++) {
        sl_data_fini(&t->files[i].data);
        sl_strand_fini(&t->files[i].stem.strand);
        free(t->files[i].name);
        free(t->files[i].path);
    }
    free(t->units);
    free(t->files);
    free(t->path);
}

void sl_eval_fini(struct sl_eval *ev)
{
    for (size_t i = 0; i < ev->n; i++)
        task_fini(&ev->v[i]);
    free(ev->v);
    sl_builder_fini(&ev->builder);
    *ev = (struct sl_eval){0};
}

void sl_eval_measure(struct sl_eval *ev)
{
    ev->needs = (struct sl_pack_needs){0};
    for (size_t i = 0; i < ev->n; i++) {
        struct sl_eval_task *t = &ev->v[i];

        for (size_t k = 0; k < t->n_units; k++) {
            if (!t->units[k].done && !t->generates)
                sl_pack_measure(&ev->needs, &t->units[k].q,
                                ev->builder.hp->vocab);
        }
        for (size_t k = 0; k < t->n_files; k++) {
            if (t->files[k].has_stem && t->files[k].n_left > 0)
                sl_pack_measure_stem(&ev->needs, &t->files[k].stem);
        }
    }
}

/* Everything that a strand's chances depend on, in a fixed order: a journal
 * goes on only where all of it is the same. It holds shapes as they lie in
 * memory, so a journal is of this machine's byte order. */
static uint64_t hash_strand(uint64_t h, const struct sl_strand *s)
{
    const uint32_t shape[] = {s->n,
                              s->n_context,
                              s->n_run,
                              (uint32_t)s->start,
                              (uint32_t)s->held,
                              s->block_from,
                              (uint32_t)s->block,
                              s->n_asks};

    h = XXH64(shape, sizeof shape, h);
    h = XXH64(s->ids, s->n * sizeof *s->ids, h);
    return XXH64(s->asks, s->n_asks * sizeof *s->asks, h);
}

uint64_t sl_unit_key(const struct sl_unit *u)
{
    uint64_t h = u->blank;

    if (u->q.stem != NULL)
        h = hash_strand(h, &u->q.stem->strand);
    for (uint32_t i = 0; i < u->q.n_strands; i++)
        h = hash_strand(h, &u->q.strands[i]);
    return u->prompt.n > 0
               ? XXH64(u->prompt.v, u->prompt.n * sizeof *u->prompt.v, h)
               : h;
}
