/*
 * npy.h - a NumPy .npy file of float32 values, written as they come
 *
 * (numpy.lib.format, version 1.0.) The file appears under its name only when
 * it is complete.
 */
#ifndef SL_NPY_H
#define SL_NPY_H

#include <stddef.h>
#include <stdint.h>

#include "src/base/error.h"
#include "src/base/newfile.h"

struct sl_npy {
    struct sl_newfile to;
    uint64_t total_bytes, written_bytes;
};

/* An array of this shape, row-major; n_dims at most SL_NPY_DIMS, 0 of them: a
 * single value. Errors: SL_ERR_IO, SL_ERR_NOMEM. */
#define SL_NPY_DIMS 8
int sl_npy_open(struct sl_npy *npy, const char *path, const uint64_t *shape,
                unsigned n_dims, struct sl_error *err);
/* n values. Errors: SL_ERR_IO, SL_ERR_NOSPACE. */
int sl_npy_write(struct sl_npy *npy, const float *values, size_t n,
                 struct sl_error *err);
/* Completes and names the file. Errors: SL_ERR_IO, SL_ERR_NOSPACE. */
int sl_npy_close(struct sl_npy *npy, struct sl_error *err);
/* Removes what was written. A zeroed or closed npy is fine. */
void sl_npy_abort(struct sl_npy *npy);

#endif
