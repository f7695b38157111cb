/*
 * ckpt_pickle_machine.h - inside the pickle machine
 *
 * Shared by the files ckpt_pickle*.c alone: the machine's state while it reads
 * one pickle, and the functions that carry out opcodes. ckpt_pickle.c holds
 * the loop and the table of opcodes, ckpt_pickle_atom.c numbers and text,
 * ckpt_pickle_obj.c containers and objects, ckpt_pickle_value.c what reads the
 * result.
 */
#ifndef SL_CKPT_PICKLE_MACHINE_H
#define SL_CKPT_PICKLE_MACHINE_H

#include "src/ckpt/ckpt_pickle.h"

/* The first nodes of every pickle: shared, never changed. */
enum {
    SL_PK_NODE_NONE,
    SL_PK_NODE_TRUE,
    SL_PK_NODE_FALSE,
    SL_PK_NODE_EMPTY, /* the empty tuple */
    SL_PK_NODE_CONSTANTS,
};

struct sl_pk_machine {
    struct sl_pickle *p;
    SL_PK_ARRAY(uint32_t) stack; /* nodes */
    SL_PK_ARRAY(uint32_t) marks; /* heights of the stack */
    SL_PK_ARRAY(uint32_t) memo;  /* nodes, or SL_PK_NIL */
    uint32_t n_memo;             /* entries of memo that are set */
    uint32_t pos;                /* next byte of the pickle */
    uint32_t op_at;              /* where the current opcode lies */
    uint8_t op;
    bool stopped;
    struct sl_error *err;
};

/* arg: what the table says of the opcode (a width, a variant). */
typedef int sl_pk_op_fn(struct sl_pk_machine *m, unsigned arg);

/* Fails with file, opcode and offset in front of the message. */
int sl_pk_fail(struct sl_pk_machine *m, enum sl_code code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* The next n bytes of the pickle, *at = where they begin in p->bytes. */
int sl_pk_take(struct sl_pk_machine *m, uint32_t *at, uint64_t n);
/* The bytes up to the next newline, which is skipped. */
int sl_pk_take_line(struct sl_pk_machine *m, uint32_t *at, uint32_t *n);

int sl_pk_new(struct sl_pk_machine *m, uint32_t *node, enum sl_pk_kind kind);
int sl_pk_push(struct sl_pk_machine *m, uint32_t node);
int sl_pk_pop(struct sl_pk_machine *m, uint32_t *node);
/* Ends the topmost mark; *base = the height of the stack at it. */
int sl_pk_pop_mark(struct sl_pk_machine *m, uint32_t *base);
/* A new text node over bytes [at, at + n) of the pickle. */
int sl_pk_new_text(struct sl_pk_machine *m, uint32_t *node,
                   enum sl_pk_kind kind, uint32_t at, uint32_t n);
/* A global named by two text nodes. */
int sl_pk_push_global(struct sl_pk_machine *m, uint32_t module, uint32_t name);
/* Makes room for need items of size bytes each in *at; the limit is max. */
int sl_pk_grow(struct sl_pk_machine *m, void *at_ptr, uint32_t *cap,
               uint64_t need, size_t size, uint32_t max);

#define SL_PK_GROW(m, array, more, max)                                        \
    sl_pk_grow((m), &(array).at, &(array).cap, (uint64_t)(array).n + (more),   \
               sizeof *(array).at, (max))

/* ckpt_pickle_atom.c */
sl_pk_op_fn sl_pk_op_constant, sl_pk_op_int, sl_pk_op_long, sl_pk_op_float,
    sl_pk_op_text_int, sl_pk_op_text_long, sl_pk_op_text_float, sl_pk_op_str,
    sl_pk_op_bytes, sl_pk_op_text_str, sl_pk_op_text_unicode;

/* ckpt_pickle_obj.c */
sl_pk_op_fn sl_pk_op_empty, sl_pk_op_tuple, sl_pk_op_tuple_n, sl_pk_op_list,
    sl_pk_op_add, sl_pk_op_adds, sl_pk_op_global, sl_pk_op_stack_global,
    sl_pk_op_persid, sl_pk_op_binpersid, sl_pk_op_reduce, sl_pk_op_build,
    sl_pk_op_newobj_ex, sl_pk_op_obj, sl_pk_op_inst;

#endif
