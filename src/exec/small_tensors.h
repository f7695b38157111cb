/*
 * small_tensors.h - what of a model is always in RAM: norms, biases, scales of
 * rows
 *
 * Read once, into one region, so that a device can take a copy as a whole: a
 * pointer's distance from region.base is its distance there.
 */
#ifndef SL_SMALL_TENSORS_H
#define SL_SMALL_TENSORS_H

#include "src/base/mem.h"
#include "src/model/modelfile.h"

struct sl_small_tensors {
    struct sl_region region;
    /* (n_layers + 1) by slot, NULL where the model has none; the last are
     * those of no layer. */
    const float *(*layers)[SL_SLOT_COUNT];
    const uint16_t **scales; /* (n_matrices), NULL where streamed or none */
};

/* Bytes of the region. */
uint64_t sl_small_tensors_bytes(const struct sl_modelfile *mf);
/* Errors: SL_ERR_NOMEM, SL_ERR_IO. */
int sl_small_tensors_init(struct sl_small_tensors *v,
                          const struct sl_modelfile *mf, struct sl_error *err);
void sl_small_tensors_fini(
    struct sl_small_tensors *v); /* a zeroed one is fine */

#endif
