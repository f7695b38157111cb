/*
 * synth_fill.h - the bytes of pseudo-random tensors, from any place on
 */
#ifndef SL_SYNTH_FILL_H
#define SL_SYNTH_FILL_H

#include "quant/matrix.h"

#define SL_SYNTH_LEVELS 4096u

/* One tensor's source of bytes. */
struct sl_synth_source {
    enum {
        SL_SYNTH_BLOCKS, /* of INT8, INT4 or ggml's blocks */
        SL_SYNTH_SCALE,  /* F16 scales of these blocks */
        SL_SYNTH_FLOATS,
    } kind;
    enum sl_fmt fmt;                 /* of the numbers; else as m's */
    struct sl_matrix m;              /* SL_SYNTH_BLOCKS, SL_SYNTH_SCALE */
    uint64_t key;                    /* tells tensors apart */
    float centre;                    /* of the numbers, which are uniform ... */
    float spread;                    /* ... within so much of it */
    uint16_t level[SL_SYNTH_LEVELS]; /* the same in fmt, if it has 2 bytes */
};

/* Format, centre and spread are set; makes the table of short numbers. */
void sl_synth_source_init(struct sl_synth_source *s);

/* Bytes [off, off + n) of the tensor; off is a multiple of 4096. */
void sl_synth_fill(const struct sl_synth_source *s, void *out, uint64_t off,
                   size_t n);

/* Scales that make the standard deviation of a matrix's weights 1 / sqrt of
 * its columns, or numbers that have it. */
void sl_synth_spread(struct sl_synth_source *s);

#endif
