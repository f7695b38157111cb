/*
 * calls.h - calls of tools in what a model says
 *
 * Each kind of template has its own form (text/chat.h says which):
 *
 *   QWEN      <tool_call>\n{"name": N, "arguments": {..}}\n</tool_call>
 *   GLM45     <tool_call>N\n<arg_key>K</arg_key>\n<arg_value>V</arg_value>\n
 *             ...</tool_call>; GLM47 the same on one line
 *   GLM4      N\n{..}, being all of the answer
 *   CHATGLM3  N\n```python\ntool_call(K=V, ...)\n```, likewise
 *
 * Text outside of calls is content, and comes out as it comes. What looks like
 * a call and is none is content too. Values of GLM45 are text where the tool
 * says that the parameter is a string, else JSON (zai-org/GLM-4.5 on vLLM's
 * glm45 tool parser).
 */
#ifndef SL_SERVE_CALLS_H
#define SL_SERVE_CALLS_H

#include <jansson.h>

#include "src/base/str.h"
#include "src/text/chat.h"

/* Tokens that are marks of calls where a vocabulary has them as such. */
enum { SL_CALL_MARKS = 6 };
extern const char *const sl_call_marks[SL_CALL_MARKS];

struct sl_call_reader { /* zeroed but for these two */
    enum sl_chat_tools kind;
    json_t *tools;      /* OpenAI's list, owned; NULL: there are none */
    struct sl_str held; /* a call, or what may begin one */
    json_t *calls;      /* so far; owned */
};

/* Appends to content what is certain to be no call. Errors: SL_ERR_NOMEM. */
int sl_call_reader_push(struct sl_call_reader *r, struct sl_str *content,
                        const char *text, size_t n, struct sl_error *err);
/* The rest. *calls: OpenAI's tool_calls, moved; NULL: there are none. */
int sl_call_reader_end(struct sl_call_reader *r, struct sl_str *content,
                       json_t **calls, struct sl_error *err);
void sl_call_reader_fini(struct sl_call_reader *r);

#endif
