/*
 * vocab.h - a vocabulary compiled into one blob, and the kinds there are
 *
 * Every vocabulary is compiled once, when a checkpoint is converted, out of
 * whatever files its publisher offers, and lies in the model file as one
 * tensor of bytes. All numbers are little-endian, all offsets count from the
 * blob's first byte, every section begins at a multiple of 8 and they lie one
 * behind the other in the order of their tags:
 *
 *      0  8  "SLVOCAB1"
 *      8  4  kind (code of struct sl_vocab_kind)
 *     12  4  number of ids: pieces and added tokens, holes included
 *     16  4  number of sections
 *     20  4  0
 *     24  8  bytes of the blob
 *     32 24  for each section: u32 tag, u32 count, u64 offset, u64 bytes
 *
 *     PIECES   u32[ids + 1] where each begins in the text behind, ascending
 *              from 0; then the text, as bytes (byte-level pieces too)
 *     TYPES    u8[ids] enum sl_piece_type | SL_PIECE_MODEL
 *     MERGES   {u32 left, right, result}[count] in order of rank
 *     ADDED    {u32 id, u32 flags, u32 n, name[n]}[count] what is cut out of a
 *              text first; an id may have several names
 *     NORMS    steps[count] of the normaliser, see textnorm.h
 *     SPLITS   steps[count] of the pre-tokenizer, see pretok.h
 *     PREFIX, SUFFIX, STOPS   i32[count] ids
 *     CONTROLS i32[SL_N_CONTROLS] ids or -1
 *     NUMBERS  u32[SL_N_NUMBERS] settings of the kind
 *     MODEL    a serialised sentencepiece model
 *
 *     step     u32 what, u32 n_a, u32 n_b, a[n_a], b[n_b]
 */
#ifndef SL_VOCAB_H
#define SL_VOCAB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/base/error.h"

#ifdef __cplusplus
extern "C" {
#endif

#define SL_VOCAB_MAGIC "SLVOCAB1"
#define SL_VOCAB_HEAD  32u
/* Ids are below this: far above any model. */
#define SL_VOCAB_MAX (1u << 21)

enum sl_vocab_tag {
    SL_VOCAB_PIECES,
    SL_VOCAB_TYPES,
    SL_VOCAB_MERGES,
    SL_VOCAB_ADDED,
    SL_VOCAB_NORMS,
    SL_VOCAB_SPLITS,
    SL_VOCAB_PREFIX,
    SL_VOCAB_SUFFIX,
    SL_VOCAB_STOPS,
    SL_VOCAB_CONTROLS,
    SL_VOCAB_NUMBERS,
    SL_VOCAB_MODEL,
    SL_VOCAB_N_TAGS,
};

/* The numbers of tokenizer.ggml.token_type and of sentencepiece's
 * ModelProto.SentencePiece.Type. */
enum sl_piece_type {
    SL_PIECE_NORMAL = 1,
    SL_PIECE_UNKNOWN = 2,
    SL_PIECE_CONTROL = 3,
    SL_PIECE_USER = 4,
    SL_PIECE_UNUSED = 5, /* a hole */
    SL_PIECE_BYTE = 6,
    SL_PIECE_TYPE = 15,
    SL_PIECE_MODEL = 16, /* the model itself can say it, not only a cut */
};

/* How an added token is looked for (tokenizers' AddedToken). */
enum sl_added_flag {
    SL_ADDED_SPECIAL = 1,    /* control: not in a user's text */
    SL_ADDED_LSTRIP = 2,     /* takes the whitespace before it along */
    SL_ADDED_RSTRIP = 4,     /* and behind it */
    SL_ADDED_WORD = 8,       /* only as a word of its own */
    SL_ADDED_NORMALIZED = 16 /* looked for in the normalised text */
};

enum sl_vocab_control { /* the order of struct sl_special_ids, then two more */
                        SL_CONTROL_MASK,
                        SL_CONTROL_GMASK,
                        SL_CONTROL_SMASK,
                        SL_CONTROL_EOD,
                        SL_CONTROL_SOP,
                        SL_CONTROL_EOP,
                        SL_CONTROL_ENC,
                        SL_CONTROL_DBLOCK,
                        SL_CONTROL_EOS,
                        SL_CONTROL_UNK,
                        SL_CONTROL_BOS,
                        SL_CONTROL_PAD,
                        SL_N_CONTROLS,
};

enum sl_vocab_number {
    SL_VOCAB_RANK_IS_RESULT, /* BPE: equal results, equal rank (tiktoken) */
    SL_VOCAB_IGNORE_MERGES,  /* BPE: a word that is a piece stays whole */
    SL_VOCAB_BYTE_FALLBACK,  /* char-bpe, icetk: bytes for what is unknown */
    SL_VOCAB_FUSE_UNK,       /* char-bpe: neighbours become one <unk> */
    SL_VOCAB_STRIP_BLANK,    /* char-bpe: decoded text loses a first blank */
    SL_VOCAB_WORD_MAX,       /* wordpiece: longer words are <unk> */
    SL_VOCAB_N_IMAGE,        /* icetk: ids before the model's */
    SL_VOCAB_MAX_BLANK,      /* icetk: longest <|blank_N|> */
    SL_VOCAB_WHITESPACE,     /* icetk: enum sl_whitespace */
    SL_VOCAB_CHATGLM,        /* icetk: decoded as ChatGLM-6B, not as SAT */
    SL_VOCAB_N_MODEL,        /* sentencepiece: pieces of the model */
    SL_N_NUMBERS,
};

struct sl_vocab_span {
    const uint8_t *p;
    size_t bytes;
    uint32_t count;
};

/* A blob's parts, borrowed from it. */
struct sl_vocab {
    uint32_t code; /* of the kind */
    uint32_t n_tokens;
    struct sl_vocab_span part[SL_VOCAB_N_TAGS];
};

/* Does a vocabulary begin here? (Else it is a bare sentencepiece model.) */
bool sl_vocab_is_blob(const void *data, size_t n);
/* Checks everything that can be checked without knowing the kind. Errors:
 * SL_ERR_CORRUPT saying what and where. */
int sl_vocab_parse(struct sl_vocab *v, const void *data, size_t n,
                   struct sl_error *err);

const char *sl_vocab_piece(const struct sl_vocab *v, uint32_t id, size_t *n);
enum sl_piece_type sl_vocab_type(const struct sl_vocab *v, uint32_t id);
bool sl_vocab_in_model(const struct sl_vocab *v, uint32_t id);
int32_t sl_vocab_control(const struct sl_vocab *v, enum sl_vocab_control which);
uint32_t sl_vocab_number(const struct sl_vocab *v, enum sl_vocab_number which);

/* An entry of ADDED, the same way. */
struct sl_vocab_added {
    uint32_t id, flags;
    const char *s;
    size_t n;
};
struct sl_vocab_added sl_vocab_added_next(const uint8_t **p);

/* A step of NORMS or SPLITS. *p is moved behind it; the section was checked. */
struct sl_vocab_step {
    uint32_t what;
    const char *a, *b;
    size_t n_a, n_b;
};
struct sl_vocab_step sl_vocab_step_next(const uint8_t **p);

#ifdef __cplusplus
}
#endif

#endif
