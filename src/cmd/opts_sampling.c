#include "config.h"

#include "src/cmd/opts_sampling.h"

bool sl_opt_sampling(struct sl_sampling_options *o, int key, char *arg,
                     struct argp_state *state)
{
    switch (key) {
    case SL_OPT_TEMPERATURE:
        o->sampler.temperature = sl_opt_f64(state, "temperature", arg, 0, 1e4);
        o->given |= SL_SAMPLING_TEMPERATURE;
        return true;
    case SL_OPT_TOP_K:
        o->sampler.top_k =
            (uint32_t)sl_opt_u64(state, "top-k", arg, 0, INT32_MAX);
        o->given |= SL_SAMPLING_TOP_K;
        return true;
    case SL_OPT_TOP_P:
        o->sampler.top_p = sl_opt_f64(state, "top-p", arg, 0, 1);
        o->given |= SL_SAMPLING_TOP_P;
        return true;
    case SL_OPT_REPETITION_PENALTY:
        o->penalty = sl_opt_f64(state, "repetition-penalty", arg, 0.01, 100);
        o->given |= SL_SAMPLING_PENALTY;
        return true;
    case SL_OPT_SEED:
        o->seed = sl_opt_u64(state, "seed", arg, 1, UINT64_MAX);
        return true;
    default:
        return false;
    }
}

struct sl_sampler_config
sl_sampling_sampler(const struct sl_sampling_options *o)
{
    struct sl_sampler_config s = o->sampler;

    /* less than the sampler divides by without overflow */
    if (s.temperature < 1e-4) {
        s.temperature = 1;
        s.top_k = 1;
    }
    return s;
}

void sl_sampling_settle(struct sl_sampling_options *o,
                        const struct sl_sampling *by)
{
    unsigned open = by->given & ~o->given;

    if (open & SL_SAMPLING_TEMPERATURE)
        o->sampler.temperature = by->temperature;
    if (open & SL_SAMPLING_TOP_K)
        o->sampler.top_k = by->top_k;
    if (open & SL_SAMPLING_TOP_P)
        o->sampler.top_p = by->top_p;
    if (open & SL_SAMPLING_PENALTY)
        o->penalty = by->penalty;
    o->given |= open;
}
