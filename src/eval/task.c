#include "config.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "src/base/mem.h"
#include "src/eval/files.h"
#include "src/eval/task.h"

static const char *const metric_names[SL_METRICS] = {
    [SL_METRIC_ACCURACY] = "Accuracy",
    [SL_METRIC_EM] = "EM",
    [SL_METRIC_F1] = "F1",
    [SL_METRIC_PPL] = "PPL",
    [SL_METRIC_PRECISION] = "Precision",
    [SL_METRIC_RECALL] = "Recall",
    [SL_METRIC_F1_MUL] = "F1_mul",
};

const char *sl_metric_name(enum sl_metric metric)
{
    return metric_names[metric];
}

bool sl_metric_find(enum sl_metric *metric, const char *name)
{
    for (unsigned i = 0; i < SL_METRICS; i++) {
        if (strcmp(metric_names[i], name) == 0) {
            *metric = (enum sl_metric)i;
            return true;
        }
    }
    return false;
}

const char *sl_task_type_name(enum sl_task_type type)
{
    static const char *const names[SL_TASK_TYPES] = {"mul", "gen", "lm"};

    return names[type];
}

int sl_task_init(struct sl_task *task, enum sl_task_type type, const char *name,
                 struct sl_error *err)
{
    *task = (struct sl_task){
        .file = strdup(""),
        .name = strdup(name),
        .path = strdup(""),
        .type = type,
        .max_seq_length = 2048,
        .micro_batch_size = 1,
        .num_beams = 4,
        .no_repeat_ngram_size = 3,
        .max_gen_length = 128,
        .length_penalty = 1.0,
        .generation_length = 256,
        .n_metrics = 1,
        .metrics = {SL_METRIC_ACCURACY},
    };
    if (type == SL_TASK_GEN) {
        task->metrics[0] = SL_METRIC_EM;
        task->metrics[task->n_metrics++] = SL_METRIC_F1;
    }
    if (type == SL_TASK_LM)
        task->metrics[0] = SL_METRIC_PPL;
    if (task->file == NULL || task->name == NULL || task->path == NULL) {
        sl_task_fini(task);
        return sl_fail(err, SL_ERR_NOMEM, "out of memory for a task");
    }
    return 0;
}

void sl_task_fini(struct sl_task *task)
{
    for (size_t i = 0; i < task->n_groups; i++) {
        free(task->groups[i].name);
        free(task->groups[i].pattern);
    }
    free(task->groups);
    free(task->file);
    free(task->name);
    free(task->path);
    free(task->module);
    *task = (struct sl_task){0};
}

int sl_task_add_group(struct sl_task *task, const char *name,
                      const char *pattern, struct sl_error *err)
{
    struct sl_task_group *more =
        realloc(task->groups, (task->n_groups + 1) * sizeof *more);
    struct sl_task_group g = {strdup(name), strdup(pattern)};

    if (more != NULL)
        task->groups = more;
    if (more == NULL || g.name == NULL || g.pattern == NULL) {
        free(g.name);
        free(g.pattern);
        return sl_fail(err, SL_ERR_NOMEM, "out of memory for a task's groups");
    }
    task->groups[task->n_groups++] = g;
    return 0;
}

int sl_tasks_add(struct sl_tasks *tasks, struct sl_task *task,
                 struct sl_error *err)
{
    if (!sl_grow((void **)&tasks->v, &tasks->room, tasks->n,
                 sizeof *tasks->v)) {
        sl_task_fini(task);
        return sl_fail(err, SL_ERR_NOMEM, "out of memory for %zu tasks",
                       tasks->n + 1);
    }
    tasks->v[tasks->n++] = *task;
    *task = (struct sl_task){0};
    return 0;
}

void sl_tasks_fini(struct sl_tasks *tasks)
{
    for (size_t i = 0; i < tasks->n; i++)
        sl_task_fini(&tasks->v[i]);
    free(tasks->v);
    *tasks = (struct sl_tasks){0};
}

static int add_file(struct sl_tasks *tasks, const char *file,
                    const struct sl_log *log, struct sl_error *err)
{
    struct sl_task task;

    if (sl_task_read(&task, file, log, err) != 0)
        return -1;
    return sl_tasks_add(tasks, &task, err);
}

static int add_folder(struct sl_tasks *tasks, const char *folder,
                      const struct sl_log *log, struct sl_error *err)
{
    struct sl_names names = {0};
    int rc = sl_files_find(&names, folder, "**/*.yaml", err);

    if (rc == 0 && names.n == 0)
        rc = sl_fail(err, SL_ERR_USAGE, "%s: no task file (*.yaml) in it",
                     folder);
    for (size_t i = 0; rc == 0 && i < names.n; i++) {
        char *path = sl_path_join(folder, names.v[i]);
        char *shown = path ? sl_path_relative(path) : NULL;

        rc = shown != NULL ? add_file(tasks, shown, log, err)
                           : sl_fail(err, SL_ERR_NOMEM,
                                     "out of memory for a file's name");
        free(path);
        free(shown);
    }
    sl_names_fini(&names);
    return rc;
}

int sl_tasks_find(struct sl_tasks *tasks, const char *path,
                  const struct sl_log *log, struct sl_error *err)
{
    struct stat st;

    if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
        return add_folder(tasks, path, log, err);
    return add_file(tasks, path, log, err);
}
