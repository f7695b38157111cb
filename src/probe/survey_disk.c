#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "src/base/json.h"
#include "src/base/newfile.h"
#include "src/base/section_out.h"
#include "src/probe/meminfo.h"
#include "src/probe/probe.h"
#include "src/probe/survey.h"
#include "src/probe/survey_impl.h"

/* What a disk keeps in its own cache must not decide. */
#define FILE_BYTES   (256u << 20)
#define READ_TIME_NS 150000000u

/* A name for the kind of file system, where it is a common one (statfs(2)). */
static const char *kind_of(const char *path)
{
    static const struct {
        unsigned long magic;
        const char *name;
    } kinds[] = {
        {0xef53, "ext4"},        {0x58465342, "xfs"},
        {0x9123683e, "btrfs"},   {0x01021994, "tmpfs"},
        {0x794c7630, "overlay"}, {0x2fc12fc1, "zfs"},
        {0x6969, "nfs"},         {0x65735546, "fuse"},
        {0xf2f52010, "f2fs"},    {0xca451a4e, "bcachefs"},
    };
    struct statfs fs;

    if (statfs(path, &fs) != 0)
        return "unknown";
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if ((unsigned long)fs.f_type == kinds[i].magic)
            return kinds[i].name;
    }
    return "other";
}

void sl_survey_disk_key(char key[32], const struct stat *st)
{
    snprintf(key, 32, "%u:%u", major(st->st_dev), minor(st->st_dev));
}

/* A file without a name in a folder: it goes with its last descriptor, also
 * when this process is killed. */
static int open_nameless(const char *folder, struct sl_error *err)
{
    char *path;
    int fd = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

    if (fd >= 0)
        return fd;
    if (asprintf(&path, "%s/.sluice-probe-XXXXXX", folder) < 0)
        return sl_fail(err, SL_ERR_NOMEM, "no memory for a path");
    fd = mkostemp(path, O_CLOEXEC);
    if (fd < 0)
        sl_fail_os(err, errno, "%s: cannot make a file to measure with",
                   folder);
    else
        unlink(path);
    free(path);
    return fd;
}

/* Bytes that no disk compresses. */
static int write_noise(const char *path, uint64_t bytes, struct sl_error *err)
{
    static const size_t run = 1u << 20;
    uint64_t *noise = malloc(run), x = 88172645463325252u, sum;
    struct sl_out *out = NULL;
    int rc = -1;

    if (noise == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory to measure the disk with");
    if (sl_out_open(&out, path, err) != 0)
        goto out;
    sl_out_begin(out, 0);
    for (uint64_t done = 0; done < bytes; done += run) {
        for (size_t i = 0; i < run / sizeof x; i++) {
            x ^= x << 13; /* Marsaglia's xorshift64 */
            x ^= x >> 7;
            x ^= x << 17;
            noise[i] = x;
        }
        if (sl_out_append(out, noise, run, err) != 0)
            goto out;
    }
    if (sl_out_end(out, bytes, &sum, err) == 0)
        rc = sl_out_sync(out, err);
out:
    sl_out_close(out);
    free(noise);
    return rc;
}

/* Reads of every size and number; the best of them is the disk's rate. */
static int measure_grid(json_t *disk, const char *path,
                        const struct sl_survey_effort *effort,
                        struct sl_error *err)
{
    static const uint32_t blocks[] = {64u << 10, 256u << 10, 1u << 20,
                                      4u << 20};
    static const unsigned depths[] = {1, 4, SL_IO_DEPTH};
    json_t *reads = json_array();
    uint64_t issued = 0;
    double best = 0;

    json_object_set_new(disk, "reads", reads);
    for (size_t b = 0; b < sizeof blocks / sizeof *blocks; b++) {
        for (size_t d = 0; d < sizeof depths / sizeof *depths; d++) {
            struct sl_probe_disk_config config = {
                .path = path,
                .buffer_bytes = (uint64_t)blocks[b] * depths[d],
                .read_bytes = blocks[b],
                .time_ns = effort->time_ns,
                .issued = &issued,
            };
            double rate;

            /* Where a control group grants little, without the largest. */
            if (b > 0 &&
                sl_meminfo_room(config.buffer_bytes) < config.buffer_bytes)
                continue;
            if (sl_probe_disk(&rate, &config, err) != 0)
                return -1;
            best = rate > best ? rate : best;
            json_array_append_new(
                reads, json_pack("{s:I, s:I, s:f}", "block_bytes",
                                 (json_int_t)blocks[b], "depth",
                                 (json_int_t)depths[d], "bytes_per_s", rate));
        }
    }
    json_object_set_new(disk, "bytes_per_s", json_real(best));
    return 0;
}

/* Through a file that is made for it. */
static int measure_folder(json_t *disk, const char *folder,
                          const struct sl_survey_effort *effort,
                          struct sl_error *err)
{
    char path[40], *within;
    int rc, fd;

    if (asprintf(&within, "%s/.sluice-probe", folder) < 0)
        return sl_fail(err, SL_ERR_NOMEM, "no memory for a path");
    rc = sl_newfile_check_space(within, "a file to measure with",
                                effort->file_bytes, err);
    free(within);
    if (rc != 0)
        return -1;
    fd = open_nameless(folder, err);
    if (fd < 0)
        return -1;
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    rc = write_noise(path, effort->file_bytes, err);
    if (rc == 0)
        rc = measure_grid(disk, path, effort, err);
    if (rc != 0)
        sl_error_prefix(err, "%s: ", folder);
    close(fd);
    return rc;
}

int sl_survey_disk_name(char key[SL_SURVEY_DISK_KEY], const char *path,
                        struct sl_error *err)
{
    struct stat st;

    if (stat(path, &st) != 0)
        return sl_fail_os(err, errno, "%s: cannot measure its disk", path);
    sl_survey_disk_key(key, &st);
    return 0;
}

/* A small file says little of the drive: its folder is measured with a
 * larger one, where that can be written. */
static int measure(json_t *disk, const char *path, const struct stat *st,
                   char *folder, const struct sl_survey_effort *effort,
                   struct sl_error *err)
{
    struct sl_error why;

    if (S_ISDIR(st->st_mode))
        return measure_folder(disk, path, effort, err);
    if ((uint64_t)st->st_size < effort->file_bytes) {
        if (measure_folder(disk, dirname(folder), effort, &why) == 0)
            return 0;
        json_object_del(disk, "reads");
    }
    /* A small file is better than none. */
    return measure_grid(disk, path, effort, err);
}

int sl_survey_disk(json_t *survey, const char *path,
                   const struct sl_survey_effort *effort, struct sl_error *err)
{
    struct sl_survey_effort made = *effort;
    json_t *disk;
    struct stat st;
    char key[SL_SURVEY_DISK_KEY], *folder;
    int rc;

    if (made.time_ns == 0)
        made.time_ns = READ_TIME_NS;
    if (made.file_bytes == 0)
        made.file_bytes = FILE_BYTES;
    if (stat(path, &st) != 0)
        return sl_fail_os(err, errno, "%s: cannot measure its disk", path);
    sl_survey_disk_key(key, &st);
    folder = strdup(path);
    disk = json_pack("{s:I, s:o, s:s}", "measured", (json_int_t)time(NULL),
                     "path", sl_json_text(path), "file_system", kind_of(path));
    if (folder == NULL || disk == NULL) {
        rc = sl_fail(err, SL_ERR_NOMEM, "no memory to measure a disk");
    } else {
        rc = measure(disk, path, &st, folder, &made, err);
        if (rc == 0)
            json_object_set(json_object_get(survey, "disks"), key, disk);
    }
    json_decref(disk);
    free(folder);
    return rc;
}
