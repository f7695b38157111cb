#include "config.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <link.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "offload/device_cuda.h"
#include "offload/device_file.h"

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
static void installed_path(char path[PATH_BYTES], const char *folder)
{
    size_t n = strlen(folder), bin = strlen(SL_BINDIR);
    int root = 0;

    if (n > bin && strcmp(folder + n - bin, SL_BINDIR) == 0)
        root = (int)(n - bin);
    snprintf(path, PATH_BYTES, "%.*s%s/" SL_DEVICE_FILE, root, folder,
             SL_PKGLIBDIR);
}

/* --- opening it ------------------------------------------------------------
 */

/* The driver's library, which the file's CUDA runtime looks for as well. */
static int check_driver(struct sl_error *err)
{
#ifndef CUDA_SIM
    if (dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL) == NULL)
        return sl_fail(err, SL_ERR_UNSUPPORTED, SL_NO_DRIVER);
#endif
    return 0;
}

static int check_build(void *file, const char *path, struct sl_error *err)
{
    __typeof__(sl_device_file_build) *build;

    *(void **)&build = dlsym(file, "sl_device_file_build");
    if (build != NULL && strcmp(build(), PACKAGE_VERSION) == 0)
        return 0;
    return sl_fail(err, SL_ERR_UNSUPPORTED,
                   "%s is of sluice %s, this is " PACKAGE_VERSION
                   ": install both again, so no GPU can be used until then",
                   path, build != NULL ? build() : "of another kind");
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

static void *open_file(const char *path, struct sl_error *err)
{
    void *file;

    if (check_length(path, err) != 0)
        return NULL;
    file = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (file == NULL) {
        sl_fail(err, SL_ERR_UNSUPPORTED,
                "the file with sluice's code for GPUs cannot be opened: %s",
                dlerror());
        return NULL;
    }
    return check_build(file, path, err) == 0 ? file : NULL;
}

/* Opened before or now: the loader counts. */
static void *find_file(struct sl_error *err)
{
    char folder[PATH_MAX], beside[PATH_BYTES], installed[PATH_BYTES];

    program_folder(folder);
    snprintf(beside, sizeof beside, "%s/" SL_DEVICE_FILE, folder);
    if (folder[0] != '\0' && access(beside, F_OK) == 0)
        return open_file(beside, err);
    installed_path(installed, folder);
    if (access(installed, F_OK) == 0)
        return open_file(installed, err);
    sl_fail(err, SL_ERR_UNSUPPORTED,
            "there is an NVIDIA driver, but " SL_DEVICE_FILE
            ", which has sluice's code for GPUs, is neither %s nor beside the "
            "program: install it there ('make install' does)",
            installed);
    return NULL;
}

void *sl_device_file_symbol(const char *name, struct sl_error *err)
{
    void *file, *symbol;

    if (check_driver(err) != 0)
        return NULL;
    file = find_file(err);
    if (file == NULL)
        return NULL;
    symbol = dlsym(file, name);
    if (symbol == NULL)
        sl_fail(err, SL_ERR_UNSUPPORTED,
                SL_DEVICE_FILE " has no %s: install it again with the program",
                name);
    return symbol;
}

/* --- what of offload/ lies there -------------------------------------------
 */

int sl_cuda_list(struct sl_device_info *infos, size_t room, size_t *n,
                 struct sl_error *err)
{
    __typeof__(sl_cuda_list) *list;

    *n = 0;
    *(void **)&list = sl_device_file_symbol(__func__, err);
    return list != NULL ? list(infos, room, n, err) : -1;
}

int sl_device_open_cuda(struct sl_device **dev, int ordinal,
                        struct sl_error *err)
{
    __typeof__(sl_device_open_cuda) *open;

    *(void **)&open = sl_device_file_symbol(__func__, err);
    return open != NULL ? open(dev, ordinal, err) : -1;
}
