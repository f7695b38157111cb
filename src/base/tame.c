#include "config.h"

#include <stdio.h>

#include "src/base/error.h"
#include "src/base/tame.h"

const char *sl_tame(char *room, size_t n, const char *text)
{
    snprintf(room, n, "%s", text);
    sl_error_tame(room);
    return room;
}
