/*
 * ckpt_place.h - where the files of a checkpoint are
 *
 * In a folder, or in an archive that is read in place. Shared by the kinds of
 * checkpoints (ckpt_kind.h) alone.
 */
#ifndef SL_CKPT_PLACE_H
#define SL_CKPT_PLACE_H

#include "src/ckpt/ckpt.h"
#include "src/ckpt/ckpt_tar.h"
#include "src/model/gguf.h"

#define SL_CKPT_PATH 4096

/* Files are in folder, or in an archive (archive != NULL) below base. folder
 * is then the one that holds the archive. */
struct sl_ckpt_impl {
    char *folder;
    struct sl_src *archive;
    struct sl_tar tar;
    char *base;  /* "" or "glm-130b-sat/": what is in front of `latest` */
    char *label; /* of a shard of several files, for messages */
    struct sl_gguf *gguf; /* a GGUF file's header; NULL: it is none */
};

/* FOLDER/NAME; an empty folder is this one. Errors: SL_ERR_USAGE (too long). */
int sl_place_path(char out[SL_CKPT_PATH], const char *folder, const char *name,
                  struct sl_error *err);

/* A source of a file of the checkpoint; folder is below its root, may be "".
 * Returns 1 when there is no such file. */
int sl_place_open(struct sl_src **src, const struct sl_ckpt_impl *im,
                  const char *folder, const char *name, struct sl_error *err);

/* All of a source of at most 256 MiB, with a zero byte behind it that *n does
 * not count; moved to the caller (free). */
int sl_place_read_all(uint8_t **data, size_t *n, struct sl_src *src,
                      struct sl_error *err);

#endif
