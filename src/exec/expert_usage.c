#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <xxhash.h>

#include "src/base/bytes.h"
#include "src/base/mem.h"
#include "src/base/newfile.h"
#include "src/exec/expert_usage.h"
#include "src/model/model_meta.h"

#define MAGIC  "SLUSAGE1"
#define SUFFIX ".usage"

enum { HEAD_BYTES = 32, SUM_BYTES = 8 };

static char *path_of(const struct sl_modelfile *mf)
{
    size_t n = strlen(mf->path);
    char *path = malloc(n + sizeof SUFFIX);

    if (path != NULL) {
        memcpy(path, mf->path, n);
        memcpy(path + n, SUFFIX, sizeof SUFFIX);
    }
    return path;
}

/* Waits for nobody where somebody has put a pipe there. */
static FILE *open_there(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    FILE *f = fd >= 0 ? fdopen(fd, "rb") : NULL;

    if (fd >= 0 && f == NULL)
        close(fd);
    return f;
}

static size_t file_bytes(uint32_t n_records)
{
    return HEAD_BYTES + (size_t)n_records * sizeof(float) + SUM_BYTES;
}

static void put_f32(uint8_t *to, float v)
{
    uint32_t bits;

    memcpy(&bits, &v, sizeof bits);
    sl_store_u32(to, bits);
}

static float get_f32(const uint8_t *from)
{
    uint32_t bits = sl_load_u32(from);
    float v;

    memcpy(&v, &bits, sizeof v);
    return v;
}

/* What makes a file this model's. */
static int make_head(uint8_t head[HEAD_BYTES], const struct sl_modelfile *mf,
                     uint32_t n_records, float turns, struct sl_error *err)
{
    uint64_t sum;

    if (sl_model_meta_sum(mf->gguf, &sum, err) != 0)
        return -1;
    memcpy(head, MAGIC, 8);
    sl_store_u64(head + 8, sum);
    sl_store_u64(head + 16, mf->file_bytes);
    sl_store_u32(head + 24, n_records);
    put_f32(head + 28, turns);
    return 0;
}

/* Why a file is not to be believed; NULL: it is. */
static const char *take(float *parts, float *turns, const uint8_t *file,
                        const uint8_t *head, uint32_t n_records)
{
    size_t n = file_bytes(n_records) - SUM_BYTES;
    float seen = get_f32(file + HEAD_BYTES - sizeof(float));

    if (memcmp(file, head, HEAD_BYTES - sizeof(float)) != 0)
        return "it is another model's";
    if (XXH3_64bits(file, n) != sl_load_u64(file + n))
        return "it is damaged";
    for (uint32_t r = 0; r < n_records; r++) {
        float part = get_f32(file + HEAD_BYTES + r * sizeof(float));

        if (!(part >= 0 && part <= 1))
            return "it is damaged";
    }
    if (!(seen >= 0 && seen < 1e9f))
        return "it is damaged";
    for (uint32_t r = 0; r < n_records; r++)
        parts[r] = get_f32(file + HEAD_BYTES + r * sizeof(float));
    *turns = seen;
    return NULL;
}

bool sl_expert_usage_read(float *parts, float *turns,
                          const struct sl_modelfile *mf, uint32_t n_records,
                          const struct sl_log *log)
{
    size_t n = file_bytes(n_records), got;
    uint8_t *file = malloc(n + 1), head[HEAD_BYTES];
    char *path = path_of(mf);
    FILE *f = path != NULL ? open_there(path) : NULL;
    const char *why = "it is another model's";
    struct sl_error err;

    if (f != NULL && file != NULL &&
        make_head(head, mf, n_records, 0, &err) == 0) {
        got = fread(file, 1, n + 1, f);
        if (got < 8 || memcmp(file, MAGIC, 8) != 0)
            why = "it is something else";
        else if (got == n)
            why = take(parts, turns, file, head, n_records);
        else if (got < n && got >= HEAD_BYTES &&
                 memcmp(file, head, HEAD_BYTES - sizeof(float)) == 0)
            why = "it is cut short";
    }
    if (f != NULL) {
        fclose(f);
        if (why != NULL)
            sl_log(log, SL_LOG_WARN, "%s is ignored: %s", path, why);
    }
    free(path);
    free(file);
    return f != NULL && why == NULL;
}

/* A file of that name that no run has made is somebody's. */
static int check_ours(const char *path, struct sl_error *err)
{
    FILE *f = open_there(path);
    uint8_t magic[8];
    size_t got;

    if (f == NULL)
        return errno == ENOENT
                   ? 0
                   : sl_fail_os(err, errno, "%s: cannot read", path);
    got = fread(magic, 1, sizeof magic, f);
    fclose(f);
    if (got == 0 || (got == sizeof magic && memcmp(magic, MAGIC, 8) == 0))
        return 0;
    return sl_fail(err, SL_ERR_USAGE,
                   "%s is something else than what runs learn, and stays",
                   path);
}

int sl_expert_usage_write(const float *parts, float turns,
                          const struct sl_modelfile *mf, uint32_t n_records,
                          struct sl_error *err)
{
    size_t n = file_bytes(n_records);
    uint8_t *file = malloc(n);
    char *path = path_of(mf);
    struct sl_newfile to = {0};
    int rc = -1;

    if (file == NULL || path == NULL) {
        sl_fail(err, SL_ERR_NOMEM, "no memory to keep which experts are used");
        goto out;
    }
    if (make_head(file, mf, n_records, turns, err) != 0)
        goto out;
    for (uint32_t r = 0; r < n_records; r++)
        put_f32(file + HEAD_BYTES + r * sizeof(float), parts[r]);
    sl_store_u64(file + n - SUM_BYTES, XXH3_64bits(file, n - SUM_BYTES));
    if (sl_newfile_check_kind(path, err) != 0 || check_ours(path, err) != 0 ||
        sl_newfile_open(&to, path, err) != 0)
        goto out;
    fwrite(file, 1, n, to.file);
    rc = sl_newfile_close(&to, err);
out:
    free(file);
    free(path);
    return rc;
}
