#include "config.h"

#include "src/text/bytelevel.h"

static bool stands_for_itself(uint32_t c)
{
    return (c >= 33 && c <= 126) || (c >= 161 && c <= 172) ||
           (c >= 174 && c <= 255);
}

uint32_t sl_bytelevel_char(uint8_t byte)
{
    if (stands_for_itself(byte))
        return byte;
    /* How many before it do not stand for themselves: 0..32, then 127..160,
     * then 173. */
    return 0x100u + (byte <= 32 ? byte : byte <= 160 ? byte - 94u : 67u);
}

int sl_bytelevel_byte(uint32_t c)
{
    if (stands_for_itself(c))
        return (int)c;
    if (c < 0x100 || c > 0x143)
        return -1;
    c -= 0x100;
    return (int)(c <= 32 ? c : c < 67 ? c + 94 : 173);
}

int sl_bytelevel_decode(bool *is, struct sl_str *out, const char *s, size_t n,
                        struct sl_error *err)
{
    size_t before = out->n;
    struct sl_utf8_bad bad;
    uint32_t c;

    *is = true;
    for (size_t i = 0, size; i < n; i += size) {
        int byte;
        char one;

        size = sl_utf8_get(&c, &bad, s + i, n - i);
        byte = size > 0 ? sl_bytelevel_byte(c) : -1;
        if (byte < 0) {
            sl_str_cut(out, before);
            *is = false;
            return 0;
        }
        one = (char)byte;
        if (sl_str_append(out, &one, 1, err) != 0)
            return -1;
    }
    return 0;
}

int sl_bytelevel_encode(struct sl_str *out, const char *s, size_t n,
                        struct sl_error *err)
{
    for (size_t i = 0; i < n; i++) {
        if (sl_utf8_put(out, sl_bytelevel_char((uint8_t)s[i]), err) != 0)
            return -1;
    }
    return 0;
}
