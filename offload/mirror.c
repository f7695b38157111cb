#include "config.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "offload/mirror.h"

/* A rate is told from what came of late: of so much time that a disk was busy,
 * and the half of it weighs half as much. */
#define MEMORY_NS 2000000000u
/* Less says more about a disk's latency than about its rate. */
#define LEAST_BYTES (8ull << 20)
/* A disk whose rate is too low to be asked may have stalled once: while the
 * other is busy for so long it gets a read, and what trials take is a small
 * part of all. */
#define TRIAL_NS    1000000000u
#define TRIAL_SHARE 16u

/* A read that tells whether a disk still is as slow as it was. */
struct trial {
    bool runs;
    uint64_t since_ns;
    uint64_t wait_ns;   /* until the next one */
    uint64_t passed_ns; /* of it, the other was busy and this one was not */
};

struct side {
    char *path;
    uint64_t flying;
    unsigned n_flying;
    uint64_t since_ns; /* something is in flight, counted until then */
    uint64_t late_bytes, late_ns;
    uint64_t told_bytes; /* since nothing was known of its rate */
    struct trial trial;
    struct sl_mirror_stats stats;
};

struct sl_mirror {
    const struct sl_log *log;
    struct sl_clock *clock;
    pthread_mutex_t mutex; /* guards what follows */
    struct side sides[SL_IO_FILES];
};

int sl_mirror_create(struct sl_mirror **mirror,
                     const struct sl_mirror_config *config,
                     struct sl_error *err)
{
    struct sl_mirror *m = calloc(1, sizeof *m);

    if (m == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory for a mirror");
    pthread_mutex_init(&m->mutex, NULL);
    m->log = config->log;
    m->clock = config->clock;
    for (unsigned i = 0; i < SL_IO_FILES; i++) {
        m->sides[i].trial.wait_ns = TRIAL_NS;
        m->sides[i].path = strdup(config->path[i]);
        if (m->sides[i].path != NULL)
            continue;
        sl_mirror_destroy(m);
        return sl_fail(err, SL_ERR_NOMEM, "no memory for a mirror");
    }
    *mirror = m;
    return 0;
}

void sl_mirror_destroy(struct sl_mirror *m)
{
    if (m == NULL)
        return;
    for (unsigned i = 0; i < SL_IO_FILES; i++)
        free(m->sides[i].path);
    pthread_mutex_destroy(&m->mutex);
    free(m);
}

const char *sl_mirror_path(const struct sl_mirror *m, unsigned file)
{
    return m->sides[file].path;
}

/* Counts the time until now in which something was in flight. */
static void advance(struct sl_mirror *m, struct side *s)
{
    struct side *other = &m->sides[s == m->sides];
    uint64_t now = sl_clock_now(m->clock), took = now - s->since_ns;

    if (s->n_flying > 0) {
        s->stats.busy_ns += took;
        s->late_ns += took;
        if (other->n_flying == 0)
            other->trial.passed_ns += took;
    }
    s->since_ns = now;
    while (s->late_ns > MEMORY_NS) {
        s->late_ns /= 2;
        s->late_bytes /= 2;
    }
}

static void begin_at(struct sl_mirror *m, struct side *s, uint64_t bytes)
{
    advance(m, s);
    if (s->trial.passed_ns >= s->trial.wait_ns) {
        s->trial.runs = true;
        s->trial.since_ns = s->since_ns;
    }
    s->trial.passed_ns = 0;
    s->flying += bytes;
    s->n_flying++;
}

/* Bytes a second; 0: nobody knows. */
static double rate_of(const struct side *s)
{
    if (s->told_bytes >= LEAST_BYTES && s->late_ns > 0)
        return (double)s->late_bytes * 1e9 / (double)s->late_ns;
    return 0;
}

/* One that comes in less than half the time that the rate makes it take says
 * that the rate is known no more. */
static void end_trial(struct side *s, double rate, uint64_t bytes)
{
    uint64_t took = s->since_ns - s->trial.since_ns;

    s->trial.runs = false;
    s->trial.wait_ns = TRIAL_SHARE * took;
    if (s->trial.wait_ns < TRIAL_NS)
        s->trial.wait_ns = TRIAL_NS;
    if ((double)took * 2 * rate < (double)bytes * 1e9)
        s->late_bytes = s->late_ns = s->told_bytes = 0;
}

/* The other disk is taken to be as fast as one that is known. */
static unsigned choose(const struct sl_mirror *m, uint64_t bytes)
{
    const struct side *s = m->sides;
    double r0 = rate_of(&s[0]), r1 = rate_of(&s[1]), t0, t1;

    if (s[0].stats.out || s[1].stats.out)
        return s[0].stats.out;
    for (unsigned i = 0; i < SL_IO_FILES; i++)
        if (s[i].trial.passed_ns >= s[i].trial.wait_ns)
            return i;
    r0 = r0 > 0 ? r0 : r1;
    r1 = r1 > 0 ? r1 : r0;
    if (r0 <= 0)
        r0 = r1 = 1;
    t0 = (double)(s[0].flying + bytes) / r0;
    t1 = (double)(s[1].flying + bytes) / r1;
    if (t0 != t1)
        return t1 < t0;
    return (double)s[1].stats.bytes / r1 < (double)s[0].stats.bytes / r0;
}

unsigned sl_mirror_begin(struct sl_mirror *m, uint64_t bytes)
{
    unsigned file;

    pthread_mutex_lock(&m->mutex);
    file = choose(m, bytes);
    begin_at(m, &m->sides[file], bytes);
    pthread_mutex_unlock(&m->mutex);
    return file;
}

void sl_mirror_end(struct sl_mirror *m, unsigned file, uint64_t bytes,
                   bool came)
{
    struct side *s = &m->sides[file];
    double rate;

    pthread_mutex_lock(&m->mutex);
    assert(s->n_flying > 0 && s->flying >= bytes);
    rate = rate_of(s);
    advance(m, s);
    s->flying -= bytes;
    s->n_flying--;
    if (came) {
        s->stats.bytes += bytes;
        s->late_bytes += bytes;
        s->told_bytes += bytes;
    }
    if (s->trial.runs)
        end_trial(s, rate, came ? bytes : 0);
    pthread_mutex_unlock(&m->mutex);
}

bool sl_mirror_is_out(struct sl_mirror *m, unsigned file)
{
    bool out;

    pthread_mutex_lock(&m->mutex);
    out = m->sides[file].stats.out;
    pthread_mutex_unlock(&m->mutex);
    return out;
}

bool sl_mirror_leave_out(struct sl_mirror *m, unsigned file, const char *why)
{
    struct side *s = &m->sides[file], *other = &m->sides[1 - file];
    bool last, known;

    pthread_mutex_lock(&m->mutex);
    last = other->stats.out;
    known = s->stats.out;
    s->stats.out = !last;
    pthread_mutex_unlock(&m->mutex);
    if (!last && !known)
        sl_log(m->log, SL_LOG_WARN, "%s; it is left out, %s is read alone", why,
               other->path);
    return !last;
}

void sl_mirror_stats(struct sl_mirror *m,
                     struct sl_mirror_stats stats[SL_IO_FILES])
{
    pthread_mutex_lock(&m->mutex);
    for (unsigned i = 0; i < SL_IO_FILES; i++) {
        advance(m, &m->sides[i]);
        stats[i] = m->sides[i].stats;
    }
    pthread_mutex_unlock(&m->mutex);
}
