/*
 * sizes.h - how many texts, and how long ones, a server has at a time
 *
 * Chosen anew whenever the model is opened, by what was asked for, what is
 * usual, and what the budget has room for.
 */
#ifndef SL_SERVE_SIZES_H
#define SL_SERVE_SIZES_H

#include "src/serve/server.h"

struct sl_sizes {
    uint32_t ctx, parallel, part_positions, score_rows;
};

/* Errors: SL_ERR_USAGE for texts longer than the model's longest. */
int sl_sizes_choose(struct sl_sizes *z, const struct sl_serve_config *c,
                    const struct sl_hparams *hp, struct sl_error *err);
/* The usual sizes are no reason to refuse a budget: fewer rows at a time where
 * prompts are scored, fewer texts, then shorter ones. False where nothing is
 * left that was not asked for. */
bool sl_sizes_shrink(struct sl_sizes *z, const struct sl_serve_config *c,
                     const struct sl_hparams *hp);
/* The most that the bodies of all requests may have together: a few of the
 * largest size, or small ones of all connections. */
uint64_t sl_sizes_bodies(const struct sl_serve_config *c);
/* The most bytes of a text that is only to be split into ids, or made of them:
 * it may be longer than ctx tokens are (sl_text_most_bytes). */
size_t sl_sizes_split(uint32_t ctx, uint32_t text_cost);
/* Memory that the server takes beside the model: the room for requests
 * (room.h), bodies, connections with what each is being told, and what
 * splitting a text takes, one at a time: text_cost for each of its bytes. */
uint64_t sl_sizes_beside(const struct sl_serve_config *c, uint32_t ctx,
                         uint32_t text_cost);

#endif
