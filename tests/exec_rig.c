#include "config.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/runtime/runtime_impl.h"
#include "tests/exec_rig.h"
#include "tests/gpu_rates.h"
#include "tests/plain_lm.h"
#include "tests/support.h"

static const char *write_model(char *path, const char *dir,
                               const struct shape *s, int planes)
{
    struct test_model m;

    test_model_init(&m);
    m.hp.n_layers = s->n_layers;
    m.hp.hidden = s->hidden;
    m.hp.inner = s->inner;
    m.hp.n_heads = s->n_heads;
    m.hp.vocab = m.hp.text.n_tokens = s->vocab;
    memset(&m.hp.text.special, -1, sizeof m.hp.text.special); /* none */
    m.hp.glu = s->glu;
    m.hp.position_2d = s->position_2d;
    m.fmt = s->fmt;
    m.group_cols = s->group_cols;
    m.tp = s->tp;
    m.head_fmt = s->head_fmt;
    m.head_group = s->head_group;
    m.seed = s->hidden + s->fmt;
    m.planes = planes;
    snprintf(path, 1100, "%s/model%d.gguf", dir, planes);
    test_model_write(path, &m);
    return path;
}

const char *rig_model(char *path, const char *dir, const struct shape *s)
{
    return write_model(path, dir, s, TEST_NO_PLANES);
}

const char *rig_planes(char *path, const char *dir, const struct shape *s,
                       bool two)
{
    return write_model(path, dir, s, two ? TEST_PLANES : TEST_ONE_PIECE);
}

struct text text_of(const struct shape *s, uint32_t seed)
{
    struct text t;

    for (uint32_t i = 0; i < RIG_IDS; i++) {
        bool answer = i >= RIG_CONTEXT;

        t.ids[i] = (int32_t)((i * 37 + seed * 11) % s->vocab);
        t.positions[i] = answer ? 5 : (int32_t)i;
        t.blocks[i] = answer ? (int32_t)(i - RIG_CONTEXT) + 1 : 0;
    }
    return t;
}

struct sl_lm_item rig_item(const struct shape *s, const struct text *t,
                           uint32_t seq, uint32_t from, uint32_t to,
                           uint32_t n_logits)
{
    return (struct sl_lm_item){
        .seq = seq,
        .ids = t->ids + from,
        .positions = t->positions + from,
        .blocks = s->position_2d ? t->blocks + from : NULL,
        .n = to - from,
        .n_context = RIG_CONTEXT,
        .n_logits = n_logits,
        .reads = from == 0,
    };
}

struct sl_runtime_config rig_on_gpu(const char *path)
{
    return (struct sl_runtime_config){
        .model = path,
        .threads = 2,
        .ram_bytes = 1ull << 30,
        .device = SL_DEVICE_CUDA,
        .engine = SL_ENGINE_RULE_GPU,
        .rates = &test_gpu_rates,
    };
}

struct sl_workload rig_one_text(uint32_t n_ids)
{
    return (struct sl_workload){
        .n_sequences = 1,
        .max_tokens = n_ids,
        .pass_positions = n_ids,
        .pass_logits = n_ids,
    };
}

struct sl_runtime *rig_start(const struct sl_runtime_config *config,
                             const struct sl_workload *load)
{
    struct sl_runtime *rt;
    struct sl_error err;

    assert_ok(sl_runtime_open(&rt, config, &err), &err);
    assert_ok(sl_runtime_start(rt, load, &err), &err);
    return rt;
}

static bool late_ready(const struct sl_exec_engine *e, size_t slab)
{
    struct rig_late *late = (struct rig_late *)e->ops;

    return late->asked++ % late->of == 0;
}

void rig_be_late(struct rig_late *late, struct sl_runtime *rt, unsigned worker,
                 uint32_t of)
{
    if (rt->engines[worker] == NULL)
        return;
    *late = (struct rig_late){*rt->engines[worker]->ops, of, 0};
    late->ops.ready = late_ready;
    rt->engines[worker]->ops = &late->ops;
}

float *rig_one_pass(const struct sl_runtime_config *config,
                    const struct shape *s, uint32_t n_ids)
{
    struct text t = text_of(s, 0);
    struct sl_workload load = rig_one_text(n_ids);
    float *logits = malloc(4ull * n_ids * s->vocab);
    struct sl_runtime *rt = rig_start(config, &load);
    struct sl_lm *lm = sl_runtime_lm(rt);
    struct sl_lm_item it;
    struct sl_error err;
    uint32_t seq;

    assert_ok(lm->ops->seq_create(lm, &seq, &err), &err);
    it = rig_item(s, &t, seq, 0, n_ids, n_ids);
    assert_ok(lm->ops->forward(lm, &it, 1, logits, &err), &err);
    sl_runtime_close(rt);
    return logits;
}

int rig_run_steps(struct sl_runtime *rt, const struct shape *s, uint32_t n_ids,
                  float *logits, struct sl_error *err)
{
    struct text t = text_of(s, 0);
    struct sl_lm *lm = sl_runtime_lm(rt);
    uint32_t seq;

    if (lm->ops->seq_create(lm, &seq, err) != 0)
        return -1;
    for (uint32_t at = RIG_CONTEXT; at < n_ids; at++) {
        struct sl_lm_item it =
            rig_item(s, &t, seq, at == RIG_CONTEXT ? 0 : at, at + 1, 1);

        if (lm->ops->forward(lm, &it, 1,
                             logits + (size_t)(at - RIG_CONTEXT) * s->vocab,
                             err) != 0)
            return -1;
    }
    return 0;
}

float *rig_steps(const struct sl_runtime_config *config, const struct shape *s,
                 uint32_t n_ids)
{
    struct sl_workload load = rig_one_text(n_ids);
    struct sl_runtime *rt = rig_start(config, &load);
    float *logits = malloc(4ull * n_ids * s->vocab);
    struct sl_error err;

    assert_ok(rig_run_steps(rt, s, n_ids, logits, &err), &err);
    sl_runtime_close(rt);
    return logits;
}

double *rig_plain(const char *path, const struct shape *s, uint32_t n_ids)
{
    struct text t = text_of(s, 0);
    double *logits = malloc(8ull * n_ids * s->vocab);
    struct plain_lm *m = plain_lm_open(path);

    plain_lm_forward(m, logits, t.ids, t.positions,
                     s->position_2d ? t.blocks : NULL, n_ids, RIG_CONTEXT);
    plain_lm_close(m);
    return logits;
}

/* The context of a text and its first answer, then its second. */
static void run_alone(struct sl_lm *lm, float *logits, const struct shape *s,
                      const struct text *t)
{
    struct sl_lm_item it;
    struct sl_error err;
    uint32_t seq;

    assert_ok(lm->ops->seq_create(lm, &seq, &err), &err);
    it = rig_item(s, t, seq, 0, RIG_CONTEXT + 1, 1);
    assert_ok(lm->ops->forward(lm, &it, 1, logits, &err), &err);
    it = rig_item(s, t, seq, RIG_CONTEXT + 1, RIG_CONTEXT + 2, 1);
    assert_ok(lm->ops->forward(lm, &it, 1, logits, &err), &err);
    lm->ops->seq_destroy(lm, seq);
}

void rig_sequences(const struct sl_runtime_config *config,
                   const struct shape *s, uint32_t n_ids,
                   void (*same)(const float *alone, const float *together,
                                uint32_t vocab))
{
    struct sl_workload load = {
        .n_sequences = 4,
        .max_tokens = n_ids,
        .pass_positions = 4 * n_ids,
        .pass_logits = 4,
    };
    struct sl_lm_item items[4];
    struct text t[4];
    float *alone = malloc(4ull * s->vocab);
    float *together = malloc(4ull * 4 * s->vocab);
    struct sl_runtime *rt = rig_start(config, &load);
    struct sl_lm *lm = sl_runtime_lm(rt);
    struct sl_error err;
    uint32_t seqs[4];

    for (uint32_t i = 0; i < 3; i++) {
        t[i] = text_of(s, i);
        assert_ok(lm->ops->seq_create(lm, &seqs[i], &err), &err);
        items[i] = rig_item(s, &t[i], seqs[i], 0, RIG_CONTEXT + 1, 1);
    }
    assert_ok(lm->ops->forward(lm, items, 3, together, &err), &err);
    t[3] = t[1];
    t[3].ids[RIG_CONTEXT + 1] = 3;
    assert_ok(lm->ops->seq_fork(lm, &seqs[3], seqs[1], &err), &err);
    for (uint32_t i = 0; i < 4; i++)
        items[i] =
            rig_item(s, &t[i], seqs[i], RIG_CONTEXT + 1, RIG_CONTEXT + 2, 1);
    assert_ok(lm->ops->forward(lm, items, 4, together, &err), &err);
    for (uint32_t i = 0; i < 4; i++)
        lm->ops->seq_destroy(lm, seqs[i]);
    for (uint32_t i = 0; i < 4; i++) {
        run_alone(lm, alone, s, &t[i]);
        same(alone, together + (size_t)i * s->vocab, s->vocab);
    }
    sl_runtime_close(rt);
    free(alone);
    free(together);
}

struct interrupter {
    struct sl_runtime *rt;
    unsigned after_us;
};

static void *interrupt_soon(void *arg)
{
    struct interrupter *i = arg;

    usleep(i->after_us);
    sl_runtime_interrupt(i->rt);
    return NULL;
}

/* A pass that is interrupted after a time, if it takes that long, and the same
 * again. True if it was. */
static bool forward_interrupted(struct sl_runtime *rt,
                                const struct sl_lm_item *it, uint32_t held,
                                float *logits, unsigned after_us)
{
    struct interrupter i = {rt, after_us};
    struct sl_lm *lm = sl_runtime_lm(rt);
    struct sl_error err;
    pthread_t thread;
    int rc;

    assert_int_equal(pthread_create(&thread, NULL, interrupt_soon, &i), 0);
    rc = lm->ops->forward(lm, it, 1, logits, &err);
    pthread_join(thread, NULL);
    sl_runtime_resume(rt);
    if (rc == 0)
        return false;
    assert_int_equal(err.code, SL_ERR_INTERRUPTED);
    lm->ops->seq_cut(lm, it->seq, held);
    assert_ok(lm->ops->forward(lm, it, 1, logits, &err), &err);
    return true;
}

unsigned rig_interrupted(const struct sl_runtime_config *config,
                         const struct shape *s, uint32_t n_ids, unsigned rounds,
                         unsigned step_us)
{
    struct sl_workload load = rig_one_text(n_ids);
    float *want = rig_steps(config, s, n_ids);
    float *logits = malloc(4ull * s->vocab);
    struct sl_runtime *rt = rig_start(config, &load);
    struct sl_lm *lm = sl_runtime_lm(rt);
    struct text t = text_of(s, 0);
    unsigned n = 0, turn = 0;
    struct sl_error err;

    for (unsigned round = 0; round < rounds; round++) {
        uint32_t seq;

        assert_ok(lm->ops->seq_create(lm, &seq, &err), &err);
        for (uint32_t at = RIG_CONTEXT; at < n_ids; at++, turn++) {
            uint32_t held = at == RIG_CONTEXT ? 0 : at;
            struct sl_lm_item it = rig_item(s, &t, seq, held, at + 1, 1);

            n +=
                forward_interrupted(rt, &it, held, logits, turn % 10 * step_us);
            assert_memory_equal(logits,
                                want + (size_t)(at - RIG_CONTEXT) * s->vocab,
                                4ull * s->vocab);
        }
        lm->ops->seq_destroy(lm, seq);
    }
    sl_runtime_close(rt);
    free(logits);
    free(want);
    return n;
}

/* --- with a GPU ----------------------------------------------------------- */

void rig_assert_near(const float *got, const double *want, size_t n,
                     const char *what)
{
    double most = 0, scale = 0;

    for (size_t i = 0; i < n; i++) {
        /* NaN is not <= either */
        most = fabs(got[i] - want[i]) <= most ? most : fabs(got[i] - want[i]);
        scale = fmax(scale, fabs(want[i]));
    }
    if (!(most <= 0.01 * scale))
        print_error("%s: off by %g of %g\n", what, most, scale);
    assert_true(scale > 0.5 && most <= 0.01 * scale);
}

struct sl_vram rig_planned(const struct sl_runtime_config *config,
                           uint32_t n_ids, uint64_t *streamed)
{
    const struct sl_workload one_text = rig_one_text(n_ids);
    struct sl_runtime *rt;
    struct sl_error err;
    struct sl_vram v;

    assert_ok(sl_runtime_open(&rt, config, &err), &err);
    assert_ok(sl_runtime_plan(rt, &one_text, &err), &err);
    v = *sl_runtime_vram(rt);
    *streamed = sl_runtime_plan_made(rt)->streamed_bytes;
    sl_runtime_close(rt);
    return v;
}

void rig_count(const struct sl_plan *p, enum sl_phase phase,
               size_t n[SL_WORKERS])
{
    n[0] = n[1] = 0;
    for (size_t i = 0; i < p->n_slabs; i++)
        n[p->worker[phase][i]]++;
}
