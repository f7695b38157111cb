#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "src/cmd/folders.h"
#include "src/cmd/survey_here.h"
#include "src/exec/exec_gpu.h"

static int measure_kernels(struct sl_kernel_rates *rates, struct sl_device *dev,
                           struct sl_error *err)
{
    struct sl_cuda *cuda = NULL;
    int rc;

    if (sl_gpu_is_simulated())
        return sl_fail(err, SL_ERR_UNSUPPORTED, "GPUs are simulated here");
    if (sl_gpu_load(&cuda, dev, NULL, err) != 0)
        return -1;
    rc = sl_gpu_measure(rates, cuda, dev, SL_GPU_MEASURED_SIDE,
                        SL_GPU_MEASURED_POSITIONS, err);
    sl_gpu_unload(cuda);
    return rc;
}

/* Enough to be sure of. */
static const struct sl_survey_effort effort = {.kernels = measure_kernels};

static bool has_gpus(const json_t *survey)
{
    return json_array_size(
               json_object_get(json_object_get(survey, "gpu"), "devices")) > 0;
}

/* Measures what is not known; *changed: some of it. That there is no GPU is
 * soon seen, and a driver may have been installed since. */
static int complete(json_t **survey, const char *path, bool force,
                    const struct sl_machine *m, bool *changed,
                    struct sl_error *err)
{
    bool terminal = isatty(STDERR_FILENO) != 0;
    int rc = 0;

    if (*survey != NULL && !force && !has_gpus(*survey)) {
        if (sl_survey_gpus(*survey, &effort, err) != 0)
            return -1;
        *changed = has_gpus(*survey);
    }
    if (*survey != NULL && !force && sl_survey_find_disk(*survey, path) != NULL)
        return 0;
    *changed = true;
    if (terminal)
        fputs("measuring ...", stderr);
    if (*survey == NULL)
        rc = sl_survey_machine(survey, m, &effort, err);
    if (rc == 0)
        rc = sl_survey_disk(*survey, path, &effort, err);
    if (terminal)
        fputs("\r\33[K", stderr);
    return rc;
}

/* What is measured anew with --force keeps the other disks. */
static int begin_again(json_t **survey, const struct sl_machine *m,
                       struct sl_error *err)
{
    json_t *old = *survey;

    *survey = NULL;
    if (sl_survey_machine(survey, m, &effort, err) != 0) {
        json_decref(old);
        return -1;
    }
    if (old != NULL)
        json_object_set(*survey, "disks", json_object_get(old, "disks"));
    json_decref(old);
    return 0;
}

int sl_survey_here(json_t **survey, char **kept, const char *path,
                   const char *mirror, bool force, const struct sl_log *log,
                   struct sl_error *err)
{
    char *folder = sl_cache_folder();
    char *file = folder != NULL ? sl_survey_path(folder) : NULL;
    struct sl_machine m;
    struct sl_error why;
    bool changed = false;
    int rc = 0;

    *survey = NULL;
    *kept = NULL;
    free(folder);
    sl_machine_get(&m);
    if (file != NULL)
        sl_survey_load(survey, file, &m);
    if (force)
        rc = begin_again(survey, &m, err);
    if (rc == 0)
        rc = complete(survey, path, force, &m, &changed, err);
    if (rc == 0 && mirror != NULL)
        rc = complete(survey, mirror, force, &m, &changed, err);
    if (rc == 0 && file != NULL && changed &&
        sl_survey_store(*survey, file, &why) != 0) {
        sl_log(log, SL_LOG_WARN, "nothing is kept: %s", why.msg);
    } else if (rc == 0) {
        *kept = file;
        return 0;
    }
    free(file);
    return rc;
}
