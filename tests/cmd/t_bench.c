#include "config.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/cmd/bench.h"
#include "tests/model_maker.h"
#include "tests/support.h"

static char dir[1024];
static char path[1100];
static struct sl_bench_result of_small; /* what most cases look at */

static const struct sl_bench_run small = {
    .ram_bytes = SL_RAM_LEAST,
    .prompt = 12,
    .gen = 8,
    .batch = 3,
    .threads = 2,
    .repeat = 2,
};

static void measure(struct sl_bench_result *r, const struct sl_bench_run *run)
{
    struct sl_runtime_config config = {.model = path, .quiet = true};
    struct sl_bench *b;
    struct sl_error err;

    assert_ok(sl_bench_create(&b, &config, &err), &err);
    assert_ok(sl_bench_run(b, r, run, &err), &err);
    sl_bench_destroy(b);
}

static int set_up(void **state)
{
    struct test_model m;

    test_temp_dir(dir);
    snprintf(path, sizeof path, "%s/m.gguf", dir);
    test_model_init(&m);
    m.hp.n_layers = 6;
    m.hp.hidden = 128;
    m.fmt = SL_FMT_INT8;
    m.group_cols = 32;
    test_model_write(path, &m);
    measure(&of_small, &small); /* seconds, most of them the machine's rates */
    return 0;
}

static int tear_down(void **state)
{
    test_remove_tree(dir);
    return 0;
}

static void check_spread(const struct sl_bench_spread *s)
{
    assert_true(s->least > 0);
    assert_true(s->least <= s->median && s->median <= s->most);
}

static void a_run_from_disk_reads_what_does_not_fit(void **state)
{
    struct sl_bench_result r = of_small;
    double per_pass;

    assert_true(r.streamed_bytes > 0);
    for (int p = 0; p < SL_BENCH_PHASES; p++) {
        check_spread(&r.phase[p].seconds);
        check_spread(&r.phase[p].efficiency);
        assert_true(r.phase[p].floor.disk_s > 0);
        assert_true(r.phase[p].floor.seconds > 0);
        assert_true(r.phase[p].dram_bytes >= 2 * (double)r.streamed_bytes);
    }
    /* The ring is read ahead: not every pass reads the same. */
    per_pass = r.phase[SL_BENCH_DECODE].disk_bytes / (double)r.streamed_bytes;
    assert_true(per_pass > 0.7 && per_pass < 1.3);
    assert_true(r.rates.disk_bps > 0 && r.rates.dram_bps > 0 &&
                r.rates.worker[SL_HOST].ops_per_s > 0);
    assert_true(r.first_token_s > 0 && r.first_token_floor_s > 0);
    assert_int_equal(r.run.threads, 2);
}

static void positions_of_a_pass_count_the_batch(void **state)
{
    struct sl_bench_result r = of_small;

    assert_true(r.phase[SL_BENCH_PREFILL].positions == 36);
    assert_true(r.phase[SL_BENCH_DECODE].positions == 3);
}

static void a_run_in_memory_reads_nothing(void **state)
{
    struct sl_bench_run run = small;
    struct sl_bench_result r;

    run.ram_bytes = 1ull << 30;
    measure(&r, &run);
    assert_true(r.streamed_bytes == 0);
    assert_true(r.phase[SL_BENCH_DECODE].disk_bytes == 0);
    assert_true(r.phase[SL_BENCH_DECODE].floor.disk_s == 0);
    assert_true(r.phase[SL_BENCH_DECODE].wait_s == 0);
}

static void a_prompt_beyond_the_positions_is_refused(void **state)
{
    struct sl_runtime_config config = {.model = path, .quiet = true};
    struct sl_bench_run run = small;
    struct sl_bench_result r;
    struct sl_bench *b;
    struct sl_error err;

    run.prompt = 100000;
    assert_ok(sl_bench_create(&b, &config, &err), &err);
    assert_int_equal(sl_bench_run(b, &r, &run, &err), -1);
    assert_int_equal(err.code, SL_ERR_USAGE);
    assert_non_null(strstr(err.msg, "100000"));
    sl_bench_destroy(b);
}

static const struct sl_bench_origin origin = {
    .model = "m.gguf",
    .name = "a <b> & c",
    .quant = "int8-g32",
    .file_bytes = 123456,
    .machine = {.cpu = "A CPU", .n_cpus = 2},
    .command = "sluice bench",
};

static char *printed(const struct sl_bench_result *r)
{
    char *text = NULL;
    size_t n;
    FILE *f = open_memstream(&text, &n);

    sl_bench_print(f, r);
    fclose(f);
    return text;
}

/* A cache may be larger than what is measured with. */
static void a_rate_of_a_cache_is_called_one(void **state)
{
    struct sl_bench_result r = of_small;
    char *text;

    r.dram_in_cache = false;
    text = printed(&r);
    assert_null(strstr(text, "(in cache)"));
    free(text);
    r.dram_in_cache = true;
    text = printed(&r);
    assert_non_null(strstr(text, " GB/s (in cache), "));
    free(text);
}

static void each_phase_is_a_line_of_json(void **state)
{
    static const char *const numbers[] = {
        "prompt",
        "batch",
        "threads",
        "ram_bytes",
        "tokens_per_s",
        "seconds_per_pass",
        "floor_seconds",
        "efficiency",
        "disk_bytes_per_s",
        "dram_bytes_per_s",
        "stall_seconds_per_pass",
    };
    struct sl_bench_result r = of_small;
    struct sl_error err;
    char out[1100], *line, *rest;
    uint8_t *text;
    size_t n, lines = 0;
    FILE *f;

    snprintf(out, sizeof out, "%s/out", dir);
    f = fopen(out, "w");
    assert_ok(sl_bench_print_json(f, &r, &origin, &err), &err);
    fclose(f);
    rest = (char *)(text = test_read_file(out, &n));
    while ((line = strsep(&rest, "\n")) != NULL && *line != '\0') {
        json_t *root = json_loads(line, 0, NULL);

        assert_non_null(root);
        assert_string_equal(json_string_value(json_object_get(root, "phase")),
                            lines == 0 ? "prefill" : "decode");
        for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
            assert_true(json_is_number(json_object_get(root, numbers[i])));
        assert_true(json_is_string(json_object_get(root, "limit")));
        assert_true(json_is_string(json_object_get(root, "commit")));
        assert_true(json_is_object(json_object_get(root, "machine")));
        json_decref(root);
        lines++;
    }
    assert_int_equal(lines, 2);
    free(text);
}

static size_t count(const char *text, const char *what)
{
    size_t n = 0;

    for (; (text = strstr(text, what)) != NULL; text++)
        n++;
    return n;
}

static void the_plot_has_axes_units_and_a_dot_for_each_result(void **state)
{
    struct sl_bench_result r[3];
    struct sl_error err;
    char out[1100], *text;
    size_t n;

    r[0] = of_small;
    r[2] = r[1] = r[0];
    r[1].memory.budget *= 2;
    r[2].run.prompt++;
    snprintf(out, sizeof out, "%s/plot.svg", dir);
    assert_ok(sl_bench_plot(out, r, 3, &origin, &err), &err);
    text = (char *)test_read_file(out, &n);
    assert_int_equal(count(text, "<svg "), 1);
    assert_int_equal(count(text, "</svg>\n"), 1);
    assert_int_equal(count(text, "RAM budget [MiB]"), 2);
    /* The axis of each panel has the budgets that were used. */
    for (int i = 0; i < 2; i++) {
        char budget[40];

        snprintf(budget, sizeof budget, ">%.3g</text>",
                 (double)r[i].memory.budget / (1 << 20));
        assert_true(count(text, budget) >= 4);
    }
    assert_int_equal(count(text, "dashed: the limit"), 1);
    assert_int_equal(count(text, ">tokens/s<"), 2);
    assert_int_equal(count(text, "floor / measured"), 2);
    /* Four panels, and the legend of two lines. */
    assert_int_equal(count(text, "<circle"), 4 * 3 + 2);
    /* Two lines in four panels, and the floors of two. */
    assert_int_equal(count(text, "<polyline"), 2 * (4 + 2));
    assert_int_equal(count(text, "a &lt;b&gt; &amp; c"), 1);
    assert_int_equal(count(text, "nan") + count(text, "inf"), 0);
    free(text);
    assert_int_equal(sl_bench_plot("/none/x.svg", r, 3, &origin, &err), -1);
    assert_non_null(strstr(err.msg, "/none/x.svg"));
}

/* Where the first text with what begins on the x axis. */
static double x_of(const char *text, const char *what)
{
    const char *at = strstr(text, what), *x;

    assert_non_null(at);
    while (at > text && strncmp(at, "<text", 5) != 0)
        at--;
    x = strstr(at, "translate(");
    return x != NULL && x < strstr(at, what) ? atof(x + 10)
                                             : atof(strstr(at, "x=\"") + 3);
}

static void large_numbers_of_a_plot_have_room(void **state)
{
    struct sl_bench_phase_result *p;
    struct sl_bench_result r = of_small;
    struct sl_error err;
    char out[1100], *text;
    size_t n;

    p = &r.phase[SL_BENCH_DECODE];
    p->positions = 1000000 * p->seconds.median;
    p->seconds.least = p->seconds.most = p->seconds.median;
    p->floor.seconds = p->seconds.median;
    r.memory.budget = 4ull << 30;
    snprintf(out, sizeof out, "%s/plot.svg", dir);
    assert_ok(sl_bench_plot(out, &r, 1, &origin, &err), &err);
    text = (char *)test_read_file(out, &n);
    assert_int_equal(count(text, "RAM budget [GiB]"), 2);
    assert_int_equal(count(text, "e+0"), 0);
    assert_int_equal(count(text, ">1000000<"), 1);
    /* seven digits of eight pixels; the title is ten high */
    assert_true(x_of(text, ">tokens/s<") < x_of(text, ">1000000<") - 7 * 8);
    assert_true(x_of(text, ">tokens/s<") >= 9);
    free(text);
}

static void a_plot_goes_into_a_pipe(void **state)
{
    struct sl_bench_result r = of_small;
    struct sl_error err;
    char out[1100], text[6] = "";
    struct stat st;
    int fd;

    snprintf(out, sizeof out, "%s/pipe", dir);
    assert_int_equal(mkfifo(out, 0600), 0);
    fd = open(out, O_RDWR | O_NONBLOCK);
    assert_true(fd >= 0);
    assert_ok(sl_bench_plot(out, &r, 1, &origin, &err), &err);
    assert_int_equal(read(fd, text, 5), 5);
    assert_string_equal(text, "<svg ");
    close(fd);
    assert_int_equal(stat(out, &st), 0);
    assert_true(S_ISFIFO(st.st_mode));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_run_from_disk_reads_what_does_not_fit),
        cmocka_unit_test(positions_of_a_pass_count_the_batch),
        cmocka_unit_test(a_run_in_memory_reads_nothing),
        cmocka_unit_test(a_prompt_beyond_the_positions_is_refused),
        cmocka_unit_test(a_rate_of_a_cache_is_called_one),
        cmocka_unit_test(each_phase_is_a_line_of_json),
        cmocka_unit_test(the_plot_has_axes_units_and_a_dot_for_each_result),
        cmocka_unit_test(large_numbers_of_a_plot_have_room),
        cmocka_unit_test(a_plot_goes_into_a_pipe),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
