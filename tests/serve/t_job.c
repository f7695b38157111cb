#include "config.h"

#include <string.h>

#include "src/serve/job.h"
#include "src/serve/room.h"
#include "tests/support.h"

/* A server without a model, whose passes take a second. */
static void open_idle(struct sl_server *s, struct sl_serve_config *c)
{
    sl_serve_config_init(c);
    *s = (struct sl_server){.c = c, .state = SL_SERVE_READY, .floor_s = 1};
    pthread_mutex_init(&s->lock, NULL);
    pthread_mutex_init(&s->text_lock, NULL);
    pthread_mutex_init(&s->large_lock, NULL);
    pthread_cond_init(&s->work, NULL);
    s->parallel = s->part_positions = 1;
}

static void close_idle(struct sl_server *s)
{
    s->first_waiting = s->last_waiting = NULL;
    sl_jobs_drop_all(s);
    pthread_cond_destroy(&s->work);
    pthread_mutex_destroy(&s->lock);
    pthread_mutex_destroy(&s->text_lock);
    pthread_mutex_destroy(&s->large_lock);
}

/* n texts that may say so many ids each. */
static struct sl_job *submit(struct sl_server *s, size_t n, uint32_t max_new)
{
    struct sl_job *job;
    struct sl_refusal why;

    assert_int_equal(sl_job_create(&job, s, "job", n, &why), 0);
    for (size_t k = 0; k < n; k++) {
        job->choices[k].gen.opaque = &job->choices[k];
        job->choices[k].gen.max_new = max_new;
    }
    assert_int_equal(sl_job_submit(job, &why), 0);
    return job;
}

static void begin_first(struct sl_server *s)
{
    atomic_store(&s->first_waiting->admitted, true);
    s->first_waiting = s->first_waiting->next;
    s->n_waiting--;
}

/* Each text once: a job's own are not before it. */
static void what_a_job_is_told_to_take_counts_each_text_once(void **state)
{
    struct sl_serve_config c;
    struct sl_server s;
    struct sl_job_progress p;
    struct sl_job *jobs[3];
    double seconds[3];

    open_idle(&s, &c);
    s.parallel = 2;
    jobs[0] = submit(&s, 1, 10);
    assert_true(sl_jobs_wait_s(&s) == 0);
    sl_job_progress(jobs[0], &p);
    assert_true(p.seconds_left == 10); /* there is room for it */
    jobs[1] = submit(&s, 4, 10);
    jobs[2] = submit(&s, 1, 4);
    for (size_t i = 0; i < 3; i++) {
        sl_job_progress(jobs[i], &p);
        seconds[i] = p.seconds_left;
    }
    assert_true(seconds[0] == 10 && seconds[1] == 20 && seconds[2] == 25 + 4);
    assert_true(sl_jobs_wait_s(&s) == 27);
    begin_first(&s);
    begin_first(&s);
    atomic_store(&jobs[0]->choices[0].gen.n_said, 6);
    atomic_store(&jobs[1]->choices[0].gen.n_said, 6);
    for (size_t i = 0; i < 3; i++) {
        sl_job_progress(jobs[i], &p);
        seconds[i] = p.seconds_left;
    }
    assert_true(seconds[0] == 4 && seconds[1] == 17 && seconds[2] == 19 + 4);
    close_idle(&s);
}

static void a_job_s_place_is_that_of_its_first_text_that_waits(void **state)
{
    static const size_t n_texts[] = {1, 3, 2};
    struct sl_serve_config c;
    struct sl_server s;
    struct sl_job *jobs[3];
    struct sl_job_progress p;

    open_idle(&s, &c);
    for (size_t i = 0; i < 3; i++)
        jobs[i] = submit(&s, n_texts[i], 0);
    /* Of so many texts at work: texts before the first of each job. */
    for (uint32_t at_work = 0; at_work < 6; at_work++) {
        static const unsigned first[] = {0, 1, 4};

        for (size_t i = 0; i < 3; i++) {
            sl_job_progress(jobs[i], &p);
            assert_int_equal(p.queue,
                             at_work < first[i] ? first[i] - at_work : 0);
        }
        begin_first(&s);
    }
    close_idle(&s);
}

/* Jobs that ask for chances of their texts: what they can become is most of
 * what they take. */
static struct sl_job *make_large(struct sl_server *s, uint32_t max_new)
{
    struct sl_job *job;
    struct sl_refusal why;

    assert_int_equal(sl_job_create(&job, s, "job", 1, &why), 0);
    job->choices[0].gen.opaque = &job->choices[0];
    job->choices[0].gen.max_new = max_new;
    job->choices[0].gen.rules.n_top = SL_MOST_TOP;
    return job;
}

static void end_job(struct sl_job *job)
{
    struct sl_choice *c = &job->choices[0];

    c->ended = true;
    c->how = SL_GEN_LENGTH;
    sl_job_choice_ended(job);
}

static void answers_wait_for_room_and_kept_ones_go_for_it(void **state)
{
    struct sl_serve_config c;
    struct sl_server s;
    struct sl_job *jobs[4];
    struct sl_refusal why;
    uint64_t each;

    open_idle(&s, &c);
    jobs[0] = make_large(&s, 1000);
    each = sl_choice_to_come(&jobs[0]->choices[0]) / 1000; /* a token */
    sl_job_discard(jobs[0]);
    assert_true(s.room_bytes == 0 && s.asked_bytes == 0);
    for (size_t i = 0; i < 3; i++) { /* two have room, and no three */
        jobs[i] = make_large(&s, (uint32_t)(sl_room_bytes(&c) / 5 * 2 / each));
        jobs[i]->hash[0] = i + 1;
        jobs[i]->repeatable = true;
        sl_job_listen(jobs[i]);
        assert_int_equal(sl_job_submit(jobs[i], &why), 0);
    }
    assert_true(s.room_bytes == s.asked_bytes && s.room_bytes > 0);
    for (size_t i = 0; i < 2; i++) {
        assert_true(sl_jobs_may_begin(&s));
        assert_ptr_equal(sl_jobs_next(&s), &jobs[i]->choices[0].gen);
    }
    assert_false(sl_jobs_may_begin(&s));
    assert_true(s.room_bytes <= sl_room_bytes(&c));
    /* What it has become is much less; and that goes where others need it. */
    end_job(jobs[0]);
    assert_true(jobs[0]->bytes < 16 << 10);
    sl_job_leave(jobs[0]);
    assert_ptr_equal(sl_job_find(&s, (uint64_t[2]){1, 0}), jobs[0]);
    assert_true(sl_jobs_kept_bytes(&s) == jobs[0]->bytes);
    assert_true(sl_jobs_may_begin(&s));
    assert_ptr_equal(sl_jobs_next(&s), &jobs[2]->choices[0].gen);
    assert_true(sl_room_take(&s, sl_room_bytes(&c) - s.room_bytes));
    assert_ptr_equal(sl_job_find(&s, (uint64_t[2]){1, 0}), jobs[0]);
    assert_true(sl_room_take(&s, 1));
    assert_null(sl_job_find(&s, (uint64_t[2]){1, 0}));
    assert_false(sl_room_take(&s, 16 << 10));
    close_idle(&s);
}

static void what_never_has_room_is_refused_with_the_numbers(void **state)
{
    struct sl_serve_config c;
    struct sl_server s;
    struct sl_job *jobs[3];
    struct sl_refusal why;
    struct sl_error err;
    uint64_t half;

    open_idle(&s, &c);
    half = sl_room_bytes(&c) / 2;
    jobs[0] = make_large(&s, 1u << 20);
    assert_int_equal(sl_job_submit(jobs[0], &why), -1);
    assert_int_equal(why.status, 400);
    assert_non_null(strstr(why.msg, "there are 16.0 MiB"));
    assert_non_null(strstr(why.msg, "--keep-answers"));
    sl_job_discard(jobs[0]);
    /* Those that wait have a half. */
    for (size_t i = 0; i < 3; i++) {
        struct sl_choice *choice;

        jobs[i] = make_large(&s, 10);
        choice = &jobs[i]->choices[0];
        for (size_t k = 0; k < half / 3 / sizeof(int32_t); k++)
            assert_ok(sl_ids_add(&choice->gen.ids, 1, &err), &err);
        why.status = 0;
        assert_int_equal(sl_choice_hold(choice, &why), i < 2 ? 0 : -1);
        assert_int_equal(why.status, i < 2 ? 0 : 429);
    }
    assert_int_equal(why.retry_after_s, 1);
    for (size_t i = 0; i < 3; i++)
        sl_job_discard(jobs[i]);
    assert_true(s.room_bytes == 0 && s.asked_bytes == 0);
    close_idle(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_a_job_is_told_to_take_counts_each_text_once),
        cmocka_unit_test(a_job_s_place_is_that_of_its_first_text_that_waits),
        cmocka_unit_test(answers_wait_for_room_and_kept_ones_go_for_it),
        cmocka_unit_test(what_never_has_room_is_refused_with_the_numbers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
