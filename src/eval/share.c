#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <xxhash.h>

#include "src/base/mem.h"
#include "src/base/str.h"
#include "src/eval/share.h"

/* Units that are asked for at a time. */
#define TAKE 64u
/* How often somebody who waits looks up, to show how far it is. */
#define LOOK_UP_NS 250000000l

enum {
    FREE = -1,
    DONE = -2,
};

struct sl_share {
    struct sl_share_config c;
    size_t *first; /* (tasks + 1) number of each task's first unit */
    size_t n;      /* units of all tasks */
    unsigned rank, n_ranks;
    bool locks, listens; /* there is a lock; ears may be called */
    pthread_mutex_t lock;
    pthread_cond_t news;
    /* Under lock from here on. Units of this process: */
    size_t *mine; /* (room) a list */
    size_t at, n_mine, room;
    bool asked; /* rank 0 will say more */
    bool waits; /* it has said that this takes a while */
    bool over;
    struct sl_error failure; /* code 0: none */
    /* rank 0: */
    int *owner;  /* (n) a rank, FREE or DONE */
    size_t next; /* no unit before it is free */
    size_t n_free, n_open;
    uint8_t *idle;    /* (ranks) waits to be told */
    uint8_t *welcome; /* (ranks) has the same units */
    size_t *answers;  /* (room for n) units answered elsewhere, to be told */
    size_t n_answers, told;
};

/* --- units by number ------------------------------------------------------ */

static struct sl_eval_task *task_of(const struct sl_share *s, size_t number)
{
    size_t low = 0, high = s->c.ev->n;

    while (high - low > 1) {
        size_t mid = (low + high) / 2;

        if (s->first[mid] <= number)
            low = mid;
        else
            high = mid;
    }
    return &s->c.ev->v[low];
}

static struct sl_unit *unit_of(const struct sl_share *s, size_t number)
{
    struct sl_eval_task *t = task_of(s, number);

    return &t->units[number - s->first[t - s->c.ev->v]];
}

static size_t number_of(const struct sl_share *s, const struct sl_eval_task *t,
                        const struct sl_unit *u)
{
    return s->first[t - s->c.ev->v] + (size_t)(u - t->units);
}

/* What all ranks must have alike: the file, the questions, the program. */
static uint64_t key_of(const struct sl_share *s)
{
    uint64_t h = XXH64(s->c.model, strlen(s->c.model), s->n);

    h = XXH64(PACKAGE_VERSION, sizeof PACKAGE_VERSION, h);
    for (size_t i = 0; i < s->n; i++) {
        uint64_t key = sl_unit_key(unit_of(s, i));

        h = XXH64(&key, sizeof key, h);
    }
    return h;
}

/* --- saying --------------------------------------------------------------- */

static void say(struct sl_share *s, unsigned to, const char *text)
{
    struct sl_error err;

    if (s->c.crew->ops->say(s->c.crew, to, text, strlen(text), &err) != 0 &&
        s->failure.code == 0)
        s->failure = err;
}

/* --- rank 0: handing out -------------------------------------------------- */

/* The next free units, one behind another, for a rank. Their number: 0 where
 * there are none. */
static size_t hand_out(struct sl_share *s, unsigned rank, size_t wanted,
                       size_t *first)
{
    size_t fair = s->n_ranks > 1 ? s->n_free / (2u * s->n_ranks) + 1 : wanted;
    size_t n = 0;

    while (s->next < s->n && s->owner[s->next] != FREE)
        s->next++;
    *first = s->next;
    wanted = wanted < fair ? wanted : fair;
    while (n < wanted && s->next < s->n && s->owner[s->next] == FREE) {
        s->owner[s->next++] = (int)rank;
        n++;
    }
    s->n_free -= n;
    return n;
}

static bool add_mine(struct sl_share *s, size_t first, size_t n)
{
    if (s->at == s->n_mine)
        s->at = s->n_mine = 0;
    for (size_t i = 0; i < n; i++) {
        if (!sl_grow((void **)&s->mine, &s->room, s->n_mine, sizeof *s->mine))
            return false;
        s->mine[s->n_mine++] = first + i;
    }
    return true;
}

/* Answers a rank that wants units. */
static void serve(struct sl_share *s, unsigned rank, size_t wanted)
{
    size_t first, n = hand_out(s, rank, wanted, &first);
    char text[64] = "wait";

    s->idle[rank] = n == 0;
    if (n > 0)
        snprintf(text, sizeof text, "units %zu %zu", first, n);
    say(s, rank, text);
}

static void serve_idle(struct sl_share *s)
{
    for (unsigned i = 1; i < s->n_ranks; i++) {
        if (s->idle[i])
            serve(s, i, TAKE);
    }
    pthread_cond_broadcast(&s->news);
}

/* To all, also those that have not begun. */
static void say_over(struct sl_share *s)
{
    for (unsigned i = 1; i < s->n_ranks; i++)
        say(s, i, "over");
}

static void unit_done(struct sl_share *s, size_t number)
{
    s->owner[number] = DONE;
    if (--s->n_open == 0)
        say_over(s);
}

static void free_units_of(struct sl_share *s, unsigned rank)
{
    size_t n = 0;

    for (size_t i = s->n; i > 0; i--) {
        if (s->owner[i - 1] != (int)rank)
            continue;
        s->owner[i - 1] = FREE;
        s->next = s->next < i - 1 ? s->next : i - 1;
        n++;
    }
    s->n_free += n;
    if (s->n_open > 0 && s->welcome[rank])
        sl_log(s->c.log, SL_LOG_WARN,
               "rank %u is gone; %zu questions that it had go to others", rank,
               n);
    s->idle[rank] = s->welcome[rank] = 0;
    if (n > 0)
        serve_idle(s);
}

/* An answer from another rank, if it is its to give. */
static void take_answer(struct sl_share *s, unsigned from, const char *text,
                        size_t n)
{
    struct sl_journal_entry e;
    struct sl_error err;
    size_t number;
    bool good;

    if (!sl_journal_entry_init(&e, s->c.ev, text, n)) {
        /* Nobody would ask again, and all would wait. */
        if (s->failure.code == 0)
            sl_fail(&s->failure, SL_ERR_CORRUPT,
                    "rank %u answers what was not asked", from);
        pthread_cond_broadcast(&s->news);
        return;
    }
    number = number_of(s, e.task, e.unit);
    good = s->owner[number] == (int)from && sl_journal_entry_take(&e);
    sl_journal_entry_fini(&e);
    if (!good)
        return;
    if (s->c.journal != NULL &&
        sl_journal_write(s->c.journal, text, n, &err) != 0 &&
        s->failure.code == 0)
        s->failure = err;
    s->answers[s->n_answers++] = number;
    unit_done(s, number);
    pthread_cond_broadcast(&s->news);
}

static void greet(struct sl_share *s, unsigned from, const char *text)
{
    char kernels[64] = "";
    uint64_t key = 0;

    if (sscanf(text, "hello %" SCNx64 " %63[^\n]", &key, kernels) < 1 ||
        key != key_of(s)) {
        say(s, from,
            "stop its questions, model file or program are not those of rank "
            "0");
        return;
    }
    s->welcome[from] = 1;
    if (strcmp(kernels, s->c.kernels) != 0)
        sl_log(s->c.log, SL_LOG_WARN,
               "rank %u computes with %s, rank 0 with %s: the last digits of "
               "scores may differ",
               from, kernels, s->c.kernels);
}

/* --- hearing -------------------------------------------------------------- */

static void hear_request(struct sl_share *s, unsigned from, const char *text,
                         size_t n)
{
    size_t wanted;

    if (text[0] == '{')
        take_answer(s, from, text, n);
    else if (strncmp(text, "hello ", 6) == 0)
        greet(s, from, text);
    else if (sscanf(text, "take %zu", &wanted) == 1 && s->welcome[from])
        serve(s, from, wanted);
    else if (strncmp(text, "gone", 4) == 0)
        free_units_of(s, from);
}

static void hear_reply(struct sl_share *s, const char *text)
{
    size_t first, n;

    if (sscanf(text, "units %zu %zu", &first, &n) == 2 && first <= s->n &&
        n <= s->n - first) {
        s->asked = s->waits = false;
        if (!add_mine(s, first, n))
            sl_fail(&s->failure, SL_ERR_NOMEM, "out of memory for %zu units",
                    n);
    } else if (strncmp(text, "stop ", 5) == 0) {
        sl_fail(&s->failure, SL_ERR_USAGE, "rank %u: %s", s->rank, text + 5);
    } else {
        s->over = s->over || strcmp(text, "over") == 0;
        s->waits = s->waits || strcmp(text, "wait") == 0;
    }
}

static void heard(void *opaque, unsigned from, const char *text, size_t n)
{
    struct sl_share *s = opaque;
    char *copy = sl_alloc_array(n + 1, 1);

    pthread_mutex_lock(&s->lock);
    if (copy != NULL) {
        memcpy(copy, text, n);
        copy[n] = '\0';
        if (s->rank == 0)
            hear_request(s, from, copy, n);
        else
            hear_reply(s, copy);
    } else if (s->failure.code == 0) {
        sl_fail(&s->failure, SL_ERR_NOMEM, "out of memory for an answer");
    }
    pthread_cond_broadcast(&s->news);
    pthread_mutex_unlock(&s->lock);
    free(copy);
}

static void lost(void *opaque, unsigned rank)
{
    struct sl_share *s = opaque;

    pthread_mutex_lock(&s->lock);
    if (s->rank == 0)
        free_units_of(s, rank);
    else if (rank == 0 && !s->over && s->failure.code == 0)
        sl_fail(&s->failure, SL_ERR_IO,
                "rank 0 is gone; start again with --resume");
    pthread_cond_broadcast(&s->news);
    pthread_mutex_unlock(&s->lock);
}

/* --- taking and answering ------------------------------------------------- */

/* Tells of what was answered elsewhere. The lock is held, and let go of while
 * it is told. */
static int tell(struct sl_share *s, struct sl_error *err)
{
    int rc = 0;

    while (rc == 0 && s->told < s->n_answers) {
        size_t number = s->answers[s->told++];

        pthread_mutex_unlock(&s->lock);
        rc = s->c.answered(s->c.opaque, task_of(s, number), unit_of(s, number),
                           false, err);
        pthread_mutex_lock(&s->lock);
    }
    if (rc == 0 && s->failure.code != 0) {
        *err = s->failure;
        return -1;
    }
    return rc;
}

/* Sees to it that there is something in `mine`, if that can be without waiting
 * for others' answers. */
static void want_more(struct sl_share *s)
{
    size_t first, n;
    char text[32];

    if (s->at < s->n_mine || s->over)
        return;
    if (s->rank == 0) {
        n = hand_out(s, 0, TAKE, &first);
        if (!add_mine(s, first, n))
            sl_fail(&s->failure, SL_ERR_NOMEM, "out of memory for %zu units",
                    n);
        s->over = n == 0 && s->n_open == 0;
        return;
    }
    if (s->asked)
        return;
    s->asked = true;
    snprintf(text, sizeof text, "take %u", TAKE);
    say(s, 0, text);
}

static void wait_for_news(struct sl_share *s)
{
    struct timespec until;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += LOOK_UP_NS;
    if (until.tv_nsec >= 1000000000l) {
        until.tv_nsec -= 1000000000l;
        until.tv_sec++;
    }
    pthread_cond_timedwait(&s->news, &s->lock, &until);
}

/* The next unit of this process stays in the list; *found: there is one. */
static int look(struct sl_share *s, bool *found, bool wait,
                struct sl_error *err)
{
    for (;;) {
        if (tell(s, err) != 0)
            return -1;
        want_more(s);
        *found = s->at < s->n_mine;
        /* A rank that has asked is answered at once. */
        if (*found || s->over || (!wait && (s->rank == 0 || s->waits)))
            return 0;
        if (s->failure.code == 0)
            wait_for_news(s);
    }
}

int sl_share_task(struct sl_share *s, struct sl_eval_task **t,
                  struct sl_error *err)
{
    bool found = false;
    int rc;

    pthread_mutex_lock(&s->lock);
    rc = look(s, &found, true, err);
    *t = rc == 0 && found ? task_of(s, s->mine[s->at]) : NULL;
    pthread_mutex_unlock(&s->lock);
    return rc;
}

int sl_share_take(struct sl_share *s, struct sl_unit **u,
                  const struct sl_eval_task *t, bool wait, struct sl_error *err)
{
    bool found = false;
    int rc;

    *u = NULL;
    pthread_mutex_lock(&s->lock);
    rc = look(s, &found, wait, err);
    if (rc == 0 && found && task_of(s, s->mine[s->at]) == t)
        *u = unit_of(s, s->mine[s->at++]);
    pthread_mutex_unlock(&s->lock);
    return rc;
}

/* To rank 0, in the journal's words. */
static int send_answer(struct sl_share *s, const struct sl_eval_task *t,
                       const struct sl_unit *u, struct sl_error *err)
{
    char *line;
    int rc = sl_journal_line(&line, s->c.ev, t, u, err);

    if (rc == 0)
        rc = s->c.crew->ops->say(s->c.crew, 0, line, strlen(line), err);
    free(line);
    return rc;
}

int sl_share_answer(struct sl_share *s, struct sl_eval_task *t,
                    struct sl_unit *u, struct sl_error *err)
{
    int rc = 0;

    if (s->rank != 0)
        return send_answer(s, t, u, err);
    pthread_mutex_lock(&s->lock);
    if (s->c.journal != NULL)
        rc = sl_journal_add(s->c.journal, t, u, err);
    if (rc == 0)
        unit_done(s, number_of(s, t, u));
    if (rc == 0)
        rc = tell(s, err);
    pthread_mutex_unlock(&s->lock);
    return rc == 0 ? s->c.answered(s->c.opaque, t, u, true, err) : -1;
}

void sl_share_give_up(struct sl_share *s, const struct sl_error *why)
{
    char text[600];

    if (s == NULL || s->c.crew == NULL)
        return;
    pthread_mutex_lock(&s->lock);
    snprintf(text, sizeof text, "%s rank %u ended: %s",
             s->rank == 0 ? "stop" : "gone", s->rank, why->msg);
    for (unsigned i = 0; i < (s->rank == 0 ? s->n_ranks : 1u); i++) {
        if (i != s->rank)
            say(s, i, text);
    }
    pthread_mutex_unlock(&s->lock);
}

/* --- life ----------------------------------------------------------------- */

/* Numbers all units, those that are done too. */
static int count_units(struct sl_share *s, struct sl_error *err)
{
    struct sl_eval *ev = s->c.ev;

    s->first = sl_alloc_array(ev->n + 1, sizeof *s->first);
    if (s->first == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "out of memory for %zu tasks", ev->n);
    for (size_t i = 0; i < ev->n; i++) {
        s->first[i] = s->n;
        s->n += ev->v[i].n_units;
    }
    s->first[ev->n] = s->n;
    if (s->rank != 0)
        return 0;
    s->owner = sl_alloc_array(s->n + 1, sizeof *s->owner);
    s->answers = sl_alloc_array(s->n + 1, sizeof *s->answers);
    s->idle = sl_zalloc_array(s->n_ranks, 1);
    s->welcome = sl_zalloc_array(s->n_ranks, 1);
    if (!s->owner || !s->answers || !s->idle || !s->welcome)
        return sl_fail(err, SL_ERR_NOMEM, "out of memory for %zu questions",
                       s->n);
    for (size_t i = 0; i < s->n; i++) {
        bool done = unit_of(s, i)->done;

        s->owner[i] = done ? DONE : FREE;
        s->n_free += !done;
    }
    s->n_open = s->n_free;
    return 0;
}

static void init_locks(struct sl_share *s)
{
    pthread_condattr_t attr;

    pthread_mutex_init(&s->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&s->news, &attr);
    pthread_condattr_destroy(&attr);
}

int sl_share_open(struct sl_share **out, const struct sl_share_config *config,
                  struct sl_error *err)
{
    struct sl_share *s = sl_zalloc_array(1, sizeof *s);
    const struct sl_crew_ears ears = {heard, lost, s};
    char text[128];

    if (s == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "out of memory for an evaluation");
    s->c = *config;
    s->rank = config->crew ? config->crew->rank : 0;
    s->n_ranks = config->crew ? config->crew->n : 1;
    init_locks(s);
    if (count_units(s, err) != 0 ||
        (config->crew != NULL &&
         config->crew->ops->listen(config->crew, &ears, err) != 0)) {
        sl_share_close(s);
        return -1;
    }
    s->listens = config->crew != NULL;
    if (s->rank == 0 && s->n_open == 0)
        say_over(s);
    if (s->rank != 0) {
        snprintf(text, sizeof text, "hello %" PRIx64 " %.60s", key_of(s),
                 config->kernels);
        say(s, 0, text);
    }
    *out = s;
    return 0;
}

void sl_share_close(struct sl_share *s)
{
    if (s == NULL)
        return;
    if (s->listens)
        s->c.crew->ops->leave(s->c.crew);
    pthread_cond_destroy(&s->news);
    pthread_mutex_destroy(&s->lock);
    free(s->first);
    free(s->mine);
    free(s->owner);
    free(s->answers);
    free(s->idle);
    free(s->welcome);
    free(s);
}
