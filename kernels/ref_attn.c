#include "config.h"

#include <math.h>
#include <string.h>

#include "kernels/isa.h"
#include "kernels/kernels.h"
#include "src/base/half.h"

/* Value i of the key (or value) of position j. */
static double kv_at(const struct sl_attend_args *a, const void *const *pages,
                    const float *rows, uint32_t j, uint32_t i)
{
    size_t at = (size_t)(j % a->page_len) * a->d + i;
    struct sl_kv_scale scale; /* may lie anywhere */
    const void *page;

    if (j >= a->n_paged)
        return (double)rows[(j - a->n_paged) * a->new_stride + i];
    page = pages[j / a->page_len];
    if (a->kv_kind == SL_KV_F32)
        return (double)((const float *)page)[at];
    if (a->kv_kind == SL_KV_F16)
        return (double)sl_half_to_float(((const uint16_t *)page)[at]);
    memcpy(&scale,
           (const int8_t *)page + (size_t)a->page_len * a->d +
               j % a->page_len * sizeof scale,
           sizeof scale);
    return (double)((const int8_t *)page)[at] * (double)scale.scale +
           (double)scale.offset;
}

static void attend_one(const struct sl_attend_args *a, size_t row,
                       uint32_t head)
{
    const float *q = a->q + row * a->q_stride + head * a->q_head;
    float *out = a->out + row * a->out_stride + head * a->out_head;
    uint32_t n = a->n_keys[row], out_d = a->out_d > 0 ? a->out_d : a->d;
    float max = -INFINITY;
    double sum = 0;

    for (uint32_t j = 0; j < n; j++) {
        double dot = 0;

        for (uint32_t i = 0; i < a->d; i++)
            dot += (double)q[i] * kv_at(a, a->k_pages, a->k_new, j, i);
        a->scores[j] = (float)(dot * (double)a->scale);
        if (a->scores[j] > max)
            max = a->scores[j];
    }
    for (uint32_t j = 0; j < n; j++) {
        a->scores[j] = expf(a->scores[j] - max);
        sum += (double)a->scores[j];
    }
    for (uint32_t i = 0; i < out_d; i++) {
        double v = 0;

        for (uint32_t j = 0; j < n; j++)
            v += (double)a->scores[j] * kv_at(a, a->v_pages, a->v_new, j, i);
        out[i] = (float)(v / sum);
    }
}

void sl_attend_ref(const struct sl_attend_args *args)
{
    uint32_t group = args->group > 0 ? args->group : 1;

    for (size_t row = 0; row < args->n_q; row++)
        for (uint32_t head = 0; head < group; head++)
            attend_one(args, row, head);
}
