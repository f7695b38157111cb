/*
 * room.h - memory that requests have together
 *
 * A part of the budget in which the model has no part (sizes.h):
 *
 *   what a parser makes of a body     while the body is read
 *   what a job was asked              from then on
 *   what its answers can become       from when its first text begins
 *   what they have become             from when all have ended; kept answers
 *                                     go, the oldest first, where others need
 *                                     their room
 *
 * A job that waits for room holds what it was asked. So that the first of them
 * can always begin once those that run have ended, all that wait hold no more
 * than a half, and no job's answers can become more than the other.
 */
#ifndef SL_SERVE_ROOM_H
#define SL_SERVE_ROOM_H

#include "src/serve/server.h"

/* Where so much is freed at once, the heap gives it back to the system. */
#define SL_ROOM_LARGE (1u << 20)

/* All of it: --keep-answers, and what is needed where none are kept. */
uint64_t sl_room_bytes(const struct sl_serve_config *c);

/* -- lock is held -- */

/* Could so much be taken now? */
bool sl_room_has(const struct sl_server *s, uint64_t n);
/* Takes it. False where it is not there. */
bool sl_room_take(struct sl_server *s, uint64_t n);
/* The same for a job that has not begun. Refusals: 429, and 400 for more than
 * there can ever be. */
int sl_room_ask(struct sl_server *s, uint64_t n, struct sl_refusal *why);
void sl_room_give(struct sl_server *s, uint64_t n);

#endif
