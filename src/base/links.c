#include "config.h"

#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/base/links.h"

#define MOST_LINKS 40 /* as Linux has it */

/* N of /proc/OURS/fd/N by any name of that folder; -1: it is none. */
static int descriptor_of(const char *name)
{
    char *copy[2] = {strdup(name), strdup(name)};
    char *folder = NULL, ours[40];
    const char *last;
    int n = -1;

    if (copy[0] != NULL && copy[1] != NULL) {
        folder = realpath(dirname(copy[0]), NULL);
        last = basename(copy[1]);
        snprintf(ours, sizeof ours, "/proc/%ld/fd", (long)getpid());
        if (folder != NULL && strcmp(folder, ours) == 0 &&
            strspn(last, "0123456789") == strlen(last) && strlen(last) < 9)
            n = atoi(last);
    }
    free(folder);
    free(copy[0]);
    free(copy[1]);
    return n;
}

/* What a link in the place of name says. */
static char *beside(const char *name, const char *says)
{
    char *copy, *path = NULL;

    if (says[0] == '/')
        return strdup(says);
    copy = strdup(name);
    if (copy != NULL && asprintf(&path, "%s/%s", dirname(copy), says) < 0)
        path = NULL;
    free(copy);
    return path;
}

char *sl_link_follow(const char *name, int *descriptor)
{
    char *path = strdup(name);

    for (int i = 0; path != NULL; i++) {
        char says[PATH_MAX], *next;
        ssize_t n;

        *descriptor = descriptor_of(path);
        if (*descriptor >= 0)
            return path;
        n = readlink(path, says, sizeof says - 1);
        if (n < 0) /* no link, or nothing at all */
            return path;
        says[n] = '\0';
        next = i < MOST_LINKS ? beside(path, says) : NULL;
        free(path);
        path = next;
        if (i == MOST_LINKS)
            errno = ELOOP;
    }
    return NULL;
}
