/*
 * chat.h - what the files of 'sluice chat' share
 *
 *   cmd_chat.c       options, start and end
 *   chat_talk.c      -p, the conversation, its commands
 *   chat_show.c      answers on the terminal, what turns cost
 *   chat_session.c   the conversation itself, without a person
 */
#ifndef SL_CMD_CHAT_H
#define SL_CMD_CHAT_H

#include "src/cmd/chat_session.h"
#include "src/cmd/generate.h"
#include "src/cmd/line_editor.h"

struct sl_chat_options {
    struct sl_generate_options run; /* the model, sampling, seed, -p, --stats */
    const char *system;             /* NULL: the model's own */
    const char *history;            /* file, or NULL */
    const char *tmpl;               /* name; NULL: the model's */
    const char *tools;              /* file, or NULL */
    uint32_t ctx;                   /* 0: what is usual */
    bool no_think;
};

struct sl_chat {
    const struct sl_chat_options *o;
    struct sl_generate g;         /* the run */
    struct sl_chat_history begun; /* before there is a session */
    struct sl_session session;
    struct sl_line_editor *editor;
    struct sl_detok *detok;
    struct sl_chat_words words;
    const struct sl_chat_template *tmpl;
    json_t *tools;
    size_t most_text;     /* bytes of a text, more than fit */
    struct sl_lines said; /* what -p or -f reads, open while it is needed */
    const char *prompt;   /* the one question; NULL: a conversation */
    struct sl_session_turn last;       /* the turn before; zeroed: none */
    struct sl_run_stats before, after; /* of its passes */
    double guessing_s;                 /* beside them */
    bool thinking;                     /* is what is being shown */
    bool shown;                        /* something of this answer was */
    bool terminal;                     /* standard output is one */
};

/* -- chat_talk.c: the last two return an exit code -- */

/* Reads c->prompt, before anything is done for it. Errors: SL_ERR_IO,
 * SL_ERR_NOMEM; SL_ERR_USAGE for what is no text. */
int sl_chat_read_prompt(struct sl_chat *c, struct sl_error *err);
int sl_chat_prompt(struct sl_chat *c);
int sl_chat_talk(struct sl_chat *c);

/* -- chat_show.c -- */

/* A struct sl_answer_sink's text, opaque being the chat: thinking is for a
 * terminal only, and dim there. */
int sl_chat_show(void *opaque, bool thinking, const char *text, size_t n,
                 struct sl_error *err);
/* Ends the line of an answer. Errors: SL_ERR_IO, EPIPE among them. */
int sl_chat_show_end(struct sl_chat *c, struct sl_error *err);
/* What a person should know of how it ended: lines on standard error. */
void sl_chat_tell_end(const struct sl_chat *c);
/* One line of what the last turn cost; one of how full the context is. */
void sl_chat_print_turn(const struct sl_chat *c);
void sl_chat_print_context(const struct sl_chat *c);

/* What the model's tokenizer does for a conversation. */
struct sl_chat_speaker sl_chat_speaker_of(struct sl_chat *c);

#endif
