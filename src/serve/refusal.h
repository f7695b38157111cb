/*
 * refusal.h - why a request is not done
 *
 * What is wrong with a request is not an error of the program: it has an HTTP
 * status, the field it is about, and words for whoever sent it. Each API puts
 * them into its own form (reply.h).
 */
#ifndef SL_SERVE_REFUSAL_H
#define SL_SERVE_REFUSAL_H

#include "src/base/error.h"

struct sl_refusal {
    int status;
    char field[80]; /* "": none */
    char msg[480];
    unsigned retry_after_s; /* 0: none */
};

/* Fills why and returns -1. field may be NULL. */
int sl_refuse(struct sl_refusal *why, int status, const char *field,
              const char *fmt, ...) __attribute__((format(printf, 4, 5)));
/* What an error means to a client: 400 for SL_ERR_USAGE, 501 for
 * SL_ERR_UNSUPPORTED, 503 for what memory and disk did, else 500. */
int sl_refuse_error(struct sl_refusal *why, const char *field,
                    const struct sl_error *err);

#endif
