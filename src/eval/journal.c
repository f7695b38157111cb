#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/base/json.h"
#include "src/base/mem.h"
#include "src/eval/journal.h"

struct sl_journal {
    int fd;
    char *path;
    struct sl_eval *ev; /* borrowed */
    bool empty;         /* once it has begun, whatever is in it now */
};

void sl_journal_close(struct sl_journal *j)
{
    if (j == NULL)
        return;
    if (j->fd >= 0)
        close(j->fd);
    free(j->path);
    free(j);
}

static int write_text(struct sl_journal *j, const char *text, size_t n,
                      struct sl_error *err)
{
    ssize_t done;

    for (size_t at = 0; at < n; at += (size_t)done) {
        done = write(j->fd, text + at, n - at);
        if (done < 0)
            return sl_fail_os(err, errno, "cannot write %s", j->path);
    }
    return 0;
}

/* One write, so that a line is whole or its end is missing. */
int sl_journal_write(struct sl_journal *j, const char *line, size_t n,
                     struct sl_error *err)
{
    char *text = sl_alloc_array(n + 1, 1);
    int rc;

    if (text == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "out of memory for the journal");
    memcpy(text, line, n);
    text[n] = '\n';
    rc = write_text(j, text, n + 1, err);
    free(text);
    return rc;
}

/* The text of an object, which is let go of; moved to the caller. */
static int dump(char **line, json_t *o, struct sl_error *err)
{
    *line = o ? json_dumps(o, JSON_COMPACT | JSON_PRESERVE_ORDER |
                                  JSON_REAL_PRECISION(17))
              : NULL;
    json_decref(o);
    if (*line == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "out of memory for the journal");
    return 0;
}

int sl_journal_line(char **line, const struct sl_eval *ev,
                    const struct sl_eval_task *t, const struct sl_unit *u,
                    struct sl_error *err)
{
    const struct sl_eval_file *f = &t->files[u->file];
    json_t *logp = json_array(), *said = json_array(), *o;
    char key[20], *top = sl_zalloc_array(u->q.n_logp + 1u, 1);

    for (uint32_t i = 0; top != NULL && i < u->q.n_logp; i++) {
        json_array_append_new(logp, json_real(u->q.logp[i]));
        top[i] = u->q.top[i] ? '1' : '0';
    }
    for (size_t i = 0; i < u->said.n; i++)
        json_array_append_new(said, json_integer(u->said.v[i]));
    snprintf(key, sizeof key, "%016" PRIx64, sl_unit_key(u));
    o = json_pack("{sI so sI ss so so ss}", "task", (json_int_t)(t - ev->v),
                  "file", sl_json_text(f->name), "unit",
                  (json_int_t)(u - t->units) - (json_int_t)f->first, "key", key,
                  "logp", logp, "said", said, "top", top ? top : "");
    free(top);
    return dump(line, o, err);
}

int sl_journal_add(struct sl_journal *j, const struct sl_eval_task *t,
                   const struct sl_unit *u, struct sl_error *err)
{
    char *line;
    int rc = sl_journal_line(&line, j->ev, t, u, err);

    if (rc == 0)
        rc = sl_journal_write(j, line, strlen(line), err);
    free(line);
    return rc;
}

int sl_journal_sync(struct sl_journal *j, struct sl_error *err)
{
    if (fdatasync(j->fd) != 0)
        return sl_fail_os(err, errno, "cannot write %s", j->path);
    return 0;
}

/* --- entries -------------------------------------------------------------- */

/* Whether a line says of a unit what sl_journal_line does: a name that is no
 * UTF-8 is null there, and the question tells such files apart. */
static bool is_about(const json_t *o, const struct sl_eval_file *f,
                     const struct sl_unit *u)
{
    const char *key = json_string_value(json_object_get(o, "key"));
    json_t *name = sl_json_text(f->name);
    bool same = json_equal(name, json_object_get(o, "file")) != 0;
    char wanted[20];

    json_decref(name);
    snprintf(wanted, sizeof wanted, "%016" PRIx64, sl_unit_key(u));
    return same && key != NULL && strcmp(key, wanted) == 0;
}

static bool find_unit(struct sl_journal_entry *e, struct sl_eval *ev)
{
    json_int_t task = json_integer_value(json_object_get(e->o, "task"));
    json_int_t unit = json_integer_value(json_object_get(e->o, "unit"));
    struct sl_eval_task *t;

    if (task < 0 || (size_t)task >= ev->n || unit < 0)
        return false;
    t = e->task = &ev->v[task];
    for (size_t i = 0; i < t->n_files; i++) {
        struct sl_eval_file *f = e->file = &t->files[i];

        if ((size_t)unit >= f->n)
            continue;
        e->unit = &t->units[f->first + (size_t)unit];
        if (is_about(e->o, f, e->unit))
            return true;
    }
    return false;
}

bool sl_journal_entry_init(struct sl_journal_entry *e, struct sl_eval *ev,
                           const char *line, size_t n)
{
    *e = (struct sl_journal_entry){.o = json_loadb(line, n, 0, NULL)};
    if (e->o != NULL && find_unit(e, ev))
        return true;
    sl_journal_entry_fini(e);
    return false;
}

void sl_journal_entry_fini(struct sl_journal_entry *e)
{
    json_decref(e->o);
    e->o = NULL;
}

bool sl_journal_entry_take(const struct sl_journal_entry *e)
{
    const json_t *logp = json_object_get(e->o, "logp");
    const json_t *said = json_object_get(e->o, "said");
    const char *top = json_string_value(json_object_get(e->o, "top"));
    struct sl_unit *u = e->unit;
    struct sl_error ignored;

    if (top == NULL || json_array_size(logp) != u->q.n_logp ||
        strlen(top) != u->q.n_logp)
        return false;
    for (uint32_t i = 0; i < u->q.n_logp; i++) {
        u->q.logp[i] = json_number_value(json_array_get(logp, i));
        u->q.top[i] = top[i] == '1';
    }
    u->said.n = 0;
    for (size_t i = 0; i < json_array_size(said); i++) {
        const json_t *id = json_array_get(said, i);

        if (sl_ids_add(&u->said, (int32_t)json_integer_value(id), &ignored))
            return false;
    }
    return true;
}

/* --- resuming ------------------------------------------------------------ */

/* A unit that was answered in an earlier run. */
static void resume_unit(struct sl_journal *j, json_t *o, size_t *n_found)
{
    struct sl_journal_entry e = {.o = o}; /* the caller's */

    if (!find_unit(&e, j->ev) || e.unit->done || !sl_journal_entry_take(&e))
        return;
    e.unit->done = true;
    e.file->n_left--;
    ++*n_found;
}

/* Reads what there is; *kept: bytes of it that are whole lines. */
static int read_entries(struct sl_journal *j, const char *model, char *text,
                        size_t n, size_t *kept, size_t *n_found,
                        struct sl_error *err)
{
    char *end;

    for (*kept = 0; (end = memchr(text + *kept, '\n', n - *kept)) != NULL;
         *kept = (size_t)(end - text) + 1) {
        json_t *o =
            json_loadb(text + *kept, (size_t)(end - text) - *kept, 0, NULL);
        const char *of = json_string_value(json_object_get(o, "model"));

        if (o == NULL && *kept == 0)
            break;
        if (o == NULL) /* is asked again */
            continue;
        if (*kept == 0 && (of == NULL || strcmp(of, model) != 0)) {
            json_decref(o);
            return sl_fail(err, SL_ERR_USAGE,
                           "%s is of another model file; --resume goes on with "
                           "the same one",
                           j->path);
        }
        if (*kept > 0)
            resume_unit(j, o, n_found);
        json_decref(o);
    }
    if (*kept == 0 && (end != NULL || (n > 0 && text[0] != '{')))
        return sl_fail(err, SL_ERR_CORRUPT,
                       "%s does not begin as a journal: --force begins anew",
                       j->path);
    return 0;
}

static int resume(struct sl_journal *j, const char *model, size_t *n_found,
                  struct sl_error *err)
{
    char *text;
    size_t n, kept = 0;
    int rc;

    if (access(j->path, F_OK) != 0)
        return 0;
    if (sl_file_read(&text, &n, j->path, err) != 0)
        return -1;
    rc = read_entries(j, model, text, n, &kept, n_found, err);
    free(text);
    if (rc == 0 && ftruncate(j->fd, (off_t)kept) != 0)
        rc = sl_fail_os(err, errno, "cannot write %s", j->path);
    j->empty = kept == 0;
    return rc;
}

static int write_head(struct sl_journal *j, const char *model,
                      struct sl_error *err)
{
    char *line;
    int rc = dump(&line,
                  sl_json_versioned(json_pack("{ss ss}", "sluice",
                                              PACKAGE_VERSION, "model", model)),
                  err);

    if (rc == 0)
        rc = sl_journal_write(j, line, strlen(line), err);
    free(line);
    return rc;
}

/* A journal that has more than its first line took hours, maybe: it is not
 * emptied because somebody forgot an option. */
static int check_empty(const char *folder, const char *path,
                       struct sl_error *err)
{
    static const char *const results[] = {"results.json", "results.markdown"};
    FILE *in = fopen(path, "re");
    int c, lines = 0;

    for (size_t i = 0; in == NULL && i < 2; i++) {
        char *there = sl_path_join(folder, results[i]);
        bool found = there != NULL && access(there, F_OK) == 0;

        free(there);
        if (found)
            return sl_fail(err, SL_ERR_USAGE,
                           "%s/%s is there already: give another --output, or "
                           "--force to replace it",
                           folder, results[i]);
    }
    if (in == NULL)
        return 0;
    while (lines < 2 && (c = getc(in)) != EOF)
        lines += c == '\n';
    fclose(in);
    if (lines < 2)
        return 0;
    return sl_fail(err, SL_ERR_USAGE,
                   "%s has the answers of an earlier run: give --resume to go "
                   "on with them, or --force to begin anew",
                   path);
}

int sl_journal_open(struct sl_journal **out, const char *folder,
                    const char *model, enum sl_journal_mode mode,
                    struct sl_eval *ev, size_t *n_found, struct sl_error *err)
{
    struct sl_journal *j = sl_zalloc_array(1, sizeof *j);
    int rc = 0;

    *n_found = 0;
    if (j == NULL ||
        (j->path = sl_path_join(folder, "journal.jsonl")) == NULL) {
        free(j);
        return sl_fail(err, SL_ERR_NOMEM, "out of memory for the journal");
    }
    j->ev = ev;
    j->empty = true;
    j->fd = -1;
    if (mode == SL_JOURNAL_BEGIN)
        rc = check_empty(folder, j->path, err);
    if (rc == 0)
        j->fd = open(j->path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (rc == 0 && j->fd < 0)
        rc = sl_fail_os(err, errno, "cannot write %s", j->path);
    if (rc == 0 && mode == SL_JOURNAL_RESUME)
        rc = resume(j, model, n_found, err);
    if (rc != 0) {
        sl_journal_close(j);
        return -1;
    }
    *out = j;
    return 0;
}

int sl_journal_begin(struct sl_journal *j, const char *model,
                     struct sl_error *err)
{
    if (!j->empty)
        return 0;
    if (ftruncate(j->fd, 0) != 0)
        return sl_fail_os(err, errno, "cannot write %s", j->path);
    return write_head(j, model, err);
}
