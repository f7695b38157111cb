#include "config.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/bytes.h"
#include "src/base/mem.h"
#include "src/ckpt/ckpt_pickle_machine.h"

#define CHUNK_BYTES (64u << 10)

static sl_pk_op_fn op_mark, op_stop, op_pop, op_pop_mark, op_dup, op_proto,
    op_frame, op_put, op_get, op_memoize, op_refuse;

/* name, what carries it out, and its arg: bytes of an argument's width for
 * numbers, lengths and memo indexes; a kind for containers. */
struct op {
    const char *name;
    sl_pk_op_fn *run;
    unsigned arg;
};

static const struct op ops[256] = {
    ['('] = {"MARK", op_mark, 0},
    ['.'] = {"STOP", op_stop, 0},
    ['0'] = {"POP", op_pop, 0},
    ['1'] = {"POP_MARK", op_pop_mark, 0},
    ['2'] = {"DUP", op_dup, 0},
    ['F'] = {"FLOAT", sl_pk_op_text_float, 0},
    ['G'] = {"BINFLOAT", sl_pk_op_float, 0},
    ['I'] = {"INT", sl_pk_op_text_int, 0},
    ['J'] = {"BININT", sl_pk_op_int, 4},
    ['K'] = {"BININT1", sl_pk_op_int, 1},
    ['M'] = {"BININT2", sl_pk_op_int, 2},
    ['L'] = {"LONG", sl_pk_op_text_long, 0},
    [0x8a] = {"LONG1", sl_pk_op_long, 1},
    [0x8b] = {"LONG4", sl_pk_op_long, 4},
    ['N'] = {"NONE", sl_pk_op_constant, SL_PK_NODE_NONE},
    [0x88] = {"NEWTRUE", sl_pk_op_constant, SL_PK_NODE_TRUE},
    [0x89] = {"NEWFALSE", sl_pk_op_constant, SL_PK_NODE_FALSE},
    ['S'] = {"STRING", sl_pk_op_text_str, 0},
    ['T'] = {"BINSTRING", sl_pk_op_str, 4},
    ['U'] = {"SHORT_BINSTRING", sl_pk_op_str, 1},
    ['V'] = {"UNICODE", sl_pk_op_text_unicode, 0},
    ['X'] = {"BINUNICODE", sl_pk_op_str, 4},
    [0x8c] = {"SHORT_BINUNICODE", sl_pk_op_str, 1},
    [0x8d] = {"BINUNICODE8", sl_pk_op_str, 8},
    ['B'] = {"BINBYTES", sl_pk_op_bytes, 4},
    ['C'] = {"SHORT_BINBYTES", sl_pk_op_bytes, 1},
    [0x8e] = {"BINBYTES8", sl_pk_op_bytes, 8},
    [0x96] = {"BYTEARRAY8", sl_pk_op_bytes, 8},
    ['t'] = {"TUPLE", sl_pk_op_tuple, 0},
    [')'] = {"EMPTY_TUPLE", sl_pk_op_constant, SL_PK_NODE_EMPTY},
    [0x85] = {"TUPLE1", sl_pk_op_tuple_n, 1},
    [0x86] = {"TUPLE2", sl_pk_op_tuple_n, 2},
    [0x87] = {"TUPLE3", sl_pk_op_tuple_n, 3},
    [']'] = {"EMPTY_LIST", sl_pk_op_empty, SL_PK_LIST},
    ['}'] = {"EMPTY_DICT", sl_pk_op_empty, SL_PK_DICT},
    [0x8f] = {"EMPTY_SET", sl_pk_op_empty, SL_PK_SET},
    ['l'] = {"LIST", sl_pk_op_list, SL_PK_LIST},
    ['d'] = {"DICT", sl_pk_op_list, SL_PK_DICT},
    [0x91] = {"FROZENSET", sl_pk_op_list, SL_PK_SET},
    ['a'] = {"APPEND", sl_pk_op_add, SL_PK_LIST},
    ['s'] = {"SETITEM", sl_pk_op_add, SL_PK_DICT},
    ['e'] = {"APPENDS", sl_pk_op_adds, SL_PK_LIST},
    ['u'] = {"SETITEMS", sl_pk_op_adds, SL_PK_DICT},
    [0x90] = {"ADDITEMS", sl_pk_op_adds, SL_PK_SET},
    ['c'] = {"GLOBAL", sl_pk_op_global, 0},
    [0x93] = {"STACK_GLOBAL", sl_pk_op_stack_global, 0},
    ['P'] = {"PERSID", sl_pk_op_persid, 0},
    ['Q'] = {"BINPERSID", sl_pk_op_binpersid, 0},
    ['R'] = {"REDUCE", sl_pk_op_reduce, 0},
    [0x81] = {"NEWOBJ", sl_pk_op_reduce, 1},
    [0x92] = {"NEWOBJ_EX", sl_pk_op_newobj_ex, 0},
    ['o'] = {"OBJ", sl_pk_op_obj, 0},
    ['i'] = {"INST", sl_pk_op_inst, 0},
    ['b'] = {"BUILD", sl_pk_op_build, 0},
    ['p'] = {"PUT", op_put, 0},
    ['q'] = {"BINPUT", op_put, 1},
    ['r'] = {"LONG_BINPUT", op_put, 4},
    [0x94] = {"MEMOIZE", op_memoize, 0},
    ['g'] = {"GET", op_get, 0},
    ['h'] = {"BINGET", op_get, 1},
    ['j'] = {"LONG_BINGET", op_get, 4},
    [0x80] = {"PROTO", op_proto, 0},
    [0x95] = {"FRAME", op_frame, 0},
    [0x82] = {"EXT1", op_refuse, 0},
    [0x83] = {"EXT2", op_refuse, 0},
    [0x84] = {"EXT4", op_refuse, 0},
    [0x97] = {"NEXT_BUFFER", op_refuse, 0},
    [0x98] = {"READONLY_BUFFER", op_refuse, 0},
};

int sl_pk_fail(struct sl_pk_machine *m, enum sl_code code, const char *fmt, ...)
{
    const char *name = ops[m->op].name;
    char text[256];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return sl_fail(m->err, code,
                   "%s: pickle opcode %s (0x%02x) at offset %" PRIu64 ": %s",
                   sl_src_name(m->p->src), name ? name : "unknown", m->op,
                   m->p->begin + m->op_at, text);
}

int sl_pk_grow(struct sl_pk_machine *m, void *at_ptr, uint32_t *cap,
               uint64_t need, size_t size, uint32_t max)
{
    uint64_t want = *cap ? *cap : 64;
    void *old, *grown;

    if (need <= *cap)
        return 0;
    if (need > max)
        return sl_pk_fail(m, SL_ERR_UNSUPPORTED,
                          "the pickle holds more than %" PRIu32
                          " values, the most that is read",
                          max);
    while (want < need)
        want *= 2;
    if (want > max)
        want = max;
    memcpy(&old, at_ptr, sizeof old);
    grown = realloc(old, (size_t)want * size);
    if (grown == NULL)
        return sl_pk_fail(m, SL_ERR_NOMEM, "no memory for %" PRIu64 " values",
                          want);
    memcpy(at_ptr, &grown, sizeof grown);
    *cap = (uint32_t)want;
    return 0;
}

/* Loads more of the pickle, so that n bytes lie at pos. */
static int load(struct sl_pk_machine *m, uint64_t n)
{
    struct sl_pickle *p = m->p;
    uint64_t left = sl_src_bytes(p->src) - p->begin;
    uint64_t to;

    if (n > left - m->pos)
        return sl_pk_fail(m, SL_ERR_CORRUPT,
                          "wants %" PRIu64 " bytes where %" PRIu64
                          " are left: the file is cut short or damaged",
                          n, left - m->pos);
    to = m->pos + n;
    if (to > SL_PK_MAX_BYTES)
        return sl_pk_fail(m, SL_ERR_UNSUPPORTED,
                          "the pickle is longer than %u bytes, the most that "
                          "is read",
                          SL_PK_MAX_BYTES);
    if (to - p->bytes.n < CHUNK_BYTES)
        to = (uint64_t)p->bytes.n + CHUNK_BYTES;
    if (to > left)
        to = left;
    if (to > SL_PK_MAX_BYTES)
        to = SL_PK_MAX_BYTES;
    if (SL_PK_GROW(m, p->bytes, to - p->bytes.n, SL_PK_MAX_BYTES) != 0)
        return -1;
    if (sl_src_read(p->src, p->bytes.at + p->bytes.n, p->begin + p->bytes.n,
                    (size_t)(to - p->bytes.n), m->err) != 0)
        return -1;
    p->bytes.n = (uint32_t)to;
    return 0;
}

int sl_pk_take(struct sl_pk_machine *m, uint32_t *at, uint64_t n)
{
    if (n > m->p->bytes.n - m->pos && load(m, n) != 0)
        return -1;
    *at = m->pos;
    m->pos += (uint32_t)n;
    return 0;
}

int sl_pk_take_line(struct sl_pk_machine *m, uint32_t *at, uint32_t *n)
{
    struct sl_pickle *p = m->p;
    uint32_t seen = 0;

    for (;;) {
        const uint8_t *from = p->bytes.at + m->pos + seen;
        const uint8_t *nl;

        nl = memchr(from, '\n', p->bytes.n - m->pos - seen);
        if (nl != NULL) {
            *at = m->pos;
            *n = (uint32_t)(nl - (p->bytes.at + m->pos));
            m->pos += *n + 1;
            return 0;
        }
        seen = p->bytes.n - m->pos;
        if (load(m, (uint64_t)seen + 1) != 0)
            return -1;
    }
}

int sl_pk_new(struct sl_pk_machine *m, uint32_t *node, enum sl_pk_kind kind)
{
    struct sl_pickle *p = m->p;

    if (SL_PK_GROW(m, p->nodes, 1, SL_PK_MAX_NODES) != 0)
        return -1;
    *node = p->nodes.n++;
    memset(&p->nodes.at[*node], 0, sizeof *p->nodes.at);
    p->nodes.at[*node].kind = (uint8_t)kind;
    return 0;
}

int sl_pk_push(struct sl_pk_machine *m, uint32_t node)
{
    if (SL_PK_GROW(m, m->stack, 1, SL_PK_MAX_NODES) != 0)
        return -1;
    m->stack.at[m->stack.n++] = node;
    return 0;
}

int sl_pk_pop(struct sl_pk_machine *m, uint32_t *node)
{
    uint32_t floor = m->marks.n ? m->marks.at[m->marks.n - 1] : 0;

    if (m->stack.n <= floor)
        return sl_pk_fail(m, SL_ERR_CORRUPT, "the stack is empty");
    *node = m->stack.at[--m->stack.n];
    return 0;
}

int sl_pk_pop_mark(struct sl_pk_machine *m, uint32_t *base)
{
    if (m->marks.n == 0)
        return sl_pk_fail(m, SL_ERR_CORRUPT, "there is no mark");
    *base = m->marks.at[--m->marks.n];
    return 0;
}

static int op_mark(struct sl_pk_machine *m, unsigned arg)
{
    if (SL_PK_GROW(m, m->marks, 1, SL_PK_MAX_NODES) != 0)
        return -1;
    m->marks.at[m->marks.n++] = m->stack.n;
    return 0;
}

static int op_stop(struct sl_pk_machine *m, unsigned arg)
{
    m->stopped = true;
    return sl_pk_pop(m, &m->p->root);
}

/* CPython: a mark with nothing above it is what POP removes. */
static int op_pop(struct sl_pk_machine *m, unsigned arg)
{
    uint32_t node;

    if (m->marks.n > 0 && m->marks.at[m->marks.n - 1] == m->stack.n) {
        m->marks.n--;
        return 0;
    }
    return sl_pk_pop(m, &node);
}

static int op_pop_mark(struct sl_pk_machine *m, unsigned arg)
{
    return sl_pk_pop_mark(m, &m->stack.n);
}

static int op_dup(struct sl_pk_machine *m, unsigned arg)
{
    uint32_t node;

    if (sl_pk_pop(m, &node) != 0 || sl_pk_push(m, node) != 0)
        return -1;
    return sl_pk_push(m, node);
}

static int op_proto(struct sl_pk_machine *m, unsigned arg)
{
    uint32_t at;

    if (sl_pk_take(m, &at, 1) != 0)
        return -1;
    if (m->p->bytes.at[at] > 5)
        return sl_pk_fail(m, SL_ERR_UNSUPPORTED,
                          "protocol %u; this program knows 0 to 5",
                          m->p->bytes.at[at]);
    return 0;
}

/* Frames only help a reader to buffer; their length must be there. */
static int op_frame(struct sl_pk_machine *m, unsigned arg)
{
    uint64_t left, want;
    uint32_t at;

    if (sl_pk_take(m, &at, 8) != 0)
        return -1;
    want = sl_load_u64(m->p->bytes.at + at);
    left = sl_src_bytes(m->p->src) - m->p->begin - m->pos;
    if (want > left)
        return sl_pk_fail(m, SL_ERR_CORRUPT,
                          "a frame of %" PRIu64 " bytes where %" PRIu64
                          " are left: the file is cut short or damaged",
                          want, left);
    return 0;
}

static int op_refuse(struct sl_pk_machine *m, unsigned arg)
{
    return sl_pk_fail(m, SL_ERR_UNSUPPORTED,
                      "not allowed in a checkpoint: it refers to what is not "
                      "in the file");
}

/* An index of width bytes, or in decimal on a line of its own. */
static int take_index(struct sl_pk_machine *m, uint32_t *index, unsigned width)
{
    uint64_t v = 0;
    uint32_t at, n;

    if (width > 0) {
        if (sl_pk_take(m, &at, width) != 0)
            return -1;
        *index =
            width == 1 ? m->p->bytes.at[at] : sl_load_u32(m->p->bytes.at + at);
        return 0;
    }
    if (sl_pk_take_line(m, &at, &n) != 0)
        return -1;
    for (uint32_t i = 0; i < n; i++) {
        uint8_t c = m->p->bytes.at[at + i];

        if (c < '0' || c > '9' || n > 9)
            return sl_pk_fail(m, SL_ERR_CORRUPT, "no memo index follows");
        v = v * 10 + (c - '0');
    }
    if (n == 0)
        return sl_pk_fail(m, SL_ERR_CORRUPT, "no memo index follows");
    *index = (uint32_t)v;
    return 0;
}

static int memo_set(struct sl_pk_machine *m, uint32_t index)
{
    uint32_t node;

    /* Python counts the entries up from 0 and spends bytes on each, so an
       index beyond the bytes read so far only wants to waste memory. */
    if (index > m->pos)
        return sl_pk_fail(m, SL_ERR_CORRUPT,
                          "memo index %" PRIu32 " after only %" PRIu32 " bytes",
                          index, m->pos);
    if (sl_pk_pop(m, &node) != 0 || sl_pk_push(m, node) != 0)
        return -1;
    if (index >= m->memo.n) {
        if (SL_PK_GROW(m, m->memo, index + 1 - m->memo.n, SL_PK_MAX_NODES) != 0)
            return -1;
        while (m->memo.n <= index)
            m->memo.at[m->memo.n++] = SL_PK_NIL;
    }
    m->n_memo += m->memo.at[index] == SL_PK_NIL;
    m->memo.at[index] = node;
    return 0;
}

static int op_put(struct sl_pk_machine *m, unsigned width)
{
    uint32_t index;

    if (take_index(m, &index, width) != 0)
        return -1;
    return memo_set(m, index);
}

static int op_memoize(struct sl_pk_machine *m, unsigned arg)
{
    return memo_set(m, m->n_memo);
}

static int op_get(struct sl_pk_machine *m, unsigned width)
{
    uint32_t index;

    if (take_index(m, &index, width) != 0)
        return -1;
    if (index >= m->memo.n || m->memo.at[index] == SL_PK_NIL)
        return sl_pk_fail(m, SL_ERR_CORRUPT,
                          "memo index %" PRIu32 " was never set", index);
    return sl_pk_push(m, m->memo.at[index]);
}

/* The constants are nodes from the start, so that NONE and the empty tuple
 * cost no node each time. What a pickle asks for is bounded by its own bytes
 * and by the machine's limits; no opcode calls anything. */
static int run(struct sl_pk_machine *m)
{
    static const struct sl_pk_node constants[SL_PK_NODE_CONSTANTS] = {
        [SL_PK_NODE_NONE] = {.kind = SL_PK_NONE},
        [SL_PK_NODE_TRUE] = {.kind = SL_PK_BOOL, .i = 1},
        [SL_PK_NODE_FALSE] = {.kind = SL_PK_BOOL, .i = 0},
        [SL_PK_NODE_EMPTY] = {.kind = SL_PK_TUPLE},
    };
    uint32_t node, at;

    for (unsigned i = 0; i < SL_PK_NODE_CONSTANTS; i++) {
        if (sl_pk_new(m, &node, constants[i].kind) != 0)
            return -1;
        m->p->nodes.at[node] = constants[i];
    }
    while (!m->stopped) {
        const struct op *op;

        m->op = '.'; /* what is missing where the pickle just ends */
        m->op_at = m->pos;
        if (sl_pk_take(m, &at, 1) != 0)
            return -1;
        m->op = m->p->bytes.at[at];
        op = &ops[m->op];
        if (op->run == NULL)
            return sl_pk_fail(m, SL_ERR_CORRUPT,
                              "no such opcode: damaged, or not a pickle");
        if (op->run(m, op->arg) != 0)
            return -1;
    }
    return 0;
}

int sl_pickle_read(struct sl_pickle *p, struct sl_src *src, uint64_t off,
                   struct sl_error *err)
{
    struct sl_pickle made = {.src = src, .begin = off, .root = SL_PK_NIL};
    struct sl_pk_machine m = {.p = &made, .err = err};
    int rc;

    if (off > sl_src_bytes(src))
        return sl_fail(err, SL_ERR_CORRUPT,
                       "%s: ends at %" PRIu64 " bytes, but a pickle should "
                       "begin at offset %" PRIu64,
                       sl_src_name(src), sl_src_bytes(src), off);
    rc = run(&m);
    free(m.stack.at);
    free(m.marks.at);
    free(m.memo.at);
    if (rc != 0) {
        sl_pickle_fini(&made);
        return -1;
    }
    made.end = off + m.pos;
    *p = made;
    return 0;
}

void sl_pickle_fini(struct sl_pickle *p)
{
    free(p->bytes.at);
    free(p->decoded.at);
    free(p->nodes.at);
    free(p->cells.at);
    memset(p, 0, sizeof *p);
}
