#include "config.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/crc32.h"
#include "src/base/mem.h"
#include "src/ckpt/ckpt_sums.h"

/* Pieces are sorted, and no two of them touch. */
struct run {
    uint64_t off, bytes;
    uint32_t want;
    char *what;
    struct sl_sums_piece *pieces; /* (room) */
    size_t n, room;
    bool done; /* all of it was read and compared */
};

struct sl_sums {
    const char *file;
    struct run *runs; /* (room) sorted, without overlap */
    size_t n, room;
    size_t n_absent;
    pthread_mutex_t lock; /* of the runs' pieces */
};

struct sl_sums *sl_sums_create(const char *file)
{
    struct sl_sums *s = calloc(1, sizeof *s);

    if (s == NULL)
        return NULL;
    s->file = file;
    pthread_mutex_init(&s->lock, NULL);
    return s;
}

void sl_sums_destroy(struct sl_sums *s)
{
    if (s == NULL)
        return;
    for (size_t i = 0; i < s->n; i++) {
        free(s->runs[i].pieces);
        free(s->runs[i].what);
    }
    free(s->runs);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

size_t sl_sums_absent(const struct sl_sums *s)
{
    return s->n_absent;
}

/* The first run that ends behind off. */
static size_t run_at(const struct sl_sums *s, uint64_t off)
{
    size_t lo = 0, hi = s->n;

    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;

        if (s->runs[mid].off + s->runs[mid].bytes <= off)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

static int no_memory(const struct sl_sums *s, struct sl_error *err)
{
    return sl_fail(err, SL_ERR_NOMEM, "%s: no memory for its checksums",
                   s->file);
}

int sl_sums_add(struct sl_sums *s, uint64_t off, uint64_t bytes, uint32_t want,
                const char *what, struct sl_error *err)
{
    size_t at = run_at(s, off);
    struct run *r;

    if (bytes == 0)
        return 0;
    if (at < s->n && s->runs[at].off == off && s->runs[at].bytes == bytes)
        return 0;
    if (at < s->n && s->runs[at].off < off + bytes)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "%s: %s lies at offset %" PRIu64 ", where %s does",
                       s->file, what, off, s->runs[at].what);
    if (!sl_grow((void **)&s->runs, &s->room, s->n, sizeof *s->runs))
        return no_memory(s, err);
    r = &s->runs[at];
    memmove(r + 1, r, (s->n - at) * sizeof *r);
    *r = (struct run){
        .off = off,
        .bytes = bytes,
        .want = want,
        .what = strdup(what),
        .done = want == 0,
    };
    s->n++;
    s->n_absent += want == 0;
    return r->what != NULL ? 0 : no_memory(s, err);
}

bool sl_sums_find(const struct sl_sums *s, uint64_t off,
                  struct sl_sums_piece *run)
{
    size_t at = run_at(s, off);
    const struct run *r = at < s->n ? &s->runs[at] : NULL;

    if (r == NULL || off < r->off)
        return false;
    *run = (struct sl_sums_piece){r->off, r->bytes, r->want};
    return true;
}

/* Adds a piece that touches no other from inside, before piece at. */
static int insert(struct run *r, size_t at, struct sl_sums_piece p)
{
    struct sl_sums_piece *a = at > 0 ? &r->pieces[at - 1] : NULL, *b;

    if (a != NULL && a->off + a->bytes == p.off) {
        a->crc = sl_crc32_join(a->crc, p.crc, p.bytes);
        a->bytes += p.bytes;
        b = a + 1;
        if (at < r->n && a->off + a->bytes == b->off) {
            a->crc = sl_crc32_join(a->crc, b->crc, b->bytes);
            a->bytes += b->bytes;
            memmove(b, b + 1, (r->n - at - 1) * sizeof *b);
            r->n--;
        }
        return 0;
    }
    b = at < r->n ? &r->pieces[at] : NULL;
    if (b != NULL && p.off + p.bytes == b->off) {
        b->crc = sl_crc32_join(p.crc, b->crc, b->bytes);
        b->off = p.off;
        b->bytes += p.bytes;
        return 0;
    }
    if (!sl_grow((void **)&r->pieces, &r->room, r->n, sizeof *r->pieces))
        return -1;
    b = &r->pieces[at];
    memmove(b + 1, b, (r->n - at) * sizeof *b);
    *b = p;
    r->n++;
    return 0;
}

/* All of it was read: is it what was written? */
static int compare(struct sl_sums *s, struct run *r, struct sl_error *err)
{
    if (r->n != 1 || r->pieces[0].bytes != r->bytes)
        return 0;
    if (r->pieces[0].crc != r->want)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "%s: %s, %" PRIu64 " bytes at offset %" PRIu64
                       ", is damaged: its CRC-32 is %08" PRIx32
                       ", and %08" PRIx32 " was written; get the file again "
                       "(--no-verify-source takes it as it is)",
                       s->file, r->what, r->bytes, r->off, r->pieces[0].crc,
                       r->want);
    r->done = true;
    free(r->pieces);
    r->pieces = NULL;
    r->n = r->room = 0;
    return 0;
}

/* The first piece of a run that ends behind off. */
static size_t piece_at(const struct run *r, uint64_t off)
{
    size_t lo = 0, hi = r->n;

    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;

        if (r->pieces[mid].off + r->pieces[mid].bytes <= off)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

/* Sums what is new of [off, end); data begins at off. */
static int take_run(struct sl_sums *s, struct run *r, const uint8_t *data,
                    uint64_t off, uint64_t end, struct sl_error *err)
{
    while (off < end) {
        size_t at = piece_at(r, off);
        const struct sl_sums_piece *p = at < r->n ? &r->pieces[at] : NULL;
        uint64_t to = end;

        if (p != NULL && p->off <= off) { /* read before */
            to = p->off + p->bytes;
            if (to >= end)
                break;
        } else {
            if (p != NULL && p->off < to)
                to = p->off;
            if (insert(r, at,
                       (struct sl_sums_piece){
                           .off = off,
                           .bytes = to - off,
                           .crc = sl_crc32(0, data, (size_t)(to - off)),
                       }) != 0)
                return no_memory(s, err);
        }
        data += to - off;
        off = to;
    }
    return compare(s, r, err);
}

int sl_sums_take(struct sl_sums *s, const void *data, uint64_t off, size_t n,
                 struct sl_error *err)
{
    const uint8_t *from = data;
    uint64_t end = off + n;
    int rc = 0;

    pthread_mutex_lock(&s->lock);
    for (size_t i = run_at(s, off); rc == 0 && i < s->n; i++) {
        struct run *r = &s->runs[i];
        uint64_t begin = r->off > off ? r->off : off;
        uint64_t stop = r->off + r->bytes < end ? r->off + r->bytes : end;

        if (begin >= end)
            break;
        if (!r->done)
            rc = take_run(s, r, from + (begin - off), begin, stop, err);
    }
    pthread_mutex_unlock(&s->lock);
    return rc;
}

int sl_sums_pieces(struct sl_sums *s, struct sl_sums_piece **pieces, size_t *n,
                   struct sl_error *err)
{
    size_t all = 0, at = 0;

    pthread_mutex_lock(&s->lock);
    for (size_t i = 0; i < s->n; i++)
        all += s->runs[i].n;
    *pieces = calloc(all + 1, sizeof **pieces);
    for (size_t i = 0; *pieces != NULL && i < s->n; i++) {
        const struct run *r = &s->runs[i];

        if (r->n > 0)
            memcpy(*pieces + at, r->pieces, r->n * sizeof **pieces);
        at += r->n;
    }
    pthread_mutex_unlock(&s->lock);
    *n = at;
    return *pieces != NULL ? 0 : no_memory(s, err);
}

int sl_sums_put(struct sl_sums *s, const struct sl_sums_piece *piece,
                struct sl_error *err)
{
    size_t i = run_at(s, piece->off), at;
    struct run *r = i < s->n ? &s->runs[i] : NULL;
    int rc = 0;

    if (r == NULL || r->done || piece->bytes == 0 || piece->off < r->off ||
        piece->bytes > r->bytes ||
        piece->off - r->off > r->bytes - piece->bytes)
        return 0;
    pthread_mutex_lock(&s->lock);
    at = piece_at(r, piece->off);
    if (at == r->n || r->pieces[at].off >= piece->off + piece->bytes) {
        if (insert(r, at, *piece) != 0)
            rc = no_memory(s, err);
        else
            rc = compare(s, r, err);
    }
    pthread_mutex_unlock(&s->lock);
    return rc;
}

bool sl_sums_gap(struct sl_sums *s, uint64_t *off, uint64_t *bytes)
{
    bool found = false;

    pthread_mutex_lock(&s->lock);
    for (size_t i = 0; !found && i < s->n; i++) {
        const struct run *r = &s->runs[i];
        uint64_t end = r->off + r->bytes;

        found = r->n > 0;
        if (!found)
            continue;
        *off = r->pieces[0].off > r->off ? r->off : r->off + r->pieces[0].bytes;
        if (r->pieces[0].off > r->off)
            end = r->pieces[0].off;
        else if (r->n > 1)
            end = r->pieces[1].off;
        *bytes = end - *off;
    }
    pthread_mutex_unlock(&s->lock);
    return found;
}
