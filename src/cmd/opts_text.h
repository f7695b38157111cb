/*
 * opts_text.h - what is asked and how long the answer may be, as llama.cpp
 * calls it: -n, -f, --stop, --no-display-prompt
 */
#ifndef SL_OPTS_TEXT_H
#define SL_OPTS_TEXT_H

#include "src/base/lines.h"
#include "src/cmd/opts.h"
#include "src/text/stopper.h"

enum {
    SL_OPT_STOP = 0x2b0,
    SL_OPT_NO_DISPLAY_PROMPT,
    SL_OPT_COLOR,
};

/* Rows of a command's table of options, in a group. */
#define SL_TEXT_ROWS(group)                                                    \
    SL_TEXT_ROW("file", 'f', "FILE", "As -p, with the text in FILE", group),   \
        SL_TEXT_ROW("n-predict", 'n', "N",                                     \
                    "Most tokens of an answer; 0: as many as there is room "   \
                    "for (default)",                                           \
                    group),                                                    \
        SL_TEXT_ROW("predict", 0, 0, 0, group),                                \
        SL_TEXT_ROW("stop", SL_OPT_STOP, "TEXT",                               \
                    "End an answer before TEXT; may be given several times",   \
                    group),                                                    \
        SL_TEXT_ROW("no-display-prompt", SL_OPT_NO_DISPLAY_PROMPT, 0,          \
                    "Print what is new alone", group)
#define SL_COLOR_ROW(group)                                                    \
    SL_TEXT_ROW(                                                               \
        "color", SL_OPT_COLOR, "WHEN",                                         \
        "auto, always or never: tell what is new by colours (default: "        \
        "auto, on terminals, unless $NO_COLOR is set)",                        \
        group)
#define SL_TEXT_ROW(name, key, arg, what, group)                               \
    {                                                                          \
        name, key, arg, (what) == 0 ? OPTION_ALIAS : 0, what, group            \
    }

struct sl_text_options {
    const char *prompt_file; /* -f, or NULL */
    uint32_t most_new;       /* 0: no limit */
    struct sl_stops stops;   /* owned */
    bool hide_prompt;
    enum sl_color color;
    char dash[2]; /* "-": the -p that -f is */
};

/* Takes one of these options; false: it is none. */
bool sl_opt_text(struct sl_text_options *o, int key, char *arg,
                 struct argp_state *state);
void sl_text_options_fini(struct sl_text_options *o);

/* All of -f's file, or of standard input, without its last line end; *text is
 * borrowed from in (sl_lines_fini), whose most the caller set. Errors:
 * SL_ERR_IO, SL_ERR_NOMEM, SL_ERR_INTERRUPTED. */
int sl_text_read_prompt(const struct sl_text_options *o, struct sl_lines *in,
                        char **text, size_t *n, struct sl_error *err);

#endif
