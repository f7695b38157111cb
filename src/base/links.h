/*
 * links.h - where a file's name leads
 *
 * What replaces a file by a rename must not replace a link to it, least of all
 * /dev/stdout.
 */
#ifndef SL_LINKS_H
#define SL_LINKS_H

/* The name that a chain of symbolic links ends in, though there be nothing of
 * that name; the name itself where it is no link. Owned. *descriptor: of this
 * program, where it stands for one (/dev/stdout, /dev/fd/3), else -1. NULL with
 * errno: ENOMEM, ELOOP. */
char *sl_link_follow(const char *name, int *descriptor);

#endif
