#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "offload/numa.h"
#include "src/base/bytes.h"
#include "src/base/json.h"
#include "src/base/log.h"
#include "src/base/tame.h"
#include "src/cmd/opts.h"
#include "src/cmd/survey_here.h"
#include "src/probe/machine_file.h"

struct options {
    const char *path, *mirror;
    bool force, json;
};

enum { OPT_FORCE = 0x100, OPT_JSON, OPT_MIRROR };

static const struct argp_option options[] = {
    {"force", OPT_FORCE, 0, 0, "Measure again what was measured before", 0},
    {"mirror", OPT_MIRROR, "PATH", 0,
     "Measure the disk of this one, too: a copy of the model file, or a folder",
     0},
    {"json", OPT_JSON, 0, 0, "Print JSON", 0},
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct options *o = state->input;

    switch (key) {
    case OPT_FORCE:
        o->force = true;
        return 0;
    case OPT_MIRROR:
        o->mirror = arg;
        return 0;
    case OPT_JSON:
        o->json = true;
        return 0;
    case ARGP_KEY_ARG:
        return sl_opt_argument(state, &o->path, "PATH", arg);
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp argp = {
    options,
    parse,
    "[PATH]",
    "Measure once what this machine's memory, arithmetic, disk and GPU can do, "
    "and keep it for predictions.\v"
    "PATH is a model file, or a folder on the disk that matters (default: the "
    "present one).",
    0,
    0,
    0,
};

/* --- table ---------------------------------------------------------------- */

static double number(const json_t *object, const char *key)
{
    return json_number_value(json_object_get(object, key));
}

static const char *text(const json_t *object, const char *key)
{
    const char *s = json_string_value(json_object_get(object, key));

    return s != NULL ? s : "unknown";
}

static void print_dram(const json_t *survey)
{
    const json_t *list = json_object_get(survey, "dram");

    puts("\nMemory, read in order");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *v = json_array_get(list, i);

        printf("  %3.0f thread%-2s %9.2f GB/s%s\n", number(v, "threads"),
               number(v, "threads") == 1 ? "" : "s",
               number(v, "bytes_per_s") * 1e-9,
               json_is_true(json_object_get(v, "beyond_cache"))
                   ? ""
                   : "  (no more than the cache holds)");
    }
}

static void print_operations(const json_t *survey)
{
    const json_t *list = json_object_get(survey, "operations");

    puts("\nMatrix products, 256 positions");
    printf("  %-7s %5s %-11s %-7s %7s %10s\n", "format", "group", "activations",
           "isa", "threads", "GOP/s");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *v = json_array_get(list, i);
        char group[16] = "row";

        if (number(v, "group") > 0)
            snprintf(group, sizeof group, "%.0f", number(v, "group"));
        else if (text(v, "format")[0] == 'f')
            group[0] = '\0';
        printf("  %-7s %5s %-11s %-7s %7.0f %10.1f\n", text(v, "format"), group,
               text(v, "activations"), text(v, "isa"), number(v, "threads"),
               number(v, "operations_per_s") * 1e-9);
    }
}

static void print_attention(const json_t *survey)
{
    const json_t *list = json_object_get(survey, "attention");

    puts("\nAttention over keys and values in caches");
    printf("  %-7s %7s %10s\n", "isa", "threads", "GOP/s");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *v = json_array_get(list, i);

        printf("  %-7s %7.0f %10.1f\n", text(v, "isa"), number(v, "threads"),
               number(v, "operations_per_s") * 1e-9);
    }
}

static void print_reading(const json_t *survey)
{
    const json_t *list = json_object_get(survey, "reading");

    puts("\nHow one position's weights are asked for, as measured");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *v = json_array_get(list, i);

        printf("  %-7s %3.0f thread%-2s %.0f place%s in turns, each %.0f bytes "
               "ahead\n",
               text(v, "isa"), number(v, "threads"),
               number(v, "threads") == 1 ? "" : "s", number(v, "places"),
               number(v, "places") == 1 ? "" : "s", number(v, "ahead_bytes"));
    }
}

static void print_disk(const json_t *disk)
{
    const json_t *list = json_object_get(disk, "reads");

    printf("\nDisk of %s (%s), direct reads: %.2f GB/s at best\n",
           SL_TAMED(text(disk, "path")), text(disk, "file_system"),
           number(disk, "bytes_per_s") * 1e-9);
    printf("  %-10s %9s %10s\n", "block", "in flight", "GB/s");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *v = json_array_get(list, i);
        char size[SL_SIZE_TEXT];

        printf("  %-10s %9.0f %10.2f\n",
               sl_size_format(size, (uint64_t)number(v, "block_bytes")),
               number(v, "depth"), number(v, "bytes_per_s") * 1e-9);
    }
}

static void print_bytes(const char *what, double bytes)
{
    char size[SL_SIZE_TEXT];

    printf("  %-28s %s\n", what,
           bytes < 0 ? "no limit" : sl_size_format(size, (uint64_t)bytes));
}

/* What a run on this machine would do about its nodes. */
static void print_numa(const json_t *survey, const struct sl_machine *m,
                       const char *path)
{
    double n_nodes = number(json_object_get(survey, "memory"), "numa_nodes");
    struct sl_numa *numa = NULL;
    struct sl_error err;
    char text[SL_NUMA_TEXT];
    unsigned disk;

    printf("  %-28s %.0f", "NUMA nodes", n_nodes);
    if (n_nodes > 1 && sl_numa_system() == NULL)
        printf(" (not made use of: built without libnuma)");
    else if (sl_numa_open(&numa, NULL, NULL, m->n_cpus, &err) == 0 &&
             numa != NULL)
        printf(": %s", sl_numa_text(text, numa));
    disk = sl_numa_file_node(numa, path);
    if (disk != SL_NUMA_UNKNOWN)
        printf(", the disk on node %u", disk);
    putchar('\n');
    sl_numa_close(numa);
}

static void print_rate(const char *what, double bps)
{
    printf("  %-28s %.2f GB/s\n", what, bps * 1e-9);
}

static void print_gpus(const json_t *survey)
{
    const json_t *gpu = json_object_get(survey, "gpu");
    const json_t *list = json_object_get(gpu, "devices");
    char size[SL_SIZE_TEXT];

    if (json_array_size(list) == 0)
        printf("\nNo GPU: %s\n", text(gpu, "why_none"));
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *v = json_array_get(list, i);

        printf("\nGPU %s: %s, %s\n", text(v, "device"), text(v, "name"),
               sl_size_format(size, (uint64_t)number(v, "vram_bytes")));
        if (json_is_string(json_object_get(v, "why_not"))) {
            printf("  not usable: %s\n", text(v, "why_not"));
            continue;
        }
        print_rate("copies to it", number(v, "copy_up_bytes_per_s"));
        print_rate("copies from it", number(v, "copy_down_bytes_per_s"));
        print_rate("its memory, read and written",
                   number(v, "vram_bytes_per_s"));
        printf("  %-28s %.1f us\n", "a hand-over",
               number(v, "hand_over_s") * 1e6);
        if (number(v, "operations_per_s") > 0)
            printf("  %-28s %.1f TOP/s\n", "matrix products",
                   number(v, "operations_per_s") * 1e-12);
        if (number(v, "stage_s") > 0)
            printf("  %-28s %.1f us\n", "launches of a stage",
                   number(v, "stage_s") * 1e6);
        if (!json_is_true(json_object_get(v, "pinned")))
            puts("  memory for copies could not be pinned: see 'ulimit -l'");
    }
}

static void print_settings(const json_t *survey, const struct sl_machine *m,
                           const char *path)
{
    const json_t *memory = json_object_get(survey, "memory");
    const json_t *uring = json_object_get(survey, "io_uring");
    const json_t *features = json_object_get(uring, "features");

    puts("\nSettings");
    print_numa(survey, m, path);
    printf("  %-28s %s\n", "transparent huge pages",
           text(memory, "transparent_huge_pages"));
    if (number(memory, "huge_pages_2m") >= 0)
        printf("  %-28s %.0f, %.0f free\n", "huge pages of 2 MiB",
               number(memory, "huge_pages_2m"),
               number(memory, "huge_pages_2m_free"));
    print_bytes("memory that may be locked", number(memory, "memlock_bytes"));
    if (!json_is_true(json_object_get(uring, "usable"))) {
        printf("  %-28s no: %s\n", "io_uring", text(uring, "refusal"));
        return;
    }
    printf("  %-28s yes:", "io_uring");
    for (size_t i = 0; i < json_array_size(features); i++)
        printf(" %s", json_string_value(json_array_get(features, i)));
    putchar('\n');
}

/* What most people want to know, in three lines. */
static void print_short(const json_t *survey, const struct sl_machine *m,
                        const char *path)
{
    struct sl_machine_spec spec;
    struct sl_error err;
    char ram[SL_SIZE_TEXT];

    printf("%s, %u CPU%s, %s, %s\n", m->cpu, m->n_cpus,
           m->n_cpus == 1 ? "" : "s", sl_size_format(ram, m->ram_bytes),
           m->kernel);
    if (sl_machine_of_survey(&spec, survey, path, &err) != 0)
        return;
    printf("reads %.2f GB/s from %s and %.1f from memory, and does %.0f GOP/s "
           "with INT4 weights\n",
           spec.rates.disk_bps * 1e-9,
           spec.rates.mirror_bps > 0 ? "both disks" : "disk",
           spec.rates.dram_bps * 1e-9,
           spec.rates.worker[SL_HOST].ops_per_s * 1e-9);
    printf("so a token of a model of 10 GB takes at least %.1f s from disk, "
           "%.2f s from memory\n",
           10e9 / spec.rates.disk_bps, 10e9 / spec.rates.dram_bps);
}

static void print_table(const json_t *survey, const struct sl_machine *m,
                        const char *path, const char *mirror)
{
    print_short(survey, m, path);
    print_dram(survey);
    print_operations(survey);
    print_attention(survey);
    print_reading(survey);
    print_disk(sl_survey_find_disk(survey, path));
    if (mirror != NULL)
        print_disk(sl_survey_find_disk(survey, mirror));
    print_gpus(survey);
    print_settings(survey, m, path);
}

/* --- command -------------------------------------------------------------- */

/* Which one is the second is only printed, since what is kept is of disks and
 * not of files. */
static int name_mirror(char key[SL_SURVEY_DISK_KEY], const struct options *o,
                       struct sl_error *err)
{
    char own[SL_SURVEY_DISK_KEY];

    if (sl_survey_disk_name(own, o->path, err) != 0 ||
        sl_survey_disk_name(key, o->mirror, err) != 0)
        return -1;
    if (strcmp(own, key) != 0)
        return 0;
    return sl_fail(err, SL_ERR_USAGE,
                   "--mirror: %s and %s are on one disk, which is no faster "
                   "for that",
                   o->path, o->mirror);
}

static int probe(const struct options *o, const struct sl_log *log,
                 struct sl_error *err)
{
    json_t *survey = NULL;
    struct sl_machine m;
    char *file;
    char mirror[SL_SURVEY_DISK_KEY];
    int rc;

    if (o->mirror != NULL && name_mirror(mirror, o, err) != 0)
        return -1;
    rc = sl_survey_here(&survey, &file, o->path, o->mirror, o->force, log, err);

    sl_machine_get(&m);
    if (rc == 0 && o->mirror != NULL)
        json_object_set_new(survey, "mirror", json_string(mirror));
    if (rc == 0 && o->json)
        rc = sl_json_print(stdout, json_incref(survey),
                           JSON_INDENT(1) | JSON_REAL_PRECISION(6), err);
    else if (rc == 0)
        print_table(survey, &m, o->path, o->mirror);
    if (rc == 0 && !o->json && file != NULL)
        printf("\nKept in %s; --force measures again.\n", SL_TAMED(file));
    json_decref(survey);
    free(file);
    return rc;
}

static int run(int argc, char **argv)
{
    struct sl_log log = {sl_log_stderr, NULL, SL_LOG_INFO};
    struct options o = {.path = "."};
    struct sl_error err;
    int rc = sl_parse_args(&argp, argc, argv, &o);

    if (rc != 0)
        return rc;
    if (probe(&o, &log, &err) != 0)
        return sl_report(&err);
    return sl_finish_stdout(SL_EXIT_OK);
}

const struct sl_command sl_cmd_probe = {
    .name = "probe",
    .summary = "measure what memory, arithmetic, disk and GPU can do",
    .run = run,
    .argp = &argp,
    .tables = true,
};
