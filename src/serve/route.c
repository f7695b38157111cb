#include "config.h"

#include <string.h>

#include "src/serve/api.h"

const struct sl_route sl_routes[] = {
    {"GET", "/health", &sl_form_openai, sl_api_health, true, true},
    {"GET", "/v1/health", &sl_form_openai, sl_api_health, true, true},
    {"GET", "/metrics", &sl_form_openai, sl_api_metrics, false, true},
    {"GET", "/props", &sl_form_openai, sl_api_props, false, false},
    {"GET", "/v1/models", &sl_form_openai, sl_api_models, false, true},
    {"GET", "/v1/models/{id}", &sl_form_openai, sl_api_model, false, true},
    {"POST", "/v1/completions", &sl_form_completions, sl_api_completions, false,
     false},
    {"POST", "/v1/chat/completions", &sl_form_chat, sl_api_chat, false, false},
    {"POST", "/v1/responses", &sl_form_responses, sl_api_responses, false,
     false},
    {"GET", "/v1/responses/{id}", &sl_form_responses, sl_api_response_get,
     false, true},
    {"POST", "/v1/responses/{id}/cancel", &sl_form_responses,
     sl_api_response_cancel, false, true},
    {"POST", "/v1/embeddings", &sl_form_openai, sl_api_embeddings, false, true},
    {"POST", "/tokenize", &sl_form_openai, sl_api_tokenize, false, false},
    {"POST", "/detokenize", &sl_form_openai, sl_api_detokenize, false, false},
    {"GET", "/tokenizer_info", &sl_form_openai, sl_api_tokenizer_info, false,
     false},
    {"POST", "/v1/messages", &sl_form_anthropic, sl_api_messages, false, false},
    {"POST", "/v1/messages/count_tokens", &sl_form_anthropic,
     sl_api_count_tokens, false, false},
    {"POST", "/", &sl_form_chatglm, sl_api_chatglm, false, false},
    {"POST", "/generate", &sl_form_glm130b, sl_api_generate, false, false},
    {"GET", "/", &sl_form_openai, sl_api_page, true, true},
    {"GET", "/page.css", &sl_form_openai, sl_api_page, true, true},
    {"GET", "/page.js", &sl_form_openai, sl_api_page, true, true},
    {0},
};

static const struct sl_route preflight = {
    "OPTIONS", "", &sl_form_openai, sl_api_preflight, true, true,
};

/* Does the path lie on the route? {id} stands for a segment. */
static bool matches(const char *route, const char *path, const char **argument)
{
    const char *hole = strstr(route, "{id}"), *tail;
    size_t n = hole != NULL ? (size_t)(hole - route) : 0, n_path = strlen(path);

    if (hole == NULL)
        return strcmp(route, path) == 0;
    tail = hole + strlen("{id}");
    if (strncmp(route, path, n) != 0 || n_path <= n + strlen(tail) ||
        strcmp(path + n_path - strlen(tail), tail) != 0 ||
        memchr(path + n, '/', n_path - n - strlen(tail)) != NULL)
        return false;
    *argument = path + n;
    return true;
}

const struct sl_route *sl_route_find(const char *method, const char *path,
                                     const char **argument, bool *known)
{
    *known = false;
    for (const struct sl_route *r = sl_routes; r->method != NULL; r++) {
        if (!matches(r->path, path, argument))
            continue;
        *known = true;
        if (strcmp(r->method, method) == 0 ||
            (strcmp(method, "HEAD") == 0 && strcmp(r->method, "GET") == 0))
            return r;
    }
    return *known && strcmp(method, "OPTIONS") == 0 ? &preflight : NULL;
}

const struct sl_form *sl_route_form(const char *path)
{
    const char *argument;

    for (const struct sl_route *r = sl_routes; r->method != NULL; r++) {
        if (matches(r->path, path, &argument))
            return r->form;
    }
    return &sl_form_openai;
}
