#include "config.h"

#include "src/eval/crew.h"

/* A build without MPI: every process is alone. */

int sl_crew_open(struct sl_crew **crew, bool share_cores, struct sl_error *err)
{
    (void)share_cores;
    (void)err;
    *crew = NULL;
    return 0;
}

void sl_crew_close(struct sl_crew *crew)
{
    (void)crew;
}
