/*
 * gguf_config.h - the config.json that a published GGUF file stands for
 *
 * llama.cpp's converter makes metadata of a publisher's config.json; this goes
 * the other way, under the names that Hugging Face's models have today, so that
 * architectures read one kind of settings (arch/settings.h). What no
 * config.json says stands in an object "gguf":
 *
 *   rope_dims         values of a head that are rotated
 *   rope_interleaved  neighbours are, where the publisher rotates halves
 *   rope_factors      there is a tensor rope_freqs.weight
 *   attn_out_bias     attention's output has a bias
 *   split_qkv         q, k and v are of different formats in some layer
 *   latent_eps        of the norms of latents
 *
 * (ggml-org/ggml docs/gguf.md; ggml-org/llama.cpp src/llama-arch.cpp,
 * src/llama-model.cpp, gguf-py/gguf/constants.py)
 */
#ifndef SL_GGUF_CONFIG_H
#define SL_GGUF_CONFIG_H

#include "src/ckpt/ckpt.h"
#include "src/model/gguf.h"

/* *text is owned (free). c's tensors are looked at. Errors: SL_ERR_UNSUPPORTED
 * naming the architecture (with those there are) or the setting that makes it
 * another model; SL_ERR_CORRUPT naming the key. */
int sl_gguf_config(char **text, const struct sl_gguf *g,
                   const struct sl_ckpt *c, struct sl_error *err);

#endif
