#include "config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/mem.h"
#include "src/base/tame.h"
#include "src/eval/console.h"

void sl_console_tasks(FILE *out, const struct sl_tasks *tasks)
{
    fputs("> Loading task configs\n", out);
    for (size_t i = 0; i < tasks->n; i++) {
        const struct sl_task *t = &tasks->v[i];

        /* Questions of one's own have a file of data alone, and its name. */
        fprintf(out, "    Task %s loaded from config %s\n", SL_TAMED(t->name),
                SL_TAMED(t->file[0] != '\0' ? t->file : t->name));
    }
    fprintf(out, "> Successfully load %zu task%s\n", tasks->n,
            tasks->n > 1 ? "s" : "");
}

/* As Python's repr has a text. */
static void put_text(FILE *out, const char *text)
{
    char quote = strchr(text, '\'') && !strchr(text, '"') ? '"' : '\'';

    putc(quote, out);
    for (; *text != '\0'; text++) {
        if (*text == quote || *text == '\\')
            putc('\\', out);
        if (*text == '\n')
            fputs("\\n", out);
        else if ((unsigned char)*text < ' ' && *text != '\t')
            fprintf(out, "\\x%02x", (unsigned char)*text);
        else if (*text == '\t')
            fputs("\\t", out);
        else
            putc(*text, out);
    }
    putc(quote, out);
}

static const char *py_bool(bool b)
{
    return b ? "True" : "False";
}

/* Three classes have metrics of their own, whatever their files list. */
static void put_metrics(FILE *out, const struct sl_task *t)
{
    static const char *const own[] = {
        [SL_CLASS_CROWS_PAIRS] = "CP",
        [SL_CLASS_STEREOSET] = "SS_ICAT",
        [SL_CLASS_PILE] = "BPB",
        [SL_CLASS_PLAIN] = NULL,
    };
    const char *name =
        t->class < sizeof own / sizeof *own ? own[t->class] : NULL;

    fputs(", metrics=[", out);
    if (name != NULL)
        put_text(out, name);
    for (size_t i = 0; name == NULL && i < t->n_metrics; i++) {
        fputs(i > 0 ? ", " : "", out);
        put_text(out, sl_metric_name(t->metrics[i]));
    }
    putc(']', out);
}

/* A task with one pattern is written as a text, one with groups as a dict,
 * as its YAML had it. */
static void put_pattern(FILE *out, const struct sl_task *t)
{
    fputs(", file_pattern=", out);
    if (t->one_pattern) {
        put_text(out, t->groups[0].pattern);
        return;
    }
    putc('{', out);
    for (size_t i = 0; i < t->n_groups; i++) {
        fputs(i > 0 ? ", " : "", out);
        put_text(out, t->groups[i].name);
        fputs(": ", out);
        put_text(out, t->groups[i].pattern);
    }
    putc('}', out);
}

/* The repr of the reference's dataclass, fields in its order: logs of both
 * programs can be compared line by line. */
static void put_config(FILE *out, const struct sl_task *t, const char *path)
{
    static const char *const classes[SL_TASK_TYPES] = {
        "MultiChoiceTaskConfig", "GenerationTaskConfig",
        "LanguageModelTaskConfig"};
    static const char *const types[SL_TASK_TYPES] = {
        "MULTICHOICE", "GENERATION", "LANGUAGE_MODEL"};
    char penalty[32];

    fprintf(out, "%s(name=", classes[t->type]);
    put_text(out, t->name);
    fprintf(out, ", type=<TaskType.%s: '%s'>, path=", types[t->type],
            sl_task_type_name(t->type));
    put_text(out, path);
    fputs(", module=", out);
    if (t->module != NULL)
        put_text(out, t->module);
    else
        fputs("None", out);
    put_metrics(out, t);
    fprintf(out,
            ", use_task_mask=%s, use_multitask_encoding=%s, "
            "unidirectional=%s, max_seq_length=%u",
            py_bool(t->use_task_mask), py_bool(t->use_multitask_encoding),
            py_bool(t->unidirectional), t->max_seq_length);
    put_pattern(out, t);
    fprintf(out, ", micro_batch_size=%u", t->micro_batch_size);
    if (t->type == SL_TASK_GEN) {
        sl_python_float(penalty, t->length_penalty);
        fprintf(out,
                ", sampling_strategy='%s', num_beams=%u, length_penalty=%s, "
                "no_repeat_ngram_size=%u, min_gen_length=%u, "
                "max_gen_length=%u",
                t->beams ? "BeamSearchStrategy" : "BaseStrategy", t->num_beams,
                penalty, t->no_repeat_ngram_size, t->min_gen_length,
                t->max_gen_length);
    }
    if (t->type == SL_TASK_LM)
        fprintf(out, ", generation_length=%u", t->generation_length);
    fputs(")\n", out);
}

void sl_console_begin(FILE *out, const struct sl_task *task, const char *path)
{
    fputs("\n\n", out);
    put_config(out, task, path);
    fprintf(out, "Evaluating task %s:\n", SL_TAMED(task->name));
}

void sl_console_end(FILE *out, const struct sl_task *task, double seconds)
{
    fprintf(out, "Finish task %s in %.1fs.\n", SL_TAMED(task->name), seconds);
}

void sl_console_total(FILE *out, size_t n_tasks, double seconds)
{
    fprintf(out, "Finish %zu task%s in %.1fs\n", n_tasks,
            n_tasks > 1 ? "s" : "", seconds);
}

void sl_console_group(FILE *out, const char *group)
{
    fprintf(out, "    Evaluating group %s:\n", SL_TAMED(group));
}

void sl_console_file(FILE *out, const char *file, const char *const *metrics,
                     const double *values, size_t n)
{
    fprintf(out, "        Finish %s", SL_TAMED(file));
    for (size_t i = 0; i < n; i++)
        fprintf(out, ", %s = %.3f", metrics[i], values[i]);
    putc('\n', out);
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

struct sl_summary sl_scores_summary(const struct sl_scores *s)
{
    struct sl_summary sum = {NAN, NAN, NAN};
    double *sorted = sl_alloc_array(s->n + 1, sizeof *sorted);
    double total = 0, weights = 0;

    if (s->n == 0 || sorted == NULL) {
        free(sorted);
        return sum;
    }
    memcpy(sorted, s->v, s->n * sizeof *sorted);
    qsort(sorted, s->n, sizeof *sorted, ascending);
    for (size_t i = 0; i < s->n; i++) {
        total += s->v[i] * (double)s->n_of[i];
        weights += (double)s->n_of[i];
    }
    sum.max = sorted[s->n - 1];
    sum.median = (sorted[(s->n - 1) / 2] + sorted[s->n / 2]) / 2;
    sum.average = total / weights;
    free(sorted);
    return sum;
}

static void put_summary(FILE *out, struct sl_summary s)
{
    fprintf(out, "max = %.3f, median = %.3f, average = %.3f\n", s.max, s.median,
            s.average);
}

void sl_console_summary(FILE *out, const char *group,
                        const struct sl_scores *scores, size_t n_metrics,
                        unsigned indent)
{
    int blanks = 4 * (int)indent;

    if (n_metrics == 1) {
        fprintf(out, "%*sGroup %s %s: ", blanks, "", SL_TAMED(group),
                SL_TAMED(scores->name));
        put_summary(out, sl_scores_summary(scores));
        return;
    }
    fprintf(out, "%*s  Group %s: \n", blanks, "", SL_TAMED(group));
    for (size_t i = 0; i < n_metrics; i++) {
        fprintf(out, "%*sMetric %s: ", blanks + 4, "", scores[i].name);
        put_summary(out, sl_scores_summary(&scores[i]));
    }
}

void sl_python_float(char text[32], double x)
{
    int digits = 1, exponent;

    if (!isfinite(x)) {
        snprintf(text, 32, "%f", x);
        return;
    }
    do /* as few digits as say what it is */
        snprintf(text, 32, "%.*e", digits - 1, x);
    while (strtod(text, NULL) != x && digits++ < 17);
    exponent = atoi(strchr(text, 'e') + 1);
    if (exponent >= -4 && exponent < 16)
        snprintf(text, 32, "%.*f",
                 digits > exponent + 1 ? digits - 1 - exponent : 1, x);
}

void sl_python_round2(char text[32], double x, bool whole)
{
    size_t n = (size_t)snprintf(text, 32, whole ? "%.0f" : "%.2f", x);

    if (!whole && n > 0 && text[n - 1] == '0')
        text[n - 1] = '\0';
}
