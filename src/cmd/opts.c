#include "config.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <jansson.h>

#include "kernels/kernels.h"
#include "src/base/bytes.h"
#include "src/base/progress.h"
#include "src/cmd/opts.h"
#include "src/exec/kvcache.h"
#include "src/probe/machine.h"

#define CANNOT_WRITE "sluice: cannot write to standard output: %s\n"

enum {
    OPT_RAM = 0x100,
    OPT_NUMA,
    OPT_ACTIVATIONS,
    OPT_KV,
    OPT_IO,
    OPT_ISA,
    OPT_VERIFY,
    OPT_TRACE,
    OPT_DEVICE,
    OPT_VRAM,
    OPT_BMINF,
    OPT_ENGINE,
    OPT_PREFIX,
    OPT_LORA,
};

static const struct argp_option run_options[] = {
    {"model", 'm', "FILE", 0, "Model file to run (required)", 0},
    {"ram", OPT_RAM, "BYTES", 0,
     "Hold everything within this much RAM: K/M/G are powers of 1024, KB/MB/GB "
     "of 1000; 40% is a part of the model file's size; 'least' takes the smallest budget that works (default: what is "
     "free now, less a margin)",
     0},
    {"threads", 't', "N", 0,
     "Compute with N threads; auto, the default, is one per CPU", 0},
    {"numa", OPT_NUMA, "KIND", 0,
     "auto or off: whether, on a machine of several nodes, threads stay on one "
     "and weights lie with their readers",
     0},
    {"activations", OPT_ACTIVATIONS, "KIND", 0,
     "auto, f32, int8 or bf16: how inputs of matrix products are held; auto is "
     "f32 for files of floats and int8 in groups of 32 for packed ones",
     0},
    {"kv", OPT_KV, "KIND", 0,
     "f32, f16 or int8 (a scale and an offset for each head and position): how "
     "keys and values are kept (default: f16; f32 with --activations f32)",
     0},
    {"io", OPT_IO, "KIND", 0, "auto, uring or pread: how the disk is read", 0},
    {"isa", OPT_ISA, "NAME", 0,
     "Use kernels up to ref, avx2, avx512 or amx (default: the best there is)",
     0},
    {"device", OPT_DEVICE, "NAME", 0,
     "auto, cpu, cuda or cuda:N: use a GPU where there is one and it helps, "
     "none, or this one ('sluice devices' numbers them)",
     0},
    {"vram", OPT_VRAM, "BYTES", 0,
     "Take no more than this much of the GPU's memory, the driver's part "
     "included, with suffixes as for --ram, or auto (default: what is free "
     "now, less a margin)",
     0},
    {"bminf-memory-limit", OPT_BMINF, "GIB", 0,
     "--vram in whole GiB, as BMInf has it", 0},
    {"engine", OPT_ENGINE, "NAME", 0,
     "auto, gpu or cpu: let the plan divide the work, or compute everything "
     "on one",
     0},
    {"prefix", OPT_PREFIX, "DIR", 0,
     "Begin every sequence with the keys and values of this P-Tuning v2 "
     "checkpoint (ChatGLM-6B)",
     0},
    {"lora", OPT_LORA, "DIR[:SCALE]", 0,
     "Add this LoRA adapter (PEFT) to what the CPU computes, SCALE times "
     "(default: 1); several add up",
     0},
    {"verify", OPT_VERIFY, 0, 0, "Check every checksum of the model file first",
     0},
    {"trace", OPT_TRACE, "FILE", 0,
     "Record reads, waits and stages as Chrome/Perfetto JSON", 0},
    {0},
};

static int pick(struct argp_state *state, const char *option, const char *arg,
                const char *const *names)
{
    for (int i = 0; names[i] != NULL; i++) {
        if (strcmp(arg, names[i]) == 0)
            return i;
    }
    argp_error(state, "--%s does not know '%s'; see --help", option, arg);
    return 0;
}

uint64_t sl_opt_ram(struct argp_state *state, const char *arg)
{
    size_t n = strlen(arg);
    struct sl_error err;
    uint64_t bytes = 0;
    char number[16];

    if (strcmp(arg, "least") == 0)
        return SL_RAM_LEAST;
    if (strcmp(arg, "auto") == 0)
        return SL_RAM_AUTO;
    if (n > 1 && n < sizeof number && arg[n - 1] == '%') {
        snprintf(number, sizeof number, "%.*s", (int)n - 1, arg);
        return SL_RAM_PERCENT(
            sl_opt_u64(state, "ram", number, 1, SL_RAM_PERCENT_MOST));
    }
    if (sl_size_parse(&bytes, arg, &err) != 0)
        argp_error(state, "--ram: %s", err.msg);
    if (bytes == 0)
        argp_error(state, "--ram: a budget of 0 bytes cannot hold anything");
    return bytes;
}

enum sl_activations sl_opt_activations(struct argp_state *state,
                                       const char *arg)
{
    static const char *const names[] = {"auto", "f32", "int8", "bf16", NULL};

    return (enum sl_activations)pick(state, "activations", arg, names);
}

unsigned sl_opt_threads(struct argp_state *state, const char *arg)
{
    if (strcmp(arg, "auto") == 0)
        return 0;
    return (unsigned)sl_opt_u64(state, "threads", arg, 1, 1024);
}

bool sl_opt_numa_off(struct argp_state *state, const char *arg)
{
    static const char *const names[] = {"auto", "off", NULL};

    return pick(state, "numa", arg, names) == 1;
}

enum sl_kv_kind sl_opt_kv(struct argp_state *state, const char *arg)
{
    return (enum sl_kv_kind)pick(state, "kv", arg, sl_kv_kind_names);
}

enum sl_io_kind sl_opt_io(struct argp_state *state, const char *arg)
{
    static const char *const names[] = {"auto", "uring", "pread", NULL};

    return (enum sl_io_kind)pick(state, "io", arg, names);
}

int sl_opt_isa(struct argp_state *state, const char *arg)
{
    static const char *const names[] = {"ref", "avx2", "avx512", "amx", NULL};

    return pick(state, "isa", arg, names);
}

void sl_opt_lora(struct sl_lora_arg *args, size_t *n, struct argp_state *state,
                 char *arg)
{
    char *colon = strrchr(arg, ':'), *end = arg;
    double scale = colon != NULL ? strtod(colon + 1, &end) : 1;

    if (*n == SL_LORA_MOST)
        argp_error(state, "--lora: no more than %u at a time", SL_LORA_MOST);
    /* A folder may have a colon in its name. */
    if (colon == NULL || access(arg, F_OK) == 0) {
        scale = 1;
    } else if (end == colon + 1 || *end != '\0' || !isfinite(scale)) {
        argp_error(state,
                   "--lora takes DIR[:SCALE], a folder and a number, not '%s'",
                   arg);
    } else {
        *colon = '\0';
    }
    args[*n] = (struct sl_lora_arg){arg, (float)scale};
    ++*n;
}

void sl_opt_device(struct sl_runtime_config *c, struct argp_state *state,
                   const char *arg)
{
    static const char *const names[] = {"cpu", "auto", "cuda", NULL};

    c->device_ordinal = SL_DEVICE_BEST;
    if (strncmp(arg, "cuda:", 5) == 0) {
        c->device = SL_DEVICE_CUDA;
        c->device_ordinal =
            (int)sl_opt_u64(state, "device cuda:N", arg + 5, 0, 1023);
        return;
    }
    c->device = (enum sl_device_kind)pick(state, "device", arg, names);
}

uint64_t sl_opt_vram(struct argp_state *state, const char *arg)
{
    struct sl_error err;
    uint64_t bytes = 0;

    if (strcmp(arg, "auto") == 0)
        return SL_VRAM_AUTO;
    if (sl_size_parse(&bytes, arg, &err) != 0)
        argp_error(state, "--vram: %s", err.msg);
    if (bytes == 0)
        argp_error(state, "--vram: a GPU needs memory; to use none say "
                          "--device cpu");
    return bytes;
}

enum sl_engine_rule sl_opt_engine(struct argp_state *state, const char *arg)
{
    static const char *const names[] = {
        [SL_ENGINE_RULE_AUTO] = "auto",
        [SL_ENGINE_RULE_CPU] = "cpu",
        [SL_ENGINE_RULE_GPU] = "gpu",
        NULL,
    };

    return (enum sl_engine_rule)pick(state, "engine", arg, names);
}

static bool parse_gpu(int key, char *arg, struct argp_state *state)
{
    struct sl_runtime_config *c = state->input;

    switch (key) {
    case OPT_DEVICE:
        sl_opt_device(c, state, arg);
        return true;
    case OPT_VRAM:
        c->vram_bytes = sl_opt_vram(state, arg);
        return true;
    case OPT_BMINF:
        c->vram_bytes =
            sl_opt_u64(state, "bminf-memory-limit", arg, 1, 1u << 20) << 30;
        return true;
    case OPT_ENGINE:
        c->engine = sl_opt_engine(state, arg);
        return true;
    default:
        return false;
    }
}

static void check_gpu(const struct sl_runtime_config *c,
                      struct argp_state *state)
{
    if (c->device == SL_DEVICE_CPU && c->engine == SL_ENGINE_RULE_GPU)
        argp_error(state, "--engine gpu does not go with --device cpu");
    if (c->device == SL_DEVICE_CUDA && c->engine == SL_ENGINE_RULE_CPU)
        argp_error(state, "--engine cpu does not go with --device cuda");
}

static error_t parse_run(int key, char *arg, struct argp_state *state)
{
    struct sl_runtime_config *c = state->input;

    switch (key) {
    case ARGP_KEY_INIT:
        c->device = SL_DEVICE_AUTO;
        sl_opt_environment(c, state);
        return 0;
    case 'm':
        c->model = arg;
        return 0;
    case OPT_RAM:
        c->ram_bytes = sl_opt_ram(state, arg);
        return 0;
    case 't':
        c->threads = sl_opt_threads(state, arg);
        return 0;
    case OPT_NUMA:
        c->numa_off = sl_opt_numa_off(state, arg);
        return 0;
    case OPT_ACTIVATIONS:
        c->activations = sl_opt_activations(state, arg);
        return 0;
    case OPT_KV:
        c->kv = sl_opt_kv(state, arg);
        c->kv_set = true;
        return 0;
    case OPT_IO:
        c->io = sl_opt_io(state, arg);
        return 0;
    case OPT_ISA:
        c->max_isa = sl_opt_isa(state, arg);
        c->max_isa_set = true;
        return 0;
    case OPT_PREFIX:
        c->prefix = arg;
        return 0;
    case OPT_LORA:
        sl_opt_lora(c->lora, &c->n_lora, state, arg);
        return 0;
    case OPT_VERIFY:
        c->verify = true;
        return 0;
    case OPT_TRACE:
        c->trace = arg;
        return 0;
    case ARGP_KEY_END:
        if (c->model == NULL)
            argp_error(state, "no model file; give one with -m FILE");
        check_gpu(c, state);
        return 0;
    default:
        return parse_gpu(key, arg, state) ? 0 : ARGP_ERR_UNKNOWN;
    }
}

const struct argp sl_run_argp = {run_options, parse_run, 0, 0, 0, 0, 0};

/* What stands between a command's parser and argp. */
struct parsing {
    argp_parser_t parser;
    void *input;
    FILE *errors, *help;
    const char *name;
    bool wanted; /* the line of errors that is being written */
    bool inside; /* of a line */
};

/* argp says what is wrong in a line that begins with the program's name, and
 * in a second one where help is. The first is enough. */
static ssize_t write_error(void *cookie, const char *text, size_t n)
{
    struct parsing *p = cookie;
    size_t name = strlen(p->name);

    for (size_t i = 0; i < n;) {
        const char *line = text + i, *end = memchr(line, '\n', n - i);
        size_t length = end != NULL ? (size_t)(end + 1 - line) : n - i;

        if (!p->inside)
            p->wanted = length > name && memcmp(line, p->name, name) == 0;
        if (p->wanted)
            fwrite(line, 1, length, stderr);
        p->inside = end == NULL;
        i += length;
    }
    return (ssize_t)n;
}

/* After help argp exits with 0, whatever became of it: this comes then. */
static ssize_t write_help(void *cookie, const char *text, size_t n)
{
    for (size_t done = 0; done < n;) {
        ssize_t k = write(STDOUT_FILENO, text + done, n - done);

        if (k < 0 && errno == EINTR)
            continue;
        if (k < 0) {
            fprintf(stderr, CANNOT_WRITE, strerror(errno));
            _exit(SL_EXIT_FAILED);
        }
        done += (size_t)k;
    }
    return (ssize_t)n;
}

static error_t parse_through(int key, char *arg, struct argp_state *state)
{
    struct parsing *p = state->input;

    if (key == ARGP_KEY_INIT) {
        state->err_stream = p->errors;
        state->out_stream = p->help;
    }
    state->input = p->input;
    return p->parser(key, arg, state);
}

enum { KEY_HELP = 'h', KEY_VERSION = 'V' };

/* As nearly all programs have them; --help lists what is argp's own. */
static const struct argp_option usual_options[] = {
    {NULL, KEY_HELP, 0, OPTION_HIDDEN, NULL, -1},
    {"version", KEY_VERSION, 0, OPTION_HIDDEN, NULL, -1},
    {0},
};

static error_t parse_usual(int key, char *arg, struct argp_state *state)
{
    if (key == KEY_HELP)
        argp_state_help(state, state->out_stream, ARGP_HELP_STD_HELP);
    if (key != KEY_HELP && key != KEY_VERSION)
        return ARGP_ERR_UNKNOWN;
    if (key == KEY_VERSION) {
        sl_print_version();
        exit(sl_finish_stdout(SL_EXIT_OK));
    }
    return 0;
}

static const struct argp usual = {usual_options, parse_usual, 0, 0, 0, 0, 0};

#define MOST_CHILDREN 8

/* The command's own children and the usual options; false: too many. */
static bool add_usual(struct argp_child children[MOST_CHILDREN],
                      const struct argp *argp)
{
    size_t n = 0;

    while (argp->children != NULL && argp->children[n].argp != NULL) {
        if (n + 2 >= MOST_CHILDREN)
            return false;
        children[n] = argp->children[n];
        n++;
    }
    children[n++] = (struct argp_child){.argp = &usual};
    children[n] = (struct argp_child){0};
    return true;
}

void sl_print_version(void)
{
    struct sl_kernels k;

    sl_kernels_init(&k, sl_cpu_best_isa());
    printf("sluice " PACKAGE_VERSION " (%s)\n", sl_machine_commit());
    printf("kernels up to %s here; built with"
#ifdef CUDA_SIM
           " simulated CUDA,"
#elif defined HAVE_CUDA
           " CUDA for " SL_CUDA_ARCH ","
#endif
#ifdef HAVE_LIBURING
           " io_uring,"
#endif
#ifdef HAVE_NUMA
           " libnuma,"
#endif
#ifdef HAVE_LIBEDIT
           " libedit,"
#endif
#ifdef HAVE_LIBDEFLATE
           " libdeflate,"
#endif
           " jansson " JANSSON_VERSION "\n",
           k.isa);
}

int sl_parse_args(const struct argp *argp, int argc, char **argv, void *input)
{
    struct parsing p = {
        .parser = argp->parser,
        .input = input,
        .name = argv[0],
    };
    struct argp_child children[MOST_CHILDREN];
    struct argp wrapped = *argp;
    int rc = -1;

    p.errors =
        fopencookie(&p, "w", (cookie_io_functions_t){.write = write_error});
    p.help = fopencookie(&p, "w", (cookie_io_functions_t){.write = write_help});
    argp_err_exit_status = SL_EXIT_USAGE;
    wrapped.parser = parse_through;
    if (add_usual(children, argp))
        wrapped.children = children;
    if (p.errors != NULL && p.help != NULL) {
        setvbuf(p.errors, NULL, _IOLBF, BUFSIZ);
        rc = argp_parse(&wrapped, argc, argv, 0, NULL, &p);
    } else {
        fputs("sluice: no memory to read the command line\n", stderr);
    }
    if (p.errors != NULL)
        fclose(p.errors);
    if (p.help != NULL)
        fclose(p.help);
    return rc == 0 ? 0 : SL_EXIT_USAGE;
}

int sl_report(const struct sl_error *err)
{
    fprintf(stderr, "sluice: %s\n", err->msg);
    switch (err->code) {
    case SL_ERR_USAGE:
        return SL_EXIT_USAGE;
    case SL_ERR_INTERRUPTED:
        return SL_EXIT_INTERRUPTED;
    default:
        return SL_EXIT_FAILED;
    }
}

int sl_finish_stdout(int rc)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return rc;
    if (errno == EPIPE) /* a reader that has seen enough */
        return rc != SL_EXIT_OK ? rc : SL_EXIT_PIPE_CLOSED;
    fprintf(stderr, CANNOT_WRITE, strerror(errno));
    return SL_EXIT_FAILED;
}

bool sl_wants_color(void)
{
    const char *no_color = getenv("NO_COLOR");

    return isatty(STDOUT_FILENO) && sl_progress_screen() &&
           (no_color == NULL || *no_color == '\0');
}

/* XDG Base Directory Specification: a relative path does not count. */
static char *user_folder(const char *variable, const char *below_home)
{
    const char *said = getenv(variable), *home = getenv("HOME");
    char *folder = NULL;

    if (said != NULL && said[0] == '/')
        return strdup(said);
    if (home == NULL || home[0] != '/' ||
        asprintf(&folder, "%s/%s", home, below_home) < 0)
        return NULL;
    return folder;
}

char *sl_cache_folder(void)
{
    return user_folder("XDG_CACHE_HOME", ".cache");
}

char *sl_state_folder(void)
{
    return user_folder("XDG_STATE_HOME", ".local/state");
}

void sl_stop_block(sigset_t *set)
{
    sigemptyset(set);
    sigaddset(set, SIGINT);
    sigaddset(set, SIGTERM);
    pthread_sigmask(SIG_BLOCK, set, NULL);
}

bool sl_stop_came(void *set)
{
    struct timespec none = {0, 0};

    if (sigtimedwait(set, NULL, &none) < 0)
        return false;
    sl_stop_unblock(set);
    return true;
}

void sl_stop_unblock(const sigset_t *set)
{
    pthread_sigmask(SIG_UNBLOCK, set, NULL);
}

uint64_t sl_opt_u64(struct argp_state *state, const char *name,
                    const char *text, uint64_t min, uint64_t max)
{
    char *end;
    unsigned long long v;

    errno = 0;
    v = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end != '\0' || errno != 0 || v < min ||
        v > max)
        argp_error(
            state, "--%s takes a whole number from %llu to %llu, not '%s'",
            name, (unsigned long long)min, (unsigned long long)max, text);
    return v;
}

error_t sl_opt_argument(struct argp_state *state, const char **to,
                        const char *what, const char *arg)
{
    if (state->arg_num > 0)
        argp_error(state, "one %s at a time, not also '%s'", what, arg);
    *to = arg;
    return 0;
}

double sl_opt_f64(struct argp_state *state, const char *name, const char *text,
                  double min, double max)
{
    char *end;
    double v = strtod(text, &end);

    if (*text == '\0' || *end != '\0' || !(v >= min && v <= max))
        argp_error(state, "--%s takes a number from %g to %g, not '%s'", name,
                   min, max, text);
    return v;
}
