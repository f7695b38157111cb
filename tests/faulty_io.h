/*
 * faulty_io.h - a reader whose n-th read or call goes wrong
 *
 * It stands between a stream and a real reader; bytes that a read is said
 * not to have brought are overwritten. One at a time, since sl_io_open's
 * double takes no argument of ours. Loop n = 0, 1, 2... until
 * faulty_happened says that there was no n-th.
 */
#ifndef SL_TESTS_FAULTY_IO_H
#define SL_TESTS_FAULTY_IO_H

#include "offload/io.h"

enum faulty_kind {
    FAULTY_EIO_ONCE,
    FAULTY_EIO,     /* for ever: this range and everything after */
    FAULTY_EINTR,   /* once */
    FAULTY_EAGAIN,  /* a few times */
    FAULTY_SHORT,   /* whole pages, then the rest */
    FAULTY_SLIVER,  /* less than a page, once */
    FAULTY_NOTHING, /* 0 bytes for ever: the file got shorter */
    FAULTY_SUBMIT,  /* submit fails */
    FAULTY_WAIT,    /* wait fails for ever */
    FAULTY_COUNT,
};

void faulty_set(enum faulty_kind fault, long n); /* counts from 0 */
/* Of one that is open: from now on. FAULTY_COUNT: none. */
void faulty_change(enum faulty_kind fault, long n);
bool faulty_happened(void);
/* Of a reader with a mirror: only of reads from this file. */
void faulty_only(unsigned file);
/* For sl_stream_config.io_open. */
int faulty_open(struct sl_io **io, const struct sl_io_config *config,
                struct sl_error *err);

#endif
