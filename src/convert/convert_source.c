#include "config.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "src/convert/convert_impl.h"
#include "src/convert/fit.h"

/* Every tensor of the architecture, put together from the shards. */
static int find_tensors(struct sl_convert *cv, struct sl_error *err)
{
    struct sl_tensor_spec spec;
    uint32_t n = 0;

    while (sl_arch_tensor(cv->arch, &spec, &cv->hp, n)) {
        n++;
        if (spec.role == SL_ROLE_VECTOR)
            cv->n_small++;
        else
            cv->n_matrices++;
    }
    cv->small = sl_zalloc_array(cv->n_small, sizeof *cv->small);
    cv->matrices = sl_zalloc_array(cv->n_matrices, sizeof *cv->matrices);
    if (cv->small == NULL || cv->matrices == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory for a list of %u tensors",
                       n);
    /* The architecture lists vectors before matrices. */
    for (uint32_t i = 0; i < n; i++) {
        struct sl_merge *m = i < cv->n_small
                                 ? &cv->small[i]
                                 : &cv->matrices[i - cv->n_small].merge;

        sl_arch_tensor(cv->arch, &spec, &cv->hp, i);
        if (sl_merge_init(m, &cv->ckpt, &spec, err) != 0)
            return -1;
    }
    return 0;
}

/* All that is wrong is told at once, before anything is put together. */
static int check_fit(const struct sl_convert *cv, struct sl_error *err)
{
    struct sl_fit fit;
    int rc;

    if (sl_fit_check(&fit, &cv->ckpt, cv->arch, &cv->hp, err) != 0)
        return -1;
    rc = sl_fit_report(&fit, cv->o->source, cv->o->log, err);
    sl_fit_fini(&fit);
    return rc;
}

/* Cuts a name where an extension or ".tar.part_..." begins. */
static void cut_tail(char *name)
{
    char *tar = strstr(name, ".tar"), *dot = strrchr(name, '.');

    if (tar != NULL && tar > name)
        *tar = '\0';
    else if (dot != NULL && dot > name)
        *dot = '\0';
}

/* What a person would call the folder: its own name; of a download cache,
 * models--OWNER--NAME/snapshots/REVISION, the model's. */
static const char *folder_name(char *path)
{
    char *last = strrchr(path, '/'), *model;
    const char *mark;

    if (last == NULL)
        return path;
    mark = "/snapshots";
    if ((size_t)(last - path) > strlen(mark) &&
        strncmp(last - strlen(mark), mark, strlen(mark)) == 0) {
        last[-(ptrdiff_t)strlen(mark)] = '\0';
        model = strrchr(path, '/');
        model = model != NULL ? model + 1 : path;
        while (strstr(model, "--") != NULL)
            model = strstr(model, "--") + 2;
        return model;
    }
    return last + 1;
}

/* Of a file that has the name all such files have, the folder's. */
static bool is_plain(const char *name)
{
    return strcmp(name, "model") == 0 || strcmp(name, "pytorch_model") == 0;
}

/* The folder that holds a file, or the folder itself; moved to the caller,
 * NULL when it cannot be told. A file is not followed where it is a link: its
 * own name is the one that people know. */
static char *whole_folder(const char *source, bool is_file)
{
    const char *slash = strrchr(source, '/');
    char *above, *folder;

    if (!is_file)
        return realpath(source, NULL);
    if (slash == NULL)
        return realpath(".", NULL);
    above = strndup(source, (size_t)(slash - source) + (slash == source));
    folder = above != NULL ? realpath(above, NULL) : NULL;
    free(above);
    return folder;
}

static int find_name(struct sl_convert *cv, struct sl_error *err)
{
    const char *source = cv->o->source, *slash = strrchr(source, '/');
    const char *name = "";
    char *file, *folder;
    struct stat st;

    if (stat(source, &st) != 0)
        return sl_fail_os(err, errno, "%s: cannot open the checkpoint", source);
    file = strdup(slash != NULL ? slash + 1 : source);
    folder = whole_folder(source, !S_ISDIR(st.st_mode));
    if (file != NULL)
        cut_tail(file);
    if (cv->o->name != NULL)
        name = cv->o->name;
    else if (file != NULL && !S_ISDIR(st.st_mode) && !is_plain(file))
        name = file;
    else if (folder != NULL)
        name = folder_name(folder);
    cv->name = strdup(*name != '\0' ? name : "model");
    free(file);
    free(folder);
    if (cv->name == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory for a name");
    return 0;
}

int sl_convert_source_open(struct sl_convert *cv, struct sl_error *err)
{
    if (find_name(cv, err) != 0)
        return -1;
    if (sl_ckpt_open(&cv->ckpt, cv->o->source, cv->o->log, err) != 0)
        return -1;
    if (cv->o->trust_source)
        sl_ckpt_trust(&cv->ckpt);
    if (sl_convert_find_model(cv, err) != 0 || check_fit(cv, err) != 0 ||
        find_tensors(cv, err) != 0 || sl_convert_find_adapters(cv, err) != 0)
        return -1;
    return sl_convert_find_text(cv, err);
}
