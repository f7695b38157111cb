#include "config.h"

#include <assert.h>
#include <string.h>

#include <lz4.h>

#include "src/base/bytes.h"
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

/* Bytes of x to every second, and to every fourth place. */
static uint64_t spread_2(uint64_t x)
{
    x = (x | x << 16) & 0x0000ffff0000ffff;
    return (x | x << 8) & 0x00ff00ff00ff00ff;
}

static uint64_t spread_4(uint64_t x)
{
    return (x | x << 24) & 0x000000ff000000ff;
}

/* Eight bytes at a time: this is what a pass waits for. */
static void join(uint8_t *to, const uint8_t *in, size_t n, unsigned planes)
{
    size_t each = n / planes, i = 0;
    const uint8_t *b = in + each;

    for (; planes == 2 && i + 4 <= each; i += 4)
        sl_store_u64(to + 2 * i, spread_2(sl_load_u32(in + i)) |
                                     spread_2(sl_load_u32(b + i)) << 8);
    for (; planes == 4 && i + 2 <= each; i += 2)
        sl_store_u64(to + 4 * i, spread_4(sl_load_u16(in + i)) |
                                     spread_4(sl_load_u16(b + i)) << 8 |
                                     spread_4(sl_load_u16(b + each + i)) << 16 |
                                     spread_4(sl_load_u16(b + 2 * each + i))
                                         << 24);
    for (; i < each; i++)
        for (unsigned p = 0; p < planes; p++)
            to[i * planes + p] = in[p * each + i];
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
