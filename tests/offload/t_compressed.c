#include "config.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "offload/mirror.h"
#include "offload/stream.h"
#include "src/base/lz.h"
#include "tests/support.h"

/* A run of 40 pages and a part, from page 3 on, in chunks of two pages. */
enum {
    OFF = 3 * 4096,
    RUN_BYTES = 41 * 4096,
    FILE_BYTES = OFF + RUN_BYTES + 4096,
    CHUNK = 2 * 4096,
    N_CHUNKS = (RUN_BYTES + CHUNK - 1) / CHUNK,
    N_SLABS = 7,
};

struct rig {
    char dir[1024], path[1100], copy[1100];
    uint8_t meant[FILE_BYTES], kept[FILE_BYTES];
    uint64_t at[N_CHUNKS + 1];
    struct sl_compressed compressed;
    struct sl_slab slabs[N_SLABS];
    struct sl_plan plan;
    struct sl_pool *pool;
    struct sl_mirror *mirror; /* or NULL */
    struct sl_log log;
    unsigned n_left_out; /* lines that said so */
    char line[300];      /* the last of them */
    uint64_t seed;
};

static uint64_t next(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return *seed >> 33;
}

/* Every third chunk cannot be compressed. */
static void fill(struct rig *r)
{
    for (size_t i = 0; i < FILE_BYTES; i++) {
        bool noise = i >= OFF && (i - OFF) / CHUNK % 3 == 1;

        r->meant[i] = (uint8_t)(noise ? next(&r->seed) : i / 100);
    }
}

static void pack(struct rig *r)
{
    uint8_t out[2 * CHUNK], scratch[CHUNK];

    memset(r->kept, 0, sizeof r->kept);
    memcpy(r->kept, r->meant, OFF);
    r->compressed = (struct sl_compressed){
        .off = OFF,
        .bytes = RUN_BYTES,
        .chunk_bytes = CHUNK,
        .planes = 2,
        .at = r->at,
        .n_chunks = N_CHUNKS,
    };
    assert_true(sl_lz_bound(CHUNK) <= sizeof out);
    for (size_t i = 0; i < N_CHUNKS; i++) {
        const uint8_t *from = r->meant + OFF + i * CHUNK;
        size_t n = sl_compressed_chunk_bytes(&r->compressed, i);
        size_t kept = sl_lz_encode(out, from, n, 2, scratch);

        memcpy(r->kept + OFF + r->at[i], kept ? out : from, kept ? kept : n);
        r->at[i + 1] = r->at[i] + (kept ? kept : n);
    }
    assert_true(sl_compressed_kept(&r->compressed) < RUN_BYTES / 2);
}

static void write_file(const struct rig *r, const char *path)
{
    int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0600);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, r->kept, FILE_BYTES), FILE_BYTES);
    close(fd);
}

/* Extents that begin and end anywhere in the run; the first slab is none of
 * it. */
static void make_slabs(struct rig *r)
{
    memset(r->slabs, 0, sizeof r->slabs);
    r->slabs[0].n_extents = 1;
    r->slabs[0].extents[0] = (struct sl_extent){100, OFF - 200};
    for (size_t i = 1; i < N_SLABS; i++) {
        struct sl_slab *s = &r->slabs[i];

        s->compressed = &r->compressed;
        s->n_extents = 1 + (uint32_t)(next(&r->seed) % SL_SLAB_EXTENTS);
        for (uint32_t e = 0; e < s->n_extents; e++) {
            s->extents[e].bytes = 1 + next(&r->seed) % (RUN_BYTES / 2);
            s->extents[e].off =
                OFF + next(&r->seed) % (RUN_BYTES - s->extents[e].bytes + 1);
        }
    }
    r->slabs[N_SLABS - 1].n_extents = 1;
    r->slabs[N_SLABS - 1].extents[0] = (struct sl_extent){OFF, RUN_BYTES};
}

static int setup(void **state)
{
    struct rig *r = calloc(1, sizeof *r);
    struct sl_error err;

    assert_non_null(r);
    test_temp_dir(r->dir);
    snprintf(r->path, sizeof r->path, "%s/weights", r->dir);
    snprintf(r->copy, sizeof r->copy, "%s/copy", r->dir);
    assert_ok(sl_pool_create(&r->pool, 3, &err), &err);
    fill(r);
    pack(r);
    write_file(r, r->path);
    *state = r;
    return 0;
}

static int teardown(void **state)
{
    struct rig *r = *state;

    sl_plan_fini(&r->plan);
    sl_pool_destroy(r->pool);
    test_remove_tree(r->dir);
    free(r);
    return 0;
}

static struct sl_stream *open_stream(struct rig *r, uint64_t bytes)
{
    struct sl_plan_input in = {
        .slabs = r->slabs,
        .n_slabs = N_SLABS,
        .memory_bytes[SL_HOST] = bytes,
    };
    struct sl_stream_config config = {
        .path = r->path,
        .mirror = r->mirror,
        .slabs = r->slabs,
        .plan = &r->plan,
        .log = &r->log,
        .direct = true,
        .read_bytes = 3 * 4096,
        .pool = r->pool,
    };
    struct sl_stream *st;
    struct sl_error err;

    sl_plan_fini(&r->plan);
    assert_ok(sl_plan_make(&r->plan, &in, &err), &err);
    assert_ok(sl_stream_open(&st, &config, &err), &err);
    return st;
}

static void check(const struct rig *r, size_t slab, const uint8_t *base)
{
    const struct sl_slab *s = &r->slabs[slab];

    for (uint32_t e = 0; e < s->n_extents; e++)
        assert_memory_equal(base + sl_slab_extent_at(s, e),
                            r->meant + s->extents[e].off, s->extents[e].bytes);
}

static void every_slab_comes_as_it_is_meant(void **state)
{
    struct rig *r = *state;

    for (int turn = 0; turn < 60; turn++) {
        uint64_t least, all = 0;
        struct sl_stream_stats stats;
        struct sl_stream *st;
        struct sl_error err;

        make_slabs(r);
        least = sl_plan_least_bytes(r->slabs, N_SLABS, false);
        for (size_t i = 0; i < N_SLABS; i++)
            all += sl_slab_load_bytes(&r->slabs[i]);
        st = open_stream(r, least + (all - least) * (turn % 4) / 3);
        for (size_t i = 0; i < 4 * N_SLABS; i++) {
            const uint8_t *base;

            assert_ok(sl_stream_get(st, i % N_SLABS, &base, &err), &err);
            check(r, i % N_SLABS, base);
            sl_stream_put(st, i % N_SLABS);
        }
        sl_stream_stats(st, &stats);
        assert_true(stats.decompressed_bytes > 0);
        assert_true(r->plan.streamed_bytes < all);
        sl_stream_close(st);
    }
}

/* Under AddressSanitizer: nothing beyond the buffers is touched. */
static void damaged_bytes_are_refused_or_harmless(void **state)
{
    struct rig *r = *state;
    size_t refused = 0;

    make_slabs(r);
    for (int turn = 0; turn < 40; turn++) {
        struct sl_stream *st;
        const uint8_t *base;
        struct sl_error err;
        int rc = 0;

        pack(r);
        for (int k = 0; k < 30; k++)
            r->kept[OFF + next(&r->seed) % r->at[N_CHUNKS]] =
                (uint8_t)next(&r->seed);
        write_file(r, r->path);
        st = open_stream(r, sl_plan_least_bytes(r->slabs, N_SLABS, false));
        for (size_t i = 0; i < N_SLABS && rc == 0; i++) {
            rc = sl_stream_get(st, i, &base, &err);
            if (rc == 0)
                sl_stream_put(st, i);
        }
        if (rc != 0) {
            refused++;
            assert_int_equal(err.code, SL_ERR_CORRUPT);
            assert_non_null(strstr(err.msg, "damaged"));
            assert_non_null(strstr(err.msg, r->path));
        }
        sl_stream_close(st);
    }
    assert_true(refused > 10);
}

static void note(void *opaque, enum sl_log_level level, const char *line)
{
    struct rig *r = opaque;

    (void)level;
    if (strstr(line, "left out") == NULL)
        return;
    r->n_left_out++;
    snprintf(r->line, sizeof r->line, "%s", line);
}

/* A long run of literals that is longer than the chunk: no LZ4. */
static void damage(struct rig *r, size_t chunk)
{
    memset(r->kept + OFF + r->at[chunk], 0xff,
           (size_t)(r->at[chunk + 1] - r->at[chunk]));
}

/* Several passes over a file and its copy, one chunk of each damaged or none
 * (SIZE_MAX). Returns whether all came; each is right that does. */
static bool pass_over(struct rig *r, size_t chunk, size_t copys_chunk,
                      bool resident, struct sl_error *err)
{
    struct sl_mirror_config config = {
        .path = {r->path, r->copy},
        .log = &r->log,
    };
    uint64_t bytes = sl_plan_least_bytes(r->slabs, N_SLABS, false);
    struct sl_stream *st;
    int rc = 0;

    r->log = (struct sl_log){note, r, SL_LOG_INFO};
    r->n_left_out = 0;
    for (int copy = 0; copy < 2; copy++) {
        size_t bad = copy == 0 ? chunk : copys_chunk;

        pack(r);
        if (bad != SIZE_MAX)
            damage(r, bad);
        write_file(r, copy == 0 ? r->path : r->copy);
    }
    for (size_t i = 0; resident && i < N_SLABS; i++)
        bytes += sl_slab_load_bytes(&r->slabs[i]);
    assert_ok(sl_mirror_create(&r->mirror, &config, err), err);
    st = open_stream(r, bytes);
    for (size_t i = 0; i < 6 * N_SLABS && rc == 0; i++) {
        const uint8_t *base;

        rc = sl_stream_get(st, i % N_SLABS, &base, err);
        if (rc != 0)
            break;
        check(r, i % N_SLABS, base);
        sl_stream_put(st, i % N_SLABS);
    }
    sl_stream_close(st);
    sl_mirror_destroy(r->mirror);
    r->mirror = NULL;
    return rc == 0;
}

/* Either path was left out, or none was. Returns how many. */
static unsigned left_out(const struct rig *r, const char *path)
{
    assert_true(r->n_left_out <= 1);
    if (r->n_left_out > 0)
        assert_ptr_equal(strstr(r->line, path), r->line);
    return r->n_left_out;
}

static void what_one_copy_has_damaged_comes_from_the_other(void **state)
{
    struct rig *r = *state;
    unsigned n[2] = {0};
    struct sl_error err;

    make_slabs(r);
    for (int resident = 0; resident < 2; resident++) {
        assert_true(pass_over(r, SIZE_MAX, SIZE_MAX, resident, &err));
        assert_int_equal(r->n_left_out, 0);
        /* Which of the two a read goes to is chosen as it comes: a damaged
           copy may serve none, but hardly so every time. */
        for (size_t chunk = 0; chunk < N_CHUNKS; chunk += 3) {
            assert_true(pass_over(r, chunk, SIZE_MAX, resident, &err));
            n[0] += left_out(r, r->path);
            assert_true(pass_over(r, SIZE_MAX, chunk, resident, &err));
            n[1] += left_out(r, r->copy);
        }
    }
    assert_true(n[0] > 0 && n[1] > 0);
    assert_false(pass_over(r, 0, 0, false, &err));
    assert_int_equal(err.code, SL_ERR_CORRUPT);
    assert_non_null(strstr(err.msg, r->path));
    assert_non_null(strstr(err.msg, "damaged"));
    assert_int_equal(r->n_left_out, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(every_slab_comes_as_it_is_meant, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(damaged_bytes_are_refused_or_harmless,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(
            what_one_copy_has_damaged_comes_from_the_other, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
