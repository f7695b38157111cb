/*
 * command.h - what every command is, and how it ends
 *
 * A command is one file ending in a const struct sl_command; commands.c lists
 * them. A command parses its own arguments (opts.h) and returns an exit code.
 */
#ifndef SL_COMMAND_H
#define SL_COMMAND_H

#include <stdbool.h>

#include "src/base/error.h"

struct argp;

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
    bool tables;             /* it prints what narrow terminals need fitted */
};

extern const struct sl_command sl_cmd_bench;
extern const struct sl_command sl_cmd_chat;
extern const struct sl_command sl_cmd_completion;
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

/* All of them, NULL behind the last: commands.c. */
extern const struct sl_command *const sl_commands[];

/* The program's version, what it was built with and runs on. */
void sl_print_version(void);

/* Prints "sluice: MESSAGE" on standard error; returns the exit code that
 * belongs to the error (2 for SL_ERR_USAGE, 130 for SL_ERR_INTERRUPTED, else
 * 1). */
int sl_report(const struct sl_error *err);

/* Ends a command's output: flushes standard output, and where that or an
 * earlier write failed (a full disk) says so. Returns the exit code, rc when
 * all is well. */
int sl_finish_stdout(int rc);
/* Both, for a command whose work ended with rc, 0 or -1 with an error. */
int sl_finish(int rc, const struct sl_error *err);
/* Says so at once, of errno; the exit code. */
int sl_cannot_write(void);

/* Whether text has colours: auto where standard output is a terminal that takes
 * them and its user has nothing against it (https://no-color.org). */
enum sl_color { SL_COLOR_AUTO, SL_COLOR_ALWAYS, SL_COLOR_NEVER };
bool sl_wants_color(enum sl_color color);

#endif
