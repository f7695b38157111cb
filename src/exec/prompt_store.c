#include "config.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "src/base/mem.h"
#include "src/exec/prompt_store.h"

#define ENDING ".prompt"

enum {
    DIGITS = 16,
    NAME = DIGITS + sizeof ENDING - 1,
    RANDOM = 7,       /* of a file that is being written: ".XXXXXX" */
    STALE_S = 60 * 60 /* nobody writes one for so long */
};

size_t sl_prompt_store_path_bytes(const struct sl_prompt_store *s)
{
    return strlen(s->dir) + 1 + NAME + 1;
}

void sl_prompt_store_path(char *path, const struct sl_prompt_store *s,
                          uint64_t sum)
{
    snprintf(path, sl_prompt_store_path_bytes(s), "%s/%016llx" ENDING, s->dir,
             (unsigned long long)sum);
}

static bool is_name(const char *name, size_t n)
{
    if (strlen(name) != n || strncmp(name + DIGITS, ENDING, NAME - DIGITS) != 0)
        return false;
    for (size_t i = 0; i < DIGITS; i++) {
        if (!isxdigit((unsigned char)name[i]))
            return false;
    }
    return true;
}

/* A file of the folder. */
struct entry {
    char name[NAME + 1];
    struct timespec used;
    uint64_t bytes;
};

struct list {
    struct entry *v;
    size_t n, room;
    uint64_t bytes;
};

static int add(struct list *l, const char *name, const struct stat *st,
               struct sl_error *err)
{
    struct entry *e;

    if (!sl_grow((void **)&l->v, &l->room, l->n, sizeof *l->v))
        return sl_fail(err, SL_ERR_NOMEM, "no memory for a list of files");
    e = &l->v[l->n++];
    memcpy(e->name, name, NAME + 1);
    e->used = st->st_mtim;
    e->bytes = (uint64_t)st->st_size;
    l->bytes += e->bytes;
    return 0;
}

/* Lists what is kept; what was begun long ago goes. */
static int read_dir(const struct sl_prompt_store *s, DIR *dir, struct list *l,
                    struct sl_error *err)
{
    time_t now = time(NULL);
    struct dirent *d;
    struct stat st;

    while ((d = readdir(dir)) != NULL) {
        bool whole = is_name(d->d_name, NAME);

        if ((!whole && !is_name(d->d_name, NAME + RANDOM)) ||
            fstatat(dirfd(dir), d->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0 ||
            !S_ISREG(st.st_mode))
            continue;
        if (whole && add(l, d->d_name, &st, err) != 0)
            return -1;
        if (!whole && now - st.st_mtim.tv_sec > STALE_S)
            unlinkat(dirfd(dir), d->d_name, 0);
    }
    return 0;
}

static int by_use(const void *a, const void *b)
{
    const struct timespec *x = &((const struct entry *)a)->used;
    const struct timespec *y = &((const struct entry *)b)->used;

    if (x->tv_sec != y->tv_sec)
        return x->tv_sec < y->tv_sec ? -1 : 1;
    return (x->tv_nsec > y->tv_nsec) - (x->tv_nsec < y->tv_nsec);
}

int sl_prompt_store_trim(const struct sl_prompt_store *s, struct sl_error *err)
{
    DIR *dir = opendir(s->dir);
    struct list l = {0};
    int rc;

    if (dir == NULL)
        return sl_fail_os(err, errno, "%s: cannot be read", s->dir);
    rc = read_dir(s, dir, &l, err);
    if (rc == 0 && l.n > 0)
        qsort(l.v, l.n, sizeof *l.v, by_use);
    for (size_t i = 0; rc == 0 && i < l.n && l.bytes > s->most_bytes; i++) {
        if (unlinkat(dirfd(dir), l.v[i].name, 0) != 0 && errno != ENOENT)
            rc = sl_fail_os(err, errno, "%s/%s: cannot be thrown away", s->dir,
                            l.v[i].name);
        l.bytes -= l.v[i].bytes;
    }
    closedir(dir);
    free(l.v);
    return rc;
}

int sl_prompt_store_open(const struct sl_prompt_store *s, struct sl_error *err)
{
    if (mkdir(s->dir, 0700) != 0 && errno != EEXIST)
        return sl_fail_os(err, errno, "%s: cannot be made", s->dir);
    return sl_prompt_store_trim(s, err);
}

void sl_prompt_store_touch(const char *path)
{
    utimensat(AT_FDCWD, path, NULL, 0);
}
