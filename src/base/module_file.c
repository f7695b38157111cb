#include "config.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <link.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/base/module_file.h"

#define PATH_BYTES (2 * PATH_MAX)

/* --- where it is -----------------------------------------------------------
 */

/* The folder of this program; "" where nobody can tell. */
static void program_folder(char folder[PATH_MAX])
{
    ssize_t n = readlink("/proc/self/exe", folder, PATH_MAX - 1);
    char *slash;

    folder[n > 0 ? n : 0] = '\0';
    slash = strrchr(folder, '/');
    if (slash != NULL)
        *slash = '\0';
}

/* Where it was installed: with a tree that was installed below another folder
 * (DESTDIR), below that. */
static void installed_path(char path[PATH_BYTES], const char *folder,
                           const char *name)
{
    size_t n = strlen(folder), bin = strlen(SL_BINDIR);
    int root = 0;

    if (n > bin && strcmp(folder + n - bin, SL_BINDIR) == 0)
        root = (int)(n - bin);
    snprintf(path, PATH_BYTES, "%.*s%s/%s", root, folder, SL_PKGLIBDIR, name);
}

/* --- opening it ------------------------------------------------------------
 */

static int check_build(void *file, const struct sl_module_file *m,
                       const char *path, struct sl_error *err)
{
    __typeof__(sl_module_build) *build;

    *(void **)&build = dlsym(file, "sl_module_build");
    if (build != NULL && strcmp(build(), PACKAGE_VERSION) == 0)
        return 0;
    return sl_fail(err, SL_ERR_UNSUPPORTED,
                   "%s is of sluice %s, this is " PACKAGE_VERSION
                   ": install both again, so %s until then",
                   path, build != NULL ? build() : "of another kind",
                   m->without);
}

/* The loader maps what the headers tell of, and dies where that is not there:
 * a file that was cut off is found here. Its last part is the table of its
 * sections. */
static int check_length(const char *path, struct sl_error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ElfW(Ehdr) head;
    struct stat st;
    bool ok = fd >= 0 && fstat(fd, &st) == 0 &&
              read(fd, &head, sizeof head) == (ssize_t)sizeof head &&
              head.e_shoff + (uint64_t)head.e_shnum * head.e_shentsize <=
                  (uint64_t)st.st_size;

    if (fd >= 0)
        close(fd);
    if (!ok)
        return sl_fail(err, SL_ERR_UNSUPPORTED,
                       "%s cannot be read, or is cut off: install it again",
                       path);
    return 0;
}

static void *open_file(const struct sl_module_file *m, const char *path,
                       struct sl_error *err)
{
    void *file;

    if (check_length(path, err) != 0)
        return NULL;
    file = dlopen(path, RTLD_NOW | (m->global ? RTLD_GLOBAL : RTLD_LOCAL));
    if (file == NULL) {
        sl_fail(err, SL_ERR_UNSUPPORTED,
                "the file with %s cannot be opened: %s", m->holds, dlerror());
        return NULL;
    }
    return check_build(file, m, path, err) == 0 ? file : NULL;
}

/* Opened before or now: the loader counts. */
static void *find_file(const struct sl_module_file *m, struct sl_error *err)
{
    char folder[PATH_MAX], beside[PATH_BYTES], installed[PATH_BYTES];

    program_folder(folder);
    snprintf(beside, sizeof beside, "%s/%s", folder, m->name);
    if (folder[0] != '\0' && access(beside, F_OK) == 0)
        return open_file(m, beside, err);
    installed_path(installed, folder, m->name);
    if (access(installed, F_OK) == 0)
        return open_file(m, installed, err);
    sl_fail(err, SL_ERR_UNSUPPORTED,
            "%s, but %s, which has %s, is neither %s nor beside the "
            "program: install it there ('make install' does)",
            m->because, m->name, m->holds, installed);
    return NULL;
}

void *sl_module_file_symbol(const struct sl_module_file *m, const char *name,
                            struct sl_error *err)
{
    void *file = find_file(m, err), *symbol;

    if (file == NULL)
        return NULL;
    symbol = dlsym(file, name);
    if (symbol == NULL)
        sl_fail(err, SL_ERR_UNSUPPORTED,
                "%s has no %s: install it again with the program", m->name,
                name);
    return symbol;
}
