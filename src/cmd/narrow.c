#include "config.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/base/mem.h"
#include "src/cmd/narrow.h"

/* What goes on in a next line is indented by so much. */
#define HANG 4u
/* Fewer columns than these are taken for as many. */
#define COLUMNS_LEAST 20u
/* Written at once: a table that comes in parts is laid out by its first. */
#define BUFFER_BYTES (64u << 10)
#define BLOCK_BYTES  4096u
/* Places of a row that are looked at; what lies behind is prose. */
#define PLACES 512u

/* How the rows of a table are laid out: which places are left out, and before
 * which a new line begins. Of a list (a name, and what is said of it) where
 * the words go on that find no room; else hang is 0. */
struct layout {
    bool known, out[PLACES], breaks[PLACES];
    size_t hang;
};

/* --- lines -----------------------------------------------------------------
 */

/* The end of the character that begins at i: bytes that go on belong to the one
 * before, whatever it is. */
static size_t char_end(const char *s, size_t n, size_t i)
{
    for (i++; i < n && ((unsigned char)s[i] & 0xc0) == 0x80;)
        i++;
    return i;
}

static bool is_blank(const char *s, size_t n, size_t i)
{
    return s[i] == ' ' && char_end(s, n, i) == i + 1;
}

/* Places that n bytes take on a terminal: one a character. */
static size_t places(const char *s, size_t n)
{
    size_t k = 0;

    for (size_t i = 0; i < n; i = char_end(s, n, i))
        k++;
    return k;
}

static size_t indent_of(const char *s, size_t n)
{
    size_t i = 0;

    while (i < n && s[i] == ' ')
        i++;
    return i;
}

/* A row of a table has two blanks side by side behind its first word. */
static bool is_row(const char *s, size_t n)
{
    for (size_t i = indent_of(s, n); i + 1 < n; i++)
        if (s[i] == ' ' && s[i + 1] == ' ')
            return places(s, n) <= PLACES;
    return false;
}

static size_t line_length(const char *s, size_t n)
{
    const char *end = memchr(s, '\n', n);

    return end != NULL ? (size_t)(end - s) : n;
}

static int put(struct sl_str *to, const char *s, size_t n, struct sl_error *err)
{
    return sl_str_append(to, s, n, err);
}

static int put_blanks(struct sl_str *to, size_t n, struct sl_error *err)
{
    for (; n > 0; n--)
        if (put(to, " ", 1, err) != 0)
            return -1;
    return 0;
}

/* The end of what fits of s in `room` places: behind a word, of a longer one
 * behind a part of its name, else where it is full. */
static size_t fitting(const char *s, size_t n, size_t room)
{
    size_t at = 0, k = 0, word = 0, part = 0;

    while (at < n && k < room) {
        at = char_end(s, n, at);
        k++;
        if (at < n && s[at] == ' ' && s[at - 1] != ' ')
            word = at;
        if (strchr("._/-", s[at - 1]) != NULL)
            part = at;
    }
    if (at == n)
        return n;
    return word > 0 ? word : part > 0 ? part : at;
}

/* Breaks a line between its words; what follows is indented by `hang`. */
static int put_broken(struct sl_str *to, const char *s, size_t n, size_t hang,
                      unsigned columns, struct sl_error *err)
{
    size_t indent = 0, k;

    while (n > 0) {
        k = fitting(s, n, columns - indent);
        if (put_blanks(to, indent, err) != 0 || put(to, s, k, err) != 0 ||
            put(to, "\n", 1, err) != 0)
            return -1;
        s += k, n -= k;
        k = indent_of(s, n);
        s += k, n -= k;
        indent = hang;
    }
    return 0;
}

/* A line that is no row keeps its indentation, if there is room. */
static int put_prose(struct sl_str *to, const char *s, size_t n,
                     unsigned columns, struct sl_error *err)
{
    size_t indent = indent_of(s, n), cut;

    if (places(s, n) <= columns)
        return put(to, s, n, err) != 0 ? -1 : put(to, "\n", 1, err);
    cut = indent > columns / 4 ? indent - columns / 4 : 0;
    return put_broken(to, s + cut, n - cut, indent - cut + HANG / 2, columns,
                      err);
}

/* --- rows ------------------------------------------------------------------
 */

/* Places where no row of the block has anything. Bytes behind a character's
 * first belong to its place. */
static void find_gaps(bool gap[PLACES], size_t *width, const char *text,
                      size_t n)
{
    size_t k, len, step;

    *width = 0;
    memset(gap, true, PLACES * sizeof *gap);
    for (; n > 0; n -= step, text += step) {
        len = line_length(text, n);
        step = len < n ? len + 1 : n;
        if (!is_row(text, len))
            continue;
        k = 0;
        for (size_t i = 0; i < len; i = char_end(text, len, i), k++)
            gap[k] = gap[k] && is_blank(text, len, i);
        *width = k > *width ? k : *width;
    }
}

/* The place where the second part of a list's rows begins; 0: no list. */
static size_t list_place(const char *text, size_t n)
{
    size_t at = 0, len, step, i;

    for (; n > 0; n -= step, text += step) {
        len = line_length(text, n);
        step = len < n ? len + 1 : n;
        if (!is_row(text, len))
            continue;
        for (i = indent_of(text, len); text[i] != ' ' || text[i + 1] != ' ';)
            i++;
        i += indent_of(text + i, len - i);
        if (is_row(text + i, len - i) || (at > 0 && at != places(text, i)))
            return 0;
        at = places(text, i);
    }
    return at;
}

/* Where a row may go on in the next line: before this place, behind which so
 * many are used. */
struct cut {
    size_t at, used;
};

/* Breaks rows that are too long behind the last gap that fits, if there is one
 * between columns: where it was a single blank, a number may have its unit. */
static void find_breaks(struct layout *l, const bool gap[PLACES], size_t width,
                        unsigned columns)
{
    struct cut wide = {0, 0}, any = {0, 0}, *cut;
    size_t used = 0;

    for (size_t k = 0; k < width; k++) {
        if (l->out[k])
            continue;
        if (gap[k] && used > HANG) {
            any = (struct cut){k + 1, used + 1};
            if (k + 1 < width && l->out[k + 1])
                wide = any;
        }
        cut = wide.at > 0 ? &wide : &any;
        if (++used <= columns || cut->at == 0)
            continue;
        l->breaks[cut->at] = true;
        used = HANG + used - cut->used;
        any.at = any.at > cut->at ? any.at : 0;
        any.used = HANG + any.used - cut->used;
        wide.at = 0;
    }
}

/* All gaps become one place; what is too long still is broken. */
static void lay_out(struct layout *l, const char *text, size_t n,
                    unsigned columns)
{
    size_t width, list = list_place(text, n);
    bool gap[PLACES];

    memset(l, 0, sizeof *l);
    l->known = true;
    find_gaps(gap, &width, text, n);
    if (width <= columns)
        return;
    for (size_t k = 1; k < width; k++)
        l->out[k] = gap[k] && gap[k - 1];
    for (size_t k = 0; k < list; k++)
        l->hang += !l->out[k];
    if (l->hang > columns / 2)
        l->hang = 0;
    if (l->hang == 0)
        find_breaks(l, gap, width, columns);
}

/* Whether a row has something where the layout has nothing. */
static bool fits_layout(const struct layout *l, const char *s, size_t n)
{
    size_t k = 0;

    for (size_t i = 0; i < n; i = char_end(s, n, i), k++)
        if (k >= PLACES || (l->out[k] && !is_blank(s, n, i)))
            return false;
    return true;
}

/* A line without blanks at its end, if it has anything. */
static int put_trimmed(struct sl_str *to, const struct sl_str *line,
                       size_t hang, unsigned columns, struct sl_error *err)
{
    const char *s = sl_str_text(line);
    size_t n = line->n;

    while (n > 0 && s[n - 1] == ' ')
        n--;
    if (n > 0 && hang > 0)
        return put_broken(to, s, n, hang, columns, err);
    return n > 0 ? put_prose(to, s, n, columns, err) : 0;
}

static int put_row(struct sl_str *to, const struct layout *l, const char *s,
                   size_t n, unsigned columns, struct sl_error *err)
{
    struct sl_str line = {0};
    size_t k = 0;
    int rc = 0;

    for (size_t i = 0; i < n && rc == 0; k++) {
        size_t begin = i;

        i = char_end(s, n, i);
        if (l->breaks[k]) {
            rc = put_trimmed(to, &line, l->hang, columns, err);
            sl_str_clear(&line);
            if (rc == 0)
                rc = put_blanks(&line, HANG, err);
        }
        if (rc == 0 && !l->out[k])
            rc = put(&line, s + begin, i - begin, err);
    }
    if (rc == 0)
        rc = put_trimmed(to, &line, l->hang, columns, err);
    sl_str_fini(&line);
    return rc;
}

/* --- tables ----------------------------------------------------------------
 */

/* Bytes up to the empty line that ends a table, and it. */
static size_t block_length(const char *text, size_t n, bool *ends)
{
    for (size_t at = 0; at < n;) {
        size_t len = line_length(text + at, n - at);

        at += at + len < n ? len + 1 : len;
        if (len == 0) {
            *ends = true;
            return at;
        }
    }
    *ends = false;
    return n;
}

static int put_block(struct sl_str *to, struct layout *l, const char *text,
                     size_t n, unsigned columns, struct sl_error *err)
{
    size_t len, step;

    if (!l->known)
        lay_out(l, text, n, columns);
    for (; n > 0; n -= step, text += step) {
        int rc;

        len = line_length(text, n);
        step = len < n ? len + 1 : n;
        if (is_row(text, len) && fits_layout(l, text, len))
            rc = put_row(to, l, text, len, columns, err);
        else
            rc = put_prose(to, text, len, columns, err);
        if (rc != 0)
            return -1;
    }
    return 0;
}

static int narrow(struct sl_str *to, struct layout *l, const char *text,
                  size_t n, unsigned columns, struct sl_error *err)
{
    bool ends;

    if (columns < COLUMNS_LEAST)
        columns = COLUMNS_LEAST;
    while (n > 0) {
        size_t block = block_length(text, n, &ends);

        if (put_block(to, l, text, block, columns, err) != 0)
            return -1;
        if (ends)
            l->known = false;
        text += block, n -= block;
    }
    return 0;
}

int sl_narrow_text(struct sl_str *to, const char *text, size_t n,
                   unsigned columns, struct sl_error *err)
{
    struct layout l = {.known = false};

    return narrow(to, &l, text, n, columns, err);
}

/* --- the stream ------------------------------------------------------------
 */

struct stream {
    int fd;
    unsigned columns;
    struct layout layout;
    struct sl_str rest; /* the beginning of a line */
    bool begun, as_it_is;
    char buffer[BUFFER_BYTES]; /* of stdio, which minds no size without one */
};

static int write_all(int fd, const char *s, size_t n)
{
    while (n > 0) {
        ssize_t done = write(fd, s, n);

        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return -1;
        s += done, n -= (size_t)done;
    }
    return 0;
}

/* As much as was written, or 0: the stream is in error then. */
static ssize_t stream_write(void *cookie, const char *s, size_t n)
{
    struct stream *w = cookie;
    struct sl_str out = {0};
    struct sl_error err;
    size_t whole;
    int rc;

    if (!w->begun && n > 0)
        w->as_it_is = s[0] == '{';
    w->begun = true;
    if (w->as_it_is)
        return write_all(w->fd, s, n) == 0 ? (ssize_t)n : 0;
    rc = put(&w->rest, s, n, &err);
    whole = w->rest.n;
    /* Only a full buffer ends within a line that will go on: so much of it
     * comes in whole blocks. */
    while (rc == 0 && n >= BLOCK_BYTES && whole > 0 &&
           w->rest.s[whole - 1] != '\n')
        whole--;
    if (rc == 0)
        rc = narrow(&out, &w->layout, sl_str_text(&w->rest), whole, w->columns,
                    &err);
    if (rc == 0 && whole > 0 && w->rest.s[whole - 1] != '\n')
        out.n--; /* no line's end was asked for */
    if (rc == 0)
        rc = write_all(w->fd, sl_str_text(&out), out.n);
    if (rc == 0) {
        memmove(w->rest.s, w->rest.s + whole, w->rest.n - whole);
        sl_str_cut(&w->rest, w->rest.n - whole);
    }
    sl_str_fini(&out);
    return rc == 0 ? (ssize_t)n : 0;
}

static int stream_close(void *cookie)
{
    struct stream *w = cookie;

    sl_str_fini(&w->rest);
    free(w);
    return 0;
}

FILE *sl_narrow_open(int fd, unsigned columns)
{
    static const cookie_io_functions_t calls = {
        .write = stream_write,
        .close = stream_close,
    };
    struct stream *w = sl_zalloc_array(1, sizeof *w);
    FILE *f;

    if (w == NULL)
        return NULL;
    w->fd = fd;
    w->columns = columns;
    f = fopencookie(w, "w", calls);
    if (f == NULL)
        free(w);
    else
        setvbuf(f, w->buffer, _IOFBF, sizeof w->buffer);
    return f;
}
