/*
 * stage_out.h - the bytes of a stage to the disk, compressed where it pays
 *
 * Over section_out.h: chunks of a stage (offload/compressed.h) are compressed
 * on their way, and their lengths put at the end of the section. What to do
 * with a stage is decided when its first bytes come, from what a sample of them
 * gives. A stage is never compressed unless its section has a table.
 */
#ifndef SL_STAGE_OUT_H
#define SL_STAGE_OUT_H

#include "src/base/section_out.h"
#include "src/model/modelfile.h"

enum sl_compress {
    SL_COMPRESS_NONE,
    SL_COMPRESS_LZ4,  /* every stage that gets smaller */
    SL_COMPRESS_AUTO, /* every stage whose pass gets faster, streamed */
};

struct sl_stage_out_config {
    struct sl_out *out; /* borrowed */
    enum sl_compress compress;
    /* for AUTO: of the disk and the threads that the model will run with */
    double disk_bps, dram_bps;
    unsigned threads;
    size_t most_chunks; /* of a section */
};

/* What samples gave and what was done. */
struct sl_stage_out_stats {
    size_t n_stages, n_compressed;
    uint64_t bytes, kept_bytes;         /* of all stages */
    uint64_t sample_bytes, sample_kept; /* of all samples */
    uint64_t decompressed_bytes,
        decompress_ns; /* of those that got smaller: one
                        * thread, as they were again */
};

struct sl_stage_out;

/* Bytes that one takes. */
uint64_t sl_stage_out_bytes(size_t most_chunks);
/* Errors: SL_ERR_NOMEM. */
int sl_stage_out_create(struct sl_stage_out **so,
                        const struct sl_stage_out_config *config,
                        struct sl_error *err);
void sl_stage_out_destroy(struct sl_stage_out *so); /* NULL is fine */
void sl_stage_out_stats(const struct sl_stage_out *so,
                        struct sl_stage_out_stats *stats);

/* As sl_out_begin, append, pad and end, whose errors they give. planes is how
 * the stage's bytes would be split; end sets section->planes and its xxh3. */
void sl_stage_out_begin(struct sl_stage_out *so,
                        const struct sl_model_section *section,
                        uint32_t planes);
int sl_stage_out_append(struct sl_stage_out *so, const void *data, size_t n,
                        struct sl_error *err);
int sl_stage_out_pad(struct sl_stage_out *so, uint64_t off,
                     struct sl_error *err);
int sl_stage_out_end(struct sl_stage_out *so, struct sl_model_section *section,
                     struct sl_error *err);

#endif
