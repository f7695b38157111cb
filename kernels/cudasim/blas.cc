/* cuBLAS as far as sluice uses it, in the plainest way. */
#include "config.h"

#include <stdio.h>
#include <vector>

#include <cublas_v2.h>
#include <cuda_fp16.h>

#include "kernels/cudasim/sim.h"

struct cublasContext {
    cudaStream_t stream;
    int device;
};

static cudaError_t check_device(const char *call, cublasHandle_t handle)
{
    if (handle->device == sim_device())
        return cudaSuccess;
    return sim_refuse(cudaErrorInvalidResourceHandle,
                      "%s: a handle of device %d, and %d is current", call,
                      handle->device, sim_device());
}

static cublasStatus_t status_of(cudaError_t e)
{
    switch (e) {
    case cudaSuccess:
        return CUBLAS_STATUS_SUCCESS;
    case cudaErrorMemoryAllocation:
        return CUBLAS_STATUS_ALLOC_FAILED;
    case cudaErrorInvalidValue:
        return CUBLAS_STATUS_INVALID_VALUE;
    default:
        return CUBLAS_STATUS_EXECUTION_FAILED;
    }
}

cublasStatus_t cublasCreate_v2(cublasHandle_t *handle)
{
    cudaError_t e = sim_enter("cublasCreate");

    if (e)
        return status_of(e);
    *handle = new cublasContext();
    (*handle)->device = sim_device();
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasDestroy_v2(cublasHandle_t handle)
{
    cudaError_t e = sim_enter("cublasDestroy");

    if (!e)
        e = check_device("cublasDestroy", handle);
    delete handle;
    return status_of(e);
}

cublasStatus_t cublasSetStream_v2(cublasHandle_t handle, cudaStream_t stream)
{
    handle->stream = stream;
    return status_of(sim_enter("cublasSetStream"));
}

cublasStatus_t cublasSetWorkspace_v2(cublasHandle_t handle, void *workspace,
                                     size_t bytes)
{
    cudaError_t e = sim_enter("cublasSetWorkspace");

    if (!e && bytes)
        e = sim_check_range("cublasSetWorkspace", workspace, bytes, true);
    return status_of(e);
}

cublasStatus_t cublasSetMathMode(cublasHandle_t handle, cublasMath_t mode)
{
    return status_of(sim_enter("cublasSetMathMode"));
}

cublasStatus_t cublasGetVersion_v2(cublasHandle_t handle, int *version)
{
    *version = CUDART_VERSION * 10;
    return status_of(sim_enter("cublasGetVersion"));
}

const char *cublasGetStatusString(cublasStatus_t status)
{
    switch (status) {
    case CUBLAS_STATUS_SUCCESS:
        return "success";
    case CUBLAS_STATUS_ALLOC_FAILED:
        return "the resource allocation failed";
    case CUBLAS_STATUS_INVALID_VALUE:
        return "an unsupported value or parameter was passed";
    case CUBLAS_STATUS_NOT_SUPPORTED:
        return "the functionality requested is not supported";
    case CUBLAS_STATUS_EXECUTION_FAILED:
        return "the GPU program failed to execute";
    default:
        return "an internal operation failed";
    }
}

struct gemm_op : sim_op {
    bool ta, tb, c_f16;
    size_t m, n, k, lda, ldb, ldc;
    float alpha, beta;
    const unsigned short *a, *b;
    void *c;

    /* Column j of op(B) or row i of op(A), as floats. */
    void take(std::vector<float> &to, const unsigned short *from, size_t first,
              size_t stride)
    {
        for (size_t l = 0; l < k; l++)
            to[l] = cudasim_to_float(from[first + l * stride]);
    }

    void store(size_t i, size_t j, float sum)
    {
        size_t at = j * ldc + i;

        sum *= alpha;
        if (c_f16) {
            unsigned short *p = static_cast<unsigned short *>(c) + at;

            if (beta != 0)
                sum += beta * cudasim_to_float(*p);
            *p = cudasim_to_half(sum);
            return;
        }
        float *p = static_cast<float *>(c) + at;

        *p = beta != 0 ? sum + beta * *p : sum;
    }

    void run(struct sim_block *block) override
    {
        std::vector<float> row(k), columns(k * n);
        size_t size = c_f16 ? 2 : 4;

        for (size_t j = 0; j < (ta ? m : k); j++)
            sim_reads(a + j * lda, (ta ? k : m) * 2);
        for (size_t j = 0; j < (tb ? k : n); j++)
            sim_reads(b + j * ldb, (tb ? n : k) * 2);
        for (size_t j = 0; j < n; j++)
            sim_writes(static_cast<char *>(c) + j * ldc * size, m * size);

        for (size_t j = 0; j < n; j++) {
            take(row, b, tb ? j : j * ldb, tb ? ldb : 1);
            for (size_t l = 0; l < k; l++)
                columns[j * k + l] = row[l];
        }
        for (size_t i = 0; i < m; i++) {
            take(row, a, ta ? i * lda : i, ta ? 1 : lda);
            for (size_t j = 0; j < n; j++) {
                float sum = 0;

                for (size_t l = 0; l < k; l++)
                    sum += row[l] * columns[j * k + l];
                store(i, j, sum);
            }
        }
    }
};

/* Where a matrix of that many columns, lda apart, ends. */
static cudaError_t check_matrix(const char *name, const void *p, size_t rows,
                                size_t columns, size_t ld, size_t size)
{
    char what[64];

    if (ld < rows)
        return sim_refuse(cudaErrorInvalidValue,
                          "cublasGemmEx: %s has %zu rows and ld %zu", name,
                          rows, ld);
    snprintf(what, sizeof what, "cublasGemmEx, %s", name);
    return sim_check_range(what, p, ((columns - 1) * ld + rows) * size, true);
}

cublasStatus_t cublasGemmEx(cublasHandle_t handle, cublasOperation_t op_a,
                            cublasOperation_t op_b, int m, int n, int k,
                            const void *alpha, const void *a,
                            cudaDataType type_a, int lda, const void *b,
                            cudaDataType type_b, int ldb, const void *beta,
                            void *c, cudaDataType type_c, int ldc,
                            cublasComputeType_t compute, cublasGemmAlgo_t algo)
{
    cudaError_t e = sim_enter("cublasGemmEx");
    std::unique_ptr<gemm_op> op(new gemm_op());

    if (!e)
        e = check_device("cublasGemmEx", handle);
    if (e)
        return status_of(e);
    if (type_a != CUDA_R_16F || type_b != CUDA_R_16F ||
        compute != CUBLAS_COMPUTE_32F)
        return CUBLAS_STATUS_NOT_SUPPORTED;
    if (m <= 0 || n <= 0 || k <= 0 || lda <= 0 || ldb <= 0 || ldc <= 0)
        return CUBLAS_STATUS_INVALID_VALUE;
    op->ta = op_a != CUBLAS_OP_N;
    op->tb = op_b != CUBLAS_OP_N;
    op->c_f16 = type_c == CUDA_R_16F;
    op->m = (size_t)m, op->n = (size_t)n, op->k = (size_t)k;
    op->lda = (size_t)lda, op->ldb = (size_t)ldb, op->ldc = (size_t)ldc;
    op->alpha = *static_cast<const float *>(alpha);
    op->beta = *static_cast<const float *>(beta);
    op->a = static_cast<const unsigned short *>(a);
    op->b = static_cast<const unsigned short *>(b);
    op->c = c;
    e = check_matrix("A", a, op->ta ? op->k : op->m, op->ta ? op->m : op->k,
                     op->lda, 2);
    if (!e)
        e = check_matrix("B", b, op->tb ? op->n : op->k, op->tb ? op->k : op->n,
                         op->ldb, 2);
    if (!e)
        e = check_matrix("C", c, op->m, op->n, op->ldc, op->c_f16 ? 2 : 4);
    if (!e)
        e = sim_enqueue("cublasGemmEx", handle->stream, std::move(op));
    return status_of(e);
}
