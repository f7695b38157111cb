/*
 * adapters.h - low-rank adapters over the matrices of a model file
 *
 * What a product becomes with them (ckpt/lora.h):  W x + B (A x). A and B lie
 * in RAM as FP32 for the whole run, x is taken as it is before it is rounded
 * for W. The CPU engine's; a GPU has none.
 */
#ifndef SL_ADAPTERS_H
#define SL_ADAPTERS_H

#include "kernels/matmul.h"
#include "src/base/mem.h"
#include "src/ckpt/lora.h"
#include "src/model/modelfile.h"

struct sl_adapter {
    struct sl_matrix a, b; /* (rank, cols), (rows, rank); a.rows 0: none */
    float *aw, *bw;
};

struct sl_adapters {
    struct sl_region region;
    struct sl_adapter *of; /* (n_matrices) */
    float *low;            /* (pass_positions, low_stride): A x */
    size_t low_stride;     /* the largest rank */
    uint64_t sum;          /* a checksum of all A and B, never 0 */
};

/* Bytes of the region; 0 without adapters (l NULL). */
uint64_t sl_adapters_bytes(const struct sl_lora *l,
                           const struct sl_modelfile *mf,
                           uint32_t pass_positions);
/* Reads them all. Errors: as sl_lora_read. */
int sl_adapters_init(struct sl_adapters *as, const struct sl_lora *l,
                     const struct sl_modelfile *mf, uint32_t pass_positions,
                     struct sl_error *err);
void sl_adapters_fini(struct sl_adapters *as); /* a zeroed one is fine */

#endif
