#include "config.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/exec/gather.h"
#include "tests/support.h"

#define PAGES   64u
#define BYTES   (PAGES * 4096u)
#define PIECES  100u
#define LARGEST 9000u

struct rig {
    char path[64];
    uint8_t data[BYTES];
    struct sl_region memory;
    struct sl_gather g;
};

static int set_up(void **state)
{
    struct rig *r = calloc(1, sizeof *r);
    struct sl_carver c = {NULL, 0};
    struct sl_error err;
    int fd;

    strcpy(r->path, "/var/tmp/sluice-gather-XXXXXX");
    fd = mkstemp(r->path);
    assert_true(fd >= 0);
    for (size_t i = 0; i < BYTES; i++)
        r->data[i] = (uint8_t)(i * 2654435761u >> 13);
    assert_int_equal(write(fd, r->data, BYTES), BYTES);
    close(fd);
    sl_gather_carve(&r->g, &c, PIECES, sl_gather_place_bytes(LARGEST));
    assert_ok(sl_region_init(&r->memory, c.used, "pieces", &err), &err);
    c = (struct sl_carver){r->memory.base, 0};
    sl_gather_carve(&r->g, &c, PIECES, sl_gather_place_bytes(LARGEST));
    *state = r;
    return 0;
}

static int tear_down(void **state)
{
    struct rig *r = *state;

    sl_gather_close(&r->g);
    sl_region_fini(&r->memory);
    unlink(r->path);
    free(r);
    return 0;
}

static void pieces_are_the_files_bytes_wherever_they_lie(void **state)
{
    static const enum sl_io_kind kinds[] = {SL_IO_AUTO, SL_IO_PREAD};
    struct rig *r = *state;
    uint64_t off[PIECES], bytes[PIECES];

    for (size_t kind = 0; kind < 2; kind++) {
        sl_gather_open(&r->g, r->path, NULL, kinds[kind]);
        for (uint32_t turn = 0; r->g.io != NULL && turn < 5; turn++) {
            uint32_t n = turn == 0 ? 1 : PIECES - turn;

            for (uint32_t i = 0; i < n; i++) {
                bytes[i] = i % 7 == 3 ? 0 : 1 + (i * 977u + turn) % LARGEST;
                off[i] = (i * 52361u + turn * 17) % (BYTES - bytes[i] + 1);
                sl_gather_want(&r->g, i, off[i], bytes[i]);
                assert_null(sl_gather_get(&r->g, i));
            }
            sl_gather_run(&r->g, n);
            for (uint32_t i = 0; i < n; i++) {
                const uint8_t *at = sl_gather_get(&r->g, i);

                if (bytes[i] == 0)
                    assert_null(at);
                else
                    assert_memory_equal(at, r->data + off[i], bytes[i]);
            }
        }
        sl_gather_close(&r->g);
    }
}

static void what_cannot_be_read_is_not_there(void **state)
{
    struct rig *r = *state;

    sl_gather_open(&r->g, "/nowhere/model.gguf", NULL, SL_IO_AUTO);
    assert_null(r->g.io);
    sl_gather_want(&r->g, 0, 0, 100);
    sl_gather_run(&r->g, 1);
    assert_null(sl_gather_get(&r->g, 0));

    sl_gather_open(&r->g, r->path, NULL, SL_IO_AUTO);
    sl_gather_want(&r->g, 0, 4096, 100);
    sl_gather_want(&r->g, 1, BYTES - 10, 100); /* ends behind the file */
    sl_gather_want(&r->g, 2, 8000, 300);
    sl_gather_run(&r->g, 3);
    assert_null(sl_gather_get(&r->g, 1));
    if (r->g.io == NULL) /* no direct reads here */
        return;
    assert_memory_equal(sl_gather_get(&r->g, 0), r->data + 4096, 100);
    assert_memory_equal(sl_gather_get(&r->g, 2), r->data + 8000, 300);
}

#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(pieces_are_the_files_bytes_wherever_they_lie),
        T(what_cannot_be_read_is_not_there),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
