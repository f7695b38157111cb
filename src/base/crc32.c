#include "config.h"

#ifdef HAVE_LIBDEFLATE
#include <libdeflate.h>
#endif

#include "src/base/crc32.h"

#define POLYNOMIAL 0xedb88320u

#ifdef HAVE_LIBDEFLATE

uint32_t sl_crc32(uint32_t crc, const void *data, size_t n)
{
    return libdeflate_crc32(crc, data, n);
}

#else

#define SLICES 8

/* Entry [k][b]: what byte b does to the sum when k bytes follow it. */
static void make_tables(uint32_t t[SLICES][256])
{
    for (uint32_t b = 0; b < 256; b++) {
        uint32_t c = b;

        for (int bit = 0; bit < 8; bit++)
            c = c >> 1 ^ (c & 1 ? POLYNOMIAL : 0);
        t[0][b] = c;
    }
    for (int k = 1; k < SLICES; k++)
        for (uint32_t b = 0; b < 256; b++)
            t[k][b] = t[k - 1][b] >> 8 ^ t[0][t[k - 1][b] & 255];
}

/* Eight bytes a step. The tables are made anew, 16 microseconds: what is summed
 * are megabytes. */
uint32_t sl_crc32(uint32_t crc, const void *data, size_t n)
{
    uint32_t t[SLICES][256], c = ~crc;
    const uint8_t *p = data;

    if (n == 0)
        return crc;
    make_tables(t);
    for (; n >= 8; n -= 8, p += 8) {
        c ^= (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 |
             (uint32_t)p[3] << 24;
        c = t[7][c & 255] ^ t[6][c >> 8 & 255] ^ t[5][c >> 16 & 255] ^
            t[4][c >> 24] ^ t[3][p[4]] ^ t[2][p[5]] ^ t[1][p[6]] ^ t[0][p[7]];
    }
    for (; n > 0; n--, p++)
        c = t[0][(c ^ *p) & 255] ^ c >> 8;
    return ~c;
}

#endif

/* a b modulo the polynomial; x^0 is the top bit. */
static uint32_t multiply(uint32_t a, uint32_t b)
{
    uint32_t product = 0;

    for (uint32_t bit = 1u << 31; bit != 0; bit >>= 1) {
        if (a & bit)
            product ^= b;
        b = b >> 1 ^ (b & 1 ? POLYNOMIAL : 0);
    }
    return product;
}

/* a is moved by 8 n_b bits: times x^(8 n_b), which squaring gives in a few
 * steps. The inversions at both ends of a sum cancel. */
uint32_t sl_crc32_join(uint32_t a, uint32_t b, uint64_t n_b)
{
    uint32_t power = 1u << 23; /* x^8 */

    for (; n_b > 0; n_b >>= 1) {
        if (n_b & 1)
            a = multiply(a, power);
        power = multiply(power, power);
    }
    return a ^ b;
}
