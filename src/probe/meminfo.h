/*
 * meminfo.h - what the system says about memory
 *
 * Figures from /proc and the control group this process is in. Absent files
 * give 0 (unknown).
 */
#ifndef SL_MEMINFO_H
#define SL_MEMINFO_H

#include <stdint.h>

/* Resident set of this process now, huge pages of hugetlbfs included. */
uint64_t sl_meminfo_resident(void);
/* What a budget counts for the program as it is now: code, libraries, heap. The
 * same in every run that has done the same, which the resident set is not:
 * that differs by what of its files happens to be in the page cache and where
 * they are mapped. No less than the resident set. */
uint64_t sl_meminfo_program(void);
/* The most it has been: VmHWM + HugetlbPages. */
uint64_t sl_meminfo_peak(void);
/* What could be taken now without pushing anything out: MemAvailable, or what
 * the control group still grants if that is less. */
uint64_t sl_meminfo_available(void);
/* So many bytes for a measurement, or half of what is available, whichever is
 * less, but a page: in a group that has little left, less tells something,
 * too. */
uint64_t sl_meminfo_room(uint64_t bytes);
/* What the control group with this folder still grants: its limit less what
 * is used, of which pages of files do not count, as they are given up when
 * memory is short. UINT64_MAX when it sets no limit. Version 2 and version 1
 * of control groups. */
uint64_t sl_meminfo_group_left(const char *dir);

/* The most that a control group lets this process have, or UINT64_MAX. */
uint64_t sl_meminfo_limit(void);
/* The limit of the group with this folder, of version 2 or 1; UINT64_MAX: none.
 */
uint64_t sl_meminfo_group_limit(const char *dir);

#endif
