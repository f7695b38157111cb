#include "config.h"

#include "src/cmd/line_editor.h"

#ifdef HAVE_LIBEDIT

#include <errno.h>
#include <histedit.h>
#include <langinfo.h>
#include <locale.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <wchar.h>

#include "src/base/mem.h"

#define PASTE_ON    "\033[?2004h" /* xterm's bracketed paste */
#define PASTE_OFF   "\033[?2004l"
#define PASTE_BEGIN L"\033[200~"
#define PASTE_END   L"\033[201~"

enum { MOST_REMEMBERED = 1000 };

struct sl_line_edit {
    EditLine *el;
    HistoryW *history;
    int stop_fd;
    bool stopped;  /* by stop_fd, */
    bool empty;    /* when nothing stood in the line */
    locale_t utf8; /* where the user's is none; 0: it is */
    wchar_t *prompt;
    unsigned char bytes[4096]; /* that were read ahead */
    size_t n_bytes, at;
};

static struct sl_line_edit *edit_of(EditLine *el)
{
    void *e = NULL;

    el_wget(el, EL_CLIENTDATA, &e);
    return e;
}

/* --- characters -------------------------------------------------------------
 */

/* Waits for bytes. False at the end of the input, and when waiting is over. */
static bool read_bytes(struct sl_line_edit *e)
{
    struct pollfd fds[] = {{STDIN_FILENO, POLLIN, 0}, {e->stop_fd, POLLIN, 0}};
    ssize_t n;

    do {
        if (poll(fds, 2, -1) >= 0 && fds[1].revents != 0) {
            e->stopped = true;
            return false;
        }
        n = read(STDIN_FILENO, e->bytes, sizeof e->bytes);
    } while (n < 0 && (errno == EINTR || errno == EAGAIN));
    e->at = 0;
    e->n_bytes = n > 0 ? (size_t)n : 0;
    return n > 0;
}

/* The next byte, or -1. */
static int next_byte(struct sl_line_edit *e)
{
    if (e->at == e->n_bytes && !read_bytes(e))
        return -1;
    return e->bytes[e->at++];
}

/* libedit's way to read a character: UTF-8, whatever the locale is, since that
 * is what models speak. Bytes that are none become U+FFFD. */
static int read_character(EditLine *el, wchar_t *c)
{
    struct sl_line_edit *e = edit_of(el);
    int byte = next_byte(e);
    const LineInfoW *line;
    unsigned more;

    if (byte < 0) {
        line = el_wline(el);
        e->empty = line->lastchar == line->buffer;
        return 0;
    }
    /* What Ctrl-D leaves while the terminal is no editor's: typed ahead. */
    if (byte == '\0')
        byte = '\004';
    *c = (wchar_t)byte;
    if (byte < 0x80)
        return 1;
    more = byte >= 0xf0 ? 3 : byte >= 0xe0 ? 2 : 1;
    *c = byte & (0x3f >> more);
    if (byte < 0xc2 || byte > 0xf4) {
        *c = 0xfffd;
        return 1;
    }
    while (more-- > 0) {
        byte = next_byte(e);
        if (byte < 0)
            return 0;
        if ((byte & 0xc0) != 0x80) {
            e->at--; /* it begins another character */
            *c = 0xfffd;
            return 1;
        }
        *c = *c << 6 | (byte & 0x3f);
    }
    return 1;
}

/* --- pasting ----------------------------------------------------------------
 */

/* Inserts what the terminal says was pasted: line ends are text then, and no
 * key means anything. */
static unsigned char paste(EditLine *el, int key)
{
    size_t end = wcslen(PASTE_END), n = 0, room = 0;
    wchar_t *text = NULL, c;

    while (el_wgetc(el, &c) == 1) {
        if (n + 2 > room) {
            wchar_t *grown = reallocarray(text, room * 2 + 256, sizeof c);

            if (grown == NULL)
                break;
            text = grown;
            room = room * 2 + 256;
        }
        if (c == L'\r')
            c = L'\n';
        if (c >= L' ' || c == L'\n' || c == L'\t' || c == L'\033')
            text[n++] = c;
        if (n < end || wmemcmp(text + n - end, PASTE_END, end) != 0)
            continue;
        n -= end;
        while (n > 0 && text[n - 1] == L'\n')
            n--;
        text[n] = L'\0';
        if (n > 0)
            el_winsertstr(el, text);
        free(text);
        return CC_REFRESH;
    }
    free(text);
    return CC_EOF;
}

/* --- life -------------------------------------------------------------------
 */

static wchar_t *prompt_of(EditLine *el)
{
    return edit_of(el)->prompt;
}

/* The locale is this thread's while libedit works. */
static locale_t enter(const struct sl_line_edit *e)
{
    return e->utf8 != (locale_t)0 ? uselocale(e->utf8) : (locale_t)0;
}

static void leave(locale_t old)
{
    if (old != (locale_t)0)
        uselocale(old);
}

static void set_up(struct sl_line_edit *e)
{
    el_wset(e->el, EL_CLIENTDATA, e);
    el_wset(e->el, EL_GETCFN, read_character);
    el_wset(e->el, EL_PROMPT, prompt_of);
    el_wset(e->el, EL_SIGNAL, 1);
    el_wset(e->el, EL_EDITOR, L"emacs");
    el_wset(e->el, EL_HIST, history_w, e->history);
    el_wset(e->el, EL_ADDFN, L"sluice-paste", L"Insert pasted text", paste);
    el_wset(e->el, EL_BIND, PASTE_BEGIN, L"sluice-paste", NULL);
    el_wset(e->el, EL_BIND, L"^R", L"em-inc-search-prev", NULL);
    el_source(e->el, NULL);
}

bool sl_line_edit_open(struct sl_line_edit **out, int stop_fd)
{
    struct sl_line_edit *e = sl_zalloc_array(1, sizeof *e);
    const char *term = NULL;
    HistEventW event;
    locale_t old;

    if (e == NULL)
        return false;
    e->stop_fd = stop_fd;
    if (strcmp(nl_langinfo(CODESET), "UTF-8") != 0)
        e->utf8 = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0);
    old = enter(e);
    e->history = history_winit();
    e->el = el_init("sluice", stdin, stdout, stderr);
    if (e->history != NULL && e->el != NULL) {
        history_w(e->history, &event, H_SETSIZE, MOST_REMEMBERED);
        history_w(e->history, &event, H_SETUNIQUE, 1);
        el_wget(e->el, EL_TERMINAL, &term);
        set_up(e);
    }
    leave(old);
    if (e->history == NULL || e->el == NULL || term == NULL ||
        strcmp(term, "dumb") == 0) {
        sl_line_edit_close(e);
        return false;
    }
    *out = e;
    return true;
}

void sl_line_edit_close(struct sl_line_edit *e)
{
    locale_t old;

    if (e == NULL)
        return;
    old = enter(e);
    if (e->el != NULL)
        el_end(e->el);
    if (e->history != NULL)
        history_wend(e->history);
    leave(old);
    if (e->utf8 != (locale_t)0)
        freelocale(e->utf8);
    free(e->prompt);
    free(e);
}

/* --- lines ------------------------------------------------------------------
 */

/* UTF-8 to wide characters; NULL without memory. */
static wchar_t *widen(const char *text)
{
    size_t n = strlen(text), at = 0;
    wchar_t *wide = sl_alloc_array(n + 1, sizeof *wide);
    mbstate_t state = {0};

    while (wide != NULL && *text != '\0') {
        size_t size = mbrtowc(&wide[at], text, n, &state);

        if (size == (size_t)-1 || size == (size_t)-2) {
            wide[at] = 0xfffd;
            size = 1;
            state = (mbstate_t){0};
        }
        at++;
        text += size;
        n -= size;
    }
    if (wide != NULL)
        wide[at] = L'\0';
    return wide;
}

static int append_wide(struct sl_str *to, const wchar_t *text, size_t n,
                       struct sl_error *err)
{
    mbstate_t state = {0};
    char bytes[16];

    for (size_t i = 0; i < n; i++) {
        size_t size = wcrtomb(bytes, text[i], &state);

        if (size == (size_t)-1) {
            state = (mbstate_t){0};
            size = wcrtomb(bytes, 0xfffd, &state);
        }
        if (sl_str_append(to, bytes, size, err) != 0)
            return -1;
    }
    return 0;
}

static int read_line(struct sl_line_edit *e, const char *prompt,
                     struct sl_str *line, struct sl_error *err)
{
    const wchar_t *text;
    int n = 0;

    free(e->prompt);
    e->prompt = widen(prompt);
    if (e->prompt == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "out of memory for a line");
    e->stopped = false;
    fputs(PASTE_ON, stdout);
    el_wset(e->el, EL_PREP_TERM, 1); /* before the prompt invites keys */
    text = el_wgets(e->el, &n);
    fputs(PASTE_OFF, stdout);
    if (text == NULL || n <= 0) {
        putchar('\n'); /* the prompt's line is still open */
        fflush(stdout);
        if (!e->stopped)
            return 0;
        e->at = e->n_bytes = 0;
        return sl_fail(err, SL_ERR_INTERRUPTED, "interrupted");
    }
    fflush(stdout);
    if (text[n - 1] == L'\n')
        n--;
    return append_wide(line, text, (size_t)n, err) == 0 ? 1 : -1;
}

int sl_line_edit_next(struct sl_line_edit *e, const char *prompt,
                      struct sl_str *line, struct sl_error *err)
{
    locale_t old = enter(e);
    int rc = read_line(e, prompt, line, err);

    leave(old);
    return rc;
}

bool sl_line_edit_was_empty(const struct sl_line_edit *e)
{
    return e->empty;
}

int sl_line_edit_remember(void *edit, const char *text, struct sl_error *err)
{
    struct sl_line_edit *e = edit;
    locale_t old = enter(e);
    wchar_t *wide = widen(text);
    HistEventW event;

    if (wide != NULL)
        history_w(e->history, &event, H_ENTER, wide);
    free(wide);
    leave(old);
    return wide != NULL
               ? 0
               : sl_fail(err, SL_ERR_NOMEM, "out of memory for a line");
}

#else

bool sl_line_edit_open(struct sl_line_edit **e, int stop_fd)
{
    *e = NULL;
    return false;
}

void sl_line_edit_close(struct sl_line_edit *e)
{
}

int sl_line_edit_next(struct sl_line_edit *e, const char *prompt,
                      struct sl_str *line, struct sl_error *err)
{
    return 0;
}

bool sl_line_edit_was_empty(const struct sl_line_edit *e)
{
    return true;
}

int sl_line_edit_remember(void *edit, const char *text, struct sl_error *err)
{
    return 0;
}

#endif
