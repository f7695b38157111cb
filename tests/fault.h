/*
 * fault.h - the n-th allocation fails
 *
 * A program linked with $(ALLOC_FAULTS) and fault.c has its own malloc,
 * calloc, realloc, posix_memalign, strdup, mmap and pthread_create in front
 * of the C library's. Once armed, the n-th call of any of them from this
 * program's own objects fails, and that one only. Loop n = 0, 1, 2... until
 * fault_fired says that there was no n-th call.
 */
#ifndef SL_TESTS_FAULT_H
#define SL_TESTS_FAULT_H

#include <stdbool.h>

void fault_arm(long n); /* counts from 0 */
/* Disarms; tells whether a call was made to fail. */
bool fault_fired(void);

#endif
