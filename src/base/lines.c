#include "config.h"

#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/base/lines.h"
#include "src/base/mem.h"

#define READ_BYTES 65536u

/* Reads some more behind what is in the buffer. */
static int read_more(struct sl_lines *l, struct sl_error *err)
{
    struct pollfd fds[] = {{l->fd, POLLIN, 0}, {l->stop_fd, POLLIN, 0}};
    ssize_t got;

    if (l->begin > 0) {
        memmove(l->buf, l->buf + l->begin, l->n - l->begin);
        l->n -= l->begin;
        l->begin = 0;
    }
    if (l->room - l->n < READ_BYTES + 1) {
        size_t room = l->room * 2 + 2 * READ_BYTES;
        char *grown = room > l->room ? realloc(l->buf, room) : NULL;

        if (grown == NULL)
            return sl_fail(err, SL_ERR_NOMEM,
                           "out of memory for a line of %zu bytes", l->n);
        l->buf = grown;
        l->room = room;
    }
    do {
        if (poll(fds, 2, -1) >= 0 && fds[1].revents != 0)
            return sl_fail(err, SL_ERR_INTERRUPTED, "interrupted");
        got = read(l->fd, l->buf + l->n, READ_BYTES);
    } while (got < 0 && (errno == EINTR || errno == EAGAIN));
    if (got < 0)
        return sl_fail_os(err, errno, "cannot read");
    l->eof = got == 0;
    l->n += (size_t)got;
    if (l->begun)
        return 0;
    if (l->n < 3 && !l->eof && l->n > 0 && (uint8_t)l->buf[0] == 0xef)
        return read_more(l, err);
    if (l->n >= 3 && memcmp(l->buf, "\xef\xbb\xbf", 3) == 0)
        l->begin = 3;
    l->begun = true;
    return 0;
}

int sl_lines_next(struct sl_lines *l, char **line, size_t *n,
                  struct sl_error *err)
{
    size_t seen = 0;

    if (l->buf == NULL && read_more(l, err) != 0)
        return -1;
    for (;;) {
        char *begin = l->buf + l->begin, *end = NULL;
        size_t left = l->n - l->begin;

        if (left > seen)
            end = memchr(begin + seen, '\n', left - seen);
        if (end != NULL || (l->eof && left > 0)) {
            *line = begin;
            *n = end != NULL ? (size_t)(end - begin) : left;
            begin[*n] = '\0'; /* there is always room for one byte more */
            l->begin += end != NULL ? *n + 1 : *n;
            return 1;
        }
        if (l->eof)
            return 0;
        if (l->most > 0 && left > l->most) {
            left = l->most + 1;
            l->n = l->begin + left;
        }
        seen = left;
        if (read_more(l, err) != 0)
            return -1;
    }
}

int sl_lines_rest(struct sl_lines *l, char **text, size_t *n,
                  struct sl_error *err)
{
    while (l->buf == NULL || !l->eof) {
        if (read_more(l, err) != 0)
            return -1;
        if (l->most > 0 && l->n - l->begin > l->most)
            break;
    }
    *text = l->buf + l->begin;
    *n = l->n - l->begin;
    (*text)[*n] = '\0';
    l->begin = l->n;
    return 0;
}

void sl_lines_fini(struct sl_lines *l)
{
    free(l->buf);
    l->buf = NULL;
}

/* Bytes of the character at text: 1 where it is none. */
static size_t utf8_at(const char *text, size_t left)
{
    uint8_t c = (uint8_t)text[0];
    size_t n = c < 0xc2 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : c < 0xf5 ? 4 : 1;

    if (n > left)
        return 1;
    for (size_t i = 1; i < n; i++) {
        if (((uint8_t)text[i] & 0xc0) != 0x80)
            return 1;
    }
    return n;
}

/* Is this character whitespace to Python? n: its bytes. */
static bool is_space(const char *s, size_t n)
{
    static const char *const wide[] = {
        "\xc2\x85",     "\xc2\xa0",     "\xe1\x9a\x80", "\xe2\x80\x80",
        "\xe2\x80\x81", "\xe2\x80\x82", "\xe2\x80\x83", "\xe2\x80\x84",
        "\xe2\x80\x85", "\xe2\x80\x86", "\xe2\x80\x87", "\xe2\x80\x88",
        "\xe2\x80\x89", "\xe2\x80\x8a", "\xe2\x80\xa8", "\xe2\x80\xa9",
        "\xe2\x80\xaf", "\xe2\x81\x9f", "\xe3\x80\x80",
    };

    if (n == 1)
        return *s == ' ' || (*s >= '\t' && *s <= '\r') ||
               (*s >= 0x1c && *s <= 0x1f);
    for (size_t i = 0; i < sizeof wide / sizeof *wide; i++) {
        if (strlen(wide[i]) == n && memcmp(s, wide[i], n) == 0)
            return true;
    }
    return false;
}

void sl_text_strip(const char **text, size_t *n)
{
    size_t begin = 0, end = 0, size;

    while (begin < *n) {
        size = utf8_at(*text + begin, *n - begin);
        if (!is_space(*text + begin, size))
            break;
        begin += size;
    }
    for (size_t i = begin; i < *n; i += size) {
        size = utf8_at(*text + i, *n - i);
        if (!is_space(*text + i, size))
            end = i + size;
    }
    if (end < begin)
        end = begin;
    *text += begin;
    *n = end - begin;
}

void sl_query_strip(char **text, size_t *n)
{
    const char *begin = *text, *end = *text + *n;

    sl_text_strip(&begin, n);
    *text += begin - *text;
    if (*text + *n < end)
        (*text)[*n] = '\0';
}

size_t sl_utf8_count(const char *text, size_t n)
{
    size_t count = 0;

    for (size_t i = 0; i < n; count++)
        i += utf8_at(text + i, n - i);
    return count;
}

size_t sl_utf8_prefix(const char *text, size_t n, size_t count)
{
    size_t i = 0;

    while (i < n && count-- > 0)
        i += utf8_at(text + i, n - i);
    return i;
}

int sl_query_split(char *query, size_t n, char **id, char **text,
                   size_t *n_text, struct sl_error *err)
{
    char *tab = memchr(query, '\t', n);

    if (tab == NULL)
        return sl_fail(err, SL_ERR_USAGE,
                       "no tab in the query: --with-id wants ID<TAB>text");
    if (memchr(tab + 1, '\t', (size_t)(query + n - tab - 1)) != NULL)
        return sl_fail(err, SL_ERR_USAGE,
                       "more than one tab in the query: --with-id wants "
                       "ID<TAB>text");
    if (memchr(query, '\0', (size_t)(tab - query)) != NULL)
        return sl_fail(err, SL_ERR_USAGE, "a zero byte in the query's id");
    *tab = '\0';
    *id = query;
    *text = tab + 1;
    *n_text = (size_t)(query + n - tab - 1);
    return 0;
}
