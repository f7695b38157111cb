#include "config.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#ifdef CUDA_SIM
#include <cudasim.h>
#endif

#include "kernels/kernels.h"
#include "offload/device.h"
#include "src/probe/machine_file.h"
#include "src/probe/survey.h"
#include "tests/model_maker.h"
#include "tests/support.h"

static char dir[1024];
static char path[1100];
static json_t *survey;

static const struct sl_machine machine = {
    .cpu = "A CPU",
    .kernel = "Linux 1",
    .boot_id = "abc",
    .n_cpus = 2,
    .n_numa = 1,
};

/* Not to be sure of. */
static const struct sl_survey_effort little = {1, 1, 1u << 20, 1u << 20, NULL};

static int set_up(void **state)
{
    struct sl_error err;

    test_temp_dir(dir);
    snprintf(path, sizeof path, "%s/a/b/sluice/probe.json", dir);
    assert_ok(sl_survey_machine(&survey, &machine, &little, &err), &err);
    assert_ok(sl_survey_disk(survey, dir, &little, &err), &err);
    return 0;
}

static int tear_down(void **state)
{
    json_decref(survey);
    test_remove_tree(dir);
    return 0;
}

static size_t count_files(const char *folder)
{
    DIR *d = opendir(folder);
    size_t n = 0;

    while (readdir(d) != NULL)
        n++;
    closedir(d);
    return n - 2;
}

/* Formats that this machine's kernels multiply, those with scales beside the
 * weights in four widths where the inputs are INT8. */
static size_t count_products(void)
{
    struct sl_kernels k;
    size_t n = 0;

    sl_kernels_init(&k, sl_cpu_best_isa());
    for (int fmt = 0; fmt < SL_FMT_COUNT; fmt++) {
        bool scales = sl_fmt_has_scales((enum sl_fmt)fmt);

        enum sl_act act = sl_survey_inputs(&k, (enum sl_fmt)fmt);

        if (k.matmul[fmt][act] != NULL)
            n += scales && act != SL_ACT_F32 ? 4 : 1;
    }
    return n;
}

static void a_survey_holds_every_thread_count_and_format(void **state)
{
    const json_t *dram = json_object_get(survey, "dram");
    const json_t *operations = json_object_get(survey, "operations");
    const json_t *disk = sl_survey_find_disk(survey, dir);
    json_t *v;
    size_t i;

    assert_int_equal(json_array_size(dram), 2);
    assert_int_equal(json_array_size(json_object_get(survey, "reading")), 2);
    assert_int_equal(json_array_size(operations), 2 * count_products());
    json_array_foreach(operations, i, v) assert_true(
        json_real_value(json_object_get(v, "operations_per_s")) > 0);
    assert_non_null(disk);
    assert_int_equal(json_array_size(json_object_get(disk, "reads")), 12);
    assert_true(json_real_value(json_object_get(disk, "bytes_per_s")) > 0);
}

static void measuring_a_folder_leaves_nothing_in_it(void **state)
{
    assert_int_equal(count_files(dir), 0);
}

static void a_model_file_is_measured_itself(void **state)
{
    struct sl_survey_effort effort = {1, 1, 4096, 4096, NULL};
    struct test_model m;
    struct sl_error err;
    char model[1100];

    snprintf(model, sizeof model, "%s/m.gguf", dir);
    test_model_init(&m);
    test_model_write(model, &m);
    assert_ok(sl_survey_disk(survey, model, &effort, &err), &err);
    assert_string_equal(json_string_value(json_object_get(
                            sl_survey_find_disk(survey, dir), "path")),
                        model);
    snprintf(model, sizeof model, "%s/none.gguf", dir);
    assert_int_equal(sl_survey_disk(survey, model, &effort, &err), -1);
    assert_non_null(strstr(err.msg, "none.gguf"));
}

/* The folder's disk, which need not be its parent's. */
static void a_full_disk_is_told_before_it_is_written_to(void **state)
{
    struct sl_survey_effort effort = {.file_bytes = 1ull << 60};
    struct sl_error err;

    assert_int_equal(sl_survey_disk(survey, dir, &effort, &err), -1);
    assert_int_equal(err.code, SL_ERR_NOSPACE);
    assert_ptr_equal(strstr(err.msg, dir), err.msg);
    assert_int_equal(count_files(dir), 0);
}

static bool counts(const struct sl_machine *m)
{
    json_t *loaded;
    bool there;

    sl_survey_load(&loaded, path, m);
    there = loaded != NULL;
    assert_true(!there || json_equal(json_object_get(loaded, "machine"),
                                     json_object_get(survey, "machine")));
    json_decref(loaded);
    return there;
}

static void what_was_stored_counts_on_the_same_machine_alone(void **state)
{
    struct sl_machine other[4] = {machine, machine, machine, machine};
    struct sl_error err;

    assert_false(counts(&machine));
    assert_ok(sl_survey_store(survey, path, &err), &err);
    assert_true(counts(&machine));
    other[0].n_cpus = 3;
    memcpy(other[1].boot_id, "abd", 4);
    memcpy(other[2].cpu, "B CPU", 6);
    memcpy(other[3].kernel, "Linux 2", 8);
    for (int i = 0; i < 4; i++)
        assert_false(counts(&other[i]));
}

static void a_survey_of_another_version_does_not_count(void **state)
{
    struct sl_error err;

    json_object_set_new(survey, "version", json_integer(SL_SURVEY_VERSION + 1));
    assert_ok(sl_survey_store(survey, path, &err), &err);
    assert_false(counts(&machine));
    json_object_set_new(survey, "version", json_integer(SL_SURVEY_VERSION));
    assert_ok(sl_survey_store(survey, path, &err), &err);
    assert_true(counts(&machine));
}

/* As the machine of the test has them: none, and why, or some and what they
 * do, or why they cannot be used. */
static void gpus_are_measured_or_it_is_said_why_not(void **state)
{
    const json_t *gpu = json_object_get(survey, "gpu");
    const json_t *list = json_object_get(gpu, "devices");
    const json_t *why = json_object_get(gpu, "why_none");
    struct sl_device_info infos[4];
    struct sl_error err;
    json_t *v;
    size_t i, n;

    if (sl_device_list(infos, 4, &n, &err) != 0) {
        assert_int_equal(json_array_size(list), 0);
        assert_string_equal(json_string_value(why), err.msg);
        return;
    }
    assert_true(json_is_null(why));
    assert_int_equal(json_array_size(list), n);
    json_array_foreach(list, i, v)
    {
        static const char *const rates[] = {"copy_up_bytes_per_s",
                                            "copy_down_bytes_per_s",
                                            "vram_bytes_per_s", "hand_over_s"};
        bool usable = json_is_null(json_object_get(v, "why_not"));

        assert_true(json_integer_value(json_object_get(v, "vram_bytes")) > 0);
        assert_int_equal(usable, infos[i].why_not.code == SL_OK);
        for (size_t k = 0; k < 4; k++)
            assert_true(json_real_value(json_object_get(v, rates[k])) > 0 ||
                        !usable);
    }
}

#ifdef CUDA_SIM
static const json_t *gpus_of(const struct cudasim_config *c)
{
    struct sl_error err;

    cudasim_set_config(c);
    assert_ok(sl_survey_gpus(survey, &little, &err), &err);
    return json_object_get(survey, "gpu");
}

/* Of the first one; the others have no room. */
static int kernels(struct sl_kernel_rates *rates, struct sl_device *dev,
                   struct sl_error *err)
{
    static const struct sl_kernel_rates measured = {60e12, 11e-6};

    assert_string_equal(dev->ops->name, "cuda");
    if (dev->info.ordinal > 0)
        return sl_fail(err, SL_ERR_NOMEM, "no room");
    *rates = measured;
    return 0;
}

static void kernels_are_measured_by_those_who_have_them(void **state)
{
    struct sl_survey_effort effort = little;
    struct cudasim_config c;
    struct sl_machine_spec spec;
    struct sl_worker *w = &spec.rates.worker[SL_DEVICE];
    struct sl_error err;
    json_t *first, *list;

    cudasim_reset();
    cudasim_get_config(&c);
    c.n_devices = 2;
    c.memory_bytes = (size_t)4 << 30;
    cudasim_set_config(&c);
    effort.kernels = kernels;
    json_object_set_new(json_object_get(survey, "machine"), "ram_bytes",
                        json_integer(8000000000));
    assert_ok(sl_survey_gpus(survey, &effort, &err), &err);
    list = json_object_get(json_object_get(survey, "gpu"), "devices");
    assert_int_equal(json_array_size(list), 2);
    assert_ok(sl_machine_of_survey(&spec, survey, NULL, &err), &err);
    assert_float_equal(w->ops_per_s, 60e12, 1);
    assert_float_equal(w->stage_s, 11e-6, 1e-12);
    first = json_array_get(list, 0);
    assert_float_equal(w->link_latency_s,
                       json_real_value(json_object_get(first, "hand_over_s")),
                       1e-12);
    /* of the other they are not known */
    json_object_del(json_array_get(list, 1), "hand_over_s");
    assert_null(json_object_get(json_array_get(list, 1), "stage_s"));
    json_array_remove(list, 0);
    assert_ok(sl_machine_of_survey(&spec, survey, NULL, &err), &err);
    assert_float_equal(w->ops_per_s, 67 * w->memory_bps, 1);
    assert_float_equal(w->stage_s, SL_GUESS_STAGE_S, 1e-12);
    assert_float_equal(w->link_latency_s, SL_GUESS_HAND_OVER_S, 1e-12);
    assert_int_equal(cudasim_reset(), 0);
}

static void a_gpu_that_cannot_be_measured_has_its_reason(void **state)
{
    struct cudasim_config c;
    const json_t *gpu, *v;
    bool ok = false;

    cudasim_reset();
    cudasim_get_config(&c);
    c.n_devices = 0;
    gpu = gpus_of(&c);
    assert_int_equal(json_array_size(json_object_get(gpu, "devices")), 0);
    assert_non_null(json_string_value(json_object_get(gpu, "why_none")));
    c.n_devices = 2;
    c.cc_major = 6;
    gpu = gpus_of(&c);
    assert_int_equal(json_array_size(json_object_get(gpu, "devices")), 2);
    v = json_array_get(json_object_get(gpu, "devices"), 1);
    assert_string_equal(json_string_value(json_object_get(v, "device")),
                        "cuda:1");
    assert_non_null(strstr(json_string_value(json_object_get(v, "why_not")),
                           "compute capability"));
    assert_null(json_object_get(v, "vram_bytes_per_s"));
    c.n_devices = 1;
    c.cc_major = 8;
    for (uint64_t n = 1; !ok; n++) {
        assert_true(n < 400);
        cudasim_reset();
        cudasim_fail("cudaMemcpyAsync", n, cudaErrorUnknown);
        gpu = gpus_of(&c);
        v = json_array_get(json_object_get(gpu, "devices"), 0);
        ok = json_is_null(json_object_get(v, "why_not"));
        assert_true(ok == (json_object_get(v, "vram_bytes_per_s") != NULL));
    }
    assert_int_equal(cudasim_reset(), 0);
}
#endif

static void set_age(json_t *object, json_int_t seconds)
{
    json_object_set_new(object, "measured",
                        json_integer((json_int_t)time(NULL) - seconds));
}

static void what_is_older_than_a_week_does_not_count(void **state)
{
    struct sl_error err;

    set_age(survey, SL_SURVEY_MAX_AGE_S - 100);
    assert_ok(sl_survey_store(survey, path, &err), &err);
    assert_true(counts(&machine));
    set_age(survey, SL_SURVEY_MAX_AGE_S + 100);
    assert_ok(sl_survey_store(survey, path, &err), &err);
    assert_false(counts(&machine));
    set_age(survey, -1000); /* of a clock that was set back */
    assert_ok(sl_survey_store(survey, path, &err), &err);
    assert_false(counts(&machine));
}

static void a_file_of_something_else_does_not_count(void **state)
{
    static const char *const texts[] = {
        "", "{", "[]", "{}", "{\"version\": 1}", "{\"version\": 2}", "null"};
    struct sl_error err;

    assert_ok(sl_survey_store(survey, path, &err), &err);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        test_write_file(path, texts[i], strlen(texts[i]));
        assert_false(counts(&machine));
    }
}

static void a_cache_that_cannot_be_written_is_named(void **state)
{
    struct sl_error err;

    assert_int_equal(sl_survey_store(survey, "/proc/none/probe.json", &err),
                     -1);
    assert_non_null(strstr(err.msg, "/proc/none"));
}

static void rates_are_found_for_what_was_measured_alone(void **state)
{
    const char *isa = json_string_value(json_object_get(
        json_array_get(json_object_get(survey, "operations"), 0), "isa"));
    struct sl_survey_query good = {
        .path = dir,
        .threads = 2,
        .isa = isa,
        .fmt = SL_FMT_INT4,
        .group_cols = 64,
        .act = SL_ACT_INT8,
    };
    struct sl_survey_query q = good;
    struct sl_rates rates;
    double age;

    assert_true(sl_survey_rates(&rates, &age, survey, &q));
    assert_true(rates.disk_bps > 0 && rates.dram_bps > 0 &&
                rates.worker[SL_HOST].ops_per_s > 0);
    assert_true(age >= 0 && age < 600);
    q.threads = 5;
    assert_false(sl_survey_rates(&rates, &age, survey, &q));
    q = good;
    q.isa = "mmx";
    assert_false(sl_survey_rates(&rates, &age, survey, &q));
    q = good;
    q.group_cols = 48;
    assert_false(sl_survey_rates(&rates, &age, survey, &q));
    q = good;
    q.act = SL_ACT_F32; /* not what such a file has by itself */
    assert_false(sl_survey_rates(&rates, &age, survey, &q));
    q.fmt = SL_FMT_F16; /* where groups do not matter */
    assert_true(sl_survey_rates(&rates, &age, survey, &q));
    q = good;
    q.path = "/proc/self/stat"; /* a file system that was not looked at */
    assert_false(sl_survey_rates(&rates, &age, survey, &q));
    assert_false(sl_survey_rates(&rates, &age, NULL, &good));
    set_age(survey, 1000);
    assert_true(sl_survey_rates(&rates, &age, survey, &good));
    assert_true(age >= 1000);
}

static void assert_reading(const char *isa, unsigned threads, uint32_t places,
                           uint32_t ahead)
{
    struct sl_reading r = sl_survey_reading(survey, isa, threads);

    assert_int_equal(r.places, places);
    assert_int_equal(r.ahead, ahead);
}

static void a_reading_is_kept_for_what_it_was_measured_with(void **state)
{
    const struct sl_reading d = sl_reading_default;
    json_t *list =
        json_pack("[{s:s, s:i, s:i, s:i}, {s:s, s:i, s:i, s:i}, {s:s, s:i}]",
                  "isa", "a", "threads", 2, "places", 8, "ahead_bytes", 1024,
                  "isa", "b", "threads", 2, "places", (int)SL_PLACES_MOST + 1,
                  "ahead_bytes", 1024, "isa", "c", "threads", 2);

    json_object_set_new(survey, "reading", list);
    assert_reading("a", 2, 8, 1024);
    assert_reading("a", 1, d.places, d.ahead);
    assert_reading("b", 2, d.places, d.ahead); /* more than kernels take */
    assert_reading("c", 2, d.places, d.ahead);
    json_object_del(survey, "reading"); /* of an earlier version */
    assert_reading("a", 2, d.places, d.ahead);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define CASE(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
        CASE(a_survey_holds_every_thread_count_and_format),
        CASE(measuring_a_folder_leaves_nothing_in_it),
        CASE(a_full_disk_is_told_before_it_is_written_to),
        CASE(a_model_file_is_measured_itself),
        CASE(what_was_stored_counts_on_the_same_machine_alone),
        CASE(a_survey_of_another_version_does_not_count),
        CASE(gpus_are_measured_or_it_is_said_why_not),
#ifdef CUDA_SIM
        CASE(kernels_are_measured_by_those_who_have_them),
        CASE(a_gpu_that_cannot_be_measured_has_its_reason),
#endif
        CASE(what_is_older_than_a_week_does_not_count),
        CASE(a_file_of_something_else_does_not_count),
        CASE(a_cache_that_cannot_be_written_is_named),
        CASE(rates_are_found_for_what_was_measured_alone),
        CASE(a_reading_is_kept_for_what_it_was_measured_with),
#undef CASE
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
