/*
 * json.h - JSON from strangers, read strictly
 *
 * What describes a model (config.json, an index of shards, the header of a
 * safetensors file) comes from outside. It is looked over before a parser
 * takes memory for it: how deep it nests and how many values it has, so that
 * a small file cannot ask for much of either. A key that stands twice in an
 * object is refused; nothing may follow the value but blanks (RFC 8259).
 */
#ifndef SL_BASE_JSON_H
#define SL_BASE_JSON_H

#include <stddef.h>
#include <stdio.h>

#include <jansson.h>

#include "src/base/error.h"

/* What describes a model nests five deep at most; a model of 50000 tensors
 * has half a million values. A value takes some 100 bytes. */
#define SL_JSON_DEPTH  32u
#define SL_JSON_VALUES (4u << 20)

enum sl_json_size { SL_JSON_FITS, SL_JSON_TOO_DEEP, SL_JSON_TOO_MANY };

/* Looks a text over before a parser takes memory for it: does it nest at most
 * so deep, and have at most so many values? Where it does not, *at (or NULL)
 * is the offset. Text that is no JSON is left for the parser to refuse. */
enum sl_json_size sl_json_measure(const char *text, size_t n, size_t depth_most,
                                  size_t values_most, size_t *at);

/* The most that a parser takes for a text, its tree and what it needs beside
 * it, without parsing it. */
size_t sl_json_cost(const char *text, size_t n);

/* *root is owned (json_decref). file is for messages. Errors: SL_ERR_CORRUPT
 * (no JSON, a key twice, too deep) with line and column or offset,
 * SL_ERR_UNSUPPORTED (too many values). */
int sl_json_parse(json_t **root, const char *text, size_t n, const char *file,
                  struct sl_error *err);

/* The same of a file as people write them. Errors: SL_ERR_USAGE for what is no
 * JSON, with the line; SL_ERR_IO. */
int sl_json_load(json_t **root, const char *file, struct sl_error *err);

/* Fails with "FILE: KEY is VALUE; WANTED is expected"; a long value is cut. */
int sl_json_bad_value(struct sl_error *err, const char *file, const char *key,
                      const json_t *v, const char *wanted);

/* A string; null where the text is no UTF-8, as JSON can hold nothing else.
 * NULL without memory. */
json_t *sl_json_text(const char *text);
json_t *sl_json_textn(const char *text, size_t n);

/* What sluice prints for other programs, as its manual pages describe it: an
 * object whose first member is "schema", this number. It grows when a member
 * goes or comes to mean something else; new ones may come at any time. */
#define SL_JSON_SCHEMA 1

/* object with "schema" before its members. Takes over object, which may be
 * NULL, and gives NULL without memory. */
json_t *sl_json_versioned(json_t *object);
/* Prints one, by flags of json_dumps, and ends its line. Takes over object.
 * What the stream refuses shows when it is flushed. Errors: SL_ERR_NOMEM,
 * where object is NULL, too. */
int sl_json_print(FILE *to, json_t *object, size_t flags, struct sl_error *err);

/* About what a value takes of memory. */
size_t sl_json_bytes(const json_t *v);

/* "an object", "an array", "a string"... */
const char *sl_json_kind(const json_t *v);

#endif
