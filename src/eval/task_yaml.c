#include "config.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <yaml.h>

#include "src/eval/files.h"
#include "src/eval/task.h"

/* A task file being read. */
struct reader {
    yaml_document_t doc;
    const char *file;
    struct sl_task *task;
    const struct sl_log *log;
    const char *key; /* whose value is being read; NULL: none */
};

static int bad(const struct reader *r, const yaml_node_t *at,
               struct sl_error *err, const char *what, const char *value)
{
    return sl_fail(err, SL_ERR_CORRUPT, "%s:%zu:%zu: %s%s%s%s%.120s", r->file,
                   at->start_mark.line + 1, at->start_mark.column + 1,
                   r->key ? r->key : "", r->key ? ": " : "", what,
                   value[0] ? ": " : "", value);
}

static const char *text_of(const yaml_node_t *node)
{
    return node->type == YAML_SCALAR_NODE
               ? (const char *)node->data.scalar.value
               : "";
}

/* --- values ------------------------------------------------------------- */

static int take_text(const struct reader *r, const yaml_node_t *v, void *to,
                     struct sl_error *err)
{
    char **text = to, *copy;

    if (v->type != YAML_SCALAR_NODE)
        return bad(r, v, err, "a text is expected", "");
    copy = strdup(text_of(v));
    if (copy == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "out of memory for a task");
    free(*text);
    *text = copy;
    return 0;
}

/* As YAML 1.1 and PyYAML have them. */
static int take_bool(const struct reader *r, const yaml_node_t *v, void *to,
                     struct sl_error *err)
{
    static const char *const names[] = {"false", "true", "no",
                                        "yes",   "off",  "on"};

    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcasecmp(text_of(v), names[i]) == 0) {
            *(bool *)to = i % 2;
            return 0;
        }
    }
    return bad(r, v, err, "true or false is expected", text_of(v));
}

static int take_number(const struct reader *r, const yaml_node_t *v, void *to,
                       struct sl_error *err)
{
    const char *text = text_of(v);
    unsigned long long n;
    char *end;

    errno = 0;
    n = strtoull(text, &end, 10);
    if (!isdigit((unsigned char)text[0]) || *end != '\0' || errno != 0 ||
        n > 1u << 30)
        return bad(r, v, err, "a whole number is expected", text);
    *(uint32_t *)to = (uint32_t)n;
    return 0;
}

static int take_real(const struct reader *r, const yaml_node_t *v, void *to,
                     struct sl_error *err)
{
    const char *text = text_of(v);
    char *end;
    double x = strtod(text, &end);

    if (end == text || *end != '\0' || !(x >= -1e9 && x <= 1e9))
        return bad(r, v, err, "a number is expected", text);
    *(double *)to = x;
    return 0;
}

static int take_type(const struct reader *r, const yaml_node_t *v, void *to,
                     struct sl_error *err)
{
    (void)to; /* read first of all */
    for (unsigned i = 0; i < SL_TASK_TYPES; i++) {
        if (strcmp(text_of(v), sl_task_type_name((enum sl_task_type)i)) == 0)
            return 0;
    }
    return strcmp(text_of(v), "other") == 0
               ? 0
               : bad(r, v, err, "one of mul, gen, lm and other is expected",
                     text_of(v));
}

static int take_strategy(const struct reader *r, const yaml_node_t *v, void *to,
                         struct sl_error *err)
{
    bool beams = strcmp(text_of(v), "BeamSearchStrategy") == 0;

    if (!beams && strcmp(text_of(v), "BaseStrategy") != 0)
        return bad(r, v, err, "BaseStrategy or BeamSearchStrategy is expected",
                   text_of(v));
    *(bool *)to = beams;
    return 0;
}

static int take_metrics(const struct reader *r, const yaml_node_t *v, void *to,
                        struct sl_error *err)
{
    struct sl_task *task = r->task;
    yaml_document_t *doc = (yaml_document_t *)&r->doc;
    const yaml_node_item_t *item;

    (void)to;
    if (v->type != YAML_SEQUENCE_NODE)
        return bad(r, v, err, "a list is expected", "");
    task->n_metrics = 0;
    for (item = v->data.sequence.items.start; item < v->data.sequence.items.top;
         item++) {
        const yaml_node_t *name = yaml_document_get_node(doc, *item);

        if (task->n_metrics == SL_TASK_METRICS_MOST)
            return bad(r, name, err, "too many metrics", "");
        if (!sl_metric_find(&task->metrics[task->n_metrics], text_of(name)))
            return bad(r, name, err,
                       "no metric of that name (Accuracy, EM, F1, PPL, "
                       "Precision, Recall, F1_mul)",
                       text_of(name));
        task->n_metrics++;
    }
    return task->n_metrics > 0 ? 0 : bad(r, v, err, "no metric", "");
}

static int take_pattern(const struct reader *r, const yaml_node_t *v, void *to,
                        struct sl_error *err)
{
    yaml_document_t *doc = (yaml_document_t *)&r->doc;
    const yaml_node_pair_t *pair;

    (void)to;
    if (v->type == YAML_SCALAR_NODE) {
        r->task->one_pattern = true;
        return sl_task_add_group(r->task, "all", text_of(v), err);
    }
    if (v->type != YAML_MAPPING_NODE)
        return bad(r, v, err, "a pattern is expected, or one for each group",
                   "");
    for (pair = v->data.mapping.pairs.start; pair < v->data.mapping.pairs.top;
         pair++) {
        const yaml_node_t *key = yaml_document_get_node(doc, pair->key);
        const yaml_node_t *value = yaml_document_get_node(doc, pair->value);

        if (key->type != YAML_SCALAR_NODE || value->type != YAML_SCALAR_NODE)
            return bad(r, key, err, "a group's pattern is a text", "");
        if (sl_task_add_group(r->task, text_of(key), text_of(value), err) != 0)
            return -1;
    }
    return 0;
}

static const struct {
    const char *module;
    enum sl_task_type type;
    enum sl_task_class class;
} modules[] = {
    {"tasks.ethnic.crows-pair.tasks.CrowsPairTask", SL_TASK_MUL,
     SL_CLASS_CROWS_PAIRS},
    {"tasks.ethnic.stereoset.tasks.StereoSetTask", SL_TASK_MUL,
     SL_CLASS_STEREOSET},
    {"tasks.lambada.task.LAMBADA", SL_TASK_GEN, SL_CLASS_LAMBADA},
    {"tasks.mmlu.task.MMLU", SL_TASK_MUL, SL_CLASS_MMLU},
    {"tasks.language-modeling.pile.Pile", SL_TASK_LM, SL_CLASS_PILE},
    {"evaluation.MultiChoiceTask", SL_TASK_MUL, SL_CLASS_PLAIN},
    {"evaluation.GenerationTask", SL_TASK_GEN, SL_CLASS_PLAIN},
    {"evaluation.LanguageModelTask", SL_TASK_LM, SL_CLASS_PLAIN},
};

static int take_module(const struct reader *r, const yaml_node_t *v, void *to,
                       struct sl_error *err)
{
    for (size_t i = 0; i < sizeof modules / sizeof *modules; i++) {
        if (strcmp(text_of(v), modules[i].module) != 0)
            continue;
        if (r->task->type != modules[i].type)
            return bad(r, v, err, "this module is of another type", text_of(v));
        r->task->class = modules[i].class;
        return take_text(r, v, to, err);
    }
    return bad(r, v, err,
               "no module of that name here (CrowsPairTask, StereoSetTask, "
               "LAMBADA, MMLU and Pile, as GLM-130B's tasks name them)",
               text_of(v));
}

/* --- keys --------------------------------------------------------------- */

#define AT(member) offsetof(struct sl_task, member)
enum {
    ALL = 7,
    MUL = 1 << SL_TASK_MUL,
    GEN = 1 << SL_TASK_GEN,
    LM = 1 << SL_TASK_LM
};

static const struct field {
    const char *name; /* in snake case */
    int (*take)(const struct reader *r, const yaml_node_t *v, void *to,
                struct sl_error *err);
    size_t at;
    unsigned types; /* that have it */
} fields[] = {
    {"name", take_text, AT(name), ALL},
    {"type", take_type, AT(type), ALL},
    {"path", take_text, AT(path), ALL},
    {"module", take_module, AT(module), ALL},
    {"metrics", take_metrics, AT(metrics), ALL},
    {"use_task_mask", take_bool, AT(use_task_mask), ALL},
    {"use_multitask_encoding", take_bool, AT(use_multitask_encoding), ALL},
    {"unidirectional", take_bool, AT(unidirectional), ALL},
    {"max_seq_length", take_number, AT(max_seq_length), ALL},
    {"file_pattern", take_pattern, AT(groups), ALL},
    {"micro_batch_size", take_number, AT(micro_batch_size), ALL},
    {"sampling_strategy", take_strategy, AT(beams), GEN},
    {"num_beams", take_number, AT(num_beams), GEN},
    {"length_penalty", take_real, AT(length_penalty), GEN},
    {"no_repeat_ngram_size", take_number, AT(no_repeat_ngram_size), GEN},
    {"min_gen_length", take_number, AT(min_gen_length), GEN},
    {"max_gen_length", take_number, AT(max_gen_length), GEN},
    {"generation_length", take_number, AT(generation_length), LM},
};

static const unsigned metric_types[SL_METRICS] = {
    [SL_METRIC_ACCURACY] = MUL,  [SL_METRIC_EM] = GEN,
    [SL_METRIC_F1] = GEN,        [SL_METRIC_PPL] = LM,
    [SL_METRIC_PRECISION] = MUL, [SL_METRIC_RECALL] = MUL,
    [SL_METRIC_F1_MUL] = MUL,
};

/* filePattern, file-pattern and file_pattern are one key. */
static void to_snake(char *to, size_t room, const char *key)
{
    size_t n = 0;

    for (; *key != '\0' && n + 2 < room; key++) {
        if (isupper((unsigned char)*key)) {
            if (n > 0)
                to[n++] = '_';
            to[n++] = (char)tolower((unsigned char)*key);
        } else {
            to[n++] = *key == '-' ? '_' : *key;
        }
    }
    to[n] = '\0';
}

static const struct field *field_of(const char *key)
{
    char name[64];

    to_snake(name, sizeof name, key);
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        if (strcmp(fields[i].name, name) == 0)
            return &fields[i];
    }
    return NULL;
}

/* The value of a field, NULL where the file does not say. */
static const yaml_node_t *value_of(struct reader *r, const yaml_node_t *root,
                                   const char *name)
{
    const yaml_node_pair_t *pair;

    for (pair = root->data.mapping.pairs.start;
         pair < root->data.mapping.pairs.top; pair++) {
        const yaml_node_t *key = yaml_document_get_node(&r->doc, pair->key);
        const struct field *f = field_of(text_of(key));

        if (f != NULL && strcmp(f->name, name) == 0)
            return yaml_document_get_node(&r->doc, pair->value);
    }
    return NULL;
}

/* Sets the type, by which all other fields have their defaults. "other" is of
 * the type that its module has. */
static int begin_task(struct reader *r, const yaml_node_t *root,
                      struct sl_error *err)
{
    static const char *const needed[] = {"name", "type", "path"};
    const yaml_node_t *type, *module;
    unsigned t = 0;

    for (size_t i = 0; i < 3; i++) {
        if (value_of(r, root, needed[i]) == NULL)
            return bad(r, root, err, "the task does not say its", needed[i]);
    }
    type = value_of(r, root, "type");
    module = value_of(r, root, "module");
    r->key = "type";
    if (take_type(r, type, NULL, err) != 0)
        return -1;
    r->key = NULL;
    if (strcmp(text_of(type), "other") == 0 && module == NULL)
        return bad(r, type, err, "a task of type other needs a module", "");
    for (size_t i = 0; module && i < sizeof modules / sizeof *modules; i++) {
        if (strcmp(text_of(module), modules[i].module) == 0)
            t = modules[i].type;
    }
    while (strcmp(text_of(type), "other") != 0 &&
           strcmp(text_of(type), sl_task_type_name((enum sl_task_type)t)) != 0)
        t = (t + 1) % SL_TASK_TYPES;
    return sl_task_init(r->task, (enum sl_task_type)t, "", err);
}

static int take_fields(struct reader *r, const yaml_node_t *root,
                       struct sl_error *err)
{
    const yaml_node_pair_t *pair;

    for (pair = root->data.mapping.pairs.start;
         pair < root->data.mapping.pairs.top; pair++) {
        const yaml_node_t *key = yaml_document_get_node(&r->doc, pair->key);
        const yaml_node_t *v = yaml_document_get_node(&r->doc, pair->value);
        const struct field *f = field_of(text_of(key));

        if (f == NULL || !(f->types & 1u << r->task->type)) {
            sl_log(r->log, SL_LOG_WARN,
                   "%s:%zu:%zu: nothing here reads the key '%.60s'%s%s%s",
                   r->file, key->start_mark.line + 1,
                   key->start_mark.column + 1, text_of(key),
                   f ? " of a task of type " : "",
                   f ? sl_task_type_name(r->task->type) : "",
                   strcmp(text_of(key), "metric") == 0 ? "; 'metrics' is read"
                                                       : "");
            continue;
        }
        r->key = f->name;
        if (f->take(r, v, (char *)r->task + f->at, err) != 0)
            return -1;
    }
    r->key = NULL;
    return 0;
}

/* Where a field stands, or the task. */
static const yaml_node_t *place_of(struct reader *r, const yaml_node_t *root,
                                   const char *name)
{
    const yaml_node_t *value = value_of(r, root, name);

    return value != NULL ? value : root;
}

/* What no value may be in the company of the others. */
static int check_task(struct reader *r, const yaml_node_t *root,
                      struct sl_error *err)
{
    struct sl_task *t = r->task;

    if (t->unidirectional && !t->use_task_mask)
        return bad(r, place_of(r, root, "unidirectional"), err,
                   "unidirectional needs use_task_mask: [MASK] has no "
                   "unidirectional attention",
                   "");
    if (t->max_seq_length < 4)
        return bad(r, place_of(r, root, "max_seq_length"), err,
                   "max_seq_length is less than 4", "");
    if (t->type == SL_TASK_GEN && (t->num_beams == 0 || t->num_beams > 1024))
        return bad(r, place_of(r, root, "num_beams"), err,
                   "num_beams is not between 1 and 1024", "");
    if (t->type == SL_TASK_GEN &&
        (t->max_gen_length == 0 || t->max_gen_length + 3 > t->max_seq_length))
        return bad(r, place_of(r, root, "max_gen_length"), err,
                   "max_gen_length is 0 or leaves no room within "
                   "max_seq_length",
                   "");
    if (t->type == SL_TASK_LM && (t->generation_length == 0 ||
                                  t->generation_length > t->max_seq_length - 1))
        return bad(r, place_of(r, root, "generation_length"), err,
                   "generation_length is not between 1 and max_seq_length - 1",
                   "");
    for (size_t i = 0; i < t->n_metrics; i++) {
        if (!(metric_types[t->metrics[i]] & 1u << t->type))
            return bad(r, place_of(r, root, "metrics"), err,
                       "a metric that its type does not have",
                       sl_metric_name(t->metrics[i]));
    }
    if (t->class == SL_CLASS_LAMBADA) {
        t->metrics[0] = SL_METRIC_ACCURACY;
        t->n_metrics = 1;
    }
    if (t->n_groups > 0)
        return 0;
    t->one_pattern = true;
    return sl_task_add_group(t, "all", "**/*.json*", err);
}

static int read_document(struct reader *r, struct sl_error *err)
{
    const yaml_node_t *root = yaml_document_get_root_node(&r->doc);
    char *file;

    if (root == NULL || root->type != YAML_MAPPING_NODE)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "%s:%zu:%zu: no task: keys and values are expected",
                       r->file, root != NULL ? root->start_mark.line + 1 : 1,
                       root != NULL ? root->start_mark.column + 1 : 1);
    if (begin_task(r, root, err) != 0)
        return -1;
    if (take_fields(r, root, err) != 0 || check_task(r, root, err) != 0) {
        sl_task_fini(r->task);
        return -1;
    }
    file = strdup(r->file);
    if (file == NULL) {
        sl_task_fini(r->task);
        return sl_fail(err, SL_ERR_NOMEM, "out of memory for a task");
    }
    free(r->task->file);
    r->task->file = file;
    return 0;
}

static int load_document(struct reader *r, yaml_parser_t *parser,
                         struct sl_error *err)
{
    if (yaml_parser_load(parser, &r->doc))
        return 0;
    return sl_fail(err, SL_ERR_CORRUPT, "%s:%zu:%zu: not YAML: %s", r->file,
                   parser->problem_mark.line + 1,
                   parser->problem_mark.column + 1,
                   parser->problem ? parser->problem : "cannot be read");
}

/* A file is a task: what stands behind it would be lost. */
static int check_end(struct reader *r, yaml_parser_t *parser,
                     struct sl_error *err)
{
    const yaml_node_t *root;
    int rc = 0;

    if (load_document(r, parser, err) != 0)
        return -1;
    root = yaml_document_get_root_node(&r->doc);
    if (root != NULL)
        rc = bad(r, root, err, "a second document: a file has one task", "");
    yaml_document_delete(&r->doc);
    return rc;
}

int sl_task_read(struct sl_task *task, const char *file,
                 const struct sl_log *log, struct sl_error *err)
{
    struct reader r = {.file = file, .task = task, .log = log};
    yaml_parser_t parser;
    char *text;
    size_t n;
    int rc;

    if (sl_file_read(&text, &n, file, err) != 0)
        return -1;
    if (!yaml_parser_initialize(&parser)) {
        free(text);
        return sl_fail(err, SL_ERR_NOMEM, "%s: no memory to read it", file);
    }
    yaml_parser_set_input_string(&parser, (unsigned char *)text, n);
    rc = load_document(&r, &parser, err);
    if (rc == 0) {
        rc = read_document(&r, err);
        yaml_document_delete(&r.doc);
        if (rc == 0 && check_end(&r, &parser, err) != 0) {
            sl_task_fini(task);
            rc = -1;
        }
    }
    yaml_parser_delete(&parser);
    free(text);
    return rc;
}
