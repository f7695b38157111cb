#include "config.h"

#include <errno.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "src/base/newfile.h"
#include "src/base/outfile.h"
#include "src/probe/survey.h"
#include "src/probe/survey_impl.h"

#define AHEAD_MOST (1 << 20)

char *sl_survey_path(const char *cache_folder)
{
    char *path;

    if (asprintf(&path, "%s/sluice/probe.json", cache_folder) < 0)
        return NULL;
    return path;
}

static bool text_is(const json_t *object, const char *key, const char *text)
{
    const char *v = json_string_value(json_object_get(object, key));

    return v != NULL && strcmp(v, text) == 0;
}

static bool number_is(const json_t *object, const char *key, uint64_t v)
{
    const json_t *n = json_object_get(object, key);

    return json_is_integer(n) && json_integer_value(n) == (json_int_t)v;
}

/* Seconds since it was measured; a clock that went back makes it old too. */
static bool fresh(const json_t *object, double *age_s)
{
    const json_t *at = json_object_get(object, "measured");

    *age_s = (double)time(NULL) - json_number_value(at);
    return json_is_number(at) && *age_s >= 0 && *age_s < SL_SURVEY_MAX_AGE_S;
}

void sl_survey_load(json_t **survey, const char *path,
                    const struct sl_machine *m)
{
    json_t *root = json_load_file(path, 0, NULL);
    const json_t *machine = json_object_get(root, "machine");
    double age;

    *survey = NULL;
    if (number_is(root, "version", SL_SURVEY_VERSION) &&
        text_is(machine, "cpu", m->cpu) &&
        text_is(machine, "kernel", m->kernel) &&
        text_is(machine, "boot_id", m->boot_id) &&
        number_is(machine, "cpus", m->n_cpus) && fresh(root, &age) &&
        json_is_object(json_object_get(root, "disks")))
        *survey = root;
    else
        json_decref(root);
}

int sl_survey_store(const json_t *survey, const char *path,
                    struct sl_error *err)
{
    char *folder = strdup(path);
    struct sl_newfile to;
    int rc = -1;

    if (folder == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory for a path");
    if (sl_outfile_folder(dirname(folder), err) == 0 &&
        sl_newfile_open(&to, path, err) == 0) {
        json_dumpf(survey, to.file, JSON_INDENT(1) | JSON_REAL_PRECISION(6));
        rc = sl_newfile_close(&to, err);
    }
    free(folder);
    return rc;
}

const json_t *sl_survey_find_disk(const json_t *survey, const char *path)
{
    const json_t *disk;
    struct stat st;
    char key[32];
    double age;

    if (stat(path, &st) != 0)
        return NULL;
    sl_survey_disk_key(key, &st);
    disk = json_object_get(json_object_get(survey, "disks"), key);
    return fresh(disk, &age) ? disk : NULL;
}

static double dram_rate(const json_t *survey, unsigned threads)
{
    const json_t *list = json_object_get(survey, "dram");

    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *v = json_array_get(list, i);

        if (number_is(v, "threads", threads))
            return json_number_value(json_object_get(v, "bytes_per_s"));
    }
    return 0;
}

/* 0 where nobody measured exactly this: rates of formats, inputs and
 * instruction sets differ by several times, so that a near one is none. */
static double ops_rate(const json_t *survey, const struct sl_survey_query *q)
{
    const json_t *list = json_object_get(survey, "operations");

    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *v = json_array_get(list, i);

        if (number_is(v, "threads", q->threads) && text_is(v, "isa", q->isa) &&
            text_is(v, "format", sl_fmt_name(q->fmt)) &&
            text_is(v, "activations", sl_act_name(q->act)) &&
            /* with FP32 inputs scales cost next to nothing */
            (q->act == SL_ACT_F32 || number_is(v, "group", q->group_cols)))
            return json_number_value(json_object_get(v, "operations_per_s"));
    }
    return 0;
}

static double attention_rate(const json_t *survey,
                             const struct sl_survey_query *q)
{
    const json_t *list = json_object_get(survey, "attention");

    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *v = json_array_get(list, i);

        if (number_is(v, "threads", q->threads) && text_is(v, "isa", q->isa))
            return json_number_value(json_object_get(v, "operations_per_s"));
    }
    return 0;
}

struct sl_reading sl_survey_reading(const json_t *survey, const char *isa,
                                    unsigned threads)
{
    const json_t *list = json_object_get(survey, "reading");

    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *v = json_array_get(list, i);
        json_int_t places = json_integer_value(json_object_get(v, "places"));
        json_int_t ahead =
            json_integer_value(json_object_get(v, "ahead_bytes"));

        if (number_is(v, "threads", threads) && text_is(v, "isa", isa) &&
            places > 0 && places <= SL_PLACES_MOST && ahead > 0 &&
            ahead <= AHEAD_MOST)
            return (struct sl_reading){(uint32_t)places, (uint32_t)ahead};
    }
    return sl_reading_default;
}

bool sl_survey_rates(struct sl_rates *rates, double *age_s,
                     const json_t *survey, const struct sl_survey_query *q)
{
    const json_t *disk = sl_survey_find_disk(survey, q->path);
    double disk_age;

    if (disk == NULL || !fresh(disk, &disk_age) || !fresh(survey, age_s))
        return false;
    *age_s = disk_age > *age_s ? disk_age : *age_s;
    rates->disk_bps = json_number_value(json_object_get(disk, "bytes_per_s"));
    rates->dram_bps = dram_rate(survey, q->threads);
    rates->worker[SL_HOST].ops_per_s = ops_rate(survey, q);
    rates->worker[SL_HOST].attention_ops_per_s = attention_rate(survey, q);
    return rates->disk_bps > 0 && rates->dram_bps > 0 &&
           rates->worker[SL_HOST].ops_per_s > 0 &&
           rates->worker[SL_HOST].attention_ops_per_s > 0;
}
