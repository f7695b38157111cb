/*
 * exec_rig.h - small models of any shape, and texts that go through them
 */
#ifndef TESTS_EXEC_RIG_H
#define TESTS_EXEC_RIG_H

#include "src/exec/engine.h"
#include "src/runtime/runtime.h"
#include "tests/model_maker.h"

#define RIG_IDS     23u /* of a text, at most */
#define RIG_CONTEXT 14u /* of them context, the others answer */

struct shape {
    const char *what;
    uint32_t n_layers, hidden, inner, n_heads, vocab;
    bool glu, position_2d;
    enum sl_fmt fmt;
    uint32_t group_cols, tp;
    enum sl_fmt head_fmt;
    uint32_t head_group;
};

/* A model file of a shape in folder dir; path[1100], which is returned. */
const char *rig_model(char *path, const char *dir, const struct shape *s);
/* The same of INT8 with room for two planes, in one piece or in two. */
const char *rig_planes(char *path, const char *dir, const struct shape *s,
                       bool two);

struct text {
    int32_t ids[RIG_IDS], positions[RIG_IDS], blocks[RIG_IDS];
};

struct text text_of(const struct shape *s, uint32_t seed);
/* Positions [from, to) of a text. */
struct sl_lm_item rig_item(const struct shape *s, const struct text *t,
                           uint32_t seq, uint32_t from, uint32_t to,
                           uint32_t n_logits);
/* The GPU computes everything, whatever it has. */
struct sl_runtime_config rig_on_gpu(const char *path);
/* One text of n_ids positions, all in a pass. */
struct sl_workload rig_one_text(uint32_t n_ids);
/* Opened and started; fails the test. */
struct sl_runtime *rig_start(const struct sl_runtime_config *config,
                             const struct sl_workload *load);

/* A worker whose slabs are late: of so many times that a pass asks whether one
 * is there it is once, the first time. */
struct rig_late {
    struct sl_engine_ops ops; /* first */
    uint32_t of, asked;
};
/* late: borrowed by rt. Nothing where rt has no such worker. */
void rig_be_late(struct rig_late *late, struct sl_runtime *rt, unsigned worker,
                 uint32_t of);

/* Logits of n_ids positions in one pass; (n_ids, vocab), free it. */
float *rig_one_pass(const struct sl_runtime_config *config,
                    const struct shape *s, uint32_t n_ids);
/* The context and its first answer in one pass, then position by position:
 * logits of the answer, (n_ids - RIG_CONTEXT, vocab). Errors: the runtime's. */
int rig_run_steps(struct sl_runtime *rt, const struct shape *s, uint32_t n_ids,
                  float *logits, struct sl_error *err);
/* The same of a runtime of its own; free it. */
float *rig_steps(const struct sl_runtime_config *config, const struct shape *s,
                 uint32_t n_ids);
/* What a plain implementation gives for all positions; free it. */
double *rig_plain(const char *path, const struct shape *s, uint32_t n_ids);

/* Three texts in one pass, a fork of one of them, a step of all four, then
 * each alone: same is told the logits of the step, (vocab). */
void rig_sequences(const struct sl_runtime_config *config,
                   const struct shape *s, uint32_t n_ids,
                   void (*same)(const float *alone, const float *together,
                                uint32_t vocab));

/* The same steps in so many rounds, each pass interrupted after 0 to 9 times
 * step_us and then made again: logits must be what they were without. Returns
 * how many passes were really stopped. */
unsigned rig_interrupted(const struct sl_runtime_config *config,
                         const struct shape *s, uint32_t n_ids, unsigned rounds,
                         unsigned step_us);

/* What a plan of one text of n_ids positions makes of a GPU's memory, and reads
 * in a pass. */
struct sl_vram rig_planned(const struct sl_runtime_config *config,
                           uint32_t n_ids, uint64_t *streamed);
/* Slabs of a phase by their engines. */
void rig_count(const struct sl_plan *p, enum sl_phase phase,
               size_t n[SL_WORKERS]);
/* Logits of FP16 inputs: within a hundredth of the largest. */
void rig_assert_near(const float *got, const double *want, size_t n,
                     const char *what);

#endif
