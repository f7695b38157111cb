/*
 * config_json.h - where a model's hyper-parameters come from
 *
 * A preset, the config.json (or SAT's model_config.json) beside a checkpoint,
 * or flags with SAT's names: each says some things and leaves others open.
 * Laid over one another they must leave nothing open that has no default.
 */
#ifndef SL_CONFIG_JSON_H
#define SL_CONFIG_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/arch/arch.h"
#include "src/base/error.h"
#include "src/base/log.h"

enum sl_config_field {
    SL_CONFIG_LAYERS,
    SL_CONFIG_HIDDEN,
    SL_CONFIG_INNER,
    SL_CONFIG_HEADS,
    SL_CONFIG_VOCAB,
    SL_CONFIG_POSITIONS,
    SL_CONFIG_NORM_EPS,
    SL_CONFIG_POSITION_2D,
    SL_CONFIG_GLU,
    SL_CONFIG_ROTARY,
    SL_CONFIG_WHITESPACE,
    SL_CONFIG_IMAGE_TOKENS,
    SL_CONFIG_MAX_BLANK,
    SL_CONFIG_BYTE_FALLBACK,
    SL_CONFIG_SPECIAL, /* some ids of special_tokens; -1: not said */
};

struct sl_config {
    struct sl_hparams hp;
    uint32_t given; /* bit f: hp says something about field f */
};

static inline bool sl_config_has(const struct sl_config *c,
                                 enum sl_config_field f)
{
    return (c->given >> f & 1) != 0;
}

static inline void sl_config_mark(struct sl_config *c, enum sl_config_field f)
{
    c->given |= 1u << f;
}

void sl_config_init(struct sl_config *c); /* says nothing */

/* "glm-130b". Errors: SL_ERR_USAGE naming the presets there are. */
int sl_config_preset(struct sl_config *c, const char *name,
                     struct sl_error *err);

/* What a JSON file says, under SAT's argument names, at the top level or in
 * an object "args", "model_args" or "model_config". file is for messages.
 * Errors: SL_ERR_CORRUPT (no JSON, a value of another type or out of range),
 * SL_ERR_UNSUPPORTED (a model of another kind); both name file and key. */
int sl_config_parse(struct sl_config *c, const char *text, size_t n,
                    const char *file, struct sl_error *err);

/* What over says replaces what c says. */
void sl_config_overlay(struct sl_config *c, const struct sl_config *over);

/* Whether the model's size is not all given, and the flags that say the rest
 * as "--num-layers, --hidden-size". */
#define SL_CONFIG_MISSING 200
bool sl_config_missing(char list[SL_CONFIG_MISSING], const struct sl_config *c);

/* Fills in defaults, what follows for the architecture, and checks:
 * SL_ERR_USAGE naming the flags that are missing, or as sl_hparams_check.
 * special and n_tokens are left at what is known without a tokenizer. */
int sl_config_finish(struct sl_hparams *hp, const struct sl_arch *arch,
                     const struct sl_config *c, struct sl_error *err);

#endif
