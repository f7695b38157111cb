#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <xxhash.h>

#include "src/base/bytes.h"
#include "src/base/newfile.h"
#include "src/convert/convert_impl.h"

/* The journal, one line each:
 *     sluice-convert 1 FINGERPRINT
 *     packed SECTION PLANES    (before the done of a compressed stage)
 *     done SECTION XXH3 NAME
 *     odd MATRIX COUNT OF      (values that are no numbers)
 *     sums                     (what was read of files' members, up to then:)
 *     sum SHARD SOURCE OFFSET BYTES CRC
 * A line counts when its end of line is there. */
#define JOURNAL_HEAD "sluice-convert 1 "

struct print {
    XXH3_state_t *state;
};

static void add(struct print *p, const void *data, size_t n)
{
    XXH3_64bits_update(p->state, data, n);
}

static void add_u64(struct print *p, uint64_t v)
{
    uint8_t bytes[8];

    sl_store_u64(bytes, v);
    add(p, bytes, sizeof bytes);
}

static void add_string(struct print *p, const char *s)
{
    add(p, s, strlen(s) + 1);
}

/* A source is known by its files' names, sizes and times, and by what lies
 * where in them. */
static void add_tensor(struct print *p, const struct sl_ckpt_tensor *t)
{
    struct sl_src_place at = sl_src_where(t->src, t->off);
    struct stat st;

    add_string(p, t->name);
    add_string(p, at.file);
    add_u64(p, (uint64_t)t->dtype);
    add_u64(p, at.off);
    add_u64(p, at.bytes);
    for (uint32_t i = 0; i < t->n_dims; i++)
        add_u64(p, t->shape[i]);
    if (stat(at.file, &st) != 0)
        return;
    add_u64(p, (uint64_t)st.st_mtim.tv_sec);
    add_u64(p, (uint64_t)st.st_mtim.tv_nsec);
}

static void add_hparams(struct print *p, const struct sl_hparams *hp)
{
    const struct sl_special_ids *s = &hp->text.special;
    const uint32_t numbers[] = {
        hp->n_layers,
        hp->hidden,
        hp->inner,
        hp->n_heads,
        hp->vocab,
        hp->max_positions,
        hp->position_2d,
        hp->glu,
        (uint32_t)hp->rotary,
        (uint32_t)hp->text.whitespace,
        hp->text.n_image_tokens,
        hp->text.max_blank,
        hp->text.byte_fallback,
        hp->text.n_tokens,
    };
    const int32_t ids[] = {s->mask, s->gmask, s->smask,  s->eod, s->sop,
                           s->eop,  s->enc,   s->dblock, s->eos, s->unk};

    add(p, numbers, sizeof numbers);
    add(p, ids, sizeof ids);
    add(p, &hp->norm_eps, sizeof hp->norm_eps);
}

/* Everything that the bytes of the model file follow from. */
static int fingerprint(uint64_t *sum, const struct sl_convert *cv,
                       struct sl_error *err)
{
    struct print p = {XXH3_createState()};

    if (p.state == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory for a checksum");
    XXH3_64bits_reset(p.state);
    add_string(&p, PACKAGE_VERSION);
    add_string(&p, cv->name);
    add_string(&p, cv->quant);
    add_hparams(&p, &cv->hp);
    add_u64(&p, (uint64_t)cv->o->compress);
    add_u64(&p, cv->adapter_sum);
    add_u64(&p, cv->tokenizer_bytes);
    add(&p, cv->tokenizer, cv->tokenizer_bytes);
    for (size_t i = 0; i < cv->n_matrices; i++) {
        const struct sl_model_matrix *m = &cv->layout.matrices[i];

        add_u64(&p, (uint64_t)m->geom.fmt);
        add_u64(&p, m->geom.group_cols);
        add_u64(&p, m->off);
        add_u64(&p, (uint64_t)cv->matrices[i].rule);
    }
    for (size_t shard = 0; shard < cv->ckpt.n_shards; shard++) {
        for (size_t i = 0; i < cv->ckpt.shards[shard].n_tensors; i++)
            add_tensor(&p, &cv->ckpt.shards[shard].tensors[i]);
    }
    *sum = XXH3_64bits_digest(p.state);
    XXH3_freeState(p.state);
    return 0;
}

static bool exists(const char *path, uint64_t *bytes)
{
    struct stat st;

    if (lstat(path, &st) != 0)
        return false;
    if (bytes != NULL)
        *bytes = (uint64_t)st.st_size;
    return true;
}

static bool take_sum(struct sl_convert *cv, const char *line)
{
    struct sl_convert_sum s;
    void *grown;

    if (strcmp(line, "sums\n") == 0) {
        cv->n_sums = 0;
        return true;
    }
    if (sscanf(line, "sum %zu %zu %" SCNu64 " %" SCNu64 " %" SCNx32, &s.shard,
               &s.src, &s.piece.off, &s.piece.bytes, &s.piece.crc) != 5 ||
        s.shard >= cv->ckpt.n_shards ||
        s.src >= cv->ckpt.shards[s.shard].n_srcs)
        return false;
    grown = realloc(cv->sums, (cv->n_sums + 1) * sizeof s);
    if (grown == NULL)
        return false;
    cv->sums = grown;
    cv->sums[cv->n_sums++] = s;
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

/* What the earlier run had summed. */
static int put_sums(struct sl_convert *cv, struct sl_error *err)
{
    for (size_t i = 0; i < cv->n_sums; i++) {
        const struct sl_convert_sum *s = &cv->sums[i];
        struct sl_sums *sums =
            sl_src_sums(cv->ckpt.shards[s->shard].srcs[s->src]);

        if (sums != NULL && sl_sums_put(sums, &s->piece, err) != 0)
            return -1;
    }
    return 0;
}

/* One line; false when it does not fit this file. */
static bool take_line(struct sl_convert *cv, const char *line)
{
    char name[128];
    size_t section;
    uint64_t xxh3;
    uint32_t planes;

    if (take_sum(cv, line) || take_odd(cv, line))
        return true;
    if (sscanf(line, "packed %zu %" SCNu32, &section, &planes) == 2) {
        if (section >= cv->layout.n_sections || planes > 4 ||
            cv->layout.sections[section].table_bytes == 0)
            return false;
        cv->layout.sections[section].planes = planes;
        return true;
    }
    if (sscanf(line, "done %zu %" SCNx64 " %127[^\n]", &section, &xxh3, name) !=
            3 ||
        section >= cv->layout.n_sections ||
        strcmp(name, cv->layout.sections[section].name) != 0)
        return false;
    cv->section_done[section] = true;
    cv->layout.sections[section].xxh3 = xxh3;
    return true;
}

/* Reads the journal up to its last whole line, or one that is damaged; *end is
 * where that ends, 0 where there is not even a first one. */
static int read_journal(struct sl_convert *cv, uint64_t print, long *end,
                        struct sl_error *err)
{
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
        found != print) {
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
           take_line(cv, line))
        *end = ftell(f);
    rc = put_sums(cv, err);
out:
    fclose(f);
    return rc;
}

static int open_journal(struct sl_partial *p, uint64_t print, bool resume,
                        struct sl_error *err)
{
    const char *path = p->cv->journal;
    long end = 0;

    if (resume) {
        if (read_journal(p->cv, print, &end, err) != 0)
            return -1;
        if (truncate(path, end) != 0)
            return sl_fail_os(err, errno, "%s: cannot cut to %ld bytes", path,
                              end);
    }
    p->journal = fopen(path, end > 0 ? "ae" : "we");
    if (p->journal == NULL)
        return sl_fail_os(err, errno, "%s: cannot open for writing", path);
    p->begun = true;
    if (end > 0)
        return 0;
    fprintf(p->journal, JOURNAL_HEAD "%016" PRIx64 "\n", print);
    if (fflush(p->journal) != 0 || sl_sync(fileno(p->journal)) != 0)
        return sl_fail_os(err, errno, "%s: cannot write", path);
    return 0;
}

void sl_partial_note(struct sl_partial *p, size_t section)
{
    const struct sl_model_section *s = &p->cv->layout.sections[section];

    if (s->planes > 0)
        fprintf(p->journal, "packed %zu %" PRIu32 "\n", section, s->planes);
    for (size_t i = 0; i < p->cv->n_matrices; i++) {
        const struct sl_pack_error *e = &p->cv->result->tensors[i].error;

        if (p->cv->layout.matrices[i].section == section && e->n_not_finite > 0)
            fprintf(p->journal, "odd %zu %" PRIu64 " %" PRIu64 "\n", i,
                    e->n_not_finite, e->n);
    }
    fprintf(p->journal, "done %zu %016" PRIx64 " %s\n", section, s->xxh3,
            s->name);
}

static int note_sums(struct sl_partial *p, struct sl_error *err)
{
    const struct sl_ckpt *c = &p->cv->ckpt;

    fputs("sums\n", p->journal);
    for (size_t i = 0; i < c->n_shards; i++) {
        for (size_t k = 0; k < c->shards[i].n_srcs; k++) {
            struct sl_sums *sums = sl_src_sums(c->shards[i].srcs[k]);
            struct sl_sums_piece *piece;
            size_t n;

            if (sums == NULL)
                continue;
            if (sl_sums_pieces(sums, &piece, &n, err) != 0)
                return -1;
            for (size_t at = 0; at < n; at++)
                fprintf(p->journal,
                        "sum %zu %zu %" PRIu64 " %" PRIu64 " %08" PRIx32 "\n",
                        i, k, piece[at].off, piece[at].bytes, piece[at].crc);
            free(piece);
        }
    }
    return 0;
}

int sl_partial_sync(struct sl_partial *p, struct sl_error *err)
{
    if (note_sums(p, err) != 0)
        return -1;
    if (fflush(p->journal) != 0 || sl_sync(fileno(p->journal)) != 0)
        return sl_fail_os(err, errno, "%s: cannot write", p->cv->journal);
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
    uint64_t print = 0;
    bool resume;

    *p = (struct sl_partial){.cv = cv, .lock_fd = -1};
    if (check_files(cv, &resume, err) != 0 ||
        sl_newfile_check_space(cv->partial, cv->output, cv->layout.file_bytes,
                               err) != 0 ||
        fingerprint(&print, cv, err) != 0 || open_locked(p, resume, err) != 0)
        return -1;
    p->worthwhile = resume;
    if (open_journal(p, print, resume, err) != 0 ||
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
