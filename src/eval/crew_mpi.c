#include "config.h"

#include <errno.h>
#include <mpi.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "src/base/clock.h"
#include "src/base/mem.h"
#include "src/eval/crew.h"
#include "src/probe/meminfo.h"

/*
 * All that calls MPI, in a file of its own (crew_file.c). One thread of each
 * rank makes all calls once the crew is open, so that MPI_THREAD_SERIALIZED is
 * enough, and whoever computes is never asked to wait:
 *
 *   say -> out, a list -> MPI_Isend ... MPI_Iprobe -> ears, or kept until
 *                                                     somebody listens
 *
 * A rank is lost when MPI says so, when its process is gone (those of this
 * host), or when nothing was heard of it for half a minute: each says every
 * second that it lives. Open MPI ends the job before any of this; MPICH, with
 * -disable-auto-cleanup, leaves those of other hosts alive (and sends
 * SIGUSR1).
 */

enum {
    TAG_TEXT = 1,
    TAG_ALIVE,
    TAG_LEAVES, /* rank 0: it tells and asks nothing more */
    TAG_BYE,    /* the last word; rank 0's: whether nobody was lost */
};

#define TURN_NS   1000000l
#define ALIVE_NS  1000000000ull
#define SILENT_NS 30000000000ull

struct parcel { /* a message, on its way out or kept */
    struct parcel *next;
    unsigned rank;
    int tag;
    size_t n;
    MPI_Request request;
    char text[];
};

struct parcels {
    struct parcel *first, **end;
};

struct mate {
    int pid; /* of a process of this host; 0: of another */
    uint64_t heard_ns;
    bool lost, told; /* gone; the ears know */
    bool leaves, bye;
};

struct mpi_crew {
    struct sl_crew crew;
    struct mate *mates; /* (n) the thread's */
    struct parcels sent, kept;
    uint64_t said_ns; /* that this rank lives */
    pthread_t thread;
    bool runs; /* there is a thread */
    pthread_mutex_t lock;
    /* under lock */
    struct parcels out;
    struct sl_crew_ears ears;
    bool listens, leaves;
    bool said_bye;
    bool ended, whole; /* rank 0 has said so; nobody was lost */
};

static struct mpi_crew *mpi_crew(struct sl_crew *c)
{
    return (struct mpi_crew *)c; /* its first member */
}

/* --- parcels -------------------------------------------------------------- */

static void parcels_init(struct parcels *list)
{
    *list = (struct parcels){.end = &list->first};
}

static void put(struct parcels *list, struct parcel *p)
{
    p->next = NULL;
    *list->end = p;
    list->end = &p->next;
}

static struct parcel *take(struct parcels *list)
{
    struct parcel *p = list->first;

    if (p != NULL && (list->first = p->next) == NULL)
        list->end = &list->first;
    return p;
}

static struct parcel *parcel(unsigned rank, int tag, const char *text, size_t n)
{
    struct parcel *p = malloc(sizeof *p + n + 1);

    if (p == NULL)
        return NULL;
    *p = (struct parcel){.rank = rank, .tag = tag, .n = n};
    if (n > 0)
        memcpy(p->text, text, n);
    return p;
}

static void parcels_fini(struct parcels *list)
{
    struct parcel *p;

    while ((p = take(list)) != NULL)
        free(p);
}

/* --- the thread ----------------------------------------------------------- */

static void lose(struct mpi_crew *m, unsigned rank)
{
    if (rank != m->crew.rank)
        m->mates[rank].lost = true;
}

/* Ears are called without the lock: they say things. */
static void tell_lost(struct mpi_crew *m, const struct sl_crew_ears *ears)
{
    for (unsigned i = 0; i < m->crew.n; i++) {
        if ((m->mates[i].lost || m->mates[i].leaves) && !m->mates[i].told) {
            m->mates[i].told = true;
            ears->lost(ears->opaque, i);
        }
    }
}

static void hear(struct mpi_crew *m)
{
    struct sl_crew_ears ears;
    struct parcel *p;
    bool listens;

    pthread_mutex_lock(&m->lock);
    ears = m->ears;
    listens = m->listens && !m->leaves;
    pthread_mutex_unlock(&m->lock);
    if (!listens)
        return;
    while ((p = take(&m->kept)) != NULL) {
        ears.heard(ears.opaque, p->rank, p->text, p->n);
        free(p);
    }
    tell_lost(m, &ears);
}

/* A message that waits, of any rank; with some that are gone, MPI may answer
 * for each alone. */
static bool probe(struct mpi_crew *m, MPI_Status *status)
{
    int there = 0;

    if (MPI_Iprobe(MPI_ANY_SOURCE, MPI_ANY_TAG, MPI_COMM_WORLD, &there,
                   status) == MPI_SUCCESS)
        return there;
    for (unsigned i = 0; i < m->crew.n && !there; i++) {
        if (i != m->crew.rank && !m->mates[i].lost &&
            MPI_Iprobe((int)i, MPI_ANY_TAG, MPI_COMM_WORLD, &there, status) !=
                MPI_SUCCESS)
            lose(m, i);
    }
    return there;
}

/* Takes a message in, if there is one. */
static bool receive(struct mpi_crew *m)
{
    struct parcel *p;
    MPI_Status status;
    int n = 0;

    if (!probe(m, &status))
        return false;
    MPI_Get_count(&status, MPI_CHAR, &n);
    p = malloc(sizeof *p + (size_t)n + 1);
    if (p == NULL)
        return false; /* there may be room later */
    *p = (struct parcel){.rank = (unsigned)status.MPI_SOURCE,
                         .tag = status.MPI_TAG,
                         .n = (size_t)n};
    if (MPI_Recv(p->text, n, MPI_CHAR, status.MPI_SOURCE, status.MPI_TAG,
                 MPI_COMM_WORLD, MPI_STATUS_IGNORE) != MPI_SUCCESS) {
        lose(m, p->rank);
        free(p);
        return false;
    }
    m->mates[p->rank].heard_ns = sl_clock_ns();
    if (p->tag == TAG_TEXT) {
        put(&m->kept, p);
        return true;
    }
    m->mates[p->rank].leaves |= p->tag == TAG_LEAVES;
    m->mates[p->rank].bye |= p->tag == TAG_BYE;
    if (p->tag == TAG_BYE && p->rank == 0) {
        pthread_mutex_lock(&m->lock);
        m->ended = true;
        m->whole = p->n > 0 && p->text[0] == '1';
        pthread_mutex_unlock(&m->lock);
    }
    free(p);
    return true;
}

static void send_parcels(struct mpi_crew *m, struct parcels *list)
{
    struct parcel *p;

    while ((p = take(list)) != NULL) {
        if (m->mates[p->rank].lost) {
            free(p);
        } else if (MPI_Isend(p->text, (int)p->n, MPI_CHAR, (int)p->rank, p->tag,
                             MPI_COMM_WORLD, &p->request) == MPI_SUCCESS) {
            put(&m->sent, p);
        } else {
            lose(m, p->rank);
            free(p);
        }
    }
}

/* Forgets what has arrived. */
static void end_sent(struct mpi_crew *m)
{
    struct parcels still;
    struct parcel *p;

    parcels_init(&still);
    while ((p = take(&m->sent)) != NULL) {
        int done = 0;

        if (m->mates[p->rank].lost)
            continue; /* never freed: MPI may still look at it */
        if (MPI_Test(&p->request, &done, MPI_STATUS_IGNORE) != MPI_SUCCESS) {
            lose(m, p->rank);
            continue;
        }
        if (done)
            free(p);
        else
            put(&still, p);
    }
    m->sent = still;
    if (still.first == NULL)
        parcels_init(&m->sent);
}

static void say_alive(struct mpi_crew *m, uint64_t now)
{
    struct parcels list;

    bool last;

    pthread_mutex_lock(&m->lock);
    last = m->crew.rank == 0 ? m->ended : m->said_bye;
    pthread_mutex_unlock(&m->lock);
    if (last || now - m->said_ns < ALIVE_NS)
        return;
    m->said_ns = now;
    parcels_init(&list);
    for (unsigned i = 0; i < m->crew.n; i++) {
        struct parcel *p = NULL;

        if ((m->crew.rank == 0) != (i == 0))
            p = parcel(i, TAG_ALIVE, "", 0);
        if (p != NULL)
            put(&list, p);
    }
    send_parcels(m, &list);
}

static void look_for_lost(struct mpi_crew *m, uint64_t now)
{
    for (unsigned i = 0; i < m->crew.n; i++) {
        struct mate *mate = &m->mates[i];

        if (mate->lost || i == m->crew.rank || (m->crew.rank != 0 && i != 0))
            continue;
        if ((mate->pid > 0 && kill(mate->pid, 0) != 0 && errno == ESRCH) ||
            (!mate->bye && now - mate->heard_ns > SILENT_NS))
            lose(m, i);
    }
}

static void say_all(struct mpi_crew *m, int tag, const char *text)
{
    for (unsigned i = m->crew.rank == 0 ? 1 : 0;
         i < (m->crew.rank == 0 ? m->crew.n : 1); i++) {
        struct parcel *p = parcel(i, tag, text, strlen(text));

        if (p != NULL)
            put(&m->out, p);
    }
}

/* Leaving, so that nothing is on its way when MPI ends: rank 0 says that it
 * does, which ends what others hope for; each says bye as its last word; when
 * all have, or are lost, rank 0 answers whether nobody was. The lock is held.
 * Returns whether all is said, and sent. */
static bool leave_step(struct mpi_crew *m)
{
    bool byes = true, whole = true;

    if (!m->leaves)
        return false;
    if (!m->said_bye)
        say_all(m, m->crew.rank == 0 ? TAG_LEAVES : TAG_BYE, "");
    m->said_bye = true;
    if (m->crew.rank != 0)
        return m->ended || m->mates[0].lost;
    for (unsigned i = 1; i < m->crew.n; i++) {
        whole = whole && !m->mates[i].lost;
        byes = byes && (m->mates[i].lost || m->mates[i].bye);
    }
    if (!byes)
        return false;
    if (!m->ended) {
        m->ended = true;
        m->whole = whole;
        say_all(m, TAG_BYE, whole ? "1" : "0");
    }
    return m->out.first == NULL && m->sent.first == NULL;
}

static bool is_over(struct mpi_crew *m)
{
    bool over;

    pthread_mutex_lock(&m->lock);
    over = leave_step(m);
    pthread_mutex_unlock(&m->lock);
    return over;
}

static void *serve(void *arg)
{
    static const struct timespec turn = {0, TURN_NS};
    struct mpi_crew *m = arg;

    while (!is_over(m)) {
        struct parcels out;
        bool any = false;
        uint64_t now;

        while (receive(m))
            any = true;
        now = sl_clock_ns(); /* not before anybody was heard */
        hear(m);
        pthread_mutex_lock(&m->lock);
        out = m->out;
        if (out.first == NULL)
            parcels_init(&out);
        parcels_init(&m->out);
        pthread_mutex_unlock(&m->lock);
        any = any || out.first != NULL;
        send_parcels(m, &out);
        end_sent(m);
        say_alive(m, now);
        look_for_lost(m, now);
        if (!any)
            nanosleep(&turn, NULL);
    }
    return NULL;
}

/* --- what others call ------------------------------------------------------
 */

static int crew_listen(struct sl_crew *c, const struct sl_crew_ears *ears,
                       struct sl_error *err)
{
    struct mpi_crew *m = mpi_crew(c);

    (void)err;
    pthread_mutex_lock(&m->lock);
    m->ears = *ears;
    m->listens = true;
    pthread_mutex_unlock(&m->lock);
    return 0;
}

static int crew_say(struct sl_crew *c, unsigned to, const char *text, size_t n,
                    struct sl_error *err)
{
    struct mpi_crew *m = mpi_crew(c);
    struct parcel *p = parcel(to, TAG_TEXT, text, n);

    if (p == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "out of memory for a message");
    pthread_mutex_lock(&m->lock);
    put(&m->out, p);
    pthread_mutex_unlock(&m->lock);
    return 0;
}

/* Once; what comes after says nothing. */
static void crew_leave(struct sl_crew *c)
{
    struct mpi_crew *m = mpi_crew(c);

    if (!m->runs)
        return;
    pthread_mutex_lock(&m->lock);
    m->leaves = true;
    pthread_mutex_unlock(&m->lock);
    pthread_join(m->thread, NULL);
    m->runs = false;
}

static const struct sl_crew_ops mpi_ops = {crew_listen, crew_say, crew_leave};

/* --- opening -------------------------------------------------------------- */

/* This rank's part of the cores, where the launcher gave its host's ranks the
 * same ones. */
static void take_cores(unsigned place, unsigned n, MPI_Comm host)
{
    cpu_set_t set, least, most, part;
    unsigned n_cpus, first, wanted, k = 0;

    CPU_ZERO(&set);
    if (n < 2 || sched_getaffinity(0, sizeof set, &set) != 0)
        CPU_ZERO(&set);
    if (n < 2)
        return;
    MPI_Allreduce(&set, &least, (int)sizeof set, MPI_BYTE, MPI_BAND, host);
    MPI_Allreduce(&set, &most, (int)sizeof set, MPI_BYTE, MPI_BOR, host);
    n_cpus = (unsigned)CPU_COUNT(&set);
    if (!CPU_EQUAL(&least, &most) || n_cpus == 0)
        return;
    wanted = n_cpus / n > 0 ? n_cpus / n : 1;
    first = n_cpus >= n ? place * n_cpus / n : place % n_cpus;
    if (n_cpus >= n)
        wanted = (place + 1) * n_cpus / n - first;
    CPU_ZERO(&part);
    for (int i = 0; i < CPU_SETSIZE; i++) {
        if (!CPU_ISSET(i, &set))
            continue;
        if (k >= first && k < first + wanted)
            CPU_SET(i, &part);
        k++;
    }
    sched_setaffinity(0, sizeof part, &part);
}

/* Who is on this host, and what each gets of it. */
static int meet(struct mpi_crew *m, bool share_cores, struct sl_error *err)
{
    struct sl_crew *c = &m->crew;
    int *world = sl_alloc_array(2u * c->n, sizeof *world), place, n, mine[2];
    unsigned long long ram = sl_meminfo_available(), least;
    MPI_Comm host;

    if (world == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "out of memory for %u ranks", c->n);
    MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, (int)c->rank,
                        MPI_INFO_NULL, &host);
    MPI_Comm_rank(host, &place);
    MPI_Comm_size(host, &n);
    c->place = (unsigned)place;
    c->n_places = (unsigned)n;
    /* Nobody has taken any yet. */
    MPI_Allreduce(&ram, &least, 1, MPI_UNSIGNED_LONG_LONG, MPI_MIN, host);
    c->ram_bytes = least / (unsigned)n;
    mine[0] = (int)c->rank;
    mine[1] = (int)getpid();
    MPI_Allgather(mine, 2, MPI_INT, world, 2, MPI_INT, host);
    /* Those that can be seen from here (containers hide some). */
    for (int i = 0; i < n; i++) {
        if (kill(world[2 * i + 1], 0) == 0 || errno == EPERM)
            m->mates[world[2 * i]].pid = world[2 * i + 1];
    }
    MPI_Barrier(host);
    if (share_cores)
        take_cores(c->place, c->n_places, host);
    MPI_Comm_free(&host);
    free(world);
    return 0;
}

static int start_thread(struct mpi_crew *m, struct sl_error *err)
{
    sigset_t all, before;
    int rc;

    for (unsigned i = 0; i < m->crew.n; i++)
        m->mates[i].heard_ns = sl_clock_ns();
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    rc = pthread_create(&m->thread, NULL, serve, m);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc != 0)
        return sl_fail_os(err, rc, "cannot start the thread of MPI");
    m->runs = true;
    return 0;
}

static int init(struct mpi_crew *m, bool share_cores, struct sl_error *err)
{
    int level, rank, n;

    if (MPI_Init_thread(NULL, NULL, MPI_THREAD_SERIALIZED, &level) !=
        MPI_SUCCESS)
        return sl_fail(err, SL_ERR_IO, "MPI does not start");
    if (level < MPI_THREAD_SERIALIZED)
        return sl_fail(err, SL_ERR_UNSUPPORTED, "this MPI knows no threads");
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    /* How MPICH tells of a rank that ended; look_for_lost finds it. */
    signal(SIGUSR1, SIG_IGN);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &n);
    m->crew.rank = (unsigned)rank;
    m->crew.n = (unsigned)n;
    m->mates = sl_zalloc_array((size_t)n, sizeof *m->mates);
    if (m->mates == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "out of memory for %d ranks", n);
    if (meet(m, share_cores, err) != 0)
        return -1;
    return start_thread(m, err);
}

int sl_crew_open(struct sl_crew **crew, bool share_cores, struct sl_error *err)
{
    struct mpi_crew *m;

    m = sl_zalloc_array(1, sizeof *m);
    if (m == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "out of memory for a crew");
    m->crew.ops = &mpi_ops;
    parcels_init(&m->out);
    parcels_init(&m->sent);
    parcels_init(&m->kept);
    pthread_mutex_init(&m->lock, NULL);
    if (init(m, share_cores, err) != 0) {
        sl_crew_close(&m->crew);
        return -1;
    }
    *crew = &m->crew;
    return 0;
}

void sl_crew_close(struct sl_crew *crew)
{
    struct mpi_crew *m;

    if (crew == NULL)
        return;
    m = mpi_crew(crew);
    crew_leave(crew);
    /* With a rank lost others would wait in there for ever. */
    if (m->whole)
        MPI_Finalize();
    parcels_fini(&m->out);
    parcels_fini(&m->kept);
    pthread_mutex_destroy(&m->lock);
    free(m->mates);
    free(m);
}
