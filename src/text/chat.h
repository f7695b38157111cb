/*
 * chat.h - a conversation as the text that a model was trained on
 *
 *   messages --template--> pieces --vocabulary--> ids
 *
 * A piece is a special token by its name, or plain text, which the vocabulary
 * encodes on its own: nothing that a person wrote is taken for a special
 * token. Templates are const tables (chat_templates.c), one a model, found by
 * the model's names and by the special tokens that its vocabulary has.
 *
 *   chat.c            messages to pieces to ids
 *   chat_vocab.c      a tokenizer as their vocabulary
 *   chat_tools.c      tools and calls of tools, as each model has them
 *   chat_templates.c  the tables, and which of them is a model's
 *   answer.h          the way back: what a model says, made fit to be read
 */
#ifndef SL_CHAT_H
#define SL_CHAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include "src/arch/sampling.h"
#include "src/base/error.h"
#include "src/base/ids.h"
#include "src/base/str.h"
#include "src/text/tokenizer.h"

enum sl_chat_role {
    SL_CHAT_SYSTEM,
    SL_CHAT_USER,
    SL_CHAT_ASSISTANT,
    SL_CHAT_TOOL, /* what a tool gave back; "observation" to GLM */
    SL_CHAT_ROLES,
};

/* Borrowed; content is never NULL. */
struct sl_chat_message {
    enum sl_chat_role role;
    const char *content;
    const char *reasoning; /* an assistant's thinking; NULL: none */
    const json_t *calls;   /* its calls of tools (OpenAI's tool_calls): a list,
                            * or NULL */
    const json_t *others;  /* what else a file said of it, carried along */
};

struct sl_chat_input {
    const struct sl_chat_message *messages;
    size_t n_messages;
    const json_t *tools; /* OpenAI's tools: a list, or NULL */
    bool no_think;       /* the answer is to come without thinking */
    bool no_answer;      /* the text ends behind the messages */
};

/* How a template treats thinking. */
enum sl_chat_thinking {
    SL_THINKING_NONE,  /* the model does not know of it */
    SL_THINKING_QWEN3, /* of the last turn, in <think> blocks; an empty one
                        * asks for none */
    SL_THINKING_Z1,    /* prompt opens <think>; old thinking goes */
    SL_THINKING_GLM45, /* an empty block in old turns; /nothink */
    SL_THINKING_GLM47, /* prompt opens <think> or closes it */
};

/* How a template tells of tools. */
enum sl_chat_tools {
    SL_TOOLS_NONE,
    SL_TOOLS_CHATGLM3, /* JSON in the system message; Python calls */
    SL_TOOLS_GLM4,     /* "# 可用工具"; NAME\nJSON calls */
    SL_TOOLS_QWEN,     /* <tools>; JSON in <tool_call> */
    SL_TOOLS_GLM45,    /* <tools>; <arg_key>, <arg_value>, a line each */
    SL_TOOLS_GLM47,    /* the same on one line */
};

/* What is to be done to an answer before it is read (answer.h). */
enum sl_chat_polish {
    SL_POLISH_STRIP, /* blanks at both ends go */
    SL_POLISH_DATE,  /* and ChatGLM's "[[训练时间]]" becomes "2023年" */
    SL_POLISH_FULL,  /* and punctuation beside Chinese becomes full-width */
};

/* Strings of a template stand for what they say, except
 *   `NAME`   the special token of that name
 *   `?NAME`  the same if the vocabulary has it, else its name as text
 *   ``       what follows is encoded on its own
 *   `#`      the number of the round */
struct sl_chat_template {
    const char *name;  /* for --template */
    const char *begin; /* of everything */
    /* around a message's content, by role; NULL: there is no such role */
    const char *open[SL_CHAT_ROLES], *close[SL_CHAT_ROLES];
    /* around each message of a row of a tool's, which stands between open and
     * close then; NULL: each stands alone */
    const char *each_open, *each_close;
    const char *system; /* said where no system message is, or NULL */
    const char *user_after_system; /* in the place of open[USER]; NULL: that */
    const char *prompt;            /* where the answer begins */
    const char *prompt_no_think;   /* the same without thinking; NULL: prompt */
    const char *end;               /* of everything */
    const char *const *stops;      /* names of tokens that end an answer, beside
                                    * those of the vocabulary; ends in NULL */
    const char *stop_text;         /* text that ends one, or NULL */
    enum sl_chat_thinking thinking;
    enum sl_chat_tools tools;
    enum sl_chat_polish polish;
    uint32_t first_round;
    bool bare_first;             /* a first round has no text around it */
    bool trim;                   /* contents lose blanks at both ends */
    bool base;                   /* for models that were not trained to chat */
    bool words;                  /* "stop" and "clear" alone are commands */
    struct sl_sampling sampling; /* what the model's own program has, where its
                                  * publisher says nothing */
};

/* What a vocabulary can do for a conversation. */
struct sl_chat_vocab {
    /* Id of a special token; -1: there is none of that name. */
    int32_t (*token)(void *opaque, const char *name);
    /* Appends the ids of plain text (UTF-8). */
    int (*encode)(void *opaque, struct sl_ids *ids, const char *text, size_t n,
                  struct sl_error *err);
    void *opaque;
};

/* A tokenizer and the ids that it may call by other names; both borrowed. */
struct sl_chat_words {
    struct sl_tokenizer *tokenizer;
    const struct sl_special_ids *special;
};
/* What they do for a conversation; words must live as long. */
struct sl_chat_vocab sl_chat_vocab_of(struct sl_chat_words *words);

struct sl_chat_piece {
    const char *special; /* name, as long as the template lives; NULL: text */
    size_t n_special;    /* bytes of the name */
    size_t begin, end;   /* of the pieces' text */
};

struct sl_chat_pieces { /* zeroed to begin with, owned */
    struct sl_chat_piece *v;
    size_t n, room;
    struct sl_str text;
    bool joins; /* the last piece is text that more may be added to */
};

/* Appends the pieces of a conversation. Errors: SL_ERR_UNSUPPORTED when the
 * template has no place for a message or for tools; SL_ERR_USAGE for tools and
 * calls that are none; SL_ERR_NOMEM. */
int sl_chat_render(struct sl_chat_pieces *pieces,
                   const struct sl_chat_template *tmpl,
                   const struct sl_chat_input *input,
                   const struct sl_chat_vocab *vocab, struct sl_error *err);
void sl_chat_pieces_fini(struct sl_chat_pieces *pieces);
/* All names and texts as one text, `between` where two texts meet, for tests
 * and people. */
int sl_chat_pieces_text(struct sl_str *to, const struct sl_chat_pieces *pieces,
                        const char *between, struct sl_error *err);

/* Appends the ids of a conversation. Errors: those of sl_chat_render and of
 * the vocabulary; SL_ERR_UNSUPPORTED naming a token that it does not have. */
int sl_chat_ids(struct sl_ids *ids, const struct sl_chat_template *tmpl,
                const struct sl_chat_input *input,
                const struct sl_chat_vocab *vocab, struct sl_error *err);
/* Appends the ids that end an answer of this template. */
int sl_chat_stops(struct sl_ids *ids, const struct sl_chat_template *tmpl,
                  const struct sl_chat_vocab *vocab, struct sl_error *err);
/* Does the answer begin within its thinking? */
bool sl_chat_prompt_thinks(const struct sl_chat_template *tmpl, bool no_think);

/* -- chat_templates.c -- */

/* The n-th template, NULL beyond the last; that of a name, or NULL. */
const struct sl_chat_template *sl_chat_template_at(size_t n);
const struct sl_chat_template *sl_chat_template_named(const char *name);
/* The one whose text, as publishers write it (Jinja, tokenizer.chat_template of
 * a GGUF file), this is; NULL where it is none of ours. */
const struct sl_chat_template *sl_chat_recognise(const char *jinja,
                                                 const char *arch);
/* Which one a model was trained on: the one of that name, as its file has kept
 * it (NULL, or a name that is not known: none); else by the names of its
 * architecture and of itself (either may be "") and the tokens of its
 * vocabulary; the one for base models where nothing tells. */
const struct sl_chat_template *sl_chat_find(const char *kept, const char *arch,
                                            const char *model,
                                            const struct sl_chat_vocab *vocab);

/* -- inside chat -- */

/* Appends text as it is; or a template's string with its marks. */
int sl_chat_add_text(struct sl_chat_pieces *p, const char *text, size_t n,
                     struct sl_error *err);
int sl_chat_add_marked(struct sl_chat_pieces *p, const char *marked,
                       uint32_t round, const struct sl_chat_vocab *vocab,
                       struct sl_error *err);

/* chat_tools.c: the tools, in a system message whose content (or "") follows
 * or precedes them, as the model has it, with all that is around. */
int sl_chat_add_tools(struct sl_chat_pieces *p,
                      const struct sl_chat_template *tmpl, const json_t *tools,
                      const char *system, const struct sl_chat_vocab *vocab,
                      struct sl_error *err);
/* An assistant's calls behind its content. */
int sl_chat_add_calls(struct sl_chat_pieces *p,
                      const struct sl_chat_template *tmpl, const json_t *calls,
                      bool has_content, const struct sl_chat_vocab *vocab,
                      struct sl_error *err);
/* JSON as Python's json.dumps has it with ensure_ascii off; indent 0: on one
 * line. */
int sl_chat_add_json(struct sl_chat_pieces *p, const json_t *json,
                     unsigned indent, struct sl_error *err);
/* The function of a tool or call, which may stand bare or in "function". */
const json_t *sl_chat_function(const json_t *tool);

#endif
