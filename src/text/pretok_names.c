#include "config.h"

#include <string.h>

#include "src/text/pretok.h"

/* Each list: every expression cuts what the one before has left; a match is a
 * word and so is what lies between two. */

/* openai/gpt-2 src/encoder.py; ByteLevel of tokenizers. */
#define GPT2                                                                   \
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|"       \
    "\\s+(?!\\S)|\\s+"
/* cl100k of tiktoken but for the number of digits: Llama 3 and GLM-4 three
 * (their tokenizer.json and tokenization_chatglm.py), Qwen one. */
#define CL100K(digits)                                                         \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}" digits \
    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

static const char *const gpt2[] = {GPT2, NULL};
/* What ggml-org/llama.cpp takes where a file names none (src/llama-vocab.cpp):
 * punctuation on its own, digits in threes from the left. */
static const char *const unnamed[] = {"[\\p{P}\\$\\+<=>\\^~\\|]+", GPT2,
                                      "\\p{N}+", "[0-9][0-9][0-9]", NULL};
static const char *const smollm[] = {"\\p{N}", GPT2, NULL};
static const char *const three_digits[] = {CL100K("{1,3}"), NULL};
static const char *const one_digit[] = {CL100K(""), NULL};

static const struct {
    const char *name;
    const char *const *patterns;
} names[] = {
    {"default", unnamed},     {"gpt-2", gpt2},
    {"gpt2", gpt2},           {"roberta-bpe", gpt2},
    {"smollm", smollm},       {"llama-bpe", three_digits},
    {"llama3", three_digits}, {"llama-v3", three_digits},
    {"glm4", three_digits},   {"chatglm-bpe", three_digits},
    {"qwen2", one_digit},     {"deepseek-r1-qwen", one_digit},
    {"megrez", one_digit},
};

const char *const *sl_pretok_named(const char *name)
{
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcmp(names[i].name, name) == 0)
            return names[i].patterns;
    }
    return NULL;
}
