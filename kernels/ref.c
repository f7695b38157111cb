#include "config.h"

#include <math.h>

#include "kernels/isa.h"
#include "kernels/kernels.h"
#include "quant/planes.h"
#include "src/base/bytes.h"
#include "src/base/half.h"

/* Weights are unpacked RUN columns at a time and used for POSITIONS inputs.
 * RUN is also the group of the activations, so that one run has one scale. */
#define RUN       SL_Q8_GROUP
#define POSITIONS 16u

/* Where row r of a block begins whose first byte is w. */
static const uint8_t *row_at(const struct sl_matrix *m, const uint8_t *w,
                             unsigned r)
{
    if (sl_fmt_is_float(m->fmt))
        return w + r * sl_fmt_row_bytes(m->fmt, m->cols);
    return w + 4 * (size_t)r;
}

/* One row, row r of its block, for at most POSITIONS inputs. Sums are kept in
 * double, by groups of weights. */
static void row_f32(double *sum, const struct sl_matrix *m, const uint8_t *w,
                    const uint16_t *scale, unsigned r, const float *x,
                    size_t x_stride, size_t n, bool bf16)
{
    const struct sl_fmt_info *f = sl_fmt_of(m->fmt);
    bool scales = sl_fmt_has_scales(m->fmt);
    uint32_t width = scales ? m->group_cols : m->cols;

    for (uint32_t c = 0, g = 0; c < m->cols; g++) {
        uint32_t end = m->cols - c < width ? m->cols : c + width;
        double part[POSITIONS] = {0};
        double s = 1;

        if (scales)
            s = (double)sl_half_to_float(scale[(size_t)g * SL_BLOCK_ROWS + r]);
        while (c < end) {
            uint32_t run = end - c < RUN ? end - c : RUN;
            float v[RUN];

            f->load(v, w, c, run);
            for (uint32_t i = 0; bf16 && f->is_float && i < run; i++)
                v[i] = sl_round_bf16(v[i]);
            for (size_t p = 0; p < n; p++)
                for (uint32_t i = 0; i < run; i++)
                    part[p] += (double)v[i] * (double)x[p * x_stride + c + i];
            c += run;
        }
        for (size_t p = 0; p < n; p++)
            sum[p] += part[p] * s;
    }
}

static void row_q8(double *sum, const struct sl_matrix *m, const uint8_t *w,
                   const uint16_t *scale, unsigned r, const struct sl_acts *a,
                   size_t p0, size_t n)
{
    uint32_t n_runs = m->cols / RUN;

    for (uint32_t run = 0; run < n_runs; run++) {
        size_t g = (size_t)run * RUN / m->group_cols;
        double s = (double)sl_half_to_float(scale[g * SL_BLOCK_ROWS + r]);
        float v[RUN]; /* small integers */

        sl_fmt_of(m->fmt)->load(v, w, run * RUN, RUN);
        for (size_t p = 0; p < n; p++) {
            const int8_t *q = a->q + (p0 + p) * a->q_stride + (size_t)run * RUN;
            double x_scale = (double)a->q_scale[run * a->group_stride + p0 + p];
            int dot = 0;

            for (uint32_t i = 0; i < RUN; i++)
                dot += (int)v[i] * q[i];
            sum[p] += s * x_scale * dot;
        }
    }
}

/* Blocks hold whole weights, and every RUN columns one scale or two. */
static void row_q8_blocks(double *sum, const struct sl_matrix *m,
                          const uint8_t *w, const struct sl_acts *a, size_t p0,
                          size_t n)
{
    uint32_t n_runs = m->cols / RUN;

    for (uint32_t run = 0; run < n_runs; run++) {
        float v[RUN];

        sl_fmt_of(m->fmt)->load(v, w, run * RUN, RUN);
        for (size_t p = 0; p < n; p++) {
            const int8_t *q = a->q + (p0 + p) * a->q_stride + (size_t)run * RUN;
            double dot = 0;

            for (uint32_t i = 0; i < RUN; i++)
                dot += (double)v[i] * q[i];
            sum[p] += dot * (double)a->q_scale[run * a->group_stride + p0 + p];
        }
    }
}

static void matmul(float *y, size_t y_stride, const struct sl_matrix *m,
                   const void *w, const uint16_t *scale, uint32_t n_rows,
                   const struct sl_acts *a, enum sl_act act)
{
    for (uint32_t row = 0; row < n_rows; row++) {
        uint32_t b = row / SL_BLOCK_ROWS, r = row % SL_BLOCK_ROWS;
        const uint8_t *wr =
            row_at(m, (const uint8_t *)w + sl_matrix_block_bytes(m, 0, b), r);
        const uint16_t *sb =
            sl_fmt_has_scales(m->fmt)
                ? scale + (size_t)b * sl_matrix_groups(m) * SL_BLOCK_ROWS
                : NULL;

        for (size_t p = 0; p < a->n; p += POSITIONS) {
            size_t n = a->n - p < POSITIONS ? a->n - p : POSITIONS;
            double sum[POSITIONS] = {0};

            if (act == SL_ACT_INT8 && sb == NULL)
                row_q8_blocks(sum, m, wr, a, p, n);
            else if (act == SL_ACT_INT8)
                row_q8(sum, m, wr, sb, r, a, p, n);
            else
                row_f32(sum, m, wr, sb, r, a->x + p * a->x_stride, a->x_stride,
                        n, act == SL_ACT_BF16);
            for (size_t i = 0; i < n; i++)
                y[(p + i) * y_stride + row] = (float)sum[i];
        }
    }
}

static void matmul_f32_ref(float *y, size_t y_stride, const struct sl_matrix *m,
                           const void *w, const uint16_t *scale,
                           uint32_t n_rows, const struct sl_acts *a)
{
    matmul(y, y_stride, m, w, scale, n_rows, a, SL_ACT_F32);
}

static void matmul_q8_ref(float *y, size_t y_stride, const struct sl_matrix *m,
                          const void *w, const uint16_t *scale, uint32_t n_rows,
                          const struct sl_acts *a)
{
    matmul(y, y_stride, m, w, scale, n_rows, a, SL_ACT_INT8);
}

static void matmul_bf16_ref(float *y, size_t y_stride,
                            const struct sl_matrix *m, const void *w,
                            const uint16_t *scale, uint32_t n_rows,
                            const struct sl_acts *a)
{
    struct sl_acts rounded = sl_acts_rounded(a);

    matmul(y, y_stride, m, w, scale, n_rows, &rounded, SL_ACT_BF16);
}

static void round_bf16_ref(void *to, const float *x, uint32_t cols)
{
    float *y = to;

    for (uint32_t i = 0; i < cols; i++)
        y[i] = sl_round_bf16(x[i]);
}

static void layer_norm_ref(float *y, const float *x, const float *w,
                           const float *b, uint32_t h, float eps)
{
    double mean = 0, var = 0, inv;

    for (uint32_t i = 0; i < h; i++)
        mean += (double)x[i];
    mean /= h;
    for (uint32_t i = 0; i < h; i++)
        var += ((double)x[i] - mean) * ((double)x[i] - mean);
    inv = 1 / sqrt(var / h + (double)eps);
    for (uint32_t i = 0; i < h; i++)
        y[i] = (float)(((double)x[i] - mean) * inv) * w[i] + b[i];
}

/* A scale that is subnormal is coarse: x / scale may leave -127 .. 127 and is
 * brought back. The comparison also catches NaN. */
static void rms_norm_ref(float *y, const float *x, const float *w, uint32_t h,
                         float eps)
{
    double sum = 0, inv;

    for (uint32_t i = 0; i < h; i++)
        sum += (double)x[i] * (double)x[i];
    inv = 1 / sqrt(sum / h + (double)eps);
    for (uint32_t i = 0; i < h; i++)
        y[i] = (float)((double)x[i] * inv) * w[i];
}

static void quantize_q8_ref(int8_t *q, float *scale, int32_t *sum,
                            size_t stride, const float *x, uint32_t cols)
{
    for (uint32_t g = 0; g < cols / SL_Q8_GROUP; g++, x += SL_Q8_GROUP) {
        float max = 0;

        for (uint32_t i = 0; i < SL_Q8_GROUP; i++)
            if (fabsf(x[i]) > max)
                max = fabsf(x[i]);
        float s = max / 127;

        *scale = s;
        scale += stride;
        for (uint32_t i = 0; i < SL_Q8_GROUP; i++) {
            float v = s > 0 ? x[i] / s : 0;

            v = v > -127 ? v : -127;
            v = v < 127 ? v : 127;
            if (i % 16 == 0)
                sum[i / 16 * stride] = 0;
            *q = (int8_t)lrintf(v);
            sum[i / 16 * stride] += *q++;
        }
        sum += 2 * stride;
    }
}

static void quantize_row_ref(int8_t *q, struct sl_kv_scale *scale,
                             const float *x, size_t n)
{
    float min = x[0], max = x[0];

    for (size_t i = 1; i < n; i++) {
        if (x[i] < min)
            min = x[i];
        if (x[i] > max)
            max = x[i];
    }
    scale->scale = (max - min) / 255;
    scale->offset = min + 128 * scale->scale;
    for (size_t i = 0; i < n; i++) {
        float v = (x[i] - scale->offset) / scale->scale;

        v = v > -128 ? v : -128;
        v = v < 127 ? v : 127;
        q[i] = scale->scale > 0 ? (int8_t)lrintf(v) : 0;
    }
}

static void rope_ref(float *x, const float *cos, const float *sin,
                     uint32_t half)
{
    for (uint32_t i = 0; i < half; i++) {
        float a = x[i], b = x[i + half];

        x[i] = a * cos[i] - b * sin[i];
        x[i + half] = b * cos[i] + a * sin[i];
    }
}

static void rope_inter_ref(float *x, const float *cos, const float *sin,
                           uint32_t half)
{
    for (uint32_t i = 0; i < half; i++) {
        float a = x[2 * i], b = x[2 * i + 1];

        x[2 * i] = a * cos[i] - b * sin[i];
        x[2 * i + 1] = b * cos[i] + a * sin[i];
    }
}

/* gelu(b) = b * Phi(b), Phi(b) = erfc(-b / sqrt 2) / 2: erfc keeps its
 * precision where 1 + erf would cancel. */
static void geglu_ref(float *y, const float *a, const float *b, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        double phi = 0.5 * erfc(-(double)b[i] * M_SQRT1_2);

        y[i] = (float)((double)a[i] * ((double)b[i] * phi));
    }
}

/* exp may become infinite; the quotient then is the zero that it should be. */
static void swiglu_ref(float *y, const float *a, const float *b, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        double v = (double)a[i];

        y[i] = (float)(v / (1 + exp(-v)) * (double)b[i]);
    }
}

/* x/2 * (1 + tanh u) = x / (1 + exp(-2u)), u = sqrt(2/pi) (x + 0.044715 x^3);
 * Hendrycks and Gimpel, Gaussian error linear units, section 2 */
static void gelu_tanh_ref(float *y, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        double v = (double)x[i];
        double u = sqrt(M_2_PI) * (v + 0.044715 * v * v * v);

        y[i] = (float)(v / (1 + exp(-2 * u)));
    }
}

static void add_ref(float *y, const float *b, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] += b[i];
}

static void scale_add_ref(float *y, float alpha, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = alpha * x[i] + y[i];
}

static void f16_to_f32_ref(float *y, const uint16_t *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = sl_half_to_float(x[i]);
}

static void f32_to_f16_ref(uint16_t *y, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = sl_float_to_half(x[i]);
}

void sl_kernels_init_ref(struct sl_kernels *k)
{
    *k = (struct sl_kernels){
        .isa = "ref",
        .round_bf16 = round_bf16_ref,
        .bf16_bytes = sizeof(float),
        .layer_norm = layer_norm_ref,
        .rms_norm = rms_norm_ref,
        .quantize_q8 = quantize_q8_ref,
        .quantize_row = quantize_row_ref,
        .rope = rope_ref,
        .rope_inter = rope_inter_ref,
        .attend = sl_attend_ref,
        .geglu = geglu_ref,
        .swiglu = swiglu_ref,
        .gelu_tanh = gelu_tanh_ref,
        .join_planes = sl_planes_join,
        .add = add_ref,
        .scale_add = scale_add_ref,
        .f16_to_f32 = f16_to_f32_ref,
        .f32_to_f16 = f32_to_f16_ref,
    };
    for (int f = 0; f < SL_FMT_COUNT; f++) {
        k->matmul[f][SL_ACT_F32] = matmul_f32_ref;
        k->matmul[f][SL_ACT_BF16] = matmul_bf16_ref;
        if (!sl_fmt_is_float((enum sl_fmt)f))
            k->matmul[f][SL_ACT_INT8] = matmul_q8_ref;
    }
}
