/*
 * device_file.h - the code for GPUs, in a file of its own
 *
 * Kernels for a dozen architectures are many times the program. With
 * --enable-gpu-file (what nvcc's builds come to) they lie, with all that calls
 * the CUDA runtime, in SL_DEVICE_FILE, which the program opens when a device
 * is asked for and a driver is there, and otherwise leaves alone: no byte of it
 * comes into the page cache. What stands in that file has the same names and
 * headers as ever; device_file.c and src/exec/exec_gpu_file.c have a function
 * of each name that the program calls, which calls the file's.
 */
#ifndef SL_OFFLOAD_DEVICE_FILE_H
#define SL_OFFLOAD_DEVICE_FILE_H

#include "src/base/error.h"

#define SL_DEVICE_FILE "sluice-cuda.so"

/* The function `name` of the file, which lies beside the program or where
 * 'make install' puts it; NULL on error. The file stays open once it is.
 * Errors: SL_ERR_UNSUPPORTED where there is no driver, no such file, or one
 * of another build. */
void *sl_device_file_symbol(const char *name, struct sl_error *err);

/* In the file: which build it is of. */
const char *sl_device_file_build(void);

#endif
