#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/base/mem.h"
#include "src/base/newfile.h"
#include "src/convert/convert_impl.h"

/* The journal, one line each:
 *     sluice-convert 2 STAMP
 *     packed SECTION PLANES    (before the done of a compressed stage)
 *     odd MATRIX COUNT OF      (values that are no numbers)
 *     sums N                   (what was read of files' members, up to then, of
 *                              those of which something is missing; N times:)
 *     sum SHARD SOURCE STAMP OFFSET BYTES CRC
 *     done SECTION XXH3 TIMES BYTES NAME
 *     undo SECTION             (what it is made of has changed)
 * A line counts when its end of line is there. */
#define JOURNAL_HEAD "sluice-convert 2 "

/* Of a section, as the journal tells it. */
enum told {
    NOTHING,
    DONE,
    MOVED,   /* done, of the same tensors in files that are others now */
    CHANGED, /* done, of other bytes */
};

/* A journal on the way in. */
struct reading {
    struct sl_convert *cv;
    enum told *told;             /* (n_sections) */
    struct sl_convert_sum *sums; /* of the list that is being read */
    size_t n_sums, want;
};

static bool exists(const char *path, uint64_t *bytes)
{
    struct stat st;

    if (lstat(path, &st) != 0)
        return false;
    if (bytes != NULL)
        *bytes = (uint64_t)st.st_size;
    return true;
}

/* A list counts when all of it is there. */
static bool take_sums(struct reading *r, const char *line)
{
    if (sscanf(line, "sums %zu", &r->want) != 1)
        return false;
    r->n_sums = 0;
    if (r->want == 0)
        r->cv->n_sums = 0;
    return true;
}

static bool take_sum(struct reading *r, const char *line)
{
    struct sl_convert *cv = r->cv;
    struct sl_convert_sum s, *old = cv->sums;
    void *grown;

    if (sscanf(line, "sum %zu %zu %" SCNx64 " %" SCNu64 " %" SCNu64 " %" SCNx32,
               &s.shard, &s.src, &s.stamp, &s.piece.off, &s.piece.bytes,
               &s.piece.crc) != 6 ||
        s.shard >= cv->ckpt.n_shards ||
        s.src >= cv->ckpt.shards[s.shard].n_srcs)
        return false;
    s.stale = false; /* find_stale */
    grown = realloc(r->sums, (r->n_sums + 1) * sizeof s);
    if (grown == NULL)
        return false;
    r->sums = grown;
    r->sums[r->n_sums++] = s;
    if (r->n_sums < r->want)
        return true;
    cv->sums = r->sums;
    cv->n_sums = r->n_sums;
    r->sums = old;
    r->n_sums = r->want = 0;
    return true;
}

static bool take_odd(struct sl_convert *cv, const char *line)
{
    unsigned long long count, of;
    size_t i;

    if (sscanf(line, "odd %zu %llu %llu", &i, &count, &of) != 3 ||
        i >= cv->n_matrices)
        return false;
    cv->result->tensors[i].error.n_not_finite = count;
    cv->result->tensors[i].error.n = of;
    return true;
}

static bool take_packed(struct sl_convert *cv, const char *line)
{
    size_t section;
    uint32_t planes;

    if (sscanf(line, "packed %zu %" SCNu32, &section, &planes) != 2 ||
        section >= cv->layout.n_sections || planes > 4 ||
        cv->layout.sections[section].table_bytes == 0)
        return false;
    cv->layout.sections[section].planes = planes;
    return true;
}

static bool take_done(struct reading *r, const char *line)
{
    const struct sl_layout *l = &r->cv->layout;
    const struct sl_convert_stamp *now;
    struct sl_convert_stamp then;
    size_t section;
    uint64_t xxh3;
    char name[128];

    if (sscanf(line, "done %zu %" SCNx64 " %" SCNx64 " %" SCNx64 " %127[^\n]",
               &section, &xxh3, &then.times, &then.bytes, name) != 5 ||
        section >= l->n_sections ||
        strcmp(name, l->sections[section].name) != 0)
        return false;
    now = &r->cv->stamps[section];
    r->told[section] = then.times == now->times   ? DONE
                       : then.bytes == now->bytes ? MOVED
                                                  : CHANGED;
    l->sections[section].xxh3 = xxh3;
    return true;
}

static bool take_undo(struct reading *r, const char *line)
{
    size_t section;

    if (sscanf(line, "undo %zu", &section) != 1 ||
        section >= r->cv->layout.n_sections)
        return false;
    r->told[section] = NOTHING;
    return true;
}

/* One line; false when it does not fit this file. */
static bool take_line(struct reading *r, const char *line)
{
    if (r->n_sums < r->want)
        return take_sum(r, line);
    return take_sums(r, line) || take_odd(r->cv, line) ||
           take_packed(r->cv, line) || take_done(r, line) || take_undo(r, line);
}

/* Of the list that counts. */
static int find_stale(struct sl_convert *cv, struct sl_error *err)
{
    uint64_t now = 0;

    for (size_t i = 0; i < cv->n_sums; i++) {
        struct sl_convert_sum *s = &cv->sums[i];
        bool same = i > 0 && s->shard == s[-1].shard && s->src == s[-1].src;

        if (!same &&
            sl_convert_stamp_src(&now, cv->ckpt.shards[s->shard].srcs[s->src],
                                 err) != 0)
            return -1;
        s->stale = s->stamp != now;
    }
    return 0;
}

static bool overlaps(const struct sl_convert *cv,
                     const struct sl_convert_sum *s,
                     const struct sl_ckpt_tensor *t, size_t shard)
{
    return s->stale && s->shard == shard &&
           cv->ckpt.shards[shard].srcs[s->src] == t->src &&
           s->piece.off < t->off + sl_ckpt_extent(t) &&
           t->off < s->piece.off + s->piece.bytes;
}

/* Was it made of what nobody had compared, of files that are others now? */
static bool is_doubtful(const struct sl_convert *cv, size_t matrix)
{
    const struct sl_merge *m = &cv->matrices[matrix].merge;
    size_t shard;

    for (size_t i = 0; i < sl_merge_n_parts(m); i++) {
        const struct sl_ckpt_tensor *t = sl_merge_part(m, i, &shard);

        for (size_t k = 0; k < cv->n_sums; k++) {
            if (overlaps(cv, &cv->sums[k], t, shard))
                return true;
        }
    }
    return false;
}

static void doubt(struct reading *r)
{
    size_t section[3];

    for (size_t i = 0; i < r->cv->n_matrices; i++) {
        unsigned n = sl_convert_sections_of(section, r->cv, i);

        if (!is_doubtful(r->cv, i))
            continue;
        for (unsigned k = 0; k < n; k++)
            if (r->told[section[k]] == MOVED)
                r->told[section[k]] = CHANGED;
    }
}

/* What the earlier run had summed. */
static int put_sums(struct sl_convert *cv, struct sl_error *err)
{
    for (size_t i = 0; i < cv->n_sums; i++) {
        const struct sl_convert_sum *s = &cv->sums[i];
        struct sl_sums *sums =
            sl_src_sums(cv->ckpt.shards[s->shard].srcs[s->src]);

        if (!s->stale && sums != NULL && sl_sums_put(sums, &s->piece, err) != 0)
            return -1;
    }
    return 0;
}

/* What is made of the same bytes is done; nothing of it may be the checkpoint
 * that somebody took by mistake. */
static int settle(struct reading *r, size_t *n_changed, struct sl_error *err)
{
    struct sl_convert *cv = r->cv;
    size_t n_done = 0;

    if (find_stale(cv, err) != 0)
        return -1;
    doubt(r);
    *n_changed = 0;
    for (size_t i = 0; i < cv->layout.n_sections; i++) {
        cv->section_done[i] = r->told[i] == DONE || r->told[i] == MOVED;
        n_done += cv->section_done[i];
        *n_changed += r->told[i] == CHANGED;
    }
    if (*n_changed > 0 && n_done == 0)
        return sl_fail(err, SL_ERR_USAGE,
                       "%s was begun from another source, or one whose files "
                       "have changed: nothing of it can be kept; begin again "
                       "with --force",
                       cv->partial);
    return put_sums(cv, err);
}

/* What is made again does not count any more, whatever comes of it. */
static void forget(struct sl_convert *cv, const struct reading *r)
{
    for (size_t i = 0; i < cv->n_matrices; i++) {
        if (r->told[cv->layout.matrices[i].section] != CHANGED)
            continue;
        cv->result->tensors[i].error.n_not_finite = 0;
        cv->result->tensors[i].error.n = 0;
    }
    for (size_t i = 0; i < cv->layout.n_sections; i++)
        if (r->told[i] == CHANGED)
            cv->layout.sections[i].planes = 0;
}

/* Reads the journal up to its last whole line, or one that is damaged; *end is
 * where that ends, 0 where there is not even a first one. */
static int read_journal(struct reading *r, uint64_t stamp, long *end,
                        struct sl_error *err)
{
    struct sl_convert *cv = r->cv;
    FILE *f = fopen(cv->journal, "re");
    char line[256];
    uint64_t found;
    int rc = 0;

    if (f == NULL)
        return sl_fail_os(err, errno,
                          "%s: cannot open; without it %s cannot be resumed, "
                          "begin again with --force",
                          cv->journal, cv->partial);
    *end = 0;
    if (fgets(line, sizeof line, f) == NULL || strchr(line, '\n') == NULL)
        goto out; /* it had not begun: nothing is known to be done */
    if (sscanf(line, JOURNAL_HEAD "%" SCNx64 "\n", &found) != 1 ||
        found != stamp) {
        rc = sl_fail(err, SL_ERR_USAGE,
                     "%s was begun from another source, with other options or "
                     "by another version: it cannot be resumed; begin again "
                     "with --force",
                     cv->partial);
        goto out;
    }
    *end = ftell(f);
    /* What follows a damaged line is done again. */
    while (fgets(line, sizeof line, f) != NULL && strchr(line, '\n') != NULL &&
           take_line(r, line)) {
        if (r->n_sums >= r->want)
            *end = ftell(f);
    }
out:
    fclose(f);
    return rc;
}

/* Everything that the journal tells, which is cut behind that. */
static int take_journal(struct reading *r, uint64_t stamp, long *end,
                        size_t *n_changed, struct sl_error *err)
{
    struct sl_convert *cv = r->cv;
    int rc;

    r->told = sl_zalloc_array(cv->layout.n_sections, sizeof *r->told);
    if (r->told == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory to read %s", cv->journal);
    rc = read_journal(r, stamp, end, err);
    if (rc == 0)
        rc = settle(r, n_changed, err);
    if (rc == 0 && truncate(cv->journal, *end) != 0)
        rc = sl_fail_os(err, errno, "%s: cannot cut to %ld bytes", cv->journal,
                        *end);
    return rc;
}

static int flush_journal(const struct sl_partial *p, struct sl_error *err)
{
    if (fflush(p->journal) != 0 || sl_sync(fileno(p->journal)) != 0)
        return sl_fail_os(err, errno, "%s: cannot write", p->cv->journal);
    return 0;
}

static void note_changed(struct sl_partial *p, const struct reading *r,
                         size_t n_changed)
{
    struct sl_convert *cv = p->cv;

    sl_log(cv->o->log, SL_LOG_WARN,
           "%zu of the finished parts of %s are of files that have changed "
           "since: they are made again, the others kept",
           n_changed, cv->partial);
    forget(cv, r);
    for (size_t i = 0; i < cv->layout.n_sections; i++)
        if (r->told[i] == CHANGED)
            fprintf(p->journal, "undo %zu\n", i);
}

static int open_journal(struct sl_partial *p, uint64_t stamp, bool resume,
                        struct sl_error *err)
{
    struct reading r = {.cv = p->cv};
    const char *path = p->cv->journal;
    size_t n_changed = 0;
    long end = 0;
    int rc = 0;

    if (resume)
        rc = take_journal(&r, stamp, &end, &n_changed, err);
    if (rc == 0) {
        p->journal = fopen(path, end > 0 ? "ae" : "we");
        if (p->journal == NULL)
            rc = sl_fail_os(err, errno, "%s: cannot open for writing", path);
    }
    if (rc == 0) {
        p->begun = true;
        if (end == 0)
            fprintf(p->journal, JOURNAL_HEAD "%016" PRIx64 "\n", stamp);
        if (n_changed > 0)
            note_changed(p, &r, n_changed);
        rc = flush_journal(p, err);
    }
    free(r.told);
    free(r.sums);
    return rc;
}

void sl_partial_note(struct sl_partial *p, size_t section)
{
    const struct sl_model_section *s = &p->cv->layout.sections[section];
    const struct sl_convert_stamp *of = &p->cv->stamps[section];

    if (s->planes > 0)
        fprintf(p->journal, "packed %zu %" PRIu32 "\n", section, s->planes);
    for (size_t i = 0; i < p->cv->n_matrices; i++) {
        const struct sl_pack_error *e = &p->cv->result->tensors[i].error;

        if (p->cv->layout.matrices[i].section == section && e->n_not_finite > 0)
            fprintf(p->journal, "odd %zu %" PRIu64 " %" PRIu64 "\n", i,
                    e->n_not_finite, e->n);
    }
    fprintf(p->journal,
            "done %zu %016" PRIx64 " %016" PRIx64 " %016" PRIx64 " %s\n",
            section, s->xxh3, of->times, of->bytes, s->name);
}

struct source_pieces {
    struct sl_sums_piece *piece;
    size_t n;
    uint64_t stamp;
};

static int take_pieces(struct source_pieces *s, struct sl_src *src,
                       struct sl_error *err)
{
    struct sl_sums *sums = sl_src_sums(src);

    if (sums == NULL)
        return 0;
    if (sl_convert_stamp_src(&s->stamp, src, err) != 0)
        return -1;
    return sl_sums_pieces(sums, &s->piece, &s->n, err);
}

int sl_partial_note_sums(struct sl_partial *p, struct sl_error *err)
{
    const struct sl_ckpt *c = &p->cv->ckpt;
    struct source_pieces *of;
    size_t n_srcs = 0, n = 0, at = 0;
    int rc = 0;

    for (size_t i = 0; i < c->n_shards; i++)
        n_srcs += c->shards[i].n_srcs;
    of = sl_zalloc_array(n_srcs, sizeof *of);
    if (of == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory for %zu sources", n_srcs);
    for (size_t i = 0; i < c->n_shards && rc == 0; i++) {
        for (size_t k = 0; k < c->shards[i].n_srcs && rc == 0; k++, at++) {
            rc = take_pieces(&of[at], c->shards[i].srcs[k], err);
            n += of[at].n;
        }
    }
    if (rc == 0)
        fprintf(p->journal, "sums %zu\n", n);
    at = 0;
    for (size_t i = 0; i < c->n_shards; i++) {
        for (size_t k = 0; k < c->shards[i].n_srcs; k++, at++) {
            for (size_t j = 0; j < of[at].n && rc == 0; j++)
                fprintf(p->journal,
                        "sum %zu %zu %016" PRIx64 " %" PRIu64 " %" PRIu64
                        " %08" PRIx32 "\n",
                        i, k, of[at].stamp, of[at].piece[j].off,
                        of[at].piece[j].bytes, of[at].piece[j].crc);
            free(of[at].piece);
        }
    }
    free(of);
    return rc;
}

int sl_partial_sync(struct sl_partial *p, struct sl_error *err)
{
    if (flush_journal(p, err) != 0)
        return -1;
    p->worthwhile = true;
    return 0;
}

static int open_locked(struct sl_partial *p, bool resume, struct sl_error *err)
{
    const char *path = p->cv->partial;

    p->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (p->lock_fd < 0)
        return sl_fail_os(err, errno, "%s: cannot create", path);
    if (sl_newfile_lock(p->lock_fd, path, err) != 0) {
        close(p->lock_fd);
        p->lock_fd = -1;
        return -1;
    }
    if (!resume && ftruncate(p->lock_fd, 0) != 0)
        return sl_fail_os(err, errno, "%s: cannot empty it", path);
    return 0;
}

/* What may be done with the files that are there. */
static int check_files(const struct sl_convert *cv, bool *resume,
                       struct sl_error *err)
{
    const struct sl_convert_options *o = cv->o;
    uint64_t bytes;

    *resume = false;
    if (sl_newfile_check_kind(cv->output, err) != 0)
        return -1;
    if (exists(cv->output, NULL) && !o->force)
        return sl_fail(err, SL_ERR_USAGE,
                       "%s exists; give --force to replace it, or another -o",
                       cv->output);
    if (!exists(cv->partial, &bytes) || (o->force && !o->resume))
        return 0;
    if (!o->resume)
        return sl_fail(err, SL_ERR_USAGE,
                       "%s is there from a conversion that did not finish: "
                       "give --resume to go on with it, or --force to begin "
                       "again",
                       cv->partial);
    *resume = exists(cv->journal, NULL);
    if (*resume && bytes != cv->layout.file_bytes)
        return sl_fail(err, SL_ERR_USAGE,
                       "%s has %" PRIu64 " bytes, this conversion makes "
                       "%" PRIu64 ": it was begun with other options; begin "
                       "again with --force",
                       cv->partial, bytes, cv->layout.file_bytes);
    return 0;
}

int sl_partial_open(struct sl_partial *p, struct sl_convert *cv,
                    struct sl_error *err)
{
    uint64_t stamp = 0;
    bool resume;

    *p = (struct sl_partial){.cv = cv, .lock_fd = -1};
    if (check_files(cv, &resume, err) != 0 ||
        sl_newfile_check_space(cv->partial, cv->output, cv->layout.file_bytes,
                               err) != 0 ||
        sl_convert_stamp(&stamp, cv, err) != 0 ||
        sl_convert_stamp_sections(cv, err) != 0 ||
        open_locked(p, resume, err) != 0)
        return -1;
    p->worthwhile = resume;
    if (open_journal(p, stamp, resume, err) != 0 ||
        sl_newfile_reserve(p->lock_fd, cv->partial, cv->layout.file_bytes,
                           err) != 0)
        return -1;
    for (size_t i = 0; i < cv->layout.n_sections; i++) {
        if (cv->section_done[i])
            p->done_bytes += cv->layout.sections[i].bytes;
    }
    return 0;
}

int sl_partial_commit(struct sl_partial *p, struct sl_out *out,
                      struct sl_error *err)
{
    struct sl_convert *cv = p->cv;
    uint8_t *header;
    uint64_t sum;
    int rc;

    if (sl_layout_header(&cv->layout, &header, err) != 0)
        return -1;
    sl_out_begin(out, 0);
    rc = sl_out_append(out, header, (size_t)cv->layout.header_bytes, err);
    free(header);
    if (rc != 0 || sl_out_end(out, cv->layout.header_bytes, &sum, err) != 0 ||
        sl_out_sync(out, err) != 0)
        return -1;
    if (sl_newfile_commit(p->lock_fd, cv->partial, cv->output, err) != 0)
        return -1;
    unlink(cv->journal);
    return 0;
}

void sl_partial_close(struct sl_partial *p, bool failed, bool interrupted)
{
    if (p->journal != NULL)
        fclose(p->journal);
    if (failed && p->lock_fd >= 0 && !p->worthwhile && !interrupted) {
        unlink(p->cv->partial);
        unlink(p->cv->journal);
    }
    if (p->lock_fd >= 0)
        close(p->lock_fd);
}
