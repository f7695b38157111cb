#include "config.h"

#include <assert.h>
#include <string.h>

#include "src/serve/body.h"
#include "src/serve/fields.h"
#include "src/serve/http.h"

#define BOOL(name, what)                                                       \
    {                                                                          \
        name, SL_FIELD_BOOL, false, 0, 0, NULL, what                           \
    }
#define INT(name, min, max, what)                                              \
    {                                                                          \
        name, SL_FIELD_INT, false, min, max, NULL, what                        \
    }
#define REAL(name, min, max, what)                                             \
    {                                                                          \
        name, SL_FIELD_REAL, false, min, max, NULL, what                       \
    }
#define STRING(name, what)                                                     \
    {                                                                          \
        name, SL_FIELD_STRING, false, 0, 0, NULL, what                         \
    }
#define OTHER(name, schema, what)                                              \
    {                                                                          \
        name, SL_FIELD_OTHER, false, 0, 0, schema, what                        \
    }
#define OBJECT(name, schema, what)                                             \
    {                                                                          \
        name, SL_FIELD_OBJECT, false, 0, 0, schema, what                       \
    }
#define LIST(name, schema, what)                                               \
    {                                                                          \
        name, SL_FIELD_LIST, false, 0, 0, schema, what                         \
    }
#define NEEDS(name, schema, what)                                              \
    {                                                                          \
        name, SL_FIELD_OTHER, true, 0, 0, schema, what                         \
    }
#define REFUSED(name, what)                                                    \
    {                                                                          \
        name, SL_FIELD_NONE, false, 0, 0, "{\"type\":\"null\"}", what          \
    }
#define END                                                                    \
    {                                                                          \
        0                                                                      \
    }

#define MOST_INT INT32_MAX
/* The largest double below 2^63. */
#define MOST_SEED 9223372036854774784.0

#define STOPS                                                                  \
    "{\"anyOf\":[{\"type\":\"string\"},{\"type\":\"array\",\"maxItems\":16,"   \
    "\"items\":{\"type\":\"string\"}}]}"
#define IDS                                                                    \
    "{\"type\":\"array\",\"minItems\":1,\"items\":{\"type\":\"integer\","      \
    "\"minimum\":0}}"
#define TEXT_OR_PARTS                                                          \
    "{\"anyOf\":[{\"type\":\"string\"},{\"type\":\"array\",\"items\":{"        \
    "\"type\":\"object\",\"required\":[\"type\",\"text\"],\"properties\":{"    \
    "\"type\":{\"const\":\"text\"},\"text\":{\"type\":\"string\"}}}}]}"

static const struct sl_field common[] = {
    STRING("model", "Any name will do, there is one model"),
    BOOL("stream", "Answer piece by piece, as server-sent events"),
    OBJECT("stream_options",
           "{\"type\":\"object\",\"properties\":{\"include_usage\":{\"type\":"
           "[\"boolean\",\"null\"]}}}",
           "What a stream has beside texts"),
    END,
};

static const struct sl_field sampling[] = {
    REAL("temperature", 0, 100, "0 takes the likeliest token"),
    REAL("top_p", 0, 1, "Draw from the likeliest tokens of so much in sum"),
    END,
};

static const struct sl_field openai[] = {
    INT("max_tokens", 0, MOST_INT, "Most tokens of the answer"),
    INT("max_completion_tokens", 0, MOST_INT, "The same"),
    INT("min_tokens", 0, MOST_INT, "No end before so many"),
    INT("top_k", -1, MOST_INT, "Draw from so many of the likeliest tokens"),
    REAL("presence_penalty", -2, 2, "Less for what was said"),
    REAL("frequency_penalty", -2, 2, "Less each time it was said"),
    REAL("repetition_penalty", 0.01, 100, "Divides logits of what is there"),
    INT("seed", -MOST_SEED, MOST_SEED, "The same request, the same answer"),
    INT("n", 1, 128, "Answers"),
    OTHER("stop", STOPS, "Texts that end the answer and are not part of it"),
    OBJECT("logit_bias",
           "{\"type\":\"object\",\"propertyNames\":{\"pattern\":\"^[0-9]+$\"},"
           "\"additionalProperties\":{\"type\":\"number\",\"minimum\":-100,"
           "\"maximum\":100}}",
           "Added to the logits of token ids"),
    OBJECT("response_format",
           "{\"type\":\"object\",\"required\":[\"type\"],\"properties\":{"
           "\"type\":{\"enum\":[\"text\",\"json_object\",\"json_schema\"]},"
           "\"json_schema\":{\"type\":\"object\"}}}",
           "JSON, of a form"),
    REFUSED("grammar", "not known here: 'response_format' has JSON's forms"),
    REFUSED("json_schema", "belongs into 'response_format'"),
    REFUSED("guided_json", "not known here: use 'response_format'"),
    REFUSED("guided_regex",
            "not known here: 'response_format' has JSON's forms"),
    REFUSED("guided_choice",
            "not known here: 'response_format' has JSON's forms"),
    REFUSED("guided_grammar",
            "not known here: 'response_format' has JSON's forms"),
    END,
};

static const struct sl_field completions[] = {
    NEEDS("prompt",
          "{\"anyOf\":[{\"type\":\"string\"},{\"type\":\"array\",\"minItems\":"
          "1,\"maxItems\":1024,\"items\":{\"type\":\"string\"}}," IDS ",{"
          "\"type\":\"array\",\"minItems\":1,\"maxItems\":1024,"
          "\"items\":" IDS "}]}",
          "A text, several, token ids, or several of these"),
    STRING("suffix", "What stands behind the blank that is filled"),
    BOOL("echo", "The prompt is part of the answer"),
    INT("logprobs", 0, 20, "How likely tokens and so many others were"),
    INT("best_of", 1, 128, "Answers of which the likeliest n are given"),
    END,
};

#define TOOLS "{\"type\":\"array\",\"items\":{\"type\":\"object\"}}"
#define CONVERSATION(roles, content)                                           \
    "{\"type\":\"array\",\"minItems\":1,\"items\":{\"type\":\"object\","       \
    "\"required\":[\"role\",\"content\"],\"properties\":{\"role\":{"           \
    "\"enum\":[" roles "]},\"content\":" content "}}}"

static const struct sl_field chat[] = {
    NEEDS("messages",
          CONVERSATION("\"system\",\"user\",\"assistant\",\"tool\"",
                       TEXT_OR_PARTS),
          "The conversation so far"),
    LIST("tools", TOOLS, "Functions that the model may call"),
    OTHER("tool_choice", "{\"enum\":[\"auto\",\"none\"]}", NULL),
    REFUSED("functions", "is called 'tools' here"),
    REFUSED("audio", "there is none: texts alone are answered"),
    REFUSED("web_search_options", "not known here: nothing is searched"),
    BOOL("logprobs", "Tell how likely tokens were"),
    INT("top_logprobs", 0, 20, "and so many others"),
    OBJECT("chat_template_kwargs",
           "{\"type\":\"object\",\"properties\":{\"enable_thinking\":{\"type\":"
           "[\"boolean\",\"null\"]}}}",
           NULL),
    STRING("reasoning_effort", "none: no thinking"),
    END,
};

static const struct sl_field responses[] = {
    NEEDS("input",
          "{\"anyOf\":[{\"type\":\"string\"},{\"type\":\"array\",\"minItems\":"
          "1,\"items\":{\"type\":\"object\",\"required\":[\"role\","
          "\"content\"],\"properties\":{\"role\":{\"enum\":[\"system\","
          "\"user\",\"assistant\"]},\"content\":{\"type\":\"string\"}}}}]}",
          "A text, or the conversation so far"),
    STRING("instructions", "What the system says"),
    INT("max_output_tokens", 1, MOST_INT, "Most tokens of the answer"),
    BOOL("background", "Answer at once with a number to ask by"),
    OBJECT("text", "{\"type\":\"object\"}", "text.format: JSON, of a form"),
    LIST("tools", TOOLS, "Functions that the model may call"),
    OTHER("tool_choice", "{\"enum\":[\"auto\",\"none\"]}", NULL),
    REFUSED("previous_response_id",
            "not known here: send the whole conversation as 'input'"),
    REFUSED("conversation",
            "not known here: send the whole conversation as 'input'"),
    REFUSED("prompt", "not known here: send the text as 'input'"),
    END,
};

/* The blocks that texts and calls are made of are told in words alone. */
#define BLOCKS                                                                 \
    "{\"anyOf\":[{\"type\":\"string\"},{\"type\":\"array\",\"items\":{"        \
    "\"type\":\"object\",\"required\":[\"type\"]}}]}"

static const struct sl_field talk[] = {
    NEEDS("messages", CONVERSATION("\"user\",\"assistant\"", BLOCKS),
          "The conversation so far"),
    OTHER("system", TEXT_OR_PARTS, "What the system says"),
    LIST("tools", TOOLS, "Functions that the model may call"),
    OBJECT("thinking", "{\"type\":\"object\"}", "type: enabled or disabled"),
    REFUSED("mcp_servers", "not known here: none is asked"),
    REFUSED("output_format", "not known here: ask in /v1/chat/completions"),
    END,
};

static const struct sl_field messages[] = {
    {"max_tokens", SL_FIELD_INT, true, 1, MOST_INT, NULL,
     "Most tokens of the answer"},
    INT("top_k", 0, MOST_INT, "Draw from so many of the likeliest tokens"),
    OTHER("stop_sequences", STOPS,
          "Texts that end the answer and are not part of it"),
    END,
};

static const struct sl_field tokenize[] = {
    STRING("prompt", "The text"),
    STRING("content", "The same, as llama.cpp calls it"),
    STRING("text", "FasterTransformer's: lines, each a prompt"),
    BOOL("add_special_tokens", "With what stands before a text"),
    BOOL("add_special", "The same, as llama.cpp calls it"),
    BOOL("parse_special", "Special tokens count where they are written"),
    BOOL("with_pieces", "How each token is spelt, too"),
    END,
};

static const struct sl_field detokenize[] = {
    NEEDS("tokens",
          "{\"type\":\"array\",\"items\":{\"type\":\"integer\",\"minimum\":0}}",
          "Token ids"),
    END,
};

static const struct sl_field chatglm[] = {
    {"prompt", SL_FIELD_STRING, true, 0, 0, NULL, "The question"},
    LIST("history",
         "{\"type\":\"array\",\"items\":{\"type\":\"array\",\"minItems\":2,"
         "\"maxItems\":2,\"items\":{\"type\":\"string\"}}}",
         "Pairs of question and answer"),
    INT("max_length", 0, MOST_INT, "Most tokens, the prompt's included"),
    REAL("temperature", 0, 100, "0: 0.95"),
    REAL("top_p", 0, 1, "0: 0.7"),
    END,
};

static const struct sl_field generate[] = {
    {"text", SL_FIELD_STRING, true, 0, 0, NULL, "Lines, each a prompt"},
    INT("out_seq_length", 0, MOST_INT, "Most tokens of an answer; 0: 200"),
    INT("seed", -MOST_SEED, MOST_SEED, "0: 1234"),
    INT("topk", 0, MOST_INT, "0: 5"),
    REAL("topp", 0, 1, "0: 1"),
    END,
};

static const struct sl_field none[] = {END};

const struct sl_field *const sl_fields_completions[] = {
    common, sampling, openai, completions, NULL};
const struct sl_field *const sl_fields_chat[] = {common, sampling, openai, chat,
                                                 NULL};
const struct sl_field *const sl_fields_responses[] = {common, sampling,
                                                      responses, NULL};
const struct sl_field *const sl_fields_messages[] = {common, sampling, messages,
                                                     talk, NULL};
const struct sl_field *const sl_fields_count_tokens[] = {talk, NULL};
const struct sl_field *const sl_fields_tokenize[] = {tokenize, NULL};
const struct sl_field *const sl_fields_detokenize[] = {detokenize, NULL};
const struct sl_field *const sl_fields_chatglm[] = {chatglm, NULL};
const struct sl_field *const sl_fields_generate[] = {generate, NULL};
const struct sl_field *const sl_fields_embeddings[] = {none, NULL};

const struct sl_field *sl_field_find(sl_field_tables tables, const char *name)
{
    for (; *tables != NULL; tables++) {
        for (const struct sl_field *f = *tables; f->name != NULL; f++) {
            if (strcmp(f->name, name) == 0)
                return f;
        }
    }
    return NULL;
}

static int check(const struct sl_req *r, const struct sl_field *f,
                 struct sl_refusal *why)
{
    const json_t *v = sl_body_get(r->body, f->name);
    double real;
    int64_t whole;
    bool is;
    const char *text;
    size_t n;

    if (v == NULL)
        return !f->required
                   ? 0
                   : sl_refuse(why, 400, f->name, "'%s' is missing", f->name);
    switch (f->kind) {
    case SL_FIELD_NONE:
        return sl_refuse(why, 400, f->name, "'%s': %s", f->name, f->what);
    case SL_FIELD_BOOL:
        return sl_read_bool(&is, r, f->name, why);
    case SL_FIELD_INT:
        return sl_read_int(&whole, r, f->name, why);
    case SL_FIELD_REAL:
        return sl_read_real(&real, r, f->name, why);
    case SL_FIELD_STRING:
        return sl_read_string(&text, &n, r, f->name, why);
    case SL_FIELD_OBJECT:
        return json_is_object(v) ? 0
                                 : sl_body_wrong(why, f->name, v, "an object");
    case SL_FIELD_LIST:
        return json_is_array(v) ? 0 : sl_body_wrong(why, f->name, v, "a list");
    default:
        return 0;
    }
}

int sl_fields_check(const struct sl_req *r, struct sl_refusal *why)
{
    for (sl_field_tables t = r->route->fields; *t != NULL; t++) {
        for (const struct sl_field *f = *t; f->name != NULL; f++) {
            if (check(r, f, why) != 0)
                return -1;
        }
    }
    return 0;
}

static const struct sl_field *row(const struct sl_req *r, const char *name,
                                  enum sl_field_kind kind)
{
    const struct sl_field *f = sl_field_find(r->route->fields, name);

    assert(f != NULL && f->kind == kind);
    (void)kind;
    return f;
}

int sl_read_bool(bool *v, const struct sl_req *r, const char *name,
                 struct sl_refusal *why)
{
    return sl_body_bool(v, r->body, row(r, name, SL_FIELD_BOOL)->name, why);
}

int sl_read_int(int64_t *v, const struct sl_req *r, const char *name,
                struct sl_refusal *why)
{
    const struct sl_field *f = row(r, name, SL_FIELD_INT);

    return sl_body_int(v, r->body, name, (int64_t)f->min, (int64_t)f->max, why);
}

int sl_read_real(double *v, const struct sl_req *r, const char *name,
                 struct sl_refusal *why)
{
    const struct sl_field *f = row(r, name, SL_FIELD_REAL);

    return sl_body_real(v, r->body, name, f->min, f->max, why);
}

int sl_read_string(const char **v, size_t *n, const struct sl_req *r,
                   const char *name, struct sl_refusal *why)
{
    return sl_body_string(v, n, r->body, row(r, name, SL_FIELD_STRING)->name,
                          why);
}
