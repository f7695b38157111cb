/*
 * answer.h - what a model says, made fit to be read, while it is being said
 *
 *   text --thinking apart--> content --polish--> reader, history
 *              \--> reasoning
 *
 * Thinking (<think> ... </think> at the beginning) is told from the answer;
 * blanks at the ends of both go; ChatGLM's answers lose the quirks of their
 * training (ChatGLM-6B modeling_chatglm.py process_response): "[[训练时间]]"
 * becomes "2023年", and , ! : ; ? before or behind a Chinese character become
 * full-width. A stop text and what follows it is cut off. What later text can
 * still change is held back; all that comes out is final, and all of it
 * together is what the reference makes of the whole answer.
 */
#ifndef SL_ANSWER_H
#define SL_ANSWER_H

#include <stdbool.h>

#include "src/base/str.h"
#include "src/text/chat.h"

/* Where the text goes as it becomes final. */
struct sl_answer_sink {
    int (*text)(void *opaque, bool thinking, const char *text, size_t n,
                struct sl_error *err);
    void *opaque;
};

enum sl_answer_state {
    SL_ANSWER_BEGIN,    /* it may yet begin with thinking */
    SL_ANSWER_THINKING, /* <think> has come, not its end */
    SL_ANSWER_CONTENT,
    SL_ANSWER_STOPPED, /* the stop text has come: nothing more is wanted */
};

struct sl_answer {
    const struct sl_chat_template *tmpl; /* borrowed */
    const struct sl_answer_sink *sink;   /* borrowed; NULL: nobody listens */
    enum sl_answer_state state;
    struct sl_str held;   /* could still become a mark */
    struct sl_str blanks; /* could still be the last */
    bool began;           /* of this part: a blank is no more first */
    bool after_chinese;   /* the character before is Chinese */
    char mark;            /* punctuation that waits for the next */
    struct sl_str content, reasoning; /* so far, as they came out */
};

/* thinking: the prompt has opened it already. */
void sl_answer_begin(struct sl_answer *a, const struct sl_chat_template *tmpl,
                     bool thinking, const struct sl_answer_sink *sink);
/* Text, whole characters of UTF-8. Errors: SL_ERR_NOMEM, the sink's. */
int sl_answer_push(struct sl_answer *a, const char *text, size_t n,
                   struct sl_error *err);
/* There is no more. */
int sl_answer_end(struct sl_answer *a, struct sl_error *err);
void sl_answer_fini(struct sl_answer *a); /* a zeroed one is fine */

#endif
