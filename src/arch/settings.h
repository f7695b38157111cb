/*
 * settings.h - what a config.json says
 *
 * A Hugging Face config.json is an object whose keys differ from model to
 * model and from year to year. An architecture asks for what it needs by all
 * the names there are:
 *
 *     sl_settings_f64(&base, s, "rope_parameters.rope_theta|rope_theta",
 *                     SL_SETTING_OPTIONAL, err)
 *
 * Alternatives stand between bars and are tried in that order; a dot goes
 * into an object. null counts as not said. Every getter leaves *v as it was
 * when an optional setting is not said, and when it fails; a setting that is
 * said must be of the right type and in range. Errors: SL_ERR_CORRUPT with
 * file, key and value; a required setting that is missing is named with all
 * its alternatives.
 */
#ifndef SL_SETTINGS_H
#define SL_SETTINGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/base/error.h"

struct sl_settings;

enum sl_setting {
    SL_SETTING_OPTIONAL,
    SL_SETTING_REQUIRED,
};

/* *s is owned (close). Errors: SL_ERR_IO, SL_ERR_NOMEM, SL_ERR_CORRUPT (no
 * JSON object, beyond 16 MiB). */
int sl_settings_open(struct sl_settings **s, const char *path,
                     struct sl_error *err);
/* The same of text in memory; file is for messages and copied. */
int sl_settings_parse(struct sl_settings **s, const char *text, size_t n,
                      const char *file, struct sl_error *err);
void sl_settings_close(struct sl_settings *s);

const char *sl_settings_file(const struct sl_settings *s);

/* Whether one of the alternatives is said, of whatever type. */
bool sl_settings_has(const struct sl_settings *s, const char *keys);
/* Whether a setting (one name, no alternatives) is said to be null: "none", to
 * classes whose default is something. */
bool sl_settings_null(const struct sl_settings *s, const char *key);

/* Whole numbers from 0 to 2^31 - 1: sizes, counts, ids. */
int sl_settings_u32(uint32_t *v, const struct sl_settings *s, const char *keys,
                    enum sl_setting need, struct sl_error *err);
/* Finite numbers, whole ones too. */
int sl_settings_f64(double *v, const struct sl_settings *s, const char *keys,
                    enum sl_setting need, struct sl_error *err);
int sl_settings_bool(bool *v, const struct sl_settings *s, const char *keys,
                     enum sl_setting need, struct sl_error *err);
/* *v is borrowed until close. */
int sl_settings_string(const char **v, const struct sl_settings *s,
                       const char *keys, enum sl_setting need,
                       struct sl_error *err);
/* architectures[0], else "". */
const char *sl_settings_architecture(const struct sl_settings *s);
/* model_type, else "". */
const char *sl_settings_model_type(const struct sl_settings *s);

/* Weights quantised by a scheme whose bytes are not read here (fp8,
 * compressed-tensors, gptq, awq, bitsandbytes...): SL_ERR_UNSUPPORTED naming
 * the scheme, and what to take instead. ChatGLM-6B's own quantization_bit is
 * none of these. */
int sl_settings_check_quantised(const struct sl_settings *s,
                                struct sl_error *err);

#endif
