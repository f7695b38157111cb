/*
 * device_file.h - the code for GPUs, in a file of its own
 *
 * Kernels for a dozen architectures are many times the program. With
 * --enable-gpu-file (what nvcc's builds come to) they lie, with all that calls
 * the CUDA runtime, in SL_DEVICE_FILE (src/base/module_file.h), which the
 * program opens when a device is asked for and a driver is there.
 */
#ifndef SL_OFFLOAD_DEVICE_FILE_H
#define SL_OFFLOAD_DEVICE_FILE_H

#include "src/base/error.h"

#define SL_DEVICE_FILE "sluice-cuda.so"

/* The function `name` of the file; NULL on error. Errors: SL_ERR_UNSUPPORTED
 * where there is no driver; those of sl_module_file_symbol. */
void *sl_device_file_symbol(const char *name, struct sl_error *err);

#endif
