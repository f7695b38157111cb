#include "config.h"

#include "kernels/isa.h"
#include "kernels/vec_avx512.h"

#include "kernels/vec_attn.h"
#include "kernels/vec_matmul.h"
#include "kernels/vec_misc.h"
#include "kernels/vec_planes.h"
#include "kernels/vec_q8.h"
#include "kernels/vec_table.h"

/* With fewer positions tiles are not worth their way through memory. */
#define AMX_LEAST 16u

INLINE void matmul_amx(float *y, size_t y_stride, const struct sl_matrix *m,
                       const uint8_t *w, const uint16_t *scale, uint32_t n_rows,
                       const struct sl_acts *a, const bool int4)
{
    if (a->n < AMX_LEAST) {
        matmul_q8(y, y_stride, m, w, scale, n_rows, a, int4);
        return;
    }
    amx_begin((uint32_t)(a->n % AMX_TILE));
    matmul_panel(y, y_stride, m, w, scale, n_rows, a, int4, true);
    amx_end();
}

static void matmul_int8_q8_amx(float *y, size_t y_stride,
                               const struct sl_matrix *m, const void *w,
                               const uint16_t *scale, uint32_t n_rows,
                               const struct sl_acts *acts)
{
    matmul_amx(y, y_stride, m, w, scale, n_rows, acts, false);
}

static void matmul_int4_q8_amx(float *y, size_t y_stride,
                               const struct sl_matrix *m, const void *w,
                               const uint16_t *scale, uint32_t n_rows,
                               const struct sl_acts *acts)
{
    matmul_amx(y, y_stride, m, w, scale, n_rows, acts, true);
}

void sl_kernels_init_amx(struct sl_kernels *k)
{
    k->isa = "amx";
    k->matmul[SL_FMT_INT8][SL_ACT_INT8] = matmul_int8_q8_amx;
    k->matmul[SL_FMT_INT4][SL_ACT_INT8] = matmul_int4_q8_amx;
}
