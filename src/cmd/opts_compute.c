#include "config.h"

#include <string.h>

#include "src/cmd/opts_run.h"
#include "src/cmd/rates_kept.h"
#include "src/exec/kvcache.h"

enum {
    OPT_DEVICE = 0x110,
    OPT_ENGINE,
    OPT_NUMA,
    OPT_ACTIVATIONS,
    OPT_KV,
    OPT_IO,
    OPT_ISA,
};

static const struct argp_option options[] = {
    {"device", OPT_DEVICE, "NAME", 0,
     "auto, cpu, cuda or cuda:N: use a GPU where there is one and it helps, "
     "none, or this one ('sluice devices' numbers them)",
     0},
    {"engine", OPT_ENGINE, "NAME", 0,
     "auto, gpu or cpu: let the plan divide the work, or compute everything "
     "on one",
     0},
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
     "Use kernels up to ref, avx2, avxvnni, avx512 or amx (default: the best "
     "there is)",
     0},
    {0},
};

static const char *const devices[] = {"cpu", "auto", "cuda", NULL};
static const char *const engines[] = {
    [SL_ENGINE_RULE_AUTO] = "auto",
    [SL_ENGINE_RULE_CPU] = "cpu",
    [SL_ENGINE_RULE_GPU] = "gpu",
    NULL,
};
static const char *const numas[] = {"auto", "off", NULL};
static const char *const activations[] = {"auto", "f32", "int8", "bf16", NULL};
static const char *const ios[] = {"auto", "uring", "pread", NULL};
static const char *const isas[] = {"ref",    "avx2", "avxvnni",
                                   "avx512", "amx",  NULL};

static void take_device(struct sl_runtime_config *c, struct argp_state *state,
                        const char *arg)
{
    c->device_ordinal = SL_DEVICE_BEST;
    if (strncmp(arg, "cuda:", 5) == 0) {
        c->device = SL_DEVICE_CUDA;
        c->device_ordinal =
            (int)sl_opt_u64(state, "device cuda:N", arg + 5, 0, 1023);
        return;
    }
    c->device = (enum sl_device_kind)sl_opt_pick(state, "device", arg, devices);
}

static void check(const struct sl_runtime_config *c, struct argp_state *state)
{
    if (c->device == SL_DEVICE_CPU && c->engine == SL_ENGINE_RULE_GPU)
        argp_error(state, "--engine gpu does not go with --device cpu");
    if (c->device == SL_DEVICE_CUDA && c->engine == SL_ENGINE_RULE_CPU)
        argp_error(state, "--engine cpu does not go with --device cuda");
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct sl_runtime_config *c = state->input;

    switch (key) {
    case ARGP_KEY_INIT:
        c->device = SL_DEVICE_AUTO;
        return 0;
    case OPT_DEVICE:
        take_device(c, state, arg);
        return 0;
    case OPT_ENGINE:
        c->engine =
            (enum sl_engine_rule)sl_opt_pick(state, "engine", arg, engines);
        return 0;
    case OPT_NUMA:
        c->numa_off = sl_opt_pick(state, "numa", arg, numas) == 1;
        return 0;
    case OPT_ACTIVATIONS:
        c->activations = (enum sl_activations)sl_opt_pick(state, "activations",
                                                          arg, activations);
        return 0;
    case OPT_KV:
        c->kv =
            (enum sl_kv_kind)sl_opt_pick(state, "kv", arg, sl_kv_kind_names);
        c->kv_set = true;
        return 0;
    case OPT_IO:
        c->io = (enum sl_io_kind)sl_opt_pick(state, "io", arg, ios);
        return 0;
    case OPT_ISA:
        c->max_isa = sl_opt_pick(state, "isa", arg, isas);
        c->max_isa_set = true;
        return 0;
    case ARGP_KEY_END:
        check(c, state);
        c->reading = sl_reading_kept(c);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

const struct argp sl_compute_argp = {options, parse, 0, 0, 0, 0, 0};
