#include "config.h"

#include <string.h>

#include "offload/sim_machine.h"
#include "src/probe/probe.h"
#include "tests/support.h"

#define SECOND 1000000000.0

/* Round numbers; no latency but where a case sets some. */
static const struct sl_machine_spec plain = {
    .name = "plain",
    .rates = {.disk_bps = 5e9,
              .dram_bps = 40e9,
              .worker[SL_HOST].ops_per_s = 1e12,
              .worker[SL_HOST].memory_bps = 30e9,
              .worker[SL_DEVICE].link_bps = 20e9,
              .worker[SL_DEVICE].memory_bps = 500e9,
              .worker[SL_DEVICE].ops_per_s = 50e12},
    .memory_bytes[SL_DEVICE] = 24000000000,
    .memory_bytes[SL_HOST] = 64000000000,
};

static void machine_init(struct sl_sim_machine *m,
                         const struct sl_machine_spec *spec)
{
    struct sl_error err;

    assert_ok(sl_sim_machine_init(m, spec, &err), &err);
}

static double now_s(struct sl_sim_machine *m)
{
    return (double)sl_clock_now(m->clock) / SECOND;
}

/* --- sharing -------------------------------------------------------------- */

struct watched {
    struct sl_flow flow; /* first */
    struct sl_sim_machine *m;
    double ended_s;
};

static void note_end(struct sl_flow *flow)
{
    struct watched *w = (struct watched *)flow;

    w->ended_s = now_s(w->m);
}

static void start(struct watched *w, struct sl_sim_machine *m, double bytes,
                  unsigned pipes, double most_bps)
{
    *w = (struct watched){
        .flow = {.bytes = bytes,
                 .pipes = pipes,
                 .most_bps = most_bps,
                 .done = note_end},
        .m = m,
    };
    sl_fluid_start(&m->fluid, &w->flow);
}

/* Lets so much time pass. */
static void pass_s(struct sl_sim_machine *m, double s)
{
    sl_machine_compute(m, 0, s * m->spec.rates.worker[SL_HOST].ops_per_s);
}

#define DRAM (1u << SL_PIPE_DRAM)
#define UP   (1u << SL_PIPE_UP)
#define DISK (1u << SL_PIPE_DISK)

/* 40 GB/s of DRAM: 20 for PCIe, whose limit that is, 15 and 5 for the others,
   then more for who is left. */
static void rates_are_fair_and_change_when_flows_end(void **state)
{
    struct sl_sim_machine m;
    struct watched copy, cores, read;

    machine_init(&m, &plain);
    start(&read, &m, 5e9, DISK | DRAM, 0);
    start(&copy, &m, 35e9, UP | DRAM, 0);
    start(&cores, &m, 35e9, DRAM, 30e9);
    pass_s(&m, 10);
    /* A second of 5 + 17.5 + 17.5, then 20 + 20. */
    assert_float_equal(read.ended_s, 1, 1e-6);
    assert_float_equal(copy.ended_s, 1.875, 1e-6);
    assert_float_equal(cores.ended_s, 1.875, 1e-6);
    start(&copy, &m, 10e9, UP | DRAM, 0);
    start(&cores, &m, 25e9, DRAM, 30e9);
    pass_s(&m, 10);
    /* Half a second of 20 + 20, then the cores have 30. */
    assert_float_equal(copy.ended_s, 10.5, 1e-6);
    assert_float_equal(cores.ended_s, 11, 1e-6);
    sl_sim_machine_fini(&m);
}

static void cores_take_the_longer_of_bytes_and_operations(void **state)
{
    struct sl_sim_machine m;

    machine_init(&m, &plain);
    sl_machine_compute(&m, 60e9, 1e12);
    assert_float_equal(now_s(&m), 2, 1e-6);
    sl_machine_compute(&m, 3e9, 4e12);
    assert_float_equal(now_s(&m), 6, 1e-6);
    sl_machine_compute(&m, 0, 0);
    assert_float_equal(now_s(&m), 6, 1e-6);
    sl_sim_machine_fini(&m);
}

/* --- the disk ------------------------------------------------------------- */

static void reads_in_flight_hide_each_others_latency(void **state)
{
    struct sl_machine_spec spec = plain;
    struct sl_sim_machine m;
    struct sl_io_done done[8];
    struct sl_error err;
    struct sl_io *io;

    spec.rates.disk_latency_s = 0.001;
    machine_init(&m, &spec);
    assert_ok(sl_io_open_sim(&io, &(struct sl_io_config){.depth = 8, .arg = &m},
                             &err),
              &err);
    for (uint64_t i = 0; i < 64; i++) {
        struct sl_io_read read = {.bytes = 50000000, .tag = i};
        int n = 1;

        if (i >= 8)
            n = io->ops->wait(io, done, 1, &err);
        assert_int_equal(n, 1);
        assert_ok(io->ops->submit(io, &read, &err), &err);
    }
    for (int left = 8; left > 0;) {
        int n = io->ops->wait(io, done, 8, &err);

        assert_in_range(n, 1, left);
        for (int i = 0; i < n; i++)
            assert_int_equal(done[i].result, 50000000);
        left -= n;
    }
    /* 3.2 GB at 5 GB/s, and one latency */
    assert_float_equal(now_s(&m), 0.641, 1e-3);
    io->ops->wake(io);
    assert_int_equal(io->ops->wait(io, done, 8, &err), 0);
    io->ops->close(io);
    sl_sim_machine_fini(&m);
}

/* --- the GPU -------------------------------------------------------------- */

struct gpu {
    struct sl_sim_machine m;
    struct sl_device *dev;
    const struct sl_device_ops *ops;
    struct sl_event *copied, *used, *end;
    struct sl_error err;
};

static void gpu_init(struct gpu *g, const struct sl_machine_spec *spec)
{
    struct sl_error *err = &g->err;

    machine_init(&g->m, spec);
    assert_ok(sl_device_open_sim(&g->dev, &g->m, err), err);
    g->ops = g->dev->ops;
    assert_ok(g->ops->event_create(g->dev, &g->copied, true, err), err);
    assert_ok(g->ops->event_create(g->dev, &g->used, true, err), err);
    assert_ok(g->ops->event_create(g->dev, &g->end, true, err), err);
}

static void gpu_fini(struct gpu *g)
{
    g->ops->event_destroy(g->dev, g->copied);
    g->ops->event_destroy(g->dev, g->used);
    g->ops->event_destroy(g->dev, g->end);
    sl_device_close(g->dev);
    sl_sim_machine_fini(&g->m);
}

static void copy(struct gpu *g, uint64_t bytes)
{
    struct sl_error *err = &g->err;

    assert_ok(g->ops->copy_up(g->dev, SL_QUEUE_UP, NULL, NULL, bytes, err),
              err);
}

static void kernel(struct gpu *g, double bytes, double ops)
{
    struct sl_error *err = &g->err;

    assert_ok(sl_device_model_launch(g->dev, bytes, ops, 0, err), err);
}

static void record(struct gpu *g, enum sl_queue queue, struct sl_event *event)
{
    assert_ok(g->ops->record(g->dev, queue, event, &g->err), &g->err);
}

static void queue_wait(struct gpu *g, enum sl_queue queue,
                       struct sl_event *event)
{
    assert_ok(g->ops->queue_wait(g->dev, queue, event, &g->err), &g->err);
}

static void copies_run_beside_kernels_and_events_order_them(void **state)
{
    uint64_t begin, length;
    struct gpu g;

    gpu_init(&g, &plain);
    copy(&g, 20000000000); /* until 1 s */
    record(&g, SL_QUEUE_UP, g.copied);
    kernel(&g, 250e9, 0); /* until 0.5 s */
    queue_wait(&g, SL_QUEUE_COMPUTE, g.copied);
    kernel(&g, 0, 50e12); /* 1 s .. 2 s */
    record(&g, SL_QUEUE_COMPUTE, g.used);
    queue_wait(&g, SL_QUEUE_UP, g.used);
    copy(&g, 10000000000); /* 2 s .. 2.5 s */
    record(&g, SL_QUEUE_UP, g.end);
    assert_int_equal(g.ops->done(g.dev, g.end, &g.err), 0);
    assert_float_equal(now_s(&g.m), 0, 0);
    assert_ok(g.ops->sync(g.dev, g.used, &g.err), &g.err);
    assert_float_equal(now_s(&g.m), 2, 1e-6);
    assert_int_equal(g.ops->done(g.dev, g.copied, &g.err), 1);
    assert_int_equal(g.ops->done(g.dev, g.end, &g.err), 0);
    assert_ok(g.ops->sync(g.dev, g.end, &g.err), &g.err);
    assert_float_equal(now_s(&g.m), 2.5, 1e-6);
    assert_ok(g.ops->span(g.dev, g.copied, g.used, &begin, &length, &g.err),
              &g.err);
    assert_float_equal((double)begin / SECOND, 1, 1e-6);
    assert_float_equal((double)length / SECOND, 1, 1e-6);
    gpu_fini(&g);
}

/* A wait is for the event as it was recorded last, not for later records. */
static void a_wait_is_for_the_last_record_before_it(void **state)
{
    struct gpu g;

    gpu_init(&g, &plain);
    queue_wait(&g, SL_QUEUE_COMPUTE, g.copied); /* never recorded: done */
    kernel(&g, 50e9, 0);
    record(&g, SL_QUEUE_COMPUTE, g.used);
    queue_wait(&g, SL_QUEUE_UP, g.used);
    record(&g, SL_QUEUE_UP, g.copied);
    kernel(&g, 500e9, 0);
    record(&g, SL_QUEUE_COMPUTE, g.used);
    assert_ok(g.ops->sync(g.dev, g.copied, &g.err), &g.err);
    assert_float_equal(now_s(&g.m), 0.1, 1e-6);
    assert_ok(g.ops->sync(g.dev, g.used, &g.err), &g.err);
    assert_float_equal(now_s(&g.m), 1.1, 1e-6);
    gpu_fini(&g);
}

static void copies_share_dram_with_the_cores(void **state)
{
    struct sl_machine_spec spec = plain;
    struct gpu g;

    spec.rates.dram_bps = 30e9;
    spec.rates.worker[SL_DEVICE].link_latency_s = 0.25;
    gpu_init(&g, &spec);
    copy(&g, 15000000000);
    sl_machine_compute(&g.m, 37.5e9, 0);
    /* 0.25 s alone, 1 s with 15 each, then the rest of 15 alone. */
    assert_float_equal(now_s(&g.m), 1.75, 1e-6);
    assert_int_equal(g.ops->done(g.dev, g.copied, &g.err), 1);
    gpu_fini(&g);
}

/* What plans take of a device is what it is measured to do. */
static void a_device_is_measured_as_it_is(void **state)
{
    struct sl_machine_spec spec = plain;
    struct sl_device_rates r;
    struct gpu g;

    spec.rates.worker[SL_DEVICE].link_latency_s = 25e-6;
    gpu_init(&g, &spec);
    assert_ok(sl_probe_device(&r, g.dev, 256u << 20, &g.err), &g.err);
    /* a copy of so much begins 25 us late */
    assert_float_equal(r.up_bps, 20e9, 1e8);
    assert_float_equal(r.down_bps, 20e9, 1e8);
    assert_float_equal(r.vram_bps, 500e9, 1e6);
    assert_float_equal(r.hand_over_s, 25e-6 + 16384 / 20e9, 1e-9);
    gpu_fini(&g);
}

static void vram_has_an_end(void **state)
{
    void *half, *rest;
    struct gpu g;

    gpu_init(&g, &plain);
    assert_ok(g.ops->alloc(g.dev, &half, 12000000000, &g.err), &g.err);
    assert_int_equal(g.ops->alloc(g.dev, &rest, 12000000001, &g.err), -1);
    assert_int_equal(g.err.code, SL_ERR_NOMEM);
    assert_non_null(strstr(g.err.msg, "12000000001 bytes"));
    assert_ok(g.ops->alloc(g.dev, &rest, 12000000000, &g.err), &g.err);
    g.ops->free(g.dev, half);
    assert_ok(g.ops->alloc(g.dev, &half, 1, &g.err), &g.err);
    gpu_fini(&g);
}

/* --- names ---------------------------------------------------------------- */

static void every_named_machine_makes_sense(void **state)
{
    const struct sl_machine_spec *s;
    struct sl_error err;
    size_t n = 0;

    while ((s = sl_machine_spec_at(n)) != NULL) {
        assert_ok(sl_machine_spec_check(s, &err), &err);
        assert_ptr_equal(sl_machine_spec_find(s->name), s);
        n++;
    }
    assert_int_equal(n, 4);
    assert_null(sl_machine_spec_find("rtx"));
}

static void a_machine_that_makes_no_sense_is_refused(void **state)
{
    struct sl_machine_spec spec = plain;
    struct sl_error err;

    spec.rates.worker[SL_HOST].memory_bps = 41e9;
    assert_int_equal(sl_machine_spec_check(&spec, &err), -1);
    spec = plain;
    spec.rates.disk_bps = 0;
    assert_int_equal(sl_machine_spec_check(&spec, &err), -1);
    spec = plain;
    spec.memory_bytes[SL_DEVICE] = 0;
    assert_int_equal(sl_machine_spec_check(&spec, &err), -1);
    spec.rates.worker[SL_DEVICE].link_bps = 0;
    assert_ok(sl_machine_spec_check(&spec, &err), &err);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rates_are_fair_and_change_when_flows_end),
        cmocka_unit_test(cores_take_the_longer_of_bytes_and_operations),
        cmocka_unit_test(reads_in_flight_hide_each_others_latency),
        cmocka_unit_test(copies_run_beside_kernels_and_events_order_them),
        cmocka_unit_test(a_wait_is_for_the_last_record_before_it),
        cmocka_unit_test(copies_share_dram_with_the_cores),
        cmocka_unit_test(a_device_is_measured_as_it_is),
        cmocka_unit_test(vram_has_an_end),
        cmocka_unit_test(every_named_machine_makes_sense),
        cmocka_unit_test(a_machine_that_makes_no_sense_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
