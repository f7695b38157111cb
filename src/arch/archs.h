/*
 * archs.h - all architectures: one line each, a file each
 *
 * ARCH(name) is arch_<name>.c's sl_arch_<name>. Of those that a checkpoint's
 * tensors tell apart the more particular comes first.
 */
#ifndef SL_ARCH_ARCHS_H
#define SL_ARCH_ARCHS_H

#define SL_ARCHS(ARCH)                                                         \
    ARCH(chatglm6b)                                                            \
    ARCH(glm)                                                                  \
    ARCH(glm130b)                                                              \
    ARCH(chatglm)                                                              \
    ARCH(glm4)                                                                 \
    ARCH(llama)                                                                \
    ARCH(mistral)                                                              \
    ARCH(qwen2)                                                                \
    ARCH(qwen3)                                                                \
    ARCH(glm4_moe)                                                             \
    ARCH(glm4_moe_lite)

#endif
