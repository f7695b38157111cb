#include "config.h"

#include <ctype.h>
#include <dirent.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "src/probe/commit.h"
#include "src/probe/machine.h"

/* The first line of a file; "" if there is none. */
static void first_line(char *text, size_t n, const char *path)
{
    FILE *f = fopen(path, "re");

    text[0] = '\0';
    if (f == NULL)
        return;
    if (fgets(text, (int)n, f) == NULL)
        text[0] = '\0';
    text[strcspn(text, "\n")] = '\0';
    fclose(f);
}

/* x86 has "model name", others "Model", "Processor" or nothing. */
static void cpu_name(char *name, size_t n)
{
    static const char *const keys[] = {"model name", "Processor", "Model"};
    FILE *f = fopen("/proc/cpuinfo", "re");
    char line[256];

    snprintf(name, n, "unknown CPU");
    while (f != NULL && fgets(line, sizeof line, f) != NULL) {
        char *value = strchr(line, ':');

        for (size_t i = 0; value != NULL && i < 3; i++) {
            if (strncmp(line, keys[i], strlen(keys[i])) != 0)
                continue;
            value++;
            value += strspn(value, " \t");
            value[strcspn(value, "\n")] = '\0';
            snprintf(name, n, "%s", value);
            fclose(f);
            return;
        }
    }
    if (f != NULL)
        fclose(f);
}

static unsigned count_nodes(void)
{
    DIR *dir = opendir("/sys/devices/system/node");
    unsigned n = 0;

    for (const struct dirent *e; dir != NULL && (e = readdir(dir)) != NULL;)
        n += strncmp(e->d_name, "node", 4) == 0 &&
             isdigit((unsigned char)e->d_name[4]);
    if (dir != NULL)
        closedir(dir);
    return n > 0 ? n : 1;
}

void sl_machine_get(struct sl_machine *m)
{
    struct utsname u;
    cpu_set_t set;
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);

    memset(m, 0, sizeof *m);
    cpu_name(m->cpu, sizeof m->cpu);
    if (uname(&u) == 0)
        snprintf(m->kernel, sizeof m->kernel, "%.16s %.60s %.16s", u.sysname,
                 u.release, u.machine);
    first_line(m->boot_id, sizeof m->boot_id,
               "/proc/sys/kernel/random/boot_id");
    m->n_cpus = 1;
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        m->n_cpus = (unsigned)CPU_COUNT(&set);
    m->n_numa = count_nodes();
    m->ram_bytes = pages > 0 && page > 0 ? (uint64_t)pages * (uint64_t)page : 0;
}

const char *sl_machine_commit_date(void)
{
    return SL_COMMIT_DATE;
}

const char *sl_machine_libraries(void)
{
    return SL_LIBRARIES;
}

const char *sl_machine_commit(void)
{
    return SL_COMMIT;
}
