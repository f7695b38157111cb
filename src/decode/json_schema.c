#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "src/decode/json_form_impl.h"

static const struct {
    const char *name;
    unsigned type;
} type_names[] = {
    {"null", TYPE_NULL},       {"boolean", TYPE_BOOLEAN},
    {"integer", TYPE_INTEGER}, {"number", TYPE_NUMBER | TYPE_INTEGER},
    {"string", TYPE_STRING},   {"array", TYPE_ARRAY},
    {"object", TYPE_OBJECT},
};

static int out_of_memory(struct sl_error *err)
{
    return sl_fail(err, SL_ERR_NOMEM, "out of memory for a schema");
}

static int add_node(struct sl_json_form *f, uint16_t *at, struct sl_error *err)
{
    struct node *grown;

    if (f->n == MOST_NODES)
        return sl_fail(err, SL_ERR_USAGE,
                       "the schema describes more than %d values", MOST_NODES);
    if (f->n == f->room) {
        grown = realloc(f->nodes, (f->room * 2 + 16) * sizeof *grown);
        if (grown == NULL)
            return out_of_memory(err);
        f->nodes = grown;
        f->room = f->room * 2 + 16;
    }
    f->nodes[f->n] = (struct node){.types = TYPE_ANY, .items = ANY_NODE};
    *at = (uint16_t)f->n++;
    return 0;
}

static int make_literal(struct literal *to, const json_t *v,
                        struct sl_error *err)
{
    to->text = json_dumps(v, JSON_COMPACT | JSON_ENCODE_ANY);
    if (to->text == NULL)
        return out_of_memory(err);
    to->n = strlen(to->text);
    if (to->n <= UINT16_MAX)
        return 0;
    return sl_fail(err, SL_ERR_USAGE, "a value of the schema is too long");
}

static int find_type(unsigned *types, const json_t *name, struct sl_error *err)
{
    const char *s = json_string_value(name);

    for (size_t i = 0; s != NULL && i < sizeof type_names / sizeof *type_names;
         i++) {
        if (strcmp(s, type_names[i].name) == 0) {
            *types |= type_names[i].type;
            return 0;
        }
    }
    return sl_fail(err, SL_ERR_USAGE, "keyword 'type': there is no '%.40s'",
                   s != NULL ? s : "?");
}

static int read_type(struct node *n, const json_t *v, struct sl_error *err)
{
    n->types = 0;
    if (!json_is_array(v))
        return find_type(&n->types, v, err);
    for (size_t i = 0; i < json_array_size(v); i++) {
        if (find_type(&n->types, json_array_get(v, i), err) != 0)
            return -1;
    }
    return 0;
}

static int read_values(struct node *n, const json_t *list, const json_t *one,
                       struct sl_error *err)
{
    size_t count = one != NULL ? 1 : json_array_size(list);

    if (count == 0 || count > INT16_MAX)
        return sl_fail(err, SL_ERR_USAGE,
                       "keyword 'enum': a list of values is expected");
    n->values = calloc(count, sizeof *n->values);
    if (n->values == NULL)
        return out_of_memory(err);
    for (; n->n_values < count; n->n_values++) {
        const json_t *v = one != NULL ? one : json_array_get(list, n->n_values);

        if (make_literal(&n->values[n->n_values], v, err) != 0)
            return -1;
    }
    return 0;
}

/* Keywords that change nothing, or that are looked at elsewhere. */
static bool is_known(const char *keyword)
{
    static const char *const known[] = {
        "type",        "properties", "required",
        "items",       "enum",       "const",
        "title",       "$schema",    "default",
        "description", "$id",        "examples",
        "$comment",    "nullable",   "additionalProperties",
        "readOnly",    "writeOnly",  "deprecated",
        "strict",
    };

    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (strcmp(keyword, known[i]) == 0)
            return true;
    }
    return false;
}

static int check_keywords(const json_t *schema, struct sl_error *err)
{
    const char *keyword;
    json_t *v;

    json_object_foreach((json_t *)schema, keyword, v)
    {
        if (!is_known(keyword))
            return sl_fail(err, SL_ERR_USAGE,
                           "keyword '%.60s' of a JSON schema is not kept to "
                           "here; there are type, properties, required, items, "
                           "enum and const",
                           keyword);
        if (strcmp(keyword, "additionalProperties") == 0 && !json_is_false(v))
            return sl_fail(err, SL_ERR_USAGE,
                           "keyword 'additionalProperties' can only be false");
    }
    return 0;
}

static int read_schema(struct sl_json_form *f, uint16_t *at,
                       const json_t *schema, unsigned depth,
                       struct sl_error *err);

static int read_properties(struct sl_json_form *f, uint16_t at,
                           json_t *properties, const json_t *required,
                           unsigned depth, struct sl_error *err)
{
    size_t count = json_object_size(properties);
    const char *name;
    json_t *v;

    if (!json_is_object(properties) || count > INT16_MAX)
        return sl_fail(err, SL_ERR_USAGE,
                       "keyword 'properties': an object is expected");
    f->nodes[at].keys = calloc(count + 1, sizeof *f->nodes->keys);
    f->nodes[at].children = calloc(count + 1, sizeof(uint16_t));
    f->nodes[at].required = calloc(count + 1, sizeof(bool));
    if (!f->nodes[at].keys || !f->nodes[at].children || !f->nodes[at].required)
        return out_of_memory(err);
    json_object_foreach(properties, name, v)
    {
        json_t *key = json_string(name);
        size_t i = f->nodes[at].n_keys++;
        uint16_t child;
        int rc = make_literal(&f->nodes[at].keys[i], key, err);

        json_decref(key);
        if (rc != 0 || read_schema(f, &child, v, depth + 1, err) != 0)
            return -1;
        f->nodes[at].children[i] = child;
        for (size_t k = 0; k < json_array_size(required); k++) {
            const char *r = json_string_value(json_array_get(required, k));

            if (r != NULL && strcmp(r, name) == 0)
                f->nodes[at].required[i] = true;
        }
    }
    return 0;
}

static int check_required(const json_t *properties, const json_t *required,
                          struct sl_error *err)
{
    if (required != NULL && !json_is_array(required))
        return sl_fail(err, SL_ERR_USAGE,
                       "keyword 'required': a list of names is expected");
    for (size_t k = 0; k < json_array_size(required); k++) {
        const char *r = json_string_value(json_array_get(required, k));

        if (r == NULL || json_object_get(properties, r) == NULL)
            return sl_fail(err, SL_ERR_USAGE,
                           "keyword 'required': '%.60s' is none of the "
                           "properties",
                           r != NULL ? r : "?");
    }
    return 0;
}

static int read_schema(struct sl_json_form *f, uint16_t *at,
                       const json_t *schema, unsigned depth,
                       struct sl_error *err)
{
    json_t *type = json_object_get(schema, "type");
    json_t *list = json_object_get(schema, "enum");
    json_t *one = json_object_get(schema, "const");
    json_t *items = json_object_get(schema, "items");
    json_t *properties = json_object_get(schema, "properties");
    json_t *required = json_object_get(schema, "required");
    uint16_t child = ANY_NODE;

    if (json_is_true(schema)) {
        *at = ANY_NODE;
        return 0;
    }
    if (!json_is_object(schema))
        return sl_fail(err, SL_ERR_USAGE, "a schema is an object");
    if (depth >= SL_JSON_FORM_DEPTH)
        return sl_fail(err, SL_ERR_USAGE, "the schema nests deeper than %d",
                       SL_JSON_FORM_DEPTH);
    if (check_keywords(schema, err) != 0 || add_node(f, at, err) != 0 ||
        check_required(properties, required, err) != 0 ||
        (type != NULL && read_type(&f->nodes[*at], type, err) != 0) ||
        ((list != NULL || one != NULL) &&
         read_values(&f->nodes[*at], list, one, err) != 0) ||
        (properties != NULL &&
         read_properties(f, *at, properties, required, depth, err) != 0) ||
        (items != NULL && read_schema(f, &child, items, depth + 1, err) != 0))
        return -1;
    f->nodes[*at].items = child;
    if (type == NULL && properties != NULL)
        f->nodes[*at].types = TYPE_OBJECT;
    else if (type == NULL && items != NULL)
        f->nodes[*at].types = TYPE_ARRAY;
    return 0;
}

int sl_json_form_create(struct sl_json_form **out, const json_t *schema,
                        struct sl_error *err)
{
    struct sl_json_form *f = calloc(1, sizeof *f);
    uint16_t any;

    if (f == NULL)
        return out_of_memory(err);
    if (add_node(f, &any, err) != 0 || add_node(f, &f->root, err) != 0)
        goto fail;
    f->nodes[f->root].types = TYPE_OBJECT;
    if (schema != NULL && read_schema(f, &f->root, schema, 0, err) != 0)
        goto fail;
    *out = f;
    return 0;
fail:
    sl_json_form_destroy(f);
    return -1;
}

static void free_literals(struct literal *v, size_t n)
{
    for (size_t i = 0; v != NULL && i < n; i++)
        free(v[i].text);
    free(v);
}

void sl_json_form_destroy(struct sl_json_form *f)
{
    if (f == NULL)
        return;
    for (size_t i = 0; i < f->n; i++) {
        free_literals(f->nodes[i].values, f->nodes[i].n_values);
        free_literals(f->nodes[i].keys, f->nodes[i].n_keys);
        free(f->nodes[i].children);
        free(f->nodes[i].required);
    }
    free(f->nodes);
    free(f);
}
