#include "config.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/cmd/opts_run.h"

enum {
    OPT_RAM = 0x100,
    OPT_VRAM,
    OPT_BMINF,
};

static const struct argp_option options[] = {
    {"ram", OPT_RAM, "BYTES", 0,
     "Hold everything within this much RAM: K/M/G are powers of 1024, KB/MB/GB "
     "of 1000; 40% is a part of the model file's size; 'least' takes the smallest budget that works (default: what is "
     "free now, less a margin)",
     0},
    {"vram", OPT_VRAM, "BYTES", 0,
     "Take no more than this much of the GPU's memory, the driver's part "
     "included, with suffixes as for --ram, or auto (default: what is free "
     "now, less a margin)",
     0},
    {"bminf-memory-limit", OPT_BMINF, "GIB", 0,
     "--vram in whole GiB, as BMInf has it", 0},
    {"threads", 't', "N", 0,
     "Compute with N threads; auto, the default, is one per CPU", 0},
    {0},
};

static uint64_t ram_of(struct argp_state *state, const char *name,
                       const char *arg)
{
    size_t n = strlen(arg);
    uint64_t bytes;
    char number[16];

    if (strcmp(arg, "least") == 0)
        return SL_RAM_LEAST;
    if (strcmp(arg, "auto") == 0)
        return SL_RAM_AUTO;
    if (n > 1 && n < sizeof number && arg[n - 1] == '%') {
        snprintf(number, sizeof number, "%.*s", (int)n - 1, arg);
        return SL_RAM_PERCENT(
            sl_opt_u64(state, name, number, 1, SL_RAM_PERCENT_MOST));
    }
    bytes = sl_opt_size(state, name, arg, 0, UINT64_MAX);
    if (bytes == 0)
        argp_error(state, "--%s: a budget of 0 bytes cannot hold anything",
                   name);
    return bytes;
}

static uint64_t vram_of(struct argp_state *state, const char *name,
                        const char *arg)
{
    uint64_t bytes;

    if (strcmp(arg, "auto") == 0)
        return SL_VRAM_AUTO;
    bytes = sl_opt_size(state, name, arg, 0, UINT64_MAX);
    if (bytes == 0)
        argp_error(state,
                   "--%s: a GPU needs memory; to use none say --device cpu",
                   name);
    return bytes;
}

uint64_t sl_opt_ram(struct argp_state *state, const char *arg)
{
    return ram_of(state, "ram", arg);
}

uint64_t sl_opt_vram(struct argp_state *state, const char *arg)
{
    return vram_of(state, "vram", arg);
}

unsigned sl_opt_threads(struct argp_state *state, const char *arg)
{
    if (strcmp(arg, "auto") == 0)
        return 0;
    return (unsigned)sl_opt_u64(state, "threads", arg, 1, 1024);
}

/* Which options were given, in the parser's hook. */
enum { SAID_RAM = 1, SAID_VRAM = 2 };

static void say(struct argp_state *state, uintptr_t what)
{
    state->hook = (void *)((uintptr_t)state->hook | what);
}

void sl_opt_environment(uint64_t *ram, uint64_t *vram, struct argp_state *state)
{
    const char *ram_text = getenv("SLUICE_RAM");
    const char *vram_text = getenv("SLUICE_VRAM");

    if (ram != NULL && ram_text != NULL && *ram_text != '\0')
        *ram = ram_of(state, "ram (SLUICE_RAM)", ram_text);
    if (vram != NULL && vram_text != NULL && *vram_text != '\0')
        *vram = vram_of(state, "vram (SLUICE_VRAM)", vram_text);
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct sl_runtime_config *c = state->input;
    uintptr_t said = (uintptr_t)state->hook;

    switch (key) {
    case ARGP_KEY_END:
        sl_opt_environment(said & SAID_RAM ? NULL : &c->ram_bytes,
                           said & SAID_VRAM ? NULL : &c->vram_bytes, state);
        return 0;
    case OPT_RAM:
        say(state, SAID_RAM);
        c->ram_bytes = sl_opt_ram(state, arg);
        return 0;
    case OPT_VRAM:
        say(state, SAID_VRAM);
        c->vram_bytes = sl_opt_vram(state, arg);
        return 0;
    case OPT_BMINF:
        say(state, SAID_VRAM);
        c->vram_bytes =
            sl_opt_u64(state, "bminf-memory-limit", arg, 1, 1u << 20) << 30;
        return 0;
    case 't':
        c->threads = sl_opt_threads(state, arg);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

const struct argp sl_memory_argp = {options, parse, 0, 0, 0, 0, 0};
