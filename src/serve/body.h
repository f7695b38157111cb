/*
 * body.h - the JSON of a request, field by field
 *
 * Strict: what a field may be is said where it is read, and anything else is
 * a refusal (400) that names the field, what came and what is wanted. A field
 * that is null counts as one that is not there (OpenAI's clients send those).
 * Each field that is read is noted; sl_body_rest refuses what nobody reads
 * only where it would change the answer, since clients send fields of all
 * kinds.
 */
#ifndef SL_SERVE_BODY_H
#define SL_SERVE_BODY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include "src/base/ids.h"
#include "src/serve/refusal.h"

/* A body nests no deeper and has no more values: a list of a million ids. */
#define SL_BODY_DEPTH  64u
#define SL_BODY_VALUES (1u << 20)

/* *root is owned. Refusals: 400 for what is no JSON object. */
int sl_body_parse(json_t **root, const char *text, size_t n,
                  struct sl_refusal *why);

/* The field, or NULL where it is missing or null. */
json_t *sl_body_get(const json_t *o, const char *name);

/* Each leaves *v as it is where the field is missing. */
int sl_body_bool(bool *v, const json_t *o, const char *name,
                 struct sl_refusal *why);
int sl_body_int(int64_t *v, const json_t *o, const char *name, int64_t min,
                int64_t max, struct sl_refusal *why);
int sl_body_real(double *v, const json_t *o, const char *name, double min,
                 double max, struct sl_refusal *why);
/* Borrowed from o. */
int sl_body_string(const char **v, size_t *n, const json_t *o, const char *name,
                   struct sl_refusal *why);
/* Ids of a list, each from 0 to vocab - 1. */
int sl_body_ids(struct sl_ids *ids, const json_t *list, const char *name,
                uint32_t vocab, struct sl_refusal *why);

/* Refuses: "'NAME' is KIND; WANTED is expected". */
int sl_body_wrong(struct sl_refusal *why, const char *name, const json_t *v,
                  const char *wanted);

#endif
