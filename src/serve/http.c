#include "config.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "src/base/clock.h"
#include "src/serve/http.h"
#include "src/serve/room.h"
#include "src/serve/sizes.h"

/* Threads that parse requests; none of them waits for the model. */
enum { HTTP_THREADS = 4 };

/* --- life of a request ------------------------------------------------------
 */

static void link_req(struct sl_req *r)
{
    struct sl_server *s = r->s;

    pthread_mutex_lock(&s->lock);
    r->after = s->reqs;
    if (s->reqs != NULL)
        s->reqs->before = r;
    s->reqs = r;
    r->conn->busy++;
    s->counts.requests++;
    snprintf(r->id, sizeof r->id, "req-%llx%04llx",
             (unsigned long long)s->created, (unsigned long long)s->next_id++);
    pthread_mutex_unlock(&s->lock);
}

static void find_peer(struct sl_req *r)
{
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(
        r->connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    const struct sockaddr *a = info != NULL ? info->client_addr : NULL;

    if (a == NULL ||
        getnameinfo(a,
                    a->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6)
                                             : sizeof(struct sockaddr_in),
                    r->peer, sizeof r->peer, NULL, 0, NI_NUMERICHOST) != 0)
        snprintf(r->peer, sizeof r->peer, "?");
}

static struct sl_req *create_req(struct sl_server *s,
                                 struct MHD_Connection *connection,
                                 const char *url, const char *method)
{
    struct sl_req *r = calloc(1, sizeof *r);
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    const char *length = MHD_lookup_connection_value(
        connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_CONTENT_LENGTH);

    if (r == NULL || info == NULL || info->socket_context == NULL ||
        (r->path = strdup(url)) == NULL) {
        free(r);
        return NULL;
    }
    r->s = s;
    r->connection = connection;
    r->conn = info->socket_context;
    r->method = method;
    r->key = -1;
    r->n_logprobs = -1;
    r->begun_ns = r->said_ns = sl_clock_ns();
    r->declared = length != NULL ? strtoull(length, NULL, 10) : 0;
    find_peer(r);
    link_req(r);
    return r;
}

static void destroy_req(struct sl_req *r, bool whole)
{
    struct sl_server *s = r->s;

    pthread_mutex_lock(&s->lock);
    if (r->before != NULL)
        r->before->after = r->after;
    else
        s->reqs = r->after;
    if (r->after != NULL)
        r->after->before = r->before;
    r->conn->busy--;
    r->conn->since_ns = sl_clock_ns();
    s->bodies_bytes -= r->took;
    sl_room_give(s, r->held);
    sl_guard_leave(r);
    if (!whole)
        s->counts.gone++;
    if (r->job != NULL) {
        if (whole && sl_job_ended(r->job))
            r->job->delivered = true;
        sl_job_leave(r->job);
    }
    pthread_mutex_unlock(&s->lock);
    sl_request_log(r);
    sl_str_fini(&r->body_text);
    sl_str_fini(&r->out);
    json_decref(r->asked);
    json_decref(r->model);
    json_decref(r->echoes);
    free(r->cursor);
    free(r->cursor_ended);
    free(r->path);
    free(r);
}

static void completed(void *cls, struct MHD_Connection *connection,
                      void **con_cls, enum MHD_RequestTerminationCode why)
{
    struct sl_req *r = *con_cls;

    *con_cls = NULL;
    if (r != NULL)
        destroy_req(r, why == MHD_REQUEST_TERMINATED_COMPLETED_OK && !r->gone);
}

/* --- connections ------------------------------------------------------------
 */

static void notify_connection(void *cls, struct MHD_Connection *connection,
                              void **context,
                              enum MHD_ConnectionNotificationCode code)
{
    struct sl_server *s = cls;
    struct sl_conn *c = *context;
    const union MHD_ConnectionInfo *info;

    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        info = MHD_get_connection_info(connection,
                                       MHD_CONNECTION_INFO_CONNECTION_FD);
        c = calloc(1, sizeof *c);
        *context = c;
        if (c == NULL || info == NULL)
            return;
        c->fd = info->connect_fd;
        c->since_ns = sl_clock_ns();
        pthread_mutex_lock(&s->lock);
        c->after = s->conns;
        if (s->conns != NULL)
            s->conns->before = c;
        s->conns = c;
        pthread_mutex_unlock(&s->lock);
        return;
    }
    if (c == NULL)
        return;
    pthread_mutex_lock(&s->lock);
    if (c->before != NULL)
        c->before->after = c->after;
    else
        s->conns = c->after;
    if (c->after != NULL)
        c->after->before = c->before;
    pthread_mutex_unlock(&s->lock);
    free(c);
    *context = NULL;
}

/* --- a request comes in -----------------------------------------------------
 */

/* Bodies of all clients have a limit together: the budget has room for it. */
static bool take_room(struct sl_req *r, size_t n)
{
    struct sl_server *s = r->s;
    bool room;

    pthread_mutex_lock(&s->lock);
    room = s->bodies_bytes + n <= sl_sizes_bodies(s->c);
    if (room) {
        s->bodies_bytes += n;
        r->took += n;
    }
    pthread_mutex_unlock(&s->lock);
    return room;
}

static void drop_body(struct sl_req *r)
{
    r->refused = true;
    sl_str_fini(&r->body_text);
    pthread_mutex_lock(&r->s->lock);
    r->s->bodies_bytes -= r->took;
    r->took = 0;
    pthread_mutex_unlock(&r->s->lock);
}

static int take_body(struct sl_req *r, const char *data, size_t n)
{
    struct sl_error err;

    if (r->refused)
        return 0;
    if (r->body_text.n + n > r->s->c->body_bytes) {
        r->too_large = true;
        drop_body(r);
        return sl_refuse(&r->why, 413, NULL,
                         "the body is larger than the %llu bytes of "
                         "--max-body",
                         (unsigned long long)r->s->c->body_bytes);
    }
    if (!take_room(r, n)) {
        drop_body(r);
        sl_refuse(&r->why, 503, NULL,
                  "the bodies of the requests that are here have the %llu "
                  "bytes that there is room for",
                  (unsigned long long)sl_sizes_bodies(r->s->c));
        r->why.retry_after_s = 1;
        return -1;
    }
    if (sl_str_append(&r->body_text, data, n, &err) == 0)
        return 0;
    drop_body(r);
    return sl_refuse_error(&r->why, NULL, &err);
}

static enum MHD_Result handle(struct sl_req *r)
{
    struct sl_refusal why;
    int rc = 0;

    pthread_mutex_lock(&r->s->lock);
    r->handled = true;
    if (!r->refused)
        rc = sl_guard_enter(r, &why);
    pthread_mutex_unlock(&r->s->lock);
    if (r->refused)
        return sl_reply_refusal(r, &r->why) == 0 ? MHD_YES : MHD_NO;
    if (rc == 0 && !r->route->unready)
        rc = sl_server_ready(r->s, &why);
    r->n_body = r->body_text.n;
    if (rc == 0)
        rc = r->route->handle(r, &why);
    sl_req_end_reading(r);
    if (rc != 0)
        return sl_reply_refusal(r, &why) == 0 ? MHD_YES : MHD_NO;
    if (r->answered)
        return MHD_YES;
    return sl_http_await(r) == 0 ? MHD_YES : MHD_NO;
}

/* Does the client ask before it sends its body (RFC 9110, 10.1.1)? */
static bool asks_first(const struct sl_req *r)
{
    const char *expect = MHD_lookup_connection_value(
        r->connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_EXPECT);

    return expect != NULL && strcasecmp(expect, "100-continue") == 0;
}

/* The body of a request that is refused is read to its end and thrown away, if
 * it comes within the time of a whole request (watch.c): many clients listen
 * only then, and one that is cut off while it sends does not hear why. */
static enum MHD_Result access_handler(void *cls,
                                      struct MHD_Connection *connection,
                                      const char *url, const char *method,
                                      const char *version, const char *data,
                                      size_t *n, void **con_cls)
{
    struct sl_server *s = cls;
    struct sl_req *r = *con_cls;

    if (r == NULL) {
        r = create_req(s, connection, url, method);
        if (r == NULL)
            return MHD_NO;
        *con_cls = r;
        if (sl_guard(r, &r->why) != 0)
            r->refused = true;
        return r->refused && asks_first(r) ? handle(r) : MHD_YES;
    }
    if (*n > 0) {
        take_body(r, data, *n);
        *n = 0;
        return MHD_YES;
    }
    if (!r->handled)
        return handle(r);
    if (r->answered)
        return MHD_YES;
    return sl_http_await(r) == 0 ? MHD_YES : MHD_NO;
}

/* --- the daemon -------------------------------------------------------------
 */

static int find_address(struct sl_server *s, struct sockaddr_storage *to,
                        bool *six, struct sl_error *err)
{
    struct addrinfo hints = {
        .ai_flags = AI_NUMERICSERV | AI_PASSIVE,
        .ai_socktype = SOCK_STREAM,
    };
    struct addrinfo *found;
    char port[8];
    int rc;

    snprintf(port, sizeof port, "%u", s->c->port);
    rc = getaddrinfo(s->c->host, port, &hints, &found);
    if (rc != 0)
        return sl_fail(err, SL_ERR_USAGE, "--host %s: %s", s->c->host,
                       gai_strerror(rc));
    *six = found->ai_family == AF_INET6;
    memcpy(to, found->ai_addr, found->ai_addrlen);
    freeaddrinfo(found);
    return 0;
}

static int read_pem(char **text, const char *path, struct sl_error *err)
{
    if (sl_guard_read(text, path, ", which is no certificate or key", err) != 0)
        return -1;
    return **text != '\0' ? 0 : sl_fail(err, SL_ERR_USAGE, "%s is empty", path);
}

static int start_daemon(struct sl_server *s, unsigned flags,
                        const struct sockaddr_storage *address, char *cert,
                        char *key, struct sl_error *err)
{
    struct MHD_OptionItem tls[] = {
        {MHD_OPTION_HTTPS_MEM_CERT, 0, cert},
        {MHD_OPTION_HTTPS_MEM_KEY, 0, key},
        {MHD_OPTION_END, 0, NULL},
    };

    if (cert == NULL)
        tls[0] = tls[2];
    errno = 0;
    s->daemon = MHD_start_daemon(
        flags, s->c->port, NULL, NULL, access_handler, s,
        MHD_OPTION_NOTIFY_COMPLETED, completed, NULL,
        MHD_OPTION_NOTIFY_CONNECTION, notify_connection, s,
        MHD_OPTION_SOCK_ADDR, (const struct sockaddr *)address,
        MHD_OPTION_CONNECTION_LIMIT, (unsigned)s->c->connections,
        MHD_OPTION_PER_IP_CONNECTION_LIMIT, (unsigned)s->c->per_address,
        MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)s->c->idle_s,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)s->c->header_bytes,
        MHD_OPTION_THREAD_POOL_SIZE, (unsigned)HTTP_THREADS, MHD_OPTION_ARRAY,
        tls, MHD_OPTION_END);
    if (s->daemon != NULL)
        return 0;
    if (errno == 0 && cert != NULL)
        return sl_fail(err, SL_ERR_USAGE,
                       "--tls-cert %s, --tls-key %s: no certificate and its "
                       "key in PEM that TLS can use",
                       s->c->tls_cert, s->c->tls_key);
    return sl_fail_os(err, errno != 0 ? errno : EADDRINUSE,
                      "cannot listen at %s, port %u", s->c->host, s->c->port);
}

int sl_http_start(struct sl_server *s, struct sl_error *err)
{
    unsigned flags = MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME;
    struct sockaddr_storage address = {0};
    char *cert = NULL, *key = NULL;
    bool six = false;
    int rc = find_address(s, &address, &six, err);

    if (six)
        flags |= MHD_USE_IPv6;
    if (rc == 0 && s->c->tls_cert != NULL) {
        flags |= MHD_USE_TLS;
        rc = read_pem(&cert, s->c->tls_cert, err);
        if (rc == 0)
            rc = read_pem(&key, s->c->tls_key, err);
        if (rc == 0 && MHD_is_feature_supported(MHD_FEATURE_TLS) != MHD_YES)
            rc = sl_fail(err, SL_ERR_UNSUPPORTED,
                         "this libmicrohttpd was built without TLS");
    }
    if (rc == 0)
        rc = start_daemon(s, flags, &address, cert, key, err);
    free(cert);
    free(key);
    return rc;
}

void sl_http_stop(struct sl_server *s)
{
    if (s->daemon == NULL)
        return;
    pthread_mutex_lock(&s->lock);
    for (struct sl_req *r = s->reqs; r != NULL; r = r->after)
        sl_http_wake_one(r);
    pthread_mutex_unlock(&s->lock);
    MHD_stop_daemon(s->daemon);
    s->daemon = NULL;
}
