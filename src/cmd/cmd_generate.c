#include "config.h"

#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/base/outfile.h"
#include "src/cmd/generate.h"
#include "src/cmd/open_vocab.h"

enum {
    OPT_INPUT_SOURCE = 0x200,
    OPT_WITH_ID,
    OPT_BATCH,
    OPT_OUTPUT_PATH,
    OPT_FORCE,
    OPT_RESUME,
    OPT_OUT_SEQ_LENGTH,
    OPT_MIN_GEN_LENGTH,
    OPT_SAMPLING_STRATEGY,
    OPT_STYLE,
    OPT_NUM_ANSWERS,
    OPT_NUM_BEAMS,
    OPT_LENGTH_PENALTY,
    OPT_NO_REPEAT_NGRAM,
    OPT_PRINT_ALL_BEAMS,
    OPT_DETERMINISTIC,
    OPT_PROMPT_CACHE,
    OPT_STATS,
    OPT_JSON,
};

/* Names and defaults are those of GLM-130B's generate.py and generate.sh. */
static const struct argp_option options[] = {
    {"prompt", 'p', "TEXT", 0,
     "Continue TEXT, or fill its [MASK], [sMASK] or [gMASK]; standard output "
     "is the text alone. '-' reads all of standard input",
     1},
    SL_TEXT_ROWS(1),
    {"input-source", OPT_INPUT_SOURCE, "SOURCE", 0,
     "'interactive' asks for queries (default), else a file with one query a "
     "line",
     1},
    {"with-id", OPT_WITH_ID, 0, 0,
     "Queries are ID<TAB>TEXT; answers go to ID.txt", 1},
    {"batch", OPT_BATCH, "N", 0,
     "Take N lines of the file through each pass over the weights together "
     "(default: 1)",
     1},
    {"output-path", OPT_OUTPUT_PATH, "DIR", 0,
     "Keep answers as files there (default: ./samples, and nothing with -p)",
     1},
    {"resume", OPT_RESUME, 0, 0,
     "Do not ask again the queries of the file whose answers are there, whole",
     1},
    {"force", OPT_FORCE, 0, 0,
     "Replace answers of earlier runs (default: they stay, and ID-2.txt comes "
     "after ID.txt)",
     1},
    {"out-seq-length", OPT_OUT_SEQ_LENGTH, "N", 0,
     "Most tokens of text, [sop] and answer together (default: 256)", 2},
    {"ctx", 'c', 0, OPTION_ALIAS, 0, 2},
    {"min-gen-length", OPT_MIN_GEN_LENGTH, "N", 0,
     "Fewest tokens of an answer (default: 0)", 2},
    {"style", OPT_STYLE, "NAME", 0,
     "How a GLM of 110M to 10B fills several blanks: glm-130b, one after "
     "another into the text (default), or glm, behind the text, each seeing "
     "those before",
     2},
    {"sampling-strategy", OPT_SAMPLING_STRATEGY, "NAME", 0,
     "BaseStrategy (default) or BeamSearchStrategy", 2},
    {0, 0, 0, 0, "BaseStrategy:", 3},
    SL_SAMPLING_ROWS(3, "1.0", "0", "0.7"),
    {"num-answers", OPT_NUM_ANSWERS, "N", 0,
     "Draw N answers from one text, which is read once (default: 1)", 3},
    {0, 0, 0, 0, "BeamSearchStrategy:", 4},
    {"num-beams", OPT_NUM_BEAMS, "N", 0, "Beams (default: 4)", 4},
    {"length-penalty", OPT_LENGTH_PENALTY, "X", 0, "Exponent (default: 1.0)",
     4},
    {"no-repeat-ngram-size", OPT_NO_REPEAT_NGRAM, "N", 0,
     "No N tokens come twice in an answer; 0 is off "
     "(default: 3)",
     4},
    {"print-all-beams", OPT_PRINT_ALL_BEAMS, 0, 0, "Print every beam", 4},
    {"deterministic", OPT_DETERMINISTIC, 0, 0,
     "Follow the likeliest candidates, where GLM-130B "
     "draws them",
     4},
    SL_SEED_ROW(5),
    {"prompt-cache", OPT_PROMPT_CACHE, "FILE", 0,
     "Keep what the first text's context leaves in the KV cache in FILE, and "
     "take it from there when the same is asked again",
     6},
    {"stats", OPT_STATS, 0, 0,
     "Say at the end how fast it was, and how fast it could have been", 6},
    {"json", OPT_JSON, 0, 0, "Print one JSON object a query", 6},
    SL_PROGRESS_ROW(6),
    SL_COLOR_ROW(6),
    {"quiet", 'q', 0, 0, "Say nothing but errors on standard error", 6},
    {0},
};

static enum sl_strategy parse_strategy(struct argp_state *state,
                                       const char *arg)
{
    if (strcmp(arg, "BaseStrategy") == 0)
        return SL_STRATEGY_BASE;
    if (strcmp(arg, "BeamSearchStrategy") != 0)
        argp_error(state,
                   "unknown strategy %s: BaseStrategy or BeamSearchStrategy",
                   arg);
    return SL_STRATEGY_BEAM;
}

static error_t parse_fill(int key, char *arg, struct argp_state *state,
                          struct sl_fill_config *f)
{
    switch (key) {
    case OPT_OUT_SEQ_LENGTH:
    case 'c':
        f->out_seq_length =
            (uint32_t)sl_opt_u64(state, "out-seq-length", arg, 2, 1 << 24);
        return 0;
    case OPT_MIN_GEN_LENGTH:
        f->min_gen_length =
            (uint32_t)sl_opt_u64(state, "min-gen-length", arg, 0, 1 << 24);
        return 0;
    case OPT_STYLE:
        f->pieces = strcmp(arg, "glm") == 0;
        if (!f->pieces && strcmp(arg, "glm-130b") != 0)
            argp_error(state, "--style is glm or glm-130b, not '%s'", arg);
        return 0;
    case OPT_SAMPLING_STRATEGY:
        f->strategy = parse_strategy(state, arg);
        return 0;
    case OPT_NUM_ANSWERS:
        f->n_answers = (uint32_t)sl_opt_u64(state, "num-answers", arg, 1, 256);
        return 0;
    case OPT_NUM_BEAMS:
        f->n_beams = (uint32_t)sl_opt_u64(state, "num-beams", arg, 1, 256);
        return 0;
    case OPT_LENGTH_PENALTY:
        f->length_penalty = sl_opt_f64(state, "length-penalty", arg, -100, 100);
        return 0;
    case OPT_NO_REPEAT_NGRAM:
        f->no_repeat_ngram = (uint32_t)sl_opt_u64(state, "no-repeat-ngram-size",
                                                  arg, 0, 1 << 24);
        return 0;
    case OPT_DETERMINISTIC:
        f->deterministic = true;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* What options say together. */
static void settle(struct sl_generate_options *o, struct argp_state *state)
{
    bool typed =
        o->input_source == NULL || strcmp(o->input_source, "interactive") == 0;

    if (o->text.prompt_file != NULL && o->prompt != NULL)
        argp_error(state, "one text at a time: -p or -f");
    if (o->text.prompt_file != NULL)
        o->prompt = o->text.dash;
    /* A text that is yet to be typed has the room of the usual length. */
    if (o->text.most_new > 0 && !o->length_given && o->prompt == NULL &&
        typed) {
        o->fill.out_seq_length += o->text.most_new;
        o->length_given = true;
    }
    if (o->prompt != NULL && (o->input_source != NULL || o->with_id))
        argp_error(state, "-p is one text: it goes with neither "
                          "--input-source nor --with-id");
    if (o->resume && (o->force || o->prompt != NULL || typed))
        argp_error(state, "--resume goes on with a file of queries: name "
                          "it with --input-source, without --force");
    if (o->fill.n_answers > 1 && o->fill.strategy != SL_STRATEGY_BASE)
        argp_error(state, "--num-answers draws, as BaseStrategy does; "
                          "beams are --num-beams");
    if (o->batch > 1 && (o->prompt != NULL || typed))
        argp_error(state, "--batch takes lines of a file together: name "
                          "one with --input-source");
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct sl_generate_options *o = state->input;

    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &o->draft;
        state->child_inputs[1] = &o->run;
        state->child_inputs[2] = &o->launcher;
        return 0;
    case 'p':
        o->prompt = arg;
        return 0;
    case OPT_INPUT_SOURCE:
        o->input_source = arg;
        return 0;
    case OPT_OUT_SEQ_LENGTH:
    case 'c':
        o->length_given = true;
        return parse_fill(key, arg, state, &o->fill);
    case OPT_WITH_ID:
        o->with_id = true;
        return 0;
    case OPT_BATCH:
        o->batch = (uint32_t)sl_opt_u64(state, "batch", arg, 1, 1024);
        return 0;
    case OPT_OUTPUT_PATH:
        o->output_path = arg;
        return 0;
    case OPT_RESUME:
        o->resume = true;
        return 0;
    case OPT_FORCE:
        o->force = true;
        return 0;
    case OPT_PRINT_ALL_BEAMS:
        o->print_all_beams = true;
        return 0;
    case OPT_PROMPT_CACHE:
        o->run.prompt_cache = arg;
        return 0;
    case OPT_STATS:
        o->stats = true;
        return 0;
    case OPT_JSON:
        o->json = true;
        return 0;
    case 'q':
        o->run.quiet = true;
        return 0;
    case ARGP_KEY_ARG:
        argp_error(state, "unexpected argument '%s': a text goes behind -p",
                   arg);
        return 0;
    case ARGP_KEY_END:
        settle(o, state);
        return 0;
    default:
        return sl_opt_sampling(&o->sampling, key, arg, state) ||
                       sl_opt_text(&o->text, key, arg, state) ||
                       sl_opt_progress(&o->progress, key, arg, state)
                   ? 0
                   : parse_fill(key, arg, state, &o->fill);
    }
}

static const struct argp_child children[] = {
    {&sl_draft_argp, 0, "Guessing ahead:", 6},
    {&sl_run_argp, 0, "Memory, threads and reading:", 7},
    {&sl_launcher_argp, 0, 0, 8},
    {0},
};

static const struct argp argp = {
    options,
    parse,
    0,
    "Continue texts, or fill their blanks, with a model whose weights stream "
    "from disk as far as they do not fit the budget.",
    children,
    0,
    0,
};

static int run_mode(struct sl_generate *g)
{
    if (g->o->prompt != NULL)
        return sl_generate_prompt(g);
    if (strcmp(g->o->input_source, "interactive") == 0)
        return sl_generate_interactive(g);
    return sl_generate_file(g);
}

void sl_generate_paths(struct sl_paths *p, const struct sl_generate_options *o)
{
    sl_run_paths(p, &o->run);
    sl_draft_paths(p, &o->draft);
    if (o->prompt != NULL && strcmp(o->prompt, "-") == 0)
        sl_paths_read(p, "-p", o->text.prompt_file ? NULL : "-");
    sl_paths_read(p, "-f", o->text.prompt_file);
    if (o->input_source != NULL && strcmp(o->input_source, "interactive") != 0)
        sl_paths_read(p, "--input-source", o->input_source);
    else if (o->prompt == NULL)
        sl_paths_read(p, "standard input", "-");
}

static int open_files(struct sl_generate *g, struct sl_error *err)
{
    struct sl_paths paths = {0};

    sl_generate_paths(&paths, g->o);
    if (sl_paths_end(&paths, err) != 0)
        return -1;
    if (g->o->output_path == NULL)
        return 0;
    if (sl_outfile_folder(g->o->output_path, err) != 0)
        return -1;
    return sl_keeper_create(&g->keeper, g, err);
}

static int run_all(struct sl_generate *g)
{
    struct sl_error err = {0};
    int code;

    if (open_files(g, &err) != 0 ||
        sl_drafts_open(&g->drafts, &g->draft_file, &g->o->draft, &err) != 0 ||
        sl_generate_open(g, &err) != 0)
        return sl_report(&err);
    g->hp = &sl_runtime_modelfile(g->rt)->hp;
    g->tokenizer = sl_runtime_tokenizer(g->rt);
    if (g->tokenizer == NULL) {
        sl_no_vocab(sl_runtime_modelfile(g->rt), &err);
        return sl_report(&err);
    }
    if (g->o->fill.pieces &&
        sl_runtime_modelfile(g->rt)->arch->prompts != SL_PROMPTS_GLM) {
        sl_fail(&err, SL_ERR_USAGE,
                "--style glm is for the original GLM; %s is %s",
                g->o->run.model, sl_runtime_modelfile(g->rt)->arch->what);
        return sl_report(&err);
    }
    if (g->hp->causal) {
        g->prefix = sl_tokenizer_prefix(g->tokenizer);
        g->stops = sl_tokenizer_stops(g->tokenizer);
    }
    if (g->o->fill.out_seq_length > g->hp->max_positions)
        sl_log(g->o->run.log, SL_LOG_INFO,
               "--out-seq-length %u goes beyond the %u positions the model "
               "was trained for",
               g->o->fill.out_seq_length, g->hp->max_positions);
    sl_rng_seed(&g->rng, g->o->sampling.seed);
    code = run_mode(g);
    sl_waiting_watch(g->waiting, NULL); /* statistics end the run */
    if (g->o->stats && g->started && sl_generate_print_stats(g, &err) != 0)
        sl_report(&err);
    if (g->started && sl_generate_wants_summary(g))
        sl_generate_print_summary(g);
    return code;
}

static int run(int argc, char **argv)
{
    struct sl_generate_options o = {
        .fill =
            {
                .strategy = SL_STRATEGY_BASE,
                .n_beams = 4,
                .length_penalty = 1.0,
                .no_repeat_ngram = 3,
                .out_seq_length = 256,
            },
        .sampling =
            {
                .sampler = {.temperature = 1.0, .top_k = 0, .top_p = 0.7},
                .seed = SL_USUAL_SEED,
            },
        .batch = 1,
    };
    struct sl_generate g = {.o = &o};
    struct sl_log log = {sl_generate_log, &g, SL_LOG_INFO};
    int code = sl_parse_args(&argp, argc, argv, &o);

    if (code != 0)
        return code;
    o.fill.sampler = sl_sampling_sampler(&o.sampling);
    o.fill.drafts = &g.drafts;
    if (o.run.quiet)
        log.max = SL_LOG_WARN;
    o.run.log = &log;
    sl_launcher_tell(&o.launcher, &log);
    if (o.prompt == NULL && o.input_source == NULL)
        o.input_source = "interactive";
    if (o.prompt == NULL && o.output_path == NULL)
        o.output_path = "samples";
    g.color = sl_wants_color(o.text.color);
    /* A reader that goes away is noticed by write, so that the run can be
     * closed in order. */
    signal(SIGPIPE, SIG_IGN);
    code = run_all(&g);
    sl_generate_close(&g);
    sl_keeper_destroy(g.keeper);
    sl_text_options_fini(&o.text);
    return code;
}

const struct sl_command sl_cmd_generate = {
    .name = "generate",
    .summary = "continue texts or fill their blanks",
    .run = run,
    .argp = &argp,
};
