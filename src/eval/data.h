/*
 * data.h - examples of a task, out of its data files
 *
 * JSON lines as GLM-130B's evaluation has them: every text is there as `X`
 * (ids) or `X_pretokenized` (text). A language model's file is one raw text;
 * the Pile's has a document a line, and so have THUDM/GLM's, but for WikiText's
 * (tasks/language_model/dataset.py).
 */
#ifndef SL_EVAL_DATA_H
#define SL_EVAL_DATA_H

#include "src/base/ids.h"
#include "src/eval/files.h"
#include "src/eval/task.h"

/* A text, or ids where the file has those. */
struct sl_passage {
    char *text; /* owned; NULL: ids */
    size_t n_text;
    struct sl_ids ids;
};

struct sl_example {
    size_t line;                /* of its file, from 1 */
    struct sl_passage inputs;   /* or the text of a language model */
    struct sl_passage *choices; /* (n_choices) or targets of gen; owned */
    uint32_t n_choices;
    uint32_t label;
    /* of the classes that have rules of their own; owned or NULL */
    char *bias_type, *pair_id, *set_name;
    char **goal_labels; /* (n_choices) */
    bool first_sentence;
    uint64_t n_bytes;          /* of the text, UTF-8 */
    uint64_t n_words;          /* parts between single blanks */
    uint64_t n_ids, n_windows; /* of a language model's text, once built */
};

struct sl_data { /* zeroed to begin with, owned */
    struct sl_example *v;
    size_t n, room;
};

void sl_data_fini(struct sl_data *data);

/* Reads a file of a task. documents: as THUDM/GLM reads texts, a document a
 * line, or WikiText (wikitext.h), whose words are those of the file. vocab: ids
 * are less. shown: what it is called in messages. Errors: SL_ERR_IO;
 * SL_ERR_CORRUPT naming file, line and field; SL_ERR_NOMEM. */
int sl_data_read(struct sl_data *data, const struct sl_task *task,
                 bool documents, uint32_t vocab, const char *path,
                 const char *shown, struct sl_error *err);

/* Reads --tasks-json: a list, or lines, of {"context", "choices", "answer"},
 * where the answer is an index or one of the choices. Errors: as above. */
int sl_data_read_plain(struct sl_data *data, const char *path,
                       struct sl_error *err);

#endif
