/*
 * opts_launcher.h - what GLM-130B's generate.sh and its model_glm_130b*.sh say
 * to the launcher and to SAT
 *
 * A command line that was made for them runs as it is: what the model file
 * tells by itself, or what this program does otherwise, is taken and named in
 * one line (THUDM/GLM-130B scripts/generate.sh, configs/model_glm_130b.sh,
 * initialize.py).
 */
#ifndef SL_OPTS_LAUNCHER_H
#define SL_OPTS_LAUNCHER_H

#include <argp.h>

#include "src/base/log.h"

struct sl_launcher {
    char said[160]; /* options that were, with commas */
};

/* Hidden options; as an argp child its input is a struct sl_launcher. */
extern const struct argp sl_launcher_argp;

/* One line, if any was said. */
void sl_launcher_tell(const struct sl_launcher *l, const struct sl_log *log);

#endif
