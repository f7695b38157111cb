#include "config.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/json.h"

/* Brackets and commas within strings are no structure. The end of the one that
 * begins at i. */
static size_t end_of_string(const char *text, size_t n, size_t i)
{
    for (i++; i < n && text[i] != '"'; i++) {
        if (text[i] == '\\')
            i++;
    }
    return i;
}

enum sl_json_size sl_json_measure(const char *text, size_t n, size_t depth_most,
                                  size_t values_most, size_t *at)
{
    size_t depth = 0, values = 1;

    for (size_t i = 0; i < n; i++) {
        char c = text[i];

        if (c == '"') {
            i = end_of_string(text, n, i);
            continue;
        }
        if (c == '{' || c == '[')
            depth++;
        else if ((c == '}' || c == ']') && depth > 0)
            depth--;
        values += c == ',' || c == ':' || c == '{' || c == '[';
        if (depth <= depth_most && values <= values_most)
            continue;
        if (at != NULL)
            *at = i;
        return depth > depth_most ? SL_JSON_TOO_DEEP : SL_JSON_TOO_MANY;
    }
    return SL_JSON_FITS;
}

/* jansson's own, with what malloc adds: a number and its place in a list, which
 * grows by doubling; a string beside its text; an empty list and object; what a
 * member has of its object's table. The longest string is there twice while it
 * is read. */
size_t sl_json_cost(const char *text, size_t n)
{
    enum { VALUE = 48, STRING = 64, LIST = 144, OBJECT = 256, MEMBER = 112 };
    size_t cost = VALUE + 2 * n;

    for (size_t i = 0; i < n; i++) {
        switch (text[i]) {
        case '"':
            i = end_of_string(text, n, i);
            cost += STRING;
            break;
        case ',':
            cost += VALUE;
            break;
        case ':':
            cost += MEMBER;
            break;
        case '[':
            cost += LIST + VALUE;
            break;
        case '{':
            cost += OBJECT + VALUE;
            break;
        default:
            break;
        }
    }
    return cost;
}

/* Before jansson sees it: that parser recurses for each level, and takes
 * dozens of bytes for each value of a few. */
static int look_over(const char *text, size_t n, const char *file,
                     struct sl_error *err)
{
    size_t at;

    switch (sl_json_measure(text, n, SL_JSON_DEPTH, SL_JSON_VALUES, &at)) {
    case SL_JSON_TOO_DEEP:
        return sl_fail(err, SL_ERR_CORRUPT,
                       "%s: JSON nests deeper than %u at offset %zu", file,
                       SL_JSON_DEPTH, at);
    case SL_JSON_TOO_MANY:
        return sl_fail(err, SL_ERR_UNSUPPORTED,
                       "%s: JSON of more than %u values", file, SL_JSON_VALUES);
    case SL_JSON_FITS:
        break;
    }
    return 0;
}

/* The parser quotes the file, which may hold what would drive a terminal. */
static void make_printable(char *text)
{
    for (; *text != '\0'; text++)
        if ((unsigned char)*text < ' ' || *text == 0x7f)
            *text = '?';
}

int sl_json_parse(json_t **root, const char *text, size_t n, const char *file,
                  struct sl_error *err)
{
    json_error_t at;
    json_t *made;

    if (n >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) {
        text += 3; /* a byte-order mark, as some editors put there */
        n -= 3;
    }
    if (look_over(text, n, file, err) != 0)
        return -1;
    made = json_loadb(text, n, JSON_REJECT_DUPLICATES, &at);
    if (made == NULL && json_error_code(&at) == json_error_out_of_memory)
        return sl_fail(err, SL_ERR_NOMEM, "%s: no memory to read it", file);
    if (made == NULL) {
        make_printable(at.text);
        return sl_fail(err, SL_ERR_CORRUPT, "%s:%d:%d: not JSON: %.120s", file,
                       at.line, at.column, at.text);
    }
    *root = made;
    return 0;
}

int sl_json_load(json_t **root, const char *file, struct sl_error *err)
{
    FILE *in = fopen(file, "re");
    json_error_t why;

    if (in == NULL)
        return sl_fail_os(err, errno, "%s: cannot open", file);
    errno = 0;
    *root = json_loadf(in, JSON_REJECT_DUPLICATES, &why);
    if (*root == NULL && ferror(in))
        sl_fail_os(err, errno, "%s: cannot read", file);
    else if (*root == NULL)
        sl_fail(err, SL_ERR_USAGE, "%s: is no JSON: line %d: %s", file,
                why.line, why.text);
    fclose(in);
    return *root != NULL ? 0 : -1;
}

int sl_json_bad_value(struct sl_error *err, const char *file, const char *key,
                      const json_t *v, const char *wanted)
{
    char *text = json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT);

    sl_fail(err, SL_ERR_CORRUPT, "%s: %s is %.60s; %s is expected", file, key,
            text != NULL ? text : "unreadable", wanted);
    free(text);
    return -1;
}

json_t *sl_json_textn(const char *text, size_t n)
{
    json_t *s = json_stringn(text, n);

    return s != NULL ? s : json_null();
}

json_t *sl_json_text(const char *text)
{
    return sl_json_textn(text, strlen(text));
}

json_t *sl_json_versioned(json_t *object)
{
    json_t *root = json_pack("{si}", "schema", SL_JSON_SCHEMA);

    if (root == NULL || object == NULL ||
        json_object_update(root, object) != 0) {
        json_decref(root);
        root = NULL;
    }
    json_decref(object);
    return root;
}

int sl_json_print(FILE *to, json_t *object, size_t flags, struct sl_error *err)
{
    json_t *root = sl_json_versioned(object);
    bool bad;

    if (root == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory for the JSON output");
    bad = json_dumpf(root, to, flags | JSON_PRESERVE_ORDER) != 0;
    putc('\n', to);
    json_decref(root);
    if (bad && !ferror(to))
        return sl_fail(err, SL_ERR_NOMEM, "no memory for the JSON output");
    return 0;
}

const char *sl_json_kind(const json_t *v)
{
    switch (json_typeof(v)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "an array";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
    case JSON_REAL:
        return "a number";
    case JSON_NULL:
        return "null";
    default:
        return "true or false";
    }
}

/* jansson's own, seen from outside: a table's entry has a key and two lists. */
size_t sl_json_bytes(const json_t *v)
{
    enum { VALUE = 32, ENTRY = 80 };
    size_t n = VALUE, i;
    const char *key;
    const json_t *of;

    if (json_is_string(v))
        return n + json_string_length(v) + 1;
    json_array_foreach(v, i, of) n += sizeof of + sl_json_bytes(of);
    json_object_foreach((json_t *)v, key, of) n +=
        ENTRY + strlen(key) + sl_json_bytes(of);
    return n;
}
