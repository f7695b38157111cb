/*
 * amx.h - what users of AMX's tile registers share
 */
#ifndef SL_KERNELS_AMX_H
#define SL_KERNELS_AMX_H

#include <stdint.h>

/* The operand of LDTILECFG (Intel SDM volume 2). */
struct amx_config {
    uint8_t palette, start_row, zero[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};

#endif
