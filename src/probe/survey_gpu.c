#include "config.h"

#include <stdio.h>
#include <stdlib.h>

#include "src/base/mem.h"
#include "src/probe/meminfo.h"
#include "src/probe/probe.h"
#include "src/probe/survey.h"

/* More than the caches of a GPU. */
#define DEVICE_BYTES (256ull << 20)
/* More than any machine's. */
#define MAX_DEVICES 32u

struct gpu_rates {
    struct sl_device_rates copies;
    struct sl_kernel_rates kernels; /* 0: not known */
};

/* An eighth of what is free, of the host's memory too, is enough for a rate,
 * and leaves others theirs. */
static int measure(struct gpu_rates *rates, const struct sl_device_info *info,
                   const struct sl_survey_effort *effort, struct sl_error *err)
{
    uint64_t bytes =
        effort->device_bytes > 0 ? effort->device_bytes : DEVICE_BYTES;
    struct sl_device *dev;
    struct sl_error why;
    int rc;

    if (sl_device_open_cuda(&dev, info->ordinal, NULL, err) != 0)
        return -1;
    bytes = sl_meminfo_room(4 * bytes) / 4;
    if (bytes > dev->info.vram_free / 8)
        bytes = dev->info.vram_free / 8;
    bytes = sl_round_down(bytes, SL_PAGE_BYTES);
    rc = bytes > 0 ? sl_probe_device(&rates->copies, dev, bytes, err)
                   : sl_fail(err, SL_ERR_NOMEM,
                             "GPU %d (%s): no memory is free to measure with",
                             info->ordinal, info->name);
    if (rc == 0 && (effort->kernels == NULL ||
                    effort->kernels(&rates->kernels, dev, &why) != 0))
        rates->kernels = (struct sl_kernel_rates){0};
    sl_device_close(dev);
    return rc;
}

static void add(json_t *gpu, const char *key, double rate)
{
    if (rate > 0)
        json_object_set_new(gpu, key, json_real(rate));
}

/* A GPU that cannot be used or measured is an answer, not a failure. */
static json_t *gpu_json(const struct sl_device_info *info,
                        const struct sl_survey_effort *effort)
{
    struct gpu_rates rates;
    struct sl_error why = info->why_not;
    bool ok = why.code == SL_OK && measure(&rates, info, effort, &why) == 0;
    char device[24];
    json_t *gpu;

    snprintf(device, sizeof device, "cuda:%d", info->ordinal);
    gpu = json_pack("{s:s, s:s, s:I, s:s?}", "device", device, "name",
                    info->name, "vram_bytes", (json_int_t)info->vram_bytes,
                    "why_not", ok ? NULL : why.msg);
    if (gpu != NULL && ok) {
        add(gpu, "copy_up_bytes_per_s", rates.copies.up_bps);
        add(gpu, "copy_down_bytes_per_s", rates.copies.down_bps);
        add(gpu, "vram_bytes_per_s", rates.copies.vram_bps);
        add(gpu, "hand_over_s", rates.copies.hand_over_s);
        add(gpu, "operations_per_s", rates.kernels.ops_per_s);
        add(gpu, "stage_s", rates.kernels.stage_s);
        json_object_set_new(gpu, "pinned", json_boolean(rates.copies.pinned));
    }
    return gpu;
}

int sl_survey_gpus(json_t *survey, const struct sl_survey_effort *effort,
                   struct sl_error *err)
{
    struct sl_device_info *d = calloc(MAX_DEVICES, sizeof *d);
    json_t *list = json_array();
    struct sl_error why;
    size_t n = 0;
    int rc = d != NULL && list != NULL ? 0 : -1;

    if (rc == 0 && sl_device_list(d, MAX_DEVICES, &n, &why) != 0)
        n = 0;
    for (size_t i = 0; rc == 0 && i < n && i < MAX_DEVICES; i++)
        rc = json_array_append_new(list, gpu_json(&d[i], effort));
    if (rc == 0)
        rc =
            json_object_set_new(survey, "gpu",
                                json_pack("{s:O, s:s?}", "devices", list,
                                          "why_none", n == 0 ? why.msg : NULL));
    json_decref(list);
    free(d);
    if (rc != 0)
        return sl_fail(err, SL_ERR_NOMEM, "no memory to list GPUs");
    return 0;
}
