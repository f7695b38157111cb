#include "config.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "offload/decompress.h"

struct sl_decompress {
    struct sl_pool *pool;
    struct sl_region buffer, scratch;
    size_t scratch_bytes; /* of one thread */
};

/* One buffer is enough: one compressed slab is held at a time (stream.h). */
static uint64_t most_load(const struct sl_slab *slabs, size_t n)
{
    uint64_t most = 0;

    for (size_t i = 0; i < n; i++) {
        uint64_t bytes = sl_slab_load_bytes(&slabs[i]);

        if (slabs[i].compressed != NULL && bytes > most)
            most = bytes;
    }
    return most;
}

static size_t most_scratch(const struct sl_slab *slabs, size_t n)
{
    size_t most = 0;

    for (size_t i = 0; i < n; i++) {
        size_t bytes = slabs[i].compressed
                           ? sl_compressed_scratch_bytes(slabs[i].compressed)
                           : 0;

        most = bytes > most ? bytes : most;
    }
    return most;
}

uint64_t sl_decompress_bytes(const struct sl_slab *slabs, size_t n_slabs,
                             unsigned n_threads)
{
    uint64_t most = most_load(slabs, n_slabs);

    if (most == 0)
        return 0;
    return most + (uint64_t)n_threads * most_scratch(slabs, n_slabs) +
           sizeof(struct sl_decompress);
}

int sl_decompress_create(struct sl_decompress **out,
                         const struct sl_slab *slabs, size_t n_slabs,
                         struct sl_pool *pool, struct sl_error *err)
{
    uint64_t most = most_load(slabs, n_slabs);
    struct sl_decompress *u;

    *out = NULL;
    if (most == 0)
        return 0;
    u = calloc(1, sizeof *u);
    if (u == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory to decompress with");
    u->pool = pool;
    u->scratch_bytes = most_scratch(slabs, n_slabs);
    if (sl_region_init(&u->buffer, (size_t)most, "decompressed weights", err) !=
            0 ||
        sl_region_init(&u->scratch, u->scratch_bytes * sl_pool_threads(pool),
                       "decompressing", err) != 0) {
        sl_decompress_destroy(u);
        return -1;
    }
    *out = u;
    return 0;
}

void sl_decompress_destroy(struct sl_decompress *u)
{
    if (u == NULL)
        return;
    sl_region_fini(&u->buffer);
    sl_region_fini(&u->scratch);
    free(u);
}

struct job {
    struct sl_decompress *u;
    const struct sl_compressed *compressed;
    uint64_t begin, end; /* of the extent's pages in the file */
    size_t first_chunk;
    const uint8_t *kept; /* the first chunk's */
    uint8_t *to;
    atomic_size_t damaged; /* a chunk, SIZE_MAX: none */
};

/* Chunks stand alone, so that threads need not wait for one another. */
static void run_chunks(void *arg, size_t begin, size_t end, unsigned worker)
{
    struct job *j = arg;
    const struct sl_compressed *p = j->compressed;
    uint8_t *scratch = j->u->scratch.base + worker * j->u->scratch_bytes;

    for (size_t k = begin; k < end; k++) {
        size_t i = j->first_chunk + k;
        const uint8_t *kept = j->kept + (p->at[i] - p->at[j->first_chunk]);

        if (!sl_compressed_decode(p, i, j->begin, j->end, j->to, kept, scratch))
            atomic_store(&j->damaged, i);
    }
}

int sl_decompress_run(struct sl_decompress *u, const struct sl_slab *slab,
                      const uint8_t *kept, uint8_t **to, struct sl_error *err)
{
    const struct sl_compressed *p = slab->compressed;
    uint8_t *at = u->buffer.base;

    for (uint32_t e = 0; e < slab->n_extents; e++) {
        const struct sl_extent *x = &slab->extents[e];
        struct sl_extent read = sl_slab_read_extent(slab, e);
        struct job j = {
            .u = u,
            .compressed = p,
            .begin = sl_extent_load_off(x),
            .to = at,
        };
        size_t n, damaged;

        j.end = j.begin + sl_extent_load_bytes(x);
        j.first_chunk = (size_t)((j.begin - p->off) / p->chunk_bytes);
        n = (size_t)((j.end - 1 - p->off) / p->chunk_bytes) + 1 - j.first_chunk;
        j.kept = kept + (p->off + p->at[j.first_chunk] - read.off);
        atomic_init(&j.damaged, SIZE_MAX);
        sl_pool_for(u->pool, n, 1, run_chunks, &j);
        damaged = atomic_load(&j.damaged);
        if (damaged != SIZE_MAX)
            return sl_fail(err, SL_ERR_CORRUPT,
                           "%zu compressed bytes at %llu are damaged: convert "
                           "again or copy again",
                           (size_t)(p->at[damaged + 1] - p->at[damaged]),
                           (unsigned long long)(p->off + p->at[damaged]));
        kept += read.bytes;
        at += j.end - j.begin;
    }
    *to = u->buffer.base;
    return 0;
}
