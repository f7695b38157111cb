/*
 * support.h - what several test programs need
 *
 * Golden data lies in $SLUICE_SHARED or ../shared beside the checkout, and what
 * everybody has of it in tests/golden (README.md there). A case of something
 * that is not there is left out; a program that has none left calls
 * test_skip_all.
 */
#ifndef SL_TESTS_SUPPORT_H
#define SL_TESTS_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <jansson.h>

#include "src/base/error.h"

/* Path of a file or folder of the shared data ("golden/B_sampling"), looked
 * for beside the checkout, then, if it is of "golden/", in tests/golden; NULL
 * when there is none. Statically sized buffer in the caller: path[1024]. */
const char *test_shared(char *path, const char *name);
/* The same for one of many, which a clone may not have; a line says so. */
const char *test_variant(char *path, const char *name);
/* The same for a file of this source tree ("demo/latest"). */
const char *test_source(char *path, const char *name);
/* Prints "1..0 # SKIP why" and exits 0. */
void test_skip_all(const char *why) __attribute__((noreturn));
/* A fresh folder below $TMPDIR, removed with all it holds by
 * test_remove_tree. dir[1024]. */
void test_temp_dir(char *dir);
void test_remove_tree(const char *dir);
/* Fixtures of a group of tests that share such a folder; *state is it, too. */
extern char test_dir[1024];
int test_dir_set_up(void **state);
int test_dir_tear_down(void **state);

/* Fails the test with the message of err when rc != 0. */
#define assert_ok(rc, err) test_assert_ok((rc), (err), __FILE__, __LINE__)
void test_assert_ok(int rc, const struct sl_error *err, const char *file,
                    int line);

/* A NumPy array out of an (uncompressed) .npz. */
struct test_array {
    char dtype[8]; /* "<f4", "<f2", "<i4", "|u1", ... */
    unsigned n_dims;
    size_t shape[4];
    size_t n;   /* elements */
    void *data; /* little-endian, C order; owned */
};

struct test_npz;
struct test_npz *test_npz_open(const char *path); /* fails the test */
void test_npz_close(struct test_npz *z);
bool test_npz_has(const struct test_npz *z, const char *name);
/* Fails the test when absent. Free with test_array_fini. */
void test_npz_get(const struct test_npz *z, const char *name,
                  struct test_array *a);
void test_array_fini(struct test_array *a);
/* Parses a .npy file image. */
void test_npy_parse(const uint8_t *data, size_t n, struct test_array *a);
/* Whole file, zero-terminated; fails the test. Free it. */
uint8_t *test_read_file(const char *path, size_t *n);

json_t *test_json(const char *path); /* fails the test */

#ifdef HAVE_CUDA
/* A program with CUDA may run where there is no GPU; says why there is none. */
bool test_has_gpu(void);
#endif

/* Whether what runs is slowed down by a sanitizer. */
#ifdef SL_SANITIZED
#define TEST_SANITIZED true
#else
#define TEST_SANITIZED false
#endif

#endif
