/*
 * gpu_show.h - the GPU's part of a plan and of a run, for people and programs
 */
#ifndef SL_GPU_SHOW_H
#define SL_GPU_SHOW_H

#include <stdio.h>

#include <jansson.h>

#include "src/runtime/runtime.h"

/* 'V' VRAM, 'R' RAM, '.' disk */
char sl_tier_letter(enum sl_tier tier);
const char *sl_tier_name(enum sl_tier tier); /* "vram" "ram" "disk" */

/* Device memory by purpose, line by line; or why there is no GPU, if somebody
 * may want to know. */
void sl_gpu_print(FILE *f, const struct sl_runtime *rt);
/* One line: which GPU, how much of it. Nothing without one. */
void sl_gpu_print_line(FILE *f, const struct sl_runtime *rt);
/* {"name", "vram": {...}, "engines": {...}}, or null without a GPU. */
json_t *sl_gpu_json(const struct sl_runtime *rt);

#endif
