/*
 * fields.h - the fields of requests' bodies, as tables
 *
 * What a field is called, what it may be and whether it must be there stands in
 * a row, once: requests are read by it, and the OpenAPI description that
 * 'sluice serve --openapi' prints (openapi.c) is made of it.
 */
#ifndef SL_FIELDS_H
#define SL_FIELDS_H

#include <stdbool.h>
#include <stdint.h>

struct sl_req;
struct sl_refusal;

enum sl_field_kind {
    SL_FIELD_BOOL,
    SL_FIELD_INT,
    SL_FIELD_REAL,
    SL_FIELD_STRING,
    /* its API reads it; schema tells what it may be: */
    SL_FIELD_OBJECT,
    SL_FIELD_LIST,
    SL_FIELD_OTHER, /* one thing or another */
    SL_FIELD_NONE,  /* null: it would change the answer, and what says how else
                     */
};

struct sl_field {
    const char *name; /* NULL: the end of a table */
    enum sl_field_kind kind;
    bool required;
    double min, max;    /* of numbers */
    const char *schema; /* of those its API reads: JSON Schema */
    const char *what;   /* in words, or NULL */
};

/* Tables of a body, each ended by a row without name; ended by NULL. NULL:
 * there is no body. */
typedef const struct sl_field *const *sl_field_tables;

extern const struct sl_field *const sl_fields_completions[],
    *const sl_fields_chat[],
        *const sl_fields_responses[],
            *const sl_fields_messages[],
                *const sl_fields_count_tokens[],
                    *const sl_fields_tokenize[],
                        *const sl_fields_detokenize[],
                            *const sl_fields_chatglm[],
                                *const sl_fields_generate[],
                                    *const sl_fields_embeddings[];

/* The row of that name; NULL: none. */
const struct sl_field *sl_field_find(sl_field_tables tables, const char *name);
/* Are all there that must be, and is each of its kind? Refusals: 400. */
int sl_fields_check(const struct sl_req *r, struct sl_refusal *why);

/* Each reads a field of the request's body by its row, which must be there and
 * of this kind, and leaves *v as it is where the field is missing. Refusals:
 * 400. */
int sl_read_bool(bool *v, const struct sl_req *r, const char *name,
                 struct sl_refusal *why);
int sl_read_int(int64_t *v, const struct sl_req *r, const char *name,
                struct sl_refusal *why);
int sl_read_real(double *v, const struct sl_req *r, const char *name,
                 struct sl_refusal *why);
/* Borrowed from the body. n NULL: a zero byte in it is refused. */
int sl_read_string(const char **v, size_t *n, const struct sl_req *r,
                   const char *name, struct sl_refusal *why);

#endif
