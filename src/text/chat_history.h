/*
 * chat_history.h - the messages of a conversation, in memory and in a file
 *
 * The file is JSON in OpenAI's form: a list of messages, or an object that has
 * it as "messages":
 *
 *   [{"role": "user", "content": "..."},
 *    {"role": "assistant", "reasoning_content": "...", "content": "..."}]
 *
 * Roles are system (or developer), user, assistant and tool (or observation).
 * What else there is in the file is kept. A turn is a message of the user and
 * all that follows until the next.
 */
#ifndef SL_CHAT_HISTORY_H
#define SL_CHAT_HISTORY_H

#include "src/text/chat.h"

struct sl_chat_history {       /* zeroed to begin with, owned */
    struct sl_chat_message *v; /* what they point to is owned too */
    size_t n, room;
    json_t *frame; /* the object around the list of a file; NULL: none */
};

void sl_chat_history_fini(struct sl_chat_history *h);

/* Adds a message; copies. reasoning may be NULL or empty. What is no UTF-8
 * becomes U+FFFD. Errors: SL_ERR_NOMEM. */
int sl_chat_history_add(struct sl_chat_history *h, enum sl_chat_role role,
                        const char *content, const char *reasoning,
                        struct sl_error *err);
/* Sets the first system message; "" takes it away. */
int sl_chat_history_set_system(struct sl_chat_history *h, const char *text,
                               struct sl_error *err);
/* Keeps the first n messages. */
void sl_chat_history_cut(struct sl_chat_history *h, size_t n);
/* Keeps nothing but the system messages that it begins with. */
void sl_chat_history_clear(struct sl_chat_history *h);

/* Where its first turn begins, and the next one after message i: the number of
 * messages where there is none. */
size_t sl_chat_history_first_turn(const struct sl_chat_history *h);
size_t sl_chat_history_next_turn(const struct sl_chat_history *h, size_t i);

/* Replaces the messages by those of a JSON value (borrowed), of JSON text, or
 * of a file. Errors, after which nothing has changed: SL_ERR_USAGE naming what
 * is wrong and where; SL_ERR_IO, SL_ERR_NOMEM. */
int sl_chat_history_take(struct sl_chat_history *h, const json_t *root,
                         struct sl_error *err);
int sl_chat_history_parse(struct sl_chat_history *h, const char *text, size_t n,
                          struct sl_error *err);
int sl_chat_history_read(struct sl_chat_history *h, const char *path,
                         struct sl_error *err);
/* The file as a whole, or not at all. One that is there and holds something
 * other than a conversation is left alone (SL_ERR_USAGE). Errors: SL_ERR_IO,
 * SL_ERR_NOSPACE, SL_ERR_NOMEM. */
int sl_chat_history_write(const struct sl_chat_history *h, const char *path,
                          struct sl_error *err);

#endif
