#include "config.h"

#include <stddef.h>

#include "src/arch/sampling.h"
#include "src/arch/settings.h"

static const struct {
    const char *key; /* of generation_config.json */
    unsigned bit;
    size_t at;
    double min, max;
} numbers[] = {
    {"temperature", SL_SAMPLING_TEMPERATURE,
     offsetof(struct sl_sampling, temperature), 1e-4, 1e4},
    {"top_p", SL_SAMPLING_TOP_P, offsetof(struct sl_sampling, top_p), 0, 1},
    {"repetition_penalty", SL_SAMPLING_PENALTY,
     offsetof(struct sl_sampling, penalty), 0.01, 100},
};
enum { N_NUMBERS = sizeof numbers / sizeof *numbers };

int sl_sampling_check(const struct sl_sampling *s, struct sl_error *err)
{
    for (size_t i = 0; i < N_NUMBERS; i++) {
        double v = *(const double *)((const char *)s + numbers[i].at);

        if ((s->given & numbers[i].bit) != 0 &&
            !(v >= numbers[i].min && v <= numbers[i].max))
            return sl_fail(err, SL_ERR_CORRUPT,
                           "%s is %g; %g to %g are possible", numbers[i].key, v,
                           numbers[i].min, numbers[i].max);
    }
    return 0;
}

static void take_likeliest(struct sl_sampling *to)
{
    to->top_k = 1;
    to->given |= SL_SAMPLING_TOP_K;
}

/* 0 stands for all ids. */
static int read_top_k(struct sl_sampling *to, const struct sl_settings *s,
                      struct sl_error *err)
{
    double k = 0;

    if (!sl_settings_has(s, "top_k"))
        return 0;
    /* -1 is off to some who write these files. */
    if (sl_settings_f64(&k, s, "top_k", SL_SETTING_OPTIONAL, err) != 0 ||
        (k != -1 &&
         sl_settings_u32(&to->top_k, s, "top_k", SL_SETTING_OPTIONAL, err)))
        return -1;
    to->given |= SL_SAMPLING_TOP_K;
    return 0;
}

int sl_sampling_configure(struct sl_sampling *to, const struct sl_settings *s,
                          struct sl_error *err)
{
    struct sl_sampling made = {0};
    bool samples = true;

    if (sl_settings_bool(&samples, s, "do_sample", SL_SETTING_OPTIONAL, err) ||
        read_top_k(&made, s, err))
        return -1;
    for (size_t i = 0; i < N_NUMBERS; i++) {
        double *v = (double *)((char *)&made + numbers[i].at);

        if (sl_settings_f64(v, s, numbers[i].key, SL_SETTING_OPTIONAL, err))
            return -1;
        if (sl_settings_has(s, numbers[i].key))
            made.given |= numbers[i].bit;
    }
    if ((made.given & SL_SAMPLING_TEMPERATURE) != 0 && made.temperature == 0) {
        made.given &= ~(unsigned)SL_SAMPLING_TEMPERATURE;
        samples = false;
    }
    if (!samples)
        take_likeliest(&made);
    if (sl_sampling_check(&made, err) != 0) {
        sl_error_prefix(err, "%s: ", sl_settings_file(s));
        return -1;
    }
    *to = made;
    return 0;
}
