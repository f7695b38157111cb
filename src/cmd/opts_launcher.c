#include "config.h"

#include <stdio.h>
#include <string.h>

#include "src/cmd/opts_launcher.h"

enum { FIRST = 0x500 };

#define TAKES(name, n)                                                         \
    {                                                                          \
        name, FIRST + (n), "X", OPTION_HIDDEN, 0, 0                            \
    }
#define STANDS(name, n)                                                        \
    {                                                                          \
        name, FIRST + (n), 0, OPTION_HIDDEN, 0, 0                              \
    }

/* Their keys count rows: a key tells the name. */
static const struct argp_option options[] = {
    TAKES("mode", 0),
    TAKES("load", 1),
    STANDS("fp16", 2),
    TAKES("model-parallel-size", 3),
    TAKES("num-layers", 4),
    TAKES("hidden-size", 5),
    TAKES("inner-hidden-size", 6),
    TAKES("vocab-size", 7),
    TAKES("num-attention-heads", 8),
    TAKES("max-sequence-length", 9),
    TAKES("tokenizer-type", 10),
    TAKES("layernorm-order", 11),
    STANDS("skip-init", 12),
    STANDS("bminf", 13),
    TAKES("quantization-bit-width", 14),
    STANDS("from-quantized-checkpoint", 15),
    STANDS("sequential-initialization", 16),
    STANDS("position-encoding-2d", 17),
    STANDS("no-glu", 18),
    TAKES("local_rank", 19),
    TAKES("batch-size", 20),
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    size_t n_options = sizeof options / sizeof *options - 1;
    struct sl_launcher *l = state->input;
    size_t n = strlen(l->said);

    if (key < FIRST || key >= FIRST + (int)n_options)
        return ARGP_ERR_UNKNOWN;
    snprintf(l->said + n, sizeof l->said - n, "%s--%s", n > 0 ? ", " : "",
             options[key - FIRST].name);
    return 0;
}

const struct argp sl_launcher_argp = {options, parse, 0, 0, 0, 0, 0};

void sl_launcher_tell(const struct sl_launcher *l, const struct sl_log *log)
{
    if (l->said[0] != '\0')
        sl_log(log, SL_LOG_INFO,
               "%s: without meaning here; the model file tells all of that",
               l->said);
}
