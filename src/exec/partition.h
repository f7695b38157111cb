/*
 * partition.h - stages cut into slabs
 *
 * A slab is what is loaded and computed in one go. A stage that is no larger
 * than the cap is one slab; a larger one is cut into its matrices, and these
 * by blocks of rows (a GLU by matched blocks of its two halves), never along
 * a sum, so any cut gives the same bits. Small slabs leave more room for
 * residents, large ones take fewer hand-offs.
 *
 * Matrices in two planes (quant/planes.h) make pairs of slabs: one that has
 * high planes, and all else of a stage, and behind it that of the low ones. All
 * others are slabs to be kept (slab.h), if some are.
 *
 * The expert that all positions of a mixture use is of its layer's stage, and
 * of no slab where a device has it in its memory (experts.h).
 */
#ifndef SL_PARTITION_H
#define SL_PARTITION_H

#include <stddef.h>
#include <stdint.h>

#include "offload/slab.h"
#include "src/model/modelfile.h"

/* No slab is larger, however much memory there is. */
#define SL_SLAB_MAX_BYTES (640u * 1000 * 1000)

/* What of a matrix a part is. */
enum sl_part_of {
    SL_PART_ALL,  /* its weights, in one piece */
    SL_PART_HIGH, /* their high plane; the low one is in the next slab */
    SL_PART_LOW,
};

/* Blocks [first_block, first_block + n_blocks) of each segment of a matrix,
 * and where their bytes lie from the slab's first byte. */
struct sl_part {
    uint32_t matrix; /* index into modelfile.matrices */
    enum sl_part_of of;
    uint32_t first_block, n_blocks;
    uint64_t weight_at[2]; /* by segment */
    uint64_t scale_at[2];  /* meaningless when scales are resident or none,
                            * and of low planes */
};

/* The matrix as a part has it: a plane is INT4. */
struct sl_matrix sl_part_geom(const struct sl_part *part,
                              const struct sl_model_matrix *m);

struct sl_partition {
    struct sl_slab *slabs;
    size_t n_slabs;
    struct sl_part *parts; /* of all slabs, in order of use */
    size_t n_parts;
    uint32_t *first_part; /* (n_slabs + 1) */
};

/* SL_PART_HIGH: some part is a high plane, and the next slab has the low
 * planes of those, in the same order. SL_PART_LOW: all parts are. */
enum sl_part_of sl_partition_of(const struct sl_partition *partition,
                                size_t slab);

/* Cuts so that slabs load at most cap bytes, or one block where a block is
 * larger; without the shared experts of the first n_shared layers that have
 * some. Errors: SL_ERR_NOMEM. */
int sl_partition_make(struct sl_partition *partition,
                      const struct sl_modelfile *mf, uint64_t cap,
                      uint32_t n_shared, struct sl_error *err);
void sl_partition_fini(struct sl_partition *partition);

/* Load bytes of the largest slab. */
uint64_t sl_partition_largest(const struct sl_partition *partition);
/* Heap bytes a cut takes. */
uint64_t sl_partition_bytes(const struct sl_partition *partition);

#endif
