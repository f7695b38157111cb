#include "config.h"

#include <stdio.h>
#include <string.h>

#include <cuda_runtime_api.h>

#include "kernels/cuda/product.h"

/* Those that offload/device_cuda_list.c calls lost. */
const char *sl_cuda_error_text(int error)
{
    switch (error) {
    case cudaErrorLaunchFailure:
    case cudaErrorLaunchTimeout:
    case cudaErrorECCUncorrectable:
    case cudaErrorHardwareStackError:
    case cudaErrorUnknown:
    case cudaErrorNoDevice:
        return "the device is lost";
    default:
        return cudaGetErrorString((cudaError_t)error);
    }
}

static int attribute(int *value, enum cudaDeviceAttr attr, int device,
                     struct sl_error *err)
{
    cudaError_t e = cudaDeviceGetAttribute(value, attr, device);

    if (e != cudaSuccess)
        return sl_fail(err, SL_ERR_IO,
                       "looking at device %d: %s (CUDA error %d)", device,
                       sl_cuda_error_text((int)e), (int)e);
    return 0;
}

int sl_cuda_init(struct sl_cuda *c, void *stream, struct sl_error *err)
{
    int device, major, minor, n_sms;
    cudaError_t e = cudaGetDevice(&device);
    struct sl_error why;

    if (e != cudaSuccess)
        return sl_fail(err, SL_ERR_IO, "no device is current: %s",
                       sl_cuda_error_text((int)e));
    if (attribute(&major, cudaDevAttrComputeCapabilityMajor, device, err) !=
            0 ||
        attribute(&minor, cudaDevAttrComputeCapabilityMinor, device, err) !=
            0 ||
        attribute(&n_sms, cudaDevAttrMultiProcessorCount, device, err) != 0)
        return -1;
    memset(c, 0, sizeof *c);
    c->stream = stream;
    c->arch = 10 * major + minor;
    c->n_sms = (uint32_t)n_sms;
    if (sl_cublas_open(&c->blas, stream, &why) != 0)
        snprintf(c->note, sizeof c->note,
                 "prefill runs at a lower rate: %.150s", why.msg);
    return 0;
}

void sl_cuda_fini(struct sl_cuda *c)
{
    sl_cublas_close(c->blas);
    c->blas = NULL;
}

int sl_cuda_set_workspace(struct sl_cuda *c, void *at, uint64_t bytes,
                          struct sl_error *err)
{
    c->workspace = at;
    c->workspace_bytes = bytes;
    c->blas_ready = false;
    if (c->blas == NULL || bytes < SL_CUDA_BLAS_BYTES + SL_CUDA_LEAST_BYTES)
        return 0;
    /* 32 MiB is what cuBLAS asks for on the largest devices (cuBLAS library
     * documentation, cublasSetWorkspace); it must start as at does. */
    bytes = (bytes - SL_CUDA_BLAS_BYTES) / 256 * 256;
    if (sl_cublas_set_workspace(c->blas, (uint8_t *)at + bytes,
                                SL_CUDA_BLAS_BYTES, err) != 0)
        return -1;
    c->workspace_bytes = bytes;
    c->blas_ready = true;
    return 0;
}
