#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "src/base/lines.h"
#include "src/base/mem.h"
#include "src/cmd/generate.h"
#include "src/decode/batch.h"

/* The lines of a file, and how far the answers have come. Lines are filled
 * --batch at a time: one that ends makes room for the next. What is printed
 * comes line by line, in order. */
struct file {
    struct sl_generate *g;
    struct sl_query *queries; /* (n) one a line, empty ones too */
    size_t n;
    bool *done;                 /* (n) --resume leaves it out */
    size_t n_answered, n_asked; /* of the lines that are not over */
    size_t at;                  /* the first line that is not printed yet */
    size_t end;                 /* the first that is not taken yet */
    size_t window;              /* lines taken and not printed, at most */
    /* (window) line i's at i % window, with its work if it has any; owned */
    struct sl_group *lines;
    struct sl_batch *batch; /* of several lines */
    bool write_failed;
    size_t *n_bad;
    bool *interrupted;
};

/* Lines that have ended and wait for one before them, for each of a batch. */
enum { WINDOW = 4 };

static size_t count_lines(const char *text, size_t n)
{
    size_t lines = n > 0 && text[n - 1] != '\n';

    for (size_t i = 0; i < n; i++)
        lines += text[i] == '\n';
    return lines;
}

static bool is_empty(const struct sl_query *q)
{
    return q->id == NULL && q->n_text == 0;
}

/* There is nothing to ask. */
static bool is_over(const struct file *f, size_t line)
{
    return f->done[line] || is_empty(&f->queries[line]);
}

/* Finds what an earlier run has answered. */
static int find_done(struct file *f, struct sl_error *err)
{
    size_t n_done = 0, n = 0;

    f->done = sl_zalloc_array(f->n + 1, sizeof *f->done);
    if (f->done == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "out of memory for %zu queries",
                       f->n);
    for (size_t i = 0; i < f->n; i++) {
        n += !is_empty(&f->queries[i]);
        f->done[i] = !is_empty(&f->queries[i]) &&
                     sl_keeper_has(f->g->keeper, &f->queries[i]);
        n_done += f->done[i];
    }
    f->n_asked = n - n_done;
    if (f->g->o->resume)
        sl_log(f->g->o->run.log, SL_LOG_INFO,
               "%zu of %zu queries have their answers in %s", n_done, n,
               f->g->o->output_path);
    return 0;
}

/* Takes the text apart, in place. */
static int read_queries(struct file *f, char *text, size_t n,
                        struct sl_error *err)
{
    size_t n_lines = count_lines(text, n);
    struct sl_error unsplit;
    char *id;

    f->queries = sl_zalloc_array(n_lines + 1, sizeof *f->queries);
    if (f->queries == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "out of memory for %zu queries",
                       n_lines);
    for (size_t i = 0; i < n; f->n++) {
        struct sl_query *q = &f->queries[f->n];
        char *line = text + i, *end = memchr(line, '\n', n - i);

        q->line = (int64_t)f->n;
        q->text = line;
        q->n_text = end != NULL ? (size_t)(end - line) : n - i;
        i += q->n_text + 1;
        line[q->n_text] = '\0';
        sl_query_strip(&q->text, &q->n_text);
        /* One that cannot be split is reported when its turn comes. */
        if (f->g->o->with_id &&
            sl_query_split(q->text, q->n_text, &id, &q->text, &q->n_text,
                           &unsplit) == 0)
            q->id = id;
    }
    return 0;
}

/* What the hungriest group will need. A group is the next lines with nothing
 * wrong, as many as a batch has. */
static int measure(struct file *f, struct sl_workload *load,
                   struct sl_error *err)
{
    struct sl_workload group = {0};
    size_t n = 0;

    for (size_t i = 0; i < f->n; i++) {
        const struct sl_query *q = &f->queries[i];

        if (is_over(f, i))
            continue;
        if (sl_generate_measure(f->g, q, &group, err) != 0) {
            if (err->code != SL_ERR_USAGE)
                return -1;
            continue;
        }
        if (++n < f->g->o->batch)
            continue;
        sl_fill_workload_cover(load, &group);
        group = (struct sl_workload){0};
        n = 0;
    }
    if (n > 0)
        sl_fill_workload_cover(load, &group);
    return 0;
}

static struct sl_group *line_of(const struct file *f, size_t line)
{
    return &f->lines[line % f->window];
}

/* Takes the next line. Every line, right or wrong, has a stream of random
 * numbers of its own, so that what is drawn for it depends neither on the
 * others nor on the batch. */
static int take_line(struct file *f, struct sl_error *err)
{
    const struct sl_query *q = &f->queries[f->end];
    struct sl_group *line = line_of(f, f->end);
    struct sl_rng rng = f->g->rng;

    sl_group_clear(line);
    sl_rng_jump(&f->g->rng);
    if (!is_over(f, f->end++) && sl_group_add(line, q, &rng, err) != 0 &&
        err->code != SL_ERR_USAGE)
        return -1;
    return 0;
}

/* Prints all there is to a line that is not empty. */
static int print_query(struct file *f, struct sl_error *err)
{
    const struct sl_query *q = &f->queries[f->at];
    struct sl_group *line = line_of(f, f->at);
    struct sl_workload load = {0};
    int rc;

    if (line->n > 0)
        rc = sl_group_show(line, 0, f->interrupted, err);
    else /* wrong: says again why */
        rc = sl_generate_measure(f->g, q, &load, err);
    if (rc == 0 || err->code != SL_ERR_USAGE)
        return rc;
    sl_generate_report(f->g, q, err);
    ++*f->n_bad;
    return 0;
}

static void count(const struct file *f)
{
    if (f->n_asked > 1)
        sl_waiting_count(f->g->waiting, "queries", f->n_answered, f->n_asked);
}

static int print_line(struct file *f, struct sl_error *err)
{
    const struct sl_query *q = &f->queries[f->at];
    int rc = 0;

    sl_waiting_text(f->g->waiting, "\n", 1);
    if (!f->g->o->json && !f->done[f->at]) {
        printf("Working on No. %lld on model group 0... \n",
               (long long)q->line);
        rc = sl_show_flush(stdout, err);
    }
    if (rc == 0 && !is_over(f, f->at)) {
        rc = print_query(f, err);
        f->n_answered++;
        count(f);
    }
    f->at++;
    f->write_failed = rc != 0;
    return rc;
}

/* Prints the lines that were taken up to the first that has not ended, or all
 * that have. */
static int print_ended(struct file *f, bool all, struct sl_error *err)
{
    while (f->at < f->end) {
        const struct sl_group *line = line_of(f, f->at);

        if (line->n > 0 && !line->texts[0].ended) {
            if (!all)
                return 0;
            f->at++;
            continue;
        }
        if (print_line(f, err) != 0)
            return -1;
    }
    return 0;
}

/* One line is filled at a time: its text is shown as it comes. */
static int run_alone(struct file *f, struct sl_error *err)
{
    while (f->at < f->n && !*f->interrupted) {
        if (sl_interrupt_came(f->g->interrupt))
            return sl_fail(err, SL_ERR_INTERRUPTED, "interrupted");
        if (take_line(f, err) != 0 || print_line(f, err) != 0)
            return -1;
    }
    return 0;
}

static int text_ended(void *opaque, struct sl_fill_text *text,
                      struct sl_error *err)
{
    struct file *f = opaque;

    for (size_t i = f->at; i < f->end; i++) {
        if (line_of(f, i)->n > 0 && line_of(f, i)->texts == text)
            sl_group_ended(line_of(f, i), 0);
    }
    return print_ended(f, false, err);
}

/* Lines begin while there is room. */
static int admit_lines(struct file *f, struct sl_error *err)
{
    while (f->end < f->n && f->end - f->at < f->window &&
           !sl_interrupt_came(f->g->interrupt) &&
           (f->batch == NULL ||
            sl_batch_running(f->batch) + sl_batch_waiting(f->batch) <
                f->g->o->batch)) {
        struct sl_group *line = line_of(f, f->end);

        if (take_line(f, err) != 0)
            return -1;
        if (line->n == 0)
            continue;
        sl_group_begin(line);
        if (sl_batch_admit(f->batch, line->texts, err) != 0)
            return -1;
    }
    return print_ended(f, false, err);
}

static int run_batch(struct file *f, struct sl_error *err)
{
    bool more;

    while (f->at < f->n && !*f->interrupted) {
        if (admit_lines(f, err) != 0)
            return -1;
        if (f->batch != NULL &&
            sl_batch_running(f->batch) + sl_batch_waiting(f->batch) > 0) {
            if (sl_batch_step(f->batch, &more, err) != 0)
                return -1;
        } else if (sl_interrupt_came(f->g->interrupt)) {
            return sl_fail(err, SL_ERR_INTERRUPTED, "interrupted");
        }
    }
    return 0;
}

static int run_together(struct file *f, struct sl_error *err)
{
    struct sl_generate *g = f->g;
    struct sl_batch_config config = {
        .hp = g->hp,
        .config = &g->o->fill,
        .stops = g->stops,
        .most = g->o->batch,
        .rules = g->o->text.stops.n > 0,
        .ended = text_ended,
        .opaque = f,
    };
    struct sl_error later;
    int rc;

    if (g->started) { /* else all lines are empty or wrong */
        config.lm = sl_runtime_lm(g->rt);
        if (sl_batch_create(&f->batch, &config, err) != 0)
            return -1;
    }
    sl_waiting_begin(g->waiting, "answering", 0);
    rc = run_batch(f, err);
    sl_waiting_end(g->waiting);
    if (rc == 0)
        return 0;
    /* What is finished is not lost with the rest. */
    if (!f->write_failed)
        print_ended(f, true, &later);
    return -1;
}

static int run_all(struct file *f, struct sl_error *err)
{
    uint32_t batch = f->g->o->batch;
    int rc;

    f->window = batch == 1 ? 1 : (size_t)WINDOW * batch;
    f->lines = sl_zalloc_array(f->window, sizeof *f->lines);
    if (f->lines == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "out of memory for %zu queries",
                       f->window);
    for (size_t i = 0; i < f->window; i++) {
        if (sl_group_init(&f->lines[i], f->g, 1, err) != 0)
            return -1;
    }
    count(f);
    rc = batch == 1 ? run_alone(f, err) : run_together(f, err);
    return rc != 0 ? rc : sl_show_flush(stdout, err);
}

static void close_file(struct file *f)
{
    sl_batch_close(f->batch);
    for (size_t i = 0; f->lines != NULL && i < f->window; i++)
        sl_group_fini(&f->lines[i]);
    free(f->lines);
    free(f->queries);
    free(f->done);
}

int sl_generate_lines(struct sl_generate *g, char *text, size_t n,
                      size_t *n_bad, bool *interrupted, struct sl_error *err)
{
    struct file f = {.g = g, .n_bad = n_bad, .interrupted = interrupted};
    struct sl_workload load = {0};
    int rc = read_queries(&f, text, n, err);

    if (rc == 0)
        rc = find_done(&f, err);
    if (rc == 0)
        rc = measure(&f, &load, err);
    if (rc == 0 && load.n_sequences > 0)
        rc = sl_generate_start(g, &load, err);
    if (rc == 0)
        rc = run_all(&f, err);
    close_file(&f);
    return rc;
}
