#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/base/lines.h"
#include "src/base/outfile.h"
#include "src/cmd/line_editor.h"

/* One text a line: \n stands for a line end within it, \\ for a backslash.
 * Texts are appended, so that two conversations at the same time keep both
 * theirs. */

enum { MOST_TEXTS = 1000, FAR_TOO_MANY = 2000 };

static int escape(struct sl_str *to, const char *text, struct sl_error *err)
{
    for (size_t n; *text != '\0'; text += n) {
        n = strcspn(text, "\n\\");
        if (sl_str_append(to, text, n, err) != 0)
            return -1;
        if (text[n] == '\0')
            break;
        if (sl_str_add(to, text[n] == '\n' ? "\\n" : "\\\\", err) != 0)
            return -1;
        n++;
    }
    return sl_str_add(to, "\n", err);
}

/* In place. */
static void unescape(char *line)
{
    char *to = line;

    for (; *line != '\0'; line++) {
        if (*line == '\\' && line[1] != '\0')
            *to++ = *++line == 'n' ? '\n' : *line;
        else
            *to++ = *line;
    }
    *to = '\0';
}

/* Where the last thousand lines of a text begin. *n_lines: how many it has. */
static char *last_lines(char *text, size_t n, size_t *n_lines)
{
    size_t count = 0, at = n;

    *n_lines = 0;
    for (size_t i = 0; i < n; i++)
        *n_lines += text[i] == '\n';
    while (at > 0 && count <= MOST_TEXTS) {
        at--;
        count += text[at] == '\n';
    }
    return count > MOST_TEXTS ? text + at + 1 : text;
}

static int read_lines(struct sl_lines *in, const char *path,
                      int (*add)(void *opaque, const char *text,
                                 struct sl_error *err),
                      void *opaque, struct sl_error *err)
{
    char *text, *line, *next;
    size_t n, n_lines;

    if (sl_lines_rest(in, &text, &n, err) != 0)
        return -1;
    line = last_lines(text, n, &n_lines);
    if (n_lines > FAR_TOO_MANY &&
        sl_outfile_replace(path, line, n - (size_t)(line - text), err) != 0)
        return -1;
    for (; *line != '\0'; line = next) {
        next = line + strcspn(line, "\n");
        if (*next != '\0')
            *next++ = '\0';
        unescape(line);
        if (*line != '\0' && add(opaque, line, err) != 0)
            return -1;
    }
    return 0;
}

int sl_line_history_read(const char *path,
                         int (*add)(void *opaque, const char *text,
                                    struct sl_error *err),
                         void *opaque, struct sl_error *err)
{
    struct sl_lines in = {.stop_fd = -1};
    int rc;

    in.fd = open(path, O_RDONLY | O_CLOEXEC);
    if (in.fd < 0)
        return errno == ENOENT || errno == ENOTDIR
                   ? 0
                   : sl_fail_os(err, errno, "%s: cannot open", path);
    rc = read_lines(&in, path, add, opaque, err);
    if (rc != 0)
        sl_error_prefix(err, "%s: ", path);
    sl_lines_fini(&in);
    close(in.fd);
    return rc;
}

static int make_folder(const char *path, struct sl_error *err)
{
    char *folder = strdup(path), *end;
    int rc = 0;

    if (folder == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "out of memory");
    end = strrchr(folder, '/');
    if (end != NULL && end != folder) {
        *end = '\0';
        if (access(folder, F_OK) != 0)
            rc = sl_outfile_folder(folder, err);
    }
    free(folder);
    return rc;
}

int sl_line_history_add(const char *path, const char *text,
                        struct sl_error *err)
{
    struct sl_str line = {0};
    int fd = -1, rc = make_folder(path, err);

    if (rc == 0)
        rc = escape(&line, text, err);
    if (rc == 0) {
        fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        if (fd < 0)
            rc = sl_fail_os(err, errno, "%s: cannot open", path);
    }
    /* One write, which nobody else's can part. */
    if (rc == 0 && write(fd, line.s, line.n) != (ssize_t)line.n)
        rc = sl_fail_os(err, errno, "%s: cannot write", path);
    if (fd >= 0 && close(fd) != 0 && rc == 0)
        rc = sl_fail_os(err, errno, "%s: cannot write", path);
    sl_str_fini(&line);
    return rc;
}
