/*
 * stop.h - Ctrl-C for work that asks, now and then, whether it is to end
 *
 * Converting and writing models end in order where they stand. What runs a
 * model cannot ask: interrupt.h stops it from outside.
 */
#ifndef SL_CMD_STOP_H
#define SL_CMD_STOP_H

#include <signal.h>
#include <stdbool.h>

/* SIGINT and SIGTERM are blocked from now on, in threads to come too, and asked
 * for with sl_stop_came(set). After the first the second kills as usual. */
void sl_stop_block(sigset_t *set);
bool sl_stop_came(void *set);
void sl_stop_unblock(const sigset_t *set);

#endif
