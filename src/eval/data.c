#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/json.h"
#include "src/base/lines.h"
#include "src/base/mem.h"
#include "src/eval/data.h"
#include "src/eval/wikitext.h"

/* One line being read. */
struct line {
    const char *file;
    size_t number;
    const json_t *o;
    struct sl_example *e;
    uint32_t vocab;
};

static int bad(const struct line *l, const char *field, const char *what,
               struct sl_error *err)
{
    return sl_fail(err, SL_ERR_CORRUPT, "%s:%zu: %s: %s", l->file, l->number,
                   field, what);
}

static int no_memory(const struct line *l, struct sl_error *err)
{
    return sl_fail(err, SL_ERR_NOMEM, "%s:%zu: out of memory", l->file,
                   l->number);
}

static void passage_fini(struct sl_passage *p)
{
    free(p->text);
    sl_ids_fini(&p->ids);
    *p = (struct sl_passage){0};
}

static void example_fini(struct sl_example *e)
{
    passage_fini(&e->inputs);
    for (uint32_t i = 0; i < e->n_choices; i++) {
        passage_fini(&e->choices[i]);
        if (e->goal_labels != NULL)
            free(e->goal_labels[i]);
    }
    free(e->choices);
    free(e->goal_labels);
    free(e->bias_type);
    free(e->pair_id);
    free(e->set_name);
    *e = (struct sl_example){0};
}

void sl_data_fini(struct sl_data *data)
{
    for (size_t i = 0; i < data->n; i++)
        example_fini(&data->v[i]);
    free(data->v);
    *data = (struct sl_data){0};
}

static struct sl_example *add(struct sl_data *data)
{
    if (!sl_grow((void **)&data->v, &data->room, data->n, sizeof *data->v))
        return NULL;
    data->v[data->n] = (struct sl_example){0};
    return &data->v[data->n++];
}

/* --- fields -------------------------------------------------------------- */

static int take_ids(struct line *l, struct sl_passage *p, const char *field,
                    const json_t *v, struct sl_error *err)
{
    for (size_t i = 0; i < json_array_size(v); i++) {
        const json_t *id = json_array_get(v, i);

        if (!json_is_integer(id) || json_integer_value(id) < 0 ||
            json_integer_value(id) > INT32_MAX)
            return bad(l, field, "not a list of token ids", err);
        if (json_integer_value(id) >= l->vocab)
            return sl_fail(err, SL_ERR_CORRUPT,
                           "%s:%zu: %s: token id %lld at place %zu is outside "
                           "the vocabulary of %u",
                           l->file, l->number, field,
                           (long long)json_integer_value(id), i, l->vocab);
        if (sl_ids_add(&p->ids, (int32_t)json_integer_value(id), err) != 0)
            return -1;
    }
    return 0;
}

static int take_text(struct line *l, struct sl_passage *p, const json_t *v,
                     struct sl_error *err)
{
    p->n_text = json_string_length(v);
    p->text = malloc(p->n_text + 1);
    if (p->text == NULL)
        return no_memory(l, err);
    memcpy(p->text, json_string_value(v), p->n_text + 1);
    return 0;
}

/* Ids, where there are any, go before the text: they are what the reference
 * was scored with, whatever a tokenizer makes of the text today. */
static int take_inputs(struct line *l, struct sl_error *err)
{
    const json_t *ids = json_object_get(l->o, "inputs");
    const json_t *text = json_object_get(l->o, "inputs_pretokenized");

    if (json_is_array(ids))
        return take_ids(l, &l->e->inputs, "inputs", ids, err);
    if (ids != NULL)
        return bad(l, "inputs", "not a list of token ids", err);
    if (!json_is_string(text))
        return bad(l, "inputs_pretokenized",
                   text ? "not a text" : "missing, and inputs too", err);
    return take_text(l, &l->e->inputs, text, err);
}

/* A list of texts, of lists of ids, or one text. */
static int take_list(struct line *l, const char *name, const char *texts_name,
                     struct sl_error *err)
{
    const json_t *v = json_object_get(l->o, name), *item;
    const char *field = v ? name : texts_name;
    struct sl_example *e = l->e;
    size_t n;

    if (v == NULL)
        v = json_object_get(l->o, texts_name);
    if (v == NULL)
        return bad(l, texts_name, "missing", err);
    if (!json_is_array(v) && !json_is_string(v))
        return bad(l, field, "not a list", err);
    n = json_is_array(v) ? json_array_size(v) : 1;
    e->choices = sl_zalloc_array(n + 1, sizeof *e->choices);
    if (e->choices == NULL)
        return no_memory(l, err);
    for (; e->n_choices < n; e->n_choices++) {
        struct sl_passage *p = &e->choices[e->n_choices];
        int rc;

        item = json_is_array(v) ? json_array_get(v, e->n_choices) : v;
        if (json_is_string(item) && field == texts_name)
            rc = take_text(l, p, item, err);
        else if (json_is_array(item) && field == name)
            rc = take_ids(l, p, field, item, err);
        else
            rc = bad(l, field,
                     field == name ? "not lists of token ids" : "not texts",
                     err);
        if (rc != 0) {
            e->n_choices++;
            return -1;
        }
    }
    return 0;
}

/* Names that some files have as numbers. */
static int copy_text(struct line *l, char **to, const char *field,
                     struct sl_error *err)
{
    const json_t *v = json_object_get(l->o, field);

    if (json_is_integer(v)) {
        char number[24];

        snprintf(number, sizeof number, "%lld",
                 (long long)json_integer_value(v));
        *to = strdup(number);
    } else if (json_is_string(v)) {
        *to = strdup(json_string_value(v));
    } else {
        return bad(l, field, v ? "neither a text nor a number" : "missing",
                   err);
    }
    return *to != NULL ? 0 : no_memory(l, err);
}

static int take_label(struct line *l, struct sl_error *err)
{
    const json_t *v = json_object_get(l->o, "label");
    char what[80];

    if (!json_is_integer(v))
        return bad(l, "label", v ? "not a whole number" : "missing", err);
    if (json_integer_value(v) < 0 ||
        json_integer_value(v) >= (json_int_t)l->e->n_choices) {
        snprintf(what, sizeof what, "%lld is none of the %u choices",
                 (long long)json_integer_value(v), l->e->n_choices);
        return bad(l, "label", what, err);
    }
    l->e->label = (uint32_t)json_integer_value(v);
    return 0;
}

static int take_goal_labels(struct line *l, struct sl_error *err)
{
    const json_t *v = json_object_get(l->o, "goal_label");
    struct sl_example *e = l->e;

    if (!json_is_array(v) || json_array_size(v) != e->n_choices)
        return bad(l, "goal_label", "not a list with one for each choice", err);
    e->goal_labels = sl_zalloc_array(e->n_choices, sizeof(char *));
    if (e->goal_labels == NULL)
        return no_memory(l, err);
    for (uint32_t i = 0; i < e->n_choices; i++) {
        const char *text = json_string_value(json_array_get(v, i));

        if (text == NULL)
            return bad(l, "goal_label", "not a list of texts", err);
        e->goal_labels[i] = strdup(text);
        if (e->goal_labels[i] == NULL)
            return no_memory(l, err);
    }
    return 0;
}

/* --- lines --------------------------------------------------------------- */

/* CrowS-Pairs has two sentences of a pair on two lines, StereoSet labels of
 * its choices in place of a right one. */
static int take_mul(struct line *l, enum sl_task_class class,
                    struct sl_error *err)
{
    const json_t *sent;

    if (take_inputs(l, err) != 0 ||
        take_list(l, "choices", "choices_pretokenized", err) != 0)
        return -1;
    if (l->e->n_choices == 0)
        return bad(l, "choices", "there are none", err);
    if (class == SL_CLASS_STEREOSET)
        return copy_text(l, &l->e->bias_type, "bias_type", err) != 0
                   ? -1
                   : take_goal_labels(l, err);
    if (class != SL_CLASS_CROWS_PAIRS)
        return take_label(l, err);
    sent = json_object_get(l->o, "sent_ID");
    if (!json_is_integer(sent))
        return bad(l, "sent_ID", "not a whole number", err);
    l->e->first_sentence = json_integer_value(sent) == 1;
    return copy_text(l, &l->e->bias_type, "bias_type", err) != 0
               ? -1
               : copy_text(l, &l->e->pair_id, "pair_ID", err);
}

/* Bits per byte are over the text's UTF-8 bytes, whatever ids it was made
 * into; so the text must be there, too. */
static int take_pile(struct line *l, struct sl_error *err)
{
    const json_t *ids = json_object_get(l->o, "text");
    const json_t *text = json_object_get(l->o, "text_pretokenized");
    struct line meta = *l;

    meta.o = json_object_get(l->o, "meta");
    if (!json_is_string(text))
        return bad(l, "text_pretokenized", text ? "not a text" : "missing",
                   err);
    l->e->n_bytes = json_string_length(text);
    if (ids != NULL && !json_is_array(ids))
        return bad(l, "text", "not a list of token ids", err);
    if ((ids != NULL ? take_ids(l, &l->e->inputs, "text", ids, err)
                     : take_text(l, &l->e->inputs, text, err)) != 0)
        return -1;
    return copy_text(&meta, &l->e->set_name, "pile_set_name", err);
}

/* LAMBADA as it is published: the last word of a text is asked for. */
static int take_cloze(struct line *l, const json_t *text, struct sl_error *err)
{
    const char *s = json_string_value(text), *word;
    size_t n = json_string_length(text);
    struct sl_example *e = l->e;

    sl_text_strip(&s, &n);
    for (word = s + n; word > s && strchr(" \t\n\r", word[-1]) == NULL;)
        word--;
    if (word == s)
        return bad(l, "text", "less than two words", err);
    e->choices = sl_zalloc_array(1, sizeof *e->choices);
    e->inputs.text = strndup(s, (size_t)(word - s));
    if (e->choices == NULL || e->inputs.text == NULL)
        return no_memory(l, err);
    e->n_choices = 1;
    e->inputs.n_text = (size_t)(word - s);
    while (strchr(" \t\n\r", s[e->inputs.n_text - 1]) != NULL)
        e->inputs.n_text--;
    e->inputs.text[e->inputs.n_text] = '\0';
    if (asprintf(&e->choices[0].text, " %.*s", (int)(s + n - word), word) < 0) {
        e->choices[0].text = NULL;
        return no_memory(l, err);
    }
    e->choices[0].n_text = strlen(e->choices[0].text);
    return 0;
}

/* LAMBADA comes in its own form and as it was published: then the last word
 * is the target. */
static int take_line(struct line *l, const struct sl_task *task,
                     struct sl_error *err)
{
    if (task->type == SL_TASK_LM)
        return take_pile(l, err);
    if (task->type == SL_TASK_MUL)
        return take_mul(l, task->class, err);
    if (task->class == SL_CLASS_LAMBADA &&
        json_is_string(json_object_get(l->o, "text")))
        return take_cloze(l, json_object_get(l->o, "text"), err);
    if (take_inputs(l, err) != 0)
        return -1;
    return take_list(l, "targets", "targets_pretokenized", err);
}

static bool is_blank(const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (text[i] != ' ' && text[i] != '\t' && text[i] != '\r')
            return false;
    }
    return true;
}

/* Every line that is not empty. take: sets the example from it. */
static int read_lines(struct sl_data *data, const char *text, size_t n,
                      uint32_t vocab, const char *shown,
                      int (*take)(struct line *l, const struct sl_task *task,
                                  struct sl_error *err),
                      const struct sl_task *task, struct sl_error *err)
{
    struct line l = {.file = shown, .vocab = vocab};
    int rc = 0;

    for (size_t at = 0; rc == 0 && at < n;) {
        const char *end = memchr(text + at, '\n', n - at);
        size_t len = end ? (size_t)(end - (text + at)) : n - at;
        char name[300];
        json_t *o = NULL;

        l.number++;
        if (!is_blank(text + at, len)) {
            snprintf(name, sizeof name, "%.260s, line %zu", shown, l.number);
            rc = sl_json_parse(&o, text + at, len, name, err);
            l.o = o;
            l.e = rc == 0 ? add(data) : NULL;
            if (rc == 0 && l.e == NULL)
                rc = no_memory(&l, err);
            else if (rc == 0 && !json_is_object(o))
                rc = sl_fail(err, SL_ERR_CORRUPT,
                             "%s:%zu: %s, where an object is expected", shown,
                             l.number, sl_json_kind(o));
            if (rc == 0) {
                l.e->line = l.number;
                rc = take(&l, task, err);
            }
            json_decref(o);
        }
        at += len + 1;
    }
    return rc;
}

/* Parts of a text between single blanks, as Python's split(" ") has them. */
static uint64_t count_words(const char *text, size_t n)
{
    uint64_t words = 1;

    sl_text_strip(&text, &n);
    for (size_t i = 0; i < n; i++)
        words += text[i] == ' ';
    return words;
}

/* A file that is one text: perplexity's unit, of which a line has no
 * meaning. */
static int read_raw(struct sl_data *data, char *text, size_t n,
                    struct sl_error *err)
{
    struct sl_example *e = add(data);

    if (e == NULL) {
        free(text);
        return sl_fail(err, SL_ERR_NOMEM, "out of memory for an example");
    }
    e->line = 1;
    e->inputs.text = text;
    e->inputs.n_text = n;
    e->n_bytes = n;
    e->n_words = count_words(text, n);
    return 0;
}

/* A document a line; one of blanks counts as a word, as Python's split has
 * it. */
static int read_documents(struct sl_data *data, const char *text, size_t n,
                          struct sl_error *err)
{
    size_t line = 0;

    for (size_t at = 0, len; at < n; at += len + 1) {
        const char *begin = text + at, *end = memchr(begin, '\n', n - at);
        size_t n_line = len = end ? (size_t)(end - begin) : n - at;
        char *copy;

        sl_text_strip(&begin, &n_line);
        copy = calloc(1, n_line + 1);
        if (copy == NULL)
            return sl_fail(err, SL_ERR_NOMEM, "out of memory for a document");
        memcpy(copy, begin, n_line);
        if (read_raw(data, copy, n_line, err) != 0)
            return -1;
        data->v[data->n - 1].line = ++line;
    }
    return 0;
}

/* As it was before it was cut into tokens; counted as it is. */
static int join_wikitext(struct sl_example *e, struct sl_error *err)
{
    struct sl_str joined = {0};

    if (sl_wikitext_join(&joined, e->inputs.text, e->inputs.n_text, err)) {
        sl_str_fini(&joined);
        return -1;
    }
    free(e->inputs.text);
    e->inputs.text = joined.s; /* moved */
    e->inputs.n_text = joined.n;
    return 0;
}

static int read_texts(struct sl_data *data, char *text, size_t n,
                      bool documents, const char *path, struct sl_error *err)
{
    bool wikitext = documents && sl_wikitext_is_name(path);
    int rc;

    if (documents && !wikitext) {
        rc = read_documents(data, text, n, err);
        free(text);
        return rc;
    }
    rc = read_raw(data, text, n, err);
    return rc == 0 && wikitext ? join_wikitext(&data->v[0], err) : rc;
}

int sl_data_read(struct sl_data *data, const struct sl_task *task,
                 bool documents, uint32_t vocab, const char *path,
                 const char *shown, struct sl_error *err)
{
    char *text;
    size_t n;
    int rc;

    if (sl_file_read(&text, &n, path, err) != 0)
        return -1;
    if (task->type == SL_TASK_LM && task->class != SL_CLASS_PILE)
        return read_texts(data, text, n, documents, path, err);
    rc = read_lines(data, text, n, vocab, shown, take_line, task, err);
    free(text);
    return rc;
}

/* --- --tasks-json -------------------------------------------------------- */

/* By its number, or in the words of a choice. */
static int find_answer(struct line *l, const json_t *v, struct sl_error *err)
{
    if (json_is_integer(v) && json_integer_value(v) >= 0 &&
        json_integer_value(v) < (json_int_t)l->e->n_choices) {
        l->e->label = (uint32_t)json_integer_value(v);
        return 0;
    }
    for (uint32_t i = 0; json_is_string(v) && i < l->e->n_choices; i++) {
        if (strcmp(l->e->choices[i].text, json_string_value(v)) == 0) {
            l->e->label = i;
            return 0;
        }
    }
    return bad(l, "answer", v ? "none of the choices" : "missing", err);
}

static int take_plain(struct line *l, const struct sl_task *task,
                      struct sl_error *err)
{
    const json_t *context = json_object_get(l->o, "context");

    (void)task;
    if (!json_is_string(context))
        return bad(l, "context", context ? "not a text" : "missing", err);
    if (take_text(l, &l->e->inputs, context, err) != 0 ||
        take_list(l, "", "choices", err) != 0)
        return -1;
    if (l->e->n_choices == 0)
        return bad(l, "choices", "there are none", err);
    return find_answer(l, json_object_get(l->o, "answer"), err);
}

/* A list of objects: each counts as a line. */
static int read_list(struct sl_data *data, const json_t *list,
                     const char *shown, struct sl_error *err)
{
    struct line l = {.file = shown};

    for (size_t i = 0; i < json_array_size(list); i++) {
        l.number = i + 1;
        l.o = json_array_get(list, i);
        l.e = add(data);
        if (l.e == NULL)
            return no_memory(&l, err);
        l.e->line = l.number;
        if (!json_is_object(l.o))
            return bad(&l, "item", "not an object", err);
        if (take_plain(&l, NULL, err) != 0)
            return -1;
    }
    return 0;
}

int sl_data_read_plain(struct sl_data *data, const char *path,
                       struct sl_error *err)
{
    const char *shown = sl_file_shown(path);
    json_t *root = NULL;
    char *text;
    size_t n, first = 0;
    int rc;

    if (sl_file_read(&text, &n, path, err) != 0)
        return -1;
    while (first < n && strchr(" \t\r\n", text[first]) != NULL)
        first++;
    if (first < n && text[first] == '[') {
        rc = sl_json_parse(&root, text, n, shown, err);
        if (rc == 0)
            rc = read_list(data, root, shown, err);
        json_decref(root);
    } else {
        rc = read_lines(data, text, n, 0, shown, take_plain, NULL, err);
    }
    free(text);
    return rc;
}
