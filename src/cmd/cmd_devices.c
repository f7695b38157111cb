#include "config.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "offload/device.h"
#include "src/base/bytes.h"
#include "src/base/json.h"
#include "src/cmd/opts.h"

/* More than any machine's; those beyond are counted. */
#define MAX_DEVICES 32u

enum { OPT_JSON = 0x100 };

struct options {
    bool json;
};

static const struct argp_option options[] = {
    {"json", OPT_JSON, 0, 0, "Print JSON", 0},
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct options *o = state->input;

    switch (key) {
    case OPT_JSON:
        o->json = true;
        return 0;
    case ARGP_KEY_ARG:
        argp_error(state, "no argument is wanted, but there is '%s'", arg);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp argp = {
    options,
    parse,
    "",
    "List the GPUs that models can run on here, or say why there is none.",
    0,
    0,
    0,
};

/* --- table ---------------------------------------------------------------- */

static void print_link(const struct sl_device_info *d)
{
    if (d->pci[0] == '\0')
        return;
    printf("  %-20s %s", "PCIe", d->pci);
    if (d->pcie_gtps > 0)
        printf(", %g GT/s", d->pcie_gtps);
    if (d->pcie_lanes > 0)
        printf(" x%" PRIu32, d->pcie_lanes);
    putchar('\n');
}

static void print_device(const struct sl_device_info *d)
{
    char total[SL_SIZE_TEXT], left[SL_SIZE_TEXT], driver[SL_VERSION_TEXT],
        runtime[SL_VERSION_TEXT];

    printf("cuda:%d  %s\n", d->ordinal, d->name);
    if (d->vram_bytes > 0 && d->why_not.code == SL_OK)
        printf("  %-20s %s, %s free\n", "memory",
               sl_size_format(total, d->vram_bytes),
               sl_size_format(left, d->vram_free));
    if (d->vram_bps > 0)
        printf("  %-20s %.0f GB/s by its clocks\n", "memory rate",
               (double)d->vram_bps * 1e-9);
    if (d->cc_major > 0)
        printf("  %-20s %d.%d, %" PRIu32 " multiprocessors\n",
               "compute capability", d->cc_major, d->cc_minor, d->n_sms);
    if (d->driver > 0)
        printf("  %-20s driver %s, runtime %s\n", "CUDA",
               sl_device_version(driver, d->driver),
               sl_device_version(runtime, d->runtime));
    print_link(d);
    if (d->why_not.code != SL_OK)
        printf("  %-20s no: %s\n", "usable", d->why_not.msg);
}

static void print_table(const struct sl_device_info *d, size_t n,
                        const struct sl_error *why)
{
    if (n == 0)
        printf("no GPU: %s\n", why->msg);
    for (size_t i = 0; i < n && i < MAX_DEVICES; i++)
        print_device(&d[i]);
    if (n > MAX_DEVICES)
        printf("and %zu more\n", n - MAX_DEVICES);
}

/* --- JSON ----------------------------------------------------------------- */

static json_t *device_json(const struct sl_device_info *d)
{
    char device[24], driver[SL_VERSION_TEXT], runtime[SL_VERSION_TEXT];
    bool usable = d->why_not.code == SL_OK;

    snprintf(device, sizeof device, "cuda:%d", d->ordinal);
    return json_pack(
        "{s:s, s:s, s:b, s:s?, s:I, s:I, s:I, s:I, s:[ii], s:i, s:s, s:s, "
        "s:{s:s, s:f, s:i}}",
        "device", device, "name", d->name, "usable", usable, "why_not",
        usable ? NULL : d->why_not.msg, "vram_bytes", (json_int_t)d->vram_bytes,
        "vram_free_bytes", (json_int_t)d->vram_free, "context_bytes",
        (json_int_t)d->context_bytes, "vram_bytes_per_s",
        (json_int_t)d->vram_bps, "compute_capability", d->cc_major, d->cc_minor,
        "multiprocessors", (int)d->n_sms, "driver",
        sl_device_version(driver, d->driver), "runtime",
        sl_device_version(runtime, d->runtime), "pcie", "address", d->pci,
        "gt_per_s", d->pcie_gtps, "lanes", (int)d->pcie_lanes);
}

static int print_json(const struct sl_device_info *d, size_t n,
                      const struct sl_error *why, struct sl_error *err)
{
    json_t *list = json_array(), *root;
    int rc = list != NULL ? 0 : -1;

    for (size_t i = 0; rc == 0 && i < n && i < MAX_DEVICES; i++)
        rc = json_array_append_new(list, device_json(&d[i]));
    root = json_pack("{s:o, s:s?}", "devices", list, "why_none",
                     n == 0 ? why->msg : NULL);
    if (rc != 0) {
        json_decref(root);
        root = NULL;
    }
    return sl_json_print(stdout, root, JSON_INDENT(1) | JSON_REAL_PRECISION(6),
                         err);
}

/* --- command -------------------------------------------------------------- */

static int run(int argc, char **argv)
{
    struct options o = {.json = false};
    struct sl_device_info *d;
    struct sl_error err, why;
    size_t n = 0;
    int rc = sl_parse_args(&argp, argc, argv, &o);

    if (rc != 0)
        return rc;
    d = calloc(MAX_DEVICES, sizeof *d);
    if (d == NULL) {
        sl_fail(&err, SL_ERR_NOMEM, "no memory to list devices");
        return sl_report(&err);
    }
    /* No device is an answer, not a failure. */
    if (sl_device_list(d, MAX_DEVICES, &n, &why) != 0)
        n = 0;
    if (!o.json)
        print_table(d, n, &why);
    else
        rc = print_json(d, n, &why, &err);
    free(d);
    if (rc != 0)
        return sl_report(&err);
    return sl_finish_stdout(SL_EXIT_OK);
}

const struct sl_command sl_cmd_devices = {
    .name = "devices",
    .summary = "list the GPUs that models can run on here",
    .run = run,
    .argp = &argp,
    .tables = true,
};
