/*
 * topk.cu - the largest values of a row, and where they stand
 *
 * Value and column make one number of 64 bits, larger for larger values and,
 * among equal ones, for lower columns: so all differ and the order is total.
 * Its k-th largest is found digit by digit, 8 bits at a time from the top,
 * by counting; what is at least that large is collected and sorted. A row a
 * thread block.
 */
#include "config.h"

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/values.cuh"

#define THREADS 1024u
#define DIGITS  256u

static_assert(THREADS == SL_WARP * SL_WARP && THREADS >= SL_CUDA_MAX_TOP,
              "a lane a warp, and a thread a result");

typedef unsigned long long key_t64;

struct top_args {
    uint32_t *index;
    float *value;
    const float *x;
    size_t stride;
    uint32_t cols, k;
};

struct top_shared {
    key_t64 best[SL_CUDA_MAX_TOP];
    uint32_t count[DIGITS];
    uint32_t n, digit, above;
};

/* NaN below all, zeros of both signs the same. */
__device__ __forceinline__ key_t64 key_of(float v, uint32_t column)
{
    uint32_t bits = __float_as_uint(v + 0.0f);

    bits = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    if (v != v)
        bits = 0;
    return (key_t64)bits << 32 | (0xffffffffu - column);
}

/* Larger and smaller swap places until box[0 .. n) falls; n a power of 2. */
__device__ __forceinline__ void sort(key_t64 *box, uint32_t n)
{
    for (uint32_t size = 2; size <= n; size *= 2) {
        for (uint32_t apart = size / 2; apart > 0; apart /= 2) {
            uint32_t i = threadIdx.x, j = i ^ apart;

            if (j > i && i < n) {
                key_t64 a = box[i], b = box[j];

                if ((a < b) == ((i & size) == 0)) {
                    box[i] = b;
                    box[j] = a;
                }
            }
            __syncthreads();
        }
    }
}

/* The digit in which the want-th largest of the counted lies, and how many
 * lie above it. */
__device__ __forceinline__ void find_digit(struct top_shared *sh, uint32_t want)
{
    uint32_t above = 0, digit = DIGITS - 1;

    while (above + sh->count[digit] < want)
        above += sh->count[digit--];
    sh->digit = digit;
    sh->above = above;
}

/* A lower bound that exactly k keys of the row reach. */
__device__ __forceinline__ key_t64 bound(struct top_shared *sh, const float *x,
                                         uint32_t cols, uint32_t k)
{
    key_t64 prefix = 0;
    uint32_t want = k;

    for (int shift = 56; shift >= 0; shift -= 8) {
        bool all;

        for (uint32_t i = threadIdx.x; i < DIGITS; i += THREADS)
            sh->count[i] = 0;
        __syncthreads();
        for (uint32_t i = threadIdx.x; i < cols; i += THREADS) {
            key_t64 key = key_of(x[i], i);

            if (shift == 56 || key >> (shift + 8) == prefix)
                atomicAdd(&sh->count[key >> shift & (DIGITS - 1)], 1u);
        }
        __syncthreads();
        if (threadIdx.x == 0)
            find_digit(sh, want);
        __syncthreads();
        prefix = prefix << 8 | sh->digit;
        want -= sh->above;
        all = sh->count[sh->digit] == want;
        __syncthreads();
        if (all)
            return prefix << shift;
    }
    return prefix;
}

__global__ void __launch_bounds__(THREADS) top_k(struct top_args a)
{
    SL_SHARED(struct top_shared, shared, [1]);
    struct top_shared *sh = shared;
    const float *x = a.x + blockIdx.x * a.stride;
    key_t64 least = bound(sh, x, a.cols, a.k);
    uint32_t n = 1;

    while (n < a.k)
        n *= 2;
    if (threadIdx.x < n)
        sh->best[threadIdx.x] = 0;
    if (threadIdx.x == 0)
        sh->n = 0;
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < a.cols; i += THREADS) {
        key_t64 key = key_of(x[i], i);

        if (key >= least)
            sh->best[atomicAdd(&sh->n, 1u)] = key;
    }
    __syncthreads();
    sort(sh->best, n);
    if (threadIdx.x < a.k) {
        size_t at = (size_t)blockIdx.x * a.k + threadIdx.x;
        uint32_t column = 0xffffffffu - (uint32_t)sh->best[threadIdx.x];

        a.index[at] = column;
        if (a.value != NULL)
            a.value[at] = x[column];
    }
}

__device__ __forceinline__ key_t64 warp_max(key_t64 v)
{
    for (int i = 16; i > 0; i /= 2) {
        key_t64 other = __shfl_xor_sync(SL_ALL_LANES, v, i);

        v = other > v ? other : v;
    }
    return v;
}

/* k = 1 in one pass. */
__global__ void __launch_bounds__(THREADS) top_1(struct top_args a)
{
    SL_SHARED(key_t64, best, [SL_WARP]);
    const float *x = a.x + blockIdx.x * a.stride;
    uint32_t lane = threadIdx.x % SL_WARP, column;
    key_t64 most = 0;

    for (uint32_t i = threadIdx.x; i < a.cols; i += THREADS) {
        key_t64 key = key_of(x[i], i);

        most = key > most ? key : most;
    }
    most = warp_max(most);
    if (lane == 0)
        best[threadIdx.x / SL_WARP] = most;
    __syncthreads();
    most = warp_max(best[lane]);
    if (threadIdx.x != 0)
        return;
    column = 0xffffffffu - (uint32_t)most;
    a.index[blockIdx.x] = column;
    if (a.value != NULL)
        a.value[blockIdx.x] = x[column];
}

int sl_cuda_top_k(const struct sl_cuda *c, uint32_t *index, float *value,
                  const float *x, size_t stride, uint32_t cols, uint32_t n,
                  uint32_t k, struct sl_error *err)
{
    struct top_args a = {index, value, x, stride, cols, k};

    if (n == 0)
        return 0;
    if (k < 1 || k > SL_CUDA_MAX_TOP || k > cols)
        return sl_fail(err, SL_ERR_INTERNAL, "the %u largest of %u values", k,
                       cols);
    return sl_launch(c, "top k", k == 1 ? top_1 : top_k, dim3(n), THREADS, &a,
                     err);
}
