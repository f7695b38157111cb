#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/serve/calls.h"

#define OPEN  "<tool_call>"
#define CLOSE "</tool_call>"

const char *const sl_call_marks[SL_CALL_MARKS] = {
    OPEN, CLOSE, "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>",
};

static const json_t *find_tool(const json_t *tools, const char *name, size_t n)
{
    for (size_t i = 0; i < json_array_size(tools); i++) {
        const json_t *f = sl_chat_function(json_array_get(tools, i));
        const char *known = json_string_value(json_object_get(f, "name"));

        if (known != NULL && strlen(known) == n && memcmp(known, name, n) == 0)
            return f;
    }
    return NULL;
}

static void trim(const char **text, size_t *n)
{
    while (*n > 0 && strchr(" \t\r\n", **text) != NULL) {
        ++*text;
        --*n;
    }
    while (*n > 0 && strchr(" \t\r\n", (*text)[*n - 1]) != NULL)
        --*n;
}

/* Adds a call; arguments is moved. */
static bool add_call(struct sl_call_reader *r, const char *name, size_t n,
                     json_t *arguments)
{
    char *text = json_dumps(arguments, JSON_COMPACT | JSON_ENCODE_ANY);
    char id[32];
    json_t *call;

    json_decref(arguments);
    if (text == NULL)
        return false;
    if (r->calls == NULL)
        r->calls = json_array();
    snprintf(id, sizeof id, "call_%zu", json_array_size(r->calls));
    call =
        json_pack("{s:s, s:s, s:{s:o, s:s}}", "id", id, "type", "function",
                  "function", "name", json_stringn(name, n), "arguments", text);
    free(text);
    return json_array_append_new(r->calls, call) == 0;
}

/* {"name": N, "arguments": {..}} */
static bool read_json_call(struct sl_call_reader *r, const char *text, size_t n)
{
    json_t *o = json_loadb(text, n, 0, NULL), *arguments;
    const char *name = json_string_value(json_object_get(o, "name"));
    bool ok = false;

    arguments = json_object_get(o, "arguments");
    if (arguments == NULL)
        arguments = json_object_get(o, "parameters");
    if (name != NULL)
        ok = add_call(r, name, strlen(name),
                      arguments != NULL ? json_incref(arguments)
                                        : json_object());
    json_decref(o);
    return ok;
}

/* The text between two marks from there on; *text and *n go behind. */
static const char *between(const char **text, size_t *n, const char *open,
                           const char *close, size_t *n_got)
{
    const char *from = memmem(*text, *n, open, strlen(open)), *to;

    if (from == NULL)
        return NULL;
    from += strlen(open);
    to = memmem(from, *n - (size_t)(from - *text), close, strlen(close));
    if (to == NULL)
        return NULL;
    *n_got = (size_t)(to - from);
    *n -= (size_t)(to - *text) + strlen(close);
    *text = to + strlen(close);
    return from;
}

static bool is_string_parameter(const json_t *tool, const char *key, size_t n)
{
    json_t *all =
        json_object_get(json_object_get(tool, "parameters"), "properties");
    const char *type, *name;
    json_t *v;

    json_object_foreach(all, name, v)
    {
        type = json_string_value(json_object_get(v, "type"));
        if (strlen(name) == n && memcmp(name, key, n) == 0)
            return type != NULL && strcmp(type, "string") == 0;
    }
    return false;
}

/* N, then pairs of keys and values between marks. */
static bool read_marked_call(struct sl_call_reader *r, const char *text,
                             size_t n)
{
    const char *key, *name = text, *rest = text;
    size_t n_key, n_rest = n, n_name;
    json_t *arguments = json_object();
    const json_t *tool;

    key = memmem(text, n, "<arg_key>", strlen("<arg_key>"));
    n_name = key != NULL ? (size_t)(key - text) : n;
    trim(&name, &n_name);
    tool = find_tool(r->tools, name, n_name);
    while ((key = between(&rest, &n_rest, "<arg_key>", "</arg_key>", &n_key))) {
        size_t n_value;
        const char *value =
            between(&rest, &n_rest, "<arg_value>", "</arg_value>", &n_value);
        json_t *v = NULL;

        if (value == NULL)
            break;
        trim(&key, &n_key);
        if (!is_string_parameter(tool, key, n_key))
            v = json_loadb(value, n_value, JSON_DECODE_ANY, NULL);
        if (v == NULL)
            v = json_stringn(value, n_value);
        json_object_setn_new(arguments, key, n_key, v);
    }
    if (n_name > 0)
        return add_call(r, name, n_name, arguments);
    json_decref(arguments);
    return false;
}

/* A value of Python's: a string in quotes, True, False, None, or JSON. */
static json_t *python_value(const char *text, size_t n)
{
    trim(&text, &n);
    if (n >= 2 && (*text == '\'' || *text == '"') && text[n - 1] == *text)
        return json_stringn(text + 1, n - 2);
    if (n == 4 && memcmp(text, "True", 4) == 0)
        return json_true();
    if (n == 5 && memcmp(text, "False", 5) == 0)
        return json_false();
    if (n == 4 && memcmp(text, "None", 4) == 0)
        return json_null();
    return json_loadb(text, n, JSON_DECODE_ANY, NULL);
}

/* Bytes until the comma that ends an argument. */
static size_t argument_len(const char *text, size_t n)
{
    int depth = 0;
    char quote = 0;

    for (size_t i = 0; i < n; i++) {
        char c = text[i];

        if (quote != 0) {
            if (c == '\\')
                i++;
            else if (c == quote)
                quote = 0;
        } else if (c == '\'' || c == '"') {
            quote = c;
        } else if (strchr("([{", c) != NULL) {
            depth++;
        } else if (strchr(")]}", c) != NULL) {
            depth--;
        } else if (c == ',' && depth == 0) {
            return i;
        }
    }
    return n;
}

/* tool_call(K=V, ...) */
static json_t *python_arguments(const char *text, size_t n)
{
    const char *from = memmem(text, n, "tool_call(", 10);
    const char *to = memrchr(text, ')', n);
    json_t *o;

    if (from == NULL || to == NULL || to < from + 10)
        return NULL;
    from += 10;
    o = json_object();
    while (from < to) {
        size_t len = argument_len(from, (size_t)(to - from));
        const char *is = memchr(from, '=', len), *key = from;
        size_t n_key = is != NULL ? (size_t)(is - from) : 0;
        json_t *v = is != NULL ? python_value(is + 1, len - n_key - 1) : NULL;

        trim(&key, &n_key);
        if (v == NULL || json_object_setn_new(o, key, n_key, v) != 0) {
            json_decref(o);
            return NULL;
        }
        from += len + 1;
    }
    return o;
}

/* NAME\n and arguments, being all of the answer. */
static bool read_whole(struct sl_call_reader *r, const char *text, size_t n)
{
    const char *line = memchr(text, '\n', n), *name = text, *rest;
    size_t n_name, n_rest;
    json_t *arguments;

    if (line == NULL)
        return false;
    n_name = (size_t)(line - text);
    rest = line + 1;
    n_rest = n - n_name - 1;
    trim(&name, &n_name);
    trim(&rest, &n_rest);
    if (find_tool(r->tools, name, n_name) == NULL)
        return false;
    arguments = r->kind == SL_TOOLS_CHATGLM3
                    ? python_arguments(rest, n_rest)
                    : json_loadb(rest, n_rest, 0, NULL);
    return arguments != NULL && add_call(r, name, n_name, arguments);
}

static bool is_whole(const struct sl_call_reader *r)
{
    return r->kind == SL_TOOLS_GLM4 || r->kind == SL_TOOLS_CHATGLM3;
}

static void drop(struct sl_str *s, size_t n)
{
    memmove(s->s, s->s + n, s->n - n);
    sl_str_cut(s, s->n - n);
}

/* Where OPEN begins, whole or at the end in part; n: nowhere. */
static size_t find_open(const char *text, size_t n, bool *whole)
{
    const char *p = memmem(text, n, OPEN, strlen(OPEN));

    *whole = p != NULL;
    if (p != NULL)
        return (size_t)(p - text);
    for (size_t len = strlen(OPEN) - 1; len > 0; len--) {
        if (len <= n && memcmp(text + n - len, OPEN, len) == 0)
            return n - len;
    }
    return n;
}

int sl_call_reader_push(struct sl_call_reader *r, struct sl_str *content,
                        const char *text, size_t n, struct sl_error *err)
{
    if (sl_str_append(&r->held, text, n, err) != 0)
        return -1;
    while (!is_whole(r) && r->held.n > 0) {
        const char *s = r->held.s, *close;
        bool whole;
        size_t at = find_open(s, r->held.n, &whole), from, end;

        if (at > 0) {
            if (sl_str_append(content, s, at, err) != 0)
                return -1;
            drop(&r->held, at);
            continue;
        }
        close = whole ? memmem(s, r->held.n, CLOSE, strlen(CLOSE)) : NULL;
        if (close == NULL)
            return 0;
        from = strlen(OPEN);
        end = (size_t)(close - s);
        if (!(r->kind == SL_TOOLS_QWEN ? read_json_call : read_marked_call)(
                r, s + from, end - from) &&
            sl_str_append(content, s, end + strlen(CLOSE), err) != 0)
            return -1;
        drop(&r->held, end + strlen(CLOSE));
    }
    return 0;
}

int sl_call_reader_end(struct sl_call_reader *r, struct sl_str *content,
                       json_t **calls, struct sl_error *err)
{
    const char *text = sl_str_text(&r->held);
    size_t n = r->held.n;
    bool was_call = false;

    if (is_whole(r))
        was_call = read_whole(r, text, n);
    if (!was_call && sl_str_append(content, text, n, err) != 0)
        return -1;
    sl_str_clear(&r->held);
    *calls = r->calls;
    r->calls = NULL;
    return 0;
}

void sl_call_reader_fini(struct sl_call_reader *r)
{
    sl_str_fini(&r->held);
    json_decref(r->tools);
    json_decref(r->calls);
}
