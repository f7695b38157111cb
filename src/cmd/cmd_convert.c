#include "config.h"

#include <libgen.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/bytes.h"
#include "src/base/json.h"
#include "src/base/tame.h"
#include "src/cmd/folders.h"
#include "src/cmd/open_vocab.h"
#include "src/cmd/opts_run.h"
#include "src/cmd/opts_shape.h"
#include "src/cmd/stop.h"
#include "src/convert/convert.h"
#include "src/probe/survey.h"
#include "src/text/chat.h"

enum {
    OPT_QUANT = 0x200,
    OPT_QUANT_TP,
    OPT_QUANT_EXPERTS,
    OPT_HEAD,
    OPT_REPORT,
    OPT_JSON,
    OPT_RAM,
    OPT_THREADS,
    OPT_RESUME,
    OPT_FORCE,
    OPT_NO_VERIFY_SOURCE,
    OPT_PRESET,
    OPT_TOKENIZER,
    OPT_NAME,
    OPT_COMPRESS,
    OPT_LORA,
    OPT_NO_PLANES,
};

static const struct argp_option options[] = {
    {0, 0, 0, 0, "The model file:", 1},
    {"output", 'o', "FILE", 0,
     "Write the model file FILE (default: ./NAME-QUANT.gguf)", 0},
    {"quant", OPT_QUANT, "KIND", 0,
     "keep, f32, f16, bf16, int8, int4 (GLM's row-wise scheme), int8-planes "
     "(of which four bits a weight are a model of their own), or int8-gN, "
     "int4-gN, int8-planes-gN with N = 32, 64, 128 (a scale for every N columns, "
     "of least squared error). Default: int4-g64; a checkpoint that is "
     "quantised already is kept as it is",
     0},
    {"quant-tp", OPT_QUANT_TP, "N", 0,
     "With int8 and int4: quantise as the ranks of an N-way checkpoint "
     "would, one scale for a row and an N-th of its columns in "
     "attention.dense and mlp.dense_4h_to_h",
     0},
    {"no-planes", OPT_NO_PLANES, 0, 0,
     "With int8-planes: the same integers in one piece, to compare with", 0},
    {"quant-experts", OPT_QUANT_EXPERTS, "KIND", 0,
     "The same for the experts of a mixture (default: as --quant)", 0},
    {"head", OPT_HEAD, "KIND", 0,
     "f16, bf16 or int8-g64: the embedding, which is the output head too (default: "
     "int8-g64 for int8-gN and int4-gN, else as --quant leaves it)",
     0},
    {"lora", OPT_LORA, "DIR[:SCALE]", 0,
     "Merge this LoRA adapter (PEFT) into the weights, SCALE times (default: "
     "1); several add up",
     0},
    {"name", OPT_NAME, "NAME", 0,
     "The model's name (default: the name of SOURCE)", 0},
    {"tokenizer", OPT_TOKENIZER, "FILE", 0,
     "The vocabulary to put in, a file or the folder it lies in (default: what "
     "lies beside the checkpoint)",
     0},
    {0, 0, 0, 0, "The conversion:", 2},
    {"compress", OPT_COMPRESS, "KIND", 0,
     "none (default), lz4 (stages that get smaller) or auto (those whose pass "
     "gets faster on this machine)",
     0},
    {"ram", OPT_RAM, "BYTES", 0,
     "Hold everything within this much RAM: K/M/G are powers of 1024, KB/MB/GB "
     "of 1000 (default: 2G)",
     0},
    {"threads", OPT_THREADS, "N", 0,
     "Compute with N threads (default: one per CPU)", 0},
    {"resume", OPT_RESUME, 0, 0,
     "Go on where a conversion of the same source with the same options "
     "stopped",
     0},
    {"force", OPT_FORCE, 0, 0,
     "Replace FILE; begin again where FILE.partial is there", 0},
    {"no-verify-source", OPT_NO_VERIFY_SOURCE, 0, 0,
     "Do not hold what is read against the checksums of the checkpoint's zip "
     "files",
     0},
    {"report", OPT_REPORT, 0, 0,
     "Print the error of every tensor (root mean square and worst)", 0},
    {"json", OPT_JSON, 0, 0, "Print the summary and the report as JSON", 0},
    {"quiet", 'q', 0, 0, "Print no progress and no summary", 0},
    {0, 0, 0, 0,
     "The model (default: config.json or model_config.json beside the "
     "checkpoint):",
     3},
    {"preset", OPT_PRESET, "NAME", 0, "glm-130b: the published model", 0},
    {0},
};

struct convert_args {
    struct sl_convert_options o;
    bool json;
    bool quiet;
};

static enum sl_compress parse_compress(struct argp_state *state,
                                       const char *arg)
{
    static const char *const names[] = {
        [SL_COMPRESS_NONE] = "none",
        [SL_COMPRESS_LZ4] = "lz4",
        [SL_COMPRESS_AUTO] = "auto",
    };

    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcmp(arg, names[i]) == 0)
            return (enum sl_compress)i;
    }
    argp_error(state, "--compress is auto, lz4 or none, not '%s'", arg);
    return SL_COMPRESS_NONE;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct convert_args *a = state->input;
    struct sl_convert_options *o = &a->o;

    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &o->flags;
        return 0;
    case 'o':
        o->output = arg;
        return 0;
    case OPT_QUANT:
        o->quant = arg;
        return 0;
    case OPT_QUANT_TP:
        o->quant_tp = (unsigned)sl_opt_u64(state, "quant-tp", arg, 1, 1024);
        return 0;
    case OPT_QUANT_EXPERTS:
        o->quant_experts = arg;
        return 0;
    case OPT_NO_PLANES:
        o->no_planes = true;
        return 0;
    case OPT_HEAD:
        o->head = arg;
        return 0;
    case OPT_COMPRESS:
        o->compress = parse_compress(state, arg);
        return 0;
    case OPT_LORA:
        sl_opt_lora(o->lora, &o->n_lora, state, arg);
        return 0;
    case OPT_NAME:
        o->name = arg;
        return 0;
    case OPT_TOKENIZER:
        o->tokenizer = arg;
        return 0;
    case OPT_RAM:
        o->ram_bytes = sl_opt_size(state, "ram", arg, 0, UINT64_MAX);
        return 0;
    case OPT_THREADS:
        o->threads = (unsigned)sl_opt_u64(state, "threads", arg, 1, 1024);
        return 0;
    case OPT_RESUME:
        o->resume = true;
        return 0;
    case OPT_FORCE:
        o->force = true;
        return 0;
    case OPT_NO_VERIFY_SOURCE:
        o->trust_source = true;
        return 0;
    case OPT_REPORT:
        o->report = true;
        return 0;
    case OPT_JSON:
        a->json = true;
        return 0;
    case 'q':
        a->quiet = o->quiet = true;
        return 0;
    case OPT_PRESET:
        o->preset = arg;
        return 0;
    case ARGP_KEY_ARG:
        return sl_opt_argument(state, &o->source, "SOURCE", arg);
    case ARGP_KEY_END:
        if (o->source == NULL)
            argp_error(state, "no SOURCE: the folder of a checkpoint, or of "
                              "glm-130b-sat.tar.part_*, or one file of it");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_child children[] = {
    {&sl_shape_argp, 0, NULL, 3},
    {0},
};

static const struct argp argp = {
    options,
    parse,
    "SOURCE",
    "Convert a published checkpoint to a model file that sluice can run.\v"
    "SOURCE is a Hugging Face folder (safetensors or pytorch_model.bin); a SAT "
    "checkpoint folder (with 'latest' in it), of any tensor-parallel degree, "
    "or the folder of the published archive's parts, or one of them, read in "
    "place; or one .safetensors, .pt or .bin file. 'sluice inspect SOURCE' "
    "shows what would become of it.",
    children,
    0,
    0,
};

static double rmse(const struct sl_pack_error *e)
{
    return e->n > 0 ? sqrt(e->sum_squared / (double)e->n) : 0;
}

static double relative(const struct sl_pack_error *e)
{
    return e->sum_source_squared > 0
               ? sqrt(e->sum_squared / e->sum_source_squared)
               : 0;
}

static void sum_up(struct sl_pack_error *sum, const struct sl_convert_result *r)
{
    *sum = (struct sl_pack_error){0};
    for (size_t i = 0; i < r->n_tensors; i++) {
        const struct sl_pack_error *e = &r->tensors[i].error;

        sum->sum_squared += e->sum_squared;
        sum->sum_source_squared += e->sum_source_squared;
        sum->worst = e->worst > sum->worst ? e->worst : sum->worst;
        sum->n += e->n;
    }
}

static void print_format(char text[24], const struct sl_matrix *g)
{
    if (!sl_fmt_has_scales(g->fmt) || g->group_cols == g->cols)
        snprintf(text, 24, "%s", sl_fmt_name(g->fmt));
    else
        snprintf(text, 24, "%s-g%u", sl_fmt_name(g->fmt), g->group_cols);
}

static void print_error(const char *name, const char *format,
                        const struct sl_pack_error *e)
{
    printf("%-56s %-10s %11.4g %8.3f%% %11.4g\n", name, format, rmse(e),
           100 * relative(e), e->worst);
}

static void print_report(const struct sl_convert_result *r)
{
    struct sl_pack_error sum;
    size_t skipped = 0;
    char format[24];

    printf("%-56s %-10s %11s %9s %11s\n", "tensor", "format", "rmse",
           "relative", "worst");
    for (size_t i = 0; i < r->n_tensors; i++) {
        const struct sl_convert_tensor *t = &r->tensors[i];

        skipped += !t->done;
        if (!t->done || t->error.n == 0)
            continue;
        print_format(format, &t->geom);
        print_error(t->name, format, &t->error);
    }
    sum_up(&sum, r);
    print_error("all", r->quant, &sum);
    if (skipped > 0)
        printf("%zu tensors were finished before --resume and are not "
               "counted\n",
               skipped);
}

/* What was tried, and what came of it. */
static void print_stages(const struct sl_stage_out_stats *s)
{
    char size[2][SL_SIZE_TEXT];

    if (s->n_stages == 0)
        return;
    printf("%zu of %zu stages are compressed: %s kept of %s", s->n_compressed,
           s->n_stages, sl_size_format(size[0], s->kept_bytes),
           sl_size_format(size[1], s->bytes));
    if (s->sample_bytes > 0)
        printf(" (samples became %.1f%%",
               100 * (double)s->sample_kept / (double)s->sample_bytes);
    if (s->decompress_ns > 0)
        printf(", and again what they were at %.2f GB/s a thread",
               (double)s->decompressed_bytes / (double)s->decompress_ns);
    puts(s->sample_bytes > 0 ? ")" : "");
}

/* Was the model trained to chat, as far as its names and words tell? */
static bool chats(const char *path)
{
    struct sl_tokenizer *t = NULL;
    struct sl_modelfile mf;
    struct sl_error ignored;
    bool does = false;

    if (sl_modelfile_open(&mf, path, &ignored) != 0)
        return false;
    if (sl_open_vocab_of(&t, &mf, &ignored) == 0) {
        struct sl_chat_words words = {t, &mf.hp.text.special};
        struct sl_chat_vocab vocab = sl_chat_vocab_of(&words);

        does = !sl_chat_find(mf.chat, mf.arch->name, mf.name, &vocab)->base;
        sl_tokenizer_destroy(t);
    }
    sl_modelfile_close(&mf);
    return does;
}

static void print_summary(const struct sl_convert_result *r)
{
    char size[SL_SIZE_TEXT], rate[SL_SIZE_TEXT];
    double s = (double)r->ns * 1e-9;
    uint64_t bytes = r->file_bytes - r->resumed_bytes;

    printf("%s: %s, %s, in %.1f s (%s/s)\n", SL_TAMED(r->output), r->quant,
           sl_size_format(size, r->file_bytes), s,
           sl_size_format(rate, s > 0 ? (uint64_t)((double)bytes / s) : 0));
    print_stages(&r->stages);
    if (r->tokenizer && chats(r->output))
        printf("Next: sluice chat -m %s\n", SL_TAMED(r->output));
    else if (r->tokenizer)
        printf("Next: sluice generate -m %s -p 'Once upon a time'\n",
               SL_TAMED(r->output));
    else
        printf("It has no tokenizer; it serves 'sluice logits' and "
               "benchmarks.\n");
}

static json_t *stages_json(const struct sl_stage_out_stats *s)
{
    return json_pack("{s:I, s:I, s:I, s:I, s:f}", "stages",
                     (json_int_t)s->n_stages, "compressed",
                     (json_int_t)s->n_compressed, "bytes", (json_int_t)s->bytes,
                     "kept_bytes", (json_int_t)s->kept_bytes, "sample_ratio",
                     s->sample_bytes > 0
                         ? (double)s->sample_kept / (double)s->sample_bytes
                         : 1.0);
}

static json_t *tensor_json(const struct sl_convert_tensor *t)
{
    char format[24];

    print_format(format, &t->geom);
    return json_pack("{s:s, s:s, s:f, s:f, s:f}", "name", t->name, "format",
                     format, "rmse", rmse(&t->error), "relative",
                     relative(&t->error), "worst", t->error.worst);
}

static int print_json(const struct sl_convert_result *r, bool report,
                      struct sl_error *err)
{
    json_t *root = json_pack(
        "{s:o, s:s, s:I, s:I, s:f, s:b}", "output", sl_json_text(r->output),
        "quant", r->quant, "bytes", (json_int_t)r->file_bytes, "resumed_bytes",
        (json_int_t)r->resumed_bytes, "seconds", (double)r->ns * 1e-9,
        "tokenizer", r->tokenizer);
    json_t *list = report ? json_array() : NULL;

    for (size_t i = 0; list != NULL && i < r->n_tensors; i++) {
        if (r->tensors[i].done && r->tensors[i].error.n > 0)
            json_array_append_new(list, tensor_json(&r->tensors[i]));
    }
    if (list != NULL)
        json_object_set_new(root, "tensors", list);
    if (r->stages.n_stages > 0)
        json_object_set_new(root, "compression", stages_json(&r->stages));
    return sl_json_print(stdout, root, JSON_INDENT(1), err);
}

static int finish(const struct convert_args *a,
                  const struct sl_convert_result *r)
{
    struct sl_error err;
    int rc = 0;

    if (a->json) {
        rc = print_json(r, a->o.report, &err);
    } else {
        if (a->o.report)
            print_report(r);
        if (!a->quiet)
            print_summary(r);
    }
    return sl_finish(rc, &err);
}

/* How fast the disk is that the model file will lie on: what 'sluice probe'
 * has kept, or measured now. */
static int find_disk_rate(double *bps, const char *output, struct sl_error *err)
{
    static const struct sl_survey_effort effort = {
        .time_ns = 200000000,
        .tries = 2,
        .file_bytes = 128u << 20,
    };
    char *copy = strdup(output != NULL ? output : "./x");
    char *cache = sl_cache_folder(), *file = NULL;
    const char *folder = copy != NULL ? dirname(copy) : ".";
    json_t *survey = NULL;
    struct sl_machine m;
    int rc = 0;

    sl_machine_get(&m);
    if (cache != NULL)
        file = sl_survey_path(cache);
    if (file != NULL)
        sl_survey_load(&survey, file, &m);
    if (survey == NULL)
        survey = json_object();
    if (sl_survey_find_disk(survey, folder) == NULL)
        rc = sl_survey_disk(survey, folder, &effort, err);
    if (rc == 0)
        *bps = json_number_value(json_object_get(
            sl_survey_find_disk(survey, folder), "bytes_per_s"));
    json_decref(survey);
    free(file);
    free(cache);
    free(copy);
    return rc;
}

static int run(int argc, char **argv)
{
    struct sl_log log = {sl_log_stderr, NULL, SL_LOG_INFO};
    struct convert_args args = {.json = false};
    struct sl_convert_result result;
    struct sl_error err;
    sigset_t set;
    int rc;

    sl_convert_options_init(&args.o);
    rc = sl_parse_args(&argp, argc, argv, &args);
    if (rc != 0)
        return rc;
    if (args.o.compress == SL_COMPRESS_AUTO &&
        find_disk_rate(&args.o.disk_bps, args.o.output, &err) != 0)
        return sl_report(&err);
    sl_stop_block(&set);
    args.o.log = &log;
    args.o.interrupted = sl_stop_came;
    args.o.opaque = &set;
    rc = sl_convert(&result, &args.o, &err);
    sl_stop_unblock(&set);
    if (rc != 0)
        return sl_report(&err);
    rc = finish(&args, &result);
    sl_convert_result_fini(&result);
    return rc;
}

const struct sl_command sl_cmd_convert = {
    .name = "convert",
    .summary = "make a model file from a published checkpoint",
    .run = run,
    .argp = &argp,
    .tables = true,
};
