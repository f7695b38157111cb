#include "config.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "src/base/bytes.h"

static const struct unit {
    const char *name;
    uint64_t bytes;
} units[] = {
    {"", 1},
    {"b", 1},
    {"k", 1ull << 10},
    {"kib", 1ull << 10},
    {"kb", 1000ull},
    {"m", 1ull << 20},
    {"mib", 1ull << 20},
    {"mb", 1000000ull},
    {"g", 1ull << 30},
    {"gib", 1ull << 30},
    {"gb", 1000000000ull},
    {"t", 1ull << 40},
    {"tib", 1ull << 40},
    {"tb", 1000000000000ull},
};

/* Digits with at most one point, whatever the locale's decimal separator:
 * strtod would read "1,5" in some places and "1.5" in others. */
static const char *parse_decimal(double *value, const char *s)
{
    double v = 0, place = 1;
    int digits = 0, point = 0;

    for (; isdigit((unsigned char)*s) || (*s == '.' && !point); s++) {
        if (*s == '.') {
            point = 1;
            continue;
        }
        digits++;
        v = v * 10 + (*s - '0');
        if (point)
            place *= 10;
    }
    *value = v / place;
    return digits ? s : NULL;
}

int sl_size_parse(uint64_t *bytes, const char *text, struct sl_error *err)
{
    const char *rest;
    double value;

    while (isspace((unsigned char)*text))
        text++;
    rest = parse_decimal(&value, text);
    if (rest != NULL) {
        while (*rest == ' ')
            rest++;
        for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
            if (strcasecmp(rest, units[i].name) != 0)
                continue;
            value *= (double)units[i].bytes;
            if (value >= 9.2e18)
                break;
            *bytes = (uint64_t)value;
            return 0;
        }
    }
    return sl_fail(err, SL_ERR_USAGE,
                   "'%s' is not a size; write bytes or a number with K, M, G "
                   "(powers of 1024) or KB, MB, GB (powers of 1000)",
                   text);
}

char *sl_size_format(char buf[SL_SIZE_TEXT], uint64_t bytes)
{
    static const char *const names[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    double v = (double)bytes;
    size_t i = 0;

    while (v >= 1024 && i + 1 < sizeof names / sizeof *names) {
        v /= 1024;
        i++;
    }
    snprintf(buf, SL_SIZE_TEXT, i == 0 || v >= 1000 ? "%.0f %s" : "%.1f %s", v,
             names[i]);
    return buf;
}
