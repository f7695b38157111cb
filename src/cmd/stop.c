#include "config.h"

#include <signal.h>
#include <time.h>

#include "src/cmd/stop.h"

void sl_stop_block(sigset_t *set)
{
    sigemptyset(set);
    sigaddset(set, SIGINT);
    sigaddset(set, SIGTERM);
    pthread_sigmask(SIG_BLOCK, set, NULL);
}

bool sl_stop_came(void *set)
{
    struct timespec none = {0, 0};

    if (sigtimedwait(set, NULL, &none) < 0)
        return false;
    sl_stop_unblock(set);
    return true;
}

void sl_stop_unblock(const sigset_t *set)
{
    pthread_sigmask(SIG_UNBLOCK, set, NULL);
}
