/*
 * build_impl.h - inside build: what choices, windows and prompts share
 */
#ifndef SL_EVAL_BUILD_IMPL_H
#define SL_EVAL_BUILD_IMPL_H

#include <string.h>

#include "src/eval/build.h"

static inline void sl_build_copy_ids(int32_t *to, const int32_t *from, size_t n)
{
    if (n > 0)
        memcpy(to, from, n * sizeof *to);
}

/* Most positions of a question: the task's, or the model's if that is less. */
uint32_t sl_build_max_length(const struct sl_builder *b,
                             const struct sl_task *task);
/* Index of an id, the last of several if so asked; n if there is none. */
size_t sl_build_find(const struct sl_ids *ids, int32_t id, bool last);
/* [gMASK] or [MASK], whichever the task wants and the model knows; GLM's own
 * evaluation wants [gMASK] but for choices. */
int32_t sl_build_mark(const struct sl_builder *b, const struct sl_task *task);
/* Keeps the last `room` ids of a text, and counts it. */
void sl_build_cut_left(struct sl_ids *ids, size_t room, struct sl_question *q,
                       struct sl_builder *b);
/* Positions of [sop] and what follows it in a strand, from its `first`-th
 * place on, which is the nth that is generated; run_on: they count on behind
 * the context. */
void sl_build_place_answer(struct sl_strand *s, uint32_t first, uint32_t nth,
                           const struct sl_builder *b, size_t mark, bool run_on,
                           uint32_t context);
/* Positions of a strand of a model that is asked as a causal one, behind
 * `before` ids. Those of a 2-D model are as behind [gMASK] [sop], which come
 * first: all at the mark but for the second. */
void sl_build_place_line(struct sl_strand *s, uint32_t before,
                         const struct sl_builder *b);
/* What a context without ids is: the model must read something. Errors:
 * SL_ERR_UNSUPPORTED where nothing is known to begin a text with. */
int sl_build_lead_or_end(struct sl_ids *ids, const struct sl_builder *b,
                         struct sl_error *err);

#endif
