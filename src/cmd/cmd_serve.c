#include "config.h"

#include <malloc.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "src/base/clock.h"
#include "src/cmd/opts_run.h"

#ifdef HAVE_HTTP
#include "src/cmd/opts_draft.h"
#include "src/cmd/rates_kept.h"
#include "src/cmd/stop.h"
#include "src/serve/server.h"

enum {
    OPT_HOST = 0x300,
    OPT_PORT,
    OPT_KEY_FILE,
    OPT_NO_AUTH,
    OPT_CORS,
    OPT_ALLOW_HOST,
    OPT_TLS_CERT,
    OPT_TLS_KEY,
    OPT_LOG,
    OPT_LOG_JSON,
    OPT_LOG_TEXT,
    OPT_TEMPLATE,
    OPT_NAME,
    OPT_PARALLEL,
    OPT_MAX_TOKENS,
    OPT_MOST_TOKENS,
    OPT_QUEUE,
    OPT_MAX_BODY,
    OPT_MAX_HEADER,
    OPT_CONNECTIONS,
    OPT_PER_ADDRESS,
    OPT_PER_KEY,
    OPT_IDLE,
    OPT_DRAIN,
    OPT_PROGRESS,
    OPT_LINGER,
    OPT_KEEP_BYTES,
    OPT_KEEP_SECONDS,
    OPT_OPENAPI,
    OPT_KEEP_PROMPTS,
    OPT_PROMPTS_BYTES,
};

static const struct argp_option options[] = {
    {"host", OPT_HOST, "ADDRESS", 0,
     "Listen at this address (default: 127.0.0.1); one that other machines "
     "reach needs --api-key-file or --no-auth",
     1},
    {"port", OPT_PORT, "N", 0,
     "Listen at this port; 0 takes one that is free (default: 8000)", 1},
    {"name", OPT_NAME, "NAME", 0,
     "What the model is called (default: the model file's own name)", 1},
    {"template", OPT_TEMPLATE, "NAME", 0,
     "Put messages into the words of another model (default: the model's own)",
     1},
    {"ctx", 'c', "N", 0,
     "Most tokens of a text, answer included (default: 4096, or what the model "
     "was trained for, or what a cache of 1 GiB holds)",
     2},
    {"parallel", OPT_PARALLEL, "N", 0,
     "Most texts that share a pass over the weights (default: 8, or as many as "
     "have room in caches of 2 GiB)",
     2},
    {"max-tokens", OPT_MAX_TOKENS, "N", 0,
     "Most tokens of an answer where a request does not say (default: 256)", 2},
    {"most-tokens", OPT_MOST_TOKENS, "N", 0,
     "Most tokens that a request may ask for (default: --ctx)", 2},
    {"api-key-file", OPT_KEY_FILE, "FILE", 0,
     "Answer those alone who have one of these keys, one a line", 3},
    {"no-auth", OPT_NO_AUTH, 0, 0, "Let everybody in who reaches the address",
     3},
    {"cors", OPT_CORS, "ORIGIN", 0,
     "Let pages of this origin use the server; * means any (default: none)", 3},
    {"allow-host", OPT_ALLOW_HOST, "NAME", 0,
     "A name that the server goes by, beside addresses and localhost; "
     "several times",
     3},
    {"tls-cert", OPT_TLS_CERT, "FILE", 0, "Speak TLS with this certificate", 3},
    {"tls-key", OPT_TLS_KEY, "FILE", 0, "and this key", 3},
    {"max-body", OPT_MAX_BODY, "BYTES", 0,
     "Largest body of a request (default: 4M)", 4},
    {"max-header", OPT_MAX_HEADER, "BYTES", 0,
     "Memory of a connection for what it reads, headers among it (default: "
     "32K)",
     4},
    {"connections", OPT_CONNECTIONS, "N", 0, "Most connections (default: 256)",
     4},
    {"address-connections", OPT_PER_ADDRESS, "N", 0,
     "Most of one address (default: 128)", 4},
    {"key-requests", OPT_PER_KEY, "N", 0,
     "Most requests of one key at a time; 0: any number (default)", 4},
    {"queue", OPT_QUEUE, "N", 0, "Most texts that wait (default: 256)", 4},
    {"idle", OPT_IDLE, "SECONDS", 0,
     "Close connections that bring no whole request for so long; 0: never "
     "(default: 60)",
     4},
    {"drain", OPT_DRAIN, "SECONDS", 0,
     "After SIGTERM let what runs go on for so long (default: 30)", 5},
    {"progress", OPT_PROGRESS, "SECONDS", 0,
     "Send a sign of life after so much silence (default: 5)", 5},
    {"linger", OPT_LINGER, "SECONDS", 0,
     "Go on for so long with what nobody waits for any more (default: 0)", 5},
    {"keep-answers", OPT_KEEP_BYTES, "BYTES", 0,
     "Memory for requests that are read, for answers under way and, in the "
     "rest, for those that may be asked for again (default: 32M)",
     5},
    {"keep-seconds", OPT_KEEP_SECONDS, "SECONDS", 0,
     "How long answers are kept (default: 600)", 5},
    {"keep-prompts", OPT_KEEP_PROMPTS, "DIR", 0,
     "Keep what reading prompts has computed in files there, so that none is "
     "read again, not even after a restart",
     5},
    {"keep-prompts-bytes", OPT_PROMPTS_BYTES, "BYTES", 0,
     "Most that these take of the disk (default: 8G)", 5},
    {"log", OPT_LOG, "FILE", 0,
     "A line for every request; - is standard output", 6},
    {"log-json", OPT_LOG_JSON, 0, 0, "as JSON", 6},
    {"log-text", OPT_LOG_TEXT, 0, 0, "as JSON, with what was asked", 6},
    {"quiet", 'q', 0, 0, "Say nothing but warnings and errors", 6},
    {"openapi", OPT_OPENAPI, 0, 0,
     "Print OpenAPI's description of what can be asked, and serve nothing", 6},
    {0},
};

struct serve {
    struct sl_serve_config c;
    struct sl_device_contexts contexts;
    struct sl_draft_options draft;
    struct sl_drafts drafts;
    struct sl_draft_file file;
};

static uint32_t number(struct argp_state *state, const char *name,
                       const char *arg, uint32_t least, uint32_t most)
{
    return (uint32_t)sl_opt_u64(state, name, arg, least, most);
}

static bool parse_limit(int key, char *arg, struct argp_state *state,
                        struct sl_serve_config *c)
{
    switch (key) {
    case OPT_MAX_BODY:
        c->body_bytes = sl_opt_size(state, "max-body", arg, 1024, 1u << 30);
        return true;
    case OPT_MAX_HEADER:
        c->header_bytes =
            (uint32_t)sl_opt_size(state, "max-header", arg, 4096, 1u << 20);
        return true;
    case OPT_CONNECTIONS:
        c->connections = number(state, "connections", arg, 8, 1u << 20);
        return true;
    case OPT_PER_ADDRESS:
        c->per_address = number(state, "address-connections", arg, 1, 1u << 20);
        return true;
    case OPT_PER_KEY:
        c->per_key = number(state, "key-requests", arg, 0, 1u << 20);
        return true;
    case OPT_QUEUE:
        c->queue = number(state, "queue", arg, 1, 1u << 20);
        return true;
    case OPT_IDLE:
        c->idle_s = number(state, "idle", arg, 0, 1u << 20);
        return true;
    case OPT_DRAIN:
        c->drain_s = number(state, "drain", arg, 0, 1u << 20);
        return true;
    case OPT_PROGRESS:
        c->progress_s = number(state, "progress", arg, 1, 3600);
        return true;
    case OPT_LINGER:
        c->linger_s = number(state, "linger", arg, 0, 1u << 20);
        return true;
    case OPT_KEEP_BYTES:
        c->keep_bytes = sl_opt_size(state, "keep-answers", arg, 0, UINT64_MAX);
        return true;
    case OPT_KEEP_PROMPTS:
        c->run.prompts.dir = arg;
        return true;
    case OPT_PROMPTS_BYTES:
        c->run.prompts.most_bytes =
            sl_opt_size(state, "keep-prompts-bytes", arg, 1, UINT64_MAX);
        return true;
    case OPT_KEEP_SECONDS:
        c->keep_s = number(state, "keep-seconds", arg, 0, 1u << 24);
        return true;
    default:
        return false;
    }
}

static bool parse_access(int key, char *arg, struct argp_state *state,
                         struct sl_serve_config *c)
{
    switch (key) {
    case OPT_HOST:
        c->host = arg;
        return true;
    case OPT_PORT:
        c->port = (uint16_t)number(state, "port", arg, 0, 65535);
        return true;
    case OPT_KEY_FILE:
        c->key_file = arg;
        return true;
    case OPT_NO_AUTH:
        c->no_auth = true;
        return true;
    case OPT_CORS:
        c->cors = arg;
        return true;
    case OPT_ALLOW_HOST:
        if (c->n_hosts == SL_SERVE_MOST_HOSTS)
            argp_error(state, "--allow-host: no more than %d names",
                       SL_SERVE_MOST_HOSTS);
        c->hosts[c->n_hosts++] = arg;
        return true;
    case OPT_TLS_CERT:
        c->tls_cert = arg;
        return true;
    case OPT_TLS_KEY:
        c->tls_key = arg;
        return true;
    case OPT_LOG:
        c->log_file = arg;
        return true;
    case OPT_LOG_JSON:
        c->log_json = true;
        return true;
    case OPT_LOG_TEXT:
        c->log_text = true;
        return true;
    default:
        return parse_limit(key, arg, state, c);
    }
}

static int print_openapi(void)
{
    json_t *o = sl_openapi();
    char *text = o != NULL ? json_dumps(o, JSON_INDENT(1)) : NULL;
    int code = SL_EXIT_OK;
    struct sl_error err;

    if (text == NULL) {
        sl_fail(&err, SL_ERR_NOMEM, "out of memory");
        code = sl_report(&err);
    } else {
        puts(text);
    }
    free(text);
    json_decref(o);
    return sl_finish_stdout(code);
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct serve *o = state->input;
    struct sl_serve_config *c = &o->c;

    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &o->draft;
        state->child_inputs[1] = &c->run;
        return 0;
    case OPT_NAME:
        c->name = arg;
        return 0;
    case OPT_TEMPLATE:
        c->tmpl = arg;
        return 0;
    case 'c':
        c->ctx = number(state, "ctx", arg, 16, 1u << 24);
        return 0;
    case OPT_PARALLEL:
        c->parallel = number(state, "parallel", arg, 1, 1024);
        return 0;
    case OPT_MAX_TOKENS:
        c->max_tokens = number(state, "max-tokens", arg, 1, 1u << 24);
        return 0;
    case OPT_MOST_TOKENS:
        c->most_tokens = number(state, "most-tokens", arg, 1, 1u << 24);
        return 0;
    case 'q':
        c->run.quiet = true;
        return 0;
    case OPT_OPENAPI: /* as --help, whatever else is said */
        exit(print_openapi());
    case ARGP_KEY_END:
        c->run.prompts.rows =
            c->parallel > 0 ? c->parallel : SL_SERVE_USUAL_PARALLEL;
        if ((c->tls_cert == NULL) != (c->tls_key == NULL))
            argp_error(state, "--tls-cert and --tls-key go together");
        if (c->no_auth && c->key_file != NULL)
            argp_error(state, "--no-auth does not go with --api-key-file");
        return 0;
    default:
        return parse_access(key, arg, state, c) ? 0 : ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_child children[] = {
    {&sl_draft_argp, 0, "Guessing ahead:", 7},
    {&sl_run_argp, 0, "Memory, threads and reading:", 8},
    {0},
};

static const struct argp argp = {
    options,
    parse,
    0,
    "Answer requests over HTTP: OpenAI's, Anthropic's and the reference "
    "systems' APIs, and a web page. Requests share every pass over the "
    "weights.",
    children,
    0,
    0,
};

static int check_paths(const struct serve *o, struct sl_error *err)
{
    const struct sl_serve_config *c = &o->c;
    struct sl_paths paths = {0};

    sl_run_paths(&paths, &c->run);
    sl_draft_paths(&paths, &o->draft);
    sl_paths_read(&paths, "--api-key-file", c->key_file);
    sl_paths_read(&paths, "--tls-cert", c->tls_cert);
    sl_paths_read(&paths, "--tls-key", c->tls_key);
    if (c->log_file != NULL && strcmp(c->log_file, "-") != 0)
        sl_paths_write(&paths, "--log", c->log_file);
    return sl_paths_end(&paths, err);
}

static double floor_of(const struct sl_runtime *rt)
{
    struct sl_plan_pass pass = {1, 1, 0};
    struct sl_rates rates;
    double age_s;

    if (!sl_rates_kept(&rates, &age_s, rt))
        return 0;
    return sl_runtime_floor_at(rt, &rates, pass).seconds;
}

static int plan_drafts(void *arg, struct sl_workload *load,
                       struct sl_runtime *rt, struct sl_error *err)
{
    struct serve *o = arg;

    sl_draft_file_close(&o->file);
    o->file = (struct sl_draft_file){.shared = true};
    if (sl_drafts_open(&o->drafts, &o->file, &o->draft, err) != 0)
        return -1;
    sl_drafts_workload(&o->drafts, load);
    return sl_draft_file_plan(&o->file, load, rt, &o->c.run, err);
}

static int start_drafts(void *arg, struct sl_runtime *rt, struct sl_error *err)
{
    struct serve *o = arg;
    struct sl_rates rates;
    double age_s;
    bool kept = o->drafts.n > 0 && sl_rates_kept(&rates, &age_s, rt);

    if (sl_draft_file_start(&o->file, rt, err) != 0)
        return -1;
    sl_drafts_start(&o->drafts, rt, kept ? &rates : NULL, o->c.log);
    return 0;
}

/* True once one of the signals has come, within so many milliseconds. */
static bool signal_came(const sigset_t *set, long ms)
{
    struct timespec t = {ms / 1000, ms % 1000 * 1000000};

    return sigtimedwait(set, NULL, &t) > 0;
}

struct ender {
    const sigset_t *set;
    atomic_bool loaded;
};

/* While the model is opened and loaded, which may take minutes and cannot be
 * asked to stop, there is nothing to end in order. */
static void *end_at_once(void *arg)
{
    struct ender *e = arg;

    while (!atomic_load(&e->loaded)) {
        if (signal_came(e->set, 20))
            _exit(SL_EXIT_OK);
    }
    return NULL;
}

/* Until there is a model to ask. */
static int start(struct sl_server *s, const struct sl_serve_config *c,
                 const sigset_t *set, struct sl_error *err)
{
    struct ender e = {.set = set};
    pthread_t ender;
    char address[320];
    int rc = pthread_create(&ender, NULL, end_at_once, &e);

    if (rc != 0)
        return sl_fail_os(err, rc, "cannot start a thread");
    rc = sl_server_start(s, c, err);
    if (rc == 0) {
        sl_server_address(s, address, sizeof address);
        sl_log(c->log, SL_LOG_INFO, "listening at %s", address);
        rc = sl_server_loaded(s, err);
    }
    atomic_store(&e.loaded, true);
    pthread_join(ender, NULL);
    return rc;
}

/* Until the first signal; what runs may go on until the second. */
static void serve(struct sl_server *s, const struct sl_serve_config *c,
                  const sigset_t *set)
{
    uint64_t until;

    while (!signal_came(set, 1000))
        ;
    sl_server_drain(s);
    sl_log(c->log, SL_LOG_INFO,
           "no new requests; what runs may go on for %u seconds", c->drain_s);
    until = sl_clock_ns() + c->drain_s * 1000000000ull;
    while (!sl_server_is_idle(s) && sl_clock_ns() < until &&
           !signal_came(set, 50))
        ;
}

static int run(int argc, char **argv)
{
    struct sl_log log = {sl_log_stderr, NULL, SL_LOG_INFO};
    struct serve o = {0};
    struct sl_serve_config *c = &o.c;
    struct sl_server s = {0};
    struct sl_error err;
    sigset_t set;
    int code;

    sl_serve_config_init(c);
    code = sl_parse_args(&argp, argc, argv, &o);
    if (code != 0)
        return code;
    if (c->run.quiet)
        log.max = SL_LOG_WARN;
    c->log = c->run.log = &log;
    c->run.contexts = &o.contexts;
    c->floor = floor_of;
    c->drafts = &o.drafts;
    c->plan_drafts = plan_drafts;
    c->start_drafts = start_drafts;
    c->drafts_arg = &o;
    c->run.needs_less =
        "a shorter --ctx, fewer --parallel or --connections and smaller "
        "--keep-answers or --max-body need less";
    /* What bodies and answers had goes back at once, which malloc learns not
     * to do after some large ones. */
    mallopt(M_MMAP_THRESHOLD, 128 << 10);
    mallopt(M_TRIM_THRESHOLD, 1 << 20);
    signal(SIGPIPE, SIG_IGN);
    sl_stop_block(&set);
    if (check_paths(&o, &err) != 0 || start(&s, c, &set, &err) != 0)
        code = sl_report(&err);
    else
        serve(&s, c, &set);
    sl_server_stop(&s);
    sl_draft_file_close(&o.file);
    return sl_finish_stdout(code);
}
#else
static const struct argp argp = {
    .doc = "Answer requests over HTTP. This sluice was built without: "
           "libmicrohttpd was not there (libmicrohttpd-dev).",
};

static int run(int argc, char **argv)
{
    struct sl_error err;

    sl_fail(&err, SL_ERR_UNSUPPORTED,
            "this sluice was built without a server: install "
            "libmicrohttpd-dev, then configure and build it again");
    return sl_report(&err);
}
#endif

const struct sl_command sl_cmd_serve = {
    .name = "serve",
    .summary = "answer requests over HTTP",
    .run = run,
    .argp = &argp,
};
