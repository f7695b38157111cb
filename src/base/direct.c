#include "config.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "src/base/direct.h"

bool sl_file_is_direct(int fd)
{
#ifdef STATX_DIOALIGN
    struct statx s;

    if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &s) == 0 &&
        s.stx_mask & STATX_DIOALIGN)
        return s.stx_dio_mem_align > 0;
#else
    (void)fd;
#endif
    return true;
}
