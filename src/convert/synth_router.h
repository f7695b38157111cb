/*
 * synth_router.h - routers of random models that prefer some experts
 */
#ifndef SL_SYNTH_ROUTER_H
#define SL_SYNTH_ROUTER_H

#include "src/arch/hparams.h"

/* bias: (n_experts), with which the expert of rank r of a layer is chosen about
 * as often as r to the power of -skew, where logits are normal and apart. Ranks
 * are dealt out otherwise in every layer. */
void sl_synth_router_bias(float *bias, const struct sl_hparams *hp,
                          uint32_t layer, double skew);

#endif
