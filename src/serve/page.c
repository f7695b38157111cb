#include "config.h"

#include <string.h>

#include "src/serve/api.h"
#include "src/serve/page_data.h"

/* Nothing but the page's own four files, and no markup but what is in them. */
#define POLICY                                                                 \
    "default-src 'none'; script-src 'self'; style-src 'self'; "                \
    "connect-src 'self'; img-src 'self'; base-uri 'none'; "                    \
    "form-action 'none'; frame-ancestors 'none'"

static const struct {
    const char *path, *type, *text;
} files[] = {
    {"/", "text/html; charset=utf-8", sl_page_html},
    {"/page.css", "text/css; charset=utf-8", sl_page_css},
    {"/page.js", "text/javascript; charset=utf-8", sl_page_js},
    {"/page.svg", "image/svg+xml", sl_page_svg},
};

int sl_api_page(struct sl_req *r, struct sl_refusal *why)
{
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        struct MHD_Response *response;
        size_t n = strlen(files[i].text);

        if (strcmp(files[i].path, r->path) != 0)
            continue;
        response = MHD_create_response_from_buffer(n, (void *)files[i].text,
                                                   MHD_RESPMEM_PERSISTENT);
        if (response == NULL)
            break;
        MHD_add_response_header(response, "Content-Security-Policy", POLICY);
        MHD_add_response_header(response, "X-Frame-Options", "DENY");
        MHD_add_response_header(response, "Referrer-Policy", "no-referrer");
        MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL,
                                "no-cache");
        return sl_reply_response(r, 200, response, files[i].type, n);
    }
    return sl_refuse(why, 503, NULL, "out of memory");
}
