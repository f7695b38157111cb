#include "config.h"

#include <inttypes.h>
#include <string.h>

#include "src/ckpt/ckpt_pickle_machine.h"

static struct sl_pk_node *node_at(struct sl_pk_machine *m, uint32_t node)
{
    return &m->p->nodes.at[node];
}

/* Appends item to the list of a container. */
static int add_item(struct sl_pk_machine *m, uint32_t container, uint32_t item)
{
    struct sl_pickle *p = m->p;
    struct sl_pk_node *c;

    if (SL_PK_GROW(m, p->cells, 1, SL_PK_MAX_NODES) != 0)
        return -1;
    p->cells.at[p->cells.n] = (struct sl_pk_cell){item, SL_PK_NIL};
    c = node_at(m, container);
    if (c->n++ == 0)
        c->list.first = p->cells.n;
    else
        p->cells.at[c->list.last].next = p->cells.n;
    c->list.last = p->cells.n++;
    return 0;
}

/* Moves what lies on the stack from base on into a container. */
static int add_from(struct sl_pk_machine *m, uint32_t container, uint32_t base)
{
    for (uint32_t i = base; i < m->stack.n; i++)
        if (add_item(m, container, m->stack.at[i]) != 0)
            return -1;
    m->stack.n = base;
    return 0;
}

static int push_container(struct sl_pk_machine *m, enum sl_pk_kind kind,
                          uint32_t base)
{
    uint32_t node;

    if (kind == SL_PK_DICT && (m->stack.n - base) % 2 != 0)
        return sl_pk_fail(m, SL_ERR_CORRUPT, "a key without a value");
    if (sl_pk_new(m, &node, kind) != 0 || add_from(m, node, base) != 0)
        return -1;
    return sl_pk_push(m, node);
}

int sl_pk_op_empty(struct sl_pk_machine *m, unsigned kind)
{
    return push_container(m, kind, m->stack.n);
}

int sl_pk_op_list(struct sl_pk_machine *m, unsigned kind)
{
    uint32_t base;

    if (sl_pk_pop_mark(m, &base) != 0)
        return -1;
    return push_container(m, kind, base);
}

int sl_pk_op_tuple(struct sl_pk_machine *m, unsigned arg)
{
    uint32_t base;

    if (sl_pk_pop_mark(m, &base) != 0)
        return -1;
    if (base == m->stack.n)
        return sl_pk_push(m, SL_PK_NODE_EMPTY);
    return push_container(m, SL_PK_TUPLE, base);
}

int sl_pk_op_tuple_n(struct sl_pk_machine *m, unsigned n)
{
    uint32_t item[3];

    for (unsigned i = n; i-- > 0;)
        if (sl_pk_pop(m, &item[i]) != 0)
            return -1;
    m->stack.n += n; /* they are still there, and their room is theirs */
    return push_container(m, SL_PK_TUPLE, m->stack.n - n);
}

/* Adds what lies from base on to the container below it. Foreign objects may
 * be given items too, which are dropped with them. */
static int add_to_below(struct sl_pk_machine *m, uint32_t base,
                        enum sl_pk_kind kind)
{
    char label[SL_PK_LABEL];
    uint32_t below;
    unsigned is;

    if (base == 0)
        return sl_pk_fail(m, SL_ERR_CORRUPT, "the stack is empty");
    below = m->stack.at[base - 1];
    is = node_at(m, below)->kind;
    if (kind == SL_PK_DICT && (m->stack.n - base) % 2 != 0)
        return sl_pk_fail(m, SL_ERR_CORRUPT, "a key without a value");
    if (is == SL_PK_OPAQUE) {
        m->stack.n = base;
        return 0;
    }
    if (is != (unsigned)kind)
        return sl_pk_fail(m, SL_ERR_CORRUPT, "items for %s",
                          sl_pk_label(label, m->p, below));
    return add_from(m, below, base);
}

int sl_pk_op_add(struct sl_pk_machine *m, unsigned kind)
{
    unsigned n = kind == SL_PK_DICT ? 2 : 1;
    uint32_t floor = m->marks.n ? m->marks.at[m->marks.n - 1] : 0;

    if (m->stack.n - floor < n + 1)
        return sl_pk_fail(m, SL_ERR_CORRUPT, "the stack is empty");
    return add_to_below(m, m->stack.n - n, kind);
}

int sl_pk_op_adds(struct sl_pk_machine *m, unsigned kind)
{
    uint32_t base, floor;

    if (sl_pk_pop_mark(m, &base) != 0)
        return -1;
    floor = m->marks.n ? m->marks.at[m->marks.n - 1] : 0;
    if (base <= floor)
        return sl_pk_fail(m, SL_ERR_CORRUPT, "the stack is empty");
    return add_to_below(m, base, kind);
}

int sl_pk_push_global(struct sl_pk_machine *m, uint32_t module, uint32_t name)
{
    uint32_t node;

    if (sl_pk_new(m, &node, SL_PK_GLOBAL) != 0)
        return -1;
    node_at(m, node)->global.module = module;
    node_at(m, node)->global.name = name;
    return sl_pk_push(m, node);
}

int sl_pk_op_global(struct sl_pk_machine *m, unsigned arg)
{
    uint32_t part[2], at, n;

    for (unsigned i = 0; i < 2; i++)
        if (sl_pk_take_line(m, &at, &n) != 0 ||
            sl_pk_new_text(m, &part[i], SL_PK_STR, at, n) != 0)
            return -1;
    return sl_pk_push_global(m, part[0], part[1]);
}

int sl_pk_op_stack_global(struct sl_pk_machine *m, unsigned arg)
{
    uint32_t module, name;

    if (sl_pk_pop(m, &name) != 0 || sl_pk_pop(m, &module) != 0)
        return -1;
    if (node_at(m, module)->kind != SL_PK_STR ||
        node_at(m, name)->kind != SL_PK_STR)
        return sl_pk_fail(m, SL_ERR_CORRUPT, "a global without a name");
    return sl_pk_push_global(m, module, name);
}

static int push_ref(struct sl_pk_machine *m, enum sl_pk_kind kind, uint32_t ref)
{
    uint32_t node;

    if (sl_pk_new(m, &node, kind) != 0)
        return -1;
    node_at(m, node)->ref = ref;
    return sl_pk_push(m, node);
}

int sl_pk_op_persid(struct sl_pk_machine *m, unsigned arg)
{
    uint32_t at, n;

    if (sl_pk_take_line(m, &at, &n) != 0)
        return -1;
    return push_ref(m, SL_PK_OPAQUE, SL_PK_NIL);
}

/* torch/serialization.py, persistent_load: ('storage', type, key, place,
 * elements[, view]); old files also hold ('module', ...), which is opaque. */
int sl_pk_op_binpersid(struct sl_pk_machine *m, unsigned arg)
{
    uint32_t id, item[1];
    const struct sl_pk_node *v;

    if (sl_pk_pop(m, &id) != 0)
        return -1;
    v = node_at(m, id);
    if (v->kind == SL_PK_TUPLE && sl_pk_items(m->p, v, item, 1) >= 5 &&
        sl_pk_text_is(m->p, node_at(m, item[0]), "storage"))
        return push_ref(m, SL_PK_STORAGE, id);
    return push_ref(m, SL_PK_OPAQUE, SL_PK_NIL);
}

static bool global_is(struct sl_pk_machine *m, uint32_t node,
                      const char *module, const char *name)
{
    const struct sl_pk_node *g = node_at(m, node);

    return g->kind == SL_PK_GLOBAL &&
           sl_pk_text_is(m->p, node_at(m, g->global.module), module) &&
           sl_pk_text_is(m->p, node_at(m, g->global.name), name);
}

/* OrderedDict([(key, value), ...]), as Python 2 writes it. */
static int push_dict(struct sl_pk_machine *m, uint32_t pairs)
{
    uint32_t dict, cell, pair[2];
    const struct sl_pk_node *v;

    if (sl_pk_new(m, &dict, SL_PK_DICT) != 0)
        return -1;
    if (pairs == SL_PK_NIL)
        return sl_pk_push(m, dict);
    v = node_at(m, pairs);
    if (v->kind != SL_PK_LIST && v->kind != SL_PK_TUPLE)
        return sl_pk_fail(m, SL_ERR_CORRUPT, "a dict of no list of pairs");
    cell = v->n ? v->list.first : SL_PK_NIL;
    for (; cell != SL_PK_NIL; cell = m->p->cells.at[cell].next) {
        v = node_at(m, m->p->cells.at[cell].node);
        if ((v->kind != SL_PK_LIST && v->kind != SL_PK_TUPLE) ||
            sl_pk_items(m->p, v, pair, 2) != 2)
            return sl_pk_fail(m, SL_ERR_CORRUPT, "a dict of no list of pairs");
        if (add_item(m, dict, pair[0]) != 0 || add_item(m, dict, pair[1]) != 0)
            return -1;
    }
    return sl_pk_push(m, dict);
}

/* torch/_tensor.py: _rebuild_from_type_v2(function, type, arguments, state) is
 * how a tensor with attributes of its own is kept. Those of another type may
 * mean anything. */
static bool is_plain_again(struct sl_pk_machine *m, uint32_t args)
{
    uint32_t item[4];

    return sl_pk_items(m->p, node_at(m, args), item, 4) == 4 &&
           node_at(m, item[2])->kind == SL_PK_TUPLE &&
           (global_is(m, item[1], "torch", "Tensor") ||
            global_is(m, item[1], "torch.nn.parameter", "Parameter") ||
            global_is(m, item[1], "torch.nn", "Parameter")) &&
           (global_is(m, item[0], "torch._utils", "_rebuild_tensor_v2") ||
            global_is(m, item[0], "torch._utils", "_rebuild_parameter"));
}

static int push_again(struct sl_pk_machine *m, uint32_t args)
{
    uint32_t item[3], inner[1] = {SL_PK_NIL};

    sl_pk_items(m->p, node_at(m, args), item, 3);
    if (global_is(m, item[0], "torch._utils", "_rebuild_tensor_v2"))
        return push_ref(m, SL_PK_TENSOR, item[2]);
    sl_pk_items(m->p, node_at(m, item[2]), inner, 1);
    if (inner[0] != SL_PK_NIL && node_at(m, inner[0])->kind == SL_PK_TENSOR)
        return sl_pk_push(m, inner[0]);
    return push_ref(m, SL_PK_OPAQUE, item[0]);
}

/* The value of callable(*args), without calling anything. */
static int push_made(struct sl_pk_machine *m, uint32_t callable, uint32_t args)
{
    char label[SL_PK_LABEL];
    const struct sl_pk_node *c = node_at(m, callable);
    uint32_t item[1] = {SL_PK_NIL};
    uint32_t n;

    if (c->kind == SL_PK_OPAQUE)
        return push_ref(m, SL_PK_OPAQUE, c->ref);
    if (c->kind != SL_PK_GLOBAL)
        return sl_pk_fail(m, SL_ERR_CORRUPT, "calls %s",
                          sl_pk_label(label, m->p, callable));
    if (node_at(m, args)->kind != SL_PK_TUPLE)
        return sl_pk_fail(m, SL_ERR_CORRUPT, "arguments for %s are %s",
                          sl_pk_label(label, m->p, callable), "not a tuple");
    n = sl_pk_items(m->p, node_at(m, args), item, 1);
    if (global_is(m, callable, "torch._utils", "_rebuild_tensor_v2") ||
        global_is(m, callable, "torch._utils", "_rebuild_tensor"))
        return push_ref(m, SL_PK_TENSOR, args);
    if ((global_is(m, callable, "torch._utils", "_rebuild_parameter") ||
         global_is(m, callable, "torch._utils",
                   "_rebuild_parameter_with_state")) &&
        n > 0 && node_at(m, item[0])->kind == SL_PK_TENSOR)
        return sl_pk_push(m, item[0]);
    if (global_is(m, callable, "torch._tensor", "_rebuild_from_type_v2") &&
        is_plain_again(m, args))
        return push_again(m, args);
    if (global_is(m, callable, "collections", "OrderedDict"))
        return push_dict(m, item[0]);
    if (global_is(m, callable, "collections", "defaultdict"))
        return push_dict(m, SL_PK_NIL);
    return push_ref(m, SL_PK_OPAQUE, callable);
}

int sl_pk_op_reduce(struct sl_pk_machine *m, unsigned arg)
{
    uint32_t callable, args;

    if (sl_pk_pop(m, &args) != 0 || sl_pk_pop(m, &callable) != 0)
        return -1;
    return push_made(m, callable, args);
}

int sl_pk_op_newobj_ex(struct sl_pk_machine *m, unsigned arg)
{
    uint32_t keywords;

    if (sl_pk_pop(m, &keywords) != 0)
        return -1;
    return sl_pk_op_reduce(m, 0);
}

/* The class lies just above the mark, its arguments above it. */
int sl_pk_op_obj(struct sl_pk_machine *m, unsigned arg)
{
    uint32_t base, callable;

    if (sl_pk_pop_mark(m, &base) != 0)
        return -1;
    if (base == m->stack.n)
        return sl_pk_fail(m, SL_ERR_CORRUPT, "the stack is empty");
    callable = m->stack.at[base];
    m->stack.n = base;
    return push_made(m, callable, SL_PK_NODE_EMPTY);
}

int sl_pk_op_inst(struct sl_pk_machine *m, unsigned arg)
{
    uint32_t base, callable;

    if (sl_pk_op_global(m, 0) != 0 || sl_pk_pop(m, &callable) != 0 ||
        sl_pk_pop_mark(m, &base) != 0)
        return -1;
    m->stack.n = base;
    return push_made(m, callable, SL_PK_NODE_EMPTY);
}

/* The state of an object never matters here: that of an OrderedDict is its
 * '_metadata', that of a foreign object goes with it. */
int sl_pk_op_build(struct sl_pk_machine *m, unsigned arg)
{
    uint32_t state, object;

    if (sl_pk_pop(m, &state) != 0 || sl_pk_pop(m, &object) != 0)
        return -1;
    return sl_pk_push(m, object);
}
