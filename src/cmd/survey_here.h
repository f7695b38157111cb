/*
 * survey_here.h - what this machine can do: what is kept of it, or measured now
 */
#ifndef SL_SURVEY_HERE_H
#define SL_SURVEY_HERE_H

#include <stdbool.h>

#include "src/base/log.h"
#include "src/probe/survey.h"

/* With the disk that path lies on, and that of mirror (NULL: none); force: all
 * is measured again. What was measured is kept in *kept (moved to the caller;
 * NULL: it could not be, which log is told). *survey is the caller's. Errors:
 * those of survey.h. */
int sl_survey_here(json_t **survey, char **kept, const char *path,
                   const char *mirror, bool force, const struct sl_log *log,
                   struct sl_error *err);

#endif
