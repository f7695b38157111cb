/*
 * device_ptx.h - what PTX instructions without a CUDA C++ name do
 *
 * For kernels/cuda/ptx.cuh, which has the instructions themselves. C++ only.
 * Source: NVIDIA, PTX ISA 8.5, 9.7.9.25 (cp.async), 9.7.14.5 (mma, ldmatrix).
 * A uint32_t that holds two FP16 values has the first in its low half.
 */
#ifndef SL_CUDASIM_DEVICE_PTX_H
#define SL_CUDASIM_DEVICE_PTX_H

#include "kernels/cudasim/device.h"

/* mma.sync m16n8k16, row.col.f32.f16.f16.f32: c (16, 8) += a (16, 16) . b
 * (16, 8) over a warp; with g = lane / 4 and t = lane % 4
 *   a[0] = A[g][2t, 2t+1]     a[1] = A[g+8][2t, 2t+1]
 *   a[2] = A[g][2t+8, 2t+9]   a[3] = A[g+8][2t+8, 2t+9]
 *   b[0] = B[2t, 2t+1][g]     b[1] = B[2t+8, 2t+9][g]
 *   c[0, 1] = C[g][2t, 2t+1]  c[2, 3] = C[g+8][2t, 2t+1] */
void cudasim_mma(float c[4], const uint32_t a[4], const uint32_t b[2],
                 cudasim_site site);

/* Fails the kernel unless [p, p + 16) is shared memory, aligned to 16. */
void cudasim_check_shared16(const char *what, const void *p);

/* ldmatrix m8n8 .x1, .x2, .x4: lane 8i + r points to row r of tile i (8 FP16
 * each, in shared memory, aligned to 16 bytes); out[i] = tile i [g][2t, 2t+1],
 * transposed [2t, 2t+1][g]. */
template <int N>
static inline void cudasim_load_matrix(uint32_t *out, const void *row,
                                       bool transposed, CUDASIM_SITE)
{
    unsigned lane = cudasim_lane(), g = lane / 4, t = lane % 4;
    const cudasim_site site = {file, line};

    static_assert(N == 1 || N == 2 || N == 4, "one, two or four tiles");
    if (lane < 8 * N)
        cudasim_check_shared16("ldmatrix", row);
    for (unsigned i = 0; i < N; i++) {
        unsigned from = 8 * i + (transposed ? 2 * t : g);
        const uint16_t *a = cudasim_shuffle_from(
            "ldmatrix", 0xffffffffu, static_cast<const uint16_t *>(row), from,
            site);

        if (!transposed) {
            out[i] = a[2 * t] | (uint32_t)a[2 * t + 1] << 16;
            continue;
        }
        const uint16_t *b = cudasim_shuffle_from(
            "ldmatrix", 0xffffffffu, static_cast<const uint16_t *>(row),
            from + 1, site);

        out[i] = a[g] | (uint32_t)b[g] << 16;
    }
}

/* cp.async.cg of 16 bytes, of which the last 16 - bytes are zeros. Nothing
 * is there before the thread has waited for the copy's group. */
void cudasim_copy_async(void *shared, const void *from, unsigned bytes);
void cudasim_copy_commit(void);
/* Until all groups but the last n are done. */
void cudasim_copy_wait(unsigned n);

#endif
