#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/cmd/opts.h"
#include "src/eval/console.h"
#include "src/eval/task.h"

struct options {
    struct sl_runtime_config run;
    char **tasks; /* (n_tasks) paths, borrowed */
    size_t n_tasks;
    const char *data_path;
    bool dry_run, quiet;
};

static int load_tasks(struct sl_tasks *tasks, const struct options *o,
                      struct sl_error *err)
{
    for (size_t i = 0; i < o->n_tasks; i++) {
        if (sl_tasks_find(tasks, o->tasks[i], o->run.log, err) != 0)
            return -1;
    }
    sl_console_tasks(stdout, tasks);
    return 0;
}

static int eval(struct options *o, struct sl_error *err)
{
    struct sl_tasks tasks = {0};
    int rc = load_tasks(&tasks, o, err);

    sl_tasks_fini(&tasks);
    return rc;
}

/* --- command ------------------------------------------------------------- */

enum { OPT_TASK = 0x300, OPT_DATA_PATH, OPT_DRY_RUN };

static const struct argp_option options[] = {
    {"task", OPT_TASK, "PATH", 0,
     "A task file, or a folder with such (more may follow, as arguments) "
     "(required)",
     0},
    {"data-path", OPT_DATA_PATH, "DIR", 0,
     "Folder that the tasks' data lie in (required)", 0},
    {"dry-run", OPT_DRY_RUN, 0, 0,
     "Read the task files and say what they are, no data and no weights", 0},
    {"quiet", 'q', 0, 0, "No progress and no notices", 0},
    {0},
};

static void add_task(struct options *o, char *path)
{
    char **more = realloc(o->tasks, (o->n_tasks + 1) * sizeof *more);

    if (more == NULL)
        return;
    o->tasks = more;
    o->tasks[o->n_tasks++] = path;
}

static void check(const struct options *o, struct argp_state *state)
{
    if (o->n_tasks == 0)
        argp_error(state, "no task given: --task PATH");
    if (o->data_path == NULL && !o->dry_run)
        argp_error(state, "no data given: --data-path DIR");
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct options *o = state->input;

    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &o->run;
        return 0;
    case OPT_TASK:
    case ARGP_KEY_ARG:
        add_task(o, arg);
        return 0;
    case OPT_DATA_PATH:
        o->data_path = arg;
        return 0;
    case OPT_DRY_RUN:
        o->dry_run = true;
        if (o->run.model == NULL)
            o->run.model = ""; /* none is read */
        return 0;
    case 'q':
        o->quiet = o->run.quiet = true;
        return 0;
    case ARGP_KEY_END:
        check(o, state);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_child children[] = {
    {&sl_run_argp, 0, "Memory and threads:", 0},
    {0},
};

static const struct argp argp = {
    options,
    parse,
    "--task PATH... --data-path DIR",
    "Evaluate a model on benchmarks, as GLM-130B's task files describe them: "
    "many questions share each pass over the weights.",
    children,
    0,
    0,
};

static int run(int argc, char **argv)
{
    struct sl_log log = {sl_log_stderr, NULL, SL_LOG_INFO};
    struct options o = {
        .run.needs_less = "shorter questions or fewer in a pass need less",
        .run.log = &log,
    };
    struct sl_error err;
    int rc = sl_parse_args(&argp, argc, argv, &o);

    if (rc == 0) {
        if (o.quiet)
            o.run.log = NULL;
        rc = eval(&o, &err) == 0 ? SL_EXIT_OK : sl_report(&err);
        rc = sl_finish_stdout(rc);
    }
    free(o.tasks);
    return rc;
}

const struct sl_command sl_cmd_eval = {
    .name = "eval",
    .summary = "evaluate a model on benchmarks",
    .run = run,
    .argp = &argp,
};
