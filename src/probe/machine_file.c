#include "config.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include "src/base/json.h"
#include "src/probe/machine_file.h"

#define HOST(rate)   offsetof(struct sl_rates, worker[SL_HOST].rate)
#define DEVICE(rate) offsetof(struct sl_rates, worker[SL_DEVICE].rate)

static const struct key {
    const char *name;
    size_t at; /* of a double in struct sl_rates */
} keys[] = {
    {"disk_bytes_per_s", offsetof(struct sl_rates, disk_bps)},
    {"disk_latency_s", offsetof(struct sl_rates, disk_latency_s)},
    {"mirror_bytes_per_s", offsetof(struct sl_rates, mirror_bps)},
    {"dram_bytes_per_s", offsetof(struct sl_rates, dram_bps)},
    {"cpu_dram_bytes_per_s", HOST(memory_bps)},
    {"cpu_operations_per_s", HOST(ops_per_s)},
    {"pcie_bytes_per_s", DEVICE(link_bps)},
    {"pcie_latency_s", DEVICE(link_latency_s)},
    {"vram_bytes_per_s", DEVICE(memory_bps)},
    {"gpu_operations_per_s", DEVICE(ops_per_s)},
    {"gpu_stage_s", DEVICE(stage_s)},
};

#define KEYS (sizeof keys / sizeof *keys)

/* More than any machine has, and still exact in a double. */
#define MOST 1e18

/* An unknown key is refused: a rate with a typing error would be taken as
 * unknown, and cost nothing. */
static int take_number(struct sl_machine_spec *spec, const char *key,
                       const json_t *value, const char *path,
                       struct sl_error *err)
{
    double v = json_number_value(value);
    size_t i = 0;

    if (!json_is_number(value) || !(v >= 0 && v <= MOST))
        return sl_fail(err, SL_ERR_USAGE,
                       "%s: \"%s\" must be a number from 0 to %g", path, key,
                       MOST);
    if (strcmp(key, "vram_bytes") == 0) {
        spec->memory_bytes[SL_DEVICE] = (uint64_t)v;
        return 0;
    }
    if (strcmp(key, "ram_bytes") == 0) {
        spec->memory_bytes[SL_HOST] = (uint64_t)v;
        return 0;
    }
    while (i < KEYS && strcmp(keys[i].name, key) != 0)
        i++;
    if (i == KEYS)
        return sl_fail(err, SL_ERR_USAGE, "%s: no machine has a \"%s\"", path,
                       key);
    memcpy((char *)&spec->rates + keys[i].at, &v, sizeof v);
    return 0;
}

/* What `probe --json` writes is told by its "disks". */
static int take_all(struct sl_machine_spec *spec, json_t *root,
                    const char *path, struct sl_error *err)
{
    const char *key;
    json_t *value;

    if (!json_is_object(root))
        return sl_fail(err, SL_ERR_USAGE, "%s: no JSON object", path);
    if (json_is_object(json_object_get(root, "disks"))) {
        if (sl_machine_of_survey(spec, root, NULL, err) == 0)
            return 0;
        sl_error_prefix(err, "%s: ", path);
        return -1;
    }
    snprintf(spec->name, sizeof spec->name, "%s", path);
    json_object_foreach(root, key, value)
    {
        if (strcmp(key, "name") != 0) {
            if (take_number(spec, key, value, path, err) != 0)
                return -1;
            continue;
        }
        if (!json_is_string(value))
            return sl_fail(err, SL_ERR_USAGE, "%s: \"name\" must be a string",
                           path);
        snprintf(spec->name, sizeof spec->name, "%s", json_string_value(value));
    }
    /* In the file each disk's is its own. */
    if (spec->rates.disk_bps > 0)
        spec->rates.disk_bps += spec->rates.mirror_bps;
    if (spec->memory_bytes[SL_HOST] == 0)
        return sl_fail(err, SL_ERR_USAGE, "%s: \"ram_bytes\" is missing", path);
    return sl_machine_spec_check(spec, err);
}

static int unknown(const char *name, struct sl_error *err)
{
    char names[160] = "";
    size_t used = 0;
    const struct sl_machine_spec *s;

    for (size_t i = 0; (s = sl_machine_spec_at(i)) != NULL; i++)
        used += (size_t)snprintf(names + used, sizeof names - used, "%s%s",
                                 i > 0 ? ", " : "", s->name);
    return sl_fail(err, SL_ERR_USAGE,
                   "there is no machine '%s' and no such file; there are %s",
                   name, names);
}

int sl_machine_load(struct sl_machine_spec *spec, const char *name_or_path,
                    struct sl_error *err)
{
    const struct sl_machine_spec *known = sl_machine_spec_find(name_or_path);
    struct sl_machine_spec made = {.name = ""};
    json_t *root;
    int rc;

    if (known != NULL) {
        *spec = *known;
        return 0;
    }
    if (access(name_or_path, F_OK) != 0)
        return unknown(name_or_path, err);
    if (sl_json_load(&root, name_or_path, err) != 0)
        return -1;
    rc = take_all(&made, root, name_or_path, err);
    json_decref(root);
    if (rc == 0)
        *spec = made;
    return rc;
}
