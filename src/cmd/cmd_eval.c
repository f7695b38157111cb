#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/clock.h"
#include "src/base/outfile.h"
#include "src/cmd/eval_model.h"
#include "src/cmd/eval_stats.h"
#include "src/cmd/opts_run.h"
#include "src/eval/crew.h"
#include "src/eval/files.h"
#include "src/eval/results.h"
#include "src/eval/share.h"

struct options {
    struct sl_runtime_config run;
    struct sl_device_contexts contexts;
    char **tasks; /* (n_tasks) paths, borrowed */
    size_t n_tasks;
    const char *data_path, *output, *compare;
    struct sl_eval_options eval;
    uint32_t positions; /* of a pass; 0: auto */
    bool dry_run, ece, stats;
    enum sl_journal_mode journal;
    struct sl_crew *crew; /* NULL: this process is alone */
};

/* Of a crew one process alone tells what comes of it, and keeps it. */
static bool is_first(const struct options *o)
{
    return o->crew == NULL || o->crew->rank == 0;
}

static int load_tasks(struct sl_tasks *tasks, const struct options *o,
                      struct sl_error *err)
{
    struct sl_task plain;

    for (size_t i = 0; i < o->n_tasks; i++) {
        if (sl_tasks_find(tasks, o->tasks[i], o->run.log, err) != 0)
            return -1;
    }
    if (o->eval.plain == NULL)
        return 0;
    if (sl_task_init(&plain, SL_TASK_MUL, sl_file_shown(o->eval.plain), err) !=
        0)
        return -1;
    if (sl_task_add_group(&plain, "all", o->eval.plain, err) != 0) {
        sl_task_fini(&plain);
        return -1;
    }
    return sl_tasks_add(tasks, &plain, err);
}

/* No output is what is read: the options say, or what was found by them. */
static int check_paths(const struct options *o, const struct sl_tasks *tasks,
                       const struct sl_eval *ev, struct sl_error *err)
{
    static const char *const written[] = {
        "journal.jsonl",
        "results.json",
        "results.markdown",
    };
    struct sl_paths paths = {0};

    sl_run_paths(&paths, &o->run);
    sl_paths_read(&paths, "--compare", o->compare);
    sl_paths_read(&paths, "--tasks-json", o->eval.plain);
    for (size_t i = 0; i < tasks->n; i++)
        sl_paths_read(&paths, "--task", tasks->v[i].file);
    for (size_t i = 0; i < ev->n; i++)
        for (size_t k = 0; k < ev->v[i].n_files; k++)
            sl_paths_read(&paths, "--data-path", ev->v[i].files[k].path);
    for (size_t i = 0; i < sizeof written / sizeof *written; i++)
        sl_paths_write_in(&paths, "--output", o->output, written[i]);
    return sl_paths_end(&paths, err);
}

/* What there is to ask, the answers of an earlier run left out. */
static int open_journal(struct sl_journal **journal, struct sl_eval_model *m,
                        struct sl_eval *ev, const struct options *o,
                        struct sl_error *err)
{
    size_t n_found = 0;

    if (o->output != NULL && is_first(o) &&
        sl_journal_open(journal, o->output, m->id, o->journal, ev, &n_found,
                        err) != 0)
        return -1;
    if (n_found > 0)
        sl_log(o->run.log, SL_LOG_INFO, "%zu questions were answered before",
               n_found);
    sl_eval_measure(ev);
    return 0;
}

static int open_share(struct sl_eval_run *run, struct sl_journal *journal,
                      struct sl_eval_model *m, const struct options *o,
                      struct sl_error *err)
{
    char kernels[64];
    const struct sl_share_config config = {
        .ev = run->ev,
        .journal = journal,
        .crew = o->crew,
        .model = m->id,
        .kernels = kernels,
        .log = o->run.log,
        .answered = sl_eval_answered,
        .opaque = run,
    };

    snprintf(kernels, sizeof kernels, "%s %s", sl_runtime_isa(m->rt),
             sl_runtime_activations(m->rt));
    return sl_share_open(&run->share, &config, err);
}

/* The files of --output, and --compare. */
static int keep(struct sl_eval_model *m, struct sl_eval *ev,
                const struct options *o, struct sl_error *err)
{
    const struct sl_results_head head = {m->name, m->id, o->run.model};

    if (o->output != NULL && sl_results_write(o->output, &head, ev, err) != 0)
        return -1;
    return o->compare != NULL ? sl_results_compare(stdout, ev, o->compare, err)
                              : 0;
}

static int ask(struct sl_eval_model *m, struct sl_eval *ev,
               const struct options *o, struct sl_error *err)
{
    struct sl_eval_run run = {
        .ev = ev, .out = is_first(o) ? stdout : NULL, .ece = o->ece};
    struct sl_journal *journal = NULL;
    int rc = open_journal(&journal, m, ev, o, err);
    uint64_t begin = 0;

    if (rc == 0)
        rc = sl_eval_model_start(m, &o->run, &run, o->positions, err);
    if (rc == 0)
        rc = open_share(&run, journal, m, o, err);
    if (rc == 0 && journal != NULL)
        rc = sl_journal_begin(journal, m->id, err);
    if (rc == 0) {
        sl_eval_progress_init(&run.progress, ev->needs.n_questions,
                              ev->needs.n_positions,
                              o->run.quiet || !is_first(o));
        begin = sl_clock_ns();
        rc = sl_eval_run_all(&run, err);
    }
    if (rc == 0 && is_first(o))
        rc = keep(m, ev, o, err);
    if (rc == 0 && o->stats && is_first(o))
        rc = sl_eval_stats_print(m, &run,
                                 (double)(sl_clock_ns() - begin) * 1e-9, err);
    if (rc != 0)
        sl_share_give_up(run.share, err);
    sl_share_close(run.share);
    sl_journal_close(journal);
    free(run.passes);
    return rc;
}

static int eval_tasks(struct options *o, struct sl_error *err)
{
    struct sl_eval_model model = {0};
    struct sl_tasks tasks = {0};
    struct sl_eval ev = {0};
    int rc = load_tasks(&tasks, o, err);

    if (rc == 0)
        rc = check_paths(o, &tasks, &ev, err);
    if (rc == 0 && o->compare != NULL)
        rc = sl_results_check(o->compare, err);
    if (rc == 0 && is_first(o)) {
        sl_console_tasks(stdout, &tasks);
        if (fflush(stdout) != 0) /* before what is said of it */
            rc = sl_fail_os(err, errno, "cannot write to standard output");
    }
    o->eval.data_path = o->data_path;
    o->eval.log = o->run.log;
    if (rc == 0 && o->output != NULL && is_first(o))
        rc = sl_outfile_folder(o->output, err);
    if (rc == 0 && !o->dry_run)
        rc = sl_eval_model_open(&model, &o->run, err);
    if (rc == 0 && !o->dry_run)
        rc = sl_eval_load(&ev, &tasks, model.tokenizer, &model.hp, model.is_glm,
                          &o->eval, err);
    if (rc == 0)
        rc = check_paths(o, &tasks, &ev, err);
    if (rc == 0 && !o->dry_run)
        rc = ask(&model, &ev, o, err);
    sl_eval_fini(&ev);
    sl_eval_model_close(&model);
    sl_tasks_fini(&tasks);
    return rc;
}

static int eval(struct options *o, struct sl_error *err)
{
    int rc = sl_crew_open(&o->crew, o->run.threads == 0, err);

    if (rc != 0)
        return rc;
    if (o->crew != NULL)
        o->run.free_bytes = o->crew->ram_bytes;
    if (!is_first(o)) { /* rank 0 says what there is to say to all */
        o->run.log = NULL;
        o->run.quiet = true;
    }
    rc = eval_tasks(o, err);
    if (rc != 0 && o->crew != NULL)
        sl_error_prefix(err, "rank %u: ", o->crew->rank);
    sl_crew_close(o->crew);
    return rc;
}

/* --- command ------------------------------------------------------------- */

enum {
    OPT_TASK = 0x300,
    OPT_DATA_PATH,
    OPT_TASKS_JSON,
    OPT_LIMIT,
    OPT_SHUFFLE,
    OPT_SEED,
    OPT_OUTPUT,
    OPT_RESUME,
    OPT_FORCE,
    OPT_ECE,
    OPT_COMPARE,
    OPT_STYLE,
    OPT_UNIDIRECTIONAL,
    OPT_LEAD,
    OPT_POSITIONS,
    OPT_DRY_RUN,
    OPT_STATS,
};

static const struct argp_option options[] = {
    {"task", OPT_TASK, "PATH", 0,
     "A task file, or a folder with such; more may follow, as arguments", 0},
    {"data-path", OPT_DATA_PATH, "DIR", 0, "Folder that the tasks' data lie in",
     0},
    {"tasks-json", OPT_TASKS_JSON, "FILE", 0,
     "Questions of one's own: {\"context\", \"choices\", \"answer\"}, in a "
     "list or a line each",
     0},
    {"limit", OPT_LIMIT, "N", 0, "No more than N examples of a file", 0},
    {"shuffle", OPT_SHUFFLE, 0, 0, "Take the examples in another order", 0},
    {"seed", OPT_SEED, "N", 0, "Which order that is (default 1234)", 0},
    {"output", OPT_OUTPUT, "DIR", 0,
     "Keep results there: every score as JSON, a table in Markdown", 0},
    {"resume", OPT_RESUME, 0, 0,
     "Go on with what --output has: ask nothing twice", 0},
    {"force", OPT_FORCE, 0, 0, "Throw away what --output has, and begin anew",
     0},
    {"compare", OPT_COMPARE, "FILE", 0,
     "Another run's results.json: which of the two is right more often, and "
     "whether that means anything",
     0},
    {"ece", OPT_ECE, 0, 0, "Print calibration errors, too", 0},
    {"style", OPT_STYLE, "NAME", 0,
     "How questions are put: auto, or glm, as THUDM/GLM does for its models",
     0},
    {"unidirectional", OPT_UNIDIRECTIONAL, 0, 0,
     "Ask a model whose context sees all of itself as a causal one", 0},
    {"text-begin", OPT_LEAD, 0, 0,
     "Put what the vocabulary begins texts with before the questions of a "
     "causal model",
     0},
    {"pass-positions", OPT_POSITIONS, "N", 0,
     "Tokens that go through the weights together (default: where arithmetic "
     "begins to limit)",
     0},
    {"dry-run", OPT_DRY_RUN, 0, 0,
     "Read the task files and say what they are, no data and no weights", 0},
    {"stats", OPT_STATS, 0, 0,
     "Say how fast it was, and what the machine's limits allow", 0},
    {"quiet", 'q', 0, 0, "No progress and no notices", 0},
    {0},
};

static void check(const struct options *o, struct argp_state *state)
{
    if (o->n_tasks == 0 && o->eval.plain == NULL)
        argp_error(state, "no task given: --task PATH, or --tasks-json FILE");
    if (o->n_tasks > 0 && o->data_path == NULL && !o->dry_run)
        argp_error(state, "no data given: --data-path DIR");
    if (o->journal == SL_JOURNAL_RESUME && o->output == NULL)
        argp_error(state, "--resume needs the --output to go on with");
    if (o->journal == SL_JOURNAL_ANEW && o->output == NULL)
        argp_error(state, "--force needs the --output to begin anew");
}

/* Options that say how questions are put, and to where. */
static error_t parse_ask(int key, char *arg, struct argp_state *state)
{
    struct options *o = state->input;

    switch (key) {
    case OPT_COMPARE:
        o->compare = arg;
        return 0;
    case OPT_ECE:
        o->ece = true;
        return 0;
    case OPT_STYLE:
        if (strcmp(arg, "glm") != 0 && strcmp(arg, "auto") != 0)
            argp_error(state, "--style is auto or glm, not '%s'", arg);
        o->eval.build.glm = strcmp(arg, "glm") == 0;
        return 0;
    case OPT_UNIDIRECTIONAL:
        o->eval.build.unidirectional = true;
        return 0;
    case OPT_LEAD:
        o->eval.build.lead = true;
        return 0;
    case OPT_POSITIONS:
        o->positions =
            (uint32_t)sl_opt_u64(state, "pass-positions", arg, 1, 1u << 20);
        return 0;
    case OPT_STATS:
        o->stats = true;
        return 0;
    case OPT_DRY_RUN:
        o->dry_run = true;
        if (o->run.model == NULL)
            o->run.model = ""; /* none is read */
        return 0;
    case 'q':
        o->run.quiet = true;
        return 0;
    case ARGP_KEY_END:
        check(o, state);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
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
        sl_opt_append(state, &o->tasks, &o->n_tasks, arg);
        return 0;
    case OPT_DATA_PATH:
        o->data_path = arg;
        return 0;
    case OPT_TASKS_JSON:
        o->eval.plain = arg;
        return 0;
    case OPT_LIMIT:
        o->eval.limit = sl_opt_u64(state, "limit", arg, 1, UINT32_MAX);
        return 0;
    case OPT_SHUFFLE:
        o->eval.shuffle = true;
        return 0;
    case OPT_SEED:
        o->eval.seed = sl_opt_u64(state, "seed", arg, 0, UINT64_MAX);
        return 0;
    case OPT_OUTPUT:
        o->output = arg;
        return 0;
    case OPT_RESUME:
        o->journal = SL_JOURNAL_RESUME;
        return 0;
    case OPT_FORCE:
        o->journal = SL_JOURNAL_ANEW;
        return 0;
    default:
        return parse_ask(key, arg, state);
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
        .run.contexts = &o.contexts,
        .eval.seed = 1234,
    };
    struct sl_error err;
    int rc = sl_parse_args(&argp, argc, argv, &o);

    if (rc == 0) {
        if (o.run.quiet)
            o.run.log = NULL;
        rc = sl_finish(eval(&o, &err), &err);
    }
    free(o.tasks);
    return rc;
}

const struct sl_command sl_cmd_eval = {
    .name = "eval",
    .summary = "evaluate a model on benchmarks",
    .run = run,
    .argp = &argp,
    .tables = true,
};
