#include "config.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernels/kernels.h"
#include "src/base/log.h"
#include "src/base/progress.h"
#include "src/cmd/command.h"
#include "src/probe/machine.h"

#if defined CUDA_SIM
#define CUDA_TEXT "simulated (the CUDA sources run on the CPU)"
#elif defined HAVE_CUDA
#define CUDA_TEXT "for " SL_CUDA_ARCH
#else
#define CUDA_TEXT "none: built with --with-cuda=no"
#endif

#define LIST_COLUMNS 78u
#define FIXED_BLANK  '\1'

/* Words with ", " between them, in lines below one another; a word may have
 * blanks. */
static void print_list(const char *head, const char *list)
{
    int indent = (int)strlen(head);
    char text[1024];

    snprintf(text, sizeof text, "%s", list);
    for (char *s = text; *s != '\0'; s++)
        if (*s == ' ' && s > text && s[-1] != ',')
            *s = FIXED_BLANK;
    sl_message_wrap(text, LIST_COLUMNS - (unsigned)indent);
    fputs(head, stdout);
    for (const char *s = text; *s != '\0'; s++)
        if (*s == '\n')
            printf("\n%*s", indent, "");
        else
            putchar(*s == FIXED_BLANK ? ' ' : *s);
    putchar('\n');
}

void sl_print_version(void)
{
    const char *date = sl_machine_commit_date();
    struct sl_kernels k;

    sl_kernels_init(&k, sl_cpu_best_isa());
    printf("sluice " PACKAGE_VERSION " (%s%s%s)\n", sl_machine_commit(),
           *date != '\0' ? ", " : "", date);
    printf("  instruction sets  ref"
#ifdef SL_X86_64
           ", avx2, avxvnni, avx512, amx"
#endif
           "; up to %s here\n",
           k.isa);
    printf("  CUDA              " CUDA_TEXT "\n");
    print_list("  libraries         ", sl_machine_libraries());
}

int sl_report(const struct sl_error *err)
{
    sl_message(err->msg);
    switch (err->code) {
    case SL_ERR_USAGE:
        return SL_EXIT_USAGE;
    case SL_ERR_INTERRUPTED:
        return SL_EXIT_INTERRUPTED;
    default:
        return SL_EXIT_FAILED;
    }
}

int sl_cannot_write(void)
{
    sl_messagef("cannot write to standard output: %s", strerror(errno));
    return SL_EXIT_FAILED;
}

/* Why an earlier write failed nobody knows any more, but whether somebody could
 * still read. */
static int lost_before(int rc)
{
    struct pollfd fd = {.fd = STDOUT_FILENO, .events = POLLOUT};

    if (rc != SL_EXIT_OK) /* which has been told */
        return rc;
    if (poll(&fd, 1, 0) > 0 && (fd.revents & POLLERR) != 0)
        return SL_EXIT_PIPE_CLOSED;
    sl_message("cannot write to standard output");
    return SL_EXIT_FAILED;
}

int sl_finish_stdout(int rc)
{
    errno = 0;
    if (fflush(stdout) == 0 && !ferror(stdout))
        return rc;
    if (errno == 0)
        return lost_before(rc);
    if (errno == EPIPE) /* a reader that has seen enough */
        return rc != SL_EXIT_OK ? rc : SL_EXIT_PIPE_CLOSED;
    return sl_cannot_write();
}

int sl_finish(int rc, const struct sl_error *err)
{
    return sl_finish_stdout(rc == 0 ? SL_EXIT_OK : sl_report(err));
}

bool sl_wants_color(enum sl_color color)
{
    const char *no_color = getenv("NO_COLOR");

    if (color != SL_COLOR_AUTO)
        return color == SL_COLOR_ALWAYS;
    return isatty(STDOUT_FILENO) && sl_progress_screen() &&
           (no_color == NULL || *no_color == '\0');
}
