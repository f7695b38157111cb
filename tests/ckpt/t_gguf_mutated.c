#include "config.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "quant/fmt.h"
#include "src/convert/convert.h"
#include "src/convert/fit.h"
#include "src/model/gguf.h"
#include "tests/gguf_maker.h"
#include "tests/support.h"
#include "tests/vocabs.h"

/* Published files of every type, damaged at random: what inspect and convert do
 * with them ends in a model file or in one clear line, with nothing left over.
 * SLUICE_MUTATIONS says how many of each type (.ci/long takes 3000). */

enum { USUAL_MUTATIONS = 6 };

static char dir[1024];

static size_t below(uint64_t *r, size_t n)
{
    return n > 0 ? (size_t)(test_random(r) % n) : 0;
}

/* --- damage --------------------------------------------------------------- */

static void flip(uint8_t *at, size_t n, uint64_t *r)
{
    if (n > 0)
        at[0] ^= (uint8_t)(1u << below(r, 8));
}

static void set_byte(uint8_t *at, size_t n, uint64_t *r)
{
    if (n > 0)
        at[0] = (uint8_t)test_random(r);
}

/* Numbers at which counts, sizes and offsets break. */
static void set_number(uint8_t *at, size_t n, uint64_t *r)
{
    static const uint64_t numbers[] = {
        0,         1,          2,          31,         32,         33,
        255,       65535,      0x7fffffff, 0x80000000, UINT32_MAX, 1ull << 32,
        INT64_MAX, 1ull << 63, UINT64_MAX, 0x7e00,     0xfc00,     0x7fc00000,
    };
    uint64_t v = numbers[below(r, sizeof numbers / sizeof *numbers)];
    size_t width = (size_t)2 << below(r, 3);

    memcpy(at, &v, width < n ? width : n);
}

static void move(uint8_t *at, size_t n, uint64_t *r)
{
    size_t size = below(r, n < 64 ? n + 1 : 65), to = below(r, n - size + 1);

    memmove(at + to, at, size);
}

/* Damages a copy, mostly where the header is; the number of bytes left. */
static size_t damage(uint8_t *data, size_t n, size_t header, uint64_t *r)
{
    static void (*const ways[])(uint8_t *, size_t, uint64_t *) = {
        flip, set_byte, set_number, set_number, move};
    size_t times = 1 + below(r, 4);

    for (size_t i = 0; i < times; i++) {
        size_t at = below(r, below(r, 4) > 0 ? header : n);

        ways[below(r, sizeof ways / sizeof *ways)](data + at, n - at, r);
    }
    return below(r, 8) == 0 ? below(r, n) : n;
}

/* --- what is done with it ------------------------------------------------- */

/* What inspect looks at: tensors, sizes, and whether they fit. */
static void describe(const char *path)
{
    struct sl_convert_options o;
    const struct sl_arch *arch;
    struct sl_hparams hp;
    struct sl_error err;
    struct sl_fit fit;
    struct sl_ckpt c;

    if (sl_ckpt_open(&c, path, NULL, &err) != 0)
        return;
    sl_convert_options_init(&o);
    o.source = path;
    if (sl_convert_describe(&arch, &hp, &c, &o, &err) == 0 &&
        sl_fit_check(&fit, &c, arch, &hp, &err) == 0)
        sl_fit_fini(&fit);
    sl_ckpt_close(&c);
}

static int convert(const char *path, const char *out, struct sl_error *err)
{
    struct sl_convert_result r;
    struct sl_convert_options o;

    sl_convert_options_init(&o);
    o.source = path;
    o.output = out;
    o.name = "mutated";
    o.threads = 1;
    o.force = true;
    o.quiet = true;
    o.ram_bytes = 1u << 30; /* a sanitized program alone has 150 MiB */
    if (sl_convert(&r, &o, err) != 0)
        return -1;
    sl_convert_result_fini(&r);
    return 0;
}

/* No model file after a failure; nothing but what --resume goes on with. */
static void check_left(int rc, const char *msg)
{
    static const char *const known[] = {"x.gguf", "out.gguf.partial",
                                        "out.gguf.partial.journal"};
    DIR *d = opendir(dir);

    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        bool ok = e->d_name[0] == '.';

        for (size_t i = 0; i < sizeof known / sizeof *known; i++)
            ok = ok || strcmp(e->d_name, known[i]) == 0;
        if (!ok && !(rc == 0 && strcmp(e->d_name, "out.gguf") == 0))
            fail_msg("%s is left after '%s'", e->d_name, msg);
    }
    closedir(d);
}

/* One line, and no file, or no line and a file. */
static bool try_file(const uint8_t *data, size_t n)
{
    struct sl_error err = {0};
    char path[1200], out[1200];
    int rc;

    snprintf(path, sizeof path, "%s/x.gguf", dir);
    snprintf(out, sizeof out, "%s/out.gguf", dir);
    maker_file(path, data, n);
    describe(path);
    rc = convert(path, out, &err);
    if (rc != 0 && (err.msg[0] == '\0' || strchr(err.msg, '\n') != NULL))
        fail_msg("not one clear line: '%s'", err.msg);
    check_left(rc, err.msg);
    remove(out);
    remove(path);
    return rc == 0;
}

static void mutate_type(uint32_t type, unsigned times)
{
    struct tiny_llama tiny = {.type = type};
    size_t n, header;
    uint8_t *data = tiny_llama_file(&tiny, &n), *copy = malloc(n);
    uint64_t r = type + 1;

    header = gguf_header_bytes(data, n);
    assert_true(try_file(data, n)); /* whole, it is taken */
    for (unsigned i = 0; i < times; i++) {
        memcpy(copy, data, n);
        try_file(copy, damage(copy, n, header, &r));
    }
    free(copy);
    free(data);
}

static void mutated_files_of_every_type_are_refused_or_work(void **state)
{
    const char *said = getenv("SLUICE_MUTATIONS");
    unsigned times = said != NULL ? (unsigned)atoi(said) : USUAL_MUTATIONS;
    unsigned n = 0;

    for (int f = 0; f < SL_FMT_COUNT; f++) {
        const struct sl_fmt_info *info = sl_fmt_of((enum sl_fmt)f);
        enum sl_fmt found;

        if (sl_fmt_find_ggml(&found, info->ggml_type) &&
            found == (enum sl_fmt)f) {
            mutate_type(info->ggml_type, times);
            n++;
        }
    }
    assert_true(n >= 15); /* three of numbers, twelve and more of blocks */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mutated_files_of_every_type_are_refused_or_work),
    };
    int rc;

    test_temp_dir(dir);
    rc = cmocka_run_group_tests(tests, NULL, NULL);
    test_remove_tree(dir);
    return rc;
}
