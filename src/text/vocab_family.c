#include "config.h"

#include <string.h>

#include "src/text/vocab_family.h"

static int32_t find(const struct sl_vocab_builder *b, const char *name)
{
    return sl_vocab_find(b, name, strlen(name));
}

/* Adds a special token unless it has an id already; *id is its id. */
static int add_special(struct sl_vocab_builder *b, int32_t *id,
                       const char *name, uint32_t at, unsigned flags,
                       struct sl_error *err)
{
    int32_t there = find(b, name);

    *id = there >= 0 ? there : (int32_t)at;
    return sl_vocab_add_added(b, (uint32_t)*id, name, strlen(name),
                              SL_ADDED_SPECIAL | flags, err);
}

/* --- THUDM/GLM -------------------------------------------------------------
 */

enum base { BERT, GPT2, ROBERTA, CHINESE, N_BASES };

struct where {
    const char *piece; /* one of the vocabulary's own pieces */
    int behind;        /* or so many behind the last; -1: nowhere */
};

#define PIECE(name)                                                            \
    {                                                                          \
        name, -1                                                               \
    }
#define PLUS(n)                                                                \
    {                                                                          \
        NULL, n                                                                \
    }
#define NOWHERE                                                                \
    {                                                                          \
        NULL, -1                                                               \
    }

/* data_utils/tokenization.py: BertWordPieceTokenizer, GPT2BPETokenizer (with
 * both vocabularies) and ChineseSPTokenizer with fix_command_token. The ids
 * that follow for 30522, 50257, 50265 and 50000 pieces are those of the
 * checkpoints. */
static const struct {
    const char *name;
    struct where at[N_BASES];
    bool lstrip; /* but in BERT's */
    int control; /* -1: none */
} commands[] = {
    {"<|endoftext|>",
     {NOWHERE, PIECE("<|endoftext|>"), PIECE("</s>"), PLUS(0)},
     false,
     SL_CONTROL_EOS},
    {"[PAD]",
     {PIECE("[PAD]"), NOWHERE, NOWHERE, NOWHERE},
     false,
     SL_CONTROL_EOS},
    {"[SEP]", {PIECE("[SEP]"), PLUS(4), PIECE("</s>"), PLUS(1)}, false, -1},
    {"[CLS]",
     {PIECE("[CLS]"), PLUS(2), PIECE("<s>"), PLUS(2)},
     false,
     SL_CONTROL_ENC},
    {"[MASK]",
     {PIECE("[MASK]"), PLUS(3), PIECE("<mask>"), PLUS(3)},
     true,
     SL_CONTROL_MASK},
    {"[UNK]", {PIECE("[UNK]"), PLUS(5), PIECE("<unk>"), PLUS(4)}, false, -1},
    {"<|startofpiece|>",
     {PLUS(0), PLUS(0), PLUS(0), PLUS(6)},
     false,
     SL_CONTROL_SOP},
    {"<|endofpiece|>",
     {PLUS(1), PLUS(1), PLUS(1), PLUS(7)},
     false,
     SL_CONTROL_EOP},
    {"[gMASK]", {PLUS(2), PLUS(6), PLUS(2), PLUS(9)}, true, SL_CONTROL_GMASK},
    {"[sMASK]", {PLUS(3), PLUS(7), PLUS(3), PLUS(8)}, true, SL_CONTROL_SMASK},
};

static enum base base_of(const struct sl_vocab_builder *b)
{
    const char *kind = sl_vocab_builder_kind(b)->name;

    if (strcmp(kind, "wordpiece") == 0)
        return BERT;
    if (strcmp(kind, "sentencepiece") == 0)
        return CHINESE;
    return find(b, "<mask>") >= 0 && find(b, "</s>") >= 0 ? ROBERTA : GPT2;
}

static int32_t command_id(const struct sl_vocab_builder *b, size_t i,
                          enum base base, const struct sl_vocab_options *o)
{
    const struct where *at = &commands[i].at[base];
    bool task = commands[i].control == SL_CONTROL_GMASK ||
                commands[i].control == SL_CONTROL_SMASK;
    int32_t there = find(b, commands[i].name);
    uint32_t n = sl_vocab_n_pieces(b);

    if (base == CHINESE && o->glm_gmask_is_eop &&
        commands[i].control == SL_CONTROL_GMASK)
        return (int32_t)n + 7;
    /* The folder's added tokens may have said it; a piece of the same name
     * (RoBERTa has an <|endoftext|>) has not. */
    if (there >= 0 && sl_vocab_is_added(b, (uint32_t)there))
        return there;
    if (at->piece != NULL)
        return find(b, at->piece);
    if (at->behind < 0 ||
        (task && (base == BERT || base == ROBERTA) && !o->glm_task_mask))
        return -1;
    return (int32_t)n + at->behind;
}

int sl_family_add_glm(struct sl_vocab_builder *b,
                      const struct sl_vocab_options *o, struct sl_error *err)
{
    enum base base = base_of(b);
    size_t n = sizeof commands / sizeof *commands;

    for (size_t i = 0; i < n; i++) {
        int32_t id = command_id(b, i, base, o);
        unsigned flags = SL_ADDED_SPECIAL;

        if (id < 0)
            continue;
        if (commands[i].lstrip && base != BERT)
            flags |= SL_ADDED_LSTRIP;
        if (sl_vocab_add_added(b, (uint32_t)id, commands[i].name,
                               strlen(commands[i].name), flags, err) != 0)
            return -1;
        if (commands[i].control >= 0)
            sl_vocab_set_control(b, (enum sl_vocab_control)commands[i].control,
                                 id);
    }
    if (sl_vocab_get_control(b, SL_CONTROL_ENC) < 0 ||
        sl_vocab_get_control(b, SL_CONTROL_EOS) < 0)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "a vocabulary of GLM without [CLS] or an end token: "
                       "not one of its four");
    sl_vocab_clear_ids(b, SL_VOCAB_STOPS);
    sl_vocab_clear_ids(b, SL_VOCAB_PREFIX);
    sl_vocab_clear_ids(b, SL_VOCAB_SUFFIX);
    if (sl_vocab_add_id(b, SL_VOCAB_STOPS,
                        sl_vocab_get_control(b, SL_CONTROL_EOP), err) != 0 ||
        sl_vocab_add_id(b, SL_VOCAB_STOPS,
                        sl_vocab_get_control(b, SL_CONTROL_EOS), err) != 0 ||
        sl_vocab_add_id(b, SL_VOCAB_PREFIX,
                        sl_vocab_get_control(b, SL_CONTROL_ENC), err) != 0)
        return -1;
    return sl_vocab_add_id(b, SL_VOCAB_SUFFIX,
                           sl_vocab_get_control(b, SL_CONTROL_EOS), err);
}

/* --- ChatGLM2, ChatGLM3, GLM-4-9B ------------------------------------------
 */

/* Adds names behind the pieces, in this order, and the prefix [gMASK] sop. */
static int add_names(struct sl_vocab_builder *b, const char *const *names,
                     size_t n, const char *sop, struct sl_error *err)
{
    uint32_t first = sl_vocab_n_pieces(b);
    int32_t id;

    for (size_t i = 0; i < n; i++) {
        if (add_special(b, &id, names[i], first + (uint32_t)i, 0, err) != 0)
            return -1;
    }
    if (sl_vocab_has_ids(b, SL_VOCAB_PREFIX))
        return 0;
    return sl_vocab_add_id(b, SL_VOCAB_PREFIX, find(b, "[gMASK]"), err) != 0
               ? -1
               : sl_vocab_add_id(b, SL_VOCAB_PREFIX, find(b, sop), err);
}

int sl_family_add_chatglm2(struct sl_vocab_builder *b, struct sl_error *err)
{
    /* The roles are ChatGLM3's; ChatGLM2 has padding rows there. */
    static const char *const names[] = {
        "[MASK]",   "[gMASK]",       "[sMASK]",
        "sop",      "eop",           "<|system|>",
        "<|user|>", "<|assistant|>", "<|observation|>",
    };
    static const char *const stops[] = {"<|user|>", "<|observation|>"};

    if (add_names(b, names, sizeof names / sizeof *names, "sop", err) != 0)
        return -1;
    for (size_t i = 0; i < 2; i++) {
        if (sl_vocab_add_id(b, SL_VOCAB_STOPS, find(b, stops[i]), err) != 0)
            return -1;
    }
    return 0;
}

int sl_family_add_glm4(struct sl_vocab_builder *b, struct sl_error *err)
{
    static const char *const names[] = {
        "<|endoftext|>",
        "[MASK]",
        "[gMASK]",
        "[sMASK]",
        "<sop>",
        "<eop>",
        "<|system|>",
        "<|user|>",
        "<|assistant|>",
        "<|observation|>",
        "<|begin_of_image|>",
        "<|end_of_image|>",
        "<|begin_of_video|>",
        "<|end_of_video|>",
    };
    static const char *const stops[] = {"<|endoftext|>", "<|user|>",
                                        "<|observation|>"};

    if (add_names(b, names, sizeof names / sizeof *names, "<sop>", err) != 0)
        return -1;
    for (size_t i = 0; i < 3; i++) {
        if (sl_vocab_add_id(b, SL_VOCAB_STOPS, find(b, stops[i]), err) != 0)
            return -1;
    }
    return 0;
}

/* --- names ----------------------------------------------------------------
 */

void sl_family_find_controls(struct sl_vocab_builder *b)
{
    static const struct {
        enum sl_vocab_control control;
        const char *name;
    } names[] = {
        {SL_CONTROL_MASK, "[MASK]"},
        {SL_CONTROL_GMASK, "[gMASK]"},
        {SL_CONTROL_SMASK, "[sMASK]"},
        {SL_CONTROL_SOP, "<sop>"},
        {SL_CONTROL_SOP, "sop"},
        {SL_CONTROL_SOP, "<|startofpiece|>"},
        {SL_CONTROL_EOP, "<eop>"},
        {SL_CONTROL_EOP, "eop"},
        {SL_CONTROL_EOP, "<|endofpiece|>"},
    };

    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        int32_t id = find(b, names[i].name);

        if (sl_vocab_get_control(b, names[i].control) < 0 && id >= 0 &&
            sl_vocab_is_added(b, (uint32_t)id))
            sl_vocab_set_control(b, names[i].control, id);
    }
}
