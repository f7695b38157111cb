#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include "kernels/kernels.h"
#include "src/base/progress.h"
#include "src/cmd/command.h"
#include "src/probe/machine.h"

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

int sl_cannot_write(void)
{
    fprintf(stderr, "sluice: cannot write to standard output: %s\n",
            strerror(errno));
    return SL_EXIT_FAILED;
}

int sl_finish_stdout(int rc)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return rc;
    if (errno == EPIPE) /* a reader that has seen enough */
        return rc != SL_EXIT_OK ? rc : SL_EXIT_PIPE_CLOSED;
    return sl_cannot_write();
}

int sl_finish(int rc, const struct sl_error *err)
{
    return sl_finish_stdout(rc == 0 ? SL_EXIT_OK : sl_report(err));
}

bool sl_wants_color(void)
{
    const char *no_color = getenv("NO_COLOR");

    return isatty(STDOUT_FILENO) && sl_progress_screen() &&
           (no_color == NULL || *no_color == '\0');
}
