#include "config.h"

#include <string.h>

#include "src/base/lines.h"
#include "src/text/answer.h"

#define THINK     "<think>"
#define THINK_END "</think>"
#define DATE      "[[训练时间]]"

void sl_answer_begin(struct sl_answer *a, const struct sl_chat_template *tmpl,
                     bool thinking, const struct sl_answer_sink *sink)
{
    *a = (struct sl_answer){
        .tmpl = tmpl,
        .sink = sink,
        .state = thinking ? SL_ANSWER_THINKING : SL_ANSWER_BEGIN,
    };
    if (!thinking && tmpl->thinking == SL_THINKING_NONE)
        a->state = SL_ANSWER_CONTENT;
}

void sl_answer_fini(struct sl_answer *a)
{
    sl_str_fini(&a->held);
    sl_str_fini(&a->blanks);
    sl_str_fini(&a->content);
    sl_str_fini(&a->reasoning);
}

/* --- the last step: blanks and punctuation ---------------------------------
 */

static int put(struct sl_answer *a, const char *text, size_t n,
               struct sl_error *err)
{
    bool thinking = a->state == SL_ANSWER_THINKING;

    if (n == 0)
        return 0;
    if (sl_str_append(thinking ? &a->reasoning : &a->content, text, n, err) !=
        0)
        return -1;
    if (a->sink == NULL)
        return 0;
    return a->sink->text(a->sink->opaque, thinking, text, n, err);
}

/* Punctuation that was waiting for the character behind it. */
static int put_mark(struct sl_answer *a, bool full, struct sl_error *err)
{
    static const char ascii[] = ",!:;?";
    static const char *const wide[] = {"，", "！", "：", "；", "？"};
    char mark = a->mark;

    a->mark = '\0';
    if (mark == '\0')
        return 0;
    a->after_chinese = false;
    if (full) {
        const char *text = wide[strchr(ascii, mark) - ascii];

        return put(a, text, strlen(text), err);
    }
    return put(a, &mark, 1, err);
}

/* U+4E00..U+9FFF */
static bool is_chinese(const char *s, size_t n)
{
    const unsigned char *c = (const unsigned char *)s;
    unsigned code;

    if (n != 3 || (c[0] & 0xf0) != 0xe0)
        return false;
    code = (c[0] & 0xfu) << 12 | (c[1] & 0x3fu) << 6 | (c[2] & 0x3fu);
    return code >= 0x4e00 && code <= 0x9fff;
}

static bool is_blank(const char *s, size_t n)
{
    sl_text_strip(&s, &n);
    return n == 0;
}

/* Blanks and a mark are held until what follows is known: blanks at the end
 * of an answer are dropped, and a mark beside Chinese becomes the wide one,
 * as ChatGLM-6B's process_response has it. */
static int put_character(struct sl_answer *a, const char *s, size_t n,
                         struct sl_error *err)
{
    bool full =
        a->tmpl->polish == SL_POLISH_FULL && a->state == SL_ANSWER_CONTENT;
    bool chinese = is_chinese(s, n);

    if (put_mark(a, chinese, err) != 0)
        return -1;
    if (is_blank(s, n)) {
        a->after_chinese = false;
        return a->began ? sl_str_append(&a->blanks, s, n, err) : 0;
    }
    a->began = true;
    if (put(a, a->blanks.s, a->blanks.n, err) != 0)
        return -1;
    sl_str_clear(&a->blanks);
    if (full && n == 1 && *s != '\0' && strchr(",!:;?", *s) != NULL) {
        a->mark = *s;
        return a->after_chinese ? put_mark(a, true, err) : 0;
    }
    a->after_chinese = chinese;
    return put(a, s, n, err);
}

static int put_text(struct sl_answer *a, const char *text, size_t n,
                    struct sl_error *err)
{
    for (size_t i = 0, size; i < n; i += size) {
        size = sl_utf8_prefix(text + i, n - i, 1);
        if (put_character(a, text + i, size, err) != 0)
            return -1;
    }
    return 0;
}

/* From thinking to content, or the end. */
static int end_part(struct sl_answer *a, struct sl_error *err)
{
    int rc = put_mark(a, false, err);

    sl_str_clear(&a->blanks);
    a->began = a->after_chinese = false;
    return rc;
}

/* --- the first step: marks -------------------------------------------------
 */

/* Where in text a mark begins, or its end does that could become one; n: none
 * of both. *whole tells which. */
static size_t find(const char *text, size_t n, const char *mark, bool *whole)
{
    size_t size = strlen(mark);

    *whole = false;
    for (size_t at = 0; at < n; at++) {
        size_t left = n - at < size ? n - at : size;

        if (memcmp(text + at, mark, left) != 0)
            continue;
        *whole = left == size;
        return at;
    }
    return n;
}

static void drop(struct sl_str *s, size_t n)
{
    if (n == 0)
        return;
    memmove(s->s, s->s + n, s->n - n + 1);
    s->n -= n;
}

/* Thinking begins an answer or does not come. *more: there is something to go
 * on with. */
static int step_begin(struct sl_answer *a, bool *more, struct sl_error *err)
{
    const char *text = sl_str_text(&a->held);
    size_t n = a->held.n, at;
    bool whole;

    *more = false;
    sl_text_strip(&text, &n);
    if (n == 0)
        return 0;
    at = find(text, n, THINK, &whole);
    if (at == 0 && !whole && text + n == a->held.s + a->held.n)
        return 0;
    *more = true;
    a->state = SL_ANSWER_CONTENT;
    if (at == 0 && whole) {
        a->state = SL_ANSWER_THINKING;
        drop(&a->held, (size_t)(text - a->held.s) + strlen(THINK));
    }
    return 0;
}

/* All that can be no part of the mark that ends thinking goes on at once;
 * the rest is held until more has come. */
static int step_thinking(struct sl_answer *a, bool *more, struct sl_error *err)
{
    bool whole;
    size_t at = find(a->held.s, a->held.n, THINK_END, &whole);

    *more = whole;
    if (put_text(a, a->held.s, at, err) != 0)
        return -1;
    drop(&a->held, at + (whole ? strlen(THINK_END) : 0));
    if (!whole)
        return 0;
    if (end_part(a, err) != 0)
        return -1;
    a->state = SL_ANSWER_CONTENT;
    return 0;
}

/* Of a stop text and the mark for the date the first one counts. The date is
 * what ChatGLM-6B's process_response puts there. */
static int step_content(struct sl_answer *a, bool *more, struct sl_error *err)
{
    const char *stop = a->tmpl->stop_text;
    size_t at = a->held.n, stop_at = at;
    bool date = false, stopped = false;

    if (a->tmpl->polish != SL_POLISH_STRIP)
        at = find(a->held.s, a->held.n, DATE, &date);
    if (stop != NULL)
        stop_at = find(a->held.s, a->held.n, stop, &stopped);
    if (stop_at < at) {
        at = stop_at;
        date = false;
    } else {
        stopped = false;
    }
    *more = date;
    if (put_text(a, a->held.s, at, err) != 0 ||
        (date && put_text(a, "2023年", strlen("2023年"), err) != 0))
        return -1;
    drop(&a->held, at + (date ? strlen(DATE) : 0));
    if (stopped) {
        sl_str_clear(&a->held);
        if (end_part(a, err) != 0)
            return -1;
        a->state = SL_ANSWER_STOPPED;
    }
    return 0;
}

int sl_answer_push(struct sl_answer *a, const char *text, size_t n,
                   struct sl_error *err)
{
    bool more = n > 0;

    if (a->state == SL_ANSWER_STOPPED)
        return 0;
    if (sl_str_append(&a->held, text, n, err) != 0)
        return -1;
    while (more && a->held.n > 0) {
        int rc = 0;

        switch (a->state) {
        case SL_ANSWER_BEGIN:
            rc = step_begin(a, &more, err);
            break;
        case SL_ANSWER_THINKING:
            rc = step_thinking(a, &more, err);
            break;
        case SL_ANSWER_CONTENT:
            rc = step_content(a, &more, err);
            break;
        case SL_ANSWER_STOPPED:
            more = false;
            break;
        }
        if (rc != 0)
            return -1;
    }
    return 0;
}

int sl_answer_end(struct sl_answer *a, struct sl_error *err)
{
    if (a->state == SL_ANSWER_BEGIN)
        a->state = SL_ANSWER_CONTENT;
    if (put_text(a, sl_str_text(&a->held), a->held.n, err) != 0)
        return -1;
    sl_str_clear(&a->held);
    return end_part(a, err);
}
