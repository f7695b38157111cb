#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "src/base/log.h"
#include "src/cmd/command.h"
#include "src/cmd/narrow.h"
#include "src/cmd/opts_list.h"

#define LEAST_STACK_BYTES (256u << 10)

static void usage(FILE *out)
{
    fputs("Usage: sluice COMMAND [OPTION...]\n"
          "Run GLM and other large language models within the memory you "
          "have: weights\nstream from disk as they are needed."
          "\n\nCommands:\n",
          out);
    for (size_t i = 0; sl_commands[i] != NULL; i++)
        fprintf(out, "  %-10s %s\n", sl_commands[i]->name,
                sl_commands[i]->summary);
    fputs("\n'sluice COMMAND --help' lists a command's options; "
          "'man sluice' tells more.\n",
          out);
}

/* A stream that the caller closed must not be the number of the next file
 * that is opened: what is printed would end up in a model file, or a model
 * file be read as queries. Writing to what is put there fails. */
static int hold_standard_streams(void)
{
    for (int i = 0; i <= 2; i++) {
        if (fcntl(i, F_GETFD) < 0 && open("/dev/null", O_RDONLY) != i)
            return -1;
    }
    return 0;
}

/* What a command prints in tables is fitted to the terminal, if it is one. */
static void narrow_tables(void)
{
    struct winsize size;
    FILE *to;

    if (!isatty(STDOUT_FILENO) ||
        ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0)
        return;
    to = sl_narrow_open(STDOUT_FILENO, size.ws_col);
    if (to != NULL)
        stdout = to;
}

static int no_command(const char *name)
{
    struct sl_said said;
    struct sl_nearest near = {.typed = name, .n = strlen(name)};

    for (size_t i = 0; sl_commands[i] != NULL; i++)
        sl_nearest_look(&near, sl_commands[i]->name);
    sl_said_begin(&said);
    fprintf(said.to, "sluice: no command '%s'; ", name);
    if (near.best != NULL)
        fprintf(said.to, "did you mean '%s'? ", near.best);
    fputs("'sluice --help' lists them\n", said.to);
    sl_said_end(&said);
    return SL_EXIT_USAGE;
}

/* Threads have as much of it as the first one. */
static int check_stack(void)
{
    struct rlimit stack;

    if (getrlimit(RLIMIT_STACK, &stack) != 0 ||
        stack.rlim_cur >= LEAST_STACK_BYTES)
        return 0;
    sl_messagef("the stack is limited to %u KiB, %u are needed: see ulimit -s",
                (unsigned)(stack.rlim_cur >> 10), LEAST_STACK_BYTES >> 10);
    return -1;
}

int main(int argc, char **argv)
{
    char name[64], help[] = "--help";

    /* A file that grows beyond ulimit -f is an error of a write, like a full
     * disk. */
    signal(SIGXFSZ, SIG_IGN);
    if (check_stack() != 0)
        return SL_EXIT_FAILED;
    if (hold_standard_streams() != 0) {
        sl_messagef("cannot open /dev/null: %s", strerror(errno));
        return SL_EXIT_FAILED;
    }

    /* One heap for all threads: each of its own would hold on to memory that
     * no plan knows of. */
    mallopt(M_ARENA_MAX, 1);
    /* Character classes only: numbers are read and written with a point. */
    setlocale(LC_CTYPE, "");
    if (argc < 2) {
        usage(stderr);
        return SL_EXIT_USAGE;
    }
    if (strcmp(argv[1], "help") == 0 && argc > 2) {
        argv[1] = argv[2];
        argv[2] = help;
        argc = 3;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-?") == 0 ||
        strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
        usage(stdout);
        return sl_finish_stdout(SL_EXIT_OK);
    }
    if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0) {
        sl_print_version();
        return sl_finish_stdout(SL_EXIT_OK);
    }
    for (size_t i = 0; sl_commands[i] != NULL; i++) {
        if (strcmp(argv[1], sl_commands[i]->name) != 0)
            continue;
        snprintf(name, sizeof name, "sluice %s", argv[1]);
        argv[1] = name;
        if (sl_commands[i]->tables)
            narrow_tables();
        return sl_commands[i]->run(argc - 1, argv + 1);
    }
    return no_command(argv[1]);
}
