#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/cmd/folders.h"

/* XDG Base Directory Specification: a relative path does not count. */
static char *user_folder(const char *variable, const char *below_home)
{
    const char *said = getenv(variable), *home = getenv("HOME");
    char *folder = NULL;

    if (said != NULL && said[0] == '/')
        return strdup(said);
    if (home == NULL || home[0] != '/' ||
        asprintf(&folder, "%s/%s", home, below_home) < 0)
        return NULL;
    return folder;
}

char *sl_cache_folder(void)
{
    return user_folder("XDG_CACHE_HOME", ".cache");
}

char *sl_state_folder(void)
{
    return user_folder("XDG_STATE_HOME", ".local/state");
}
