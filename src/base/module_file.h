/*
 * module_file.h - code that lies in a file of its own
 *
 * What few runs need, and is large or brings large libraries, lies in a shared
 * object that the program opens where it is asked for, and otherwise leaves
 * alone: no byte of it comes into memory or the page cache. What stands in such
 * a file has the same names and headers as ever; the program has a function of
 * each name that it calls, which calls the file's (offload/device_file.c,
 * src/exec/exec_gpu_file.c, src/eval/crew_file.c).
 */
#ifndef SL_MODULE_FILE_H
#define SL_MODULE_FILE_H

#include <stdbool.h>

#include "src/base/error.h"

struct sl_module_file {
    const char *name;    /* sluice-x.so */
    const char *holds;   /* "sluice's code for ..." */
    const char *because; /* why it is looked for: "there is a driver" */
    const char
        *without; /* what there is not without it: "no GPU can be used" */
    bool global;  /* libraries that it brings open others, which need theirs */
};

/* A function of the file, which lies beside the program or where 'make install'
 * puts it; NULL on error. The file stays open once it is. Errors:
 * SL_ERR_UNSUPPORTED where there is no such file, or one of another build. */
void *sl_module_file_symbol(const struct sl_module_file *m, const char *name,
                            struct sl_error *err);

/* In the file: which build it is of. */
const char *sl_module_build(void);

#endif
