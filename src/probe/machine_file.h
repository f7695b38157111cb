/*
 * machine_file.h - machines described in a file
 *
 * A JSON object of numbers, rates in units a second:
 *
 *   disk_bytes_per_s  disk_latency_s  mirror_bytes_per_s
 *   ram_bytes  dram_bytes_per_s
 *   cpu_dram_bytes_per_s  cpu_operations_per_s
 *   pcie_bytes_per_s  pcie_latency_s  vram_bytes  vram_bytes_per_s
 *   gpu_operations_per_s  gpu_stage_s
 *
 * and "name". Without a GPU the last six are left out, without a second disk
 * mirror_bytes_per_s, which is that one's alone. What 'sluice probe
 * --json' writes (survey.h) is such a file, too.
 */
#ifndef SL_MACHINE_FILE_H
#define SL_MACHINE_FILE_H

#include <jansson.h>

#include "offload/sim_machine.h"

/* A machine by its name, else by a file's. Errors: SL_ERR_USAGE naming the
 * machines there are, or the key that is wrong or missing; SL_ERR_IO. */
int sl_machine_load(struct sl_machine_spec *spec, const char *name_or_path,
                    struct sl_error *err);

/* The machine that was surveyed, with the disk of path, or its fastest (NULL),
 * beside it the one that "mirror" names, if that is there; and its first GPU
 * that can be used. Errors: SL_ERR_USAGE naming the rate that is missing. */
int sl_machine_of_survey(struct sl_machine_spec *spec, const json_t *survey,
                         const char *path, struct sl_error *err);

/* Of products with INT4 in groups of 64, all threads; 0: not known. */
double sl_survey_best_ops(const json_t *survey);

#endif
