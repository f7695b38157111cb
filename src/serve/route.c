#include "config.h"

#include <string.h>

#include "src/serve/api.h"

/* --- what answers are: JSON Schema ------------------------------------------
 */

#define OBJECT       "{\"type\":\"object\"}"
#define WITH(fields) "{\"type\":\"object\",\"required\":[" fields "]}"
#define STATUS       WITH("\"status\"")
#define LIST         WITH("\"object\",\"data\"")
#define OBJECT_ID    WITH("\"id\",\"object\"")
#define CHOICES                                                                \
    WITH("\"id\",\"object\",\"created\",\"model\",\"choices\",\"usage\"")
#define RESPONSE WITH("\"id\",\"object\",\"status\",\"output\"")
#define MESSAGE                                                                \
    WITH("\"id\",\"type\",\"role\",\"content\",\"stop_reason\",\"usage\"")
#define TOKENS      WITH("\"input_tokens\"")
#define TEXT_OF_IDS WITH("\"prompt\",\"content\"")
#define CHATGLM     WITH("\"response\",\"history\",\"status\",\"time\"")
#define TEXTS       WITH("\"text\"")

const struct sl_route sl_routes[] = {
    {"GET", "/health", &sl_form_openai, sl_api_health, NULL,
     "Is there a model to ask?", STATUS, true, true},
    {"GET", "/v1/health", &sl_form_openai, sl_api_health, NULL, "The same",
     STATUS, true, true},
    {"GET", "/metrics", &sl_form_openai, sl_api_metrics, NULL,
     "Counts for Prometheus", "text/plain", false, true},
    {"GET", "/props", &sl_form_openai, sl_api_props, NULL, "What the model is",
     OBJECT, false, false},
    {"GET", "/v1/models", &sl_form_openai, sl_api_models, NULL,
     "The model in a list", LIST, false, true},
    {"GET", "/v1/models/{id}", &sl_form_openai, sl_api_model, NULL,
     "The model, by any name", OBJECT_ID, false, true},
    {"POST", "/v1/completions", &sl_form_completions, sl_api_completions,
     sl_fields_completions, "Go on with texts, or fill their blanks", CHOICES,
     false, false},
    {"POST", "/v1/chat/completions", &sl_form_chat, sl_api_chat, sl_fields_chat,
     "Answer in a conversation", CHOICES, false, false},
    {"POST", "/v1/responses", &sl_form_responses, sl_api_responses,
     sl_fields_responses, "Answer, in the background if wanted", RESPONSE,
     false, false},
    {"GET", "/v1/responses/{id}", &sl_form_responses, sl_api_response_get, NULL,
     "How far an answer in the background is", RESPONSE, false, true},
    {"POST", "/v1/responses/{id}/cancel", &sl_form_responses,
     sl_api_response_cancel, NULL, "Cancel one", RESPONSE, false, true},
    {"POST", "/v1/embeddings", &sl_form_openai, sl_api_embeddings,
     sl_fields_embeddings, "Not there: 501", OBJECT, false, true},
    {"POST", "/tokenize", &sl_form_openai, sl_api_tokenize, sl_fields_tokenize,
     "Ids of a text", OBJECT, false, false},
    {"POST", "/detokenize", &sl_form_openai, sl_api_detokenize,
     sl_fields_detokenize, "The text of ids", TEXT_OF_IDS, false, false},
    {"GET", "/tokenizer_info", &sl_form_openai, sl_api_tokenizer_info, NULL,
     "What lm-eval asks of a tokenizer", OBJECT, false, false},
    {"POST", "/v1/messages", &sl_form_anthropic, sl_api_messages,
     sl_fields_messages, "Answer in a conversation, as Anthropic's API",
     MESSAGE, false, false},
    {"POST", "/v1/messages/count_tokens", &sl_form_anthropic,
     sl_api_count_tokens, sl_fields_count_tokens,
     "How many tokens that would be", TOKENS, false, false},
    {"POST", "/", &sl_form_chatglm, sl_api_chatglm, sl_fields_chatglm,
     "Answer in a conversation, as ChatGLM-6B's api.py", CHATGLM, false, false},
    {"POST", "/generate", &sl_form_glm130b, sl_api_generate, sl_fields_generate,
     "Fill blanks, as GLM-130B's FasterTransformer", TEXTS, false, false},
    {"GET", "/", &sl_form_openai, sl_api_page, NULL, "A web page", "text/html",
     true, true},
    {"GET", "/page.css", &sl_form_openai, sl_api_page, NULL, "How it looks",
     "text/css", true, true},
    {"GET", "/page.js", &sl_form_openai, sl_api_page, NULL, "What it does",
     "text/javascript", true, true},
    {"GET", "/page.svg", &sl_form_openai, sl_api_page, NULL, "Its sign",
     "image/svg+xml", true, true},
    {"GET", "/openapi.json", &sl_form_openai, sl_api_openapi, NULL,
     "This description", OBJECT, true, true},
    {0},
};

static const struct sl_route preflight = {
    "OPTIONS", "",   &sl_form_openai, sl_api_preflight, NULL, NULL, NULL,
    true,      true,
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
