/*
 * pty - runs a program on a terminal of its own, as a person would
 *
 *   pty COMMAND [ARGUMENT...] <SCRIPT
 *
 * Lines of the script: "send TEXT" types it, "expect TEXT" waits for it in
 * what came since the last one, "bytes N" waits until as much came since then,
 * "absent TEXT" ends in failure if it is there by now, "sleep MS" waits,
 * "close" hangs up. TEXT has the escapes of printf's %b. All output goes to
 * standard output. Exit status: the program's (128 + signal), 98 when something
 * expected did not come in a minute or something absent was there, 99 for a bad
 * script.
 */
#include "config.h"

#include <errno.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { PATIENCE_MS = 60000, QUIET_MS = 20 };

struct terminal {
    int fd;
    char *seen; /* since the last match */
    size_t n, room;
    bool ended;
};

static double now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static void hear(struct terminal *t, int timeout_ms)
{
    struct pollfd p = {t->fd, POLLIN, 0};
    char buf[4096];
    ssize_t n;

    if (t->ended || poll(&p, 1, timeout_ms) <= 0)
        return;
    n = read(t->fd, buf, sizeof buf);
    if (n <= 0) {
        t->ended = true;
        return;
    }
    fwrite(buf, 1, (size_t)n, stdout);
    fflush(stdout);
    if (t->n + (size_t)n + 1 > t->room) {
        t->room = t->room * 2 + (size_t)n + 4096;
        t->seen = realloc(t->seen, t->room);
        if (t->seen == NULL)
            exit(99);
    }
    memcpy(t->seen + t->n, buf, (size_t)n);
    t->n += (size_t)n;
}

static void say(struct terminal *t, const char *text, size_t n)
{
    while (n > 0 && !t->ended) {
        struct pollfd p = {t->fd, POLLOUT | POLLIN, 0};
        ssize_t done;

        if (poll(&p, 1, PATIENCE_MS) <= 0)
            exit(98);
        if (p.revents & POLLIN)
            hear(t, 0);
        if (!(p.revents & POLLOUT))
            continue;
        done = write(t->fd, text, n < 512 ? n : 512);
        if (done < 0 && errno != EAGAIN)
            return;
        if (done > 0) {
            text += done;
            n -= (size_t)done;
        }
    }
}

static const char *find(const struct terminal *t, const char *text, size_t n)
{
    return t->n > 0 ? memmem(t->seen, t->n, text, n) : NULL;
}

static bool expect(struct terminal *t, const char *text, size_t n)
{
    double until = now_ms() + PATIENCE_MS;
    const char *at;

    while ((at = find(t, text, n)) == NULL) {
        if (t->ended || now_ms() > until)
            return false;
        hear(t, 100);
    }
    at += n;
    t->n -= (size_t)(at - t->seen);
    memmove(t->seen, at, t->n);
    return true;
}

static bool expect_bytes(struct terminal *t, size_t n)
{
    double until = now_ms() + PATIENCE_MS;

    while (t->n < n) {
        if (t->ended || now_ms() > until)
            return false;
        hear(t, 100);
    }
    t->n = 0;
    return true;
}

/* Escapes in place; returns the length. */
static size_t unescape(char *s)
{
    static const char from[] = "abefnrtv\\", to[] = "\a\b\033\f\n\r\t\v\\";
    char *out = s, *begin = s;

    for (; *s != '\0'; s++) {
        const char *at;

        if (*s != '\\') {
            *out++ = *s;
        } else if (s[1] == '0') {
            char octal[4] = {0};

            memcpy(octal, s + 2, strnlen(s + 2, 3));
            octal[strspn(octal, "01234567")] = '\0';
            *out++ = (char)strtol(octal, NULL, 8);
            s += 1 + strlen(octal);
        } else if (s[1] != '\0' && (at = strchr(from, s[1])) != NULL) {
            *out++ = to[at - from];
            s++;
        } else {
            *out++ = *s;
        }
    }
    *out = '\0';
    return (size_t)(out - begin);
}

static int play(struct terminal *t, char *line)
{
    char *text = line + strcspn(line, " ");
    size_t n;

    if (*text == ' ')
        *text++ = '\0';
    if (strcmp(line, "sleep") == 0) {
        double until = now_ms() + atof(text);

        while (now_ms() < until)
            hear(t, QUIET_MS);
        return 0;
    }
    n = unescape(text);
    if (strcmp(line, "send") == 0)
        say(t, text, n);
    else if (strcmp(line, "expect") == 0)
        return expect(t, text, n) ? 0 : 98;
    else if (strcmp(line, "bytes") == 0)
        return expect_bytes(t, (size_t)atoi(text)) ? 0 : 98;
    else if (strcmp(line, "absent") == 0)
        return find(t, text, n) == NULL ? 0 : 98;
    else if (strcmp(line, "close") == 0)
        t->ended = close(t->fd) == 0;
    else
        return 99;
    return 0;
}

int main(int argc, char **argv)
{
    struct winsize size = {.ws_row = 24, .ws_col = 80};
    struct terminal t = {0};
    size_t room = 0;
    char *line = NULL;
    int rc = 0, status;
    ssize_t n;
    pid_t pid;

    if (argc < 2)
        return 99;
    pid = forkpty(&t.fd, NULL, NULL, &size);
    if (pid < 0)
        return 99;
    if (pid == 0) {
        signal(SIGINT, SIG_DFL);
        execvp(argv[1], argv + 1);
        _exit(127);
    }
    while (rc == 0 && (n = getline(&line, &room, stdin)) > 0) {
        if (line[n - 1] == '\n')
            line[n - 1] = '\0';
        rc = play(&t, line);
        if (rc != 0)
            fprintf(stderr, "pty: no luck with '%s %s'\n", line,
                    line + strlen(line) + 1);
    }
    for (double until = now_ms() + PATIENCE_MS;
         rc == 0 && !t.ended && now_ms() < until;)
        hear(&t, 100);
    if (rc != 0 || !t.ended)
        kill(pid, SIGKILL);
    if (waitpid(pid, &status, 0) != pid)
        return 99;
    free(line);
    free(t.seen);
    if (rc != 0)
        return rc;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
