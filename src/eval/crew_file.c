#include "config.h"

#include <stddef.h>
#include <stdlib.h>

#include "src/base/module_file.h"
#include "src/eval/crew.h"

/* A build with MPI: the code that calls it (crew_mpi.c) lies in a file of its
 * own (src/base/module_file.h). A crew that is open came out of that file. */

static const struct sl_module_file file = {
    .name = "sluice-mpi.so",
    .holds = "sluice's code for MPI",
    .because = "a launcher of MPI's started this",
    .without = "many processes cannot evaluate together",
    .global = true,
};

/* Whether a launcher of MPI's has started this process: MPI_Init alone takes
 * longer than a small command. */
static bool launched(void)
{
    static const char *const names[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE",
                                        "PMI_RANK", "PMIX_RANK"};

    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (getenv(names[i]) != NULL)
            return true;
    }
    return false;
}

/* How many processes a launcher says that it has started together. */
static unsigned long told(void)
{
    static const char *const names[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE",
                                        "SLURM_STEP_NUM_TASKS"};
    unsigned long most = 1;

    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *value = getenv(names[i]);
        unsigned long n = value != NULL ? strtoul(value, NULL, 10) : 1;

        most = n > most ? n : most;
    }
    return most;
}

/* Each would do all of the work, and write into the same files. */
static int strangers(struct sl_error *err)
{
    return sl_fail(err, SL_ERR_USAGE,
                   "%lu processes were started here that do not know of each "
                   "other: start them by the MPI that sluice was built with "
                   "(by Slurm as 'srun --mpi=pmix' for Open MPI, '--mpi=pmi2' "
                   "for MPICH)",
                   told());
}

int sl_crew_open(struct sl_crew **crew, bool share_cores, struct sl_error *err)
{
    __typeof__(sl_crew_open) *open;

    *crew = NULL;
    if (!launched())
        return told() > 1 ? strangers(err) : 0;
    *(void **)&open = sl_module_file_symbol(&file, __func__, err);
    if (open == NULL || open(crew, share_cores, err) != 0)
        return -1;
    if ((*crew)->n > 1 || told() == 1)
        return 0;
    sl_crew_close(*crew);
    *crew = NULL;
    return strangers(err);
}

void sl_crew_close(struct sl_crew *crew)
{
    __typeof__(sl_crew_close) *close;

    if (crew == NULL)
        return;
    *(void **)&close = sl_module_file_symbol(&file, __func__, NULL);
    if (close != NULL)
        close(crew);
}
