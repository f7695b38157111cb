#include "config.h"

#include <link.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "src/base/mem.h"
#include "src/probe/meminfo.h"

/* Of the code of program and libraries so much has been seen in memory, at the
 * end of runs: eight parts of fifteen when they plan, a little more later. */
#define CODE_PART 3u
#define CODE_OF   5u
/* Of what was asked of the heap, this is in memory with the rests of pages. */
#define HEAP_PART 9u
#define HEAP_OF   8u
/* Stacks of the threads there are, and what the loader keeps for them. */
#define STACKS (256ull << 10)
/* Steps of what is more than was expected. */
#define MORE_STEP (256ull << 10)

/* The value of "KEY:   123 kB" in a file of /proc, in bytes; 0 if absent. */
static uint64_t proc_field(const char *path, const char *key)
{
    FILE *f = fopen(path, "re");
    size_t len = strlen(key);
    uint64_t kib = 0;
    char line[256];

    if (f == NULL)
        return 0;
    while (fgets(line, sizeof line, f) != NULL) {
        if (strncmp(line, key, len) == 0 && line[len] == ':') {
            kib = strtoull(line + len + 1, NULL, 10);
            break;
        }
    }
    fclose(f);
    return kib * 1024;
}

/* Without /proc the system still knows the most that was resident. */
static uint64_t of_process(const char *key)
{
    uint64_t bytes = proc_field("/proc/self/status", key);
    struct rusage usage;

    if (bytes > 0)
        return bytes + proc_field("/proc/self/status", "HugetlbPages");
    return getrusage(RUSAGE_SELF, &usage) == 0
               ? (uint64_t)usage.ru_maxrss * 1024
               : 0;
}

uint64_t sl_meminfo_resident(void)
{
    return of_process("VmRSS");
}

/* Bytes of all objects of this process by what they are for. */
struct mapped {
    uint64_t code, data;
};

static int add_object(struct dl_phdr_info *object, size_t size, void *arg)
{
    struct mapped *m = arg;

    for (size_t i = 0; i < object->dlpi_phnum; i++) {
        const ElfW(Phdr) *p = &object->dlpi_phdr[i];

        if (p->p_type == PT_LOAD)
            *(p->p_flags & PF_W ? &m->data : &m->code) += p->p_memsz;
    }
    return 0;
}

/* What lies on the heap, with the gaps that are seen between; 0 where only the
 * resident set tells. What is free goes back to the system: how much that is
 * depends on what was tried before. */
static uint64_t heap_bytes(void)
{
#if defined __GLIBC__ && __GLIBC_PREREQ(2, 33)
    struct mallinfo2 heap;

    malloc_trim(0);
    heap = mallinfo2();
    return (uint64_t)heap.uordblks / HEAP_OF * HEAP_PART + heap.hblkhd;
#else
    return 0;
#endif
}

uint64_t sl_meminfo_program(void)
{
    uint64_t heap = heap_bytes(), now = sl_meminfo_resident(), expected;
    struct mapped m = {0};

    dl_iterate_phdr(add_object, &m);
    expected = sl_round_up(
        m.code / CODE_OF * CODE_PART + m.data + heap + STACKS, SL_PAGE_BYTES);
    return now > expected ? sl_round_up(now, MORE_STEP) : expected;
}

uint64_t sl_meminfo_peak(void)
{
    return of_process("VmHWM");
}

/* A file that holds one number; 0 when absent or "max". */
static uint64_t read_number(const char *path)
{
    FILE *f = fopen(path, "re");
    unsigned long long v = 0;

    if (f == NULL)
        return 0;
    if (fscanf(f, "%llu", &v) != 1)
        v = 0;
    fclose(f);
    return v;
}

/* Path of this process in a cgroup hierarchy: the line of /proc/self/cgroup
 * whose controllers are `controllers` ("" in version 2). */
static int cgroup_path(char *path, size_t n, const char *controllers)
{
    FILE *f = fopen("/proc/self/cgroup", "re");
    char line[1024];
    int found = -1;

    if (f == NULL)
        return -1;
    while (found != 0 && fgets(line, sizeof line, f) != NULL) {
        char *list = strchr(line, ':');
        char *where = list ? strchr(list + 1, ':') : NULL;

        if (where == NULL)
            continue;
        *where = '\0';
        where[1 + strcspn(where + 1, "\n")] = '\0';
        if (strcmp(list + 1, controllers) != 0)
            continue;
        snprintf(path, n, "%s", where + 1);
        found = 0;
    }
    fclose(f);
    return found;
}

/* The value of "key 123" in memory.stat; 0 if absent. */
static uint64_t group_stat(const char *dir, const char *key)
{
    char path[1400], name[64];
    unsigned long long v;
    uint64_t found = 0;
    FILE *f;

    snprintf(path, sizeof path, "%s/memory.stat", dir);
    f = fopen(path, "re");
    if (f == NULL)
        return 0;
    while (fscanf(f, "%63s %llu", name, &v) == 2) {
        if (strcmp(name, key) == 0)
            found = v;
    }
    fclose(f);
    return found;
}

static uint64_t group_number(const char *dir, const char *name)
{
    char path[1400];

    snprintf(path, sizeof path, "%s/%s", dir, name);
    return read_number(path);
}

uint64_t sl_meminfo_group_limit(const char *dir)
{
    uint64_t max = group_number(dir, "memory.max");

    if (max == 0)
        max = group_number(dir, "memory.limit_in_bytes");
    /* version 1 says "none" by the largest number of pages */
    return max == 0 || max >= INT64_MAX - (1u << 20) ? UINT64_MAX : max;
}

uint64_t sl_meminfo_group_left(const char *dir)
{
    uint64_t max = sl_meminfo_group_limit(dir);
    uint64_t used = group_number(dir, "memory.current"), files;

    if (max == UINT64_MAX)
        return UINT64_MAX;
    if (used != 0) {
        files =
            group_stat(dir, "inactive_file") + group_stat(dir, "active_file");
    } else {
        used = group_number(dir, "memory.usage_in_bytes");
        files = group_stat(dir, "total_inactive_file") +
                group_stat(dir, "total_active_file");
    }
    used -= files < used ? files : used;
    return max > used ? max - used : 0;
}

/* The least that any group from this process up to the root grants. */
static uint64_t least_of_groups(uint64_t (*of)(const char *dir))
{
    static const struct {
        const char *controllers, *root;
    } kinds[] = {
        {"", "/sys/fs/cgroup"},
        {"memory", "/sys/fs/cgroup/memory"},
    };
    uint64_t least = UINT64_MAX;

    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        char path[1024], dir[1280];

        if (cgroup_path(path, sizeof path, kinds[i].controllers) != 0)
            continue;
        for (;;) {
            char *slash = strrchr(path, '/');
            uint64_t left;

            snprintf(dir, sizeof dir, "%s%s", kinds[i].root, path);
            left = of(dir);
            if (left < least)
                least = left;
            if (slash == NULL)
                break;
            *slash = '\0';
        }
    }
    return least;
}

uint64_t sl_meminfo_limit(void)
{
    return least_of_groups(sl_meminfo_group_limit);
}

uint64_t sl_meminfo_available(void)
{
    uint64_t system = proc_field("/proc/meminfo", "MemAvailable");
    uint64_t group = least_of_groups(sl_meminfo_group_left);

    return group < system ? group : system;
}

uint64_t sl_meminfo_room(uint64_t bytes)
{
    uint64_t half = sl_meminfo_available() / 2;

    if (half == 0 || bytes <= half)
        return bytes;
    return half > SL_PAGE_BYTES ? half : SL_PAGE_BYTES;
}
