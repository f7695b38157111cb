#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "src/base/clock.h"
#include "src/base/json.h"
#include "src/serve/http.h"

/* One line a request, when it is over: nothing of what was said. */
void sl_request_log(struct sl_req *r)
{
    const struct sl_serve_config *c = r->s->c;
    double seconds = (double)(sl_clock_ns() - r->begun_ns) / 1e9;
    time_t now = time(NULL);
    char when[32];
    struct tm tm;
    json_t *o;
    char *line;

    if (r->s->log == NULL)
        return;
    gmtime_r(&now, &tm);
    strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", &tm);
    o = json_pack("{s:s, s:o, s:s, s:o, s:o, s:i, s:I, s:I, s:f}", "time", when,
                  "id", sl_json_text(r->id), "peer", r->peer, "method",
                  sl_json_text(r->method), "path", sl_json_text(r->path),
                  "status", r->gone ? 499 : r->status, "in",
                  (json_int_t)r->n_body, "out", (json_int_t)r->sent, "seconds",
                  seconds);
    if (o == NULL)
        return;
    if (c->log_text)
        json_object_set_new(
            o, "body",
            sl_json_textn(sl_str_text(&r->body_text), r->body_text.n));
    o = sl_json_versioned(o);
    if (c->log_json || c->log_text)
        line = json_dumps(o, JSON_COMPACT | JSON_REAL_PRECISION(6));
    else if (asprintf(&line, "%s %s %s %s %s %d %zu %zu %.3f", when, r->id,
                      r->peer, r->method, r->path, r->gone ? 499 : r->status,
                      r->n_body, r->sent, seconds) < 0)
        line = NULL;
    if (line != NULL) {
        sl_error_tame(line); /* a path may ask for line ends */
        fprintf(r->s->log, "%s\n", line);
    }
    fflush(r->s->log);
    free(line);
    json_decref(o);
}
