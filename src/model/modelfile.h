/*
 * modelfile.h - a model file: tensors, stages and checksums over GGUF
 *
 *   header (GGUF v3, alignment 4096)
 *   vectors: norms and biases, F32            always resident
 *   row-wise scales of packed matrices, F16   always resident
 *   stages in order of use, each one contiguous run of pages:
 *     layer 0 attention: qkv weight [, its group scales], dense weight ...
 *     layer 0 mlp ...
 *     head: the embedding too, where they are one matrix
 *   embeddings of their own, a section each
 *   experts: layer by layer, the matrices of one (its record) side by side, a
 *     section each
 *   tokenizer: the vocabulary, I8             (absent when there was none)
 *
 * Every tensor begins at a multiple of 4096 and the file ends at one. The
 * file is a list of sections (vectors and scales one tensor each; a stage;
 * the tokenizer), each reaching to the next one's beginning, with XXH3-64 of
 * its bytes, padding included; the header has its own, computed with the
 * eight bytes of that value zero.
 *
 * The low planes of matrices that lie in two (quant/planes.h) are behind the
 * stages, a section for each stage.
 *
 * Version 2 is a file whose stages, but for the head, may be kept compressed
 * (offload/compressed.h): sluice.section.planes says how each is, and the
 * lengths of its chunks end its section. Everything else is as in version 1;
 * what a compressed stage does not need of its section is a hole, and reads as
 * zeros.
 */
#ifndef SL_MODELFILE_H
#define SL_MODELFILE_H

#include "offload/compressed.h"
#include "quant/matrix.h"
#include "src/arch/arch.h"
#include "src/arch/hparams.h"
#include "src/base/log.h"
#include "src/model/gguf.h"

#define SL_MODEL_ALIGNMENT 4096u

struct sl_model_matrix {
    struct sl_tensor_spec spec;
    struct sl_matrix geom;
    uint64_t off, bytes;             /* in the file */
    uint64_t scale_off, scale_bytes; /* 0 bytes for float formats */
    bool scale_resident;             /* scale lies in the resident part */
    size_t section;                  /* that holds the weights */
    /* INT8 in two planes (quant/planes.h): what lies at off is the high one.
     * 0 bytes: it is in one piece. */
    uint64_t low_off, low_bytes;
    size_t low_section; /* of its stage's low planes */
};

struct sl_model_small {
    struct sl_tensor_spec spec;
    uint64_t off, bytes; /* rows F32 */
};

struct sl_model_section {
    const char *name; /* borrowed until close */
    uint64_t off, bytes;
    uint64_t xxh3;
    /* Of a file that may hold compressed stages, a stage's table: u32 bytes
     * that each chunk is kept in, at table_off, the section's end; 0 bytes:
     * there is none. */
    uint64_t table_off, table_bytes;
    uint32_t chunk_bytes; /* what a chunk stands for */
    uint32_t planes;      /* sl_compressed; 0: kept as it is */
};

struct sl_layout; /* model_layout.h */
struct sl_mirror; /* offload/mirror.h */

struct sl_modelfile {
    const struct sl_arch *arch;
    struct sl_hparams hp;
    char *path;
    const char *name;    /* general.name */
    const char *quant;   /* what --quant was */
    const char *chat;    /* name of the chat template; NULL: not said */
    const char *no_text; /* why there is no tokenizer; NULL: not said */
    uint64_t file_bytes;
    struct sl_gguf *gguf;
    /* In order of use: those of the stages, the head last of them, then
     * embeddings that are looked up, then experts. */
    struct sl_model_matrix *matrices;
    size_t n_matrices;
    struct sl_model_small *small; /* in order of sl_arch_tensor */
    size_t n_small;
    struct sl_model_section *sections;
    size_t n_sections;
    struct sl_compressed *compressed;        /* (n_sections) with n_chunks 0:
                                              * not compressed; or NULL */
    size_t first_stage;                      /* the section of stage 0 */
    uint64_t tokenizer_off, tokenizer_bytes; /* 0 bytes: none */
    struct sl_layout *layout; /* owns what the fields above point to */
    int fd;                   /* direct where the file system allows */
    struct sl_mirror *mirror; /* NULL: the file is on one disk */
    int mirror_fd;
};

/* Reads and checks the header (a few hundred KiB, direct where possible: no
 * page cache is left behind): its checksum, that every tensor of the
 * architecture is there with the right type, shape and place, that sections
 * cover the file without a hole. Errors: SL_ERR_IO, SL_ERR_CORRUPT with file,
 * object and numbers, SL_ERR_UNSUPPORTED, SL_ERR_NOMEM. */
int sl_modelfile_open(struct sl_modelfile *mf, const char *path,
                      struct sl_error *err);
/* The model file of a layout that need not exist anywhere: all but reading
 * works. path is for messages; *layout is moved (and zeroed).
 * Errors: SL_ERR_NOMEM. */
int sl_modelfile_imagine(struct sl_modelfile *mf, const char *path,
                         struct sl_layout *layout, struct sl_error *err);
void sl_modelfile_close(struct sl_modelfile *mf);

/* The matrix in that slot of a layer (of the model: n_layers), NULL where the
 * model has none. */
const struct sl_model_matrix *sl_modelfile_matrix(const struct sl_modelfile *mf,
                                                  enum sl_slot slot,
                                                  uint32_t layer);
/* Where its bytes end in the file; scales that travel with their stage lie
 * behind the weights. */
static inline uint64_t sl_model_matrix_end(const struct sl_model_matrix *m)
{
    return m->scale_bytes > 0 && !m->scale_resident
               ? m->scale_off + m->scale_bytes
               : m->off + m->bytes;
}
/* The first matrix of an expert, whose others follow; a layer that has. */
const struct sl_model_matrix *sl_modelfile_expert(const struct sl_modelfile *mf,
                                                  uint32_t layer,
                                                  uint32_t expert);
/* The bytes of the record that begins with that matrix. */
uint64_t sl_modelfile_record_bytes(const struct sl_modelfile *mf,
                                   const struct sl_model_matrix *first);
/* Whether some matrix lies in two planes. */
bool sl_modelfile_has_planes(const struct sl_modelfile *mf);
/* What ids are looked up in: the embedding, the head where they are one. */
const struct sl_model_matrix *
sl_modelfile_embedding(const struct sl_modelfile *mf);

/* From here on the file is read from its copy at path, too (offload/mirror.h).
 * Of the two, length, header, with it every checksum, and the first and the
 * last megabyte of the rest must be alike. log: of one that fails later.
 * Errors: SL_ERR_USAGE for the file itself and for another model,
 * SL_ERR_CORRUPT for an incomplete copy, SL_ERR_IO, SL_ERR_NOMEM. */
int sl_modelfile_add_mirror(struct sl_modelfile *mf, const char *path,
                            const struct sl_log *log, struct sl_error *err);
/* Of sl_modelfile_close. */
void sl_modelfile_close_mirror(struct sl_modelfile *mf);

/* Reads bytes at off of the file (synchronous, no page cache left). */
int sl_modelfile_read(const struct sl_modelfile *mf, void *buf, uint64_t off,
                      size_t bytes, struct sl_error *err);

/* Reads everything and compares every checksum, with a progress bar unless
 * quiet; of a mirror, too; stops at the first that differs. Takes
 * SL_MODEL_VERIFY_BYTES of memory beside the model's. Errors: SL_ERR_CORRUPT
 * naming the section and its place, SL_ERR_IO, SL_ERR_NOMEM. */
#define SL_MODEL_VERIFY_BYTES (4u << 20)
int sl_modelfile_verify(const struct sl_modelfile *mf, bool quiet,
                        struct sl_error *err);

#endif
