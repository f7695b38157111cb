#include "config.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "src/base/bytes.h"
#include "src/base/json.h"
#include "src/base/paths.h"
#include "src/base/tame.h"
#include "src/cmd/inspect.h"
#include "src/cmd/inspect_source.h"
#include "src/cmd/open_vocab.h"
#include "src/cmd/opts.h"
#include "src/model/model_layout.h"

struct args {
    const char *file;
    struct sl_inspect_how how;
    const char *tensor, *output;
};

enum { OPT_TENSORS = 0x100, OPT_JSON, OPT_TENSOR };

static const struct argp_option options[] = {
    {"tensors", OPT_TENSORS, 0, 0, "List every tensor as well", 0},
    {"json", OPT_JSON, 0, 0,
     "Print one JSON object with all tensors, sections and checksums instead",
     0},
    {"tensor", OPT_TENSOR, "NAME", 0,
     "Write this tensor to the file of --output, as float32", 0},
    {"output", 'o', "FILE", 0, "Where --tensor goes: a NumPy .npy file", 0},
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct args *a = state->input;

    switch (key) {
    case OPT_TENSORS:
        a->how.tensors = true;
        return 0;
    case OPT_JSON:
        a->how.json = true;
        return 0;
    case OPT_TENSOR:
        a->tensor = arg;
        return 0;
    case 'o':
        a->output = arg;
        return 0;
    case ARGP_KEY_ARG:
        return sl_opt_argument(state, &a->file, "model file or checkpoint",
                               arg);
    case ARGP_KEY_NO_ARGS:
        argp_error(state, "no model file or checkpoint given");
        return 0;
    case ARGP_KEY_SUCCESS:
        if ((a->tensor != NULL) != (a->output != NULL))
            argp_error(state, "--tensor and --output go together");
        if (a->tensor != NULL && (a->how.tensors || a->how.json))
            argp_error(state, "--tensor prints nothing: give it without "
                              "--tensors and --json");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp argp = {
    options,
    parse,
    "SOURCE",
    "Show what is in a model file (architecture, sizes, formats, parts), or in "
    "a checkpoint: a folder, an archive, or one .safetensors, .pt or .bin "
    "file, and what convert would make of it.",
    0,
    0,
    0,
};

static void print_line(const char *what)
{
    printf("  %-14s ", what);
}

static void print_count(double n)
{
    const char *unit = n >= 1e9 ? " billion" : n >= 1e6 ? " million" : "";
    double by = n >= 1e9 ? 1e9 : n >= 1e6 ? 1e6 : 1;

    printf(n >= 1e6 ? "%.1f%s" : "%.0f%s", n / by, unit);
}

/* Formats a model mixes: a handful at most, further ones are not named. */
enum { MOST_FORMATS = 6 };

enum { MOST_STOPS = 8 };

static void print_formats(const struct sl_modelfile *mf,
                          enum sl_inspect_kind kind)
{
    char seen[MOST_FORMATS][SL_FORMAT_TEXT];
    size_t n = 0, k;

    for (size_t i = 0; i < mf->n_matrices && n < MOST_FORMATS; i++) {
        const struct sl_model_matrix *m = &mf->matrices[i];

        if (!sl_inspect_is(m, kind))
            continue;
        sl_inspect_format(seen[n], m);
        for (k = 0; strcmp(seen[k], seen[n]) != 0; k++)
            ;
        if (k < n)
            continue;
        printf("%s%s", n > 0 ? " and " : "", seen[n]);
        n++;
    }
}

static void print_weights(const struct sl_modelfile *mf,
                          enum sl_inspect_kind kind, const char *what)
{
    struct sl_inspect_bits b = sl_inspect_bits(mf, kind);

    if (b.n_weights == 0)
        return;
    print_line(what);
    print_count((double)b.n_weights);
    fputs(" weights of ", stdout);
    print_formats(mf, kind);
    printf(", %.2f bits each\n", (double)b.bits / (double)b.n_weights);
}

/* The ids that end an answer, by their names. */
static void print_stops(const struct sl_tokenizer *t)
{
    const struct sl_ids *stops = sl_tokenizer_stops(t);
    char piece[40];

    print_line("ends");
    for (size_t i = 0; i < stops->n && i < MOST_STOPS; i++) {
        size_t n = sl_tokenizer_piece(t, stops->v[i], piece, sizeof piece);

        printf("%s%d", i > 0 ? ", " : "", stops->v[i]);
        if (n == 0)
            continue;
        fputs(" (", stdout);
        fputs(SL_TAMED(piece), stdout);
        putchar(')');
    }
    if (stops->n > MOST_STOPS)
        printf(" and %zu more", stops->n - MOST_STOPS);
    puts(stops->n == 0 ? "nothing ends an answer" : "");
}

static void print_tokenizer(const struct sl_modelfile *mf)
{
    const struct sl_text_params *tp = &mf->hp.text;
    struct sl_tokenizer *t;
    struct sl_error err;

    if (sl_open_vocab_of(&t, mf, &err) != 0) {
        printf("inside, but it cannot be used: %s\n", err.msg);
        return;
    }
    printf("%s inside", sl_tokenizer_kind(t));
    if (strcmp(sl_tokenizer_kind(t), "icetk") == 0)
        printf("; %u image tokens, whitespace %s%s", tp->n_image_tokens,
               tp->whitespace == SL_WHITESPACE_TOKENS ? "as tokens"
                                                      : "collapsed",
               tp->byte_fallback ? ", byte fallback" : "");
    putchar('\n');
    print_stops(t);
    sl_tokenizer_destroy(t);
}

static void print_sampling(const struct sl_sampling *s)
{
    const struct {
        unsigned bit;
        const char *name;
        double v;
    } numbers[] = {
        {SL_SAMPLING_TEMPERATURE, "temperature", s->temperature},
        {SL_SAMPLING_TOP_K, "top-k", s->top_k},
        {SL_SAMPLING_TOP_P, "top-p", s->top_p},
        {SL_SAMPLING_PENALTY, "repetition penalty", s->penalty},
    };
    const char *comma = "";

    if (s->given == 0)
        return;
    print_line("sampling");
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        if ((s->given & numbers[i].bit) == 0)
            continue;
        printf("%s%s %g", comma, numbers[i].name, numbers[i].v);
        comma = ", ";
    }
    puts(": what chat begins with");
}

static void print_shape(const struct sl_modelfile *mf)
{
    static const char *const activations[] = {
        [SL_FN_NONE] = "no activation",
        [SL_FN_GEGLU] = "GEGLU",
        [SL_FN_SWIGLU] = "SwiGLU",
        [SL_FN_GELU_TANH] = "GELU",
    };
    const struct sl_hparams *hp = &mf->hp;

    print_line("architecture");
    printf("%s: %u layer%s, hidden %u, %u heads of %u", mf->arch->name,
           hp->n_layers, hp->n_layers == 1 ? "" : "s", hp->hidden, hp->n_heads,
           hp->head_dim);
    if (hp->n_kv_heads < hp->n_heads)
        printf(", %u of keys and values", hp->n_kv_heads);
    putchar('\n');
    print_line("mlp");
    fputs(activations[sl_inspect_activation(mf)], stdout);
    if (hp->n_experts == 0 || hp->n_dense_layers > 0)
        printf(", inner %u", hp->inner);
    if (hp->n_experts > 0 && hp->n_dense_layers > 1)
        printf(" in the first %u layers", hp->n_dense_layers);
    else if (hp->n_experts > 0 && hp->n_dense_layers == 1)
        fputs(" in the first layer", stdout);
    putchar('\n');
}

/* What keys and values are made of where a position has one latent. */
static void print_latents(const struct sl_hparams *hp)
{
    if (hp->kv_lora == 0)
        return;
    print_line("latents");
    printf("%u values and %u rotated ones a position; a head asks with %u and "
           "%u, gives %u\n",
           hp->kv_lora, hp->rope_dims, hp->nope_dims, hp->rope_dims,
           hp->value_dims);
}

static void print_mixture(const struct sl_hparams *hp)
{
    if (hp->n_experts == 0)
        return;
    print_line("mixture");
    printf("%u experts a layer, inner %u, %u of them for a position",
           hp->n_experts, hp->expert_inner, hp->n_experts_used);
    if (hp->n_expert_groups > 1)
        printf(", from %u of %u groups", hp->n_expert_groups_used,
               hp->n_expert_groups);
    if (hp->shared_inner > 0)
        printf("; one of inner %u for all", hp->shared_inner);
    putchar('\n');
}

static void print_positions(const struct sl_hparams *hp)
{
    const struct sl_rope_scale *scale = &hp->rope_scale;

    print_line("positions");
    if (hp->rope == SL_ROPE_NONE) {
        printf("%u, learned embeddings of %s\n", hp->max_positions,
               hp->position_2d ? "two" : "one");
        return;
    }
    printf("%u, %s rotary, ", hp->max_positions,
           hp->position_2d ? "2-D" : "1-D");
    if (hp->rope_dims < hp->head_dim)
        printf("%u values of a head, ", hp->rope_dims);
    printf("%s, base %g, table %s",
           hp->rope == SL_ROPE_HALF ? "halves" : "neighbours",
           (double)hp->rope_base, sl_rotary_name(hp->rotary));
    if (scale->kind != SL_ROPE_SCALING_NONE)
        printf(", %s scaling by %g beyond %u",
               sl_rope_scaling_name(scale->kind), (double)scale->factor,
               scale->original_positions);
    putchar('\n');
}

static void print_model(const struct sl_modelfile *mf)
{
    const struct sl_hparams *hp = &mf->hp;

    print_shape(mf);
    print_latents(hp);
    print_mixture(hp);
    print_positions(hp);
    print_line("norms");
    printf("%s norm, epsilon %g%s%s\n",
           hp->norm == SL_NORM_RMS ? "RMS" : "layer", (double)hp->norm_eps,
           hp->post_norms ? ", also of what is added" : "",
           hp->qk_norm ? ", also of each q and k" : "");
    print_line("vocabulary");
    printf("%u", hp->vocab);
    if (hp->text.n_tokens > 0)
        printf(", %u of them in use", hp->text.n_tokens);
    printf("; %s\n", hp->untied ? "the head is a matrix of its own"
                                : "the head is the embedding");
    print_line("tokenizer");
    if (mf->tokenizer_bytes == 0)
        puts("none: the file serves 'sluice logits' alone");
    else
        print_tokenizer(mf);
    if (mf->chat != NULL) {
        print_line("chat");
        printf("template %s\n", SL_TAMED(mf->chat));
    }
    print_sampling(&hp->sampling);
    print_line("quant");
    fputs(SL_TAMED(mf->quant), stdout);
    putchar('\n');
    print_weights(mf, SL_INSPECT_LAYERS, "layers");
    print_weights(mf, SL_INSPECT_EXPERTS, "experts");
    print_weights(mf, SL_INSPECT_HEAD, "head");
}

static void print_part(const struct sl_modelfile *mf, const char *what,
                       uint64_t bytes)
{
    char size[SL_SIZE_TEXT];

    if (bytes == 0)
        return;
    print_line(what);
    printf("%10s %5.1f %%\n", sl_size_format(size, bytes),
           100 * (double)bytes / (double)mf->file_bytes);
}

static void print_parts(const struct sl_modelfile *mf)
{
    struct sl_inspect_parts p = sl_inspect_parts(mf);

    print_part(mf, "header", p.header);
    print_part(mf, "vectors", p.small);
    print_part(mf, "row scales", p.scales);
    print_part(mf, "layers", p.layers);
    print_part(mf, "experts", p.experts);
    print_part(mf, "head", p.head);
    print_part(mf, "tokenizer", p.tokenizer);
}

static void print_compression(const struct sl_modelfile *mf)
{
    char size[2][SL_SIZE_TEXT];
    uint64_t bytes = 0, kept = 0;
    size_t n = 0;

    for (size_t i = 0; mf->compressed != NULL && i < mf->n_sections; i++) {
        const struct sl_compressed *p = &mf->compressed[i];

        if (p->n_chunks == 0)
            continue;
        n++;
        bytes += p->bytes;
        kept += sl_compressed_kept(p);
    }
    if (n == 0)
        return;
    print_line("compressed");
    printf("%zu stages: %s kept of %s, the rest are holes\n", n,
           sl_size_format(size[0], kept), sl_size_format(size[1], bytes));
}

/* Experts are read one by one, each by one read. */
static void print_records(const struct sl_modelfile *mf)
{
    const struct sl_hparams *hp = &mf->hp;
    uint64_t bytes, largest = 0;
    char size[SL_SIZE_TEXT];
    uint32_t n = 0;

    for (uint32_t layer = hp->n_dense_layers; layer < hp->n_layers; layer++) {
        for (uint32_t e = 0; e < hp->n_experts; e++, n++) {
            bytes = sl_modelfile_record_bytes(
                mf, sl_modelfile_expert(mf, layer, e));
            largest = bytes > largest ? bytes : largest;
        }
    }
    if (n == 0)
        return;
    print_line("records");
    printf("%u experts, the largest %s\n", n, sl_size_format(size, largest));
}

static void print_stages(const struct sl_modelfile *mf)
{
    uint32_t n = sl_arch_n_stages(&mf->hp);
    const struct sl_model_section *largest = &mf->sections[mf->first_stage];
    uint64_t kv = sl_inspect_kv_bytes(&mf->hp);
    char size[SL_SIZE_TEXT];

    for (uint32_t i = 1; i < n; i++) {
        const struct sl_model_section *s = &mf->sections[mf->first_stage + i];

        if (s->bytes > largest->bytes)
            largest = s;
    }
    print_line("stages");
    printf("%u, the largest %s: %s\n", n, sl_size_format(size, largest->bytes),
           largest->name);
    print_compression(mf);
    print_records(mf);
    print_line("KV cache");
    printf("%s a position in FP16", sl_size_format(size, kv));
    printf(", %s in FP32\n", sl_size_format(size, 2 * kv));
}

static void print_summary(const struct sl_modelfile *mf)
{
    char size[SL_SIZE_TEXT];

    fputs(SL_TAMED(mf->name), stdout);
    fputs(" (", stdout);
    fputs(SL_TAMED(mf->path), stdout);
    printf(", %s)\n\n", sl_size_format(size, mf->file_bytes));
    print_model(mf);
    putchar('\n');
    print_parts(mf);
    putchar('\n');
    print_stages(mf);
}

static void print_tensors(const struct sl_layout *l)
{
    int width = 0;

    for (size_t i = 0; i < l->n_tensors; i++) {
        int n = (int)strlen(l->tensors[i].name);

        width = n > width ? n : width;
    }
    printf("\n%-*s  type %21s %13s %14s\n", width, "tensor", "ne", "bytes",
           "offset");
    for (size_t i = 0; i < l->n_tensors; i++) {
        const struct sl_layout_tensor *t = &l->tensors[i];
        char shape[48];

        if (t->n_dims > 1)
            snprintf(shape, sizeof shape, "%" PRIu64 " x %" PRIu64, t->ne[0],
                     t->ne[1]);
        else
            snprintf(shape, sizeof shape, "%" PRIu64, t->ne[0]);
        printf("%-*s  %-4s %21s %13" PRIu64 " %14" PRIu64 "\n", width, t->name,
               sl_inspect_type(t->type), shape, t->bytes, t->off);
    }
}

static int print_json(const struct sl_modelfile *mf)
{
    struct sl_error err;

    /* Seven digits are what a float holds. */
    if (sl_json_print(stdout, sl_inspect_json(mf),
                      JSON_INDENT(1) | JSON_REAL_PRECISION(7), &err) != 0)
        return sl_report(&err);
    return SL_EXIT_OK;
}

static int inspect_model(const struct args *a)
{
    struct sl_modelfile mf;
    struct sl_error err;
    int rc = SL_EXIT_OK;

    if (sl_modelfile_open(&mf, a->file, &err) != 0)
        return sl_report(&err);
    if (a->how.json) {
        rc = print_json(&mf);
    } else {
        print_summary(&mf);
        if (a->how.tensors)
            print_tensors(mf.layout);
    }
    sl_modelfile_close(&mf);
    return rc;
}

static int run(int argc, char **argv)
{
    struct sl_error err;
    struct args a = {0};
    int rc = sl_parse_args(&argp, argc, argv, &a);

    if (rc != 0)
        return rc;
    if (a.tensor != NULL) {
        struct sl_path_use paths[] = {
            {.option = "inspect", .path = a.file, .beside = true},
            {.option = "--output", .path = a.output, .written = true},
        };

        if (sl_paths_check(paths, 2, &err) != 0 ||
            sl_inspect_tensor(a.file, a.tensor, a.output, &err) != 0)
            return sl_report(&err);
        return SL_EXIT_OK;
    }
    if (!sl_inspect_is_source(a.file))
        rc = inspect_model(&a);
    else if (sl_inspect_source(a.file, a.how, &err) != 0)
        rc = sl_report(&err);
    return sl_finish_stdout(rc);
}

const struct sl_command sl_cmd_inspect = {
    .name = "inspect",
    .summary = "show what is in a model file or a checkpoint",
    .run = run,
    .argp = &argp,
    .tables = true,
};
