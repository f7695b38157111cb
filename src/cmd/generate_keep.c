#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <xxhash.h>

#include "src/base/lines.h"
#include "src/base/mem.h"
#include "src/base/outfile.h"
#include "src/base/paths.h"
#include "src/cmd/generate.h"

/* In the folder of the answers, one line for each that is whole:
 *     XXH3 FILE
 * the sum being that of the query's id and text. --resume reads it. */
#define RECORD ".sluice-answers"

/* An id, or the sum of a query, and how often it came. */
struct seen {
    unsigned n;
    char key[];
};

struct sl_keeper {
    struct sl_generate *g;
    void *ids;     /* struct seen, by id: queries of this run */
    void *done;    /* struct seen, by sum: whole answers of earlier ones */
    void *known;   /* struct seen, by id: those that are in the record */
    void *files;   /* struct seen, by name: those of the record */
    bool said_old; /* that answers of an earlier run are kept */
};

static int compare(const void *a, const void *b)
{
    return strcmp(((const struct seen *)a)->key, ((const struct seen *)b)->key);
}

/* NULL where there is none and it is not to be made, or no memory. */
static struct seen *find(void **tree, const char *key, bool make)
{
    size_t n = sizeof(struct seen) + strlen(key) + 1;
    struct seen *s = calloc(1, n), **at;

    if (s == NULL)
        return NULL;
    memcpy(s->key, key, n - sizeof(struct seen));
    at = make ? tsearch(s, tree, compare) : tfind(s, tree, compare);
    if (at == NULL || *at != s)
        free(s);
    return at != NULL ? *at : NULL;
}

static void print_sum(char text[17], const struct sl_query *q)
{
    uint64_t id = q->id != NULL ? XXH3_64bits(q->id, strlen(q->id)) : 0;

    snprintf(text, 17, "%016" PRIx64,
             (uint64_t)XXH3_64bits_withSeed(q->text, q->n_text, id));
}

/* --- the record ------------------------------------------------------------
 */

static char *record_path(const struct sl_generate *g)
{
    char *path;

    if (asprintf(&path, "%s/%s", g->o->output_path, RECORD) < 0)
        return NULL;
    return path;
}

/* "ID.txt" and "ID-2.txt" are of ID. */
static void know(struct sl_keeper *k, char *file)
{
    char *end = strrchr(file, '.');
    size_t digits;

    if (end == NULL)
        return;
    *end = '\0';
    find(&k->known, file, true);
    end = strrchr(file, '-');
    if (end == NULL || end[1] == '\0')
        return;
    digits = strspn(end + 1, "0123456789");
    if (end[1 + digits] != '\0')
        return;
    *end = '\0';
    find(&k->known, file, true);
}

/* An answer counts when its file is still there. */
static int take_line(struct sl_keeper *k, char *line)
{
    char *file = strchr(line, ' '), *path;
    struct seen *of_file, *done;
    struct stat st;
    bool there;

    if (file == NULL)
        return 0;
    *file++ = '\0';
    of_file = find(&k->files, file, true);
    if (of_file == NULL ||
        asprintf(&path, "%s/%s", k->g->o->output_path, file) < 0)
        return -1;
    there = stat(path, &st) == 0 && S_ISREG(st.st_mode);
    free(path);
    if (!there || of_file->n++ > 0)
        return 0;
    done = find(&k->done, line, true);
    if (done == NULL)
        return -1;
    done->n++;
    know(k, file);
    return 0;
}

/* The last line that names a file says whose answer is in it. */
static int take_lines(struct sl_keeper *k, char *text, size_t n)
{
    while (n > 0) {
        text[--n] = '\0'; /* the line end */
        while (n > 0 && text[n - 1] != '\n')
            n--;
        if (take_line(k, text + n) != 0)
            return -1;
    }
    return 0;
}

static int read_record(struct sl_keeper *k, struct sl_error *err)
{
    char *path = record_path(k->g), *text;
    struct sl_lines in = {.stop_fd = -1};
    size_t n;
    int rc;

    if (path == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "out of memory");
    in.fd = open(path, O_RDONLY | O_CLOEXEC);
    if (in.fd < 0) {
        rc = errno == ENOENT ? 0
                             : sl_fail_os(err, errno, "%s: cannot open", path);
        free(path);
        return rc;
    }
    rc = sl_lines_rest(&in, &text, &n, err);
    if (rc == 0 && take_lines(k, text, n) != 0)
        rc = sl_fail(err, SL_ERR_NOMEM, "%s: out of memory", path);
    close(in.fd);
    sl_lines_fini(&in);
    free(path);
    return rc;
}

/* What cannot be noted is asked again by --resume, which is no reason to stop
 * now. */
static void note(const struct sl_generate *g, const struct sl_query *q,
                 const char *file)
{
    char *path = record_path(g), sum[17];
    FILE *f = path != NULL ? fopen(path, "ae") : NULL;

    print_sum(sum, q);
    if (f != NULL) {
        fprintf(f, "%s %s\n", sum, file);
        fclose(f);
    }
    free(path);
}

/* --- answers ---------------------------------------------------------------
 */

int sl_keeper_create(struct sl_keeper **out, struct sl_generate *g,
                     struct sl_error *err)
{
    struct sl_keeper *k = calloc(1, sizeof *k);

    if (k == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "out of memory");
    k->g = g;
    *out = k;
    if (!g->o->resume || read_record(k, err) == 0)
        return 0;
    sl_keeper_destroy(k);
    *out = NULL;
    return -1;
}

void sl_keeper_destroy(struct sl_keeper *k)
{
    if (k == NULL)
        return;
    tdestroy(k->ids, free);
    tdestroy(k->done, free);
    tdestroy(k->known, free);
    tdestroy(k->files, free);
    free(k);
}

bool sl_keeper_has(struct sl_keeper *k, const struct sl_query *q)
{
    char sum[17], *path;
    struct seen *s;
    struct stat st;
    bool there;

    if (k == NULL || !k->g->o->resume)
        return false;
    print_sum(sum, q);
    s = find(&k->done, sum, false);
    if (s != NULL && s->n > 0) {
        s->n--;
        if (q->id != NULL && (s = find(&k->ids, q->id, true)) != NULL)
            s->n++;
        return true;
    }
    /* A file of the query's name that no record knows. */
    if (q->id == NULL || find(&k->known, q->id, false) != NULL)
        return false;
    s = find(&k->ids, q->id, true);
    path = s != NULL
               ? sl_outfile_path(k->g->o->output_path, q->id, false, s->n + 1)
               : NULL;
    there = path != NULL && stat(path, &st) == 0 && S_ISREG(st.st_mode);
    free(path);
    if (there)
        s->n++;
    return there;
}

/* An answer has another name than its query's id alone. */
static void tell(struct sl_keeper *k, const struct sl_query *q, bool again,
                 const char *path)
{
    const struct sl_log *log = k->g->o->run.log;

    if (again)
        sl_log(log, SL_LOG_INFO, "id '%s' comes again: this answer is in %s",
               q->id, path);
    else if (!k->said_old)
        sl_log(log, SL_LOG_INFO,
               "%s has answers of an earlier run, which stay: this one is in "
               "%s (--force replaces them)",
               k->g->o->output_path, path);
    k->said_old |= !again;
}

/* --force replaces answers, not what they are made from. */
static int check_replaced(const struct sl_keeper *k,
                          const struct sl_outfile *out, struct sl_error *err)
{
    const struct sl_generate_options *o = k->g->o;
    char *path = sl_outfile_path(o->output_path, out->id, out->cut,
                                 out->number > 0 ? out->number : 1);
    struct sl_paths paths = {0};
    int rc;

    if (path == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "out of memory");
    sl_generate_paths(&paths, o);
    sl_paths_write(&paths, "the answer", path);
    rc = sl_paths_end(&paths, err);
    free(path);
    return rc;
}

int sl_keeper_write(struct sl_keeper *k, const struct sl_query *q,
                    const char *text, size_t n, bool cut, struct sl_error *err)
{
    struct sl_outfile o = {
        .folder = k->g->o->output_path,
        .id = q->id,
        .query = q->text,
        .n_query = q->n_text,
        .cut = cut,
        .replace = k->g->o->force,
    };
    struct seen *s = q->id != NULL ? find(&k->ids, q->id, true) : NULL;
    char *path = NULL;
    unsigned number = 1;

    if (q->id != NULL && s == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "out of memory");
    if (s != NULL && !cut)
        o.number = ++s->n;
    if (s != NULL && o.replace && check_replaced(k, &o, err) != 0)
        return -1;
    if (sl_outfile_write(&path, &number, &o, text, n, err) != 0)
        return -1;
    if (path != NULL && s != NULL && number > 1)
        tell(k, q, !cut && s->n > 1, path);
    if (s != NULL && !cut && number > s->n)
        s->n = number;
    if (path != NULL && !cut && q->line >= 0)
        note(k->g, q, strrchr(path, '/') + 1);
    free(path);
    return 0;
}
