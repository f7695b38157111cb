/*
 * sp_proto.h - sentencepiece's ModelProto, as far as its pieces go
 *
 * What a serialised model says of itself can be read without the library, in
 * one walk over the bytes (sentencepiece src/sentencepiece_model.proto):
 *
 *     ModelProto   1 pieces*, 2 trainer_spec, 3 normalizer_spec
 *     pieces       1 piece, 2 score (float), 3 type
 *     trainer_spec 3 model_type, 35 byte_fallback, 45 unk_piece,
 *                  46 bos_piece, 47 eos_piece, 48 pad_piece
 *
 * Messages merge when they are concatenated, so that pieces can be appended
 * to a model's own bytes.
 */
#ifndef SL_SP_PROTO_H
#define SL_SP_PROTO_H

#include "src/base/utf8.h"

#ifdef __cplusplus
extern "C" {
#endif

struct sl_sp_piece { /* borrowed from the model */
    const char *s;
    size_t n;
    float score;
    int type; /* enum sl_piece_type; 1 where the model does not say */
};

struct sl_sp_reader {
    const uint8_t *begin, *p, *end;
};

/* Does this look like a ModelProto that has pieces? */
bool sl_sp_is_model(const void *model, size_t n);

void sl_sp_reader_init(struct sl_sp_reader *r, const void *model, size_t n);
/* The next piece: 1, 0 at the end, or -1: SL_ERR_CORRUPT naming the byte. */
int sl_sp_reader_next(struct sl_sp_reader *r, struct sl_sp_piece *piece,
                      struct sl_error *err);

/* Control pieces by name, in the order of SL_SP_*; a model may rename them. */
enum { SL_SP_UNK, SL_SP_BOS, SL_SP_EOS, SL_SP_PAD, SL_SP_N_NAMES };
struct sl_sp_names {
    struct {
        const char *s;
        size_t n;
    } name[SL_SP_N_NAMES];
};
/* The model was read to its end before. */
void sl_sp_read_names(struct sl_sp_names *names, const void *model, size_t n);

/* Appends a piece as a field of a ModelProto. Errors: SL_ERR_NOMEM. */
int sl_sp_add_piece(struct sl_str *model, const char *s, size_t n, float score,
                    int type, struct sl_error *err);
/* trainer_spec { model_type: BPE, byte_fallback } and a normalizer that
 * changes nothing but puts a blank first (dummy) and turns blanks into U+2581:
 * what Llama's converters assume. */
int sl_sp_add_specs(struct sl_str *model, bool byte_fallback, bool dummy,
                    struct sl_error *err);
/* trainer_spec { byte_fallback: true } alone. */
int sl_sp_add_byte_fallback(struct sl_str *model, struct sl_error *err);

#ifdef __cplusplus
}
#endif

#endif
