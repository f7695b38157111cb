/* libFuzzer over config.json and the index of a checkpoint's files. */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "src/arch/sampling.h"
#include "src/arch/settings.h"
#include "src/ckpt/ckpt_hf.h"
#include "src/model/config_json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

/* Every getter on keys of every depth: none may touch its output when it
 * fails, and a failure has something to say. */
static void ask(const struct sl_settings *s)
{
    static const char *const keys[] = {
        "hidden_size",
        "num_hidden_layers|num_layers",
        "eos_token_id",
        "rope_parameters.rope_theta|rope_theta",
        "rope_scaling",
        "rope_scaling.rope_type|rope_scaling.type",
        "",
        "a.b.c.d|||x.",
    };
    struct sl_error err = {0};
    struct sl_sampling sampling;

    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        enum sl_setting need = (enum sl_setting)(i % 2);
        const char *text = NULL;
        double x = -7;
        uint32_t v = 7;
        bool yes;

        if (sl_settings_u32(&v, s, keys[i], need, &err) != 0 &&
            (v != 7 || err.msg[0] == '\0'))
            abort();
        if (sl_settings_f64(&x, s, keys[i], need, &err) != 0 && x != -7)
            abort();
        if (sl_settings_string(&text, s, keys[i], need, &err) != 0 &&
            text != NULL)
            abort();
        if (text != NULL && !sl_settings_has(s, keys[i]))
            abort();
        (void)!sl_settings_bool(&yes, s, keys[i], need, &err);
    }
    if (sl_sampling_configure(&sampling, s, &err) == 0 &&
        sl_sampling_check(&sampling, &err) != 0)
        abort();
    (void)!sl_settings_check_quantised(s, &err);
    if (sl_settings_architecture(s) == NULL ||
        sl_settings_model_type(s) == NULL)
        abort();
}

static void read_index(const char *text, size_t n)
{
    struct sl_hf_index x;
    struct sl_error err;

    if (sl_hf_index_parse(&x, text, n, "fuzz", &err) != 0)
        return;
    for (size_t i = 0; i < x.n_files; i++)
        if (strchr(x.files[i], '/') != NULL || x.files[i][0] == '.' ||
            (i > 0 && strcmp(x.files[i - 1], x.files[i]) >= 0))
            abort();
    sl_hf_index_fini(&x);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    const char *text = (const char *)data;
    struct sl_settings *s;
    struct sl_config c;
    struct sl_error err;

    if (sl_settings_parse(&s, text, n, "fuzz", &err) == 0) {
        ask(s);
        sl_settings_close(s);
    }
    (void)!sl_config_parse(&c, text, n, "fuzz", &err);
    read_index(text, n);
    return 0;
}
