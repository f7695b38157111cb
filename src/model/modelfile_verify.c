#include "config.h"

#include <stdlib.h>

#include <xxhash.h>

#include "offload/io.h"
#include "offload/mirror.h"
#include "src/base/mem.h"
#include "src/base/progress.h"
#include "src/model/modelfile.h"

/* Reading and hashing overlap: a few reads are in flight while the oldest
 * that has arrived is hashed. */
#define DEPTH       4u
#define CHUNK_BYTES (SL_MODEL_VERIFY_BYTES / DEPTH)

struct verify {
    const struct sl_modelfile *mf;
    const char *path; /* of it, or of its mirror */
    int fd;
    struct sl_region buf; /* DEPTH chunks */
    struct sl_io *io;
    XXH3_state_t *state;
    struct sl_progress progress;
    uint64_t next;     /* offset of the next read to start */
    uint64_t at;       /* offset of the next byte to hash */
    size_t section;    /* that holds it */
    bool done[DEPTH];  /* by chunk of buf */
    int result[DEPTH]; /* bytes read, or -errno */
};

static unsigned slot_of(const struct verify *v, uint64_t off)
{
    return (unsigned)((off - v->mf->sections[0].off) / CHUNK_BYTES % DEPTH);
}

static uint8_t *chunk(const struct verify *v, uint64_t off)
{
    return v->buf.base + slot_of(v, off) * (size_t)CHUNK_BYTES;
}

static size_t chunk_bytes(const struct verify *v, uint64_t off)
{
    uint64_t left = v->mf->file_bytes - off;

    return left < CHUNK_BYTES ? (size_t)left : CHUNK_BYTES;
}

/* As many reads in flight as chunks have room, so that the disk does not
 * wait for the sums. */
static int start_reads(struct verify *v, struct sl_error *err)
{
    while (v->next < v->mf->file_bytes &&
           v->next - v->at < (uint64_t)DEPTH * CHUNK_BYTES) {
        struct sl_io_read r = {
            .buf = chunk(v, v->next),
            .off = v->next,
            .bytes = (uint32_t)chunk_bytes(v, v->next),
            .tag = slot_of(v, v->next),
        };

        v->done[r.tag] = false;
        if (v->io->ops->submit(v->io, &r, err) != 0)
            return -1;
        v->next += r.bytes;
    }
    return 0;
}

/* Waits for the chunk at v->at. What failed or came short is read again in
 * the plain way, which retries and says what is wrong. */
static int await(struct verify *v, struct sl_error *err)
{
    unsigned slot = slot_of(v, v->at);
    size_t bytes = chunk_bytes(v, v->at);
    struct sl_io_done done[DEPTH];
    int n;

    while (!v->done[slot]) {
        n = v->io->ops->wait(v->io, done, DEPTH, err);
        if (n < 0)
            return -1;
        for (int i = 0; i < n; i++) {
            v->done[done[i].tag] = true;
            v->result[done[i].tag] = done[i].result;
        }
    }
    if (v->result[slot] >= 0 && (size_t)v->result[slot] == bytes)
        return 0;
    return sl_io_read_full(v->fd, v->path, chunk(v, v->at), v->at, bytes, err);
}

static int end_section(struct verify *v, struct sl_error *err)
{
    const struct sl_model_section *s = &v->mf->sections[v->section];
    uint64_t have = XXH3_64bits_digest(v->state);

    if (have != s->xxh3)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "%s: section '%s' (%llu bytes at %llu) is damaged: its "
                       "checksum is %016llx and should be %016llx; convert "
                       "again or copy again",
                       v->path, s->name, (unsigned long long)s->bytes,
                       (unsigned long long)s->off, (unsigned long long)have,
                       (unsigned long long)s->xxh3);
    v->section++;
    XXH3_64bits_reset(v->state);
    return 0;
}

/* Sections lie one behind the other: where one ends the next begins, amid a
 * chunk. */
static int hash(struct verify *v, const uint8_t *data, size_t n,
                struct sl_error *err)
{
    while (n > 0) {
        const struct sl_model_section *s = &v->mf->sections[v->section];
        uint64_t left = s->off + s->bytes - v->at;
        size_t now = left < n ? (size_t)left : n;

        XXH3_64bits_update(v->state, data, now);
        data += now;
        n -= now;
        v->at += now;
        if (now == left && end_section(v, err) != 0)
            return -1;
    }
    return 0;
}

static int run(struct verify *v, struct sl_error *err)
{
    while (v->at < v->mf->file_bytes) {
        uint64_t at = v->at;

        if (start_reads(v, err) != 0 || await(v, err) != 0 ||
            hash(v, chunk(v, at), chunk_bytes(v, at), err) != 0)
            return -1;
        sl_progress_update(&v->progress, v->at);
    }
    return 0;
}

static int open_reader(struct verify *v, struct sl_error *err)
{
    struct sl_io_buffer buffer;
    struct sl_io_config config = {
        .path = v->path,
        .kind = SL_IO_AUTO,
        .depth = DEPTH,
        .direct = true,
        .buffers = &buffer,
        .n_buffers = 1,
    };

    v->state = XXH3_createState();
    if (v->state == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory for a checksum");
    XXH3_64bits_reset(v->state);
    if (sl_region_init(&v->buf, SL_MODEL_VERIFY_BYTES, "verify", err) != 0)
        return -1;
    buffer.base = v->buf.base;
    buffer.bytes = v->buf.bytes;
    return sl_io_open(&v->io, &config, err);
}

static int verify_file(const struct sl_modelfile *mf, const char *path, int fd,
                       bool quiet, struct sl_error *err)
{
    struct verify v = {
        .mf = mf,
        .path = path,
        .fd = fd,
        .next = mf->sections[0].off,
        .at = mf->sections[0].off,
    };
    int rc = open_reader(&v, err);

    if (rc == 0) {
        sl_progress_init(&v.progress, "verifying", mf->file_bytes, 0, quiet);
        rc = run(&v, err);
        sl_progress_fini(&v.progress);
    }
    if (v.io != NULL)
        v.io->ops->close(v.io);
    XXH3_freeState(v.state);
    sl_region_fini(&v.buf);
    return rc;
}

int sl_modelfile_verify(const struct sl_modelfile *mf, bool quiet,
                        struct sl_error *err)
{
    if (verify_file(mf, mf->path, mf->fd, quiet, err) != 0)
        return -1;
    return mf->mirror == NULL ? 0
                              : verify_file(mf, sl_mirror_path(mf->mirror, 1),
                                            mf->mirror_fd, quiet, err);
}
