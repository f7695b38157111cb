#include "config.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "offload/mirror.h"
#include "src/model/modelfile.h"
#include "tests/model_maker.h"
#include "tests/support.h"

struct dirs {
    char dir[1024];
    char path[1100];
};

static int set_up(void **state)
{
    struct dirs *d = calloc(1, sizeof *d);

    assert_non_null(d);
    test_temp_dir(d->dir);
    snprintf(d->path, sizeof d->path, "%s/m.gguf", d->dir);
    *state = d;
    return 0;
}

static int tear_down(void **state)
{
    struct dirs *d = *state;

    test_remove_tree(d->dir);
    free(d);
    return 0;
}

/* The model, and a place for its copy. */
struct twins {
    char copy[1200];
    uint8_t *image;
    size_t bytes;
    struct sl_modelfile mf;
    unsigned n_said;
    char said[400];
    struct sl_log log;
};

static void hear(void *opaque, enum sl_log_level level, const char *line)
{
    struct twins *t = opaque;

    (void)level;
    if (strstr(line, "one disk") != NULL)
        return;
    t->n_said++;
    snprintf(t->said, sizeof t->said, "%s", line);
}

static void twins_init(struct twins *t, const struct dirs *d)
{
    struct test_model m;
    struct sl_error err;

    *t = (struct twins){.n_said = 0};
    t->log = (struct sl_log){hear, t, SL_LOG_INFO};
    snprintf(t->copy, sizeof t->copy, "%s/copy.gguf", d->dir);
    test_model_init(&m);
    t->image = test_model_image(&m, &t->bytes);
    test_write_file(d->path, t->image, t->bytes);
    test_write_file(t->copy, t->image, t->bytes);
    assert_ok(sl_modelfile_open(&t->mf, d->path, &err), &err);
}

static void twins_fini(struct twins *t)
{
    sl_modelfile_close(&t->mf);
    free(t->image);
}

static void refuse_mirror(struct twins *t, const char *path, enum sl_code code,
                          const char *why)
{
    struct sl_error err;

    assert_int_equal(sl_modelfile_add_mirror(&t->mf, path, &t->log, &err), -1);
    assert_int_equal(err.code, code);
    if (strstr(err.msg, why) == NULL || strstr(err.msg, path) == NULL)
        fail_msg("%s: %s", why, err.msg);
    assert_null(t->mf.mirror);
}

static void a_whole_copy_is_a_mirror_and_nothing_else_is(void **state)
{
    struct dirs *d = *state;
    struct test_model other;
    struct sl_error err;
    struct twins t;
    char link_path[1200];
    uint8_t *image;
    size_t bytes;

    twins_init(&t, d);
    assert_ok(sl_modelfile_add_mirror(&t.mf, t.copy, &t.log, &err), &err);
    sl_modelfile_close_mirror(&t.mf);

    refuse_mirror(&t, d->path, SL_ERR_USAGE, "the model file itself");
    snprintf(link_path, sizeof link_path, "%s/link", d->dir);
    assert_int_equal(link(d->path, link_path), 0);
    refuse_mirror(&t, link_path, SL_ERR_USAGE, "the model file itself");
    refuse_mirror(&t, d->dir, SL_ERR_USAGE, "is no file");
    test_write_file(t.copy, t.image, t.bytes - 4096);
    refuse_mirror(&t, t.copy, SL_ERR_CORRUPT, "copy it again");
    image = calloc(1, t.bytes + 4096);
    assert_non_null(image);
    memcpy(image, t.image, t.bytes);
    test_write_file(t.copy, image, t.bytes + 4096);
    refuse_mirror(&t, t.copy, SL_ERR_CORRUPT, "copy it again");
    /* a copy under way, whose length is there before its bytes */
    memset(image + t.bytes - 5000, 0, 5000);
    test_write_file(t.copy, image, t.bytes);
    refuse_mirror(&t, t.copy, SL_ERR_CORRUPT, "not complete");
    memcpy(image, t.image, t.bytes);
    image[t.mf.sections[0].off] ^= 1;
    test_write_file(t.copy, image, t.bytes);
    refuse_mirror(&t, t.copy, SL_ERR_CORRUPT, "not complete");
    image[t.mf.sections[0].off] ^= 1;
    image[t.mf.sections[0].off - 1] ^= 1; /* of the header */
    test_write_file(t.copy, image, t.bytes);
    refuse_mirror(&t, t.copy, SL_ERR_CORRUPT, "");
    free(image);
    test_model_init(&other);
    other.seed++;
    image = test_model_image(&other, &bytes);
    assert_int_equal(bytes, t.bytes);
    test_write_file(t.copy, image, bytes);
    refuse_mirror(&t, t.copy, SL_ERR_USAGE, "another model");
    free(image);
    assert_int_equal(unlink(t.copy), 0);
    refuse_mirror(&t, t.copy, SL_ERR_IO, "cannot open");
    assert_int_equal(t.n_said, 0);
    twins_fini(&t);
}

static void what_one_file_does_not_give_the_other_does(void **state)
{
    struct dirs *d = *state;

    for (int bad = 0; bad < 3; bad++) {
        int unreadable = open("/dev/null", O_WRONLY | O_CLOEXEC);
        uint8_t buf[10000];
        struct sl_error err;
        struct twins t;
        int rc = 0;

        assert_true(unreadable >= 0);
        twins_init(&t, d);
        assert_ok(sl_modelfile_add_mirror(&t.mf, t.copy, &t.log, &err), &err);
        for (uint64_t off = 5000; off < 50000 && rc == 0; off += 1111) {
            rc = sl_modelfile_read(&t.mf, buf, off, sizeof buf, &err);
            if (rc == 0)
                assert_memory_equal(buf, t.image + off, sizeof buf);
            if (off > 10000 && bad != 1)
                dup2(unreadable, t.mf.fd);
            if (off > 10000 && bad != 0)
                dup2(unreadable, t.mf.mirror_fd);
        }
        assert_int_equal(rc, bad == 2 ? -1 : 0);
        assert_int_equal(t.n_said, 1);
        assert_non_null(strstr(t.said, "left out"));
        if (bad < 2)
            assert_true(strstr(t.said, bad == 0 ? d->path : t.copy) == t.said);
        twins_fini(&t);
        close(unreadable);
    }
}

static void a_damaged_mirror_is_found_and_named(void **state)
{
    struct dirs *d = *state;
    struct sl_error err;
    struct twins t;
    int fd;

    twins_init(&t, d);
    assert_ok(sl_modelfile_add_mirror(&t.mf, t.copy, &t.log, &err), &err);
    assert_ok(sl_modelfile_verify(&t.mf, true, &err), &err);
    fd = open(t.copy, O_WRONLY | O_CLOEXEC);
    t.image[t.bytes / 2] ^= 4;
    assert_int_equal(pwrite(fd, t.image + t.bytes / 2, 1, (off_t)t.bytes / 2),
                     1);
    assert_int_equal(close(fd), 0);
    assert_int_equal(sl_modelfile_verify(&t.mf, true, &err), -1);
    assert_int_equal(err.code, SL_ERR_CORRUPT);
    assert_true(strstr(err.msg, t.copy) == err.msg);
    assert_non_null(strstr(err.msg, "section '"));
    twins_fini(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_whole_copy_is_a_mirror_and_nothing_else_is),
        cmocka_unit_test(what_one_file_does_not_give_the_other_does),
        cmocka_unit_test(a_damaged_mirror_is_found_and_named),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
