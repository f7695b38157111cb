#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "src/text/bytelevel.h"
#include "src/text/sp_proto.h"
#include "src/text/vocab_read.h"

/* A line without its end; false behind the last. */
static bool next_line(const char **s, size_t *n, const char **at,
                      const char *end)
{
    const char *stop;

    if (*at >= end)
        return false;
    stop = memchr(*at, '\n', (size_t)(end - *at));
    *s = *at;
    *n = (size_t)((stop != NULL ? stop : end) - *at);
    *at = stop != NULL ? stop + 1 : end;
    if (*n > 0 && (*s)[*n - 1] == '\r')
        --*n;
    return true;
}

/* --- vocab.json, merges.txt ------------------------------------------------
 */

static int read_merge_lines(struct sl_vocab_builder *b, const char *merges,
                            size_t n, struct sl_error *err)
{
    const char *at = merges, *end = merges + n, *s, *blank;
    size_t size;

    while (next_line(&s, &size, &at, end)) {
        if (size == 0 || (size >= 8 && memcmp(s, "#version", 8) == 0))
            continue;
        blank = memchr(s, ' ', size);
        if (blank == NULL)
            return sl_fail(err, SL_ERR_CORRUPT,
                           "a merge is not two pieces: '%.*s'",
                           (int)(size < 40 ? size : 40), s);
        if (sl_vocab_add_merge(b, s, (size_t)(blank - s), blank + 1,
                               (size_t)(s + size - blank - 1), err) != 0)
            return -1;
    }
    return 0;
}

int sl_vocab_read_merges(struct sl_vocab_builder **out, const char *vocab,
                         size_t n_vocab, const char *merges, size_t n_merges,
                         const char *file, struct sl_error *err)
{
    struct sl_vocab_builder *b;
    json_error_t at;
    json_t *root = json_loadb(vocab, n_vocab, 0, &at);
    int rc;

    if (root == NULL)
        return sl_fail(err, SL_ERR_CORRUPT, "%s:%d:%d: not JSON: %s", file,
                       at.line, at.column, at.text);
    if (sl_vocab_builder_create(&b, "byte-bpe", err) != 0) {
        json_decref(root);
        return -1;
    }
    rc = sl_vocab_read_pieces(b, root, file, err);
    json_decref(root);
    if (rc == 0) {
        rc = read_merge_lines(b, merges, n_merges, err);
        if (rc != 0)
            sl_error_prefix(err, "merges.txt of %s: ", file);
    }
    if (rc == 0)
        rc = sl_vocab_set_pre(b, "gpt-2", err);
    if (rc != 0) {
        sl_vocab_builder_destroy(b);
        return -1;
    }
    *out = b;
    return 0;
}

/* --- base64 ranks ----------------------------------------------------------
 */

static int base64_value(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* RFC 4648; padding at the end may be missing. False for what is none. */
static bool base64_decode(char *out, size_t *n_out, const char *s, size_t n)
{
    uint32_t bits = 0;
    unsigned n_bits = 0;

    *n_out = 0;
    while (n > 0 && s[n - 1] == '=')
        n--;
    for (size_t i = 0; i < n; i++) {
        int v = base64_value(s[i]);

        if (v < 0)
            return false;
        bits = bits << 6 | (uint32_t)v;
        n_bits += 6;
        if (n_bits >= 8) {
            n_bits -= 8;
            out[(*n_out)++] = (char)(bits >> n_bits);
        }
    }
    return n > 0 && n % 4 != 1;
}

enum { TOKEN_MAX = 4096 }; /* base64 characters of a token */

/* One line: the token's bytes and its rank. */
static bool read_rank(char *bytes, size_t *n_bytes, uint32_t *rank,
                      const char *s, size_t n)
{
    const char *blank = memchr(s, ' ', n);
    size_t n_token = blank != NULL ? (size_t)(blank - s) : 0;
    uint64_t r = 0;

    if (n_token == 0 || n_token > TOKEN_MAX || n_token + 1 == n ||
        n - n_token > 9 || !base64_decode(bytes, n_bytes, s, n_token))
        return false;
    for (size_t i = n_token + 1; i < n; i++) {
        if (s[i] < '0' || s[i] > '9')
            return false;
        r = r * 10 + (uint64_t)(s[i] - '0');
    }
    *rank = (uint32_t)r;
    return r < SL_VOCAB_MAX;
}

bool sl_vocab_is_ranks(const char *data, size_t n)
{
    const char *at = data, *s;
    char bytes[TOKEN_MAX];
    size_t size, n_bytes;
    uint32_t rank;

    return next_line(&s, &size, &at, data + n) &&
           read_rank(bytes, &n_bytes, &rank, s, size);
}

static int add_ranks(struct sl_vocab_builder *b, const char *data, size_t n,
                     struct sl_error *err)
{
    const char *at = data, *s;
    struct sl_str spelt = {0};
    char bytes[TOKEN_MAX];
    size_t size, n_bytes, line = 0;
    uint32_t rank;
    int rc = 0;

    while (rc == 0 && next_line(&s, &size, &at, data + n)) {
        line++;
        if (size == 0)
            continue;
        sl_str_clear(&spelt);
        if (!read_rank(bytes, &n_bytes, &rank, s, size))
            rc =
                sl_fail(err, SL_ERR_CORRUPT,
                        "line %zu is not a token in base64 and its rank", line);
        else if (sl_bytelevel_encode(&spelt, bytes, n_bytes, err) != 0)
            rc = -1;
        else
            rc = sl_vocab_add_piece(b, rank, spelt.s, spelt.n, SL_PIECE_NORMAL,
                                    err);
    }
    sl_str_fini(&spelt);
    return rc;
}

/* tiktoken merges any two parts whose concatenation is a token, by its rank
 * (src/lib.rs _byte_pair_merge): parts are tokens, so that all pairs can be
 * listed, every token cut in two in all ways. */
static int add_rank_merges(struct sl_vocab_builder *b, struct sl_error *err)
{
    uint32_t n_tokens = sl_vocab_n_tokens(b);

    for (uint32_t id = 0; id < n_tokens; id++) {
        size_t n;
        const char *s = sl_vocab_spelling(b, id, &n);

        for (size_t cut = 1; cut < n; cut++) {
            int32_t left, right;

            if (((uint8_t)s[cut] & 0xc0) == 0x80)
                continue;
            left = sl_vocab_find(b, s, cut);
            right = left < 0 ? -1 : sl_vocab_find(b, s + cut, n - cut);
            if (right >= 0 &&
                sl_vocab_add_merge_ids(b, (uint32_t)left, (uint32_t)right, id,
                                       err) != 0)
                return -1;
        }
    }
    return 0;
}

int sl_vocab_read_ranks(struct sl_vocab_builder **out, const char *data,
                        size_t n, const char *pre, const char *file,
                        struct sl_error *err)
{
    struct sl_vocab_builder *b;

    if (sl_vocab_builder_create(&b, "byte-bpe", err) != 0)
        return -1;
    sl_vocab_set_number(b, SL_VOCAB_RANK_IS_RESULT, 1);
    sl_vocab_set_number(b, SL_VOCAB_IGNORE_MERGES, 1);
    if (add_ranks(b, data, n, err) != 0 || add_rank_merges(b, err) != 0 ||
        sl_vocab_set_pre(b, pre, err) != 0) {
        sl_error_prefix(err, "%s: ", file);
        sl_vocab_builder_destroy(b);
        return -1;
    }
    *out = b;
    return 0;
}

/* --- vocab.txt -------------------------------------------------------------
 */

/* Control tokens of BERT (google-research/bert vocab.txt). */
static bool is_bert_control(const char *s, size_t n)
{
    static const char *const names[] = {"[PAD]", "[UNK]", "[CLS]", "[SEP]",
                                        "[MASK]"};

    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strlen(names[i]) == n && memcmp(names[i], s, n) == 0)
            return true;
    }
    return false;
}

static int add_wordpieces(struct sl_vocab_builder *b, const char *data,
                          size_t n, struct sl_error *err)
{
    const char *at = data, *s;
    uint32_t id = 0;
    size_t size;

    while (next_line(&s, &size, &at, data + n)) {
        if (!sl_utf8_valid(s, size))
            return sl_fail(err, SL_ERR_CORRUPT, "line %u is not UTF-8", id + 1);
        if (sl_vocab_add_piece(b, id, s, size, SL_PIECE_NORMAL, err) != 0)
            return -1;
        if (is_bert_control(s, size) &&
            sl_vocab_add_added(b, id, s, size, SL_ADDED_SPECIAL, err) != 0)
            return -1;
        id++;
    }
    sl_vocab_set_number(b, SL_VOCAB_WORD_MAX, 100);
    sl_vocab_set_control(b, SL_CONTROL_UNK, sl_vocab_find(b, "[UNK]", 5));
    if (sl_vocab_find(b, "[UNK]", 5) < 0)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "none of its %u lines is [UNK]: not BERT's vocabulary",
                       id);
    return 0;
}

int sl_vocab_read_wordpiece(struct sl_vocab_builder **out, const char *data,
                            size_t n, bool lower, const char *file,
                            struct sl_error *err)
{
    struct sl_vocab_builder *b;

    if (sl_vocab_builder_create(&b, "wordpiece", err) != 0)
        return -1;
    if (add_wordpieces(b, data, n, err) != 0 ||
        sl_vocab_add_bert(b, true, true, lower, lower, err) != 0 ||
        sl_vocab_add_bert_splits(b, err) != 0) {
        sl_error_prefix(err, "%s: ", file);
        sl_vocab_builder_destroy(b);
        return -1;
    }
    *out = b;
    return 0;
}

/* --- a sentencepiece model -------------------------------------------------
 */

static int add_sp(struct sl_vocab_builder *b, const char *data, size_t n,
                  struct sl_error *err)
{
    static const enum sl_vocab_control controls[SL_SP_N_NAMES] = {
        [SL_SP_UNK] = SL_CONTROL_UNK,
        [SL_SP_BOS] = SL_CONTROL_BOS,
        [SL_SP_EOS] = SL_CONTROL_EOS,
        [SL_SP_PAD] = SL_CONTROL_PAD,
    };
    struct sl_sp_names names;
    struct sl_sp_reader r;
    struct sl_sp_piece p;
    uint32_t id = 0;
    int rc;

    sl_sp_read_names(&names, data, n);
    sl_sp_reader_init(&r, data, n);
    while ((rc = sl_sp_reader_next(&r, &p, err)) > 0) {
        if (sl_vocab_add_piece(b, id, p.s, p.n, (enum sl_piece_type)p.type,
                               err) != 0)
            return -1;
        if (p.type == SL_PIECE_CONTROL && p.n > 0 &&
            sl_vocab_add_added(b, id, p.s, p.n, SL_ADDED_SPECIAL, err) != 0)
            return -1;
        for (int i = 0; i < SL_SP_N_NAMES; i++) {
            if (p.n == names.name[i].n &&
                memcmp(p.s, names.name[i].s, p.n) == 0 &&
                (p.type == SL_PIECE_CONTROL || p.type == SL_PIECE_UNKNOWN))
                sl_vocab_set_control(b, controls[i], (int32_t)id);
        }
        id++;
    }
    sl_vocab_set_number(b, SL_VOCAB_N_MODEL, id);
    return rc != 0 ? rc : sl_vocab_set_model(b, data, n, err);
}

int sl_vocab_read_sp(struct sl_vocab_builder **out, const char *data, size_t n,
                     const char *file, struct sl_error *err)
{
    struct sl_vocab_builder *b;

    if (sl_vocab_builder_create(&b, "sentencepiece", err) != 0)
        return -1;
    if (add_sp(b, data, n, err) != 0) {
        sl_error_prefix(err, "%s: ", file);
        sl_vocab_builder_destroy(b);
        return -1;
    }
    *out = b;
    return 0;
}
