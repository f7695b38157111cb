#include "config.h"

#include <stdlib.h>

#include <cublas_v2.h>
#include <cuda_runtime_api.h>
#ifndef CUDA_SIM
#include <dlfcn.h>
#endif

#include "kernels/cuda/product.h"

/* cuBLAS is some 100 MB, and not on every machine: it is loaded when it is
 * first wanted and never linked, so that the program starts without it.
 * cudasim's stands in the program itself. */
struct sl_cublas {
    void *library;
    bool found; /* whether or not it can be used */
    cublasHandle_t handle;
    __typeof__(cublasCreate_v2) *create;
    __typeof__(cublasDestroy_v2) *destroy;
    __typeof__(cublasSetStream_v2) *set_stream;
    __typeof__(cublasSetWorkspace_v2) *set_workspace;
    __typeof__(cublasGemmEx) *gemm_ex;
};

/* Versions whose functions have the form that was compiled for, the newest
 * first. One may be there and not start, for it asks for a newer driver. */
static const char *const names[] = {
    "libcublas.so.13",
    "libcublas.so.12",
};

#ifdef CUDA_SIM
static int load(struct sl_cublas *b, const char *name, struct sl_error *err)
{
    b->found = true;
    b->create = cublasCreate_v2;
    b->destroy = cublasDestroy_v2;
    b->set_stream = cublasSetStream_v2;
    b->set_workspace = cublasSetWorkspace_v2;
    b->gemm_ex = cublasGemmEx;
    return 0;
}

static void unload(struct sl_cublas *b)
{
}
#else
/* POSIX's way to make a function of what dlsym returns. */
static void *symbol(struct sl_cublas *b, const char *name, bool *all)
{
    void *p = dlsym(b->library, name);

    *all = *all && p != NULL;
    return p;
}

static int load(struct sl_cublas *b, const char *name, struct sl_error *err)
{
    bool all = true;

    b->library = dlopen(name, RTLD_NOW | RTLD_NODELETE);
    if (b->library == NULL)
        return sl_fail(err, SL_ERR_UNSUPPORTED,
                       "cuBLAS was not found: install it, or put the folder "
                       "of %s into LD_LIBRARY_PATH",
                       name);
    b->found = true;
    *(void **)&b->create = symbol(b, "cublasCreate_v2", &all);
    *(void **)&b->destroy = symbol(b, "cublasDestroy_v2", &all);
    *(void **)&b->set_stream = symbol(b, "cublasSetStream_v2", &all);
    *(void **)&b->set_workspace = symbol(b, "cublasSetWorkspace_v2", &all);
    *(void **)&b->gemm_ex = symbol(b, "cublasGemmEx", &all);
    if (!all)
        return sl_fail(err, SL_ERR_UNSUPPORTED,
                       "%s lacks functions of version 12", name);
    return 0;
}

static void unload(struct sl_cublas *b)
{
    if (b->library != NULL)
        dlclose(b->library);
}
#endif

static int start(struct sl_cublas *b, const char *name, void *stream,
                 struct sl_error *err)
{
    cublasStatus_t e;

    if (load(b, name, err) != 0)
        return -1;
    e = b->create(&b->handle);
    if (e != CUBLAS_STATUS_SUCCESS) {
        b->handle = NULL;
        return sl_fail(err, SL_ERR_UNSUPPORTED,
                       "%s does not start on this device (status %d)", name,
                       (int)e);
    }
    e = b->set_stream(b->handle, stream);
    if (e != CUBLAS_STATUS_SUCCESS)
        return sl_fail(err, SL_ERR_UNSUPPORTED,
                       "%s does not take the stream (status %d)", name, (int)e);
    return 0;
}

/* The first that starts. Else what is said is of the newest that is there. */
int sl_cublas_open(struct sl_cublas **blas, void *stream, struct sl_error *err)
{
    struct sl_error why = {.code = SL_OK};
    bool found = false;

    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct sl_cublas *b = calloc(1, sizeof *b);
        struct sl_error e;

        if (b == NULL)
            return sl_fail(err, SL_ERR_NOMEM, "cuBLAS: no memory");
        if (start(b, names[i], stream, &e) == 0) {
            *blas = b;
            return 0;
        }
        if (i == 0 || (b->found && !found))
            why = e;
        found = found || b->found;
        sl_cublas_close(b);
    }
    if (err != NULL)
        *err = why;
    return -1;
}

void sl_cublas_close(struct sl_cublas *b)
{
    if (b == NULL)
        return;
    if (b->handle != NULL)
        b->destroy(b->handle);
    unload(b);
    free(b);
}

int sl_cublas_set_workspace(struct sl_cublas *b, void *at, uint64_t bytes,
                            struct sl_error *err)
{
    cublasStatus_t e = b->set_workspace(b->handle, at, bytes);

    if (e != CUBLAS_STATUS_SUCCESS)
        return sl_fail(err, SL_ERR_IO,
                       "cuBLAS does not take a workspace of %llu bytes "
                       "(status %d)",
                       (unsigned long long)bytes, (int)e);
    return 0;
}

/* Column by column, as cuBLAS sees it: y' (n_rows, n) = w' (cols, n_rows)
 * transposed . x' (cols, n). */
int sl_cublas_product(struct sl_cublas *b, float *y, size_t y_stride,
                      const uint16_t *w, size_t w_stride, uint32_t n_rows,
                      const uint16_t *x, size_t x_stride, uint32_t n,
                      uint32_t cols, struct sl_error *err)
{
    const float one = 1, zero = 0;
    cublasStatus_t e = b->gemm_ex(
        b->handle, CUBLAS_OP_T, CUBLAS_OP_N, (int)n_rows, (int)n, (int)cols,
        &one, w, CUDA_R_16F, (int)w_stride, x, CUDA_R_16F, (int)x_stride, &zero,
        y, CUDA_R_32F, (int)y_stride, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT);

    if (e != CUBLAS_STATUS_SUCCESS)
        return sl_fail(err, SL_ERR_IO,
                       "cuBLAS refused a product of %u x %u with %u positions "
                       "(status %d)",
                       n_rows, cols, n, (int)e);
    return 0;
}
