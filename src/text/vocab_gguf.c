#include "config.h"

#include <stdio.h>
#include <string.h>

#include "src/text/pretok.h"
#include "src/text/textnorm.h"
#include "src/text/vocab_family.h"
#include "src/text/vocab_gguf.h"

#define KEY(name) "tokenizer.ggml." name

/* What the metadata has of the tokens, an item for each. */
struct tokens {
    const char *const *text;
    size_t n;
    const uint64_t *type; /* enum sl_piece_type; NULL: not said */
    const float *score;   /* NULL: not said */
};

static int same_length(const char *key, size_t n, size_t want,
                       struct sl_error *err)
{
    if (n == want)
        return 0;
    return sl_fail(err, SL_ERR_CORRUPT,
                   "metadata '%s' has %zu items, but there are %zu tokens", key,
                   n, want);
}

static int read_tokens(struct tokens *t, const struct sl_gguf *g,
                       struct sl_error *err)
{
    size_t n;

    if (sl_gguf_get_string_array(g, KEY("tokens"), &t->text, &t->n, err) != 0)
        return -1;
    if (t->n == 0 || t->n > SL_VOCAB_MAX)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "metadata '%s' has %zu items; 1 to %u are possible",
                       KEY("tokens"), t->n, SL_VOCAB_MAX);
    if (sl_gguf_has(g, KEY("token_type")) &&
        (sl_gguf_get_u64_array(g, KEY("token_type"), &t->type, &n, err) != 0 ||
         same_length(KEY("token_type"), n, t->n, err) != 0))
        return -1;
    if (sl_gguf_has(g, KEY("scores")) &&
        (sl_gguf_get_f32_array(g, KEY("scores"), &t->score, &n, err) != 0 ||
         same_length(KEY("scores"), n, t->n, err) != 0))
        return -1;
    for (size_t i = 0; t->type != NULL && i < t->n; i++) {
        if (t->type[i] > SL_PIECE_BYTE)
            return sl_fail(err, SL_ERR_CORRUPT,
                           "metadata '%s': token %zu is of type %llu; types 0 "
                           "to %u are possible",
                           KEY("token_type"), i, (unsigned long long)t->type[i],
                           SL_PIECE_BYTE);
    }
    return 0;
}

/* *id = -1 where the key is absent, or says that there is none. */
static int read_id(int32_t *id, const struct sl_gguf *g, const char *key,
                   size_t n_tokens, struct sl_error *err)
{
    int64_t v;

    *id = -1;
    if (!sl_gguf_has(g, key))
        return 0;
    if (sl_gguf_get_i64(g, key, &v, err) != 0)
        return -1;
    if (v == -1 || v == UINT32_MAX)
        return 0;
    if (v < 0 || (uint64_t)v >= n_tokens)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "metadata '%s' is %lld, but there are %zu tokens", key,
                       (long long)v, n_tokens);
    *id = (int32_t)v;
    return 0;
}

static enum sl_piece_type type_of(const struct tokens *t, size_t id)
{
    return t->type == NULL || t->type[id] == 0
               ? SL_PIECE_NORMAL
               : (enum sl_piece_type)t->type[id];
}

/* --- sentencepiece ---------------------------------------------------------
 */

/* The library wants exactly one unknown piece: the one of that type, else
 * (types came later than scores) the one whose id is named, else 0, which is
 * llama.cpp's (src/llama-vocab.cpp). */
static int unknown_piece(int32_t *id, const struct tokens *t,
                         const struct sl_gguf *g, struct sl_error *err)
{
    for (size_t i = 0; i < t->n; i++) {
        if (type_of(t, i) == SL_PIECE_UNKNOWN) {
            *id = (int32_t)i;
            return 0;
        }
    }
    if (read_id(id, g, KEY("unknown_token_id"), t->n, err) != 0)
        return -1;
    if (*id < 0)
        *id = 0;
    return 0;
}

/* Padding rows stay pieces that nothing matches: the model has no holes. */
static int take_sentencepiece(struct sl_vocab_builder *b,
                              const struct tokens *t, const struct sl_gguf *g,
                              struct sl_error *err)
{
    bool blank_first = true;
    int32_t unknown;

    if (unknown_piece(&unknown, t, g, err) != 0)
        return -1;
    if (t->score == NULL)
        return sl_fail(err, SL_ERR_CORRUPT, "metadata '%s' is missing",
                       KEY("scores"));
    if (sl_gguf_has(g, KEY("add_space_prefix")) &&
        sl_gguf_get_bool(g, KEY("add_space_prefix"), &blank_first, err) != 0)
        return -1;
    for (size_t id = 0; id < t->n; id++) {
        enum sl_piece_type type =
            id == (size_t)unknown ? SL_PIECE_UNKNOWN : type_of(t, id);
        const char *s = t->text[id];
        size_t n = strlen(s);

        if (!(t->score[id] >= -1e30f && t->score[id] <= 1e30f))
            return sl_fail(err, SL_ERR_CORRUPT,
                           "metadata '%s': token %zu has the score %g",
                           KEY("scores"), id, (double)t->score[id]);
        if (sl_vocab_add_piece(b, (uint32_t)id, s, n, type, err) != 0 ||
            sl_vocab_set_score(b, (uint32_t)id, t->score[id], err) != 0)
            return -1;
        if (n > 0 && (type == SL_PIECE_CONTROL || type == SL_PIECE_USER) &&
            sl_vocab_add_added(b, (uint32_t)id, s, n,
                               type == SL_PIECE_CONTROL ? SL_ADDED_SPECIAL : 0u,
                               err) != 0)
            return -1;
    }
    sl_vocab_set_control(b, SL_CONTROL_UNK, unknown);
    sl_vocab_set_number(b, SL_VOCAB_STRIP_BLANK, blank_first);
    return 0;
}

/* --- byte-level BPE --------------------------------------------------------
 */

/* Control and user-defined tokens are cut out of a text and are no pieces;
 * padding rows are holes. */
static int take_bpe_tokens(struct sl_vocab_builder *b, const struct tokens *t,
                           struct sl_error *err)
{
    for (size_t id = 0; id < t->n; id++) {
        enum sl_piece_type type = type_of(t, id);
        const char *s = t->text[id];
        size_t n = strlen(s);
        int rc = 0;

        if (type == SL_PIECE_UNUSED || n == 0)
            continue;
        if (type == SL_PIECE_CONTROL || type == SL_PIECE_UNKNOWN)
            rc = sl_vocab_add_added(b, (uint32_t)id, s, n, SL_ADDED_SPECIAL,
                                    err);
        else if (type == SL_PIECE_USER)
            rc = sl_vocab_add_added(b, (uint32_t)id, s, n, 0, err);
        else
            rc =
                sl_vocab_add_piece(b, (uint32_t)id, s, n, SL_PIECE_NORMAL, err);
        if (rc != 0)
            return -1;
    }
    return 0;
}

static int take_merges(struct sl_vocab_builder *b, const struct sl_gguf *g,
                       struct sl_error *err)
{
    const char *const *merges;
    size_t n;

    if (sl_gguf_get_string_array(g, KEY("merges"), &merges, &n, err) != 0)
        return -1;
    for (size_t i = 0; i < n; i++) {
        const char *s = merges[i];
        /* A piece may begin with a blank in no alphabet, but it is not empty.
         */
        const char *blank = *s != '\0' ? strchr(s + 1, ' ') : NULL;

        if (blank == NULL || blank[1] == '\0')
            return sl_fail(err, SL_ERR_CORRUPT,
                           "metadata '%s': item %zu is not two pieces with a "
                           "blank between",
                           KEY("merges"), i);
        if (sl_vocab_add_merge(b, s, (size_t)(blank - s), blank + 1,
                               strlen(blank + 1), err) != 0)
            return -1;
    }
    return 0;
}

/* What a pre-tokenizer's name says beside its expressions, as the publishers'
 * tokenizer.json have it. */
static const struct {
    const char *name;
    bool ignores_merges; /* a word that is a piece stays whole */
    bool bos;            /* unless add_bos_token says otherwise */
    bool nfc;            /* texts are composed first */
} habits[] = {
    {"llama-bpe", true, true, false},        {"llama3", true, true, false},
    {"llama-v3", true, true, false},         {"glm4", true, false, false},
    {"chatglm-bpe", true, false, false},     {"qwen2", false, false, true},
    {"deepseek-r1-qwen", false, true, true},
};
#define N_HABITS (sizeof habits / sizeof *habits)

static size_t habits_of(const char *pre)
{
    size_t i = 0;

    while (i < N_HABITS && strcmp(habits[i].name, pre) != 0)
        i++;
    return i;
}

static int read_pre(const char **pre, const struct sl_gguf *g,
                    struct sl_error *err)
{
    *pre = "default";
    return sl_gguf_has(g, KEY("pre"))
               ? sl_gguf_get_string(g, KEY("pre"), pre, err)
               : 0;
}

static int take_bpe(struct sl_vocab_builder *b, const struct tokens *t,
                    const struct sl_gguf *g, struct sl_error *err)
{
    const char *pre;
    size_t h;

    if (read_pre(&pre, g, err) != 0)
        return -1;
    h = habits_of(pre);
    if (h < N_HABITS && habits[h].nfc &&
        sl_vocab_add_norm(b, SL_NORM_NFC, NULL, 0, NULL, 0, err) != 0)
        return -1;
    sl_vocab_set_number(b, SL_VOCAB_IGNORE_MERGES,
                        h < N_HABITS && habits[h].ignores_merges);
    if (sl_vocab_set_pre(b, pre, err) != 0 || take_bpe_tokens(b, t, err) != 0)
        return -1;
    return take_merges(b, g, err);
}

/* --- special tokens --------------------------------------------------------
 */

static bool is_sentencepiece(const struct sl_vocab_builder *b)
{
    return strcmp(sl_vocab_builder_kind(b)->name, "sentencepiece") == 0;
}

/* A token that is named as special is one, whatever its type. Padding rows
 * are named now and then, and the unknown piece of sentencepiece, which is none
 * of a text's: they are left alone. */
static int make_special(struct sl_vocab_builder *b, const struct tokens *t,
                        int32_t id, struct sl_error *err)
{
    const char *s = t->text[id];

    if (*s == '\0' || sl_vocab_is_added(b, (uint32_t)id) ||
        (is_sentencepiece(b) &&
         id == sl_vocab_get_control(b, SL_CONTROL_UNK)) ||
        type_of(t, (size_t)id) == SL_PIECE_UNUSED ||
        type_of(t, (size_t)id) == SL_PIECE_BYTE)
        return 0;
    return sl_vocab_add_added(b, (uint32_t)id, s, strlen(s), SL_ADDED_SPECIAL,
                              err);
}

/* Where a key names no token, a sentencepiece model has llama.cpp's usual id
 * (src/llama-vocab.cpp), if that is a control token. */
static int32_t usual_id(const struct sl_vocab_builder *b,
                        const struct tokens *t, int32_t id)
{
    return id >= 0 && is_sentencepiece(b) && (size_t)id < t->n &&
                   type_of(t, (size_t)id) == SL_PIECE_CONTROL
               ? id
               : -1;
}

static int take_controls(struct sl_vocab_builder *b, const struct tokens *t,
                         const struct sl_gguf *g, struct sl_error *err)
{
    static const struct {
        const char *key;
        int control; /* -1: none */
        bool stops;
        int32_t usual;
    } keys[] = {
        {KEY("bos_token_id"), SL_CONTROL_BOS, false, 1},
        {KEY("eos_token_id"), SL_CONTROL_EOS, true, 2},
        {KEY("eot_token_id"), -1, true, -1},
        {KEY("eom_token_id"), -1, true, -1},
        {KEY("unknown_token_id"), SL_CONTROL_UNK, false, -1},
        {KEY("padding_token_id"), SL_CONTROL_PAD, false, -1},
    };

    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        int32_t id;

        if (read_id(&id, g, keys[i].key, t->n, err) != 0)
            return -1;
        if (id < 0)
            id = usual_id(b, t, keys[i].usual);
        if (id < 0)
            continue;
        if (keys[i].control >= 0 &&
            sl_vocab_get_control(b, (enum sl_vocab_control)keys[i].control) < 0)
            sl_vocab_set_control(b, (enum sl_vocab_control)keys[i].control, id);
        if (make_special(b, t, id, err) != 0 ||
            (keys[i].stops && sl_vocab_add_id(b, SL_VOCAB_STOPS, id, err) != 0))
            return -1;
    }
    return 0;
}

static int32_t special(const struct sl_vocab_builder *b, const char *name)
{
    int32_t id = sl_vocab_find(b, name, strlen(name));

    return id >= 0 && sl_vocab_is_added(b, (uint32_t)id) ? id : -1;
}

/* A GLM's texts begin with [gMASK] <sop>, which a GGUF cannot say, and its
 * answers end where somebody else's turn begins. 1: it is none. */
static int take_glm(struct sl_vocab_builder *b, struct sl_error *err)
{
    static const char *const stops[] = {"<|endoftext|>", "<|user|>",
                                        "<|observation|>"};
    int32_t gmask = special(b, "[gMASK]"), sop = special(b, "<sop>");

    if (sop < 0)
        sop = special(b, "sop");
    if (gmask < 0 || sop < 0)
        return 1;
    for (size_t i = 0; i < sizeof stops / sizeof *stops; i++) {
        int32_t id = special(b, stops[i]);

        if (id >= 0 && sl_vocab_add_id(b, SL_VOCAB_STOPS, id, err) != 0)
            return -1;
    }
    if (sl_vocab_add_id(b, SL_VOCAB_PREFIX, gmask, err) != 0)
        return -1;
    return sl_vocab_add_id(b, SL_VOCAB_PREFIX, sop, err);
}

/* What the program that wrote the file takes where it does not say. */
static bool usual_bos(const struct sl_vocab_builder *b, const char *pre)
{
    size_t h = habits_of(pre);

    if (is_sentencepiece(b))
        return true;
    return h < N_HABITS && habits[h].bos;
}

static int take_ends(struct sl_vocab_builder *b, const struct sl_gguf *g,
                     struct sl_error *err)
{
    int32_t bos = sl_vocab_get_control(b, SL_CONTROL_BOS);
    int32_t eos = sl_vocab_get_control(b, SL_CONTROL_EOS);
    bool first, last = false;
    const char *pre;
    int rc = take_glm(b, err);

    if (rc <= 0)
        return rc;
    if (read_pre(&pre, g, err) != 0)
        return -1;
    first = usual_bos(b, pre);
    if (sl_gguf_has(g, KEY("add_bos_token")) &&
        sl_gguf_get_bool(g, KEY("add_bos_token"), &first, err) != 0)
        return -1;
    if (sl_gguf_has(g, KEY("add_eos_token")) &&
        sl_gguf_get_bool(g, KEY("add_eos_token"), &last, err) != 0)
        return -1;
    if (first && bos >= 0 && sl_vocab_add_id(b, SL_VOCAB_PREFIX, bos, err) != 0)
        return -1;
    return last && eos >= 0 ? sl_vocab_add_id(b, SL_VOCAB_SUFFIX, eos, err) : 0;
}

/* --- the whole -------------------------------------------------------------
 */

/* tokenizer.ggml.model, and how the tokens are taken. */
static const struct form {
    const char *model;
    const char *kind;
    int (*take)(struct sl_vocab_builder *b, const struct tokens *t,
                const struct sl_gguf *g, struct sl_error *err);
} forms[] = {
    {"llama", "sentencepiece", take_sentencepiece},
    {"gpt2", "byte-bpe", take_bpe},
};

static int find_form(const struct form **form, const char *model,
                     struct sl_error *err)
{
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        if (strcmp(forms[i].model, model) == 0) {
            *form = &forms[i];
            return 0;
        }
    }
    return sl_fail(err, SL_ERR_UNSUPPORTED,
                   "the kind of vocabulary '%.40s' is not known; 'gpt2' and "
                   "'llama' are",
                   model);
}

static int build(struct sl_vocab_made *made, const struct form *form,
                 const struct sl_gguf *g, struct sl_error *err)
{
    struct sl_vocab_builder *b;
    struct tokens t = {0};
    int rc = -1;

    if (read_tokens(&t, g, err) != 0 ||
        sl_vocab_builder_create(&b, form->kind, err) != 0)
        return -1;
    if (form->take(b, &t, g, err) == 0 && take_controls(b, &t, g, err) == 0 &&
        take_ends(b, g, err) == 0) {
        sl_family_find_controls(b);
        rc = sl_vocab_builder_finish(b, &made->blob, &made->n, err);
    }
    sl_vocab_builder_destroy(b);
    return rc;
}

int sl_vocab_compile_gguf(struct sl_vocab_made *out, const struct sl_gguf *g,
                          uint32_t rows, struct sl_error *err)
{
    struct sl_vocab_made made = {.family = SL_FAMILY_PLAIN};
    const struct form *form = NULL;
    const char *model;

    if (!sl_gguf_has(g, KEY("model")))
        return 1;
    if (sl_gguf_get_string(g, KEY("model"), &model, err) != 0)
        return -1;
    if (strcmp(model, "none") == 0 || strcmp(model, "no_vocab") == 0)
        return 1;
    snprintf(made.took, sizeof made.took, "metadata");
    if (find_form(&form, model, err) != 0 || build(&made, form, g, err) != 0 ||
        sl_vocab_made_check(&made, rows, NULL, err) != 0) {
        sl_vocab_made_fini(&made);
        return -1;
    }
    *out = made;
    return 0;
}
