#include "config.h"

#include <assert.h>
#include <string.h>

#include <lz4.h>

#include "src/base/lz.h"

size_t sl_lz_bound(size_t n)
{
    assert(n <= SL_LZ_MOST);
    return (size_t)LZ4_compressBound((int)n);
}

static void split(uint8_t *to, const uint8_t *in, size_t n, unsigned planes)
{
    size_t each = n / planes;

    for (unsigned p = 0; p < planes; p++)
        for (size_t i = 0; i < each; i++)
            to[p * each + i] = in[i * planes + p];
    memcpy(to + planes * each, in + planes * each, n - planes * each);
}

static void join(uint8_t *restrict to, const uint8_t *restrict in, size_t n,
                 unsigned planes)
{
    size_t each = n / planes;

    if (planes == 2) {
        for (size_t i = 0; i < each; i++) {
            to[2 * i] = in[i];
            to[2 * i + 1] = in[each + i];
        }
    } else {
        for (size_t i = 0; i < each; i++)
            for (unsigned p = 0; p < planes; p++)
                to[i * planes + p] = in[p * each + i];
    }
    memcpy(to + planes * each, in + planes * each, n - planes * each);
}

size_t sl_lz_encode(void *out, const void *in, size_t n, unsigned planes,
                    void *scratch)
{
    int stored;

    assert(n > 0 && n <= SL_LZ_MOST);
    if (planes > 1) {
        split(scratch, in, n, planes);
        in = scratch;
    }
    stored = LZ4_compress_default(in, out, (int)n, (int)sl_lz_bound(n));
    return stored > 0 && (size_t)stored < n ? (size_t)stored : 0;
}

bool sl_lz_decode(void *out, size_t n, const void *in, size_t in_bytes,
                  unsigned planes, void *scratch)
{
    void *to = planes > 1 ? scratch : out;

    if (n > SL_LZ_MOST || in_bytes > SL_LZ_MOST ||
        LZ4_decompress_safe(in, to, (int)in_bytes, (int)n) != (int)n)
        return false;
    if (planes > 1)
        join(out, scratch, n, planes);
    return true;
}
