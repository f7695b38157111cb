/*
 * modelfile_rows.h - a tensor of a model file, as floats
 *
 * For looking at, not for running: rows are decoded one after another on the
 * calling thread, a compressed stage chunk by chunk.
 */
#ifndef SL_MODELFILE_ROWS_H
#define SL_MODELFILE_ROWS_H

#include "src/model/modelfile.h"

/* Takes the next n values, row-major; -1 with err filled stops. */
typedef int sl_rows_fn(void *opaque, const float *values, size_t n,
                       struct sl_error *err);

/* All values of a matrix in order of its rows: what is quantised as q * scale
 * in FP32. Takes some MiB of memory. Errors: SL_ERR_IO, SL_ERR_CORRUPT (a
 * damaged chunk, with its place), SL_ERR_NOMEM, those of take. */
int sl_modelfile_matrix_rows(const struct sl_modelfile *mf,
                             const struct sl_model_matrix *m, sl_rows_fn *take,
                             void *opaque, struct sl_error *err);
int sl_modelfile_vector_rows(const struct sl_modelfile *mf,
                             const struct sl_model_small *v, sl_rows_fn *take,
                             void *opaque, struct sl_error *err);

#endif
