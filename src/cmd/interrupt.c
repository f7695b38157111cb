#include "config.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "src/base/mem.h"
#include "src/cmd/interrupt.h"

struct sl_interrupt {
    pthread_t thread;
    bool running;
    int signals, quit, came; /* signalfd, eventfds; -1: none */
    pthread_mutex_t lock;
    struct sl_runtime *rt; /* under lock; NULL: nothing to stop yet */
    atomic_bool stopped;   /* relaxed: tells only that it happened */
};

static void unblock_and_die(void)
{
    sigset_t set;

    signal(SIGINT, SIG_DFL);
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    raise(SIGINT);
}

static void take_signal(struct sl_interrupt *i)
{
    uint64_t one = 1;
    bool first;

    pthread_mutex_lock(&i->lock);
    first = i->rt != NULL &&
            !atomic_exchange_explicit(&i->stopped, true, memory_order_relaxed);
    if (first) {
        sl_runtime_interrupt(i->rt);
        if (write(i->came, &one, sizeof one) < 0)
            first = true; /* an eventfd that counts to one never fails */
    }
    pthread_mutex_unlock(&i->lock);
    if (!first)
        unblock_and_die();
}

static void *watch(void *arg)
{
    struct sl_interrupt *i = arg;
    struct pollfd fds[] = {{i->signals, POLLIN, 0}, {i->quit, POLLIN, 0}};
    struct signalfd_siginfo info;

    for (;;) {
        if (poll(fds, 2, -1) < 0 && errno != EINTR)
            return NULL;
        if (fds[1].revents != 0)
            return NULL;
        if (fds[0].revents != 0 &&
            read(i->signals, &info, sizeof info) == (ssize_t)sizeof info)
            take_signal(i);
    }
}

static int open_fds(struct sl_interrupt *i, const sigset_t *set,
                    struct sl_error *err)
{
    i->quit = eventfd(0, EFD_CLOEXEC);
    i->came = eventfd(0, EFD_CLOEXEC);
    i->signals = signalfd(-1, set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (i->quit < 0 || i->came < 0 || i->signals < 0)
        return sl_fail_os(err, errno, "cannot wait for Ctrl-C");
    return 0;
}

int sl_interrupt_create(struct sl_interrupt **out, struct sl_error *err)
{
    struct sl_interrupt *i = sl_zalloc_array(1, sizeof *i);
    struct sigaction old;
    sigset_t set;
    int rc;

    if (i == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "out of memory");
    i->signals = i->quit = i->came = -1;
    pthread_mutex_init(&i->lock, NULL);
    *out = i;
    if (sigaction(SIGINT, NULL, &old) == 0 && old.sa_handler == SIG_IGN)
        return 0;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    if (open_fds(i, &set, err) != 0)
        goto fail;
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    rc = pthread_create(&i->thread, NULL, watch, i);
    if (rc != 0) {
        pthread_sigmask(SIG_UNBLOCK, &set, NULL);
        sl_fail_os(err, rc, "cannot start a thread that waits for Ctrl-C");
        goto fail;
    }
    i->running = true;
    return 0;
fail:
    sl_interrupt_destroy(i);
    *out = NULL;
    return -1;
}

void sl_interrupt_destroy(struct sl_interrupt *i)
{
    uint64_t one = 1;
    sigset_t set;

    if (i == NULL)
        return;
    if (i->running && write(i->quit, &one, sizeof one) > 0) {
        pthread_join(i->thread, NULL);
        sigemptyset(&set);
        sigaddset(&set, SIGINT);
        pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    }
    if (i->signals >= 0)
        close(i->signals);
    if (i->quit >= 0)
        close(i->quit);
    if (i->came >= 0)
        close(i->came);
    pthread_mutex_destroy(&i->lock);
    free(i);
}

void sl_interrupt_watch(struct sl_interrupt *i, struct sl_runtime *rt)
{
    pthread_mutex_lock(&i->lock);
    i->rt = rt;
    pthread_mutex_unlock(&i->lock);
}

bool sl_interrupt_came(const struct sl_interrupt *i)
{
    return atomic_load_explicit(&i->stopped, memory_order_relaxed);
}

void sl_interrupt_clear(struct sl_interrupt *i)
{
    struct pollfd came = {i->came, POLLIN, 0};
    uint64_t count;

    pthread_mutex_lock(&i->lock);
    atomic_store_explicit(&i->stopped, false, memory_order_relaxed);
    if (i->rt != NULL)
        sl_runtime_resume(i->rt);
    if (i->came >= 0 && poll(&came, 1, 0) > 0 &&
        read(i->came, &count, sizeof count) < 0)
        count = 0;
    pthread_mutex_unlock(&i->lock);
}

int sl_interrupt_fd(const struct sl_interrupt *i)
{
    return i->came;
}
