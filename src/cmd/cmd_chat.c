#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/base/json.h"
#include "src/base/newfile.h"
#include "src/cmd/chat.h"
#include "src/cmd/folders.h"
#include "src/cmd/open_vocab.h"

enum {
    OPT_SYSTEM = 0x200,
    OPT_HISTORY,
    OPT_TEMPLATE,
    OPT_TOOLS,
    OPT_NO_THINK,
    OPT_STATS,
};

enum {
    USUAL_CTX = 4096, /* tokens, where the model allows and its cache is */
    LEAST_CTX = 512,  /* not larger than */
    USUAL_KV_MIB = 1024,
    PASS_POSITIONS = 1024, /* of a prompt at a time */
};

static const struct argp_option options[] = {
    {"prompt", 'p', "TEXT", 0,
     "Say TEXT, print the answer and leave; '-' reads all of standard input",
     1},
    {"system", OPT_SYSTEM, "TEXT", 0,
     "The system message, in the place of the model's own", 1},
    {"history", OPT_HISTORY, "FILE", 0,
     "Go on with the conversation in FILE (JSON, OpenAI's messages) and keep "
     "it there, turn by turn",
     1},
    {"no-think", OPT_NO_THINK, 0, 0,
     "Ask a model that thinks first to answer at once", 1},
    {"tools", OPT_TOOLS, "FILE", 0,
     "Tell the model of the tools in FILE (JSON, OpenAI's tools); what it "
     "calls is printed",
     1},
    {"template", OPT_TEMPLATE, "NAME", 0,
     "Put messages into the words of another model; an unknown NAME lists them "
     "(default: the model's own)",
     1},
    {"ctx", 'c', "N", 0,
     "Most tokens of a conversation that the model sees (default: 4096, or "
     "what the model was trained for, or what a cache of 1 GiB holds)",
     2},
    SL_TEXT_ROWS(2),
    SL_SAMPLING_ROWS(3, "the model's", "the model's", "the model's"),
    {"repetition-penalty", SL_OPT_REPETITION_PENALTY, "X", 0,
     "Makes tokens that were said less likely; 1 is off (default: the model's)",
     3},
    SL_SEED_ROW(3),
    {"stats", OPT_STATS, 0, 0,
     "Say after each turn what was read and how fast, and at the end how fast "
     "it could have been",
     4},
    SL_PROGRESS_ROW(4),
    SL_COLOR_ROW(4),
    {"quiet", 'q', 0, 0, "Say nothing but errors on standard error", 4},
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct sl_chat_options *o = state->input;

    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &o->run.draft;
        state->child_inputs[1] = &o->run.run;
        return 0;
    case 'p':
        o->run.prompt = arg;
        return 0;
    case OPT_SYSTEM:
        o->system = arg;
        return 0;
    case OPT_HISTORY:
        o->history = arg;
        return 0;
    case OPT_NO_THINK:
        o->no_think = true;
        return 0;
    case OPT_TOOLS:
        o->tools = arg;
        return 0;
    case OPT_TEMPLATE:
        o->tmpl = arg;
        return 0;
    case 'c':
        o->ctx = (uint32_t)sl_opt_u64(state, "ctx", arg, 16, 1 << 24);
        return 0;
    case ARGP_KEY_END:
        if (o->run.text.prompt_file != NULL && o->run.prompt != NULL)
            argp_error(state, "one text at a time: -p or -f");
        if (o->run.text.prompt_file != NULL)
            o->run.prompt = o->run.text.dash;
        return 0;
    case OPT_STATS:
        o->run.stats = true;
        return 0;
    case 'q':
        o->run.run.quiet = true;
        return 0;
    case ARGP_KEY_ARG:
        argp_error(state, "unexpected argument '%s': a text goes behind -p",
                   arg);
        return 0;
    default:
        return sl_opt_sampling(&o->run.sampling, key, arg, state) ||
                       sl_opt_text(&o->run.text, key, arg, state) ||
                       sl_opt_progress(&o->run.progress, key, arg, state)
                   ? 0
                   : ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_child children[] = {
    {&sl_draft_argp, 0, "Guessing ahead:", 6},
    {&sl_run_argp, 0, "Memory, threads and reading:", 7},
    {0},
};

static const struct argp argp = {
    options,
    parse,
    0,
    "Talk with a model. /help lists what can be said beside questions; Ctrl-C "
    "stops an answer, Ctrl-D leaves.",
    children,
    0,
    0,
};

/* --- before the model runs --------------------------------------------------
 */

static int unknown_template(const char *name, struct sl_error *err)
{
    char names[320] = "";

    for (size_t i = 0; sl_chat_template_at(i) != NULL; i++) {
        size_t n = strlen(names);

        snprintf(names + n, sizeof names - n, "%s%s", i > 0 ? ", " : "",
                 sl_chat_template_at(i)->name);
    }
    return sl_fail(err, SL_ERR_USAGE,
                   "--template: there is no %.40s; there are %s", name, names);
}

static int find_template(struct sl_chat *c, struct sl_error *err)
{
    const struct sl_modelfile *mf = sl_runtime_modelfile(c->g.rt);
    struct sl_chat_vocab vocab = sl_chat_vocab_of(&c->words);

    if (c->o->tmpl != NULL) {
        c->tmpl = sl_chat_template_named(c->o->tmpl);
        return c->tmpl != NULL ? 0 : unknown_template(c->o->tmpl, err);
    }
    c->tmpl = sl_chat_find(mf->chat, mf->arch->name, mf->name, &vocab);
    if (c->tmpl->base)
        sl_log(
            c->o->run.run.log, SL_LOG_WARN,
            "%s was not trained to chat: it goes on with a talk in ChatGLM's "
            "form, 问：... 答：...",
            mf->name);
    return 0;
}

/* Tokens of a conversation where nobody said how many. */
static uint32_t usual_ctx(const struct sl_hparams *hp)
{
    uint64_t bytes = 4ull * hp->n_layers * hp->n_kv_heads * hp->head_dim;
    uint64_t n = ((uint64_t)USUAL_KV_MIB << 20) / bytes;

    if (n > USUAL_CTX)
        n = USUAL_CTX;
    if (n < LEAST_CTX)
        n = LEAST_CTX;
    return n < hp->max_positions ? (uint32_t)n : hp->max_positions;
}

static int choose_ctx(struct sl_chat *c, uint32_t *ctx, struct sl_error *err)
{
    const struct sl_hparams *hp = c->g.hp;

    *ctx = c->o->ctx > 0 ? c->o->ctx : usual_ctx(hp);
    if (*ctx <= hp->max_positions)
        return 0;
    if (!hp->causal)
        return sl_fail(err, SL_ERR_USAGE,
                       "--ctx %u: the model's longest sequence is %u", *ctx,
                       hp->max_positions);
    sl_log(c->o->run.run.log, SL_LOG_INFO,
           "--ctx %u goes beyond the %u positions the model was trained for",
           *ctx, hp->max_positions);
    return 0;
}

static int read_tools(struct sl_chat *c, struct sl_error *err)
{
    if (c->o->tools == NULL)
        return 0;
    if (sl_json_load(&c->tools, c->o->tools, err) != 0)
        return -1;
    if (!json_is_array(c->tools) || c->tmpl->tools == SL_TOOLS_NONE)
        return sl_fail(err, SL_ERR_USAGE,
                       json_is_array(c->tools)
                           ? "--tools %s: this model has no place for tools"
                           : "%s: holds no list of tools",
                       c->o->tools);
    return 0;
}

/* A file that is not there yet, or empty, begins a conversation. */
static int read_history(struct sl_chat *c, struct sl_error *err)
{
    struct sl_chat_history *h = &c->begun;
    struct stat st;

    if (c->o->history != NULL &&
        (sl_newfile_check_kind(c->o->history, err) != 0 ||
         sl_newfile_check_place(c->o->history, err) != 0)) {
        sl_error_prefix(err, "--history ");
        return -1;
    }
    if (c->o->history != NULL && stat(c->o->history, &st) == 0 &&
        st.st_size > 0 && sl_chat_history_read(h, c->o->history, err) != 0)
        return -1;
    if (c->o->system == NULL)
        return 0;
    return sl_chat_history_set_system(h, c->o->system, err);
}

static int open_editor(struct sl_chat *c, struct sl_error *err)
{
    struct sl_line_config config = {
        .stop_fd = sl_interrupt_fd(c->g.interrupt),
        .most = c->most_text,
        .history = "history",
        .log = c->o->run.run.log,
    };

    return sl_line_editor_open(&c->editor, &config, err);
}

/* What the command line leaves open is the publisher's, then the template's. */
static void settle_sampling(struct sl_sampling_options *o,
                            const struct sl_chat_template *tmpl,
                            const struct sl_hparams *hp)
{
    struct sl_sampling by = hp->sampling;

    if (!hp->causal) /* whose decoder has none */
        by.given &= ~(unsigned)SL_SAMPLING_PENALTY;
    /* A model that is said not to sample does when somebody says how. */
    if (by.top_k == 1 &&
        (o->given & (SL_SAMPLING_TEMPERATURE | SL_SAMPLING_TOP_P)) != 0)
        by.given &= ~(unsigned)SL_SAMPLING_TOP_K;
    sl_sampling_settle(o, &by);
    sl_sampling_settle(o, &tmpl->sampling);
}

/* --- a run ------------------------------------------------------------------
 */

static int start(struct sl_chat *c, struct sl_error *err)
{
    struct sl_workload load;
    uint32_t ctx;

    if (choose_ctx(c, &ctx, err) != 0)
        return -1;
    c->most_text = sl_text_most_bytes(ctx);
    if (read_tools(c, err) != 0 || read_history(c, err) != 0 ||
        sl_chat_read_prompt(c, err) != 0)
        return -1;
    if (!c->g.hp->causal && c->o->run.sampling.penalty != 1)
        return sl_fail(err, SL_ERR_USAGE,
                       "--repetition-penalty is for causal models, which this "
                       "one is not");
    if (sl_session_workload(&load, c->g.hp, ctx, PASS_POSITIONS, &c->g.drafts,
                            err) != 0)
        return -1;
    if (c->o->run.prompt == NULL && open_editor(c, err) != 0)
        return -1;
    if (sl_detok_create_as(&c->detok, c->g.tokenizer, SL_SPECIALS_HIDDEN,
                           err) != 0)
        return -1;
    return sl_generate_start(&c->g, &load, err);
}

static int talk(struct sl_chat *c, struct sl_error *err)
{
    struct sl_chat_vocab vocab = sl_chat_vocab_of(&c->words);
    struct sl_chat_speaker speaker = sl_chat_speaker_of(c);
    struct sl_session_config config = {
        .lm = sl_runtime_lm(c->g.rt),
        .drafts = &c->g.drafts,
        .hp = c->g.hp,
        .tmpl = c->tmpl,
        .vocab = &vocab,
        .speaker = &speaker,
        .stops = sl_tokenizer_stops(c->g.tokenizer),
        .tools = c->tools,
        .max_new = c->o->run.text.most_new,
        .stop_texts = &c->o->run.text.stops,
        .pass_positions = PASS_POSITIONS,
        .no_think = c->o->no_think,
    };
    struct sl_sampling_options sampling = c->o->run.sampling;
    int code;

    settle_sampling(&sampling, c->tmpl, c->g.hp);
    config.sampler = sl_sampling_sampler(&sampling);
    config.repetition_penalty = sampling.penalty;
    config.seed = sampling.seed;
    if (sl_session_open(&c->session, &config, err) != 0) {
        sl_session_close(&c->session);
        return sl_report(err);
    }
    c->session.history = c->begun; /* moved */
    c->begun = (struct sl_chat_history){0};
    if (c->o->run.prompt != NULL) {
        code = sl_chat_prompt(c);
    } else {
        if (!c->o->run.run.quiet && sl_line_editor_has_terminal(c->editor))
            sl_message("/help tells more, Ctrl-D leaves");
        code = sl_chat_talk(c);
    }
    sl_session_close(&c->session);
    if (code == SL_EXIT_FAILED)
        sl_runtime_spoil(c->g.rt);
    return code;
}

static int check_paths(const struct sl_chat_options *o, struct sl_error *err)
{
    struct sl_paths paths = {0};

    sl_run_paths(&paths, &o->run.run);
    sl_draft_paths(&paths, &o->run.draft);
    if (o->run.prompt != NULL && strcmp(o->run.prompt, "-") == 0)
        sl_paths_read(&paths, "-p", o->run.text.prompt_file ? NULL : "-");
    sl_paths_read(&paths, "-f", o->run.text.prompt_file);
    sl_paths_read(&paths, "--tools", o->tools);
    sl_paths_write(&paths, "--history", o->history);
    return sl_paths_end(&paths, err);
}

static int run_all(struct sl_chat *c)
{
    struct sl_error err = {0};
    int code;

    if (check_paths(c->o, &err) != 0)
        return sl_report(&err);
    if (sl_drafts_open(&c->g.drafts, &c->g.draft_file, &c->o->run.draft,
                       &err) != 0 ||
        sl_generate_open(&c->g, &err) != 0)
        return sl_report(&err);
    c->g.hp = &sl_runtime_modelfile(c->g.rt)->hp;
    c->g.tokenizer = sl_runtime_tokenizer(c->g.rt);
    if (c->g.tokenizer == NULL) {
        sl_no_vocab(sl_runtime_modelfile(c->g.rt), &err);
        return sl_report(&err);
    }
    c->words = (struct sl_chat_words){c->g.tokenizer, &c->g.hp->text.special};
    if (find_template(c, &err) != 0 || start(c, &err) != 0)
        return sl_report(&err);
    code = talk(c, &err);
    sl_waiting_watch(c->g.waiting, NULL); /* statistics end the run */
    if (c->o->run.stats && c->g.n_generated > 0 &&
        sl_generate_print_stats(&c->g, &err) != 0)
        sl_report(&err);
    return code;
}

static int run(int argc, char **argv)
{
    struct sl_chat_options o = {
        .run =
            {
                .fill = {.strategy = SL_STRATEGY_BASE},
                .sampling = {.penalty = 1, .seed = SL_USUAL_SEED},
            },
    };
    struct sl_chat c = {.o = &o, .g = {.o = &o.run}};
    struct sl_log log = {sl_generate_log, &c.g, SL_LOG_INFO};
    int code = sl_parse_args(&argp, argc, argv, &o);

    if (code != 0)
        return code;
    if (o.run.run.quiet)
        log.max = SL_LOG_WARN;
    o.run.run.log = &log;
    o.run.run.needs_less = "a shorter --ctx needs less";
    c.g.color = sl_wants_color(o.run.text.color);
    c.terminal = isatty(STDOUT_FILENO);
    /* A reader that goes away is noticed by write, so that the run can be
     * closed in order. */
    signal(SIGPIPE, SIG_IGN);
    code = run_all(&c);
    sl_detok_destroy(c.detok);
    sl_lines_fini(&c.said);
    sl_line_editor_close(c.editor);
    json_decref(c.tools);
    sl_chat_history_fini(&c.begun);
    sl_generate_close(&c.g);
    sl_text_options_fini(&o.run.text);
    return code;
}

const struct sl_command sl_cmd_chat = {
    .name = "chat",
    .summary = "talk with a model",
    .run = run,
    .argp = &argp,
};
