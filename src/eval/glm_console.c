#include "config.h"

#include <math.h>
#include <string.h>

#include "src/eval/glm_console.h"
#include "src/eval/metrics.h"

/* Its evaluation is one after no epoch of training. */
#define EPOCH (-1)

/* A text between lines of dashes, which are one longer than it. */
static void put_framed(FILE *out, const char *text)
{
    char dashes[320];
    size_t n = strlen(text) + 1;

    memset(dashes, '-', n);
    dashes[n] = '\0';
    fprintf(out, "%s\n%s\n%s\n", dashes, text, dashes);
}

/* A file of choices is called by what stands before its first dot. */
static void choices(FILE *out, const struct sl_eval_file *f, double seconds)
{
    const char *slash = strrchr(f->name, '/');
    const char *name = slash != NULL ? slash + 1 : f->name;

    fprintf(out,
            " > |epoch: %d| metrics for multichoice-%.*s: total %zu accuracy = "
            "%.4f %% elapsed time (sec): %.3f\n",
            EPOCH, (int)strcspn(name, "."), name, f->n_examples, f->values[0],
            seconds);
}

static void cloze(FILE *out, const struct sl_eval_file *f)
{
    double n = (double)f->n_examples;
    char right[32], text[160];

    /* How many it were, which is counted in a float. */
    sl_python_float(right, round(f->values[0] * n / 100));
    snprintf(text, sizeof text,
             "number correct: %s | total examples: %zu | avg accuracy: %.2f",
             right, f->n_examples, f->values[0]);
    put_framed(out, text);
}

static void perplexity(FILE *out, const struct sl_eval *ev,
                       const struct sl_eval_task *t,
                       const struct sl_eval_file *f)
{
    struct sl_text_loss l = sl_eval_text_loss(ev, t, f);
    char ratio[32], text[256];

    sl_python_float(ratio, l.ids / l.words);
    snprintf(text, sizeof text,
             "avg loss: %.4E | ppl: %.4E | adjusted ppl: %.4E | token ratio: "
             "%s |",
             l.loss / l.ids, sl_metric_ppl(l.loss, l.ids),
             sl_metric_ppl(l.loss, l.words), ratio);
    put_framed(out, text);
}

void sl_glm_console_file(FILE *out, const struct sl_eval *ev,
                         const struct sl_eval_task *t,
                         const struct sl_eval_file *f, double seconds)
{
    if (t->task->type == SL_TASK_GEN)
        cloze(out, f);
    else if (t->task->type == SL_TASK_LM)
        perplexity(out, ev, t, f);
    else if (t->n_files > 1)
        choices(out, f, seconds);
}

void sl_glm_console_task(FILE *out, const struct sl_eval_task *t)
{
    double sum = 0;
    size_t n = 0;

    if (t->task->type != SL_TASK_MUL)
        return;
    for (size_t i = 0; i < t->n_files; i++) {
        sum += t->files[i].values[0] * (double)t->files[i].n_examples;
        n += t->files[i].n_examples;
    }
    fprintf(out, " >> |epoch: %d| overall: total = %zu accuracy = %.4f\n",
            EPOCH, n, sum / (double)n);
}
