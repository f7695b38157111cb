#include "config.h"

#include <stdio.h>
#include <stdlib.h>

#include "src/base/bytes.h"
#include "src/base/json.h"
#include "src/base/newfile.h"
#include "src/base/paths.h"
#include "src/base/tame.h"
#include "src/cmd/opts_shape.h"
#include "src/cmd/stop.h"
#include "src/convert/synth.h"
#include "src/eval/files.h"
#include "src/text/tokenizer.h"

struct synth_args {
    struct sl_synth_options o;
    struct sl_config flags;
    const char *preset, *tokenizer;
    char *text; /* of the tokenizer, owned */
    bool json;
};

enum {
    OPT_QUANT_TP = 0x200,
    OPT_HEAD,
    OPT_NAME,
    OPT_SEED,
    OPT_TOKENIZER,
    OPT_QUANT_EXPERTS,
    OPT_ROUTER_SKEW,
    OPT_THREADS,
    OPT_FORCE,
    OPT_JSON,
};

static const struct argp_option options[] = {
    {0, 0, 0, 0, "The model file:", 1},
    {"output", 'o', "FILE", 0,
     "Write the model file FILE (default: ./NAME-QUANT.gguf)", 0},
    {"quant", 'q', "KIND", 0,
     "f32, f16, bf16, int8, int4, int8-planes, or int8-gN, int4-gN, "
     "int8-planes-gN with N = 32, 64, 128, as convert has it (default: int4-g64)",
     0},
    {"quant-tp", OPT_QUANT_TP, "N", 0,
     "With int8 and int4: scales as the ranks of an N-way checkpoint would "
     "have them",
     0},
    {"quant-experts", OPT_QUANT_EXPERTS, "KIND", 0,
     "The same for the experts of a mixture (default: as --quant)", 0},
    {"router-skew", OPT_ROUTER_SKEW, "S", 0,
     "Of a mixture: choose the expert of rank r as often as 1 / r^S (default: "
     "0, all alike)",
     0},
    {"head", OPT_HEAD, "KIND", 0,
     "f16, bf16 or int8-g64: the embedding, which is the output head too (default: "
     "as convert has it)",
     0},
    {"name", OPT_NAME, "NAME", 0,
     "The model's name (default: that of PRESET, or 'synth')", 0},
    {"tokenizer", OPT_TOKENIZER, "FILE", 0,
     "A sentencepiece model (ice_text.model) that the model knows texts by "
     "(default: none)",
     0},
    {"seed", OPT_SEED, "N", 0, "Other weights for every number (default: 0)",
     0},
    {0, 0, 0, 0, "The writing:", 2},
    {"threads", OPT_THREADS, "N", 0, "Write with N threads (default: 4)", 0},
    {"force", OPT_FORCE, 0, 0, "Replace FILE, and FILE.partial", 0},
    {"json", OPT_JSON, 0, 0, "Print the summary as JSON", 0},
    {"quiet", 'Q', 0, 0, "Print no progress and no summary", 0},
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct synth_args *a = state->input;
    struct sl_synth_options *o = &a->o;

    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &a->flags;
        return 0;
    case 'o':
        o->output = arg;
        return 0;
    case 'q':
        o->quant = arg;
        return 0;
    case OPT_QUANT_TP:
        o->quant_tp = (unsigned)sl_opt_u64(state, "quant-tp", arg, 1, 1024);
        return 0;
    case OPT_QUANT_EXPERTS:
        o->quant_experts = arg;
        return 0;
    case OPT_ROUTER_SKEW:
        o->router_skew = sl_opt_f64(state, "router-skew", arg, 0, 4);
        return 0;
    case OPT_HEAD:
        o->head = arg;
        return 0;
    case OPT_NAME:
        o->name = arg;
        return 0;
    case OPT_TOKENIZER:
        a->tokenizer = arg;
        return 0;
    case OPT_SEED:
        o->seed = sl_opt_u64(state, "seed", arg, 0, UINT64_MAX);
        return 0;
    case OPT_THREADS:
        o->threads = (unsigned)sl_opt_u64(state, "threads", arg, 1, 1024);
        return 0;
    case OPT_FORCE:
        o->force = true;
        return 0;
    case OPT_JSON:
        a->json = true;
        return 0;
    case 'Q':
        o->quiet = true;
        return 0;
    case ARGP_KEY_ARG:
        return sl_opt_argument(state, &a->preset, "PRESET", arg);
    case ARGP_KEY_END:
        if (a->preset == NULL && a->flags.given == 0)
            argp_error(state,
                       "no PRESET (" SL_SYNTH_PRESETS "), and no --num-layers "
                       "and so on");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_child children[] = {
    {&sl_shape_argp, 0, "The model's shape, over the preset's:", 3},
    {0},
};

static const struct argp argp = {
    options,
    parse,
    "[PRESET]",
    "Write a model file with random weights, to measure with.\v"
    "PRESET is " SL_SYNTH_PRESETS ".",
    children,
    0,
    0,
};

/* The preset, and over it what the command line says. */
static int choose_shape(struct synth_args *a, struct sl_error *err)
{
    char missing[SL_CONFIG_MISSING], given[SL_SHAPE_GIVEN];
    struct sl_config c;

    sl_config_init(&c);
    a->o.arch = &sl_arch_glm130b;
    if (a->preset != NULL &&
        sl_synth_preset(&c, &a->o.arch, a->preset, err) != 0)
        return -1;
    sl_config_overlay(&c, &a->flags);
    if (sl_config_missing(missing, &c))
        return sl_fail(err, SL_ERR_USAGE,
                       "the model's size is not known: give %s too, or a "
                       "PRESET (" SL_SYNTH_PRESETS ")",
                       missing);
    if (!sl_config_has(&c, SL_CONFIG_IMAGE_TOKENS))
        sl_config_mark(&c, SL_CONFIG_IMAGE_TOKENS); /* none */
    if (a->o.name == NULL)
        a->o.name = a->preset != NULL ? a->preset : "synth";
    if (sl_config_finish(&a->o.hp, a->o.arch, &c, err) == 0)
        return 0;
    /* The shape is all from the command line. */
    if (err->code == SL_ERR_CORRUPT) {
        err->code = SL_ERR_USAGE;
        sl_shape_given(given, &a->flags);
        sl_error_prefix(err, "%s: ", given);
    }
    return -1;
}

static int check_paths(const struct synth_args *a, struct sl_error *err)
{
    struct sl_paths paths = {0};
    char *output, *partial = NULL;
    int n;

    if (a->o.output == NULL)
        return 0;
    if (sl_newfile_name(&output, a->o.output, err) != 0)
        return -1;
    n = asprintf(&partial, "%s.partial", output);
    free(output);
    if (n < 0)
        return sl_fail(err, SL_ERR_NOMEM, "no memory for a path");
    sl_paths_read(&paths, "--tokenizer", a->tokenizer);
    sl_paths_write(&paths, "--output", a->o.output);
    sl_paths_write(&paths, "--output", partial);
    free(partial);
    return sl_paths_end(&paths, err);
}

/* What the model knows texts by, of which its ids follow. */
static int read_tokenizer(struct synth_args *a, struct sl_error *err)
{
    struct sl_text_params *tp = &a->o.hp.text;

    if (a->tokenizer == NULL)
        return 0;
    if (sl_file_read(&a->text, &a->o.tokenizer_bytes, a->tokenizer, err) != 0)
        return -1;
    a->o.tokenizer = a->text;
    if (sl_tokenizer_describe(tp, a->text, a->o.tokenizer_bytes, err) != 0) {
        sl_error_prefix(err, "%s: ", a->tokenizer);
        return -1;
    }
    if (tp->n_tokens > a->o.hp.vocab)
        return sl_fail(err, SL_ERR_USAGE,
                       "%s has %u ids, the vocabulary %u: give --vocab-size",
                       a->tokenizer, tp->n_tokens, a->o.hp.vocab);
    return 0;
}

static int print_result(const struct synth_args *a,
                        const struct sl_synth_result *r)
{
    char size[SL_SIZE_TEXT], rate[SL_SIZE_TEXT];
    double s = (double)r->ns * 1e-9;
    json_t *root;
    struct sl_error err;

    if (!a->json) {
        if (!a->o.quiet)
            printf("%s: %s, %s of random weights, in %.1f s (%s/s)\n",
                   SL_TAMED(r->output), r->quant,
                   sl_size_format(size, r->file_bytes), s,
                   sl_size_format(rate, (uint64_t)((double)r->file_bytes / s)));
        return sl_finish_stdout(SL_EXIT_OK);
    }
    root = json_pack("{s:o, s:s, s:I, s:I, s:f}", "output",
                     sl_json_text(r->output), "quant", r->quant, "bytes",
                     (json_int_t)r->file_bytes, "seed", (json_int_t)a->o.seed,
                     "seconds", s);
    return sl_finish(sl_json_print(stdout, root, JSON_INDENT(1), &err), &err);
}

static int run(int argc, char **argv)
{
    struct synth_args args = {.json = false};
    struct sl_synth_result result;
    struct sl_error err;
    sigset_t set;
    int rc;

    sl_config_init(&args.flags);
    rc = sl_parse_args(&argp, argc, argv, &args);
    if (rc != 0)
        return rc;
    rc = check_paths(&args, &err);
    if (rc == 0)
        rc = choose_shape(&args, &err);
    if (rc == 0)
        rc = read_tokenizer(&args, &err);
    if (rc == 0) {
        sl_stop_block(&set);
        args.o.interrupted = sl_stop_came;
        args.o.opaque = &set;
        rc = sl_synth(&result, &args.o, &err);
        sl_stop_unblock(&set);
    }
    free(args.text);
    if (rc != 0)
        return sl_report(&err);
    rc = print_result(&args, &result);
    sl_synth_result_fini(&result);
    return rc;
}

const struct sl_command sl_cmd_synth = {
    .name = "synth",
    .summary = "write a model file with random weights, to measure with",
    .run = run,
    .argp = &argp,
    .tables = true,
};
