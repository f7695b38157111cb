#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/text/chat.h"

#define MAX_DEPTH 64u

/* --- JSON as Python writes it ----------------------------------------------
 */

struct writer {
    struct sl_chat_pieces *p;
    unsigned indent, depth;
    struct sl_error *err;
};

static int put(struct writer *w, const char *text)
{
    return sl_chat_add_text(w->p, text, strlen(text), w->err);
}

static int put_newline(struct writer *w)
{
    if (w->indent == 0)
        return 0;
    if (put(w, "\n") != 0)
        return -1;
    for (unsigned i = 0; i < w->indent * w->depth; i++) {
        if (put(w, " ") != 0)
            return -1;
    }
    return 0;
}

/* Strings and whole numbers are the same in both. */
static int put_plain(struct writer *w, const json_t *v)
{
    char *text = json_dumps(v, JSON_ENCODE_ANY);
    int rc;

    if (text == NULL)
        return sl_fail(w->err, SL_ERR_NOMEM, "out of memory for JSON");
    rc = put(w, text);
    free(text);
    return rc;
}

/* The fewest digits that are this number, a point among them. */
static int put_real(struct writer *w, double v)
{
    char text[40];

    for (int digits = 1; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, v);
        if (strtod(text, NULL) == v)
            break;
    }
    if (strpbrk(text, ".en") == NULL)
        strcat(text, ".0");
    return put(w, text);
}

static int put_value(struct writer *w, const json_t *v);

/* What separates the i-th member from the one before. */
static int put_between(struct writer *w, size_t i)
{
    if (i > 0 && put(w, w->indent > 0 ? "," : ", ") != 0)
        return -1;
    return put_newline(w);
}

static int put_members(struct writer *w, const json_t *v)
{
    const char *key;
    json_t *member;
    size_t i = 0;

    json_object_foreach((json_t *)v, key, member)
    {
        json_t *name = json_string(key);
        int rc = name == NULL
                     ? sl_fail(w->err, SL_ERR_NOMEM, "out of memory for JSON")
                     : 0;

        if (rc == 0)
            rc = put_between(w, i++);
        if (rc == 0)
            rc = put_plain(w, name);
        json_decref(name);
        if (rc != 0 || put(w, ": ") != 0 || put_value(w, member) != 0)
            return -1;
    }
    return 0;
}

static int put_list(struct writer *w, const json_t *v)
{
    for (size_t i = 0; i < json_array_size(v); i++) {
        if (put_between(w, i) != 0 || put_value(w, json_array_get(v, i)) != 0)
            return -1;
    }
    return 0;
}

/* Deeper than any schema is: what recurses here is a client's. */
static int put_nested(struct writer *w, const json_t *v)
{
    bool list = json_is_array(v);
    int rc;

    if ((list ? json_array_size(v) : json_object_size(v)) == 0)
        return put(w, list ? "[]" : "{}");
    if (++w->depth > MAX_DEPTH)
        return sl_fail(w->err, SL_ERR_USAGE,
                       "tools are nested deeper than %u levels", MAX_DEPTH);
    rc = put(w, list ? "[" : "{");
    if (rc == 0)
        rc = list ? put_list(w, v) : put_members(w, v);
    w->depth--;
    if (rc != 0 || put_newline(w) != 0)
        return -1;
    return put(w, list ? "]" : "}");
}

static int put_value(struct writer *w, const json_t *v)
{
    if (json_is_real(v))
        return put_real(w, json_real_value(v));
    if (json_is_array(v) || json_is_object(v))
        return put_nested(w, v);
    return put_plain(w, v);
}

int sl_chat_add_json(struct sl_chat_pieces *p, const json_t *json,
                     unsigned indent, struct sl_error *err)
{
    struct writer w = {.p = p, .indent = indent, .err = err};

    return put_value(&w, json);
}

/* --- tools ----------------------------------------------------------------
 */

const json_t *sl_chat_function(const json_t *tool)
{
    const json_t *function = json_object_get(tool, "function");

    return function != NULL ? function : tool;
}

static int check_tools(const json_t *tools, struct sl_error *err)
{
    for (size_t i = 0; i < json_array_size(tools); i++) {
        const json_t *f = sl_chat_function(json_array_get(tools, i));

        if (!json_is_string(json_object_get(f, "name")))
            return sl_fail(err, SL_ERR_USAGE,
                           "tool %zu is no function with a name", i + 1);
    }
    return 0;
}

struct teller {
    struct sl_chat_pieces *p;
    const struct sl_chat_template *t;
    const struct sl_chat_vocab *vocab;
};

static int marked(const struct teller *w, const char *text,
                  struct sl_error *err)
{
    return sl_chat_add_marked(w->p, text, 0, w->vocab, err);
}

static int text(const struct teller *w, const char *s, struct sl_error *err)
{
    return sl_chat_add_text(w->p, s, strlen(s), err);
}

/* ChatGLM3: the functions as a list behind the system text
 * (tokenization_chatglm.py, build_chat_input). */
static int tell_chatglm3(const struct teller *w, const json_t *tools,
                         const char *system, struct sl_error *err)
{
    json_t *list = json_array();
    int rc = 0;

    for (size_t i = 0; i < json_array_size(tools); i++)
        json_array_append(list,
                          (json_t *)sl_chat_function(json_array_get(tools, i)));
    if (system == NULL)
        system = "Answer the following questions as best as you can. You have "
                 "access to the following tools:";
    if (marked(w, w->t->open[SL_CHAT_SYSTEM], err) != 0 ||
        text(w, system, err) != 0 || text(w, "\n", err) != 0 ||
        sl_chat_add_json(w->p, list, 4, err) != 0)
        rc = -1;
    json_decref(list);
    return rc;
}

/* GLM-4: a system message of their own, one section a function
 * (tokenization_chatglm.py of glm-4-9b-chat; chat_template of GLM-4-0414 and
 * GLM-Z1, which leave fewer lines empty). */
static int tell_glm4(const struct teller *w, const json_t *tools,
                     struct sl_error *err)
{
    static const struct {
        const char *name, *head, *section;
    } forms[] = {
        {"glm-4",
         "你是一个名为 GLM-4 的人工智能助手。你是基于智谱AI训练的语言模型 "
         "GLM-4 模型开发的，你的任务是针对用户的问题和要求提供适当的答复和支"
         "持。\n\n# 可用工具",
         "\n\n## "},
        {"glm-4-0414", "# 可用工具\n", "\n## "},
        {"glm-z1",
         "你是一个名为 ChatGLM 的人工智能助手。你是基于智谱 AI 公司训练的语言"
         "模型 GLM-4 模型开发的，你的任务是针对用户的问题和要求提供适当的答复"
         "和支持。\n\n# 可用工具",
         "\n## "},
    };
    size_t form = 0;

    while (form + 1 < sizeof forms / sizeof *forms &&
           strcmp(forms[form].name, w->t->name) != 0)
        form++;
    if (marked(w, w->t->open[SL_CHAT_SYSTEM], err) != 0 ||
        text(w, forms[form].head, err) != 0)
        return -1;
    for (size_t i = 0; i < json_array_size(tools); i++) {
        const json_t *f = sl_chat_function(json_array_get(tools, i));

        if (text(w, forms[form].section, err) != 0 ||
            text(w, json_string_value(json_object_get(f, "name")), err) != 0 ||
            text(w, "\n\n", err) != 0 ||
            sl_chat_add_json(w->p, f, 4, err) != 0 ||
            text(w, "\n在调用上述函数时，请使用 Json 格式表示调用的参数。",
                 err) != 0)
            return -1;
    }
    return marked(w, w->t->close[SL_CHAT_SYSTEM], err);
}

/* Qwen and GLM-4.5: one tool a line between <tools> and </tools>, and how to
 * call one. */
static int tell_lines(const struct teller *w, const json_t *tools,
                      const char *system, struct sl_error *err)
{
    static const char begin[] =
        "# Tools\n\nYou may call one or more functions to assist with the user "
        "query.\n\nYou are provided with function signatures within "
        "<tools></tools> XML tags:\n<tools>\n";
    static const char *const ends[] = {
        [SL_TOOLS_QWEN] =
            "</tools>\n\nFor each function call, return a json object with "
            "function name and arguments within "
            "`?<tool_call>``?</tool_call>` XML tags:\n`?<tool_call>`\n"
            "{\"name\": <function-name>, \"arguments\": <args-json-object>}\n"
            "`?</tool_call>`",
        [SL_TOOLS_GLM45] =
            "</tools>\n\nFor each function call, output the function name and "
            "arguments within the following XML format:\n"
            "`?<tool_call>`{function-name}\n"
            "`?<arg_key>`{arg-key-1}`?</arg_key>`\n"
            "`?<arg_value>`{arg-value-1}`?</arg_value>`\n"
            "`?<arg_key>`{arg-key-2}`?</arg_key>`\n"
            "`?<arg_value>`{arg-value-2}`?</arg_value>`\n"
            "...\n`?</tool_call>`",
        [SL_TOOLS_GLM47] =
            "</tools>\n\nFor each function call, output the function name and "
            "arguments within the following XML format:\n"
            "`?<tool_call>`{function-name}"
            "`?<arg_key>`{arg-key-1}`?</arg_key>`"
            "`?<arg_value>`{arg-value-1}`?</arg_value>`"
            "`?<arg_key>`{arg-key-2}`?</arg_key>`"
            "`?<arg_value>`{arg-value-2}`?</arg_value>`"
            "...`?</tool_call>`",
    };
    const char *open = w->t->tools == SL_TOOLS_GLM47
                           ? "`<|system|>`\n"
                           : w->t->open[SL_CHAT_SYSTEM];

    if (marked(w, open, err) != 0)
        return -1;
    if (w->t->tools == SL_TOOLS_QWEN && system != NULL &&
        (text(w, system, err) != 0 || text(w, "\n\n", err) != 0))
        return -1;
    if (text(w, begin, err) != 0)
        return -1;
    for (size_t i = 0; i < json_array_size(tools); i++) {
        if (sl_chat_add_json(w->p, json_array_get(tools, i), 0, err) != 0 ||
            text(w, "\n", err) != 0)
            return -1;
    }
    if (marked(w, ends[w->t->tools], err) != 0)
        return -1;
    return marked(w, w->t->close[SL_CHAT_SYSTEM], err);
}

int sl_chat_add_tools(struct sl_chat_pieces *p,
                      const struct sl_chat_template *tmpl, const json_t *tools,
                      const char *system, const struct sl_chat_vocab *vocab,
                      struct sl_error *err)
{
    struct teller w = {p, tmpl, vocab};

    if (check_tools(tools, err) != 0)
        return -1;
    switch (tmpl->tools) {
    case SL_TOOLS_CHATGLM3:
        return tell_chatglm3(&w, tools, system, err);
    case SL_TOOLS_GLM4:
        return tell_glm4(&w, tools, err);
    default:
        return tell_lines(&w, tools, system, err);
    }
}

/* --- calls ----------------------------------------------------------------
 */

/* The arguments of a call are an object, or JSON as text (OpenAI). */
static int tell_arguments(const struct teller *w, const json_t *arguments,
                          struct sl_error *err)
{
    if (json_is_string(arguments))
        return text(w, json_string_value(arguments), err);
    return sl_chat_add_json(w->p, arguments, 0, err);
}

/* A string as Python has it. */
static int quoted(const struct teller *w, const char *s, struct sl_error *err)
{
    int rc = text(w, "'", err);

    for (; rc == 0 && *s != '\0'; s++) {
        if (*s == '\'' || *s == '\\')
            rc = text(w, "\\", err);
        if (rc == 0)
            rc = *s == '\n' ? text(w, "\\n", err)
                            : sl_chat_add_text(w->p, s, 1, err);
    }
    return rc == 0 ? text(w, "'", err) : -1;
}

/* tool_call(city='Beijing', days=2), as ChatGLM3 writes Python. */
static int call_chatglm3(const struct teller *w, const char *name,
                         const json_t *arguments, struct sl_error *err)
{
    const char *key, *before = "";
    json_t *value;

    if (marked(w, "`<|assistant|>`", err) != 0 || text(w, name, err) != 0 ||
        text(w, "\n", err) != 0 || marked(w, "``", err) != 0 ||
        text(w, "```python\ntool_call(", err) != 0)
        return -1;
    json_object_foreach((json_t *)arguments, key, value)
    {
        if (text(w, before, err) != 0 || text(w, key, err) != 0 ||
            text(w, "=", err) != 0 ||
            (json_is_string(value)
                 ? quoted(w, json_string_value(value), err)
                 : sl_chat_add_json(w->p, value, 0, err)) != 0)
            return -1;
        before = ", ";
    }
    return text(w, ")\n```", err);
}

static int call_qwen(const struct teller *w, const char *name,
                     const json_t *arguments, struct sl_error *err)
{
    if (marked(w, "`?<tool_call>`\n{\"name\": \"", err) != 0 ||
        text(w, name, err) != 0 || text(w, "\", \"arguments\": ", err) != 0 ||
        tell_arguments(w, arguments, err) != 0)
        return -1;
    return marked(w, "}\n`?</tool_call>`", err);
}

/* Arguments as pairs of marks around key and value, each value as JSON
 * unless it is a text. */
static int call_glm45(const struct teller *w, const char *name,
                      const json_t *arguments, struct sl_error *err)
{
    const char *line = w->t->tools == SL_TOOLS_GLM45 ? "\n" : "", *key;
    json_t *value;

    if (text(w, line, err) != 0 || marked(w, "`?<tool_call>`", err) != 0 ||
        text(w, name, err) != 0 || text(w, line, err) != 0)
        return -1;
    json_object_foreach((json_t *)arguments, key, value)
    {
        if (marked(w, "`?<arg_key>`", err) != 0 || text(w, key, err) != 0 ||
            marked(w, "`?</arg_key>`", err) != 0 || text(w, line, err) != 0 ||
            marked(w, "`?<arg_value>`", err) != 0 ||
            tell_arguments(w, value, err) != 0 ||
            marked(w, "`?</arg_value>`", err) != 0 || text(w, line, err) != 0)
            return -1;
    }
    return marked(w, "`?</tool_call>`", err);
}

static int add_call(const struct teller *w, const char *name,
                    const json_t *arguments, bool first, struct sl_error *err)
{
    switch (w->t->tools) {
    case SL_TOOLS_CHATGLM3:
        return call_chatglm3(w, name, arguments, err);
    case SL_TOOLS_GLM4:
        if (marked(w, "`<|assistant|>`", err) != 0 || text(w, name, err) != 0 ||
            text(w, "\n", err) != 0)
            return -1;
        return tell_arguments(w, arguments, err);
    case SL_TOOLS_QWEN:
        if (!first && text(w, "\n", err) != 0)
            return -1;
        return call_qwen(w, name, arguments, err);
    default:
        return call_glm45(w, name, arguments, err);
    }
}

int sl_chat_add_calls(struct sl_chat_pieces *p,
                      const struct sl_chat_template *tmpl, const json_t *calls,
                      bool has_content, const struct sl_chat_vocab *vocab,
                      struct sl_error *err)
{
    struct teller w = {p, tmpl, vocab};
    bool named = tmpl->tools != SL_TOOLS_QWEN && tmpl->tools != SL_TOOLS_GLM4;

    if (tmpl->tools == SL_TOOLS_NONE)
        return sl_fail(err, SL_ERR_UNSUPPORTED,
                       "the template %s of this model has no place for calls "
                       "of tools",
                       tmpl->name);
    for (size_t i = 0; i < json_array_size(calls); i++) {
        const json_t *f = sl_chat_function(json_array_get(calls, i));
        const char *name = json_string_value(json_object_get(f, "name"));
        json_t *arguments = json_object_get(f, "arguments"), *parsed = NULL;
        int rc;

        if (name == NULL || arguments == NULL)
            return sl_fail(err, SL_ERR_USAGE,
                           "call %zu of a message has no name or no arguments",
                           i + 1);
        /* OpenAI's are JSON as text; some models want them one by one. */
        if (named && json_is_string(arguments))
            arguments = parsed =
                json_loads(json_string_value(arguments), 0, NULL);
        if (named && !json_is_object(arguments))
            rc = sl_fail(err, SL_ERR_USAGE,
                         "the arguments of the call of %s are no object", name);
        else
            rc = add_call(&w, name, arguments, i == 0 && !has_content, err);
        json_decref(parsed);
        if (rc != 0)
            return -1;
    }
    return 0;
}
