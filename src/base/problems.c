#include "config.h"

#include "src/base/problems.h"

int sl_problem(struct sl_problems *p, const struct sl_error *err)
{
    if (err->code != SL_ERR_CORRUPT && err->code != SL_ERR_UNSUPPORTED &&
        err->code != SL_ERR_USAGE)
        return -1;
    p->n++;
    if (p->n == 1)
        p->first = *err;
    if (p->n == 2)
        sl_log(p->log, SL_LOG_WARN, "%s", p->first.msg);
    if (p->n > 1 && p->n <= SL_PROBLEMS_NAMED)
        sl_log(p->log, SL_LOG_WARN, "%s", err->msg);
    if (p->n == SL_PROBLEMS_NAMED + 1)
        sl_log(p->log, SL_LOG_WARN, "and more of the kind");
    return 0;
}

int sl_problems_end(const struct sl_problems *p, const char *what,
                    struct sl_error *err)
{
    if (p->n == 0)
        return 0;
    if (p->n == 1) {
        if (err != NULL)
            *err = p->first;
        return -1;
    }
    return sl_fail(err, p->first.code, "%s: %zu problems; the first: %s", what,
                   p->n, p->first.msg);
}
