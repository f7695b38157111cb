/*
 * sim_mixer.h - what a machine's GPU takes for experts
 */
#ifndef SL_SIM_MIXER_H
#define SL_SIM_MIXER_H

#include "offload/device.h"
#include "src/sim/sim_mixture.h"

struct sl_sim_mixer {
    struct sl_device *dev; /* borrowed, as all else */
    const struct sl_sim_machine *machine;
    const struct sl_sim_mixture *mixture; /* NULL: there are none */
    struct sl_event *mixed, *up[SL_LENT], *lent[SL_LENT];
    uint32_t n_lent, n_taken; /* experts of RAM, in all */
};

/* Errors: those of the device. */
int sl_sim_mixer_init(struct sl_sim_mixer *m, struct sl_device *dev,
                      const struct sl_sim_machine *machine,
                      const struct sl_sim_mixture *mixture,
                      struct sl_error *err);
void sl_sim_mixer_fini(struct sl_sim_mixer *m); /* zeroed is fine */

/* As the functions of an engine (exec/engine.h). */
int sl_sim_mixer_mix(struct sl_sim_mixer *m, const struct sl_mix *mix,
                     struct sl_error *err);
int sl_sim_mixer_mixed(struct sl_sim_mixer *m, struct sl_error *err);
int sl_sim_mixer_lend(struct sl_sim_mixer *m, const struct sl_loan *loan,
                      struct sl_error *err);
int sl_sim_mixer_lent(struct sl_sim_mixer *m, struct sl_error *err);

#endif
