#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/base/json.h"
#include "src/base/lines.h"
#include "src/base/utf8.h"
#include "src/cmd/open_vocab.h"
#include "src/cmd/opts.h"

struct args {
    const char *model;
    const char *text; /* NULL: standard input */
    bool whole, plain, pieces, json;
};

enum { OPT_WHOLE = 0x100, OPT_PLAIN, OPT_PIECES, OPT_JSON };

static const struct argp_option options[] = {
    {"model", 'm', "FILE", 0,
     "Model file, or a folder or file with a vocabulary", 0},
    {"whole", OPT_WHOLE, 0, 0,
     "As the model is given a text: with the ids that stand before and behind "
     "it",
     0},
    {"plain", OPT_PLAIN, 0, 0,
     "Take names of special tokens for text, as what a user says in a chat", 0},
    {"pieces", OPT_PIECES, 0, 0, "A line for every id: id, tab, piece", 0},
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
    case OPT_WHOLE:
        a->whole = true;
        return 0;
    case OPT_PLAIN:
        a->plain = true;
        return 0;
    case OPT_PIECES:
        a->pieces = true;
        return 0;
    case OPT_JSON:
        a->json = true;
        return 0;
    case ARGP_KEY_ARG:
        return sl_opt_argument(state, &a->text, "text", arg);
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
    "-m FILE [TEXT]",
    "Show the ids of a text, which is read from standard input if it is not "
    "given.",
    0,
    0,
    0,
};

static int encode(struct sl_tokenizer *t, struct sl_ids *ids,
                  const struct args *a, const char *text, size_t n,
                  struct sl_error *err)
{
    const struct sl_ids *prefix = sl_tokenizer_prefix(t);
    const struct sl_ids *suffix = sl_tokenizer_suffix(t);

    if (a->whole && sl_ids_append(ids, prefix->v, prefix->n, err) != 0)
        return -1;
    if ((a->plain ? sl_tokenizer_encode
                  : sl_tokenizer_encode_special)(t, ids, text, n, err) != 0)
        return -1;
    return a->whole ? sl_ids_append(ids, suffix->v, suffix->n, err) : 0;
}

/* A piece as it is spelt, or, where it is the half of a character, what UTF-8
 * makes of that. *text: owned. */
static int spell(const struct sl_tokenizer *t, int32_t id, struct sl_str *text,
                 struct sl_error *err)
{
    size_t n = sl_tokenizer_piece(t, id, NULL, 0);
    char *piece = malloc(n + 1);
    int rc;

    if (piece == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory for a piece of %zu bytes",
                       n);
    sl_tokenizer_piece(t, id, piece, n + 1);
    sl_str_clear(text);
    rc = sl_utf8_repair(text, piece, n, SL_UTF8_SUBPARTS, err);
    free(piece);
    return rc;
}

static int print_pieces(const struct sl_tokenizer *t, const struct sl_ids *ids,
                        struct sl_error *err)
{
    struct sl_str text = {0};
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < ids->n; i++) {
        rc = spell(t, ids->v[i], &text, err);
        printf("%d\t", ids->v[i]);
        for (size_t k = 0; rc == 0 && k < text.n; k++) {
            unsigned char c = (unsigned char)text.s[k];

            if (c < ' ' || c == 127) /* nothing that moves a terminal */
                printf("\\x%02x", c);
            else
                putchar(c);
        }
        putchar('\n');
    }
    sl_str_fini(&text);
    return rc;
}

static int print_json(const struct sl_tokenizer *t, const struct sl_ids *ids,
                      struct sl_error *err)
{
    json_t *list = json_array(), *pieces = json_array();
    struct sl_str text = {0};
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < ids->n; i++) {
        rc = spell(t, ids->v[i], &text, err);
        json_array_append_new(list, json_integer(ids->v[i]));
        json_array_append_new(pieces,
                              sl_json_textn(text.n > 0 ? text.s : "", text.n));
    }
    sl_str_fini(&text);
    if (rc == 0)
        rc = sl_json_print(stdout,
                           json_pack("{s:s, s:i, s:O, s:O}", "kind",
                                     sl_tokenizer_kind(t), "n", (int)ids->n,
                                     "ids", list, "pieces", pieces),
                           0, err);
    json_decref(list);
    json_decref(pieces);
    return rc;
}

static int show(struct sl_tokenizer *t, const struct args *a,
                struct sl_error *err)
{
    struct sl_ids ids = {0};
    struct sl_lines in = {.fd = STDIN_FILENO, .stop_fd = -1};
    char *read = NULL;
    size_t n = a->text != NULL ? strlen(a->text) : 0;
    int rc = a->text != NULL ? 0 : sl_lines_rest(&in, &read, &n, err);

    if (rc == 0)
        rc = encode(t, &ids, a, a->text != NULL ? a->text : read, n, err);
    if (rc == 0 && a->json)
        rc = print_json(t, &ids, err);
    else if (rc == 0 && a->pieces)
        rc = print_pieces(t, &ids, err);
    else if (rc == 0) {
        for (size_t i = 0; i < ids.n; i++)
            printf("%s%d", i > 0 ? " " : "", ids.v[i]);
        putchar('\n');
    }
    sl_ids_fini(&ids);
    sl_lines_fini(&in);
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

const struct sl_command sl_cmd_tokenize = {
    .name = "tokenize",
    .summary = "show the ids of a text",
    .run = run,
    .argp = &argp,
};
