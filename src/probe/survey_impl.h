/*
 * survey_impl.h - what the parts of a survey share
 */
#ifndef SL_SURVEY_IMPL_H
#define SL_SURVEY_IMPL_H

#include <sys/stat.h>

/* What tells file systems apart: "8:1". */
void sl_survey_disk_key(char key[32], const struct stat *st);

#endif
