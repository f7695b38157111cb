#include "config.h"

#include <locale.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "src/opts.h"

static const struct sl_command *const commands[] = {
    &sl_cmd_convert, &sl_cmd_generate, &sl_cmd_inspect, &sl_cmd_verify,
    &sl_cmd_logits,  &sl_cmd_plan,     &sl_cmd_synth,   NULL,
};

static void usage(FILE *out)
{
    fputs("Usage: sluice COMMAND [OPTION...]\n"
          "Run GLM-130B within the memory you have: weights stream from disk "
          "as they are needed.\n\nCommands:\n",
          out);
    for (size_t i = 0; commands[i] != NULL; i++)
        fprintf(out, "  %-10s %s\n", commands[i]->name, commands[i]->summary);
    fputs("\n'sluice COMMAND --help' lists a command's options; "
          "'man sluice' tells more.\n",
          out);
}

int main(int argc, char **argv)
{
    char name[64];

    /* One heap for all threads: each of its own would hold on to memory that
     * no plan knows of. */
    mallopt(M_ARENA_MAX, 1);
    /* Character classes only: numbers are read and written with a point. */
    setlocale(LC_CTYPE, "");
    if (argc < 2) {
        usage(stderr);
        return SL_EXIT_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-?") == 0 ||
        strcmp(argv[1], "help") == 0) {
        usage(stdout);
        return fflush(stdout) == 0 ? SL_EXIT_OK : SL_EXIT_FAILED;
    }
    if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0) {
        puts("sluice " PACKAGE_VERSION);
        return fflush(stdout) == 0 ? SL_EXIT_OK : SL_EXIT_FAILED;
    }
    for (size_t i = 0; commands[i] != NULL; i++) {
        if (strcmp(argv[1], commands[i]->name) != 0)
            continue;
        snprintf(name, sizeof name, "sluice %s", argv[1]);
        argv[1] = name;
        return commands[i]->run(argc - 1, argv + 1);
    }
    fprintf(stderr, "sluice: no command '%s'; 'sluice --help' lists them\n",
            argv[1]);
    return SL_EXIT_USAGE;
}
