/*
 * tame.h - names that a file or a person gave, to be printed
 */
#ifndef SL_BASE_TAME_H
#define SL_BASE_TAME_H

#include <stddef.h>

/* A copy of a text in room (cut to n - 1 bytes) as sl_error_tame leaves it;
 * returns room. */
const char *sl_tame(char *room, size_t n, const char *text);

/* The same for an argument of printf, in room that lasts as long as the block
 * around it. */
#define SL_TAMED(text) sl_tame((char[SL_TAMED_ROOM]){0}, SL_TAMED_ROOM, text)
#define SL_TAMED_ROOM  1100

#endif
