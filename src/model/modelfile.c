#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "offload/io.h"
#include "src/base/bytes.h"
#include "src/base/direct.h"
#include "src/base/mem.h"
#include "src/model/model_layout.h"
#include "src/model/model_meta.h"
#include "src/model/modelfile.h"

/* The first read; GLM-130B's header needs a second one. */
#define FIRST_READ_BYTES (64u << 10)

/* Before it is opened: opening a pipe waits until somebody writes to it. */
static int check_kind(const char *path, struct sl_error *err)
{
    struct stat st;

    if (stat(path, &st) != 0 || S_ISREG(st.st_mode))
        return 0;
    return sl_fail(err, SL_ERR_CORRUPT,
                   "%s: a %s, not a model file as 'sluice convert' writes",
                   path,
                   S_ISDIR(st.st_mode)    ? "folder"
                   : S_ISFIFO(st.st_mode) ? "pipe"
                                          : "device");
}

/* Direct where that is possible: some file systems refuse the flag, some
 * take it and read through their cache all the same, which is then slower
 * than a plain read. */
static int open_file(struct sl_modelfile *mf, struct sl_error *err)
{
    struct stat st;

    if (check_kind(mf->path, err) != 0)
        return -1;
    mf->fd = open(mf->path, O_RDONLY | O_CLOEXEC | O_DIRECT);
    if (mf->fd >= 0 && !sl_file_is_direct(mf->fd)) {
        close(mf->fd);
        mf->fd = -1;
        errno = EINVAL;
    }
    if (mf->fd < 0 && errno == EINVAL)
        mf->fd = open(mf->path, O_RDONLY | O_CLOEXEC);
    if (mf->fd < 0)
        return sl_fail_os(err, errno, "%s: cannot open the model file",
                          mf->path);
    if (fstat(mf->fd, &st) != 0)
        return sl_fail_os(err, errno, "%s: cannot tell the file's length",
                          mf->path);
    mf->file_bytes = (uint64_t)st.st_size;
    return 0;
}

/* Reads as much of the file as its header turns out to need, in whole pages,
 * so that the header's padding is read too. *n bytes of *data (page-aligned,
 * free) were read; on failure *data may be set too. */
static int read_header(struct sl_modelfile *mf, uint8_t **data, size_t *n,
                       struct sl_error *err)
{
    size_t need = FIRST_READ_BYTES, room;
    void *p;
    int rc;

    do {
        room = (size_t)sl_round_up(need, SL_PAGE_BYTES);
        *n = mf->file_bytes < room ? (size_t)mf->file_bytes : room;
        free(*data);
        *data = NULL;
        if (posix_memalign(&p, SL_PAGE_BYTES, room) != 0)
            return sl_fail(err, SL_ERR_NOMEM,
                           "no memory for a header of %zu bytes", *n);
        *data = p;
        if (sl_io_read_full(mf->fd, mf->path, p, 0, *n, err) != 0)
            return -1;
        rc = sl_gguf_parse(&mf->gguf, p, *n, mf->file_bytes, &need, err);
    } while (rc > 0);
    if (rc < 0)
        sl_error_prefix(err, "%s: ", mf->path);
    return rc;
}

static int check_sum(const struct sl_modelfile *mf, const uint8_t *data,
                     size_t n, struct sl_error *err)
{
    uint64_t bytes = sl_gguf_data_off(mf->gguf);

    /* Whole pages were read and the alignment is one: only the file's end can
       be missing. */
    if (bytes > n)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "the file ends at %llu inside the header: it was cut "
                       "short; convert again or copy again",
                       (unsigned long long)mf->file_bytes);
    return sl_model_meta_check_sum(mf->gguf, data, (size_t)bytes, err);
}

/* Told apart because the remedy differs: a copy that was cut short is copied
 * again, one with something behind it is a wrong file. */
static int check_length(const struct sl_modelfile *mf, struct sl_error *err)
{
    uint64_t need = mf->layout->file_bytes;

    if (mf->file_bytes < need)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "the file ends at %llu and needs %llu: it was cut "
                       "short; convert again or copy again",
                       (unsigned long long)mf->file_bytes,
                       (unsigned long long)need);
    if (mf->file_bytes > need)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "the file goes on to %llu and the model ends at %llu: "
                       "something was appended; convert again or copy again",
                       (unsigned long long)mf->file_bytes,
                       (unsigned long long)need);
    return 0;
}

/* Where the chunks of a compressed stage are kept. */
static int read_table(struct sl_compressed *p, const struct sl_modelfile *mf,
                      const struct sl_model_section *s, struct sl_error *err)
{
    size_t n;
    uint8_t *table;

    p->off = s->off;
    p->bytes = s->table_off - s->off;
    p->chunk_bytes = s->chunk_bytes;
    p->planes = s->planes;
    n = sl_compressed_chunks(p->bytes, p->chunk_bytes);
    p->at = sl_zalloc_array(n + 1, sizeof *p->at);
    table = sl_alloc_array((size_t)s->table_bytes, 1);
    if (p->at == NULL || table == NULL ||
        sl_modelfile_read(mf, table, s->table_off, (size_t)s->table_bytes,
                          err) != 0) {
        free(table);
        return p->at != NULL && table != NULL
                   ? -1
                   : sl_fail(err, SL_ERR_NOMEM, "no memory for %zu chunks", n);
    }
    p->n_chunks = n;
    for (size_t i = 0; i < n; i++) {
        uint32_t kept = sl_load_u32(table + 4 * i);

        p->at[i + 1] = p->at[i] + kept;
        if (kept != 0 && kept <= sl_compressed_chunk_bytes(p, i))
            continue;
        free(table);
        return sl_fail(err, SL_ERR_CORRUPT,
                       "section '%s': chunk %zu of %zu is kept in %u bytes and "
                       "stands for %zu: damaged; convert again or copy again",
                       s->name, i, n, kept, sl_compressed_chunk_bytes(p, i));
    }
    free(table);
    return 0;
}

static int read_tables(struct sl_modelfile *mf, struct sl_error *err)
{
    for (size_t i = 0; i < mf->n_sections; i++) {
        if (mf->sections[i].planes == 0)
            continue;
        if (mf->compressed == NULL)
            mf->compressed =
                sl_zalloc_array(mf->n_sections, sizeof *mf->compressed);
        if (mf->compressed == NULL)
            return sl_fail(err, SL_ERR_NOMEM, "no memory for %zu tables",
                           mf->n_sections);
        if (read_table(&mf->compressed[i], mf, &mf->sections[i], err) != 0)
            return -1;
    }
    return 0;
}

/* What callers see of the layout, borrowed from it. */
static void publish(struct sl_modelfile *mf)
{
    struct sl_layout *l = mf->layout;

    mf->hp = l->hp;
    mf->name = l->name;
    mf->quant = l->quant;
    mf->chat = l->chat;
    mf->no_text = l->no_text;
    mf->matrices = l->matrices;
    mf->n_matrices = l->n_matrices;
    mf->small = l->small;
    mf->n_small = l->n_small;
    mf->sections = l->sections;
    mf->n_sections = l->n_sections;
    mf->first_stage = l->first_stage;
    mf->tokenizer_off = l->tokenizer_off;
    mf->tokenizer_bytes = l->tokenizer_bytes;
}

/* Bytes that a disk moves in a second, as a guess of what converting takes. */
#define GUESSED_BPS (1ull << 30)

/* A GGUF file as it is published has its rows one after another; here sixteen
 * lie side by side, so that every instruction set reads them alike. Parts of a
 * split one are as large as it, more or less. */
static int refuse_published(const struct sl_modelfile *mf, struct sl_error *err)
{
    char size[SL_SIZE_TEXT];
    struct sl_error no;
    uint64_t bytes = mf->file_bytes, parts;

    if (sl_gguf_get_u64(mf->gguf, "split.count", &parts, &no) == 0 &&
        parts >= 1 && parts < 10000)
        bytes *= parts;

    return sl_fail(
        err, SL_ERR_UNSUPPORTED,
        "a GGUF file as it is published, which has to be converted "
        "first: some %llu s, and %s more on the disk: sluice convert "
        "%s -o MODEL.gguf",
        (unsigned long long)(2 * bytes / GUESSED_BPS + 1),
        sl_size_format(size, bytes), mf->path);
}

/* Everything there is to check once the container has been understood. */
static int check_model(struct sl_modelfile *mf, const uint8_t *data, size_t n,
                       struct sl_error *err)
{
    if (!sl_model_meta_is_ours(mf->gguf))
        return refuse_published(mf, err);
    if (sl_model_meta_check(mf->gguf, &mf->arch, err) != 0 ||
        check_sum(mf, data, n, err) != 0)
        return -1;
    mf->layout = calloc(1, sizeof *mf->layout);
    if (mf->layout == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory for the model's layout");
    if (sl_model_meta_read(mf->layout, mf->gguf, mf->arch, err) != 0 ||
        check_length(mf, err) != 0)
        return -1;
    publish(mf);
    return read_tables(mf, err);
}

int sl_modelfile_open(struct sl_modelfile *mf, const char *path,
                      struct sl_error *err)
{
    struct sl_modelfile made = {.fd = -1};
    uint8_t *data = NULL;
    size_t n = 0;
    int rc = -1;

    made.path = strdup(path);
    if (made.path == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "%s: no memory to open it", path);
    if (open_file(&made, err) == 0 && read_header(&made, &data, &n, err) == 0) {
        rc = check_model(&made, data, n, err);
        if (rc != 0)
            sl_error_prefix(err, "%s: ", path);
    }
    free(data);
    if (rc == 0)
        *mf = made;
    else
        sl_modelfile_close(&made);
    return rc;
}

int sl_modelfile_imagine(struct sl_modelfile *mf, const char *path,
                         struct sl_layout *layout, struct sl_error *err)
{
    struct sl_modelfile made = {
        .arch = layout->arch,
        .file_bytes = layout->file_bytes,
        .path = strdup(path),
        .layout = calloc(1, sizeof *layout),
        .fd = -1,
    };

    if (made.path == NULL || made.layout == NULL) {
        free(made.path);
        free(made.layout);
        return sl_fail(err, SL_ERR_NOMEM, "%s: no memory for a model", path);
    }
    *made.layout = *layout;
    *layout = (struct sl_layout){0};
    publish(&made);
    *mf = made;
    return 0;
}

void sl_modelfile_close(struct sl_modelfile *mf)
{
    sl_modelfile_close_mirror(mf);
    for (size_t i = 0; mf->compressed != NULL && i < mf->n_sections; i++)
        free(mf->compressed[i].at);
    free(mf->compressed);
    if (mf->layout != NULL)
        sl_layout_fini(mf->layout);
    free(mf->layout);
    sl_gguf_destroy(mf->gguf);
    /* A zeroed struct was never opened; its descriptor is nobody's. */
    if (mf->path != NULL && mf->fd >= 0)
        close(mf->fd);
    free(mf->path);
    *mf = (struct sl_modelfile){.fd = -1};
}

const struct sl_model_matrix *sl_modelfile_matrix(const struct sl_modelfile *mf,
                                                  enum sl_slot slot,
                                                  uint32_t layer)
{
    /* Those of the model stand at the end. */
    for (size_t i = mf->n_matrices; i-- > 0;) {
        const struct sl_tensor_spec *spec = &mf->matrices[i].spec;

        if (spec->slot == slot && spec->layer == layer)
            return &mf->matrices[i];
    }
    return NULL;
}

const struct sl_model_matrix *sl_modelfile_expert(const struct sl_modelfile *mf,
                                                  uint32_t layer,
                                                  uint32_t expert)
{
    const struct sl_hparams *hp = &mf->hp;
    size_t each = mf->arch->n_expert_rows;
    size_t behind = (size_t)(hp->n_layers - layer) * hp->n_experts - expert;

    /* They stand at the end. */
    return &mf->matrices[mf->n_matrices - behind * each];
}

uint64_t sl_modelfile_record_bytes(const struct sl_modelfile *mf,
                                   const struct sl_model_matrix *first)
{
    return mf->sections[first->section].bytes;
}

bool sl_modelfile_has_planes(const struct sl_modelfile *mf)
{
    for (size_t i = 0; i < mf->n_matrices; i++) {
        if (mf->matrices[i].low_bytes > 0)
            return true;
    }
    return false;
}

const struct sl_model_matrix *
sl_modelfile_embedding(const struct sl_modelfile *mf)
{
    uint32_t of_model = mf->hp.n_layers;
    const struct sl_model_matrix *own =
        sl_modelfile_matrix(mf, SL_SLOT_EMBED, of_model);

    return own != NULL ? own : sl_modelfile_matrix(mf, SL_SLOT_HEAD, of_model);
}
