#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "offload/cost.h"
#include "src/base/bytes.h"
#include "src/base/clock.h"
#include "src/base/lz.h"
#include "src/base/mem.h"
#include "src/convert/stage_out.h"

#define MOST_CHUNK_BYTES (256u << 10)
/* Chunks of a stage that are tried, as far as its first bytes have so many. */
#define SAMPLES 8u
/* The best of so many counts: packing goes on on the same cores. */
#define TURNS 4u
/* What a pass must gain to be worth a file that nobody else can read. */
#define WORTH 0.95

struct sl_stage_out {
    struct sl_stage_out_config c;
    struct sl_stage_out_stats stats;
    struct sl_region buffers;
    uint8_t *chunk, *kept, *scratch; /* (MOST_CHUNK_BYTES or its bound) */
    uint8_t *table;                  /* (most_chunks) u32 */
    /* the stage */
    uint64_t off, end; /* its bytes as they are meant */
    uint64_t at;       /* of them given so far */
    uint32_t chunk_bytes;
    uint32_t planes; /* 0: nothing is compressed, or not decided yet */
    uint32_t planes_offered;
    bool decided;
    size_t fill, n_chunks;
    uint64_t kept_bytes;
};

static void carve_all(struct sl_stage_out *so, struct sl_carver *c,
                      size_t most_chunks)
{
    so->chunk = sl_carve(c, 1, MOST_CHUNK_BYTES);
    so->kept = sl_carve(c, 1, sl_lz_bound(MOST_CHUNK_BYTES));
    so->scratch = sl_carve(c, 1, MOST_CHUNK_BYTES);
    so->table = sl_carve(c, most_chunks, 4);
}

uint64_t sl_stage_out_bytes(size_t most_chunks)
{
    struct sl_carver counter = {NULL, 0};
    struct sl_stage_out so;

    carve_all(&so, &counter, most_chunks);
    return counter.used + sizeof so;
}

int sl_stage_out_create(struct sl_stage_out **out,
                        const struct sl_stage_out_config *config,
                        struct sl_error *err)
{
    struct sl_carver counter = {NULL, 0}, carver = {NULL, 0};
    struct sl_stage_out *so = calloc(1, sizeof *so);

    if (so == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory to write stages");
    so->c = *config;
    carve_all(so, &counter, config->most_chunks);
    if (sl_region_init(&so->buffers, (size_t)counter.used, "compressing",
                       err) != 0) {
        sl_stage_out_destroy(so);
        return -1;
    }
    carver.base = so->buffers.base;
    carve_all(so, &carver, config->most_chunks);
    *out = so;
    return 0;
}

void sl_stage_out_destroy(struct sl_stage_out *so)
{
    if (so == NULL)
        return;
    sl_region_fini(&so->buffers);
    free(so);
}

void sl_stage_out_stats(const struct sl_stage_out *so,
                        struct sl_stage_out_stats *stats)
{
    *stats = so->stats;
}

/* --- whether ---------------------------------------------------------------
 */

struct sample {
    uint64_t bytes, kept;
};

/* One chunk of the sample. It is decompressed over so->chunk, which is still
 * empty. */
static void try_chunk(struct sl_stage_out *so, const uint8_t *data, size_t n,
                      struct sample *s)
{
    uint64_t best = UINT64_MAX;
    size_t kept;

    kept = sl_lz_encode(so->kept, data, n, so->planes_offered, so->scratch);
    s->bytes += n;
    s->kept += kept > 0 ? kept : n;
    for (unsigned turn = 0; turn < TURNS && kept > 0; turn++) {
        uint64_t begin = sl_clock_ns(), ns;

        sl_lz_decode(so->chunk, n, so->kept, kept, so->planes_offered,
                     so->scratch);
        ns = sl_clock_ns() - begin;
        best = ns < best ? ns : best;
    }
    so->stats.decompressed_bytes += kept > 0 ? n : 0;
    so->stats.decompress_ns += kept > 0 ? best : 0;
}

/* A pass over the stage, streamed: what is compressed takes less from the
 * disk, and has the cores decompress before they read it. */
static bool is_faster(const struct sl_stage_out *so, const struct sample *s)
{
    double bytes = (double)s->bytes, dram = so->c.dram_bps;
    /* of all samples so far: one stage's are soon disturbed */
    double decompress_bps = (double)so->stats.decompressed_bytes *
                            so->c.threads /
                            ((double)so->stats.decompress_ns / 1e9);
    struct sl_rates rates = {.disk_bps = so->c.disk_bps, .dram_bps = dram};
    struct sl_demand plain = {.disk_bytes = bytes, .by[SL_HOST].bytes = bytes};
    struct sl_demand packed = {
        .disk_bytes = (double)s->kept,
        .by[SL_HOST].bytes = bytes,
    };
    double plain_s = sl_floor_of(&rates, &plain).seconds, compressed_s;
    double cores_s = bytes / decompress_bps + (dram > 0 ? bytes / dram : 0);

    compressed_s = sl_floor_of(&rates, &packed).seconds;
    return (compressed_s > cores_s ? compressed_s : cores_s) < WORTH * plain_s;
}

static void decide(struct sl_stage_out *so, const uint8_t *data, size_t n)
{
    size_t chunk, n_chunks, tries;
    struct sample s = {0};

    so->decided = true;
    if (so->planes_offered == 0 || so->c.compress == SL_COMPRESS_NONE)
        return;
    chunk = n < so->chunk_bytes ? n : so->chunk_bytes;
    n_chunks = n / chunk;
    tries = n_chunks < SAMPLES ? n_chunks : SAMPLES;
    for (size_t i = 0; i < tries; i++)
        try_chunk(so, data + i * n_chunks / tries * chunk, chunk, &s);
    so->stats.sample_bytes += s.bytes;
    so->stats.sample_kept += s.kept;
    if (s.kept < s.bytes &&
        (so->c.compress == SL_COMPRESS_LZ4 || is_faster(so, &s)))
        so->planes = so->planes_offered;
}

/* --- how -------------------------------------------------------------------
 */

void sl_stage_out_begin(struct sl_stage_out *so,
                        const struct sl_model_section *section, uint32_t planes)
{
    bool may = section->table_bytes > 0;

    so->off = so->at = section->off;
    so->end = section->off + section->bytes - section->table_bytes;
    so->chunk_bytes = section->chunk_bytes;
    so->planes = 0;
    so->planes_offered = may ? planes : 0;
    so->decided = false;
    so->fill = so->n_chunks = 0;
    so->kept_bytes = 0;
    sl_out_begin(so->c.out, section->off);
}

static int end_chunk(struct sl_stage_out *so, struct sl_error *err)
{
    size_t n = so->fill;
    size_t kept = sl_lz_encode(so->kept, so->chunk, n, so->planes, so->scratch);

    sl_store_u32(so->table + 4 * so->n_chunks++, (uint32_t)(kept ? kept : n));
    so->fill = 0;
    so->kept_bytes += kept ? kept : n;
    return sl_out_append(so->c.out, kept ? so->kept : so->chunk,
                         kept ? kept : n, err);
}

int sl_stage_out_append(struct sl_stage_out *so, const void *data, size_t n,
                        struct sl_error *err)
{
    const uint8_t *p = data;

    if (!so->decided && n > 0)
        decide(so, data, n);
    so->at += n;
    if (so->planes == 0)
        return sl_out_append(so->c.out, data, n, err);
    while (n > 0) {
        size_t take = so->chunk_bytes - so->fill;

        if (take > n)
            take = n;
        memcpy(so->chunk + so->fill, p, take);
        so->fill += take;
        p += take;
        n -= take;
        if (so->fill == so->chunk_bytes && end_chunk(so, err) != 0)
            return -1;
    }
    return 0;
}

int sl_stage_out_pad(struct sl_stage_out *so, uint64_t off,
                     struct sl_error *err)
{
    static const uint8_t zeros[SL_PAGE_BYTES];

    while (so->at < off) {
        uint64_t left = off - so->at;
        size_t n = left < sizeof zeros ? (size_t)left : sizeof zeros;

        if (sl_stage_out_append(so, zeros, n, err) != 0)
            return -1;
    }
    return 0;
}

static int end_compressed(struct sl_stage_out *so, struct sl_error *err)
{
    if (sl_stage_out_pad(so, so->end, err) != 0 ||
        (so->fill > 0 && end_chunk(so, err) != 0) ||
        sl_out_skip(so->c.out, so->end, err) != 0)
        return -1;
    return sl_out_append(so->c.out, so->table, 4 * so->n_chunks, err);
}

int sl_stage_out_end(struct sl_stage_out *so, struct sl_model_section *section,
                     struct sl_error *err)
{
    if (so->planes > 0 && end_compressed(so, err) != 0)
        return -1;
    section->planes = so->planes;
    so->stats.n_stages++;
    so->stats.n_compressed += so->planes > 0;
    so->stats.bytes += so->end - so->off;
    so->stats.kept_bytes += so->planes > 0 ? so->kept_bytes : so->end - so->off;
    return sl_out_end(so->c.out, section->off + section->bytes, &section->xxh3,
                      err);
}
