#include "config.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "src/ckpt/ckpt_kind.h"
#include "src/convert/convert_impl.h"
#include "src/text/chat.h"
#include "src/text/tokenizer.h"
#include "src/text/vocab_compile.h"
#include "src/text/vocab_gguf.h"

/* The vocabulary that goes into the model file: a compiled one, but for
 * GLM-130B, whose files hold its sentencepiece model as it is. */

/* Where files are read from: beside the file of --tokenizer, or in it if it is
 * a folder; what it says nothing of, and all where none was given, beside the
 * checkpoint. */
struct place {
    const struct sl_convert *cv;
    char dir[4096];   /* "": nothing was said */
    const char *file; /* in it; NULL: look */
};

/* Where none of another vocabulary's is given, the checkpoint's hold. */
static bool is_setting(const char *name)
{
    return strstr(name, "config.json") != NULL ||
           strcmp(name, "added_tokens.json") == 0 ||
           strcmp(name, "special_tokens_map.json") == 0;
}

static int read_file(void *opaque, const char *name, uint8_t **data, size_t *n,
                     struct sl_error *err)
{
    struct place *p = opaque;
    int rc =
        p->dir[0] == '\0' ? 1 : sl_vocab_read_dir(p->dir, name, data, n, err);

    if (rc <= 0 || (p->dir[0] != '\0' && !is_setting(name)))
        return rc;
    return sl_ckpt_read_file(&p->cv->ckpt, name, data, n, err);
}

static int find_place(struct place *p, const struct sl_convert *cv,
                      struct sl_error *err)
{
    const char *path = cv->o->tokenizer, *slash;
    struct stat st;

    *p = (struct place){.cv = cv};
    if (path == NULL)
        return 0;
    if (strlen(path) >= sizeof p->dir)
        return sl_fail(err, SL_ERR_USAGE,
                       "--tokenizer %.60s...: too long a path", path);
    if (stat(path, &st) != 0)
        return sl_fail_os(err, errno, "--tokenizer %s", path);
    strcpy(p->dir, path);
    if (S_ISDIR(st.st_mode))
        return 0;
    slash = strrchr(path, '/');
    p->file = slash != NULL ? slash + 1 : path;
    if (slash == NULL)
        strcpy(p->dir, ".");
    else
        p->dir[slash == path ? 1 : slash - path] = '\0';
    return 0;
}

static int same_id(const char *name, int32_t said, int32_t is, const char *file,
                   struct sl_error *err)
{
    if (said == -1 || said == is)
        return 0;
    return sl_fail(err, SL_ERR_CORRUPT,
                   "%s puts %s at %d, the model's configuration at %d: they do "
                   "not belong together",
                   file, name, is, said);
}

/* Ids that were said must be those of the tokenizer, which knows them all. */
static int take_bare(struct sl_convert *cv, const char *file,
                     struct sl_error *err)
{
    const struct sl_special_ids said = cv->hp.text.special;
    struct sl_hparams hp = cv->hp;
    const struct sl_special_ids *is = &hp.text.special;

    if (sl_tokenizer_describe(&hp.text, cv->tokenizer, cv->tokenizer_bytes,
                              err) != 0) {
        sl_error_prefix(err, "%s: ", file);
        return -1;
    }
    if (hp.text.n_tokens > hp.vocab)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "%s has %u ids (with %u image tokens), but the "
                       "vocabulary is %u: is --num-image-tokens right?",
                       file, hp.text.n_tokens, hp.text.n_image_tokens,
                       hp.vocab);
    if (same_id("[MASK]", said.mask, is->mask, file, err) != 0 ||
        same_id("[gMASK]", said.gmask, is->gmask, file, err) != 0 ||
        same_id("[sMASK]", said.smask, is->smask, file, err) != 0 ||
        same_id("<eod>", said.eod, is->eod, file, err) != 0 ||
        same_id("<sop>", said.sop, is->sop, file, err) != 0 ||
        same_id("<eop>", said.eop, is->eop, file, err) != 0 ||
        same_id("<ENC>", said.enc, is->enc, file, err) != 0 ||
        same_id("<dBLOCK>", said.dblock, is->dblock, file, err) != 0 ||
        same_id("</s>", said.eos, is->eos, file, err) != 0 ||
        same_id("<unk>", said.unk, is->unk, file, err) != 0)
        return -1;
    cv->hp = hp;
    return 0;
}

/* ice_text.model as it is. 1 where there is none. */
static int find_bare(struct sl_convert *cv, struct place *p,
                     struct sl_error *err)
{
    const char *file = p->file != NULL ? p->file : "ice_text.model";
    int rc = read_file(p, file, &cv->tokenizer, &cv->tokenizer_bytes, err);

    if (rc != 0)
        return rc;
    if (cv->tokenizer_bytes == 0)
        return sl_fail(err, SL_ERR_CORRUPT, "%s: is empty", file);
    return take_bare(cv, file, err);
}

/* Whose rules hold, where the folder's own settings do not say. THUDM's
 * checkpoint of GLM-10B-Chinese has the older numbering of its masks, the
 * folders that Hugging Face has of it the newer one, and settings. */
static void choose_rules(struct sl_vocab_options *o,
                         const struct sl_convert *cv)
{
    static const struct {
        const char *arch;
        enum sl_vocab_family family;
    } rules[] = {
        {"chatglm6b", SL_FAMILY_CHATGLM},
        {"glm", SL_FAMILY_GLM},
    };
    const uint32_t hidden_10b = 4096;

    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
        if (strcmp(rules[i].arch, cv->arch->name) == 0)
            o->family = rules[i].family;
    }
    o->glm_gmask_is_eop =
        cv->hp.hidden >= hidden_10b && strcmp(cv->ckpt.kind->name, "sat") == 0;
}

static void take_made(struct sl_convert *cv, const struct sl_vocab_made *made)
{
    cv->tokenizer = made->blob;
    cv->tokenizer_bytes = made->n;
    cv->hp.text = made->text;
    sl_log(cv->o->log, SL_LOG_INFO, "tokenizer: %s", made->took);
}

static int find_compiled(struct sl_convert *cv, struct place *p,
                         struct sl_error *err)
{
    struct sl_vocab_source source = {read_file, p};
    struct sl_vocab_options o = {.file = p->file, .rows = cv->hp.vocab};
    struct sl_vocab_made made;
    int rc;

    choose_rules(&o, cv);
    rc = sl_vocab_compile(&made, &source, &o, err);
    if (rc != 0)
        return rc;
    take_made(cv, &made);
    return 0;
}

/* Which of our templates the file's own is. One that we have not is found by
 * names, as where there is none, if at all: that is said. */
static int find_template(struct sl_convert *cv, struct sl_error *err)
{
    static const char key[] = "tokenizer.chat_template";
    const struct sl_gguf *g = sl_ckpt_gguf(&cv->ckpt);
    const struct sl_chat_template *tmpl;
    const char *jinja;

    if (!sl_gguf_has(g, key))
        return 0;
    if (sl_gguf_get_string(g, key, &jinja, err) != 0)
        return -1;
    tmpl = sl_chat_recognise(jinja, cv->arch->name);
    if (tmpl != NULL)
        cv->chat = tmpl->name;
    else
        sl_log(cv->o->log, SL_LOG_INFO,
               "its chat template is none that sluice knows: 'sluice chat' "
               "takes one by the model's names; --template says which");
    return 0;
}

/* What the metadata of a GGUF file has. What it has and is not known makes a
 * file without texts, not none. */
static int find_in_metadata(struct sl_convert *cv, struct sl_error *err)
{
    struct sl_vocab_made made;
    struct sl_error why;
    int rc = sl_vocab_compile_gguf(&made, sl_ckpt_gguf(&cv->ckpt), cv->hp.vocab,
                                   &why);

    if (rc < 0 && why.code != SL_ERR_UNSUPPORTED) {
        *err = why;
        sl_error_prefix(err, "%s: ", cv->ckpt.shards[0].file);
        return -1;
    }
    if (rc == 0) {
        take_made(cv, &made);
        return find_template(cv, err);
    }
    snprintf(cv->no_text, sizeof cv->no_text, "%s",
             rc > 0 ? "its GGUF file has no vocabulary" : why.msg);
    sl_log(cv->o->log, SL_LOG_WARN,
           "%s: the model file will serve logits and benchmarks, but not "
           "texts; --tokenizer FILE names another vocabulary",
           cv->no_text);
    return 0;
}

int sl_convert_find_text(struct sl_convert *cv, struct sl_error *err)
{
    bool bare = strcmp(cv->arch->name, "glm130b") == 0;
    struct place p;
    int rc;

    if (sl_ckpt_gguf(&cv->ckpt) != NULL && cv->o->tokenizer == NULL)
        return find_in_metadata(cv, err);
    if (find_place(&p, cv, err) != 0)
        return -1;
    rc = (bare ? find_bare : find_compiled)(cv, &p, err);
    if (rc <= 0)
        return rc;
    if (cv->o->tokenizer != NULL)
        return sl_fail(err, SL_ERR_IO, "%s: there is no vocabulary in it",
                       cv->o->tokenizer);
    sl_log(cv->o->log, SL_LOG_WARN,
           "there is no %s beside the checkpoint: the model file will serve "
           "logits and benchmarks, but not generate text; --tokenizer FILE "
           "names one",
           bare ? "ice_text.model"
                : "tokenizer.json, tokenizer.model, vocab.json or vocab.txt");
    return 0;
}
