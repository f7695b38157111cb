#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "src/arch/settings.h"
#include "src/convert/convert_impl.h"

/* Which architecture a checkpoint is, and its sizes: from a Hugging Face
 * config.json, else from what SAT's says, flags and shapes. */

/* --- Hugging Face -------------------------------------------------------- */

/* A file of settings beside the checkpoint; *s is NULL where there is none. */
static int read_file(struct sl_settings **s, const struct sl_convert *cv,
                     const char *name, struct sl_error *err)
{
    uint8_t *data;
    size_t n;
    int rc;

    *s = NULL;
    rc = sl_ckpt_read_file(&cv->ckpt, name, &data, &n, err);
    if (rc != 0)
        return rc < 0 ? -1 : 0;
    rc = sl_settings_parse(s, (const char *)data, n, name, err);
    free(data);
    return rc;
}

/* A config.json that names an architecture. */
static int read_settings(struct sl_settings **s, const struct sl_convert *cv,
                         struct sl_error *err)
{
    int rc = read_file(s, cv, "config.json", err);

    if (rc != 0 || *s == NULL)
        return rc;
    if (sl_settings_architecture(*s)[0] != '\0' ||
        sl_settings_model_type(*s)[0] != '\0')
        return 0;
    sl_settings_close(*s);
    *s = NULL;
    return 0;
}

/* What was said on the command line goes first. */
static void overlay_flags(struct sl_convert *cv)
{
    struct sl_config config;

    sl_config_init(&config);
    config.hp = cv->hp;
    sl_config_overlay(&config, &cv->o->flags);
    cv->hp = config.hp;
}

static int take_settings(struct sl_convert *cv, const struct sl_settings *s,
                         struct sl_error *err)
{
    struct sl_config none;

    sl_config_init(&none);
    cv->hp = (struct sl_hparams){.text = none.hp.text};
    if (sl_settings_check_quantised(s, err) != 0 ||
        sl_arch_of_settings(&cv->arch, s, err) != 0 ||
        cv->arch->configure(&cv->hp, s, err) != 0)
        return -1;
    overlay_flags(cv);
    sl_arch_derive(cv->arch, &cv->hp);
    if (sl_hparams_check(&cv->hp, err) == 0)
        return 0;
    sl_error_prefix(err, "config.json: ");
    return -1;
}

/* --- SAT ----------------------------------------------------------------- */

/* Without a config.json the tensors tell. */
static const struct sl_arch *arch_by_tensors(const struct sl_ckpt *c)
{
    const struct sl_arch *arch;

    for (size_t i = 0; (arch = sl_arch_at(i)) != NULL; i++) {
        for (size_t m = 0; arch->marks != NULL && arch->marks[m] != NULL; m++) {
            if (sl_ckpt_find(c, 0, arch->marks[m]) != NULL)
                return arch;
        }
    }
    return NULL;
}

/* The shards of GLM-130B bring no file that says what they are, but their
 * embedding does. */
static bool looks_like_preset(const struct sl_convert *cv,
                              const struct sl_hparams *preset)
{
    const struct sl_ckpt_tensor *t =
        sl_ckpt_find(&cv->ckpt, 0, "transformer.word_embeddings.weight");

    return t != NULL && t->n_dims == 2 && t->shape[1] == preset->hidden &&
           t->shape[0] * cv->ckpt.n_shards == preset->vocab;
}

/* config.json, else SAT's model_config.json; says nothing when neither is
 * there. */
static int read_config(struct sl_config *config, const struct sl_convert *cv,
                       struct sl_error *err)
{
    static const char *const names[] = {"config.json", "model_config.json"};

    sl_config_init(config);
    for (size_t i = 0; i < 2; i++) {
        uint8_t *data;
        size_t n;
        int rc = sl_ckpt_read_file(&cv->ckpt, names[i], &data, &n, err);

        if (rc > 0)
            continue;
        if (rc < 0)
            return -1;
        rc = sl_config_parse(config, (const char *)data, n, names[i], err);
        free(data);
        return rc;
    }
    return 0;
}

/* GLM-130B's published sizes where the shape is its own. */
static void take_preset(struct sl_config *config, const struct sl_convert *cv)
{
    struct sl_config preset;
    struct sl_error ignored;

    if (config->given != 0 || cv->arch != &sl_arch_glm130b ||
        sl_config_preset(&preset, "glm-130b", &ignored) != 0 ||
        !looks_like_preset(cv, &preset.hp))
        return;
    *config = preset;
    sl_log(cv->o->log, SL_LOG_INFO,
           "there is no config.json; the embedding has GLM-130B's shape: "
           "taking --preset glm-130b");
}

static int find_sat(struct sl_convert *cv, struct sl_error *err)
{
    const struct sl_convert_options *o = cv->o;
    struct sl_config config;

    cv->arch = arch_by_tensors(&cv->ckpt);
    if (cv->arch == NULL)
        return sl_fail(err, SL_ERR_UNSUPPORTED,
                       "%s: there is no config.json that names an "
                       "architecture, and no tensor that tells GLM-130B, GLM "
                       "or ChatGLM-6B (the first of %zu is %s)",
                       o->source, cv->ckpt.shards[0].n_tensors,
                       cv->ckpt.shards[0].n_tensors > 0
                           ? cv->ckpt.shards[0].tensors[0].name
                           : "missing");
    if (o->preset != NULL) {
        if (sl_config_preset(&config, o->preset, err) != 0)
            return -1;
    } else {
        if (read_config(&config, cv, err) != 0)
            return -1;
        take_preset(&config, cv);
    }
    sl_config_overlay(&config, &o->flags);
    sl_convert_take_shapes(&config, cv->arch, &cv->ckpt);
    return sl_config_finish(&cv->hp, cv->arch, &config, err);
}

/* How its publisher has it sample. */
static int find_sampling(struct sl_convert *cv, struct sl_error *err)
{
    struct sl_settings *s;
    int rc = read_file(&s, cv, "generation_config.json", err);

    if (rc == 0 && s != NULL)
        rc = sl_sampling_configure(&cv->hp.sampling, s, err);
    sl_settings_close(s);
    return rc;
}

int sl_convert_find_model(struct sl_convert *cv, struct sl_error *err)
{
    struct sl_settings *s = NULL;
    int rc;

    if (cv->o->preset == NULL && read_settings(&s, cv, err) != 0)
        return -1;
    rc = s != NULL ? take_settings(cv, s, err) : find_sat(cv, err);
    sl_settings_close(s);
    return rc != 0 ? rc : find_sampling(cv, err);
}

int sl_convert_describe(const struct sl_arch **arch, struct sl_hparams *hp,
                        const struct sl_ckpt *c,
                        const struct sl_convert_options *o,
                        struct sl_error *err)
{
    struct sl_convert cv = {.o = o, .ckpt = *c}; /* which is only read */

    if (sl_convert_find_model(&cv, err) != 0)
        return -1;
    *arch = cv.arch;
    *hp = cv.hp;
    return 0;
}
