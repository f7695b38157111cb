/*
 * The simulated GPU: that kernels, streams and memory do what CUDA's do, and
 * that it catches what a GPU would let pass.
 */
#include "config.h"

#include <string.h>

#include <cublas_v2.h>
#include <cuda_fp16.h>

#include "kernels/cudasim/device_ptx.h"
#include "src/base/half.h"
#include "tests/cudasim_support.h"

/* --- blocks -------------------------------------------------------------- */

static __global__ void where_am_i(unsigned *out)
{
    unsigned block =
        blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
    unsigned thread =
        threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);

    out[block * blockDim.x * blockDim.y * blockDim.z + thread] =
        block * 1000 + thread;
}

static void every_thread_runs_once(void **state)
{
    const dim3 grid(3, 2, 2), block(5, 4, 2);
    unsigned *p = device_new<unsigned>(480), got[480];

    launch(where_am_i, grid, block, 0, nullptr, p);
    fetch(got, p, 480);
    for (unsigned i = 0; i < 480; i++)
        assert_int_equal(got[i], i / 40 * 1000 + i % 40);
    assert_cuda(cudaFree(p));
}

/* Each thread hands its value on through shared memory, many times. */
static __global__ void pass_round(int *out, int rounds)
{
    SL_SHARED(int, slot, [300]);
    unsigned i = threadIdx.x, n = blockDim.x;
    int value = (int)i;

    for (int r = 0; r < rounds; r++) {
        slot[(i + 1) % n] = value;
        __syncthreads();
        value = slot[i];
        __syncthreads();
    }
    out[blockIdx.x * n + i] = value;
}

static void barriers_order_shared_memory(void **state)
{
    int *p = device_new<int>(600), got[600];

    launch(pass_round, dim3(2), dim3(300), 0, nullptr, p, 7);
    fetch(got, p, 600);
    for (int i = 0; i < 600; i++)
        assert_int_equal(got[i], (i % 300 + 300 - 7) % 300);
    assert_cuda(cudaFree(p));
}

static __global__ void warp_things(int *out)
{
    int lane = (int)threadIdx.x % 32, base = (int)threadIdx.x * 8;
    unsigned all = 0xffffffffu;
    double d = __shfl_xor_sync(all, lane + 0.5, 3);

    out[base] = __shfl_sync(all, lane * 10, 5);
    out[base + 1] = __shfl_down_sync(all, lane, 4);
    out[base + 2] = __shfl_up_sync(all, lane, 4, 16);
    out[base + 3] = __shfl_xor_sync(all, lane, 9, 8);
    out[base + 4] = (int)__ballot_sync(all, lane % 3 == 0);
    out[base + 5] = __any_sync(all, lane == 31) + 2 * __all_sync(all, lane < 9);
    out[base + 6] = (int)(d * 2);
    out[base + 7] = 0;
    if (lane >= 16) { /* half a warp among itself */
        for (int i = 8; i > 0; i /= 2)
            lane += __shfl_xor_sync(0xffff0000u, lane, i);
        out[base + 7] = lane;
    }
}

static void warps_exchange_values(void **state)
{
    int *p = device_new<int>(64 * 8), got[64][8];

    launch(warp_things, dim3(1), dim3(64), 0, nullptr, p);
    fetch(*got, p, 64 * 8);
    for (int i = 0; i < 64; i++) {
        int lane = i % 32;

        assert_int_equal(got[i][0], 50);
        assert_int_equal(got[i][1], lane < 28 ? lane + 4 : lane);
        assert_int_equal(got[i][2], lane % 16 < 4 ? lane : lane - 4);
        /* beyond the eight: its own, or below them: what is there */
        assert_int_equal(got[i][3], (lane ^ 9) > (lane | 7) ? lane : lane ^ 9);
        assert_int_equal(got[i][4], 0x49249249);
        assert_int_equal(got[i][5], 1);
        assert_int_equal(got[i][6], 2 * (lane ^ 3) + 1);
        assert_int_equal(got[i][7], lane < 16 ? 0 : 376);
    }
    assert_cuda(cudaFree(p));
}

/* The sum of n values: atomics and shared memory of the launch's size. */
static __global__ void sum_up(float *sum, int *count, const float *x, int n)
{
    SL_SHARED_DYNAMIC(float, part);
    unsigned t = threadIdx.x;

    part[t] = 0;
    for (int i = (int)(blockIdx.x * blockDim.x + t); i < n;
         i += (int)(gridDim.x * blockDim.x))
        part[t] += x[i];
    __syncthreads();
    for (unsigned n2 = blockDim.x / 2; n2 > 0; n2 /= 2) {
        if (t < n2)
            part[t] += part[t + n2];
        __syncthreads();
    }
    if (t == 0)
        atomicAdd(sum, part[0]);
    atomicAdd(count, 1);
}

static void atomics_add_up(void **state)
{
    float *x = device_new<float>(1000), *sum = device_new<float>(1);
    float host[1000], got;
    int *count = device_new<int>(1), n;

    for (int i = 0; i < 1000; i++)
        host[i] = (float)i;
    assert_cuda(cudaMemcpy(x, host, sizeof host, cudaMemcpyHostToDevice));
    assert_cuda(cudaMemset(sum, 0, sizeof *sum));
    assert_cuda(cudaMemset(count, 0, sizeof *count));
    launch(sum_up, dim3(3), dim3(128), 128 * sizeof(float), nullptr, sum, count,
           (const float *)x, 1000);
    fetch(&got, sum, 1);
    fetch(&n, count, 1);
    assert_true(got == 499500.f);
    assert_int_equal(n, 3 * 128);
    assert_cuda(cudaFree(x));
    assert_cuda(cudaFree(sum));
    assert_cuda(cudaFree(count));
}

/* --- streams ------------------------------------------------------------- */

static __global__ void add_one(int *to, const int *from, int n)
{
    int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);

    if (i < n)
        to[i] = from[i] + 1;
}

/* A copy on one stream, its use on another; the copy is held back. */
static int used_value(bool with_wait)
{
    cudaStream_t up = stream_new(), compute = stream_new();
    int *p = device_new<int>(1), *q = device_new<int>(1), seven = 7, got = 0;
    cudaEvent_t copied;

    assert_cuda(cudaMemset(p, 0, sizeof *p));
    assert_cuda(cudaDeviceSynchronize());
    assert_cuda(cudaEventCreateWithFlags(&copied, cudaEventDisableTiming));
    cudasim_hold(up);
    assert_cuda(
        cudaMemcpyAsync(p, &seven, sizeof seven, cudaMemcpyHostToDevice, up));
    assert_cuda(cudaEventRecord(copied, up));
    if (with_wait)
        assert_cuda(cudaStreamWaitEvent(compute, copied, 0));
    launch(add_one, dim3(1), dim3(32), 0, compute, q, (const int *)p, 1);
    if (!with_wait)
        assert_cuda(cudaStreamSynchronize(compute));
    assert_int_equal(cudaStreamQuery(up), cudaErrorNotReady);
    assert_int_equal(cudaEventQuery(copied), cudaErrorNotReady);
    cudasim_release(up);
    assert_cuda(cudaStreamSynchronize(compute));
    assert_cuda(cudaEventSynchronize(copied));
    assert_cuda(cudaEventQuery(copied));
    fetch(&got, q, 1);
    assert_cuda(cudaFree(p));
    assert_cuda(cudaFree(q));
    assert_cuda(cudaEventDestroy(copied));
    assert_cuda(cudaStreamDestroy(up));
    assert_cuda(cudaStreamDestroy(compute));
    return got;
}

static void events_order_streams(void **state)
{
    assert_int_equal(used_value(true), 8);
}

static void a_missing_wait_gives_a_wrong_result(void **state)
{
    int before = races()->n;

    assert_int_equal(used_value(false), 1);
    expect_race(before);
}

/* Without a record there is nothing to wait for; a wait is for the record
 * that was the last when it was asked for. */
static void waits_are_for_records_made_before(void **state)
{
    cudaStream_t one = stream_new(), two = stream_new();
    cudaEvent_t event;

    assert_cuda(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    assert_cuda(cudaStreamWaitEvent(two, event, 0));
    assert_cuda(cudaEventSynchronize(event));
    assert_cuda(cudaStreamSynchronize(two));
    assert_cuda(cudaEventRecord(event, one));
    assert_cuda(cudaStreamWaitEvent(two, event, 0));
    assert_cuda(cudaStreamSynchronize(one));
    cudasim_hold(one);
    assert_cuda(cudaEventRecord(event, one));
    assert_cuda(cudaStreamSynchronize(two)); /* knows the first record only */
    assert_int_equal(cudaEventQuery(event), cudaErrorNotReady);
    cudasim_release(one);
    assert_cuda(cudaEventDestroy(event)); /* while it is pending */
    assert_cuda(cudaStreamDestroy(one));
    assert_cuda(cudaStreamDestroy(two));
}

static __global__ void append(int *list, int *n, int value)
{
    list[(*n)++] = value;
}

static void a_stream_executes_in_order(void **state)
{
    cudaStream_t s = stream_new();
    int *list = device_new<int>(100), *n = device_new<int>(1), got[100];

    assert_cuda(cudaMemsetAsync(n, 0, sizeof *n, s));
    for (int i = 0; i < 100; i++)
        launch(append, dim3(1), dim3(1), 0, s, list, n, i);
    assert_cuda(cudaStreamSynchronize(s));
    assert_cuda(cudaStreamQuery(s));
    fetch(got, list, 100);
    for (int i = 0; i < 100; i++)
        assert_int_equal(got[i], i);
    assert_cuda(cudaFree(list));
    assert_cuda(cudaFree(n));
    assert_cuda(cudaStreamDestroy(s));
}

static void events_tell_times(void **state)
{
    cudaStream_t s = stream_new();
    cudaEvent_t from, to;
    float ms = -1;

    assert_cuda(cudaEventCreate(&from));
    assert_cuda(cudaEventCreate(&to));
    assert_int_equal(cudaEventElapsedTime(&ms, from, to),
                     cudaErrorInvalidResourceHandle);
    assert_cuda(cudaEventRecord(from, s));
    assert_cuda(cudaEventRecord(to, s));
    assert_cuda(cudaEventSynchronize(to));
    assert_cuda(cudaEventElapsedTime(&ms, from, to));
    assert_true(ms >= 0);
    assert_cuda(cudaEventDestroy(from));
    assert_cuda(cudaEventDestroy(to));
    assert_cuda(cudaStreamDestroy(s));
}

/* --- copies -------------------------------------------------------------- */

/* Memory that is not pinned may be used again when the call is back; pinned
 * memory is read when the copy's turn comes. */
static void only_pinned_memory_is_read_later(void **state)
{
    cudaStream_t s = stream_new();
    int *p = device_new<int>(2), plain = 1, *pinned, got[2];
    uint64_t before = cudasim_pageable_copies();
    int races_before = races()->n;

    assert_cuda(cudaMallocHost((void **)&pinned, sizeof *pinned));
    *pinned = 1;
    cudasim_hold(s);
    assert_cuda(
        cudaMemcpyAsync(p, &plain, sizeof plain, cudaMemcpyHostToDevice, s));
    assert_int_equal(cudasim_pageable_copies(), before + 1);
    assert_cuda(cudaMemcpyAsync(p + 1, pinned, sizeof *pinned,
                                cudaMemcpyHostToDevice, s));
    assert_int_equal(cudasim_pageable_copies(), before + 1);
    plain = *pinned = 2;
    cudasim_release(s);
    assert_cuda(cudaStreamSynchronize(s));
    fetch(got, p, 2);
    assert_int_equal(got[0], 1);
    assert_int_equal(got[1], 2);
    expect_race(races_before);
    assert_cuda(cudaFreeHost(pinned));
    assert_cuda(cudaFree(p));
    assert_cuda(cudaStreamDestroy(s));
}

/* cudaMemcpy has read what is not pinned when it returns, no more. */
static void copies_up_are_there_when_their_stream_is_done(void **state)
{
    char *p = device_new<char>(64), host[64] = {}, *back;
    cudaStream_t s = stream_new();
    int races_before = races()->n;

    assert_cuda(cudaMallocHost(reinterpret_cast<void **>(&back), 64));
    cudasim_hold(nullptr);
    host[9] = 5;
    assert_cuda(cudaMemcpy(p, host, 64, cudaMemcpyHostToDevice));
    host[9] = 6;
    assert_cuda(cudaMemcpyAsync(back, p, 64, cudaMemcpyDeviceToHost, s));
    assert_cuda(cudaStreamSynchronize(s));
    assert_int_equal(static_cast<unsigned char>(back[9]), 0xff);
    cudasim_release(nullptr);
    assert_cuda(cudaStreamSynchronize(nullptr));
    assert_cuda(cudaMemcpyAsync(back, p, 64, cudaMemcpyDeviceToHost, s));
    assert_cuda(cudaStreamSynchronize(s));
    assert_int_equal(back[9], 5);
    expect_race(races_before); /* the copy that nothing waited for */
    assert_cuda(cudaFreeHost(back));
    assert_cuda(cudaStreamDestroy(s));
    assert_cuda(cudaFree(p));
}

static void copies_go_every_way(void **state)
{
    cudaStream_t s = stream_new();
    int *p = device_new<int>(4), *q = device_new<int>(4), got[4] = {};
    const int four[4] = {1, 2, 3, 4};

    assert_cuda(cudaMemcpyAsync(p, four, sizeof four, cudaMemcpyDefault, s));
    assert_cuda(
        cudaMemcpyAsync(q, p, sizeof four, cudaMemcpyDeviceToDevice, s));
    assert_cuda(cudaMemsetAsync(q, 0, sizeof *q, s));
    /* to memory that is not pinned: done when the call is back */
    assert_cuda(cudaMemcpyAsync(got, q, sizeof got, cudaMemcpyDeviceToHost, s));
    assert_int_equal(got[0], 0);
    assert_memory_equal(got + 1, four + 1, 3 * sizeof *got);
    assert_cuda(cudaFree(p));
    assert_cuda(cudaFree(q));
    assert_cuda(cudaStreamDestroy(s));
}

/* --- arithmetic ---------------------------------------------------------- */

static void halves_round_to_nearest_even(void **state)
{
    for (uint32_t h = 0; h < 0x10000; h++) {
        float f = cudasim_to_float((unsigned short)h), want;

        want = sl_half_to_float((uint16_t)h);
        if (want != want)
            assert_true(f != f);
        else
            assert_memory_equal(&f, &want, sizeof f);
    }
    for (uint64_t bits = 0; bits < 0x100000000u; bits += 997) {
        uint32_t b = (uint32_t)bits;
        uint16_t want;
        float f;

        memcpy(&f, &b, sizeof f);
        want = sl_float_to_half(f);
        if (f != f)
            assert_true((cudasim_to_half(f) & 0x7fff) > 0x7c00);
        else
            assert_int_equal(cudasim_to_half(f), want);
    }
}

/* 1 + 2^-11 lies between two halves; a fused product sees the 2^-24 that
 * decides, two roundings do not. */
static void half_operations_round_once(void **state)
{
    __half one = 1.f, tiny = 0x1p-24f, eleven = 0x1p-11f;
    __half up = __ushort_as_half(0x3c01);

    assert_int_equal(__half_as_ushort(__hadd(one, eleven)), 0x3c00);
    assert_int_equal(__half_as_ushort(__hadd(up, eleven)), 0x3c02);
    assert_int_equal(
        __half_as_ushort(__hfma(eleven, __half(1.0009765625f), one)), 0x3c01);
    assert_int_equal(__half_as_ushort(__hmul(tiny, __half(0.5f))), 0);
    assert_int_equal(__half_as_ushort(__hmul(tiny, __half(1.5f))), 2);
}

static void words_are_taken_apart(void **state)
{
    assert_int_equal(__dp4a((int)0x80ff7f01u, 0x01027f80, 5),
                     5 - 128 - 2 + 127 * 127 - 128);
    assert_int_equal(__byte_perm(0x33221100, 0x77665544, 0x6240), 0x66224400);
    assert_int_equal(__byte_perm(0x00008000, 0, 0x0009), 0x000000ff);
    assert_int_equal(__funnelshift_r(0x11223344, 0xaabbccdd, 8), 0xdd112233);
    assert_int_equal(__brev(0x80000001u), 0x80000001u);
    assert_int_equal(__clz(1), 31);
}

/* One warp: ldmatrix of what cp.async brought, mma, and back. */
static __global__ void multiply_tiles(float *c, const __half *a,
                                      const __half *b, bool wait)
{
    SL_SHARED(__half, tile_a, [16][16]);
    SL_SHARED(__half, tile_b, [16][8]); /* inner row, column */
    unsigned lane = threadIdx.x, g = lane / 4, t = lane % 4;
    uint32_t fa[4], fb[2];
    float sum[4] = {1, 1, 1, 1};

    cudasim_copy_async(&tile_a[lane / 2][lane % 2 * 8], a + lane * 8, 16);
    if (lane < 16)
        cudasim_copy_async(tile_b[lane], b + lane * 8, lane == 15 ? 8 : 16);
    cudasim_copy_commit();
    cudasim_copy_wait(wait ? 0 : 1);
    __syncwarp();
    cudasim_load_matrix<4>(fa, &tile_a[lane % 16][lane / 16 * 8], false);
    cudasim_load_matrix<2>(fb, tile_b[lane % 16], true);
    cudasim_mma(sum, fa, fb, cudasim_site{__FILE__, __LINE__});
    for (int i = 0; i < 4; i++)
        c[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = sum[i];
}

static void tiles_are_multiplied(void **state)
{
    __half a[256], b[128], *pa = device_new<__half>(256);
    __half *pb = device_new<__half>(128);
    float got[128], *pc = device_new<float>(128);

    for (int i = 0; i < 256; i++)
        a[i] = (float)(i * 7 % 31 - 15);
    for (int i = 0; i < 128; i++)
        b[i] = (float)(i * 5 % 17 - 8);
    assert_cuda(cudaMemcpy(pa, a, sizeof a, cudaMemcpyHostToDevice));
    assert_cuda(cudaMemcpy(pb, b, sizeof b, cudaMemcpyHostToDevice));
    launch(multiply_tiles, dim3(1), dim3(32), 0, nullptr, pc,
           (const __half *)pa, (const __half *)pb, true);
    fetch(got, pc, 128);
    for (int i = 124; i < 128; i++)
        b[i] = 0.f; /* the copy of the last row was of half of it */
    for (int r = 0; r < 16; r++)
        for (int n = 0; n < 8; n++) {
            float want = 1;

            for (int k = 0; k < 16; k++)
                want += (float)a[16 * r + k] * (float)b[8 * k + n];
            assert_true(got[8 * r + n] == want);
        }
    launch(multiply_tiles, dim3(1), dim3(32), 0, nullptr, pc,
           (const __half *)pa, (const __half *)pb, false);
    fetch(got, pc, 128);
    assert_true(got[0] != got[0]); /* not waited for: NaNs */
    assert_cuda(cudaFree(pa));
    assert_cuda(cudaFree(pb));
    assert_cuda(cudaFree(pc));
}

/* C = 2 A^T B + 3 C with A (k, m), B (k, n), all column-major and padded. */
static void cublas_multiplies(void **state)
{
    const int m = 5, n = 3, k = 7, lda = 8, ldb = 9, ldc = 6;
    __half a[40], b[27], *pa = device_new<__half>(40);
    __half *pb = device_new<__half>(27);
    float c[18], got[18], *pc = device_new<float>(18), two = 2, three = 3;
    cublasHandle_t blas;

    for (int i = 0; i < 40; i++)
        a[i] = (float)(i % 11 - 5);
    for (int i = 0; i < 27; i++)
        b[i] = (float)(i % 5 - 2);
    for (int i = 0; i < 18; i++)
        c[i] = (float)i;
    assert_cuda(cudaMemcpy(pa, a, sizeof a, cudaMemcpyHostToDevice));
    assert_cuda(cudaMemcpy(pb, b, sizeof b, cudaMemcpyHostToDevice));
    assert_cuda(cudaMemcpy(pc, c, sizeof c, cudaMemcpyHostToDevice));
    assert_int_equal(cublasCreate(&blas), CUBLAS_STATUS_SUCCESS);
    assert_int_equal(cublasGemmEx(blas, CUBLAS_OP_T, CUBLAS_OP_N, m, n, k, &two,
                                  pa, CUDA_R_16F, lda, pb, CUDA_R_16F, ldb,
                                  &three, pc, CUDA_R_32F, ldc,
                                  CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
                     CUBLAS_STATUS_SUCCESS);
    fetch(got, pc, 18);
    for (int j = 0; j < n; j++)
        for (int i = 0; i < ldc; i++) {
            float want = c[j * ldc + i], sum = 0;

            for (int l = 0; l < k; l++)
                sum +=
                    i < m ? (float)a[i * lda + l] * (float)b[j * ldb + l] : 0;
            assert_true(got[j * ldc + i] ==
                        (i < m ? 2 * sum + 3 * want : want));
        }
    assert_int_equal(/* one row too many for A's allocation */
                     cublasGemmEx(blas, CUBLAS_OP_T, CUBLAS_OP_N, m + 1, n, k,
                                  &two, pa, CUDA_R_16F, lda, pb, CUDA_R_16F,
                                  ldb, &three, pc, CUDA_R_32F, ldc,
                                  CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
                     CUBLAS_STATUS_INVALID_VALUE);
    assert_int_equal(cublasDestroy(blas), CUBLAS_STATUS_SUCCESS);
    assert_cuda(cudaFree(pa));
    assert_cuda(cudaFree(pb));
    assert_cuda(cudaFree(pc));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_thread_runs_once),
        cmocka_unit_test(barriers_order_shared_memory),
        cmocka_unit_test(warps_exchange_values),
        cmocka_unit_test(atomics_add_up),
        cmocka_unit_test(events_order_streams),
        cmocka_unit_test(a_missing_wait_gives_a_wrong_result),
        cmocka_unit_test(waits_are_for_records_made_before),
        cmocka_unit_test(a_stream_executes_in_order),
        cmocka_unit_test(events_tell_times),
        cmocka_unit_test(only_pinned_memory_is_read_later),
        cmocka_unit_test(copies_up_are_there_when_their_stream_is_done),
        cmocka_unit_test(copies_go_every_way),
        cmocka_unit_test(halves_round_to_nearest_even),
        cmocka_unit_test(half_operations_round_once),
        cmocka_unit_test(words_are_taken_apart),
        cmocka_unit_test(tiles_are_multiplied),
        cmocka_unit_test(cublas_multiplies),
    };

    return cmocka_run_group_tests(tests, nullptr, leaks_nothing);
}
