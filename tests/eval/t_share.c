#include "config.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/base/mem.h"
#include "src/eval/share.h"
#include "tests/support.h"

/* A crew within this process: a thread for each rank, one that carries lines
 * from one to the other, as MPI's does. */

#define RANKS_MOST 4u
#define N_TASKS    2u
#define N_UNITS    150u /* of a task */

struct line {
    struct line *next;
    unsigned from, to;
    bool loss; /* of the rank `from`, instead of a line */
    size_t n;
    char text[];
};

struct world;

struct member {
    struct sl_crew crew; /* the first */
    struct world *world;
    struct sl_crew_ears ears;
    bool listens, dead, left;
    bool hears; /* now */
    /* the rank's own */
    struct sl_eval ev;
    struct sl_eval_task tasks[N_TASKS];
    struct sl_eval_file files[N_TASKS];
    pthread_t thread;
    unsigned dies_at; /* dies when it has taken so many units; 0: never */
    bool slow;        /* answers its first when all others' are answered */
    bool stranger;    /* its questions are others */
    bool patient;     /* answers none until a rank has failed, or died */
    unsigned n_taken, n_told;
    int rc;
    struct sl_error err;
};

struct world {
    struct member m[RANKS_MOST];
    unsigned n;
    pthread_t post;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct line *first, **end;
    bool over, closed;
    atomic_uint n_answers, n_failed;
    struct sl_journal *journal;
};

/* --- the post ------------------------------------------------------------- */

static void post(struct world *w, unsigned from, unsigned to, const char *text,
                 size_t n, bool loss)
{
    struct line *l = malloc(sizeof *l + n + 1);

    assert_non_null(l);
    *l = (struct line){.from = from, .to = to, .n = n, .loss = loss};
    memcpy(l->text, text, n);
    pthread_mutex_lock(&w->lock);
    if (w->m[from].dead && !loss) {
        free(l);
    } else {
        *w->end = l;
        w->end = &l->next;
    }
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->lock);
}

static int fake_say(struct sl_crew *c, unsigned to, const char *text, size_t n,
                    struct sl_error *err)
{
    (void)err;
    post(((struct member *)c)->world, c->rank, to, text, n, false);
    return 0;
}

static int fake_listen(struct sl_crew *c, const struct sl_crew_ears *ears,
                       struct sl_error *err)
{
    struct member *m = (struct member *)c;

    (void)err;
    pthread_mutex_lock(&m->world->lock);
    m->ears = *ears;
    m->listens = true;
    pthread_cond_broadcast(&m->world->changed);
    pthread_mutex_unlock(&m->world->lock);
    return 0;
}

/* Rank 0 ends it; the others wait for that, unless they are dead. */
static void fake_leave(struct sl_crew *c)
{
    struct member *m = (struct member *)c;
    struct world *w = m->world;

    pthread_mutex_lock(&w->lock);
    if (c->rank == 0 && !m->dead)
        w->over = true;
    pthread_cond_broadcast(&w->changed);
    while (m->hears || (c->rank != 0 && !m->dead && !w->over && !w->m[0].dead))
        pthread_cond_wait(&w->changed, &w->lock);
    m->left = true;
    pthread_mutex_unlock(&w->lock);
}

static const struct sl_crew_ops fake_ops = {fake_listen, fake_say, fake_leave};

/* A line, or a loss, to whoever listens. The lock is held, and let go of
 * meanwhile. */
static void deliver(struct world *w, const struct line *l)
{
    struct member *to = &w->m[l->to];

    if (!to->listens || to->dead || to->left)
        return;
    to->hears = true;
    pthread_mutex_unlock(&w->lock);
    if (l->loss)
        to->ears.lost(to->ears.opaque, l->from);
    else
        to->ears.heard(to->ears.opaque, l->from, l->text, l->n);
    pthread_mutex_lock(&w->lock);
    to->hears = false;
    pthread_cond_broadcast(&w->changed);
}

/* Until all have left. Whoever still waits when rank 0 ends it has lost it. */
static void *carry(void *arg)
{
    struct world *w = arg;
    bool told = false;

    pthread_mutex_lock(&w->lock);
    while (!w->closed) {
        struct line *l = w->first;

        if (l == NULL && w->over && !told) {
            told = true;
            for (unsigned i = 1; i < w->n; i++)
                deliver(w, &(struct line){.to = i, .loss = true});
        } else if (l == NULL || (!w->m[l->to].listens && !w->m[l->to].dead)) {
            pthread_cond_wait(&w->changed, &w->lock);
        } else {
            if ((w->first = l->next) == NULL)
                w->end = &w->first;
            deliver(w, l);
            free(l);
        }
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

/* --- a rank --------------------------------------------------------------- */

static double score(size_t task, size_t unit, uint32_t k)
{
    return -1.0 / (double)(7 + 1000 * task + 3 * unit + k);
}

static void make_units(struct member *m)
{
    m->ev = (struct sl_eval){.v = m->tasks, .n = N_TASKS};
    for (size_t t = 0; t < N_TASKS; t++) {
        struct sl_eval_task *task = &m->tasks[t];

        task->units = sl_zalloc_array(N_UNITS, sizeof *task->units);
        assert_non_null(task->units);
        task->n_units = N_UNITS;
        task->files = &m->files[t];
        task->n_files = 1;
        /* Of one the name is no UTF-8, and null in an answer. */
        m->files[t] = (struct sl_eval_file){
            .name = t == 0 ? "questions\377.jsonl" : "questions.jsonl",
            .n = N_UNITS,
            .n_left = N_UNITS};
        for (size_t i = 0; i < N_UNITS; i++) {
            struct sl_question *q = &task->units[i].q;
            struct sl_error err;

            assert_int_equal(
                sl_question_init(q, 1, 1 + (uint32_t)(i % 3), &err), 0);
            assert_int_equal(sl_strand_init(&q->strands[0], 2, 0, &err), 0);
            q->strands[0].ids[0] = (int32_t)(i + m->stranger);
            q->strands[0].ids[1] = (int32_t)t;
        }
    }
}

static void free_units(struct member *m)
{
    for (size_t t = 0; t < N_TASKS; t++) {
        for (size_t i = 0; i < N_UNITS; i++)
            sl_question_fini(&m->tasks[t].units[i].q);
        free(m->tasks[t].units);
    }
}

static int told(void *opaque, struct sl_eval_task *t, struct sl_unit *u,
                bool here, struct sl_error *err)
{
    struct member *m = opaque;

    (void)t;
    (void)here;
    (void)err;
    u->done = true;
    m->n_told++;
    return 0;
}

static void die(struct member *m)
{
    struct world *w = m->world;

    pthread_mutex_lock(&w->lock);
    m->dead = true;
    atomic_fetch_add(&w->n_failed, 1);
    pthread_mutex_unlock(&w->lock);
    for (unsigned i = 0; i < w->n; i++) {
        if (i != m->crew.rank)
            post(w, m->crew.rank, i, "", 0, true);
    }
}

/* Waits until all but the units that slow ranks have are answered. */
static void wait_for_others(struct world *w, unsigned left)
{
    while (atomic_load(&w->n_answers) < N_TASKS * N_UNITS - left)
        usleep(1000);
}

static int answer(struct member *m, struct sl_share *s, struct sl_eval_task *t,
                  struct sl_unit *u, struct sl_error *err)
{
    size_t task = (size_t)(t - m->tasks), unit = (size_t)(u - t->units);

    for (uint32_t k = 0; k < u->q.n_logp; k++) {
        u->q.logp[k] = score(task, unit, k);
        u->q.top[k] = (unit + k) % 2;
    }
    atomic_fetch_add(&m->world->n_answers, 1);
    return sl_share_answer(s, t, u, err);
}

/* False: it is dead. */
static bool ask_task(struct member *m, struct sl_share *s,
                     struct sl_eval_task *t)
{
    struct sl_unit *held[64], *u;
    unsigned n = 0;

    while (m->rc == 0) {
        m->rc = sl_share_take(s, &u, t, n == 0, &m->err);
        if (m->rc == 0 && u != NULL && n < 64) {
            held[n++] = u;
            if (++m->n_taken == m->dies_at) {
                die(m);
                return false;
            }
            /* A pass of eight. */
            if (n < 8 && !m->slow)
                continue;
        }
        if (m->rc == 0 && n == 0)
            return true;
        while (m->patient && atomic_load(&m->world->n_failed) == 0)
            usleep(1000);
        if (m->slow) {
            wait_for_others(m->world, 64);
            m->slow = false;
        }
        while (m->rc == 0 && n > 0)
            m->rc = answer(m, s, t, held[--n], &m->err);
    }
    return true;
}

static void *run_rank(void *arg)
{
    struct member *m = arg;
    const struct sl_share_config config = {
        .ev = &m->ev,
        .journal = m->crew.rank == 0 ? m->world->journal : NULL,
        .crew = &m->crew,
        .model = "a model",
        .kernels = "ref f32",
        .answered = told,
        .opaque = m,
    };
    struct sl_share *s = NULL;
    struct sl_eval_task *t;

    m->rc = sl_share_open(&s, &config, &m->err);
    while (m->rc == 0) {
        m->rc = sl_share_task(s, &t, &m->err);
        if (m->rc != 0 || t == NULL || !ask_task(m, s, t))
            break;
    }
    if (m->rc != 0)
        atomic_fetch_add(&m->world->n_failed, 1);
    if (m->rc != 0)
        sl_share_give_up(s, &m->err);
    sl_share_close(s);
    return NULL;
}

/* --- a world -------------------------------------------------------------- */

static void open_world(struct world *w, unsigned n)
{
    *w = (struct world){.n = n, .end = &w->first};
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->changed, NULL);
    for (unsigned i = 0; i < n; i++) {
        w->m[i].world = w;
        w->m[i].crew = (struct sl_crew){.ops = &fake_ops, .rank = i, .n = n};
    }
}

static void run_world(struct world *w)
{
    w->end = &w->first;
    for (unsigned i = 0; i < w->n; i++) {
        if (w->m[i].tasks[0].units == NULL)
            make_units(&w->m[i]);
    }
    assert_int_equal(pthread_create(&w->post, NULL, carry, w), 0);
    for (unsigned i = 0; i < w->n; i++)
        assert_int_equal(
            pthread_create(&w->m[i].thread, NULL, run_rank, &w->m[i]), 0);
    for (unsigned i = 0; i < w->n; i++)
        pthread_join(w->m[i].thread, NULL);
    pthread_mutex_lock(&w->lock);
    w->closed = true;
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->lock);
    pthread_join(w->post, NULL);
}

static void close_world(struct world *w)
{
    struct line *l;

    while ((l = w->first) != NULL) {
        w->first = l->next;
        free(l);
    }
    for (unsigned i = 0; i < w->n; i++)
        free_units(&w->m[i]);
    pthread_mutex_destroy(&w->lock);
    pthread_cond_destroy(&w->changed);
}

/* Rank 0 has every answer, bit for bit, and was told of each once. */
static void check_answers(const struct world *w, unsigned n_before)
{
    const struct member *m = &w->m[0];

    assert_int_equal(m->rc, 0);
    assert_int_equal(m->n_told, N_TASKS * N_UNITS - n_before);
    for (size_t t = 0; t < N_TASKS; t++) {
        for (size_t i = 0; i < N_UNITS; i++) {
            const struct sl_unit *u = &m->tasks[t].units[i];

            assert_true(u->done);
            for (uint32_t k = 0; k < u->q.n_logp; k++) {
                assert_true(u->q.logp[k] == score(t, i, k));
                assert_int_equal(u->q.top[k], (i + k) % 2);
            }
        }
    }
}

/* --- cases ---------------------------------------------------------------- */

static void every_question_is_asked_once_by_any_number_of_ranks(void **state)
{
    (void)state;
    for (unsigned n = 1; n <= RANKS_MOST; n++) {
        struct world w;
        unsigned n_taken = 0;

        open_world(&w, n);
        run_world(&w);
        check_answers(&w, 0);
        for (unsigned i = 0; i < n; i++) {
            assert_int_equal(w.m[i].rc, 0);
            n_taken += w.m[i].n_taken;
        }
        assert_int_equal(n_taken, N_TASKS * N_UNITS);
        close_world(&w);
    }
}

static void a_slow_rank_takes_fewer(void **state)
{
    struct world w;

    (void)state;
    open_world(&w, 3);
    w.m[2].slow = true;
    run_world(&w);
    check_answers(&w, 0);
    /* Of 300 questions the first part that anybody gets is 51. */
    assert_in_range(w.m[2].n_taken, 0, 64);
    close_world(&w);
}

static void a_rank_that_dies_loses_nothing(void **state)
{
    static const unsigned when[] = {1, 7, 20};

    (void)state;
    for (size_t i = 0; i < sizeof when / sizeof *when; i++) {
        struct world w;

        open_world(&w, 3);
        w.m[1].dies_at = when[i];
        w.m[2].dies_at = 2 * when[i];
        w.m[0].patient = true;
        run_world(&w);
        check_answers(&w, 0);
        close_world(&w);
    }
}

static void others_end_where_rank_0_dies(void **state)
{
    struct world w;

    (void)state;
    open_world(&w, 3);
    w.m[0].dies_at = 3;
    w.m[1].patient = w.m[2].patient = true;
    run_world(&w);
    for (unsigned i = 1; i < 3; i++) {
        assert_int_equal(w.m[i].rc, -1);
        assert_int_equal(w.m[i].err.code, SL_ERR_IO);
        assert_non_null(strstr(w.m[i].err.msg, "rank 0 is gone"));
    }
    close_world(&w);
}

static void a_rank_with_other_questions_answers_none(void **state)
{
    struct world w;

    (void)state;
    open_world(&w, 3);
    w.m[0].patient = w.m[2].stranger = true;
    run_world(&w);
    check_answers(&w, 0);
    assert_int_equal(w.m[1].rc, 0);
    assert_int_equal(w.m[2].rc, -1);
    assert_int_equal(w.m[2].n_taken, 0);
    close_world(&w);
}

/* What is in the journal of a run that did not come to its end is not asked
 * again, and the rest is. */
static void a_journal_has_what_all_ranks_answered(void **state)
{
    char folder[] = "/tmp/sluice-share-XXXXXX", path[64];
    struct world w;
    struct sl_error err;
    size_t n_found;

    (void)state;
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/journal.jsonl", folder);
    open_world(&w, 4);
    make_units(&w.m[0]);
    assert_int_equal(sl_journal_open(&w.journal, folder, "a model",
                                     SL_JOURNAL_BEGIN, &w.m[0].ev, &n_found,
                                     &err),
                     0);
    assert_int_equal(sl_journal_begin(w.journal, "a model", &err), 0);
    run_world(&w);
    check_answers(&w, 0);
    sl_journal_close(w.journal);
    close_world(&w);

    open_world(&w, 2);
    make_units(&w.m[0]);
    assert_int_equal(truncate(path, 9000), 0); /* within a line */
    assert_int_equal(sl_journal_open(&w.journal, folder, "a model",
                                     SL_JOURNAL_RESUME, &w.m[0].ev, &n_found,
                                     &err),
                     0);
    assert_int_equal(sl_journal_begin(w.journal, "a model", &err), 0);
    assert_in_range(n_found, 10, N_TASKS * N_UNITS - 10);
    run_world(&w);
    check_answers(&w, (unsigned)n_found);
    assert_int_equal(w.m[0].n_taken + w.m[1].n_taken,
                     N_TASKS * N_UNITS - n_found);
    sl_journal_close(w.journal);
    close_world(&w);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(folder), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_question_is_asked_once_by_any_number_of_ranks),
        cmocka_unit_test(a_slow_rank_takes_fewer),
        cmocka_unit_test(a_rank_that_dies_loses_nothing),
        cmocka_unit_test(others_end_where_rank_0_dies),
        cmocka_unit_test(a_rank_with_other_questions_answers_none),
        cmocka_unit_test(a_journal_has_what_all_ranks_answered),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
