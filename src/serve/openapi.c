#include "config.h"

#include <string.h>

#include "src/serve/api.h"

/*
 * OpenAPI 3.1 (spec.openapis.org/oas/v3.1.0) of all routes, made of the tables
 * that route requests (route.c) and read their bodies (fields.c).
 */

static json_t *parse(const char *schema)
{
    return json_loads(schema, 0, NULL);
}

static json_t *field_schema(const struct sl_field *f)
{
    json_t *o;

    switch (f->kind) {
    case SL_FIELD_BOOL:
        o = json_pack("{s:s}", "type", "boolean");
        break;
    case SL_FIELD_INT:
        o = json_pack("{s:s, s:I, s:I}", "type", "integer", "minimum",
                      (json_int_t)f->min, "maximum", (json_int_t)f->max);
        break;
    case SL_FIELD_REAL:
        o = json_pack("{s:s, s:f, s:f}", "type", "number", "minimum", f->min,
                      "maximum", f->max);
        break;
    case SL_FIELD_STRING:
        o = json_pack("{s:s}", "type", "string");
        break;
    default:
        o = parse(f->schema);
    }
    if (!f->required) /* null is as good as nothing */
        o = json_pack("{s:[o, {s:s}]}", "anyOf", o, "type", "null");
    if (f->what != NULL)
        json_object_set_new(o, "description", json_string(f->what));
    return o;
}

static json_t *body(const struct sl_route *r)
{
    json_t *properties = json_object(), *required = json_array(), *schema;

    for (sl_field_tables t = r->fields; *t != NULL; t++) {
        for (const struct sl_field *f = *t; f->name != NULL; f++) {
            json_object_set_new(properties, f->name, field_schema(f));
            if (f->required)
                json_array_append_new(required, json_string(f->name));
        }
    }
    schema =
        json_pack("{s:s, s:o}", "type", "object", "properties", properties);
    if (json_array_size(required) > 0)
        json_object_set(schema, "required", required);
    json_decref(required);
    return json_pack("{s:b, s:{s:{s:o}}}", "required", 1, "content",
                     "application/json", "schema", schema);
}

static json_t *answers(const struct sl_route *r)
{
    json_t *content, *good;
    bool is_json = *r->answer == '{';

    content = is_json ? json_pack("{s:{s:o}}", "application/json", "schema",
                                  parse(r->answer))
                      : json_pack("{s:{}}", r->answer);
    if (r->fields != NULL && sl_field_find(r->fields, "stream") != NULL)
        json_object_set_new(content, "text/event-stream", json_object());
    good = json_pack("{s:s, s:o}", "description", r->what, "content", content);
    return json_pack("{s:o, s:{s:s, s:{s:{s:o}}}}", "200", good, "default",
                     "description", "An error", "content", "application/json",
                     "schema", parse(r->form->error_schema));
}

static json_t *operation(const struct sl_route *r)
{
    json_t *o =
        json_pack("{s:s, s:o}", "summary", r->what, "responses", answers(r));

    if (strstr(r->path, "{id}") != NULL)
        json_object_set_new(o, "parameters",
                            json_pack("[{s:s, s:s, s:b, s:{s:s}}]", "name",
                                      "id", "in", "path", "required", 1,
                                      "schema", "type", "string"));
    if (r->fields != NULL)
        json_object_set_new(o, "requestBody", body(r));
    if (r->open)
        json_object_set_new(o, "security", json_array());
    return o;
}

json_t *sl_openapi(void)
{
    json_t *paths = json_object();

    for (const struct sl_route *r = sl_routes; r->method != NULL; r++) {
        bool get = strcmp(r->method, "GET") == 0;
        json_t *path = json_object_get(paths, r->path);

        if (path == NULL) {
            path = json_object();
            json_object_set_new(paths, r->path, path);
        }
        json_object_set_new(path, get ? "get" : "post", operation(r));
    }
    return json_pack(
        "{s:s, s:{s:s, s:s, s:s}, s:o, s:{s:{s:{s:s, s:s}, s:{s:s, s:s, s:s}}},"
        " s:[{}, {s:[]}, {s:[]}]}",
        "openapi", "3.1.0", "info", "title", "sluice", "version",
        PACKAGE_VERSION, "description",
        "Answers of language models that are larger than memory. Keys are "
        "asked for where the server was given some.",
        "paths", paths, "components", "securitySchemes", "bearer", "type",
        "http", "scheme", "bearer", "key", "type", "apiKey", "in", "header",
        "name", "X-Api-Key", "security", "bearer", "key");
}

int sl_api_openapi(struct sl_req *r, struct sl_refusal *why)
{
    json_t *o = sl_openapi();

    if (o == NULL)
        return sl_refuse(why, 503, NULL, "out of memory");
    return sl_reply_json(r, 200, o);
}
