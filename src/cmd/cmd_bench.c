#include "config.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/base/mem.h"
#include "src/base/newfile.h"
#include "src/base/progress.h"
#include "src/cmd/bench.h"
#include "src/cmd/opts_run.h"

/* The values of an option that takes a list. */
#define MOST_VALUES 64u
struct list {
    bool said; /* not as it is by default */
    uint64_t v[MOST_VALUES];
    unsigned n;
};

struct options {
    struct sl_runtime_config run;
    struct sl_device_contexts contexts;
    struct list ram, vram, prompt, batch, threads;
    struct list positions; /* none: the phases of a run are measured */
    uint32_t gen, repeat;
    struct sl_draft_options draft; /* by itself off */
    bool json;
    const char *plot;
};

enum {
    OPT_RAM = 0x200,
    OPT_VRAM,
    OPT_PROMPT,
    OPT_GEN,
    OPT_BATCH,
    OPT_REPEAT,
    OPT_JSON,
    OPT_PLOT,
    OPT_ROUTE_TRACE,
    OPT_POSITIONS,
    OPT_LEARNED,
};

static const struct argp_option options[] = {
    {0, 0, 0, 0, "What is run; every LIST has commas between its values:", 1},
    {"ram", OPT_RAM, "LIST", 0,
     "Budgets: bytes as in generate, N% of the file, 'least', 'auto' (default: "
     "auto)",
     0},
    {"vram", OPT_VRAM, "LIST", 0,
     "Budgets of a GPU's memory: bytes as in generate, or 'auto' (default: "
     "auto)",
     0},
    {"prompt", OPT_PROMPT, "LIST", 0, "Positions of a prompt (default: 128)",
     0},
    {"gen", OPT_GEN, "N", 0,
     "Tokens decoded after it in each turn (default: 16)", 0},
    {"batch", OPT_BATCH, "LIST", 0,
     "Sequences that go through each pass together (default: 1)", 0},
    {"positions", OPT_POSITIONS, "LIST", 0,
     "Measure instead what passes of so many positions of one sequence take, "
     "1 to 64, as they check guesses",
     0},
    {"threads", 't', "LIST", 0,
     "Threads that compute; auto, the default, is one per CPU", 0},
    {"repeat", OPT_REPEAT, "N", 0,
     "Turns that are counted, after one to warm up (default: 5)", 0},
    {"learned", OPT_LEARNED, 0, 0,
     "Of a mixture: begin with what earlier runs learned of its experts "
     "(FILE.usage beside the model) and keep what this one learns, as other "
     "commands do (default: neither)",
     0},
    {0, 0, 0, 0, "What comes out:", 3},
    {"json", OPT_JSON, 0, 0, "Print a line of JSON for each result", 0},
    {"plot", OPT_PLOT, "FILE", 0,
     "Draw speed and efficiency against the budget (SVG)", 0},
    {"route-trace", OPT_ROUTE_TRACE, "FILE", 0,
     "Keep which experts the only run chose, for bench_replay", 0},
    {0},
};

static uint64_t parse_threads(struct argp_state *state, const char *text)
{
    return sl_opt_threads(state, text);
}

static uint64_t parse_prompt(struct argp_state *state, const char *text)
{
    return sl_opt_u64(state, "prompt", text, 1, 1u << 20);
}

static uint64_t parse_batch(struct argp_state *state, const char *text)
{
    return sl_opt_u64(state, "batch", text, 1, 1024);
}

static uint64_t parse_positions(struct argp_state *state, const char *text)
{
    return sl_opt_u64(state, "positions", text, 1, SL_BENCH_SIZES);
}

/* Which option takes a list, where it goes and what a value of it is. */
static const struct lists {
    int key;
    size_t offset; /* of a struct list in struct options */
    uint64_t (*parse)(struct argp_state *state, const char *text);
} lists[] = {
    {OPT_RAM, offsetof(struct options, ram), sl_opt_ram},
    {OPT_VRAM, offsetof(struct options, vram), sl_opt_vram},
    {'t', offsetof(struct options, threads), parse_threads},
    {OPT_PROMPT, offsetof(struct options, prompt), parse_prompt},
    {OPT_BATCH, offsetof(struct options, batch), parse_batch},
    {OPT_POSITIONS, offsetof(struct options, positions), parse_positions},
};

/* Values between commas. */
static void fill_list(struct argp_state *state, struct list *l, char *arg,
                      const struct lists *kind)
{
    char *text;

    l->n = 0;
    l->said = true;
    while ((text = strsep(&arg, ",")) != NULL) {
        if (l->n == MOST_VALUES)
            argp_error(state,
                       "a list has at most %u values, and '%s' is one "
                       "more",
                       MOST_VALUES, text);
        l->v[l->n++] = kind->parse(state, text);
    }
}

static bool parse_list(struct argp_state *state, int key, char *arg)
{
    struct options *o = state->input;

    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        if (lists[i].key != key)
            continue;
        fill_list(state, (struct list *)((char *)o + lists[i].offset), arg,
                  &lists[i]);
        return true;
    }
    return false;
}

static size_t n_runs(const struct options *o)
{
    return (size_t)o->ram.n * o->vram.n * o->prompt.n * o->batch.n *
           o->threads.n;
}

static void check_options(const struct options *o, struct argp_state *state)
{
    if (o->positions.n > 0 && (o->batch.n > 1 || o->batch.v[0] > 1))
        argp_error(state, "--positions are those of one sequence: no "
                          "--batch goes with them");
    if (o->positions.n > 0 && o->draft.n > 0)
        argp_error(state, "--positions are what passes with guesses take, made "
                          "without any: no --draft goes with them");
    if (o->run.trace != NULL && n_runs(o) > 1)
        argp_error(state, "--trace is for one run, not %zu", n_runs(o));
    if (o->run.route_trace != NULL && n_runs(o) > 1)
        argp_error(state, "--route-trace is for one run, not %zu", n_runs(o));
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct options *o = state->input;

    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &o->run;
        state->child_inputs[1] = &o->draft;
        return 0;
    case OPT_GEN:
        o->gen = (uint32_t)sl_opt_u64(state, "gen", arg, 1, 1u << 20);
        return 0;
    case OPT_REPEAT:
        o->repeat = (uint32_t)sl_opt_u64(state, "repeat", arg, 1, 1000);
        return 0;
    case OPT_JSON:
        o->json = true;
        return 0;
    case OPT_PLOT:
        o->plot = arg;
        return 0;
    case OPT_LEARNED:
        o->run.no_usage = false;
        return 0;
    case OPT_ROUTE_TRACE:
        o->run.route_trace = arg;
        return 0;
    case ARGP_KEY_END:
        sl_opt_environment(o->ram.said ? NULL : &o->ram.v[0],
                           o->vram.said ? NULL : &o->vram.v[0], state);
        check_options(o, state);
        return 0;
    default:
        return parse_list(state, key, arg) ? 0 : ARGP_ERR_UNKNOWN;
    }
}

/* A run's options under one heading, without those that are lists here. */
static const struct argp_child how_children[] = {
    {&sl_source_argp, 0, NULL, 0},
    {&sl_compute_argp, 0, NULL, 0},
    {0},
};

static error_t parse_how(int key, char *arg, struct argp_state *state)
{
    (void)arg;
    if (key != ARGP_KEY_INIT)
        return ARGP_ERR_UNKNOWN;
    state->child_inputs[0] = state->child_inputs[1] = state->input;
    return 0;
}

static const struct argp how_argp = {NULL, parse_how, 0, 0, how_children, 0, 0};

static const struct argp_child children[] = {
    {&how_argp, 0, "The model, and how:", 2},
    {&sl_draft_argp, 0, "Guessing ahead (off unless it is asked for):", 3},
    {0},
};

static const struct argp argp = {
    options,
    parse,
    0,
    "Measure how fast a model runs here, beside how fast this machine could "
    "run it at best.",
    children,
    0,
    0,
};

/* --- runs ----------------------------------------------------------------- */

/* The i-th run: budgets change last, so that neighbours in the table differ in
 * what was asked to be compared. */
static struct sl_bench_run run_at(const struct options *o, size_t i)
{
    struct sl_bench_run run = {
        .gen = o->gen,
        .repeat = o->repeat,
        .draft = o->draft.n > 0 ? &o->draft : NULL,
    };

    run.threads = (unsigned)o->threads.v[i % o->threads.n];
    i /= o->threads.n;
    run.batch = (uint32_t)o->batch.v[i % o->batch.n];
    i /= o->batch.n;
    run.prompt = (uint32_t)o->prompt.v[i % o->prompt.n];
    i /= o->prompt.n;
    run.vram_bytes = o->vram.v[i % o->vram.n];
    run.ram_bytes = o->ram.v[i / o->vram.n];
    return run;
}

static int show(const struct options *o, const struct sl_bench_result *r,
                const struct sl_bench_origin *origin, struct sl_error *err)
{
    if (o->json)
        return sl_bench_print_json(stdout, r, origin, err);
    sl_bench_print(stdout, r);
    fflush(stdout);
    return 0;
}

/* Results are printed one by one, as a run may take minutes. */
static int measure(const struct options *o, struct sl_bench *b,
                   const struct sl_bench_origin *origin, struct sl_error *err)
{
    size_t n = n_runs(o), n_done = 0;
    struct sl_bench_result *results = sl_zalloc_array(n, sizeof *results);
    bool terminal = isatty(STDERR_FILENO) != 0 && sl_progress_screen();
    struct sl_error why;
    int rc = 0;

    if (results == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory for %zu results", n);
    for (size_t i = 0; rc == 0 && i < n; i++) {
        struct sl_bench_run run = run_at(o, i);

        if (terminal)
            fprintf(stderr, "\rrun %zu of %zu ...", i + 1, n);
        rc = sl_bench_run(b, &results[i], &run, err);
        if (terminal)
            fputs("\r\33[K", stderr);
        if (rc != 0)
            break;
        n_done++;
        if (i == 0 && !o->json)
            sl_bench_print_head(stdout, origin);
        rc = show(o, &results[i], origin, err);
    }
    /* What was measured is drawn, whatever became of the rest. */
    if (n_done > 0 && o->plot != NULL &&
        sl_bench_plot(o->plot, results, n_done, origin, &why) != 0 && rc == 0) {
        *err = why;
        rc = -1;
    }
    free(results);
    return rc;
}

static int measure_positions(const struct options *o,
                             const struct sl_bench_origin *origin,
                             struct sl_error *err)
{
    uint32_t sizes[SL_BENCH_SIZES];
    struct sl_bench_positions p;
    size_t n = o->positions.n;

    for (size_t i = 0; i < n; i++)
        sizes[i] = (uint32_t)o->positions.v[i];
    if (!o->json)
        sl_bench_print_origin(stdout, origin);
    for (size_t i = 0; i < n_runs(o); i++) {
        struct sl_bench_run run = run_at(o, i);

        if (sl_bench_positions(&p, &o->run, &run, sizes, n, err) != 0)
            return -1;
        if (!o->json)
            sl_bench_print_positions(stdout, &p, &run, sizes, n);
        else if (sl_bench_positions_json(stdout, &p, &run, sizes, n, origin,
                                         err) != 0)
            return -1;
        fflush(stdout);
    }
    return o->plot != NULL ? sl_bench_plot_positions(o->plot, &p, sizes, n, err)
                           : 0;
}

/* The model is opened here for its name alone: each run opens it again, with
 * its own budget. */
static int bench(const struct options *o, const char *command,
                 struct sl_error *err)
{
    struct sl_bench_origin origin = {.model = o->run.model, .command = command};
    struct sl_paths paths = {0};
    struct sl_modelfile mf;
    struct sl_bench *b;
    int rc;

    sl_run_paths(&paths, &o->run);
    sl_draft_paths(&paths, &o->draft);
    sl_paths_write(&paths, "--plot", o->plot);
    if (sl_paths_end(&paths, err) != 0)
        return -1;
    if (o->plot != NULL && sl_newfile_check_place(o->plot, err) != 0)
        return -1;
    if (sl_modelfile_open(&mf, o->run.model, err) != 0)
        return -1;
    origin.name = mf.name;
    origin.quant = mf.quant;
    origin.file_bytes = mf.file_bytes;
    sl_machine_get(&origin.machine);
    if (o->positions.n > 0) {
        rc = measure_positions(o, &origin, err);
        sl_modelfile_close(&mf);
        return rc;
    }
    rc = sl_bench_create(&b, &o->run, err);
    if (rc == 0) {
        rc = measure(o, b, &origin, err);
        sl_bench_destroy(b);
    }
    sl_modelfile_close(&mf);
    return rc;
}

/* The words of a command line with blanks between them; free it. */
static char *join(int argc, char **argv)
{
    size_t n = 1;
    char *line, *at;

    for (int i = 0; i < argc; i++)
        n += strlen(argv[i]) + 1;
    line = at = malloc(n);
    for (int i = 0; line != NULL && i < argc; i++)
        at += sprintf(at, "%s%s", i > 0 ? " " : "", argv[i]);
    return line;
}

static int run(int argc, char **argv)
{
    struct sl_log log = {sl_log_stderr, NULL, SL_LOG_INFO};
    struct options o = {
        .run = {.needs_less = "a smaller --prompt, --gen or --batch needs less",
                .log = &log,
                .contexts = &o.contexts,
                .quiet = true,
                .no_usage = true},
        .ram = {.v = {SL_RAM_AUTO}, .n = 1},
        .vram = {.v = {SL_VRAM_AUTO}, .n = 1},
        .prompt = {.v = {128}, .n = 1},
        .batch = {.v = {1}, .n = 1},
        .threads = {.v = {0}, .n = 1},
        .gen = 16,
        .repeat = 5,
    };
    struct sl_error err;
    char *command = join(argc, argv); /* argp moves the words about */
    int rc = sl_parse_args(&argp, argc, argv, &o);

    if (rc == 0 && command == NULL)
        rc = sl_finish(
            sl_fail(&err, SL_ERR_NOMEM, "no memory for the command line"),
            &err);
    else if (rc == 0)
        rc = sl_finish(bench(&o, command, &err), &err);
    free(command);
    return rc;
}

const struct sl_command sl_cmd_bench = {
    .name = "bench",
    .summary = "measure how fast a model runs, beside how fast it could",
    .run = run,
    .argp = &argp,
    .tables = true,
};
