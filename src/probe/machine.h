/*
 * machine.h - which machine this is, and what built this program
 */
#ifndef SL_MACHINE_H
#define SL_MACHINE_H

#include <stdint.h>

struct sl_machine {
    char cpu[80];     /* as the kernel names it */
    char kernel[96];  /* "Linux 6.1.0-18-amd64 x86_64" */
    char boot_id[40]; /* differs after every boot; "" unknown */
    unsigned n_cpus;  /* this process may run on */
    unsigned n_numa;  /* nodes with memory */
    uint64_t ram_bytes;
};

void sl_machine_get(struct sl_machine *m);

/* The commit that was built, "-dirty" at its end if it was changed; "unknown"
 * outside a checkout. */
const char *sl_machine_commit(void);
/* Of its day, "" where that is unknown; "jansson 2.14, ...". */
const char *sl_machine_commit_date(void);
const char *sl_machine_libraries(void);

#endif
