/*
 * fluid.h - transfers that share what they pass through, in virtual time
 *
 * A flow is an amount of bytes with a rate of its own at most; it goes at the
 * same rate through all its pipes, each of which carries so many bytes a
 * second. Rates are max-min fair: all flows grow together until their own
 * limit or a full pipe stops them. They change only when a flow begins or
 * ends, so between two such moments nothing needs computing.
 */
#ifndef SL_OFFLOAD_FLUID_H
#define SL_OFFLOAD_FLUID_H

#include "src/base/vclock.h"

enum sl_pipe {
    SL_PIPE_DISK,
    SL_PIPE_MIRROR, /* the second disk */
    SL_PIPE_DRAM,
    SL_PIPE_UP,   /* PCIe, to the device */
    SL_PIPE_DOWN, /* PCIe, from it */
    SL_PIPE_COUNT,
};

/* The caller's storage, from start until done is called. */
struct sl_flow {
    double bytes;
    double most_bps; /* its own limit; 0: none */
    unsigned pipes;  /* bit p: it goes through pipe p */
    uint64_t delay_ns;
    void (*done)(struct sl_flow *flow); /* it has ended; may not wait */

    /* the fluid's */
    struct sl_flow *next;
    struct sl_vtimer delay;
    struct sl_fluid *fluid;
    double bps;
    bool settled;
};

struct sl_fluid {
    struct sl_vclock *clock;
    double pipe_bps[SL_PIPE_COUNT]; /* 0: no limit */
    struct sl_flow *flows;          /* under way */
    struct sl_vtimer timer;         /* when the first of them ends */
    uint64_t at_ns;                 /* until when they have advanced */
};

void sl_fluid_init(struct sl_fluid *f, struct sl_vclock *clock,
                   const double pipe_bps[SL_PIPE_COUNT]);
/* Begins a flow after its delay. Also from done. */
void sl_fluid_start(struct sl_fluid *f, struct sl_flow *flow);
/* No flow may be under way. */
void sl_fluid_fini(struct sl_fluid *f);

#endif
