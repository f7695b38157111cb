/*
 * opts.h - options that several commands share, and how commands look
 *
 * A command is one file ending in a const struct sl_command; main.c lists
 * them. A command parses its own arguments with argp and returns an exit
 * code: 0 done, 1 failed, 2 wrong usage, 130 stopped by Ctrl-C.
 */
#ifndef SL_OPTS_H
#define SL_OPTS_H

#include <argp.h>
#include <signal.h>
#include <stdbool.h>

#include "src/base/error.h"
#include "src/base/log.h"
#include "src/base/paths.h"
#include "src/runtime/runtime.h"

enum {
    SL_EXIT_OK = 0,
    SL_EXIT_FAILED = 1,
    SL_EXIT_USAGE = 2,
    SL_EXIT_INTERRUPTED = 130, /* 128 + SIGINT, as shells have it */
    SL_EXIT_PIPE_CLOSED = 141, /* 128 + SIGPIPE */
};

struct sl_command {
    const char *name;
    const char *summary;               /* one line for sluice --help */
    int (*run)(int argc, char **argv); /* argv[0] is "sluice NAME" */
    const struct argp *argp; /* for the test that compares man pages */
};

extern const struct sl_command sl_cmd_bench;
extern const struct sl_command sl_cmd_chat;
extern const struct sl_command sl_cmd_convert;
extern const struct sl_command sl_cmd_detokenize;
extern const struct sl_command sl_cmd_devices;
extern const struct sl_command sl_cmd_eval;
extern const struct sl_command sl_cmd_inspect;
extern const struct sl_command sl_cmd_verify;
extern const struct sl_command sl_cmd_generate;
extern const struct sl_command sl_cmd_logits;
extern const struct sl_command sl_cmd_perplexity;
extern const struct sl_command sl_cmd_plan;
extern const struct sl_command sl_cmd_probe;
extern const struct sl_command sl_cmd_serve;
extern const struct sl_command sl_cmd_synth;
extern const struct sl_command sl_cmd_tokenize;

/* Memory, thread and reader options of every command that runs a model:
 * -m --ram --threads --numa --activations --kv --io --isa --prefix --lora
 * --verify --trace and those of a GPU. As an argp child its input is a struct
 * sl_runtime_config. */
extern const struct argp sl_run_argp;

/* What the run of a model reads and writes. */
void sl_run_paths(struct sl_paths *p, const struct sl_runtime_config *c);

/* The values of --ram (bytes, SL_RAM_LEAST or SL_RAM_AUTO), --threads (0:
 * auto), --numa, --activations, --kv, --io and --isa; a bad one is a usage
 * error (exit 2). */
uint64_t sl_opt_ram(struct argp_state *state, const char *arg);
unsigned sl_opt_threads(struct argp_state *state, const char *arg);
bool sl_opt_numa_off(struct argp_state *state, const char *arg);
enum sl_activations sl_opt_activations(struct argp_state *state,
                                       const char *arg);
enum sl_kv_kind sl_opt_kv(struct argp_state *state, const char *arg);
enum sl_io_kind sl_opt_io(struct argp_state *state, const char *arg);
int sl_opt_isa(struct argp_state *state, const char *arg);
/* --lora DIR[:SCALE] into the next of the n args there are, of SL_LORA_MOST;
 * arg is cut where the scale begins. */
void sl_opt_lora(struct sl_lora_arg *args, size_t *n, struct argp_state *state,
                 char *arg);
/* The same for --device (into c), --vram (bytes or SL_VRAM_AUTO), --engine. */
void sl_opt_device(struct sl_runtime_config *c, struct argp_state *state,
                   const char *arg);
uint64_t sl_opt_vram(struct argp_state *state, const char *arg);
enum sl_engine_rule sl_opt_engine(struct argp_state *state, const char *arg);

/* The shape of a model, under SAT's names (--num-layers and so on). As an argp
 * child its input is a struct sl_config, in which it marks what was said. */
extern const struct argp sl_model_argp;

/* Every command's argp_parse goes through here: usage errors are one line and
 * end with exit code 2. Returns 0 or an exit code to return at once. */
int sl_parse_args(const struct argp *argp, int argc, char **argv, void *input);

/* The program's version, what it was built with and runs on. */
void sl_print_version(void);
/* What nobody wants to say again and again, before any option: $SLUICE_MODEL,
 * $SLUICE_RAM and $SLUICE_VRAM. */
void sl_opt_environment(struct sl_runtime_config *c, struct argp_state *state);
/* $SLUICE_MODEL, or NULL. */
const char *sl_opt_default_model(void);

/* Prints "sluice: MESSAGE" on standard error; returns the exit code that
 * belongs to the error (2 for SL_ERR_USAGE, 130 for SL_ERR_INTERRUPTED, else
 * 1). */
int sl_report(const struct sl_error *err);

/* Ends a command's output: flushes standard output, and where that or an
 * earlier write failed (a full disk) says so. Returns the exit code, rc when
 * all is well. */
int sl_finish_stdout(int rc);

/* Standard output is a terminal, and its user has nothing against colours
 * (https://no-color.org). */
bool sl_wants_color(void);

/* Where this user's caches lie: $XDG_CACHE_HOME, else ~/.cache; moved to the
 * caller. NULL where neither is known. */
char *sl_cache_folder(void);

/* The same for what programs remember ($XDG_STATE_HOME, else ~/.local/state).
 */
char *sl_state_folder(void);

/* For work that ends in order when it is stopped: SIGINT and SIGTERM are
 * blocked from now on, in threads to come too, and asked for with
 * sl_stop_came(set). After the first the second kills as usual. */
void sl_stop_block(sigset_t *set);
bool sl_stop_came(void *set);
void sl_stop_unblock(const sigset_t *set);

/* The one argument that is no option: a second is a usage error. Returns 0. */
error_t sl_opt_argument(struct argp_state *state, const char **to,
                        const char *what, const char *arg);

/* Number options: whole text, range checked; on a bad value prints a usage
 * error through argp_error (exit 2). name is the option's. */
uint64_t sl_opt_u64(struct argp_state *state, const char *name,
                    const char *text, uint64_t min, uint64_t max);
double sl_opt_f64(struct argp_state *state, const char *name, const char *text,
                  double min, double max);

#endif
