#include "config.h"

#include <stdio.h>
#include <string.h>

#include "src/ckpt/ckpt_pickle.h"

const char *sl_pk_text(const struct sl_pickle *p, const struct sl_pk_node *v)
{
    const uint8_t *from = v->decoded ? p->decoded.at : p->bytes.at;

    return (const char *)from + v->text;
}

static bool text_begins(const struct sl_pickle *p, const struct sl_pk_node *v,
                        const char *text, size_t n)
{
    return v->kind == SL_PK_STR && v->n >= n &&
           memcmp(sl_pk_text(p, v), text, n) == 0;
}

bool sl_pk_text_is(const struct sl_pickle *p, const struct sl_pk_node *v,
                   const char *text)
{
    size_t n = strlen(text);

    return text_begins(p, v, text, n) && v->n == n;
}

uint32_t sl_pk_items(const struct sl_pickle *p, const struct sl_pk_node *v,
                     uint32_t *items, uint32_t max)
{
    uint32_t cell = v->n ? v->list.first : SL_PK_NIL;

    for (uint32_t i = 0; i < max && cell != SL_PK_NIL; i++) {
        items[i] = p->cells.at[cell].node;
        cell = p->cells.at[cell].next;
    }
    return v->n;
}

uint32_t sl_pk_get(const struct sl_pickle *p, const struct sl_pk_node *dict,
                   const char *key)
{
    uint32_t cell = dict->n ? dict->list.first : SL_PK_NIL;
    uint32_t found = SL_PK_NIL;

    while (cell != SL_PK_NIL) {
        const struct sl_pk_cell *k = &p->cells.at[cell];
        const struct sl_pk_cell *v = &p->cells.at[k->next];

        if (sl_pk_text_is(p, sl_pk_at(p, k->node), key))
            found = v->node;
        cell = v->next;
    }
    return found;
}

/* At most max bytes of a text, with what cannot be printed as '?'. */
static size_t put_text(char *to, size_t max, const struct sl_pickle *p,
                       const struct sl_pk_node *v)
{
    const char *text = sl_pk_text(p, v);
    size_t n = v->n < max ? v->n : max;

    for (size_t i = 0; i < n; i++)
        to[i] = text[i] >= ' ' && text[i] <= '~' ? text[i] : '?';
    return n;
}

char *sl_pk_label(char buf[SL_PK_LABEL], const struct sl_pickle *p,
                  uint32_t node)
{
    static const char *const kinds[] = {
        [SL_PK_NONE] = "None",
        [SL_PK_BOOL] = "a boolean",
        [SL_PK_INT] = "an integer",
        [SL_PK_BIG] = "a large integer",
        [SL_PK_FLOAT] = "a number",
        [SL_PK_STR] = "a string",
        [SL_PK_BYTES] = "bytes",
        [SL_PK_TUPLE] = "a tuple",
        [SL_PK_LIST] = "a list",
        [SL_PK_SET] = "a set",
        [SL_PK_DICT] = "a dict",
        [SL_PK_GLOBAL] = "a global",
        [SL_PK_OPAQUE] = "an object",
        [SL_PK_STORAGE] = "a torch storage",
        [SL_PK_TENSOR] = "a torch tensor",
    };
    const struct sl_pk_node *v = sl_pk_at(p, node);
    size_t n;

    if (v->kind == SL_PK_OPAQUE && v->ref != SL_PK_NIL)
        v = sl_pk_at(p, v->ref);
    if (v->kind != SL_PK_GLOBAL) {
        snprintf(buf, SL_PK_LABEL, "%s", kinds[v->kind]);
        return buf;
    }
    n = put_text(buf, SL_PK_LABEL / 2 - 1, p, sl_pk_at(p, v->global.module));
    buf[n++] = '.';
    n += put_text(buf + n, SL_PK_LABEL / 2 - 1, p, sl_pk_at(p, v->global.name));
    buf[n] = '\0';
    return buf;
}

/* Whole packages whose objects lie beside weights, and single names of
 * modules that hold dangerous ones too: what the objects are pickled with that
 * DeepSpeed (deepspeedai/DeepSpeed deepspeed/runtime/engine.py,
 * _save_checkpoint) and Megatron (NVIDIA/Megatron-LM megatron/checkpointing.py)
 * put beside the weights, states of random generators and options among them.
 */
static bool is_expected(const struct sl_pickle *p, const struct sl_pk_node *g)
{
    static const char *const packages[] = {
        "torch", "numpy", "deepspeed", "megatron", "SwissArmyTransformer",
        "sat",   "apex",  "argparse",
    };
    static const char *const names[][2] = {
        {"_codecs", "encode"},          {"collections", "OrderedDict"},
        {"collections", "defaultdict"}, {"copy_reg", "_reconstructor"},
        {"copyreg", "_reconstructor"},
    };
    static const char *const builtins[] = {
        "set",  "frozenset", "slice", "complex", "bytearray", "bytes",
        "list", "dict",      "tuple", "int",     "float",     "str",
        "bool", "object",    "range", "long",    "unicode",
    };
    const struct sl_pk_node *module = sl_pk_at(p, g->global.module);
    const struct sl_pk_node *name = sl_pk_at(p, g->global.name);

    for (size_t i = 0; i < sizeof packages / sizeof *packages; i++) {
        size_t n = strlen(packages[i]);

        if (text_begins(p, module, packages[i], n) &&
            (module->n == n || sl_pk_text(p, module)[n] == '.'))
            return true;
    }
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (sl_pk_text_is(p, module, names[i][0]) &&
            sl_pk_text_is(p, name, names[i][1]))
            return true;
    if (!sl_pk_text_is(p, module, "builtins") &&
        !sl_pk_text_is(p, module, "__builtin__"))
        return false;
    for (size_t i = 0; i < sizeof builtins / sizeof *builtins; i++)
        if (sl_pk_text_is(p, name, builtins[i]))
            return true;
    return false;
}

bool sl_pk_next_suspect(const struct sl_pickle *p, uint32_t *at)
{
    for (; *at < p->nodes.n; ++*at) {
        const struct sl_pk_node *v = sl_pk_at(p, *at);

        if (v->kind == SL_PK_GLOBAL && !is_expected(p, v))
            return true;
    }
    return false;
}
