#include "config.h"

#include "src/base/vclock.h"
#include "tests/support.h"

#define SECOND 1000000000u

/* Two threads that hand a ball to each other, and a log of what happened. */
struct game {
    struct sl_vclock *vclock;
    struct sl_clock *clock;
    pthread_mutex_t mutex;
    pthread_cond_t cond;
    struct sl_vtimer timer;
    unsigned ball, timers;
    uint64_t log[64];
    size_t n_log;
};

static void game_init(struct game *g)
{
    struct sl_error err;

    *g = (struct game){.ball = 0};
    assert_ok(sl_vclock_create(&g->vclock, &err), &err);
    g->clock = sl_vclock_clock(g->vclock);
    pthread_mutex_init(&g->mutex, NULL);
    pthread_cond_init(&g->cond, NULL);
}

static void game_fini(struct game *g)
{
    pthread_cond_destroy(&g->cond);
    pthread_mutex_destroy(&g->mutex);
    sl_vclock_destroy(g->vclock);
}

static void note(struct game *g, uint64_t what)
{
    assert_true(g->n_log < 64);
    g->log[g->n_log++] = what;
}

static void ring_bell(struct sl_vtimer *timer)
{
    struct game *g =
        (struct game *)((char *)timer - offsetof(struct game, timer));

    g->timers++;
    sl_clock_broadcast(g->clock, &g->cond);
}

/* Sleeps for so long: only timers make time pass. */
static void sleep_ns(struct game *g, uint64_t ns)
{
    unsigned before = g->timers;

    pthread_mutex_lock(&g->mutex);
    g->timer.fire = ring_bell;
    sl_vclock_set(g->vclock, &g->timer, sl_clock_now(g->clock) + ns);
    while (g->timers == before)
        sl_clock_wait(g->clock, &g->cond, &g->mutex);
    pthread_mutex_unlock(&g->mutex);
}

static void a_wait_for_an_hour_takes_none(void **state)
{
    uint64_t began = sl_clock_ns();
    struct game g;

    game_init(&g);
    assert_int_equal(sl_clock_now(g.clock), 0);
    sleep_ns(&g, 3600ull * SECOND);
    assert_int_equal(sl_clock_now(g.clock), 3600ull * SECOND);
    assert_true(sl_clock_ns() - began < 60ull * SECOND);
    game_fini(&g);
}

static void *play(void *arg)
{
    struct game *g = arg;

    pthread_mutex_lock(&g->mutex);
    for (int i = 0; i < 5; i++) {
        while (g->ball % 2 == 0)
            sl_clock_wait(g->clock, &g->cond, &g->mutex);
        note(g, 100 + g->ball++);
        sl_clock_broadcast(g->clock, &g->cond);
    }
    pthread_mutex_unlock(&g->mutex);
    sleep_ns(g, SECOND);
    return NULL;
}

static void threads_take_turns_and_join_waits_in_time(void **state)
{
    struct game g;
    pthread_t other;

    game_init(&g);
    assert_int_equal(sl_clock_thread(g.clock, &other, NULL, play, &g), 0);
    pthread_mutex_lock(&g.mutex);
    for (int i = 0; i < 5; i++) {
        while (g.ball % 2 == 1)
            sl_clock_wait(g.clock, &g.cond, &g.mutex);
        note(&g, g.ball++);
        sl_clock_broadcast(g.clock, &g.cond);
    }
    pthread_mutex_unlock(&g.mutex);
    assert_int_equal(sl_clock_now(g.clock), 0);
    sl_clock_join(g.clock, other);
    assert_int_equal(sl_clock_now(g.clock), SECOND);
    for (uint64_t i = 0; i < 10; i++)
        assert_int_equal(g.log[i], i % 2 ? 100 + i : i);
    game_fini(&g);
}

struct bell {
    struct sl_vtimer timer;
    struct game *game;
    uint64_t name;
};

static void ring(struct sl_vtimer *timer)
{
    struct bell *b = (struct bell *)timer;

    note(b->game, b->name + sl_clock_now(b->game->clock) * 10);
}

static void timers_fire_in_order_of_time_then_of_setting(void **state)
{
    static const uint64_t expected[] = {14, 21, 22, 23, 50};
    struct bell bells[6];
    struct game g;

    game_init(&g);
    for (uint64_t i = 0; i < 6; i++) {
        static const uint64_t at[] = {9, 2, 2, 2, 1, 3};

        bells[i] = (struct bell){{.fire = ring}, &g, i};
        sl_vclock_set(g.vclock, &bells[i].timer, at[i]);
    }
    sl_vclock_unset(g.vclock, &bells[5].timer);
    sl_vclock_set(g.vclock, &bells[0].timer, 5);
    sleep_ns(&g, 20);
    assert_int_equal(g.n_log, 5);
    for (size_t i = 0; i < 5; i++)
        assert_int_equal(g.log[i], expected[i]);
    /* What is past happens now. */
    sl_vclock_set(g.vclock, &bells[5].timer, 3);
    sleep_ns(&g, 1);
    assert_int_equal(g.log[5], 205);
    game_fini(&g);
}

static void no_clock_is_the_real_one(void **state)
{
    uint64_t before = sl_clock_ns(), now = sl_clock_now(NULL);

    assert_true(now >= before && now <= sl_clock_ns());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_wait_for_an_hour_takes_none),
        cmocka_unit_test(threads_take_turns_and_join_waits_in_time),
        cmocka_unit_test(timers_fire_in_order_of_time_then_of_setting),
        cmocka_unit_test(no_clock_is_the_real_one),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
