/*
 * isa_kernels.h - every set of kernels that this CPU can run, for tests and
 * measurements
 *
 * Those of the ladder (kernels/isa.h) and, on CPUs that have AVX-512's VPDPBUSD
 * and not AVX-VNNI, the kernels of AVX-VNNI with that one ("avxvnni-evex").
 */
#ifndef SL_TESTS_ISA_KERNELS_H
#define SL_TESTS_ISA_KERNELS_H

#include "kernels/kernels.h"

#define TEST_ISAS (SL_ISA_AMX + 2)

/* The i-th of TEST_ISAS sets, 0 being the reference; false where this CPU has
 * not got it. */
bool test_isa_init(struct sl_kernels *k, int i);

#endif
