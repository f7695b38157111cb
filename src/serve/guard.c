#include "config.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/base/lines.h"
#include "src/serve/http.h"

struct sl_key {
    char *text; /* owned */
    unsigned n_requests;
};

enum { LONGEST_KEY = 512, LEAST_KEY = 8 };
#define FILE_BYTES (1u << 20) /* a device may never end */

/* --- keys -------------------------------------------------------------------
 */

static int add_key(struct sl_server *s, const char *line, unsigned number,
                   struct sl_error *err)
{
    size_t n = strlen(line);
    struct sl_key *grown;

    while (n > 0 && isspace((unsigned char)line[n - 1]))
        n--;
    if (n == 0 || *line == '#')
        return 0;
    if (n < LEAST_KEY || n > LONGEST_KEY)
        return sl_fail(err, SL_ERR_USAGE,
                       "--api-key-file %s, line %u: a key has %d to %d "
                       "characters",
                       s->c->key_file, number, LEAST_KEY, LONGEST_KEY);
    grown = realloc(s->keys, (s->n_keys + 1) * sizeof *grown);
    if (grown == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "out of memory for keys");
    s->keys = grown;
    s->keys[s->n_keys] = (struct sl_key){.text = strndup(line, n)};
    if (s->keys[s->n_keys].text == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "out of memory for keys");
    s->n_keys++;
    return 0;
}

int sl_guard_read(char **text, const char *path, const char *what,
                  struct sl_error *err)
{
    struct sl_lines in = {.stop_fd = -1, .most = FILE_BYTES};
    char *all;
    size_t n;
    int rc;

    in.fd = open(path, O_RDONLY | O_CLOEXEC);
    if (in.fd < 0)
        return sl_fail_os(err, errno, "cannot read %s", path);
    rc = sl_lines_rest(&in, &all, &n, err);
    if (rc != 0)
        sl_error_prefix(err, "%s: ", path);
    else if (n > FILE_BYTES)
        rc = sl_fail(err, SL_ERR_USAGE, "%s: more than %u KiB%s", path,
                     FILE_BYTES >> 10, what);
    else if ((*text = strdup(all)) == NULL)
        rc = sl_fail(err, SL_ERR_NOMEM, "%s: no memory to read it", path);
    close(in.fd);
    sl_lines_fini(&in);
    return rc;
}

static int read_keys(struct sl_server *s, struct sl_error *err)
{
    char *text, *rest, *line;
    unsigned number = 0;
    int rc = 0;

    if (sl_guard_read(&text, s->c->key_file, " of keys", err) != 0)
        return -1;
    rest = text;
    while (rc == 0 && (line = strsep(&rest, "\n")) != NULL)
        rc = add_key(s, line, ++number, err);
    free(text);
    if (rc == 0 && s->n_keys == 0)
        rc = sl_fail(err, SL_ERR_USAGE, "%s holds no key", s->c->key_file);
    return rc;
}

static bool is_loopback(const char *host)
{
    struct in_addr four;
    struct in6_addr six;

    if (strcmp(host, "localhost") == 0)
        return true;
    if (inet_pton(AF_INET, host, &four) == 1)
        return ntohl(four.s_addr) >> 24 == 127;
    return inet_pton(AF_INET6, host, &six) == 1 && IN6_IS_ADDR_LOOPBACK(&six);
}

int sl_guard_open(struct sl_server *s, struct sl_error *err)
{
    if (s->c->key_file != NULL)
        return read_keys(s, err);
    if (is_loopback(s->c->host) || s->c->no_auth)
        return 0;
    return sl_fail(err, SL_ERR_USAGE,
                   "--host %s lets other machines in: give --api-key-file "
                   "FILE, or --no-auth if everybody may use the model",
                   s->c->host);
}

void sl_guard_close(struct sl_server *s)
{
    for (size_t i = 0; i < s->n_keys; i++)
        free(s->keys[i].text);
    free(s->keys);
    s->keys = NULL;
    s->n_keys = 0;
}

/* Takes as long whatever they have in common. */
static bool same_key(const char *known, const char *said)
{
    size_t n_known = strlen(known), n_said = strlen(said);
    volatile unsigned char differ = n_known != n_said;

    for (size_t i = 0; i < LONGEST_KEY; i++)
        differ |= (unsigned char)((i < n_known ? known[i] : 0) ^
                                  (i < n_said ? said[i] : 0));
    return differ == 0;
}

static const char *header(const struct sl_req *r, const char *name)
{
    return MHD_lookup_connection_value(r->connection, MHD_HEADER_KIND, name);
}

static int check_key(struct sl_req *r, struct sl_refusal *why)
{
    const struct sl_server *s = r->s;
    const char *said = header(r, MHD_HTTP_HEADER_AUTHORIZATION);

    if (s->n_keys == 0 || r->route->open)
        return 0;
    if (said != NULL && strncasecmp(said, "Bearer ", 7) == 0)
        said += 7;
    else
        said = header(r, "X-Api-Key");
    for (size_t i = 0; i < s->n_keys && said != NULL; i++) {
        if (same_key(s->keys[i].text, said))
            r->key = (int)i;
    }
    if (r->key >= 0)
        return 0;
    return sl_refuse(why, 401, NULL,
                     said != NULL
                         ? "the API key is not one of this server's"
                         : "an API key is needed: Authorization: Bearer KEY");
}

int sl_guard_enter(struct sl_req *r, struct sl_refusal *why)
{
    struct sl_server *s = r->s;
    unsigned most = s->c->per_key;

    if (r->key < 0)
        return 0;
    if (most > 0 && s->keys[r->key].n_requests >= most) {
        sl_refuse(why, 429, NULL,
                  "%u request%s of this key %s under way, which is all it may "
                  "have (--key-requests)",
                  most, most == 1 ? "" : "s", most == 1 ? "is" : "are");
        why->retry_after_s = 1;
        return -1;
    }
    s->keys[r->key].n_requests++;
    r->counted = true;
    return 0;
}

void sl_guard_leave(struct sl_req *r)
{
    if (r->counted)
        r->s->keys[r->key].n_requests--;
    r->counted = false;
}

/* --- Host and Origin --------------------------------------------------------
 */

/* The name of "name", "name:80", "[::1]:80". */
static bool host_name(char *to, size_t room, const char *host)
{
    const char *end = strrchr(host, ':');
    size_t n;

    if (*host == '[') {
        host++;
        end = strchr(host, ']');
    }
    n = end != NULL ? (size_t)(end - host) : strlen(host);
    if (n == 0 || n >= room)
        return false;
    memcpy(to, host, n);
    to[n] = '\0';
    return true;
}

/* A page of a stranger's name that leads here (DNS rebinding) says the name;
 * an address cannot be made to lead elsewhere. */
static bool is_known_host(const struct sl_server *s, const char *host)
{
    struct in6_addr address;
    char name[256];

    if (!host_name(name, sizeof name, host))
        return false;
    if (inet_pton(AF_INET, name, &address) == 1 ||
        inet_pton(AF_INET6, name, &address) == 1 ||
        strcasecmp(name, "localhost") == 0 || strcasecmp(name, s->c->host) == 0)
        return true;
    for (size_t i = 0; i < s->c->n_hosts; i++) {
        if (strcasecmp(name, s->c->hosts[i]) == 0)
            return true;
    }
    return false;
}

static bool is_own_origin(const char *origin, const char *host)
{
    const char *name = strstr(origin, "://");

    return name != NULL && host != NULL && strcasecmp(name + 3, host) == 0;
}

static bool may_ask(const struct sl_req *r, const char *origin)
{
    const char *cors = r->s->c->cors;

    if (is_own_origin(origin, header(r, MHD_HTTP_HEADER_HOST)))
        return true;
    return cors != NULL &&
           (strcmp(cors, "*") == 0 || strcasecmp(cors, origin) == 0);
}

static int check_names(const struct sl_req *r, struct sl_refusal *why)
{
    const char *host = header(r, MHD_HTTP_HEADER_HOST);
    const char *origin = header(r, MHD_HTTP_HEADER_ORIGIN);

    if (host == NULL || !is_known_host(r->s, host))
        return sl_refuse(why, 403, "Host",
                         "this server does not go by the name of '%.80s'; "
                         "--allow-host adds names",
                         host != NULL ? host : "");
    if (origin != NULL && !may_ask(r, origin))
        return sl_refuse(why, 403, "Origin",
                         "pages of '%.80s' may not use this server; --cors "
                         "lets them",
                         origin);
    return 0;
}

void sl_guard_headers(const struct sl_req *r, struct MHD_Response *response)
{
    const char *origin = header(r, MHD_HTTP_HEADER_ORIGIN);

    if (r->s->c->cors == NULL || origin == NULL || !may_ask(r, origin))
        return;
    MHD_add_response_header(response, "Access-Control-Allow-Origin", origin);
    MHD_add_response_header(response, "Vary", "Origin");
    MHD_add_response_header(response, "Access-Control-Allow-Methods",
                            "GET, POST, OPTIONS");
    MHD_add_response_header(response, "Access-Control-Allow-Headers",
                            "Authorization, Content-Type, X-Api-Key, "
                            "Anthropic-Version, Anthropic-Beta");
    MHD_add_response_header(response, "Access-Control-Expose-Headers",
                            "X-Request-Id, X-Expected-Seconds, Retry-After");
    MHD_add_response_header(response, "Access-Control-Max-Age", "600");
}

/* --- all of it --------------------------------------------------------------
 */

int sl_guard(struct sl_req *r, struct sl_refusal *why)
{
    bool known;

    if (check_names(r, why) != 0)
        return -1;
    r->route = sl_route_find(r->method, r->path, &r->argument, &known);
    if (r->route == NULL && known)
        return sl_refuse(why, 405,
                         strcmp(r->method, "GET") == 0 ? "POST" : "GET",
                         "%.16s is not for this path", r->method);
    if (r->route == NULL)
        return sl_refuse(why, 404, NULL, "there is nothing at %.80s", r->path);
    if (check_key(r, why) != 0)
        return -1;
    if (r->declared > r->s->c->body_bytes) {
        r->too_large = true;
        return sl_refuse(why, 413, NULL,
                         "the body has %llu bytes; %llu are the most "
                         "(--max-body)",
                         (unsigned long long)r->declared,
                         (unsigned long long)r->s->c->body_bytes);
    }
    return 0;
}
