#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/json.h"
#include "src/base/tame.h"
#include "src/cmd/eval_model.h"
#include "src/cmd/open_vocab.h"
#include "src/cmd/opts_run.h"
#include "src/cmd/waiting.h"
#include "src/eval/perplexity.h"
#include "src/probe/meminfo.h"

/* A window where nothing else is said, as long as the model takes it. */
#define CONTEXT_DEFAULT 2048u

struct options {
    struct sl_runtime_config run;
    struct sl_device_contexts contexts;
    const char *against;
    char **texts; /* (n_texts) paths, borrowed */
    size_t n_texts;
    struct sl_eval_options eval;
    uint32_t context, stride, positions; /* 0: by default */
    bool json;
    enum sl_progress_kind progress;
    struct sl_waiting *waiting;
};

/* An evaluation, and who waits for it. */
struct asking {
    struct sl_eval_run run; /* first: it is what passes know */
    struct sl_waiting *waiting;
    size_t at; /* the window that is asked next */
};

/* --- running ------------------------------------------------------------- */

/* Each text is a file of one task. */
static int make_task(struct sl_tasks *tasks, const struct options *o,
                     const struct sl_hparams *hp, struct sl_error *err)
{
    uint32_t context = o->context ? o->context : CONTEXT_DEFAULT;
    struct sl_task task;

    if (context > hp->max_positions)
        context = hp->max_positions;
    if (o->context > hp->max_positions)
        return sl_fail(err, SL_ERR_USAGE,
                       "--context %u is more than the model takes: %u",
                       o->context, hp->max_positions);
    if (o->stride >= context)
        return sl_fail(err, SL_ERR_USAGE,
                       "--stride %u is not less than the window of %u",
                       o->stride, context);
    if (sl_task_init(&task, SL_TASK_LM, "perplexity", err) != 0)
        return -1;
    task.use_task_mask = true;
    task.max_seq_length = context;
    task.generation_length = o->stride ? o->stride : context / 2;
    for (size_t i = 0; i < o->n_texts; i++) {
        if (sl_task_add_group(&task, o->texts[i], o->texts[i], err) != 0) {
            sl_task_fini(&task);
            return -1;
        }
    }
    return sl_tasks_add(tasks, &task, err);
}

/* That two models read the texts alike. */
static int check_alike(const struct sl_eval_model *m, struct sl_runtime *other,
                       const struct sl_eval *ev, const char *path,
                       struct sl_error *err)
{
    const struct sl_modelfile *mf = sl_runtime_modelfile(other);
    struct sl_tokenizer *t;
    int rc;

    if (mf->hp.vocab != m->hp.vocab || mf->hp.causal != m->hp.causal ||
        mf->hp.position_2d != m->hp.position_2d)
        return sl_fail(err, SL_ERR_USAGE,
                       "%s is another model: %u ids%s, here %u%s", path,
                       mf->hp.vocab, mf->hp.causal ? ", causal" : "",
                       m->hp.vocab, m->hp.causal ? ", causal" : "");
    if (sl_open_vocab_of(&t, mf, err) != 0)
        return -1;
    rc = 0;
    for (size_t i = 0; rc == 0 && i < ev->v[0].n_files; i++) {
        const struct sl_passage *p = &ev->v[0].files[i].data.v[0].inputs;
        struct sl_ids a = {0}, b = {0};

        rc = sl_tokenizer_encode(m->tokenizer, &a, p->text, p->n_text, err);
        if (rc == 0)
            rc = sl_tokenizer_encode(t, &b, p->text, p->n_text, err);
        if (rc == 0 && (a.n != b.n || memcmp(a.v, b.v, a.n * sizeof *a.v)))
            rc = sl_fail(err, SL_ERR_USAGE,
                         "%s reads %s otherwise: its vocabulary is another",
                         path, ev->v[0].files[i].name);
        sl_ids_fini(&a);
        sl_ids_fini(&b);
    }
    sl_tokenizer_destroy(t);
    return rc;
}

static int next_question(void *opaque, struct sl_question **q, bool wait,
                         struct sl_error *err)
{
    struct asking *a = opaque;
    struct sl_eval_task *t = &a->run.ev->v[0];

    (void)wait;
    (void)err;
    *q = a->at < t->n_units ? &t->units[a->at++].q : NULL;
    return 0;
}

static int question_done(void *opaque, struct sl_question *q,
                         struct sl_error *err)
{
    struct asking *a = opaque;

    (void)q;
    (void)err;
    a->run.progress.questions++;
    sl_waiting_count(a->waiting, "windows", a->run.progress.questions,
                     a->run.progress.n_questions);
    return 0;
}

static int ask(struct asking *a, struct sl_lm *other, struct sl_error *err)
{
    struct sl_eval_run *run = &a->run;
    struct sl_eval_task *t = &run->ev->v[0];
    struct sl_pack_config config = sl_eval_pack_config(run);
    int rc = 0;

    config.other = other;
    config.next = next_question;
    config.done = question_done;
    for (size_t i = 0; rc == 0 && other != NULL && i < t->n_units; i++)
        rc = sl_question_init_other(&t->units[i].q, err);
    if (rc == 0)
        rc = sl_pack_ask(&config, err);
    free(run->passes);
    return rc;
}

/* --- output -------------------------------------------------------------- */

static void print_text(const char *name, const struct sl_perplexity *p,
                       bool is_glm)
{
    printf("%s: %llu tokens, %llu words, %llu bytes\n", SL_TAMED(name),
           (unsigned long long)p->n_tokens, (unsigned long long)p->n_words,
           (unsigned long long)p->n_bytes);
    printf("  perplexity per token   %.4f +/- %.4f\n", p->per_token, p->error);
    printf("  perplexity per word    %.4f\n", p->per_word);
    printf("  bits per byte          %.4f\n", p->bits_per_byte);
    if (is_glm)
        printf("  adjusted perplexity    %.4f\n", p->adjusted);
    if (!p->against)
        return;
    printf("  the other's, per token %.4f\n", p->other_per_token);
    printf("  KL divergence, mean    %.6f\n", p->divergence);
    printf("  KL divergence, median  %.6f\n", p->divergence_median);
    printf("  KL divergence, 99 %%    %.6f\n", p->divergence_99);
    printf("  KL divergence, most    %.6f\n", p->divergence_most);
    printf("  same top token         %.3f %%\n", 100 * p->same_top);
}

static json_t *to_json(const char *name, const struct sl_perplexity *p)
{
    json_t *o = json_pack(
        "{so sI sI sI sI sf sf sf sf sf sf}", "text", sl_json_text(name),
        "tokens", (json_int_t)p->n_tokens, "scored", (json_int_t)p->n_scored,
        "words", (json_int_t)p->n_words, "bytes", (json_int_t)p->n_bytes,
        "loss", p->loss, "perplexity", p->per_token, "error", p->error,
        "word_perplexity", p->per_word, "bits_per_byte", p->bits_per_byte,
        "adjusted_perplexity", p->adjusted);

    if (p->against)
        json_object_set_new(
            o, "against",
            json_pack("{sf s{sf sf sf sf} sf}", "perplexity",
                      p->other_per_token, "kl_divergence", "mean",
                      p->divergence, "median", p->divergence_median, "p99",
                      p->divergence_99, "max", p->divergence_most, "same_top",
                      p->same_top));
    return o;
}

/* A line for each text, and one for all of several. */
static int show(const struct options *o, const struct sl_eval_model *m,
                const struct sl_eval *ev, struct sl_error *err)
{
    const struct sl_eval_task *t = &ev->v[0];
    json_t *list = json_array();
    struct sl_perplexity p;
    int rc = 0;

    for (size_t i = 0; i < t->n_files + (t->n_files > 1); i++) {
        bool all = i == t->n_files;
        const char *name = all ? "all" : t->files[i].name;

        if (sl_perplexity_of(&p, t, all ? 0 : i, all ? t->n_files : 1, err)) {
            json_decref(list);
            return -1;
        }
        if (o->json)
            json_array_append_new(list, to_json(name, &p));
        else
            print_text(name, &p, m->is_glm);
    }
    if (o->json)
        rc = sl_json_print(stdout, json_pack("{sO}", "texts", list),
                           JSON_INDENT(1) | JSON_REAL_PRECISION(12), err);
    json_decref(list);
    return rc;
}

/* Two models share what memory there is. */
static void split_budget(struct sl_runtime_config *first,
                         struct sl_runtime_config *second)
{
    uint64_t all = first->ram_bytes;

    if (first->vram_bytes != SL_VRAM_AUTO)
        first->vram_bytes = second->vram_bytes = first->vram_bytes / 2;
    first->vram_parts = 2;
    if (all == SL_RAM_LEAST)
        return;
    if (all == SL_RAM_AUTO)
        all = sl_meminfo_available() / 10 * 9;
    first->ram_bytes = all / 2;
    second->ram_bytes = all; /* the first's is counted as the program's */
}

static int check_paths(const struct options *o, struct sl_error *err)
{
    struct sl_paths paths = {0};

    sl_run_paths(&paths, &o->run);
    sl_paths_read(&paths, "--against", o->against);
    for (size_t i = 0; i < o->n_texts; i++)
        sl_paths_read(&paths, "TEXT", o->texts[i]);
    return sl_paths_end(&paths, err);
}

static int perplexity(struct options *o, struct sl_error *err)
{
    struct sl_runtime_config second = o->run;
    struct sl_eval_model model = {0};
    struct sl_runtime *other = NULL;
    struct sl_tasks tasks = {0};
    struct sl_eval ev = {0};
    struct asking a = {.run = {.ev = &ev}};
    struct sl_eval_run *run = &a.run;
    int rc;

    if (check_paths(o, err) != 0)
        return -1;
    o->eval.log = o->run.log;
    if (o->against != NULL)
        split_budget(&o->run, &second);
    second.model = o->against;
    second.trace = NULL;
    if (sl_waiting_create(&o->waiting, o->progress, o->run.quiet, err) != 0)
        return -1;
    a.waiting = o->waiting;
    if (!o->run.verify)
        sl_waiting_begin(a.waiting, "opening the model", 0);
    rc = sl_eval_model_open(&model, &o->run, err);
    if (rc == 0)
        rc = make_task(&tasks, o, &model.hp, err);
    if (rc == 0)
        rc = sl_eval_load(&ev, &tasks, model.tokenizer, &model.hp, model.is_glm,
                          &o->eval, err);
    if (rc == 0) {
        sl_eval_measure(&ev);
        rc = sl_eval_model_start(&model, &o->run, run, o->positions, err);
    }
    if (rc == 0 && o->against != NULL) {
        rc = sl_runtime_open(&other, &second, err);
        if (rc == 0)
            rc = check_alike(&model, other, &ev, o->against, err);
        if (rc == 0)
            rc = sl_runtime_start(other, &model.load, err);
    }
    if (rc == 0) {
        sl_eval_progress_init(&run->progress, ev.needs.n_questions,
                              ev.needs.n_positions,
                              o->run.quiet || a.waiting != NULL);
        sl_waiting_watch(a.waiting, model.rt);
        sl_waiting_begin(a.waiting, "computing", 0);
        rc = ask(&a, other ? sl_runtime_lm(other) : NULL, err);
        sl_eval_progress_fini(&run->progress);
    }
    sl_waiting_destroy(a.waiting);
    o->waiting = NULL;
    if (rc == 0)
        rc = show(o, &model, &ev, err);
    sl_eval_fini(&ev);
    sl_runtime_close(other);
    sl_eval_model_close(&model);
    sl_tasks_fini(&tasks);
    return rc;
}

/* --- command ------------------------------------------------------------- */

enum {
    OPT_AGAINST = 0x300,
    OPT_CONTEXT,
    OPT_STRIDE,
    OPT_POSITIONS,
    OPT_UNIDIRECTIONAL,
    OPT_JSON,
};

static const struct argp_option options[] = {
    {"against", OPT_AGAINST, "FILE", 0,
     "Another model file of the same vocabulary, as FP16 is of INT4: how far "
     "the model is from it",
     0},
    {"context", OPT_CONTEXT, "N", 0,
     "Tokens of a window (default 2048, or what the model takes)", 0},
    {"stride", OPT_STRIDE, "N", 0,
     "Tokens that a window scores behind what it has in common with the one "
     "before (default: half of --context)",
     0},
    {"unidirectional", OPT_UNIDIRECTIONAL, 0, 0,
     "Ask a model whose context sees all of itself as a causal one", 0},
    {"pass-positions", OPT_POSITIONS, "N", 0,
     "Tokens that go through the weights together (default: where arithmetic "
     "begins to limit)",
     0},
    {"json", OPT_JSON, 0, 0, "Print JSON", 0},
    SL_PROGRESS_ROW(0),
    {"quiet", 'q', 0, 0, "No progress and no notices", 0},
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct options *o = state->input;

    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &o->run;
        return 0;
    case ARGP_KEY_ARG:
        sl_opt_append(state, &o->texts, &o->n_texts, arg);
        return 0;
    case OPT_AGAINST:
        o->against = arg;
        return 0;
    case OPT_CONTEXT:
        o->context = (uint32_t)sl_opt_u64(state, "context", arg, 8, 1u << 24);
        return 0;
    case OPT_STRIDE:
        o->stride = (uint32_t)sl_opt_u64(state, "stride", arg, 1, 1u << 24);
        return 0;
    case OPT_UNIDIRECTIONAL:
        o->eval.build.unidirectional = true;
        return 0;
    case OPT_POSITIONS:
        o->positions =
            (uint32_t)sl_opt_u64(state, "pass-positions", arg, 1, 1u << 20);
        return 0;
    case OPT_JSON:
        o->json = true;
        return 0;
    case 'q':
        o->run.quiet = true;
        return 0;
    case ARGP_KEY_END:
        if (o->n_texts == 0)
            argp_error(state, "no text given: a file, or several");
        return 0;
    default:
        return sl_opt_progress(&o->progress, key, arg, state)
                   ? 0
                   : ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_child children[] = {
    {&sl_run_argp, 0, "Memory and threads:", 0},
    {0},
};

static const struct argp argp = {
    options,
    parse,
    "-m FILE TEXT...",
    "Measure how well a model knows texts: perplexity per token and per word, "
    "bits per byte.",
    children,
    0,
    0,
};

static int run(int argc, char **argv)
{
    struct options o = {
        .run.needs_less = "a smaller --context needs less",
        .run.contexts = &o.contexts,
    };
    struct sl_log log = {sl_waiting_log, &o.waiting, SL_LOG_INFO};
    struct sl_error err;
    int rc = sl_parse_args(&argp, argc, argv, &o);

    if (rc == 0) {
        o.run.log = o.run.quiet ? NULL : &log;
        rc = sl_finish(perplexity(&o, &err), &err);
    }
    free(o.texts);
    return rc;
}

const struct sl_command sl_cmd_perplexity = {
    .name = "perplexity",
    .summary = "measure how well a model knows texts",
    .run = run,
    .argp = &argp,
    .tables = true,
};
