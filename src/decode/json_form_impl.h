/*
 * json_form_impl.h - inside json_form: what a schema has become
 *
 *   json_schema.c   from a schema to nodes
 *   json_form.c     the automaton over them
 */
#ifndef SL_JSON_FORM_IMPL_H
#define SL_JSON_FORM_IMPL_H

#include "src/decode/json_form.h"

enum {
    TYPE_NULL = 1,
    TYPE_BOOLEAN = 2,
    TYPE_INTEGER = 4,
    TYPE_NUMBER = 8,
    TYPE_STRING = 16,
    TYPE_ARRAY = 32,
    TYPE_OBJECT = 64,
    TYPE_ANY = 127,
};

enum { MOST_NODES = 4096, MOST_BLANKS = 8, ANY_NODE = 0 };
/* In the place of an object's last property. */
enum { LAST_OF_ARRAY = INT16_MIN };

/* A text that a value or a key may be, as JSON writes it. */
struct literal {
    char *text;
    size_t n;
};

struct node {
    unsigned types;
    struct literal *values; /* enum, const; NULL: any */
    size_t n_values;
    /* of an object; NULL: any */
    struct literal *keys;
    uint16_t *children; /* (n_keys) */
    bool *required;
    size_t n_keys;
    uint16_t items; /* of an array */
};

struct sl_json_form {
    struct node *nodes; /* the first is any value */
    size_t n, room;
    uint16_t root;
};

#endif
