#include "config.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/ckpt_maker.h"
#include "tests/converting.h"
#include "tests/support.h"

struct stopper {
    unsigned left;
    bool kill;
};

static bool stop_later(void *opaque)
{
    struct stopper *s = opaque;

    if (s->left-- > 0)
        return false;
    if (s->kill)
        kill(getpid(), SIGKILL);
    return true;
}

/* A process that is killed after `after` chunks. True if it was. */
static bool convert_and_kill(struct fixture *f, unsigned after)
{
    struct stopper s = {after, true};
    struct sl_convert_result r;
    struct sl_error err;
    int status;
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        f->o.interrupted = stop_later;
        f->o.opaque = &s;
        _exit(sl_convert(&r, &f->o, &err) == 0 ? 0 : 1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) || WEXITSTATUS(status) == 0);
    return WIFSIGNALED(status) != 0;
}

static void a_killed_conversion_goes_on(void **state)
{
    struct fixture *f = *state;
    struct bytes want;
    unsigned after = 0;

    f->g.hp.n_layers = 6;
    glm_maker_write(&f->g, f->source);
    f->o.head = "f16";
    f->o.quant_tp = 2;
    convert(f, "int8");
    want = take_file(f->out);
    unlink(f->out);
    f->o.resume = true;
    f->o.force = false;
    for (; convert_and_kill(f, after); after += 7) {
        assert_false(file_exists(f->out, ""));
        assert_true(file_exists(f->out, ".partial"));
        convert_and_kill(f, after / 2); /* and again, while it goes on */
        if (!file_exists(f->out, ""))
            convert(f, "int8");
        assert_same_file(want, f->out);
        assert_false(file_exists(f->out, ".partial"));
        assert_false(file_exists(f->out, ".partial.journal"));
        unlink(f->out);
    }
    assert_true(after > 20);
    free(want.data);
}

static void a_killed_compression_goes_on(void **state)
{
    struct fixture *f = *state;
    struct bytes want;
    unsigned after = 0, compressed = 0;
    struct sl_modelfile mf;
    struct sl_error err;

    f->g.hp.n_layers = 6;
    glm_maker_write(&f->g, f->source);
    f->o.compress = SL_COMPRESS_LZ4;
    convert(f, "f32");
    assert_ok(sl_modelfile_open(&mf, f->out, &err), &err);
    for (size_t i = 0; i < mf.n_sections; i++)
        compressed += mf.sections[i].planes > 0;
    sl_modelfile_close(&mf);
    assert_int_equal(compressed, 12);
    want = take_file(f->out);
    unlink(f->out);
    f->o.resume = true;
    f->o.force = false;
    for (; convert_and_kill(f, after); after += 11) {
        convert(f, "f32");
        assert_same_file(want, f->out);
        unlink(f->out);
    }
    assert_true(after > 10);
    free(want.data);
}

static void resuming_does_not_repeat_what_is_done(void **state)
{
    struct fixture *f = *state;
    struct stopper s = {20, false};
    struct sl_convert_result r;
    struct sl_error err;

    f->g.hp.n_layers = 6;
    glm_maker_write(&f->g, f->source);
    f->o.quant = "f16";
    f->o.interrupted = stop_later;
    f->o.opaque = &s;
    REFUSE(f, SL_ERR_INTERRUPTED, "model.gguf.partial", "--resume");
    f->o.interrupted = NULL;
    f->o.force = false;
    REFUSE(f, SL_ERR_USAGE, "model.gguf.partial", "--resume", "--force");
    f->o.resume = true;
    assert_ok(sl_convert(&r, &f->o, &err), &err);
    assert_true(r.resumed_bytes > 0);
    assert_false(r.tensors[0].done);
    assert_true(r.tensors[r.n_tensors - 1].done);
    sl_convert_result_fini(&r);
    assert_weights(f, 0);
}

static void append(const char *path, const char *text)
{
    FILE *to = fopen(path, "a");

    assert_non_null(to);
    fputs(text, to);
    assert_int_equal(fclose(to), 0);
}

static void only_the_same_conversion_is_resumed(void **state)
{
    struct fixture *f = *state;
    struct stopper s = {12, false};
    char path[1200];

    f->g.hp.n_layers = 6;
    glm_maker_write(&f->g, f->source);
    f->o.quant = "int4";
    f->o.interrupted = stop_later;
    f->o.opaque = &s;
    REFUSE(f, SL_ERR_INTERRUPTED, "--resume");
    f->o.interrupted = NULL;
    f->o.force = false;
    f->o.resume = true;
    f->o.quant = "int8";
    REFUSE(f, SL_ERR_USAGE, "partial", "--force");
    f->o.quant = "int4";
    f->o.quant_tp = 2; /* another file of the same length is not the same */
    REFUSE(f, SL_ERR_USAGE, "partial", "--force");
    f->o.quant_tp = 0;
    f->o.name = "other";
    REFUSE(f, SL_ERR_USAGE, "partial", "--force");
    f->o.name = NULL;
    snprintf(path, sizeof path, "%s.partial.journal", f->out);
    truncate(path, 60); /* a line that is cut off does not count, */
    append(path, "\nnone of a journal\ndone 1 0 head\n"); /* nor what follows */
    convert(f, "int4");
    assert_weights(f, 0.073);
}

/* A conversion of six layers that was stopped when some of it was done; then
 * its files are written again, with other times. */
static void stop_and_fetch_again(struct fixture *f, const char *changed)
{
    struct stopper s = {20, false};

    f->g.hp.n_layers = 6;
    f->g.changed = NULL;
    test_remove_tree(f->source);
    glm_maker_write(&f->g, f->source);
    f->o.quant = "f16";
    f->o.force = true;
    f->o.resume = false;
    f->o.interrupted = stop_later;
    f->o.opaque = &s;
    REFUSE(f, SL_ERR_INTERRUPTED, "--resume");
    f->o.interrupted = NULL;
    test_remove_tree(f->source);
    usleep(20000); /* file times have a grain */
    f->g.changed = changed;
    glm_maker_write(&f->g, f->source);
    f->o.force = false;
    f->o.resume = true;
    f->said[0] = '\0';
}

static void only_what_changed_of_a_source_is_done_again(void **state)
{
    static const char *const changed[] = {
        NULL, "layers.0.mlp.dense_h_to_4h.weight",
        "layers.5.attention.dense.weight", "layers.0.input_layernorm"};
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof changed / sizeof *changed; i++) {
        struct sl_convert_result r;
        struct sl_error err;

        stop_and_fetch_again(f, changed[i]);
        assert_ok(sl_convert(&r, &f->o, &err), &err);
        assert_true(r.resumed_bytes > 0); /* the sums are those it had */
        assert_int_equal(strstr(f->said, "made again") != NULL, i == 1);
        sl_convert_result_fini(&r);
        assert_weights(f, 0);
        unlink(f->out);
    }
}

static void what_changed_does_not_count_when_it_comes_back(void **state)
{
    struct fixture *f = *state;
    struct stopper s = {0, false};

    stop_and_fetch_again(f, "layers.0.mlp.dense_h_to_4h.weight");
    f->o.interrupted = stop_later;
    f->o.opaque = &s;
    REFUSE(f, SL_ERR_INTERRUPTED, "--resume");
    f->o.interrupted = NULL;
    f->g.changed = NULL;
    glm_maker_write(&f->g, f->source);
    f->said[0] = '\0';
    convert(f, "f16");
    assert_null(strstr(f->said, "made again"));
    assert_weights(f, 0);
}

static void a_changed_source_is_not_resumed(void **state)
{
    struct fixture *f = *state;

    stop_and_fetch_again(f, "layers");
    REFUSE(f, SL_ERR_USAGE, "another source", "--force");
    f->o.force = true;
    f->o.resume = false;
    convert(f, NULL);
    assert_weights(f, 0.2);

    /* Where nobody sums, times of files are what tells. */
    unlink(f->out);
    f->o.trust_source = true;
    stop_and_fetch_again(f, NULL);
    REFUSE(f, SL_ERR_USAGE, "another source", "--force");
}

static void nothing_is_overwritten_unasked(void **state)
{
    struct fixture *f = *state;
    struct bytes got;

    glm_maker_write(&f->g, f->source);
    maker_file(f->out, "precious", 8);
    f->o.force = false;
    REFUSE(f, SL_ERR_USAGE, "model.gguf exists", "--force");
    f->o.resume = true;
    REFUSE(f, SL_ERR_USAGE, "model.gguf exists", "--force");
    f->o.resume = false;
    got = take_file(f->out);
    assert_int_equal(got.n, 8);
    free(got.data);
    assert_false(file_exists(f->out, ".partial"));
    f->o.force = true;
    convert(f, NULL);
    assert_weights(f, 0.2);
}

static void a_folder_is_refused_before_anything_is_written(void **state)
{
    struct fixture *f = *state;

    glm_maker_write(&f->g, f->source);
    assert_int_equal(mkdir(f->out, 0777), 0);
    REFUSE(f, SL_ERR_USAGE, "model.gguf: a folder", "another name");
    assert_false(file_exists(f->out, ".partial"));
    assert_int_equal(rmdir(f->out), 0);
}

int main(void)
{
#define CASE(f)                                                                \
    cmocka_unit_test_setup_teardown(f, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        CASE(a_killed_conversion_goes_on),
        CASE(a_killed_compression_goes_on),
        CASE(resuming_does_not_repeat_what_is_done),
        CASE(only_the_same_conversion_is_resumed),
        CASE(only_what_changed_of_a_source_is_done_again),
        CASE(what_changed_does_not_count_when_it_comes_back),
        CASE(a_changed_source_is_not_resumed),
        CASE(nothing_is_overwritten_unasked),
        CASE(a_folder_is_refused_before_anything_is_written),
    };
#undef CASE

    return cmocka_run_group_tests(tests, NULL, NULL);
}
