#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "src/cmd/open_vocab.h"
#include "src/text/vocab_compile.h"

int sl_no_vocab(const struct sl_modelfile *mf, struct sl_error *err)
{
    return sl_fail(err, SL_ERR_UNSUPPORTED,
                   "%s: holds no tokenizer, so it knows no text%s%s; convert "
                   "the checkpoint again with its tokenizer",
                   mf->path, mf->no_text != NULL ? ": " : "",
                   mf->no_text != NULL ? mf->no_text : "");
}

int sl_open_vocab_of(struct sl_tokenizer **t, const struct sl_modelfile *mf,
                     struct sl_error *err)
{
    uint8_t *data;
    int rc;

    if (mf->tokenizer_bytes == 0)
        return sl_no_vocab(mf, err);
    data = malloc(mf->tokenizer_bytes);
    if (data == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "%s: no memory for its vocabulary",
                       mf->path);
    rc = sl_modelfile_read(mf, data, mf->tokenizer_off, mf->tokenizer_bytes,
                           err);
    if (rc == 0)
        rc = sl_tokenizer_create(t, data, mf->tokenizer_bytes, &mf->hp.text,
                                 mf->hp.vocab, err);
    free(data);
    if (rc != 0)
        sl_error_prefix(err, "%s: ", mf->path);
    return rc;
}

static bool is_gguf(const char *path)
{
    FILE *in = fopen(path, "rb");
    char magic[4] = "";
    bool is = in != NULL && fread(magic, 1, 4, in) == 4 &&
              memcmp(magic, "GGUF", 4) == 0;

    if (in != NULL)
        fclose(in);
    return is;
}

static int open_folder(struct sl_tokenizer **t, const char *dir,
                       const char *file, struct sl_error *err)
{
    struct sl_vocab_source source = {sl_vocab_read_dir, (void *)dir};
    struct sl_vocab_options o = {.file = file};
    struct sl_vocab_made made;
    int rc = sl_vocab_compile(&made, &source, &o, err);

    if (rc > 0)
        return sl_fail(err, SL_ERR_USAGE,
                       "%s: there is no vocabulary in it: no tokenizer.json, "
                       "tokenizer.model, vocab.json or vocab.txt",
                       dir);
    if (rc < 0)
        return -1;
    rc = sl_tokenizer_create(t, made.blob, made.n, &made.text,
                             made.text.n_tokens, err);
    sl_vocab_made_fini(&made);
    return rc;
}

int sl_open_vocab(struct sl_tokenizer **t, const char *path,
                  struct sl_error *err)
{
    struct sl_modelfile mf;
    const char *slash = strrchr(path, '/');
    struct stat st;
    char dir[4096];
    int rc;

    if (stat(path, &st) != 0)
        return sl_fail_os(err, errno, "%s", path);
    if (S_ISDIR(st.st_mode))
        return open_folder(t, path, NULL, err);
    if (!S_ISREG(st.st_mode))
        return sl_fail(err, SL_ERR_IO, "%s: not a regular file", path);
    if (!is_gguf(path)) {
        snprintf(dir, sizeof dir, "%.*s",
                 slash == NULL   ? 1
                 : slash == path ? 1
                                 : (int)(slash - path),
                 slash == NULL ? "." : path);
        return open_folder(t, dir, slash != NULL ? slash + 1 : path, err);
    }
    if (sl_modelfile_open(&mf, path, err) != 0)
        return -1;
    rc = sl_open_vocab_of(t, &mf, err);
    sl_modelfile_close(&mf);
    return rc;
}
