#include "config.h"

#include "src/base/bytes.h"
#include "src/serve/job.h"
#include "src/serve/room.h"

#define LEAST_BYTES (8ull << 20)

uint64_t sl_room_bytes(const struct sl_serve_config *c)
{
    return c->keep_bytes > LEAST_BYTES ? c->keep_bytes : LEAST_BYTES;
}

bool sl_room_has(const struct sl_server *s, uint64_t n)
{
    return n <= sl_room_bytes(s->c) &&
           s->room_bytes - sl_jobs_kept_bytes(s) <= sl_room_bytes(s->c) - n;
}

bool sl_room_take(struct sl_server *s, uint64_t n)
{
    if (!sl_room_has(s, n))
        return false;
    while (s->room_bytes > sl_room_bytes(s->c) - n)
        sl_jobs_drop_oldest(s);
    s->room_bytes += n;
    return true;
}

int sl_room_ask(struct sl_server *s, uint64_t n, struct sl_refusal *why)
{
    uint64_t most = sl_room_bytes(s->c) / 2;
    char all[SL_SIZE_TEXT];

    sl_size_format(all, most);
    if (n > most)
        return sl_refuse(why, 400, NULL,
                         "the request takes more than the %s of memory that "
                         "there is for those that wait (half of "
                         "--keep-answers)",
                         all);
    if (s->asked_bytes + n <= most && sl_room_take(s, n)) {
        s->asked_bytes += n;
        return 0;
    }
    sl_refuse(why, 429, NULL,
              "the requests that are here have the %s of memory that there is "
              "for those that wait (half of --keep-answers)",
              all);
    why->retry_after_s = sl_jobs_retry_s(s);
    return -1;
}

void sl_room_give(struct sl_server *s, uint64_t n)
{
    s->room_bytes -= n;
    if (s->first_waiting != NULL)
        pthread_cond_broadcast(&s->work);
}
