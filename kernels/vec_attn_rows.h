/*
 * vec_attn_rows.h - keys and values as they are kept, for vec_attn.h
 */
#ifndef SL_KERNELS_VEC_ATTN_ROWS_H
#define SL_KERNELS_VEC_ATTN_ROWS_H

#include "kernels/vec_misc.h"

#define PAGES_AHEAD                                                            \
    2 /* pages: far enough for DRAM, near enough for the L1 cache */
#define LINE 64

/* Rows of keys or values: those of a page, or those that are in no page. */
struct attn_rows {
    const uint8_t *at;
    size_t stride;         /* bytes from row to row */
    const uint8_t *scales; /* of INT8 */
};

INLINE size_t attn_row_bytes(const struct sl_attend_args *a, const int kind)
{
    return a->d * (kind == SL_KV_F32 ? 4 : kind == SL_KV_F16 ? 2 : 1);
}

INLINE struct attn_rows attn_page(const struct sl_attend_args *a,
                                  const void *page, const int kind)
{
    struct attn_rows rows = {.at = page, .stride = attn_row_bytes(a, kind)};

    if (kind == SL_KV_INT8)
        rows.scales = rows.at + (size_t)a->page_len * a->d;
    return rows;
}

/* Asks for the page PAGES_AHEAD of this one. Pages are short and lie far apart,
 * so that the CPU does not find them by itself. */
INLINE void attn_fetch(const struct sl_attend_args *a, const void *const *pages,
                       uint32_t page, const int kind)
{
    const uint8_t *at;

    page += PAGES_AHEAD;
    if (page * a->page_len >= a->n_paged)
        return;
    at = pages[page];
    for (size_t i = 0; i < a->page_len * attn_row_bytes(a, kind); i += LINE)
        __builtin_prefetch(at + i);
}

INLINE struct attn_rows attn_new(const struct sl_attend_args *a,
                                 const float *from)
{
    return (struct attn_rows){
        .at = (const uint8_t *)from,
        .stride = a->new_stride * sizeof *from,
    };
}

/* A key or value. */
struct attn_row {
    const uint8_t *at;
    vf scale, offset; /* of INT8 */
};

INLINE struct attn_row attn_row(const struct attn_rows *rows, uint32_t i,
                                const int kind)
{
    struct attn_row row = {.at = rows->at + i * rows->stride};
    struct sl_kv_scale s; /* may lie anywhere */

    if (kind != SL_KV_INT8)
        return row;
    memcpy(&s, rows->scales + i * sizeof s, sizeof s);
    row.scale = vf_set(s.scale);
    row.offset = vf_set(s.offset);
    return row;
}

INLINE vf attn_load(const struct attn_row *row, uint32_t i, const int kind)
{
    if (kind == SL_KV_F32)
        return vf_load((const float *)row->at + i);
    if (kind == SL_KV_F16)
        return vf_load_half((const uint16_t *)row->at + i);
    return vf_fma(vf_load_i8((const int8_t *)row->at + i), row->scale,
                  row->offset);
}

/* What lies beyond n is of no account. */
INLINE vf attn_load_n(const struct attn_row *row, uint32_t i, uint32_t n,
                      const int kind)
{
    if (kind == SL_KV_F32)
        return vf_load_n((const float *)row->at + i, n);
    if (kind == SL_KV_F16)
        return vf_load_half_n((const uint16_t *)row->at + i, n);
    return vf_fma(vf_load_i8_n((const int8_t *)row->at + i, n), row->scale,
                  row->offset);
}

/* Rows of d values as floats. */
INLINE void attn_convert(float *to, const struct attn_rows *rows, uint32_t n,
                         uint32_t d, const int kind)
{
    for (uint32_t i = 0; i < n; i++, to += d) {
        struct attn_row row = attn_row(rows, i, kind);
        uint32_t c = 0;

        for (; c + W <= d; c += W)
            vf_store(to + c, attn_load(&row, c, kind));
        if (c < d)
            vf_store_n(to + c, attn_load_n(&row, c, d - c, kind), d - c);
    }
}

#undef PAGES_AHEAD
#undef LINE

#endif
