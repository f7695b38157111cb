#include "config.h"

#include <stdlib.h>

#include "src/cmd/folders.h"
#include "src/cmd/rates_kept.h"
#include "src/probe/survey.h"

/* What its mirror's disk gives on top. */
static bool add_mirror(struct sl_rates *rates, double *age_s,
                       const json_t *survey, const struct sl_survey_query *of,
                       const struct sl_mirror *mirror)
{
    struct sl_survey_query q = *of;
    struct sl_rates second;
    double age;

    if (mirror == NULL)
        return true;
    q.path = sl_mirror_path(mirror, 1);
    if (!sl_survey_rates(&second, &age, survey, &q))
        return false;
    rates->mirror_bps = second.disk_bps;
    rates->disk_bps += second.disk_bps;
    *age_s = age > *age_s ? age : *age_s;
    return true;
}

/* What is kept of this machine: moved to the caller, or NULL. */
static json_t *load(void)
{
    char *folder = sl_cache_folder();
    char *file = folder != NULL ? sl_survey_path(folder) : NULL;
    json_t *survey = NULL;
    struct sl_machine m;

    sl_machine_get(&m);
    if (file != NULL)
        sl_survey_load(&survey, file, &m);
    free(file);
    free(folder);
    return survey;
}

struct sl_reading sl_reading_kept(const struct sl_runtime_config *config)
{
    unsigned threads = config->threads > 0 ? config->threads : sl_pool_cpus();
    enum sl_isa isa = sl_cpu_best_isa();
    json_t *survey = load();
    struct sl_reading kept;
    struct sl_kernels k;

    if (config->max_isa_set && (enum sl_isa)config->max_isa < isa)
        isa = (enum sl_isa)config->max_isa;
    sl_kernels_init(&k, isa);
    kept = sl_survey_reading(survey, k.isa, threads);
    json_decref(survey);
    return kept;
}

bool sl_rates_kept(struct sl_rates *rates, double *age_s,
                   const struct sl_runtime *rt)
{
    struct sl_survey_query q = {
        .path = sl_runtime_modelfile(rt)->path,
        .threads = sl_pool_threads(sl_runtime_pool(rt)),
        .isa = sl_runtime_isa(rt),
    };
    json_t *survey = load();
    bool found;

    *rates = (struct sl_rates){0}; /* a GPU's are not kept */
    sl_runtime_arithmetic(rt, &q.fmt, &q.group_cols, &q.act);
    found =
        sl_survey_rates(rates, age_s, survey, &q) &&
        add_mirror(rates, age_s, survey, &q, sl_runtime_modelfile(rt)->mirror);
    json_decref(survey);
    return found;
}
