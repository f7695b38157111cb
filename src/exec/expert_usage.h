/*
 * expert_usage.h - what runs learned of which experts are used, beside a model
 *
 * MODEL.usage tells a run's cache from its first position on what earlier ones
 * saw. It makes runs faster or does nothing: one that is not there, is another
 * model's or damaged is as none.
 *
 *    0  "SLUSAGE1"
 *    8  u64 checksum of the model's header   16  u64 bytes of the model file
 *   24  u32 records   28  f32 turns of every layer that this was seen in
 *   32  f32 for each record: the part of its layer's turns that used it
 *       u64 XXH3-64 of all that
 */
#ifndef SL_EXPERT_USAGE_H
#define SL_EXPERT_USAGE_H

#include "src/base/log.h"
#include "src/model/modelfile.h"

/* parts: (n_records). False, and a line where there is a file: nothing is known
 * and nothing was changed. */
bool sl_expert_usage_read(float *parts, float *turns,
                          const struct sl_modelfile *mf, uint32_t n_records,
                          const struct sl_log *log);
/* The file appears whole or stays as it was, and always stays where it is
 * something else. Errors: SL_ERR_IO, SL_ERR_NOSPACE, SL_ERR_NOMEM,
 * SL_ERR_USAGE. */
int sl_expert_usage_write(const float *parts, float turns,
                          const struct sl_modelfile *mf, uint32_t n_records,
                          struct sl_error *err);

#endif
