#include "config.h"

#include <sys/stat.h>

#include "src/base/paths.h"
#include "src/convert/convert_impl.h"

/* What lies in the checkpoint's folder, by what it is called; then what was
 * opened, whatever it is called. */
int sl_convert_check_paths(const struct sl_convert *cv, struct sl_error *err)
{
    const char *const written[] = {cv->output, cv->partial, cv->journal};
    struct sl_paths p = {0};
    struct stat st;

    sl_paths_read(&p, "SOURCE", cv->o->source);
    if (p.n > 0)
        p.use[0].beside = true;
    sl_paths_read(&p, "--tokenizer", cv->o->tokenizer);
    for (size_t i = 0; i < cv->o->n_lora; i++)
        sl_paths_read(&p, "--lora", cv->o->lora[i].path);
    for (size_t i = 0; i < 3; i++)
        sl_paths_write(&p, "--output", written[i]);
    if (sl_paths_end(&p, err) != 0)
        return -1;
    for (size_t i = 0; i < 3; i++)
        if (stat(written[i], &st) == 0 && sl_ckpt_is(&cv->ckpt, &st))
            return sl_fail(err, SL_ERR_USAGE,
                           "%s is a file of the checkpoint, which would be "
                           "replaced: give another -o",
                           written[i]);
    return 0;
}
