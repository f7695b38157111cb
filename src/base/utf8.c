#include "config.h"

#include <string.h>

#include "src/base/utf8.h"

int sl_utf8_put(struct sl_str *to, uint32_t c, struct sl_error *err)
{
    char s[4];
    size_t n = 1;

    if (c < 0x80) {
        s[0] = (char)c;
    } else if (c < 0x800) {
        s[0] = (char)(0xc0 | c >> 6);
        n = 2;
    } else if (c < 0x10000) {
        s[0] = (char)(0xe0 | c >> 12);
        n = 3;
    } else {
        s[0] = (char)(0xf0 | c >> 18);
        n = 4;
    }
    for (size_t i = 1; i < n; i++)
        s[i] = (char)(0x80 | (c >> 6 * (n - 1 - i) & 0x3f));
    return sl_str_append(to, s, n, err);
}

/* The second byte is what keeps out overlong forms, surrogates and what lies
 * beyond U+10FFFF (The Unicode Standard, table 3-7). */
static bool second_fits(uint8_t lead, uint8_t second)
{
    uint8_t low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
    uint8_t high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;

    return second >= low && second <= high;
}

size_t sl_utf8_get(uint32_t *c, struct sl_utf8_bad *bad, const char *s,
                   size_t left)
{
    const uint8_t *p = (const uint8_t *)s;
    size_t n = p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4, i;

    *bad = (struct sl_utf8_bad){1, false};
    if (p[0] < 0x80) {
        *c = p[0];
        return 1;
    }
    if (p[0] < 0xc2 || p[0] > 0xf4)
        return 0;
    *c = p[0] & (0x7fu >> n);
    for (i = 1; i < n && i < left; i++) {
        if (i == 1 ? !second_fits(p[0], p[1]) : (p[i] & 0xc0) != 0x80)
            break;
        *c = *c << 6 | (p[i] & 0x3fu);
    }
    if (i == n)
        return n;
    *bad = (struct sl_utf8_bad){i, i == left};
    return 0;
}

size_t sl_utf8_next(uint32_t *c, const char *s)
{
    struct sl_utf8_bad bad;

    return sl_utf8_get(c, &bad, s, 4);
}

bool sl_utf8_valid(const char *s, size_t n)
{
    struct sl_utf8_bad bad;
    uint32_t c;

    for (size_t i = 0, size; i < n; i += size) {
        size = sl_utf8_get(&c, &bad, s + i, n - i);
        if (size == 0)
            return false;
    }
    return true;
}

/* Appends s; *taken is how many of its bytes were used: all, but for an
 * unfinished character at the end if not last. */
static int repair(struct sl_str *to, size_t *taken, const char *s, size_t n,
                  enum sl_utf8_rule rule, bool last, struct sl_error *err)
{
    struct sl_utf8_bad bad;
    size_t i = 0, begin = 0;
    uint32_t c;

    while (i < n) {
        size_t size = sl_utf8_get(&c, &bad, s + i, n - i);

        if (size > 0) {
            i += size;
            continue;
        }
        if (sl_str_append(to, s + begin, i - begin, err) != 0)
            return -1;
        begin = i;
        if (bad.open && !last)
            break;
        for (size_t k = 0; k < (rule == SL_UTF8_BYTES ? bad.n : 1); k++) {
            if (sl_utf8_put(to, 0xfffd, err) != 0)
                return -1;
        }
        begin = i += bad.n;
    }
    *taken = i;
    return sl_str_append(to, s + begin, i - begin, err);
}

int sl_utf8_repair(struct sl_str *to, const char *s, size_t n,
                   enum sl_utf8_rule rule, struct sl_error *err)
{
    size_t taken;

    return n == 0 ? 0 : repair(to, &taken, s, n, rule, true, err);
}

int sl_utf8_flow(struct sl_str *to, struct sl_str *pending,
                 enum sl_utf8_rule rule, bool last, struct sl_error *err)
{
    size_t taken;

    if (pending->n == 0)
        return 0;
    if (repair(to, &taken, pending->s, pending->n, rule, last, err) != 0)
        return -1;
    pending->n -= taken;
    memmove(pending->s, pending->s + taken, pending->n + 1);
    return 0;
}
