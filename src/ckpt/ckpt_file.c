#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "src/base/mem.h"
#include "src/ckpt/ckpt_kind.h"
#include "src/ckpt/ckpt_place.h"

/* One file of tensors on its own, told by its name. A name may end in .bin
 * for many reasons, so the reader has the last word. */

static const char *const torch_tails[] = {".pt", ".bin", ".pth", ".ckpt"};

static bool ends_in(const char *name, const char *tail)
{
    size_t n = strlen(name), n_tail = strlen(tail);

    return n > n_tail && strcmp(name + n - n_tail, tail) == 0;
}

/* By the name alone: torch's containers are told apart when they are opened,
 * and this kind comes last. */
static bool file_look(char why[SL_CKPT_WHY], const char *path)
{
    struct stat st;

    if (stat(path, &st) == 0 && S_ISDIR(st.st_mode)) {
        snprintf(why, SL_CKPT_WHY, "it is a folder");
        return false;
    }
    if (ends_in(path, ".safetensors"))
        return true;
    for (size_t i = 0; i < sizeof torch_tails / sizeof *torch_tails; i++)
        if (ends_in(path, torch_tails[i]))
            return true;
    snprintf(why, SL_CKPT_WHY, "its name ends in none of these");
    return false;
}

static int file_open(struct sl_ckpt *c, const char *path,
                     const struct sl_log *log, struct sl_error *err)
{
    const char *slash = strrchr(path, '/');
    struct sl_src *src;

    c->impl->folder =
        slash == NULL ? strdup(".")
                      : strndup(path, (size_t)(slash - path) + (slash == path));
    c->shards = sl_zalloc_array(1, sizeof *c->shards);
    if (c->impl->folder == NULL || c->shards == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory to open the checkpoint");
    if (sl_src_open(&src, &path, 1, err) != 0)
        return -1;
    if ((ends_in(path, ".safetensors")
             ? sl_safetensors_open(c->shards, src, err)
             : sl_torch_open(c->shards, src, log, err)) != 0)
        return -1;
    c->n_shards = 1;
    return 0;
}

const struct sl_ckpt_kind sl_ckpt_file = {
    .name = "file",
    .what = "one file of tensors",
    .looks_for = "one .safetensors, .pt, .pth, .ckpt or .bin file",
    .look = file_look,
    .open = file_open,
};
