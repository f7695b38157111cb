/*
 * ckpt_zip.h - where the members of a zip file lie
 *
 * Only what torch.save writes: stored members, with or without zip64. Sizes
 * and offsets come from the central directory, because torch leaves them zero
 * in the local headers; where a member's data begins comes from its local
 * header, because the two extra fields differ. Source: PKWARE APPNOTE.TXT
 * 4.3 and 4.5.3; pytorch/pytorch caffe2/serialize/inline_container.cc.
 */
#ifndef SL_CKPT_ZIP_H
#define SL_CKPT_ZIP_H

#include <stddef.h>
#include <stdint.h>

#include "src/base/error.h"
#include "src/ckpt/ckpt_src.h"

struct sl_zip_member {
    const char *name; /* not zero-terminated; lies in the zip's dir */
    size_t n_name;
    uint64_t header; /* of its local header */
    uint64_t bytes;
    uint32_t crc; /* CRC-32 of its bytes; 0: not summed */
    uint16_t method;
    uint16_t flags;
};

struct sl_zip {
    struct sl_src *src;            /* borrowed */
    struct sl_zip_member *members; /* sorted by name */
    size_t n_members;
    uint8_t *dir;     /* the central directory */
    uint64_t dir_off; /* members lie below it */
};

/* Errors: SL_ERR_CORRUPT (no zip, cut short, inconsistent) with file and
 * numbers, SL_ERR_UNSUPPORTED (several disks, a directory beyond 64 MiB),
 * SL_ERR_IO, SL_ERR_NOMEM. */
int sl_zip_open(struct sl_zip *z, struct sl_src *src, struct sl_error *err);
void sl_zip_close(struct sl_zip *z);

/* NULL if there is none of that name. */
const struct sl_zip_member *sl_zip_find(const struct sl_zip *z,
                                        const char *name, size_t n_name);

/* *off = where the member's data begins; all of it lies before the central
 * directory. Errors: SL_ERR_UNSUPPORTED (compressed, encrypted),
 * SL_ERR_CORRUPT, SL_ERR_IO. */
int sl_zip_data(const struct sl_zip *z, const struct sl_zip_member *m,
                uint64_t *off, struct sl_error *err);

#endif
