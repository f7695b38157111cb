/*
 * convert_impl.h - what the parts of the converter share
 *
 *   convert.c         the whole, in order: open, plan, run, finish
 *   convert_source.c  checkpoint and hyper-parameters
 *   convert_text.c    the vocabulary
 *   convert_lora.c    adapters to merge
 *   convert_plan.c    formats, chunks, memory
 *   convert_pipe.c    reading, packing and writing at the same time
 *   convert_guard.c   nothing that is read is written
 *   convert_replicas.c  what all shards should have alike
 *   convert_stamp.c   what a model file's bytes follow from, as numbers
 *   convert_resume.c  OUT.partial, its journal and what becomes of them
 */
#ifndef SL_CONVERT_IMPL_H
#define SL_CONVERT_IMPL_H

#include <stdio.h>

#include "src/base/mem.h"
#include "src/base/pool.h"
#include "src/base/progress.h"
#include "src/base/section_out.h"
#include "src/ckpt/ckpt.h"
#include "src/ckpt/ckpt_sums.h"
#include "src/convert/convert.h"
#include "src/convert/merge.h"
#include "src/model/model_layout.h"

/* A run of whole blocks of one segment of one matrix: the unit of work. */
struct sl_chunk {
    uint32_t matrix; /* index into layout->matrices */
    uint32_t segment;
    uint32_t first_block;
    uint32_t n_rows;
};

/* What a chunk takes in memory, one area after another. */
struct sl_chunk_room {
    size_t rows, scratch, q_scale; /* of the source */
    size_t w, scale;               /* packed */
    size_t planes;                 /* w as two planes: the high one, the low */
    size_t total;
};

struct sl_convert_matrix {
    struct sl_merge merge;
    enum sl_fmt source_fmt; /* merge's, or FP32 there for an adapter's sake */
    enum sl_scale_rule rule;
    uint32_t blocks_a_chunk;
    uint32_t rank; /* of adapters; 0: none */
    float *a, *b;  /* (rank, cols), (rows, rank) */
};

/* Of a file's member, by a run that was killed. */
struct sl_convert_sum {
    size_t shard, src;
    struct sl_sums_piece piece;
    uint64_t stamp; /* of its files, as they were */
    bool stale;     /* these are others now */
};

/* What a section is made of: by the files that its tensors lie in, and by the
 * CRC-32s of those tensors that have one: a file that was fetched again is
 * another, and its tensors the same. */
struct sl_convert_stamp {
    uint64_t times, bytes;
};

struct sl_convert {
    const struct sl_convert_options *o;
    struct sl_convert_result *result;
    const struct sl_arch *arch;
    struct sl_ckpt ckpt;
    struct sl_hparams hp;
    struct sl_layout layout;
    struct sl_merge *small; /* as layout.small */
    size_t n_small;
    struct sl_convert_matrix *matrices; /* as layout.matrices */
    size_t n_matrices;
    struct sl_lora *lora;      /* NULL: none */
    struct sl_region adapters; /* all a and b */
    size_t adapter_bytes;
    uint64_t adapter_sum;
    uint8_t *tokenizer;
    size_t tokenizer_bytes;
    char *name;
    bool planes; /* some matrix lies in two */
    char quant[SL_QUANT_NAME];
    const char *chat;  /* template, by name; NULL: not known */
    char no_text[480]; /* why there is no tokenizer; "": not known */
    char *output, *partial, *journal;
    bool *section_done;              /* by an earlier run */
    struct sl_convert_stamp *stamps; /* of sections */
    struct sl_convert_sum *sums;
    size_t n_sums;
    struct sl_chunk *chunks;
    size_t n_chunks;
    size_t n_slots;
    size_t slot_bytes;
    size_t scale_bytes; /* the most scales of one stage */
    size_t most_chunks; /* that a stage is compressed in */
    struct sl_pool *pool;
};

/* convert_shapes.c: what config leaves open and the tensors' shapes tell. */
void sl_convert_take_shapes(struct sl_config *c, const struct sl_arch *arch,
                            const struct sl_ckpt *ckpt);

/* convert_model.c: architecture and sizes of an open checkpoint. */
int sl_convert_find_model(struct sl_convert *cv, struct sl_error *err);

/* convert_source.c */
int sl_convert_source_open(struct sl_convert *cv, struct sl_error *err);

/* convert_lora.c: which matrices get something; then what; then adds it to the
 * FP32 rows of a chunk, which was read. */
int sl_convert_find_adapters(struct sl_convert *cv, struct sl_error *err);
int sl_convert_read_adapters(struct sl_convert *cv, struct sl_error *err);
void sl_convert_add_adapters(const struct sl_convert *cv,
                             const struct sl_chunk *c, float *rows);

/* convert_text.c: fills tokenizer and hp.text; says so where there is none. */
int sl_convert_find_text(struct sl_convert *cv, struct sl_error *err);

/* convert_plan.c */
/* Formats of all matrices, then the layout of the file. */
int sl_convert_plan_layout(struct sl_convert *cv, struct sl_error *err);
/* How large a chunk may be. Errors: SL_ERR_BUDGET. */
int sl_convert_plan_memory(struct sl_convert *cv, struct sl_error *err);
/* Chunks of what is not done yet. */
int sl_convert_plan_chunks(struct sl_convert *cv, struct sl_error *err);
void sl_convert_chunk_room(struct sl_chunk_room *room,
                           const struct sl_convert *cv, uint32_t matrix,
                           uint64_t n_rows);

/* convert_guard.c: that no name of what will be written is of what is read.
 * Errors: SL_ERR_USAGE. */
int sl_convert_check_paths(const struct sl_convert *cv, struct sl_error *err);

/* convert_replicas.c: says where shards differ in a tensor that each of them
 * has whole, and goes on. Errors: as sl_ckpt_read_rows. */
int sl_convert_check_replicas(const struct sl_convert *cv,
                              struct sl_error *err);

/* convert_stamp.c: everything but the checkpoint's bytes that the model file
 * follows from. Errors of these: SL_ERR_NOMEM. */
int sl_convert_stamp(uint64_t *stamp, const struct sl_convert *cv,
                     struct sl_error *err);
/* The files of a source: their names, sizes and times. */
int sl_convert_stamp_src(uint64_t *stamp, const struct sl_src *src,
                         struct sl_error *err);
/* The sections that hold something of a matrix; how many there are. */
unsigned sl_convert_sections_of(size_t section[3], const struct sl_convert *cv,
                                size_t matrix);
/* Fills cv->stamps. */
int sl_convert_stamp_sections(struct sl_convert *cv, struct sl_error *err);

/* convert_resume.c */
struct sl_partial {
    struct sl_convert *cv;
    int lock_fd; /* OUT.partial, locked against a second converter */
    FILE *journal;
    bool worthwhile; /* a stage is finished: keep it when something fails */
    bool begun;      /* the journal is this conversion's */
    uint64_t done_bytes;
};
/* Finds out what there is and what may be done with it; checks the disk;
 * fills stamps, and section_done and the layout's checksums when resuming. */
int sl_partial_open(struct sl_partial *p, struct sl_convert *cv,
                    struct sl_error *err);
/* Notes what has been read of members that are not complete, then sections
 * that are on the disk (synced); the notes count after sl_partial_sync. */
int sl_partial_note_sums(struct sl_partial *p, struct sl_error *err);
void sl_partial_note(struct sl_partial *p, size_t section);
int sl_partial_sync(struct sl_partial *p, struct sl_error *err);
/* Everything is there but the header: writes it, renames, syncs the folder. */
int sl_partial_commit(struct sl_partial *p, struct sl_out *out,
                      struct sl_error *err);
/* Closes; after a failure (failed set) removes what is not worth resuming. */
void sl_partial_close(struct sl_partial *p, bool failed, bool interrupted);

/* convert_pipe.c: stages takes what goes to out, as far as it belongs to one;
 * low the low planes (NULL where there are none). */
int sl_convert_run(struct sl_convert *cv, struct sl_partial *partial,
                   struct sl_out *out, struct sl_out *low,
                   struct sl_stage_out *stages, struct sl_error *err);

#endif
