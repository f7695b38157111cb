/*
 * peak.c - runs a command and says how much memory it took at most
 *
 * Usage: peak REPORT FILE COMMAND [ARG...]
 *
 * Writes one line to REPORT: the largest resident set of the command, the
 * bytes of FILE that are in the page cache after it ended (dropped before it
 * began), and their sum, in bytes. Exits as the command does.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static uint64_t cached_bytes(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    uint64_t pages = 0;
    unsigned char *in;
    struct stat st;
    size_t n;
    void *map;

    if (fd < 0 || fstat(fd, &st) != 0)
        exit(126);
    n = ((size_t)st.st_size + 4095) / 4096;
    map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
    in = malloc(n);
    if (map == MAP_FAILED || in == NULL ||
        mincore(map, (size_t)st.st_size, in) != 0)
        exit(126);
    for (size_t i = 0; i < n; i++)
        pages += in[i] & 1;
    munmap(map, (size_t)st.st_size);
    free(in);
    close(fd);
    return pages * 4096;
}

static void drop_cache(const char *path)
{
    int fd = open(path, O_RDWR | O_CLOEXEC);

    if (fd < 0 || fsync(fd) != 0 ||
        posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) != 0)
        exit(126);
    close(fd);
}

int main(int argc, char **argv)
{
    uint64_t resident, cached, before;
    struct rusage usage;
    int status;
    pid_t pid;
    FILE *f;

    if (argc < 4)
        return 126;
    drop_cache(argv[2]);
    before = cached_bytes(argv[2]);
    /* posix_spawn: a forked child would begin with this program's pages. */
    if (posix_spawnp(&pid, argv[3], NULL, NULL, argv + 3, environ) != 0)
        return 127;
    while (wait4(pid, &status, 0, &usage) < 0) {
        if (errno != EINTR)
            return 126;
    }
    resident = (uint64_t)usage.ru_maxrss * 1024;
    cached = cached_bytes(argv[2]);
    cached = cached > before ? cached - before : 0;
    f = fopen(argv[1], "we");
    if (f == NULL)
        return 126;
    fprintf(f, "%llu %llu %llu\n", (unsigned long long)resident,
            (unsigned long long)cached,
            (unsigned long long)(resident + cached));
    fclose(f);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
