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
/* The most it has been: VmHWM + HugetlbPages. */
uint64_t sl_meminfo_peak(void);
/* What could be taken now without pushing anything out: MemAvailable, or what
 * the control group still grants if that is less. */
uint64_t sl_meminfo_available(void);

#endif
