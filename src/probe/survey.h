/*
 * survey.h - what this machine can do, measured once and kept
 *
 * A survey is a JSON object: of the machine (DRAM by threads, arithmetic by
 * format, huge pages, locked memory, io_uring), of its GPUs, and of each file
 * system that was looked at (direct reads by block size and depth). It lies in
 * one file of the user's cache, and counts while the machine is the same, has
 * not been booted since, and a week has not gone by.
 *
 *   {"version": 4, "machine": {..., "ram_bytes"}, "measured": unix seconds,
 *    "dram": [{"threads", "bytes_per_s"}],
 *    "operations": [{"format", "group", "activations", "isa", "threads",
 *                    "operations_per_s"}],
 *    "attention": [{"isa", "threads", "operations_per_s"}],
 *    "reading": [{"isa", "threads", "places", "ahead_bytes"}],
 *    "memory": {...}, "io_uring": {...},
 *    "gpu": {"why_none": null or text,
 *            "devices": [{"device", "name", "vram_bytes",
 *                         "why_not": null or text, or rates where null:
 *                         "copy_up_bytes_per_s", "copy_down_bytes_per_s",
 *                         "vram_bytes_per_s", "hand_over_s", "pinned",
 *                         and where kernels were measured
 *                         "operations_per_s", "stage_s"}]},
 *    "disks": {"8:1": {"measured", "path", "file_system", "bytes_per_s",
 *                      "reads": [{"block_bytes", "depth", "bytes_per_s"}]}}}
 */
#ifndef SL_SURVEY_H
#define SL_SURVEY_H

#include <stdbool.h>

#include <jansson.h>

#include "kernels/kernels.h"
#include "offload/plan.h"
#include "src/base/error.h"
#include "src/probe/machine.h"
#include "src/probe/probe.h"

/* A survey of another one does not count. */
#define SL_SURVEY_VERSION   4
#define SL_SURVEY_MAX_AGE_S (7 * 24 * 3600)

/* The file in a cache folder ($XDG_CACHE_HOME, or ~/.cache): moved to the
 * caller, NULL without memory. */
char *sl_survey_path(const char *cache_folder);

/* What is kept and still counts; *survey is moved to the caller, and NULL
 * where there is none (no file, not one of ours, too old, another machine). */
void sl_survey_load(json_t **survey, const char *path,
                    const struct sl_machine *m);
/* Makes the folders above; the file appears whole. Errors: SL_ERR_IO,
 * SL_ERR_NOSPACE, SL_ERR_NOMEM. */
int sl_survey_store(const json_t *survey, const char *path,
                    struct sl_error *err);

/* How much is measured; zeros: enough to be sure of, some seconds. */
struct sl_survey_effort {
    uint64_t time_ns;      /* of one measurement */
    unsigned tries;        /* of each; the best counts */
    uint64_t file_bytes;   /* of the file that is made */
    uint64_t device_bytes; /* that are copied to a GPU and within it */
    /* Of the device's kernels; NULL: it is not measured. Errors: as it likes,
     * they are left out then. */
    int (*kernels)(struct sl_kernel_rates *rates, struct sl_device *dev,
                   struct sl_error *err);
};

/* What --activations auto makes of the inputs of products with such weights. */
enum sl_act sl_survey_inputs(const struct sl_kernels *kernels, enum sl_fmt fmt);

/* Lists GPUs anew and measures them: what copies to and from each do, its
 * memory and its kernels. That there is none, or one cannot be used, is part of
 * the survey. Errors: SL_ERR_NOMEM. */
int sl_survey_gpus(json_t *survey, const struct sl_survey_effort *effort,
                   struct sl_error *err);
/* Everything but disks; moved to the caller. Errors: SL_ERR_NOMEM,
 * SL_ERR_IO. */
int sl_survey_machine(json_t **survey, const struct sl_machine *m,
                      const struct sl_survey_effort *effort,
                      struct sl_error *err);
/* Adds the disk that path lies on, a model file or a folder. Where path is no
 * file of some size, one is made in its folder, of 256 MiB, that has no name
 * and goes when the measurement ends. Errors: SL_ERR_IO,
 * SL_ERR_NOSPACE, SL_ERR_NOMEM. */
int sl_survey_disk(json_t *survey, const char *path,
                   const struct sl_survey_effort *effort, struct sl_error *err);

/* What tells the disk of path from others in a survey: "8:1". Errors:
 * SL_ERR_IO.
 */
#define SL_SURVEY_DISK_KEY 32u
int sl_survey_disk_name(char key[SL_SURVEY_DISK_KEY], const char *path,
                        struct sl_error *err);
/* The disk of path in a survey, borrowed; NULL if it is not there or too old.
 */
const json_t *sl_survey_find_disk(const json_t *survey, const char *path);

/* What of it bears on a run. */
struct sl_survey_query {
    const char *path; /* the model file */
    unsigned threads;
    const char *isa;
    enum sl_fmt fmt;
    uint32_t group_cols; /* 0: a scale a row */
    enum sl_act act;
};

/* False where something is not known; age_s: of the oldest of the rates. */
bool sl_survey_rates(struct sl_rates *rates, double *age_s,
                     const json_t *survey, const struct sl_survey_query *q);

/* How kernels of this instruction set read weights with so many threads
 * (sl_probe_reading); the default where nobody measured it. */
struct sl_reading sl_survey_reading(const json_t *survey, const char *isa,
                                    unsigned threads);

#endif
