/*
 * logits_run.h - conversions and logits through the command, as a user would
 *
 * dir is a test's folder of its own: dir/model.gguf, dir/input.json,
 * dir/out.npy.
 */
#ifndef SL_TESTS_LOGITS_RUN_H
#define SL_TESTS_LOGITS_RUN_H

#include <jansson.h>

#include "tests/support.h"

/* Runs $SLUICE with these arguments; fails the test with what it said. */
void run_sluice(const char *dir, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

json_t *json_of_ids(const int32_t *v, size_t n);

/* Writes dir/input.json and gives the reference up. */
void write_logits_input(const char *dir, json_t *list);

/* (rows, vocab) f32 that `sluice logits` gives for dir/input.json; on the CPU
 * unless the flags name a device. Free with test_array_fini. */
void run_logits(const char *dir, struct test_array *a, const char *flags);

#endif
