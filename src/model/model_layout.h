/*
 * model_layout.h - the writing side of the model file: where everything goes
 *
 * From an architecture, hyper-parameters and the geometry of each matrix
 * follow the order, names, types, dimensions and offsets of all tensors, the
 * sections and the file's length. Checksums have a fixed size, so the length
 * of the header is known before a weight has been read: a converter makes the
 * layout, writes the data where it says, fills in the sections' checksums and
 * writes the header last. The reader makes the layout that the metadata
 * implies and holds it against the file. modelfile.h draws the file.
 */
#ifndef SL_MODEL_LAYOUT_H
#define SL_MODEL_LAYOUT_H

#include "src/model/modelfile.h"

#define SL_MODEL_VERSION            1u
#define SL_MODEL_VERSION_COMPRESSED 2u /* stages may be compressed */
#define SL_TENSOR_NAME              64 /* with its zero byte: GGUF allows 64 bytes */

struct sl_layout_matrix {
    struct sl_matrix geom;
    /* Packed formats: the scales lie in the resident part (row-wise ones, and
     * the one-per-N-th-of-a-row ones of --quant-tp), not in the stage. */
    bool scale_resident;
    bool planes; /* INT8 of a stage in two planes: the low one lies apart */
};

struct sl_layout_config { /* all borrowed for the call */
    const struct sl_arch *arch;
    const struct sl_hparams *hp;
    const char *name;  /* general.name */
    const char *quant; /* what --quant was */
    /* What struct sl_modelfile says of them; NULL: nothing. */
    const char *chat, *no_text;
    const struct sl_layout_matrix *matrices; /* in order of sl_arch_tensor */
    size_t n_matrices;
    uint64_t tokenizer_bytes; /* 0: none */
    bool tables;              /* room for stages to be compressed */
    /* 0: as long as it comes out. A reader gives the file's, which may hold
     * metadata that this program would not write. */
    uint64_t header_bytes;
};

struct sl_layout_tensor {
    char name[SL_TENSOR_NAME];
    enum sl_ggml_type type;
    uint32_t n_dims;
    uint64_t ne[2];
    uint64_t off, bytes; /* in the file, without padding */
};

struct sl_layout {
    const struct sl_arch *arch;
    struct sl_hparams hp;
    char *name;
    char *quant;
    char *chat, *no_text;  /* NULL: nothing is said */
    uint64_t header_bytes; /* multiple of a page; the first tensor's offset */
    uint64_t file_bytes;
    /* Offsets are those in the file. */
    struct sl_layout_tensor *tensors; /* in file order */
    size_t n_tensors;
    struct sl_model_small *small; /* in order of sl_arch_tensor */
    size_t n_small;
    struct sl_model_matrix *matrices; /* in order of sl_arch_tensor */
    size_t n_matrices;
    /* In file order and without holes from header_bytes to file_bytes; bytes
     * count the padding (zeros). Begin with xxh3 = 0. */
    struct sl_model_section *sections;
    size_t n_sections;
    size_t first_stage; /* the section of stage 0; stages follow in order */
    uint64_t tokenizer_off, tokenizer_bytes;
    bool tables;
    char (*section_names)[SL_TENSOR_NAME]; /* what the sections borrow */
};

/* Errors: SL_ERR_CORRUPT naming the number or tensor (hyper-parameters that
 * sl_hparams_check refuses, geometry that is not the
 * architecture's shape, a name or size too long), SL_ERR_NOMEM. */
int sl_layout_init(struct sl_layout *layout,
                   const struct sl_layout_config *config, struct sl_error *err);
void sl_layout_fini(struct sl_layout *layout); /* a zeroed one is fine */

/* The name of what belongs to a weight: "x.weight" has "x.scale", and "x.low"
 * for its low plane. */
void sl_layout_name_of(char *name, size_t n, const char *weight,
                       const char *what);

/* The index of the section that holds byte off of the file. */
size_t sl_layout_section_at(const struct sl_layout *layout, uint64_t off);

/* The header_bytes bytes the file begins with, with the checksums that stand
 * in layout->sections and the header's own. *data is moved to the caller
 * (free). Errors: SL_ERR_NOMEM. */
int sl_layout_header(const struct sl_layout *layout, uint8_t **data,
                     struct sl_error *err);

#endif
