#include "config.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/base/json.h"
#include "src/base/lines.h"
#include "src/cmd/open_vocab.h"
#include "src/cmd/opts.h"

struct args {
    const char *model;
    char **ids; /* borrowed */
    int n_ids;
    bool hide, json;
};

enum { OPT_HIDE = 0x100, OPT_JSON };

static const struct argp_option options[] = {
    {"model", 'm', "FILE", 0,
     "Model file, or a folder or file with a vocabulary", 0},
    {"hide-special", OPT_HIDE, 0, 0, "Leave special tokens out", 0},
    {"json", OPT_JSON, 0, 0, "Print one JSON object", 0},
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct args *a = state->input;

    switch (key) {
    case 'm':
        a->model = arg;
        return 0;
    case OPT_HIDE:
        a->hide = true;
        return 0;
    case OPT_JSON:
        a->json = true;
        return 0;
    case ARGP_KEY_ARGS:
        a->ids = state->argv + state->next;
        a->n_ids = state->argc - state->next;
        return 0;
    case ARGP_KEY_END:
        if (a->model == NULL)
            argp_error(state, "no model given: -m FILE");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp argp = {
    options,
    parse,
    "-m FILE [ID...]",
    "Show the text of ids, which are read from standard input if none is "
    "given.",
    0,
    0,
    0,
};

/* Ids between blanks and commas, in brackets or without: what 'sluice
 * tokenize' prints, and what lists look like elsewhere. */
static int add_ids(struct sl_ids *ids, const char *text,
                   const struct sl_tokenizer *t, struct sl_error *err)
{
    const char *at = text;

    for (;;) {
        char *end;
        long id;

        at += strspn(at, " \t\r\n,[]");
        if (*at == '\0')
            return 0;
        errno = 0;
        id = strtol(at, &end, 10);
        if (!isdigit((unsigned char)*at) || errno != 0 ||
            strchr(" \t\r\n,]", *end) == NULL)
            return sl_fail(err, SL_ERR_USAGE, "'%.20s' is not an id", at);
        if (id >= (long)sl_tokenizer_n_tokens(t))
            return sl_fail(err, SL_ERR_USAGE,
                           "there is no id %ld; the vocabulary has %u", id,
                           sl_tokenizer_n_tokens(t));
        if (sl_ids_add(ids, (int32_t)id, err) != 0)
            return -1;
        at = end;
    }
}

static int read_ids(struct sl_ids *ids, const struct args *a,
                    const struct sl_tokenizer *t, struct sl_error *err)
{
    struct sl_lines in = {.fd = STDIN_FILENO, .stop_fd = -1};
    char *text, *whole;
    size_t n;
    int rc;

    for (int i = 0; i < a->n_ids; i++) {
        if (add_ids(ids, a->ids[i], t, err) != 0)
            return -1;
    }
    if (a->n_ids > 0)
        return 0;
    rc = sl_lines_rest(&in, &text, &n, err);
    if (rc == 0) {
        whole = strndup(text, n);
        rc = whole == NULL ? sl_fail(err, SL_ERR_NOMEM, "no memory for the ids")
                           : add_ids(ids, whole, t, err);
        free(whole);
    }
    sl_lines_fini(&in);
    return rc;
}

static int show(struct sl_tokenizer *t, const struct args *a,
                struct sl_error *err)
{
    struct sl_ids ids = {0};
    char *text = NULL;
    size_t n;
    int rc = read_ids(&ids, a, t, err);

    if (rc == 0)
        rc = sl_tokenizer_decode_as(
            t, a->hide ? SL_SPECIALS_HIDDEN : SL_SPECIALS_SHOWN, ids.v, ids.n,
            &text, &n, err);
    if (rc == 0 && a->json) {
        rc = sl_json_print(stdout,
                           json_pack("{s:i, s:o}", "n", (int)ids.n, "text",
                                     sl_json_textn(text, n)),
                           0, err);
    } else if (rc == 0) {
        fwrite(text, 1, n, stdout);
        putchar('\n');
    }
    free(text);
    sl_ids_fini(&ids);
    return rc;
}

static int run(int argc, char **argv)
{
    struct sl_error err = {0};
    struct sl_tokenizer *t;
    struct args a = {0};
    int rc = sl_parse_args(&argp, argc, argv, &a);

    if (rc != 0)
        return rc;
    if (sl_open_vocab(&t, a.model, &err) != 0)
        return sl_report(&err);
    rc = show(t, &a, &err) != 0 ? sl_report(&err) : SL_EXIT_OK;
    sl_tokenizer_destroy(t);
    return sl_finish_stdout(rc);
}

const struct sl_command sl_cmd_detokenize = {
    .name = "detokenize",
    .summary = "show the text of ids",
    .run = run,
    .argp = &argp,
};
