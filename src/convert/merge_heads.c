#include "config.h"

#include <string.h>

#include "src/convert/merge.h"

/* kv_b_proj, [heads (nope + value), kv_lora], as attention to the latent wants
 * it (arch/decoder.c):
 *
 *   keys:    [heads kv_lora, nope]   each head's first rows on their side
 *   values:  [heads value, kv_lora]  its other rows
 */

static bool is_keys(const struct sl_merge *m)
{
    return m->spec.split == SL_SPLIT_HEAD_KEYS;
}

/* Rows of the tensor that a head has in the model. */
static uint32_t head_rows(const struct sl_merge *m)
{
    return m->spec.part_rows[is_keys(m) ? 2 : 1];
}

uint32_t sl_merge_head_rows(const struct sl_tensor_spec *s)
{
    uint32_t each = s->part_rows[s->split == SL_SPLIT_HEAD_KEYS ? 2 : 1];

    return s->rows / each * (s->part_rows[0] + s->part_rows[1]);
}

static void convert_one(uint8_t *out, const uint8_t *in, enum sl_dtype dt,
                        enum sl_fmt fmt)
{
    float f;

    if (fmt != SL_FMT_F32 || dt == SL_DT_F32) {
        memcpy(out, in, sl_dtype_bytes(dt));
        return;
    }
    f = sl_dtype_load(in, dt);
    memcpy(out, &f, sizeof f);
}

/* Rows [at, at + n) of a head, which begins at row `begin` of the source. */
static int read_head(const struct sl_merge *m, const struct sl_ckpt_tensor *t,
                     uint8_t *out, uint64_t begin, uint64_t at, uint64_t n,
                     uint8_t *scratch, struct sl_error *err)
{
    uint64_t nope = m->spec.part_rows[0], cols = m->spec.cols;
    size_t from = sl_dtype_bytes(t->dtype), wire = from * t->shape[1];
    size_t to = sl_fmt_of(m->fmt)->elem_bytes;
    uint64_t first = is_keys(m) ? begin : begin + nope + at;

    if (sl_ckpt_read_rows(t, scratch, first, is_keys(m) ? nope : n, err) != 0)
        return -1;
    for (uint64_t r = 0; r < n; r++) {
        for (uint64_t c = 0; c < cols; c++) {
            const uint8_t *in = is_keys(m)
                                    ? scratch + c * wire + (at + r) * from
                                    : scratch + r * wire + c * from;

            convert_one(out + (r * cols + c) * to, in, t->dtype, m->fmt);
        }
    }
    return 0;
}

int sl_merge_read_heads(const struct sl_merge *m, uint8_t *out, uint64_t first,
                        uint64_t n, uint8_t *scratch, struct sl_error *err)
{
    const struct sl_ckpt_tensor *t =
        sl_ckpt_find(m->ckpt, 0, m->source[0].name);
    uint64_t each = head_rows(m);
    uint64_t source = m->spec.part_rows[0] + m->spec.part_rows[1];

    while (n > 0) {
        uint64_t at = first % each, run = each - at < n ? each - at : n;

        if (read_head(m, t, out, first / each * source, at, run, scratch,
                      err) != 0)
            return -1;
        out += run * sl_merge_row_bytes(m);
        first += run;
        n -= run;
    }
    return 0;
}
