#include "config.h"

#include <string.h>

#include "src/text/chat.h"

/* Sources: ChatGLM-6B modeling_chatglm.py (chat, process_response); ChatGLM2
 * build_prompt; ChatGLM3 and GLM-4 tokenization_chatglm.py
 * (build_single_message); the chat_template of the other models'
 * tokenizer_config.json; sampling from their generation_config.json or the
 * defaults of their chat(). */

#define SAMPLING(temperature_, top_k_, top_p_)                                 \
    {                                                                          \
        .given =                                                               \
            SL_SAMPLING_TEMPERATURE | SL_SAMPLING_TOP_K | SL_SAMPLING_TOP_P,   \
        .temperature = (temperature_), .top_k = (top_k_), .top_p = (top_p_),   \
    }

static const char *const stops_eop[] = {"<eop>", NULL};
static const char *const stops_eos[] = {"</s>", NULL};
static const char *const stops_glm[] = {"</s>", "<|endoftext|>", "<|user|>",
                                        "<|observation|>", NULL};
static const char *const stops_chatml[] = {"<|im_end|>", "<|endoftext|>", NULL};
static const char *const stops_llama3[] = {"<|eot_id|>", "<|eom_id|>",
                                           "<|end_of_text|>", NULL};

static const struct sl_chat_template chatglm_6b = {
    .name = "chatglm-6b",
    .open = {"", "[Round `#`]\n问：", "", NULL},
    .close = {"\n", "\n答：", "\n", NULL},
    .end = "`[gMASK]``<sop>`",
    .stops = stops_eop,
    .polish = SL_POLISH_FULL,
    .bare_first = true,
    .words = true,
    .sampling = SAMPLING(0.95, 50, 0.7),
};

static const struct sl_chat_template chatglm2 = {
    .name = "chatglm2",
    .begin = "`[gMASK]``sop`",
    .open = {"", "[Round `#`]\n\n问：", "", NULL},
    .close = {"\n\n", "\n\n答：", "\n\n", NULL},
    .stops = stops_eos,
    .polish = SL_POLISH_DATE,
    .first_round = 1,
    .sampling = SAMPLING(0.8, 50, 0.8),
};

static const struct sl_chat_template chatglm3 = {
    .name = "chatglm3",
    .begin = "`[gMASK]``sop`",
    .open = {"`<|system|>`\n``", "`<|user|>`\n``", "`<|assistant|>`\n``",
             "`<|observation|>`\n``"},
    .prompt = "`<|assistant|>`",
    .stops = stops_glm,
    .tools = SL_TOOLS_CHATGLM3,
    .polish = SL_POLISH_DATE,
    .sampling = SAMPLING(0.8, 50, 0.8),
};

static const struct sl_chat_template glm_4 = {
    .name = "glm-4",
    .begin = "`[gMASK]``<sop>`",
    .open = {"`<|system|>`\n``", "`<|user|>`\n``", "`<|assistant|>`\n``",
             "`<|observation|>`\n``"},
    .prompt = "`<|assistant|>`",
    .stops = stops_glm,
    .tools = SL_TOOLS_GLM4,
    .sampling = SAMPLING(0.8, 50, 0.8),
};

static const struct sl_chat_template glm_4_0414 = {
    .name = "glm-4-0414",
    .begin = "`[gMASK]``<sop>`",
    .open = {"`<|system|>`\n", "`<|user|>`\n", "`<|assistant|>`\n",
             "`<|observation|>`\n"},
    .prompt = "`<|assistant|>`",
    .stops = stops_glm,
    .tools = SL_TOOLS_GLM4,
    .sampling = SAMPLING(0.6, 0, 0.95),
};

static const struct sl_chat_template glm_z1 = {
    .name = "glm-z1",
    .begin = "`[gMASK]``<sop>`",
    .open = {"`<|system|>`\n", "`<|user|>`\n", "`<|assistant|>`\n",
             "`<|observation|>`\n"},
    .prompt = "`<|assistant|>`\n`?<think>`",
    .stops = stops_glm,
    .thinking = SL_THINKING_Z1,
    .tools = SL_TOOLS_GLM4,
    .trim = true,
    .sampling = SAMPLING(0.6, 40, 0.95),
};

static const struct sl_chat_template glm_4_5 = {
    .name = "glm-4.5",
    .begin = "`[gMASK]``<sop>`",
    .open = {"`<|system|>`\n", "`<|user|>`\n", "`<|assistant|>`",
             "`<|observation|>`"},
    .each_open = "\n`?<tool_response>`\n",
    .each_close = "\n`?</tool_response>`",
    .prompt = "`<|assistant|>`",
    .prompt_no_think = "`<|assistant|>`\n`?<think>``?</think>`",
    .stops = stops_glm,
    .thinking = SL_THINKING_GLM45,
    .tools = SL_TOOLS_GLM45,
    .sampling = SAMPLING(0.6, 0, 0.95),
};

static const struct sl_chat_template glm_4_7 = {
    .name = "glm-4.7",
    .begin = "`[gMASK]``<sop>`",
    .open = {"`<|system|>`", "`<|user|>`", "`<|assistant|>`",
             "`<|observation|>`"},
    .each_open = "`?<tool_response>`",
    .each_close = "`?</tool_response>`",
    .prompt = "`<|assistant|>``?<think>`",
    .prompt_no_think = "`<|assistant|>``?</think>`",
    .stops = stops_glm,
    .thinking = SL_THINKING_GLM47,
    .tools = SL_TOOLS_GLM47,
    .sampling = SAMPLING(1.0, 0, 0.95),
};

static const struct sl_chat_template llama_2 = {
    .name = "llama-2",
    .open = {"`<s>`[INST] <<SYS>>\n", "`<s>`[INST] ", " ", NULL},
    .close = {"\n<</SYS>>\n\n", " [/INST]", " `</s>`", NULL},
    .user_after_system = "",
    .stops = stops_eos,
    .trim = true,
    .sampling = SAMPLING(0.6, 0, 0.9),
};

#define LLAMA_HEADER(role)                                                     \
    "`<|start_header_id|>`" role "`<|end_header_id|>`\n\n"

static const struct sl_chat_template llama_3 = {
    .name = "llama-3",
    .begin = "`<|begin_of_text|>`",
    .open = {LLAMA_HEADER("system"), LLAMA_HEADER("user"),
             LLAMA_HEADER("assistant"), NULL},
    .close = {"`<|eot_id|>`", "`<|eot_id|>`", "`<|eot_id|>`", NULL},
    .prompt = LLAMA_HEADER("assistant"),
    .stops = stops_llama3,
    .trim = true,
    .sampling = SAMPLING(0.6, 0, 0.9),
};

/* The date is the one that Llama 3.1's template falls back to: what is said
 * today is what will be said tomorrow. */
static const struct sl_chat_template llama_3_1 = {
    .name = "llama-3.1",
    .begin = "`<|begin_of_text|>`",
    .open = {LLAMA_HEADER("system") "Cutting Knowledge Date: December 2023\n"
                                    "Today Date: 26 Jul 2024\n\n",
             LLAMA_HEADER("user"), LLAMA_HEADER("assistant"), NULL},
    .close = {"`<|eot_id|>`", "`<|eot_id|>`", "`<|eot_id|>`", NULL},
    .system = "",
    .prompt = LLAMA_HEADER("assistant"),
    .stops = stops_llama3,
    .trim = true,
    .sampling = SAMPLING(0.6, 0, 0.9),
};

#define CHATML(role) "`<|im_start|>`" role "\n"
#define CHATML_END   "`<|im_end|>`\n"

#define CHATML_MESSAGES                                                        \
    .open = {CHATML("system"), CHATML("user"), CHATML("assistant"), NULL},     \
    .close = {CHATML_END, CHATML_END, CHATML_END, NULL},                       \
    .prompt = CHATML("assistant"), .stops = stops_chatml

/* A row of tool messages is a user's. */
#define CHATML_MESSAGES_AND_TOOLS                                              \
    .open = {CHATML("system"), CHATML("user"), CHATML("assistant"),            \
             "`<|im_start|>`user"},                                            \
    .close = {CHATML_END, CHATML_END, CHATML_END, CHATML_END},                 \
    .each_open = "\n`?<tool_response>`\n",                                     \
    .each_close = "\n`?</tool_response>`", .prompt = CHATML("assistant"),      \
    .stops = stops_chatml, .tools = SL_TOOLS_QWEN

static const struct sl_chat_template chatml = {
    .name = "chatml",
    CHATML_MESSAGES,
    .sampling = SAMPLING(0.7, 0, 0.9),
};

static const struct sl_chat_template smollm2 = {
    .name = "smollm2",
    CHATML_MESSAGES,
    .system = "You are a helpful AI assistant named SmolLM, trained by Hugging "
              "Face",
    .sampling = SAMPLING(0.2, 0, 0.9),
};

static const struct sl_chat_template qwen2 = {
    .name = "qwen2",
    CHATML_MESSAGES,
    .system = "You are a helpful assistant.",
    .sampling = SAMPLING(0.7, 20, 0.8),
};

static const struct sl_chat_template qwen2_5 = {
    .name = "qwen2.5",
    CHATML_MESSAGES_AND_TOOLS,
    .system = "You are Qwen, created by Alibaba Cloud. You are a helpful "
              "assistant.",
    .sampling = SAMPLING(0.7, 20, 0.8),
};

static const struct sl_chat_template qwen3 = {
    .name = "qwen3",
    CHATML_MESSAGES_AND_TOOLS,
    .prompt_no_think = CHATML("assistant") "`?<think>`\n\n`?</think>`\n\n",
    .thinking = SL_THINKING_QWEN3,
    .sampling = SAMPLING(0.6, 20, 0.95),
};

/* For what was never trained to chat: ChatGLM's words, which say to a reader
 * of either language who speaks. */
static const struct sl_chat_template plain = {
    .name = "plain",
    .open = {"", "问：", "", NULL},
    .close = {"\n\n", "\n答：", "\n", NULL},
    .stops = stops_eop,
    .stop_text = "\n问：",
    .base = true,
    .sampling = SAMPLING(1.0, 0, 0.7),
};

static const struct sl_chat_template *const templates[] = {
    &chatglm_6b, &chatglm2, &chatglm3, &glm_4,   &glm_4_0414, &glm_z1,
    &glm_4_5,    &glm_4_7,  &llama_2,  &llama_3, &llama_3_1,  &chatml,
    &smollm2,    &qwen2,    &qwen2_5,  &qwen3,   &plain,
};

/* The first rule of which all is true: a model with these words in its name
 * ("a|b": one of them), of such an architecture, with these tokens. */
struct rule {
    const struct sl_chat_template *tmpl;
    const char *arch, *model; /* NULL: any */
    const char *tokens[2];    /* NULL: none */
};

static const struct rule rules[] = {
    {&qwen3, "qwen3", NULL, {"<|im_start|>", NULL}},
    {&qwen2_5, "qwen2", "2.5", {"<|im_start|>", NULL}},
    {&qwen2, "qwen2", NULL, {"<|im_start|>", NULL}},
    {&smollm2, NULL, "smollm", {"<|im_start|>", NULL}},
    {&chatml, NULL, NULL, {"<|im_start|>", NULL}},
    {&glm_4_7, NULL, "4.7|glm-5|glm5", {"<|user|>", "</think>"}},
    {&glm_4_5, NULL, NULL, {"<|user|>", "</think>"}},
    {&glm_z1, NULL, "z1", {"<|user|>", "<sop>"}},
    {&glm_4_0414, "glm4|glm-4-0414", NULL, {"<|user|>", "<sop>"}},
    {&glm_4_0414, NULL, "0414", {"<|user|>", "<sop>"}},
    {&glm_4, NULL, NULL, {"<|user|>", "<sop>"}},
    {&chatglm3, NULL, NULL, {"<|user|>", "sop"}},
    {&chatglm2, "chatglm", NULL, {"[gMASK]", "sop"}},
    {&chatglm_6b, "chatglm", NULL, {"[gMASK]", NULL}},
    {&llama_3_1, NULL, NULL, {"<|start_header_id|>", "<|eom_id|>"}},
    {&llama_3, NULL, NULL, {"<|start_header_id|>", NULL}},
    {&llama_2, "llama", "chat", {"<s>", "</s>"}},
    {&plain, NULL, NULL, {NULL, NULL}},
};

/* What a publisher's own text of a template holds: the first rule of which all
 * is there ("!x": is not). */
static const struct {
    const struct sl_chat_template *tmpl;
    const char *arch; /* NULL: any */
    const char *parts[3];
} texts[] = {
    {&smollm2, NULL, {"<|im_start|>", "AI assistant named SmolLM", NULL}},
    {&qwen3, "qwen3", {"<|im_start|>", "</think>", NULL}},
    {&qwen2_5, NULL, {"<|im_start|>", "You are Qwen, created by", NULL}},
    {&qwen2, NULL, {"<|im_start|>", "You are a helpful assistant", "!<tools>"}},
    {&chatml, NULL, {"<|im_start|>", "<|im_end|>", "!<tools>"}},
    {&llama_3_1, NULL, {"<|start_header_id|>", "Cutting Knowledge", NULL}},
    {&llama_3, NULL, {"<|start_header_id|>", "<|eot_id|>", NULL}},
    {&llama_2, NULL, {"[INST]", "<<SYS>>", NULL}},
    {&glm_4_5, NULL, {"[gMASK]<sop>", "/nothink", NULL}},
    {&glm_4_7, NULL, {"[gMASK]<sop>", "</think>", "<arg_key>"}},
    {&glm_z1, NULL, {"[gMASK]<sop>", "<think>", NULL}},
    {&glm_4_0414, "glm4", {"[gMASK]<sop>", "<|assistant|>", NULL}},
    {&glm_4, NULL, {"[gMASK]<sop>", "<|assistant|>", NULL}},
    {&chatglm3, NULL, {"[gMASK]sop", "<|assistant|>", NULL}},
    {&chatglm2, NULL, {"[Round ", "问：", NULL}},
};

const struct sl_chat_template *sl_chat_recognise(const char *jinja,
                                                 const char *arch)
{
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        bool is = texts[i].arch == NULL || strcmp(texts[i].arch, arch) == 0;

        for (size_t k = 0; is && k < 3 && texts[i].parts[k] != NULL; k++) {
            const char *part = texts[i].parts[k];

            is = *part == '!' ? strstr(jinja, part + 1) == NULL
                              : strstr(jinja, part) != NULL;
        }
        if (is)
            return texts[i].tmpl;
    }
    return NULL;
}

const struct sl_chat_template *sl_chat_template_at(size_t n)
{
    return n < sizeof templates / sizeof *templates ? templates[n] : NULL;
}

const struct sl_chat_template *sl_chat_template_named(const char *name)
{
    for (size_t i = 0; sl_chat_template_at(i) != NULL; i++) {
        if (strcmp(templates[i]->name, name) == 0)
            return templates[i];
    }
    return NULL;
}

/* Is one of the words, which bars separate, in the name? */
static bool has_word(const char *name, const char *words)
{
    char word[32];

    while (words != NULL) {
        size_t n = strcspn(words, "|");

        memcpy(word, words, n);
        word[n] = '\0';
        if (strcasestr(name, word) != NULL)
            return true;
        words = words[n] == '|' ? words + n + 1 : NULL;
    }
    return false;
}

static bool applies(const struct rule *r, const char *arch, const char *model,
                    const struct sl_chat_vocab *vocab)
{
    if ((r->arch != NULL && !has_word(arch, r->arch)) ||
        (r->model != NULL && !has_word(model, r->model)))
        return false;
    for (size_t i = 0; i < 2 && r->tokens[i] != NULL; i++) {
        if (vocab->token(vocab->opaque, r->tokens[i]) < 0)
            return false;
    }
    return true;
}

const struct sl_chat_template *sl_chat_find(const char *kept, const char *arch,
                                            const char *model,
                                            const struct sl_chat_vocab *vocab)
{
    const struct sl_chat_template *t =
        kept != NULL ? sl_chat_template_named(kept) : NULL;
    const struct rule *r = rules;

    if (t != NULL)
        return t;
    while (!applies(r, arch, model, vocab))
        r++;
    return r->tmpl;
}
