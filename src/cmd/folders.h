/*
 * folders.h - where this user's files lie that no command line names
 */
#ifndef SL_CMD_FOLDERS_H
#define SL_CMD_FOLDERS_H

/* Where this user's caches lie: $XDG_CACHE_HOME, else ~/.cache; moved to the
 * caller. NULL where neither is known. */
char *sl_cache_folder(void);

/* The same for what programs remember ($XDG_STATE_HOME, else ~/.local/state).
 */
char *sl_state_folder(void);

#endif
