/*
 * lora_config.h - an adapter's adapter_config.json
 */
#ifndef SL_LORA_CONFIG_H
#define SL_LORA_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "src/base/error.h"
#include "src/base/json.h"

struct sl_lora_config {
    json_t *root; /* owned */
    uint32_t r;
    double alpha;
    bool rslora;
    /* By the end of a module's name, for those whose r or alpha is another;
     * borrowed from root, NULL where there are none. */
    const json_t *ranks, *alphas;
};

/* file is for messages. Errors: SL_ERR_CORRUPT with file, key and value;
 * SL_ERR_UNSUPPORTED naming the setting that asks for more than B A. */
int sl_lora_config_parse(struct sl_lora_config *c, const char *text, size_t n,
                         const char *file, struct sl_error *err);
void sl_lora_config_fini(struct sl_lora_config *c);

/* What a module's B A counts, and the rank that it must have. */
double sl_lora_config_scale(const struct sl_lora_config *c, const char *module,
                            uint32_t *r);

#endif
