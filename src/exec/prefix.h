/*
 * prefix.h - a P-Tuning v2 prefix: keys and values that begin every sequence
 *
 * What tuning made is a checkpoint of a few tensors (or one of the whole
 * model that has them too), THUDM/ChatGLM-6B modeling_chatglm.py PrefixEncoder:
 *
 *   plain      embedding.weight (P, layers * 2 * heads * d)
 *   projected  embedding.weight (P, e), then trans.0 (m, e), tanh, trans.2
 *              (layers * 2 * heads * d, m), both with biases, all in FP32
 *
 * Either gives P positions of (2 * layers, heads, d): 2i are layer i's keys,
 * which are not turned, 2i + 1 its values. All tokens see them, and token
 * positions do not count them. They are put into the cache (kvcache.h) plane
 * by plane, so that the table, 100 MB for 128 positions of ChatGLM-6B, is
 * nowhere whole.
 */
#ifndef SL_PREFIX_H
#define SL_PREFIX_H

#include "kernels/kernels.h"
#include "src/base/log.h"
#include "src/base/pool.h"
#include "src/exec/kvcache.h"
#include "src/model/modelfile.h"

struct sl_prefix;

/* Finds the tensors in path, a checkpoint of any kind, and checks them against
 * the model (borrowed until close). Errors: as sl_ckpt_open; SL_ERR_UNSUPPORTED
 * (an architecture that takes no prefix, a type), SL_ERR_CORRUPT (a tensor is
 * missing, misshapen, or another model's: both are named). */
int sl_prefix_open(struct sl_prefix **p, const char *path,
                   const struct sl_modelfile *mf, const struct sl_log *log,
                   struct sl_error *err);
void sl_prefix_close(struct sl_prefix *p); /* NULL is fine */

/* Positions; 0 of NULL. */
uint32_t sl_prefix_positions(const struct sl_prefix *p);
/* The most memory that sl_prefix_fill takes meanwhile; 0 of NULL. */
uint64_t sl_prefix_bytes(const struct sl_prefix *p);
/* Puts it into a cache whose sequences begin with as many positions. Errors:
 * SL_ERR_NOMEM, SL_ERR_IO; SL_ERR_CORRUPT naming a tensor whose numbers are
 * not finite. */
int sl_prefix_fill(struct sl_prefix *p, struct sl_kv *kv,
                   const struct sl_kernels *k, struct sl_pool *pool,
                   struct sl_error *err);
/* A checksum of what was filled in, never 0; 0 before, and of NULL. */
uint64_t sl_prefix_sum(const struct sl_prefix *p);

#endif
