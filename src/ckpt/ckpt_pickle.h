/*
 * ckpt_pickle.h - Python pickles, read without Python and without running
 * anything
 *
 * A pickle is a program for a stack machine. This machine knows every opcode
 * of protocols 0 to 5 that builds plain values, and keeps them as nodes. A
 * global is only ever a name; an object made by calling or instantiating one
 * is an opaque node, but for the few that weights are made of:
 *
 *     collections.OrderedDict() and its like      SL_PK_DICT
 *     a persistent id ('storage', ...)            SL_PK_STORAGE
 *     torch._utils._rebuild_tensor_v2(...)        SL_PK_TENSOR
 *     torch._utils._rebuild_parameter(tensor...)  the tensor
 *
 * Memory is linear in the pickle's length and limited (SL_PK_MAX_*); values
 * may refer to one another in circles, so nobody may walk them recursively.
 * Opcodes and their meaning: CPython Lib/pickletools.py; the torch side:
 * torch/serialization.py and torch/_utils.py.
 */
#ifndef SL_CKPT_PICKLE_H
#define SL_CKPT_PICKLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/base/error.h"
#include "src/ckpt/ckpt_src.h"

#define SL_PK_MAX_BYTES (64u << 20) /* of one pickle */
#define SL_PK_MAX_NODES (4u << 20)  /* nodes, list cells, stack, memo */

enum sl_pk_kind {
    SL_PK_NONE,
    SL_PK_BOOL,    /* i */
    SL_PK_INT,     /* i */
    SL_PK_BIG,     /* an integer beyond 64 bits: text, see big_text */
    SL_PK_FLOAT,   /* d */
    SL_PK_STR,     /* text: UTF-8, not checked */
    SL_PK_BYTES,   /* text */
    SL_PK_TUPLE,   /* list */
    SL_PK_LIST,    /* list */
    SL_PK_SET,     /* list */
    SL_PK_DICT,    /* list of key, value, key, value, ... */
    SL_PK_GLOBAL,  /* global */
    SL_PK_OPAQUE,  /* some object; ref = its global, or SL_PK_NIL */
    SL_PK_STORAGE, /* ref = the tuple ('storage', type, key, place, numel...) */
    SL_PK_TENSOR,  /* ref = the tuple (storage, offset, size, stride, ...) */
};

#define SL_PK_NIL UINT32_MAX

struct sl_pk_node {
    uint8_t kind;  /* enum sl_pk_kind */
    bool decoded;  /* text lies in decoded, not in the pickle's own bytes */
    bool big_text; /* SL_PK_BIG: decimal digits; else little-endian bytes */
    uint32_t n;    /* bytes of text; items of a list (2 for each dict pair) */
    union {
        int64_t i;
        double d;
        uint32_t text; /* where it begins */
        uint32_t ref;  /* a node */
        struct {
            uint32_t first; /* cells */
            uint32_t last;
        } list;
        struct {
            uint32_t module; /* SL_PK_STR nodes */
            uint32_t name;
        } global;
    };
};

struct sl_pk_cell {
    uint32_t node;
    uint32_t next;
};

/* A growing array of T. */
#define SL_PK_ARRAY(T)                                                         \
    struct {                                                                   \
        T *at;                                                                 \
        uint32_t n;                                                            \
        uint32_t cap;                                                          \
    }

struct sl_pickle {
    struct sl_src *src; /* borrowed */
    uint64_t begin;     /* of the pickle in src */
    uint64_t end;       /* just after its STOP, once read */
    uint32_t root;      /* the value it makes */
    SL_PK_ARRAY(uint8_t) bytes;
    SL_PK_ARRAY(uint8_t) decoded; /* text that was written with escapes */
    SL_PK_ARRAY(struct sl_pk_node) nodes;
    SL_PK_ARRAY(struct sl_pk_cell) cells;
};

/* Reads the pickle that begins at off. Errors: SL_ERR_CORRUPT (truncated, or
 * no valid pickle), SL_ERR_UNSUPPORTED (an opcode that is refused, beyond the
 * limits), SL_ERR_IO, SL_ERR_NOMEM; the message names file, opcode and
 * offset. src is borrowed during the call. */
int sl_pickle_read(struct sl_pickle *p, struct sl_src *src, uint64_t off,
                   struct sl_error *err);
void sl_pickle_fini(struct sl_pickle *p); /* a zeroed one is fine */

static inline const struct sl_pk_node *sl_pk_at(const struct sl_pickle *p,
                                                uint32_t node)
{
    return &p->nodes.at[node];
}

/* The bytes of a node with text, not zero-terminated; valid until fini. */
const char *sl_pk_text(const struct sl_pickle *p, const struct sl_pk_node *v);
bool sl_pk_text_is(const struct sl_pickle *p, const struct sl_pk_node *v,
                   const char *text);

/* Items 0, 1, ... of a tuple, list, set or dict: copies up to max of them and
 * returns how many there are. */
uint32_t sl_pk_items(const struct sl_pickle *p, const struct sl_pk_node *v,
                     uint32_t *items, uint32_t max);

/* The value of a string key in a dict (the last one, as Python keeps it), or
 * SL_PK_NIL. */
uint32_t sl_pk_get(const struct sl_pickle *p, const struct sl_pk_node *dict,
                   const char *key);

/* What a value is, for messages: "a tuple", "torch.Size", "os.system": at most
 * SL_PK_LABEL bytes, printable. Returns buf. */
#define SL_PK_LABEL 128
char *sl_pk_label(char buf[SL_PK_LABEL], const struct sl_pickle *p,
                  uint32_t node);

/* A global that has no place in a checkpoint (os.system is the classic),
 * starting the search at node *at; false when there are no more. Never run,
 * but worth a warning. */
bool sl_pk_next_suspect(const struct sl_pickle *p, uint32_t *at);

#endif
