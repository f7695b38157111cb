#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "kernels/matmul.h"
#include "src/base/mem.h"
#include "src/base/pool.h"
#include "src/probe/probe.h"
#include "src/probe/survey.h"

#define DRAM_TIME_NS 100000000u
#define OPS_TIME_NS  40000000u
#define TRIES        3u /* others may use the machine during one */

struct job {
    struct sl_pool *pool;
    uint64_t time_ns; /* 0: ours */
    unsigned tries;
};

static int no_memory(struct sl_error *err)
{
    return sl_fail(err, SL_ERR_NOMEM, "no memory for what was measured");
}

/* 1, 2, 4, ... and n: the next after t. */
static unsigned next_threads(unsigned t, unsigned n)
{
    return t < n && 2 * t > n ? n : 2 * t;
}

/* The best of some tries: what else runs on the machine only ever takes
 * away. */
static int add_dram(json_t *list, const struct job *job, struct sl_error *err)
{
    struct sl_probe_dram_config config = {
        .pool = job->pool,
        .time_ns = job->time_ns > 0 ? job->time_ns : DRAM_TIME_NS,
    };
    struct sl_dram_rate rate, best = {.bps = 0};

    for (unsigned i = 0; i < job->tries; i++) {
        if (sl_probe_dram(&rate, &config, err) != 0)
            return -1;
        best = rate.bps > best.bps ? rate : best;
    }
    if (json_array_append_new(list,
                              json_pack("{s:I, s:f, s:I, s:b}", "threads",
                                        (json_int_t)sl_pool_threads(job->pool),
                                        "bytes_per_s", best.bps, "buffer_bytes",
                                        (json_int_t)best.bytes, "beyond_cache",
                                        best.beyond_cache)) != 0)
        return no_memory(err);
    return 0;
}

enum sl_act sl_survey_inputs(const struct sl_kernels *kernels, enum sl_fmt fmt)
{
    return !sl_fmt_is_float(fmt) && kernels->matmul[fmt][SL_ACT_INT8] != NULL
               ? SL_ACT_INT8
               : SL_ACT_F32;
}

/* The best of some tries of one kind of product, added to the list. */
static int add_product(json_t *list, const struct job *job,
                       const struct sl_probe_ops_config *config,
                       struct sl_error *err)
{
    double rate, best = 0;

    for (unsigned k = 0; k < job->tries; k++) {
        if (sl_probe_ops(&rate, config, err) != 0)
            return -1;
        best = rate > best ? rate : best;
    }
    if (json_array_append_new(list,
                              json_pack("{s:s, s:I, s:s, s:s, s:I, s:f}",
                                        "format", sl_fmt_name(config->fmt),
                                        "group", (json_int_t)config->group_cols,
                                        "activations", sl_act_name(config->act),
                                        "isa", config->kernels->isa, "threads",
                                        (json_int_t)sl_pool_threads(job->pool),
                                        "operations_per_s", best)) != 0)
        return no_memory(err);
    return 0;
}

/* Every format with the inputs that --activations auto gives it, those with
 * scales with each width of groups. Other inputs are measured where a run has
 * them: all kinds would take most of a minute. */
static int add_operations(json_t *list, const struct job *job,
                          struct sl_error *err)
{
    static const uint32_t groups[] = {0, 32, 64, 128};
    const size_t n_groups = sizeof groups / sizeof *groups;
    struct sl_kernels kernels;

    sl_kernels_init(&kernels, sl_cpu_best_isa());
    for (int fmt = 0; fmt < SL_FMT_COUNT; fmt++) {
        struct sl_probe_ops_config config = {
            .kernels = &kernels,
            .pool = job->pool,
            .fmt = (enum sl_fmt)fmt,
            .act = sl_survey_inputs(&kernels, (enum sl_fmt)fmt),
            .time_ns = job->time_ns > 0 ? job->time_ns : OPS_TIME_NS,
        };
        bool widths = sl_fmt_has_scales(config.fmt) && config.act != SL_ACT_F32;

        if (kernels.matmul[config.fmt][config.act] == NULL)
            continue;
        for (size_t g = 0; g < (widths ? n_groups : 1); g++) {
            config.group_cols = groups[g];
            if (add_product(list, job, &config, err) != 0)
                return -1;
        }
    }
    return 0;
}

static int add_attention(json_t *list, const struct job *job,
                         struct sl_error *err)
{
    struct sl_kernels kernels;
    struct sl_probe_attend_config config = {
        .kernels = &kernels,
        .pool = job->pool,
        .time_ns = job->time_ns > 0 ? job->time_ns : OPS_TIME_NS,
    };
    double rate, best = 0;

    sl_kernels_init(&kernels, sl_cpu_best_isa());
    for (unsigned k = 0; k < job->tries; k++) {
        if (sl_probe_attend(&rate, &config, err) != 0)
            return -1;
        best = rate > best ? rate : best;
    }
    if (json_array_append_new(
            list, json_pack("{s:s, s:I, s:f}", "isa", kernels.isa, "threads",
                            (json_int_t)sl_pool_threads(job->pool),
                            "operations_per_s", best)) != 0)
        return no_memory(err);
    return 0;
}

static int add_reading(json_t *list, const struct job *job,
                       struct sl_error *err)
{
    struct sl_kernels kernels;
    struct sl_probe_reading_config config = {
        .kernels = &kernels,
        .pool = job->pool,
        .bytes = job->time_ns > 0 ? 1 : 0, /* little */
        .turns = job->time_ns > 0 ? 1 : 0,
    };
    struct sl_reading best;

    sl_kernels_init(&kernels, sl_cpu_best_isa());
    if (sl_probe_reading(&best, &config, err) != 0)
        return -1;
    if (json_array_append_new(
            list, json_pack("{s:s, s:I, s:I, s:I}", "isa", kernels.isa,
                            "threads", (json_int_t)sl_pool_threads(job->pool),
                            "places", (json_int_t)best.places, "ahead_bytes",
                            (json_int_t)best.ahead)) != 0)
        return no_memory(err);
    return 0;
}

/* One number of a file; -1 where there is none. */
static long long read_number(const char *path)
{
    FILE *f = fopen(path, "re");
    long long v = -1;

    if (f == NULL)
        return -1;
    if (fscanf(f, "%lld", &v) != 1)
        v = -1;
    fclose(f);
    return v;
}

/* The word in brackets: "always [madvise] never". */
static void read_choice(char *out, size_t n, const char *path)
{
    FILE *f = fopen(path, "re");
    char line[128] = "", *begin, *end;

    snprintf(out, n, "unknown");
    if (f == NULL)
        return;
    if (fgets(line, sizeof line, f) != NULL &&
        (begin = strchr(line, '[')) != NULL &&
        (end = strchr(begin, ']')) != NULL)
        snprintf(out, n, "%.*s", (int)(end - begin - 1), begin + 1);
    fclose(f);
}

static json_int_t limit(rlim_t v)
{
    return v == RLIM_INFINITY ? -1 : (json_int_t)v;
}

/* Nothing is measured here; it is what one asks for first where a run is
 * slower than planned (huge pages, what may be pinned). */
static json_t *memory_json(const struct sl_machine *m)
{
    struct rlimit lock = {RLIM_INFINITY, RLIM_INFINITY};
    char thp[24];

    read_choice(thp, sizeof thp, "/sys/kernel/mm/transparent_hugepage/enabled");
    getrlimit(RLIMIT_MEMLOCK, &lock);
    return json_pack(
        "{s:I, s:I, s:s, s:I, s:I, s:I, s:I}", "ram_bytes",
        (json_int_t)m->ram_bytes, "numa_nodes", (json_int_t)m->n_numa,
        "transparent_huge_pages", thp, "huge_pages_2m",
        (json_int_t)read_number(
            "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"),
        "huge_pages_2m_free",
        (json_int_t)read_number(
            "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages"),
        "memlock_bytes", limit(lock.rlim_cur), "memlock_most_bytes",
        limit(lock.rlim_max));
}

/* Flags of io_uring_setup(2) by bit. */
static json_t *uring_json(void)
{
    static const char *const names[] = {
        "single_mmap",     "nodrop",         "submit_stable", "rw_cur_pos",
        "cur_personality", "fast_poll",      "poll_32bits",   "sqpoll_nonfixed",
        "ext_arg",         "native_workers", "rsrc_tags",     "cqe_skip",
        "linked_file",     "reg_reg_ring",
    };
    json_t *list = json_array();
    uint32_t features = 0;
    int rc = sl_io_uring_features(&features);

    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (features >> i & 1)
            json_array_append_new(list, json_string(names[i]));
    }
    return json_pack("{s:b, s:s, s:o}", "usable", rc == 0, "refusal",
                     rc == 0 ? "" : strerror(-rc), "features", list);
}

/* A pool of its own for each number, as rates do not grow with it: DRAM is
 * full with a few threads. */
static int measure_threads(json_t *survey, const struct sl_machine *m,
                           const struct sl_survey_effort *effort,
                           struct sl_error *err)
{
    json_t *dram = json_object_get(survey, "dram");
    json_t *operations = json_object_get(survey, "operations");
    json_t *attention = json_object_get(survey, "attention");
    json_t *reading = json_object_get(survey, "reading");

    for (unsigned t = 1; t <= m->n_cpus; t = next_threads(t, m->n_cpus)) {
        struct job job = {
            .time_ns = effort->time_ns,
            .tries = effort->tries > 0 ? effort->tries : TRIES,
        };
        int rc;

        if (sl_pool_create(&job.pool, t, err) != 0)
            return -1;
        rc = add_dram(dram, &job, err);
        if (rc == 0)
            rc = add_operations(operations, &job, err);
        if (rc == 0)
            rc = add_attention(attention, &job, err);
        if (rc == 0)
            rc = add_reading(reading, &job, err);
        sl_pool_destroy(job.pool);
        if (rc != 0)
            return -1;
    }
    return 0;
}

int sl_survey_machine(json_t **survey, const struct sl_machine *m,
                      const struct sl_survey_effort *effort,
                      struct sl_error *err)
{
    json_t *made = json_pack(
        "{s:i, s:{s:s, s:s, s:s, s:I, s:I}, s:I, s:[], s:[], s:[], s:[], s:o, "
        "s:o, s:{}}",
        "version", SL_SURVEY_VERSION, "machine", "cpu", m->cpu, "kernel",
        m->kernel, "boot_id", m->boot_id, "cpus", (json_int_t)m->n_cpus,
        "ram_bytes", (json_int_t)m->ram_bytes, "measured",
        (json_int_t)time(NULL), "dram", "operations", "attention", "reading",
        "memory", memory_json(m), "io_uring", uring_json(), "disks");

    if (made == NULL)
        return no_memory(err);
    if (measure_threads(made, m, effort, err) != 0 ||
        sl_survey_gpus(made, effort, err) != 0) {
        json_decref(made);
        return -1;
    }
    *survey = made;
    return 0;
}
