#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "src/text/sp_proto.h"
#include "src/text/tokenizer.h"
#include "src/text/vocab_family.h"
#include "src/text/vocab_folder.h"
#include "src/text/vocab_icetk.h"
#include "src/text/vocab_read.h"

#define FILE_MAX (UINT64_C(1) << 30)

/* What is no file (a pipe would wait for ever) is refused before it is opened.
 */
static int check_file(const char *path, struct sl_error *err)
{
    struct stat st;

    if (stat(path, &st) != 0)
        return errno == ENOENT || errno == ENOTDIR
                   ? 1
                   : sl_fail_os(err, errno, "%s", path);
    if (!S_ISREG(st.st_mode))
        return sl_fail(err, SL_ERR_IO, "%s: not a regular file", path);
    if ((uint64_t)st.st_size > FILE_MAX)
        return sl_fail(err, SL_ERR_UNSUPPORTED,
                       "%s: %lld bytes; a vocabulary of up to %llu is possible",
                       path, (long long)st.st_size,
                       (unsigned long long)FILE_MAX);
    return 0;
}

static int read_all(struct sl_str *to, FILE *in, const char *path,
                    struct sl_error *err)
{
    char chunk[1 << 14];
    size_t n;

    do {
        n = fread(chunk, 1, sizeof chunk, in);
        if (sl_str_append(to, chunk, n, err) != 0)
            return -1;
        if (to->n > FILE_MAX)
            return sl_fail(err, SL_ERR_UNSUPPORTED, "%s: it grows", path);
    } while (n > 0);
    return ferror(in) ? sl_fail_os(err, errno, "%s", path) : 0;
}

int sl_vocab_read_dir(void *dir, const char *name, uint8_t **data, size_t *n,
                      struct sl_error *err)
{
    struct sl_str text = {0};
    char path[4096];
    FILE *in;
    int rc;

    if (snprintf(path, sizeof path, "%s/%s", (const char *)dir, name) >=
        (int)sizeof path)
        return sl_fail(err, SL_ERR_USAGE, "%.60s...: a path too long",
                       (const char *)dir);
    rc = check_file(path, err);
    if (rc != 0)
        return rc;
    in = fopen(path, "rb");
    if (in == NULL)
        return sl_fail_os(err, errno, "%s", path);
    rc = read_all(&text, in, path, err);
    fclose(in);
    if (rc != 0) {
        sl_str_fini(&text);
        return -1;
    }
    *data = (uint8_t *)text.s;
    *n = text.n;
    return 0;
}

/* --- the vocabulary itself -------------------------------------------------
 */

struct file {
    const char *name;
    const char *data;
    size_t n;
};

/* What a family adds to the pieces, and the ends of a text. Tokens that the
 * folder lists come first: the family's keep the ids they have there. */
static int finish(struct sl_vocab_folder *f, struct sl_vocab_builder *b,
                  bool self_contained, struct sl_error *err)
{
    if (!self_contained && sl_vocab_folder_added(f, b, err) != 0)
        return -1;
    if (f->family == SL_FAMILY_CHATGLM2 && !self_contained &&
        sl_family_add_chatglm2(b, err) != 0)
        return -1;
    if (f->family == SL_FAMILY_GLM4 && !self_contained &&
        sl_family_add_glm4(b, err) != 0)
        return -1;
    if (sl_vocab_folder_ends(f, b, err) != 0)
        return -1;
    if (f->family == SL_FAMILY_GLM && sl_family_add_glm(b, f->o, err) != 0)
        return -1;
    sl_family_find_controls(b);
    return 0;
}

/* The builder is consumed. */
static int take(struct sl_vocab_made *made, struct sl_vocab_folder *f,
                struct sl_vocab_builder *b, bool self_contained,
                struct sl_error *err)
{
    int rc = finish(f, b, self_contained, err);

    if (rc == 0)
        rc = sl_vocab_builder_finish(b, &made->blob, &made->n, err);
    sl_vocab_builder_destroy(b);
    return rc;
}

static int take_json(struct sl_vocab_made *made, struct sl_vocab_folder *f,
                     const struct file *file, struct sl_error *err)
{
    struct sl_vocab_builder *b;

    return sl_vocab_read_json(&b, file->data, file->n, file->name, err) != 0
               ? -1
               : take(made, f, b, true, err);
}

static int take_merges(struct sl_vocab_made *made, struct sl_vocab_folder *f,
                       const struct file *file, struct sl_error *err)
{
    struct sl_vocab_builder *b;
    uint8_t *merges;
    size_t n;
    int rc = f->source->read(f->source->opaque, "merges.txt", &merges, &n, err);

    if (rc > 0)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "%s: there is no merges.txt beside it", file->name);
    if (rc < 0)
        return -1;
    rc = sl_vocab_read_merges(&b, file->data, file->n, (char *)merges, n,
                              file->name, err);
    free(merges);
    return rc != 0 ? -1 : take(made, f, b, false, err);
}

/* Numbers of ChatGLM-6B's tokenizer. Its first release counts 20000 image
 * tokens, the later none: config.json's bos is <sop>, the fourth behind the
 * pieces. */
static int chatglm_params(struct sl_text_params *tp, struct sl_vocab_folder *f,
                          const struct file *file, struct sl_error *err)
{
    struct sl_sp_reader r;
    struct sl_sp_piece p;
    int64_t n_pieces = 0, bos = sl_vocab_folder_number(f, "bos_token_id");
    int64_t rows = f->o->rows != 0 ? (int64_t)f->o->rows
                                   : sl_vocab_folder_number(f, "vocab_size");
    int rc;

    sl_sp_reader_init(&r, file->data, file->n);
    while ((rc = sl_sp_reader_next(&r, &p, err)) > 0)
        n_pieces++;
    if (rc != 0)
        return -1;
    *tp = (struct sl_text_params){
        .whitespace = SL_WHITESPACE_TOKENS,
        .max_blank = 80,
        .byte_fallback = true,
    };
    if (bos >= n_pieces + 4 && bos - n_pieces - 4 < SL_VOCAB_MAX)
        tp->n_image_tokens = (uint32_t)(bos - n_pieces - 4);
    else if (rows >= n_pieces + 20000)
        tp->n_image_tokens = 20000;
    return 0;
}

static int take_icetk(struct sl_vocab_made *made, struct sl_vocab_folder *f,
                      const struct file *file, struct sl_error *err)
{
    struct sl_text_params tp = f->o->icetk;
    bool chatglm = f->family == SL_FAMILY_CHATGLM;

    if (chatglm && chatglm_params(&tp, f, file, err) != 0)
        return -1;
    return sl_icetk_compile(&made->blob, &made->n, file->data, file->n, &tp,
                            chatglm, err);
}

static int take_model(struct sl_vocab_made *made, struct sl_vocab_folder *f,
                      const struct file *file, struct sl_error *err)
{
    struct sl_vocab_builder *b;

    if (sl_vocab_is_ranks(file->data, file->n)) {
        f->family = SL_FAMILY_GLM4;
        return sl_vocab_read_ranks(&b, file->data, file->n, "glm4", file->name,
                                   err) != 0
                   ? -1
                   : take(made, f, b, false, err);
    }
    if (!sl_sp_is_model(file->data, file->n))
        return sl_fail(err, SL_ERR_CORRUPT,
                       "%s: neither a sentencepiece model nor base64 ranks",
                       file->name);
    if (f->family == SL_FAMILY_CHATGLM || f->family == SL_FAMILY_GLM_130B)
        return take_icetk(made, f, file, err);
    return sl_vocab_read_sp(&b, file->data, file->n, file->name, err) != 0
               ? -1
               : take(made, f, b, false, err);
}

static int take_wordpiece(struct sl_vocab_made *made, struct sl_vocab_folder *f,
                          const struct file *file, struct sl_error *err)
{
    struct sl_vocab_builder *b;
    bool lower = sl_json_true(f->tokenizer_config, "do_lower_case", true);

    return sl_vocab_read_wordpiece(&b, file->data, file->n, lower, file->name,
                                   err) != 0
               ? -1
               : take(made, f, b, false, err);
}

/* --- which file ------------------------------------------------------------
 */

struct form {
    const char *name;
    int (*take)(struct sl_vocab_made *made, struct sl_vocab_folder *f,
                const struct file *file, struct sl_error *err);
    enum sl_vocab_family family; /* where nothing else says */
};

static const struct form forms[] = {
    {"tokenizer.json", take_json, SL_FAMILY_PLAIN},
    {"vocab.json", take_merges, SL_FAMILY_PLAIN},
    {"tokenizer.model", take_model, SL_FAMILY_PLAIN},
    {"ice_text.model", take_model, SL_FAMILY_GLM_130B},
    {"cog-pretrain.model", take_model, SL_FAMILY_GLM},
    {"vocab.txt", take_wordpiece, SL_FAMILY_PLAIN},
};

/* A file of another name, by what it holds. */
static const struct form *look(const struct file *file)
{
    size_t i = 0;

    while (i < file->n && strchr(" \t\r\n", file->data[i]) != NULL)
        i++;
    if (i < file->n && file->data[i] == '{')
        return &forms[memmem(file->data, file->n, "\"model\"", 7) != NULL ? 0
                                                                          : 1];
    if (sl_vocab_is_ranks(file->data, file->n) ||
        sl_sp_is_model(file->data, file->n))
        return &forms[2];
    return &forms[5];
}

static const struct form *form_of(const struct file *file)
{
    const char *slash = strrchr(file->name, '/');
    const char *name = slash != NULL ? slash + 1 : file->name;

    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        if (strcmp(forms[i].name, name) == 0)
            return &forms[i];
    }
    return look(file);
}

static bool begins(const char *s, const char *what)
{
    return strncmp(s, what, strlen(what)) == 0;
}

/* The publishers' own classes say whose rules hold. */
static void find_family(struct sl_vocab_folder *f, const struct form *form)
{
    const char *class = sl_vocab_folder_class(f);
    const char *type = sl_json_text_of(f->config, "model_type");

    if (f->family != SL_FAMILY_AUTO)
        return;
    f->family = form->family;
    if (begins(class, "GLM") && !begins(class, "GLM4"))
        f->family = SL_FAMILY_GLM;
    else if (form->family == SL_FAMILY_GLM_130B &&
             (begins(class, "ChatGLM") || strcmp(type, "chatglm") == 0))
        f->family = SL_FAMILY_CHATGLM;
    else if (form->family == SL_FAMILY_PLAIN && form->take == take_model &&
             (begins(class, "ChatGLM") || strcmp(type, "chatglm") == 0))
        f->family = SL_FAMILY_CHATGLM2;
}

/* 0, 1 where no such file is there, -1. */
static int try_form(struct sl_vocab_made *made, struct sl_vocab_folder *f,
                    const char *name, struct sl_error *err)
{
    uint8_t *data;
    struct file file = {.name = name};
    const struct form *form;
    int rc = f->source->read(f->source->opaque, name, &data, &file.n, err);

    if (rc != 0)
        return rc;
    file.data = (char *)data;
    form = form_of(&file);
    if (file.n == 0) {
        rc = sl_fail(err, SL_ERR_CORRUPT, "%s: is empty", name);
    } else {
        find_family(f, form);
        rc = form->take(made, f, &file, err);
        if (rc == 0)
            snprintf(made->took, sizeof made->took, "%s", name);
    }
    free(data);
    return rc < 0 ? -1 : 0;
}

static int find_file(struct sl_vocab_made *made, struct sl_vocab_folder *f,
                     struct sl_error *err)
{
    enum sl_vocab_family asked = f->family;
    int rc = 1;

    if (f->o->file != NULL)
        return try_form(made, f, f->o->file, err);
    for (size_t i = 0; rc == 1 && i < sizeof forms / sizeof *forms; i++) {
        struct sl_error first;

        rc = try_form(made, f, forms[i].name, err);
        if (rc >= 0 || i > 0 || err->code != SL_ERR_UNSUPPORTED)
            continue;
        /* A tokenizer.json that only wraps a sentencepiece model of another
         * kind: the model itself may lie beside it. */
        first = *err;
        f->family = asked;
        rc = try_form(made, f, "tokenizer.model", err);
        if (rc == 1) {
            *err = first;
            rc = -1;
        }
    }
    return rc;
}

/* --- the whole -------------------------------------------------------------
 */

int sl_vocab_made_check(struct sl_vocab_made *made, uint32_t rows,
                        const char *stops_from, struct sl_error *err)
{
    struct sl_tokenizer *t;
    struct sl_text_params *tp = &made->text;
    size_t n = strlen(made->took);

    if (sl_tokenizer_describe(tp, made->blob, made->n, err) != 0)
        return -1;
    if (rows != 0 && tp->n_tokens > rows)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "it has %u ids, but the embedding %u rows: they do not "
                       "belong together",
                       tp->n_tokens, rows);
    if (sl_tokenizer_create(&t, made->blob, made->n, tp,
                            rows != 0 ? rows : tp->n_tokens, err) != 0)
        return -1;
    snprintf(made->took + n, sizeof made->took - n,
             ": %s, %u ids, %zu that end an answer%s%s", sl_tokenizer_kind(t),
             tp->n_tokens, sl_tokenizer_stops(t)->n,
             stops_from != NULL ? " by " : "",
             stops_from != NULL ? stops_from : "");
    sl_tokenizer_destroy(t);
    return 0;
}

int sl_vocab_compile(struct sl_vocab_made *out,
                     const struct sl_vocab_source *source,
                     const struct sl_vocab_options *options,
                     struct sl_error *err)
{
    struct sl_vocab_made made = {0};
    struct sl_vocab_folder f;
    int rc;

    if (sl_vocab_folder_open(&f, source, options, err) != 0)
        return -1;
    rc = find_file(&made, &f, err);
    if (rc == 0 &&
        sl_vocab_made_check(&made, f.o->rows, f.stops_from, err) != 0) {
        sl_error_prefix(err, "%s: ", made.took);
        rc = -1;
    }
    made.family = f.family;
    sl_vocab_folder_close(&f);
    if (rc != 0) {
        sl_vocab_made_fini(&made);
        return rc;
    }
    *out = made;
    return 0;
}

void sl_vocab_made_fini(struct sl_vocab_made *made)
{
    free(made->blob);
    *made = (struct sl_vocab_made){0};
}
