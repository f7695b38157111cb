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

bool sl_rates_kept(struct sl_rates *rates, double *age_s,
                   const struct sl_runtime *rt)
{
    struct sl_survey_query q = {
        .path = sl_runtime_modelfile(rt)->path,
        .threads = sl_pool_threads(sl_runtime_pool(rt)),
        .isa = sl_runtime_isa(rt),
    };
    char *folder = sl_cache_folder();
    char *file = folder != NULL ? sl_survey_path(folder) : NULL;
    json_t *survey = NULL;
    struct sl_machine m;
    bool found;

    *rates = (struct sl_rates){0}; /* a GPU's are not kept */
    sl_machine_get(&m);
    sl_runtime_arithmetic(rt, &q.fmt, &q.group_cols, &q.act);
    if (file != NULL)
        sl_survey_load(&survey, file, &m);
    found =
        sl_survey_rates(rates, age_s, survey, &q) &&
        add_mirror(rates, age_s, survey, &q, sl_runtime_modelfile(rt)->mirror);
    json_decref(survey);
    free(file);
    free(folder);
    return found;
}
