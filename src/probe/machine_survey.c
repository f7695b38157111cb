/* A machine as sim_machine.h has it, of what a survey has measured of one. */
#include "config.h"

#include <stdio.h>
#include <string.h>

#include "src/probe/machine_file.h"
#include "src/probe/survey.h"

#define DISK_LATENCY 80e-6 /* of a drive's read, as its makers state them */

/* What of a GPU a survey does not measure, or did not; see
 * offload/sim_machine.c. Products are guessed by the memory's rate, as a card
 * of the cheaper kind has them. */
#define DRIVER_BYTES   900000000u
#define GPU_OPS_A_BYTE 67

static double number(const json_t *object, const char *key)
{
    return json_number_value(json_object_get(object, key));
}

/* What "mirror" names; NULL: it is not there. */
static const json_t *mirror_of(const json_t *survey)
{
    const char *key = json_string_value(json_object_get(survey, "mirror"));

    return key != NULL ? json_object_get(json_object_get(survey, "disks"), key)
                       : NULL;
}

/* The disk of path, else the fastest that was measured and is no mirror; NULL:
 * none was. */
static const json_t *disk_of(const json_t *survey, const char *path)
{
    const json_t *best = NULL, *mirror = mirror_of(survey);
    const char *key;
    json_t *disk;

    if (path != NULL)
        return sl_survey_find_disk(survey, path);
    json_object_foreach(json_object_get(survey, "disks"), key, disk)
    {
        if (disk != mirror && (best == NULL || number(disk, "bytes_per_s") >
                                                   number(best, "bytes_per_s")))
            best = disk;
    }
    return best;
}

/* With as many threads as there are processors. */
static double dram_of(const json_t *survey)
{
    double cpus = number(json_object_get(survey, "machine"), "cpus");
    json_t *v;
    size_t i;

    json_array_foreach(json_object_get(survey, "dram"), i,
                       v) if (number(v, "threads") ==
                              cpus) return number(v, "bytes_per_s");
    return 0;
}

double sl_survey_best_ops(const json_t *survey)
{
    double cpus = number(json_object_get(survey, "machine"), "cpus");
    json_t *v;
    size_t i;

    json_array_foreach(json_object_get(survey, "operations"), i, v)
    {
        const char *fmt = json_string_value(json_object_get(v, "format"));

        if (number(v, "threads") == cpus && number(v, "group") == 64 &&
            fmt != NULL && strcmp(fmt, "int4") == 0)
            return number(v, "operations_per_s");
    }
    return 0;
}

static double measured(const json_t *gpu, const char *key, double otherwise)
{
    double v = number(gpu, key);

    return v > 0 ? v : otherwise;
}

/* The first that can be used. */
static void add_gpu(struct sl_machine_spec *spec, const json_t *survey)
{
    json_t *v,
        *list = json_object_get(json_object_get(survey, "gpu"), "devices");
    struct sl_worker *w = &spec->rates.worker[SL_DEVICE];
    size_t i;

    json_array_foreach(list, i, v)
    {
        double vram = number(v, "vram_bytes");

        if (json_is_string(json_object_get(v, "why_not")) ||
            vram < 2. * DRIVER_BYTES)
            continue;
        spec->memory_bytes[SL_DEVICE] = (uint64_t)vram - DRIVER_BYTES;
        w->link_bps = number(v, "copy_up_bytes_per_s");
        w->link_latency_s = measured(v, "hand_over_s", SL_GUESS_HAND_OVER_S);
        w->memory_bps = number(v, "vram_bytes_per_s");
        w->ops_per_s =
            measured(v, "operations_per_s", GPU_OPS_A_BYTE * w->memory_bps);
        w->stage_s = measured(v, "stage_s", SL_GUESS_STAGE_S);
        return;
    }
}

int sl_machine_of_survey(struct sl_machine_spec *spec, const json_t *survey,
                         const char *path, struct sl_error *err)
{
    const json_t *disk = disk_of(survey, path);
    const json_t *machine = json_object_get(survey, "machine");
    const char *cpu = json_string_value(json_object_get(machine, "cpu"));
    double ram = number(machine, "ram_bytes");

    *spec = (struct sl_machine_spec){
        .rates.disk_bps = number(disk, "bytes_per_s"),
        .rates.disk_latency_s = DISK_LATENCY,
        .rates.dram_bps = dram_of(survey),
        .rates.worker[SL_HOST].memory_bps = dram_of(survey),
        .rates.worker[SL_HOST].ops_per_s = sl_survey_best_ops(survey),
        .memory_bytes[SL_HOST] = ram > 0 && ram < 1e18 ? (uint64_t)ram : 0,
    };
    snprintf(spec->name, sizeof spec->name, "%s", cpu != NULL ? cpu : "");
    if (spec->rates.disk_bps <= 0 || spec->rates.dram_bps <= 0 ||
        spec->rates.worker[SL_HOST].ops_per_s <= 0 ||
        spec->memory_bytes[SL_HOST] == 0)
        return sl_fail(err, SL_ERR_USAGE,
                       "what 'sluice probe --json' wrote lacks a rate of %s: "
                       "measure again",
                       spec->rates.disk_bps <= 0          ? "the disk"
                       : spec->rates.dram_bps <= 0        ? "memory"
                       : spec->memory_bytes[SL_HOST] == 0 ? "RAM"
                                                          : "arithmetic");
    if (mirror_of(survey) != NULL && mirror_of(survey) != disk)
        spec->rates.mirror_bps = number(mirror_of(survey), "bytes_per_s");
    spec->rates.disk_bps += spec->rates.mirror_bps;
    add_gpu(spec, survey);
    return sl_machine_spec_check(spec, err);
}
