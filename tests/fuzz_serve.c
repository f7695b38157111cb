/* libFuzzer over what clients send: the first byte chooses a route and what
 * kind of model is asked, the rest is the body; a first byte of 255 is a path
 * to be looked for. Nothing is listened to and nothing computed: a request is
 * refused, answered, or becomes a job that waits, whose texts must fit. */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "src/base/bytes.h"
#include "src/serve/api.h"
#include "src/serve/room.h"
#include "src/text/vocab_compile.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerInitialize(int *argc, char ***argv);

enum { CTX = 64, ROWS = 320 };

/* A model of either kind, and the server that has it. */
struct model {
    struct sl_server s;
    struct sl_serve_config c;
};

/* libFuzzer's functions have no argument for it. */
static struct model models[2];

/* 256 ranks, each a byte; GLM-4's special tokens come behind. */
static int read_ranks(void *opaque, const char *name, uint8_t **data, size_t *n,
                      struct sl_error *err)
{
    static const char digits[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t at = 0;
    char *text;

    (void)opaque;
    if (strcmp(name, "tokenizer.model") != 0)
        return 1;
    text = malloc(256 * 16);
    if (text == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory");
    for (unsigned i = 0; i < 256; i++)
        at += (size_t)sprintf(text + at, "%c%c== %u\n", digits[i >> 2],
                              digits[(i & 3) << 4], i);
    *data = (uint8_t *)text;
    *n = at;
    return 0;
}

static void open_model(struct model *m, bool causal)
{
    struct sl_vocab_source source = {read_ranks, NULL};
    struct sl_vocab_options o = {.family = SL_FAMILY_GLM4};
    struct sl_server *s = &m->s;
    struct sl_chat_words words;
    struct sl_chat_vocab vocab;
    struct sl_vocab_made made;
    struct sl_error err;

    sl_serve_config_init(&m->c);
    m->c.body_bytes = 1 << 20;
    *s = (struct sl_server){.c = &m->c, .state = SL_SERVE_READY, .ctx = CTX};
    s->parallel = 4;
    s->part_positions = CTX;
    pthread_mutex_init(&s->lock, NULL);
    pthread_mutex_init(&s->text_lock, NULL);
    pthread_mutex_init(&s->large_lock, NULL);
    pthread_cond_init(&s->work, NULL);
    if (sl_vocab_compile(&made, &source, &o, &err) != 0 ||
        sl_vocab_made_check(&made, ROWS, NULL, &err) != 0 ||
        sl_tokenizer_create(&s->tokenizer, made.blob, made.n, &made.text, ROWS,
                            &err) != 0) {
        fprintf(stderr, "%s\n", err.msg);
        abort();
    }
    s->hp = (struct sl_hparams){
        .vocab = ROWS,
        .causal = causal,
        .max_positions = CTX,
        .text = made.text,
    };
    s->text_cost = sl_tokenizer_cost(s->tokenizer);
    snprintf(s->model, sizeof s->model, "fuzzed");
    s->arch_name = s->arch_what = "none";
    words = (struct sl_chat_words){s->tokenizer, &s->hp.text.special};
    vocab = sl_chat_vocab_of(&words);
    s->tmpl = sl_chat_find(causal ? "glm4" : NULL, "none", "", &vocab);
    s->sampling = (struct sl_sampling){.temperature = 1, .penalty = 1};
    sl_vocab_made_fini(&made);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    open_model(&models[0], true);
    open_model(&models[1], false);
    return 0;
}

static void must(bool holds)
{
    if (!holds)
        abort();
}

static void check_ids(const struct sl_ids *ids, bool may_end)
{
    for (size_t i = 0; i < ids->n; i++)
        must((ids->v[i] >= 0 && ids->v[i] < ROWS) ||
             (may_end && ids->v[i] == SL_PROMPT_END));
}

static void check_job(const struct sl_job *job)
{
    must(job->n > 0);
    for (size_t i = 0; i < job->n; i++) {
        const struct sl_gen *g = &job->choices[i].gen;
        size_t n = g->fill ? g->prompt.ids.n + 1 : g->ids.n;

        check_ids(&g->ids, false);
        check_ids(&g->prompt.ids, true);
        must(n > 0 && n + g->max_new <= CTX);
        must(g->rules.n_top <= (int)SL_MOST_TOP);
        must(g->sampler.temperature > 0 && g->sampler.top_p >= 0);
    }
}

/* An answer at once goes to no connection, and is let go. */
static void ask(struct sl_server *s, const struct sl_route *route,
                const uint8_t *data, size_t n)
{
    struct sl_req r = {.s = s, .route = route, .method = route->method};
    struct sl_refusal why = {0};
    struct sl_error err;
    char path[] = "/some/where/else";

    r.path = path;
    r.argument = "else";
    r.key = r.n_logprobs = -1;
    must(sl_str_append(&r.body_text, (const char *)data, n, &err) == 0);
    if (route->handle(&r, &why) != 0 && !r.answered)
        must(why.status == 0 || (why.status >= 400 && why.status <= 503));
    sl_req_end_reading(&r);
    pthread_mutex_lock(&s->lock);
    for (struct sl_job *job = s->jobs; job != NULL; job = job->after) {
        check_job(job);
        sl_job_cancel(job);
    }
    if (r.job != NULL)
        sl_job_leave(r.job);
    sl_jobs_drop_all(s);
    sl_room_give(s, r.held);
    must(s->n_waiting == 0 && s->room_bytes == 0 && s->asked_bytes == 0);
    pthread_mutex_unlock(&s->lock);
    sl_str_fini(&r.body_text);
    sl_str_fini(&r.out);
    json_decref(r.asked);
    json_decref(r.model);
    json_decref(r.echoes);
    free(r.cursor);
    free(r.cursor_ended);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    const char *argument = NULL;
    size_t n_routes = 0;
    bool known;

    if (n == 0)
        return 0;
    while (sl_routes[n_routes].method != NULL)
        n_routes++;
    if (*data == 255) {
        char *path = strndup((const char *)data + 1, n - 1);

        must(path != NULL);
        if (sl_route_find("POST", path, &argument, &known) != NULL)
            must(known);
        must(argument == NULL ||
             (argument >= path && argument <= path + strlen(path)));
        must(sl_route_form(path) != NULL);
        free(path);
        return 0;
    }
    ask(&models[*data & 1].s, &sl_routes[(*data >> 1) % n_routes], data + 1,
        n - 1);
    return 0;
}
