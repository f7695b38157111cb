#include "config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/cmd/opts_run.h"

enum {
    OPT_PREFIX = 0x120,
    OPT_LORA,
    OPT_TRACE,
    OPT_VERIFY,
    OPT_NO_USAGE,
    OPT_MIRROR,
};

static const struct argp_option source_options[] = {
    {"model", 'm', "FILE", 0, "Model file to run (required)", 0},
    {"mirror", OPT_MIRROR, "FILE", 0,
     "A copy of the model file on another disk: both are read at the same time",
     0},
    {"prefix", OPT_PREFIX, "DIR", 0,
     "Begin every sequence with the keys and values of this P-Tuning v2 "
     "checkpoint (ChatGLM-6B)",
     0},
    {"lora", OPT_LORA, "DIR[:SCALE]", 0,
     "Add this LoRA adapter (PEFT) to what the CPU computes, SCALE times "
     "(default: 1); several add up",
     0},
    {"trace", OPT_TRACE, "FILE", 0,
     "Record reads, waits and stages as Chrome/Perfetto JSON", 0},
    {0},
};

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

static error_t parse_source(int key, char *arg, struct argp_state *state)
{
    struct sl_runtime_config *c = state->input;
    const char *model;

    switch (key) {
    case 'm':
        c->model = arg;
        return 0;
    case OPT_MIRROR:
        c->mirror = arg;
        return 0;
    case OPT_PREFIX:
        c->prefix = arg;
        return 0;
    case OPT_LORA:
        sl_opt_lora(c->lora, &c->n_lora, state, arg);
        return 0;
    case OPT_TRACE:
        c->trace = arg;
        return 0;
    case ARGP_KEY_END:
        model = getenv("SLUICE_MODEL");
        if (c->model == NULL && model != NULL && *model != '\0')
            c->model = model;
        if (c->model == NULL)
            argp_error(state, "no model file; give one with -m FILE");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

const struct argp sl_source_argp = {
    source_options, parse_source, 0, 0, 0, 0, 0,
};

/* Of one run alone: where a command opens a file again and again, checking it
 * each time would be what takes the time. */
static const struct argp_option run_options[] = {
    {"verify", OPT_VERIFY, 0, 0, "Check every checksum of the model file first",
     0},
    {"no-usage", OPT_NO_USAGE, 0, 0,
     "Neither use nor keep what runs learn of a mixture's experts (FILE.usage "
     "beside the model)",
     0},
    {0},
};

static const struct argp_child run_children[] = {
    {&sl_source_argp, 0, NULL, 0},
    {&sl_memory_argp, 0, NULL, 0},
    {&sl_compute_argp, 0, NULL, 0},
    {0},
};

static error_t parse_run(int key, char *arg, struct argp_state *state)
{
    struct sl_runtime_config *c = state->input;

    (void)arg;
    switch (key) {
    case ARGP_KEY_INIT:
        for (size_t i = 0; run_children[i].argp != NULL; i++)
            state->child_inputs[i] = c;
        return 0;
    case OPT_VERIFY:
        c->verify = true;
        return 0;
    case OPT_NO_USAGE:
        c->no_usage = true;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

const struct argp sl_run_argp = {
    run_options, parse_run, 0, 0, run_children, 0, 0,
};

void sl_run_paths(struct sl_paths *p, const struct sl_runtime_config *c)
{
    sl_paths_read(p, "-m", c->model);
    sl_paths_read(p, "--mirror", c->mirror);
    sl_paths_read(p, "--prefix", c->prefix);
    for (size_t i = 0; i < c->n_lora; i++)
        sl_paths_read(p, "--lora", c->lora[i].path);
    sl_paths_write(p, "--trace", c->trace);
    sl_paths_write(p, "--route-trace", c->route_trace);
    sl_paths_write(p, "--prompt-cache", c->prompt_cache);
}
