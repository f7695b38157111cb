#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/base/lines.h"
#include "src/base/newfile.h"
#include "src/base/outfile.h"
#include "src/base/utf8.h"
#include "src/text/chat_history.h"

#define MOST_BYTES (64u << 20) /* of a file: no model reads so much */

static void free_message(struct sl_chat_message *m)
{
    free((char *)m->content);
    free((char *)m->reasoning);
    json_decref((json_t *)m->calls);
    json_decref((json_t *)m->others);
}

void sl_chat_history_cut(struct sl_chat_history *h, size_t n)
{
    while (h->n > n)
        free_message(&h->v[--h->n]);
}

void sl_chat_history_fini(struct sl_chat_history *h)
{
    sl_chat_history_cut(h, 0);
    free(h->v);
    json_decref(h->frame);
    *h = (struct sl_chat_history){0};
}

static char *copy_utf8(const char *text, struct sl_error *err)
{
    struct sl_str s = {0};

    if (sl_str_add(&s, "", err) != 0 ||
        sl_utf8_repair(&s, text, strlen(text), SL_UTF8_BYTES, err) != 0) {
        sl_str_fini(&s);
        return NULL;
    }
    return s.s;
}

static int make_room(struct sl_chat_history *h, struct sl_error *err)
{
    struct sl_chat_message *grown;

    if (h->n < h->room)
        return 0;
    grown = reallocarray(h->v, h->room * 2 + 16, sizeof *h->v);
    if (grown == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "out of memory for %zu messages",
                       h->n + 1);
    h->v = grown;
    h->room = h->room * 2 + 16;
    return 0;
}

int sl_chat_history_add(struct sl_chat_history *h, enum sl_chat_role role,
                        const char *content, const char *reasoning,
                        struct sl_error *err)
{
    struct sl_chat_message m = {.role = role};

    if (make_room(h, err) != 0)
        return -1;
    m.content = copy_utf8(content, err);
    if (m.content != NULL && reasoning != NULL && *reasoning != '\0')
        m.reasoning = copy_utf8(reasoning, err);
    if (m.content == NULL ||
        (reasoning != NULL && *reasoning != '\0' && m.reasoning == NULL)) {
        free_message(&m);
        return -1;
    }
    h->v[h->n++] = m;
    return 0;
}

int sl_chat_history_set_system(struct sl_chat_history *h, const char *text,
                               struct sl_error *err)
{
    bool has = h->n > 0 && h->v[0].role == SL_CHAT_SYSTEM;
    struct sl_chat_message m;

    if (*text == '\0') {
        if (!has)
            return 0;
        free_message(&h->v[0]);
        memmove(h->v, h->v + 1, --h->n * sizeof *h->v);
        return 0;
    }
    if (sl_chat_history_add(h, SL_CHAT_SYSTEM, text, NULL, err) != 0)
        return -1;
    m = h->v[--h->n];
    if (has)
        free_message(&h->v[0]);
    else
        memmove(h->v + 1, h->v, h->n++ * sizeof *h->v);
    h->v[0] = m;
    return 0;
}

size_t sl_chat_history_first_turn(const struct sl_chat_history *h)
{
    size_t i = 0;

    while (i < h->n && h->v[i].role == SL_CHAT_SYSTEM)
        i++;
    return i;
}

size_t sl_chat_history_next_turn(const struct sl_chat_history *h, size_t i)
{
    for (i++; i < h->n; i++) {
        if (h->v[i].role == SL_CHAT_USER)
            return i;
    }
    return h->n;
}

void sl_chat_history_clear(struct sl_chat_history *h)
{
    sl_chat_history_cut(h, sl_chat_history_first_turn(h));
}

/* --- JSON -----------------------------------------------------------------
 */

static const struct {
    const char *name;
    enum sl_chat_role role;
} roles[] = {
    {"system", SL_CHAT_SYSTEM},       {"user", SL_CHAT_USER},
    {"assistant", SL_CHAT_ASSISTANT}, {"tool", SL_CHAT_TOOL},
    {"developer", SL_CHAT_SYSTEM},    {"observation", SL_CHAT_TOOL},
};

static int parse_role(enum sl_chat_role *role, const json_t *o,
                      struct sl_error *err)
{
    const char *name = json_string_value(json_object_get(o, "role"));

    for (size_t i = 0; name != NULL && i < sizeof roles / sizeof *roles; i++) {
        if (strcmp(roles[i].name, name) == 0) {
            *role = roles[i].role;
            return 0;
        }
    }
    if (name == NULL)
        return sl_fail(err, SL_ERR_USAGE, "has no \"role\"");
    return sl_fail(err, SL_ERR_USAGE,
                   "has the role '%.40s': system, user, assistant and tool are "
                   "known",
                   name);
}

/* Content is a text, a list of texts ({"type": "text", "text": "..."}), or
 * null where tools are called. */
static int parse_content(struct sl_str *text, const json_t *content,
                         bool may_lack, struct sl_error *err)
{
    if (json_is_string(content))
        return sl_str_add(text, json_string_value(content), err);
    if ((content == NULL || json_is_null(content)) && may_lack)
        return 0;
    if (!json_is_array(content))
        return sl_fail(err, SL_ERR_USAGE, "has no text as \"content\"");
    for (size_t i = 0; i < json_array_size(content); i++) {
        const json_t *part = json_array_get(content, i);
        const char *type = json_string_value(json_object_get(part, "type"));
        const char *s = json_string_value(json_object_get(part, "text"));

        if (type == NULL || strcmp(type, "text") != 0 || s == NULL)
            return sl_fail(err, SL_ERR_USAGE,
                           "has a part of its content that is no text");
        if (sl_str_add(text, s, err) != 0)
            return -1;
    }
    return 0;
}

/* What other programs wrote into a message is kept, and written again: the
 * file is theirs, too. */
static int keep_others(struct sl_chat_message *m, const json_t *o,
                       struct sl_error *err)
{
    json_t *calls = json_object_get(o, "tool_calls");
    json_t *others = json_copy((json_t *)o);
    static const char *const taken[] = {"role", "content", "reasoning_content",
                                        "tool_calls"};

    if (others == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "out of memory");
    for (size_t i = 0; i < sizeof taken / sizeof *taken; i++)
        json_object_del(others, taken[i]);
    m->others = others;
    if (json_array_size(calls) > 0)
        m->calls = json_incref(calls);
    return 0;
}

static int parse_message(struct sl_chat_history *h, const json_t *o,
                         struct sl_error *err)
{
    const json_t *reasoning = json_object_get(o, "reasoning_content");
    const json_t *calls = json_object_get(o, "tool_calls");
    struct sl_str content = {0};
    enum sl_chat_role role = SL_CHAT_USER;
    int rc;

    if (!json_is_object(o))
        return sl_fail(err, SL_ERR_USAGE, "is no object");
    if (parse_role(&role, o, err) != 0)
        return -1;
    if (calls != NULL && !json_is_null(calls) && !json_is_array(calls))
        return sl_fail(err, SL_ERR_USAGE, "has no list as \"tool_calls\"");
    if (reasoning != NULL && !json_is_null(reasoning) &&
        !json_is_string(reasoning))
        return sl_fail(err, SL_ERR_USAGE,
                       "has no text as \"reasoning_content\"");
    rc = parse_content(&content, json_object_get(o, "content"),
                       json_array_size(calls) > 0, err);
    if (rc == 0)
        rc = sl_chat_history_add(h, role, sl_str_text(&content),
                                 json_string_value(reasoning), err);
    if (rc == 0)
        rc = keep_others(&h->v[h->n - 1], o, err);
    sl_str_fini(&content);
    return rc;
}

/* A bare list, or an object that has it as "messages" beside what else there
 * may be (frame), which is written again. */
static int parse_list(struct sl_chat_history *h, const json_t *root,
                      struct sl_error *err)
{
    const json_t *list = root;

    if (json_is_object(root)) {
        list = json_object_get(root, "messages");
        h->frame = json_copy((json_t *)root);
        if (h->frame == NULL)
            return sl_fail(err, SL_ERR_NOMEM, "out of memory");
    }
    if (!json_is_array(list))
        return sl_fail(err, SL_ERR_USAGE,
                       "holds no conversation: a list of messages, or an "
                       "object with one as \"messages\", is wanted");
    for (size_t i = 0; i < json_array_size(list); i++) {
        if (parse_message(h, json_array_get(list, i), err) != 0) {
            sl_error_prefix(err, "message %zu ", i + 1);
            return -1;
        }
    }
    return 0;
}

int sl_chat_history_take(struct sl_chat_history *h, const json_t *root,
                         struct sl_error *err)
{
    struct sl_chat_history parsed = {0};

    if (parse_list(&parsed, root, err) != 0) {
        sl_chat_history_fini(&parsed);
        return -1;
    }
    sl_chat_history_fini(h);
    *h = parsed;
    return 0;
}

int sl_chat_history_parse(struct sl_chat_history *h, const char *text, size_t n,
                          struct sl_error *err)
{
    json_error_t why;
    json_t *root = json_loadb(text, n, JSON_REJECT_DUPLICATES, &why);
    int rc;

    if (root == NULL)
        return sl_fail(err, SL_ERR_USAGE, "is no JSON: line %d: %s", why.line,
                       why.text);
    rc = sl_chat_history_take(h, root, err);
    json_decref(root);
    return rc;
}

/* --- files ----------------------------------------------------------------
 */

int sl_chat_history_read(struct sl_chat_history *h, const char *path,
                         struct sl_error *err)
{
    struct sl_lines in = {.stop_fd = -1, .most = MOST_BYTES};
    char *text;
    size_t n;
    int rc;

    in.fd = open(path, O_RDONLY | O_CLOEXEC);
    if (in.fd < 0)
        return sl_fail_os(err, errno, "%s: cannot open the conversation", path);
    rc = sl_lines_rest(&in, &text, &n, err);
    if (rc == 0 && n > MOST_BYTES)
        rc = sl_fail(err, SL_ERR_USAGE, "is longer than %u bytes", MOST_BYTES);
    if (rc == 0)
        rc = sl_chat_history_parse(h, text, n, err);
    if (rc != 0)
        sl_error_prefix(err, err->code == SL_ERR_USAGE ? "%s " : "%s: ", path);
    sl_lines_fini(&in);
    close(in.fd);
    return rc;
}

static json_t *message_json(const struct sl_chat_message *m)
{
    json_t *o = json_object();

    json_object_set_new(o, "role", json_string(roles[m->role].name));
    if (m->reasoning != NULL)
        json_object_set_new(o, "reasoning_content", json_string(m->reasoning));
    json_object_set_new(o, "content", json_string(m->content));
    if (m->calls != NULL)
        json_object_set(o, "tool_calls", (json_t *)m->calls);
    if (m->others != NULL)
        json_object_update(o, (json_t *)m->others);
    return o;
}

static char *dump(const struct sl_chat_history *h)
{
    json_t *list = json_array(), *root = list;
    char *text = NULL;
    bool whole = list != NULL;

    for (size_t i = 0; i < h->n && whole; i++)
        whole = json_array_append_new(list, message_json(&h->v[i])) == 0;
    if (h->frame != NULL && whole) {
        root = json_copy(h->frame);
        whole = json_object_set(root, "messages", list) == 0;
        json_decref(list);
    }
    if (whole)
        text = json_dumps(root, JSON_INDENT(2));
    json_decref(root);
    return text;
}

/* What is there and is no conversation is not ours to replace. */
static int check_old(const char *path, struct sl_error *err)
{
    struct sl_chat_history old = {0};
    struct stat st;
    int rc;

    if (stat(path, &st) != 0)
        return 0;
    if (sl_newfile_check_kind(path, err) != 0)
        return -1;
    if (st.st_size == 0)
        return 0;
    rc = sl_chat_history_read(&old, path, err);
    sl_chat_history_fini(&old);
    if (rc != 0 && err->code == SL_ERR_USAGE)
        sl_error_prefix(err, "it is left as it is: ");
    return rc;
}

int sl_chat_history_write(const struct sl_chat_history *h, const char *path,
                          struct sl_error *err)
{
    struct sl_str all = {0};
    char *text;
    int rc;

    if (check_old(path, err) != 0)
        return -1;
    text = dump(h);
    if (text == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "%s: out of memory to write it",
                       path);
    rc = sl_str_add(&all, text, err);
    free(text);
    if (rc == 0)
        rc = sl_str_add(&all, "\n", err);
    if (rc == 0)
        rc = sl_outfile_replace(path, all.s, all.n, err);
    sl_str_fini(&all);
    return rc;
}
