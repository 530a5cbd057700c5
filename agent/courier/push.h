/* SPDX-License-Identifier: Apache-2.0
 * One try to hand a bundle over: PUT, and GET of its receipt where that is the answer; or asking
 * for the receipt alone, with a DELETE behind it where the keeper wants the id never to be stored.
 *
 *   PUT 201 -> receipt    PUT 412 -> GET receipt    GET 200 -> receipt
 *   GET 404 -> absent, or DELETE 204 -> absent for ever, DELETE 409 -> GET receipt
 *   everything else -> failed, with a kind that says what it was
 *
 * An upload may take as long as it likes while bytes arrive (pace.h); all else has its time.
 * No retries, no redirects, no proxies, no credentials from anywhere but the keeper. */
#pragma once

#include "agent/courier/curl_loop.h"
#include "agent/courier/pace.h"
#include "base/address.h"
#include "formats/id.h"

#define PUSH_ANSWER_MAX   8192 /* bytes of a receipt */
#define PUSH_PINS_MAX     64
#define PUSH_PREFIXES_MAX 64

struct push_destination {
	char *url;  /* with its slash at the end */
	char *pins; /* "sha256//...;sha256//...", or NULL */
	struct address_prefix addresses[PUSH_PREFIXES_MAX];
	size_t address_count;
	uint8_t *pem[3]; /* CA, certificate, key */
	size_t pem_len[3];
	struct curl_loop *curl;
	struct pace_line line; /* its uploads */
};

enum push_result { PUSH_RECEIPT, PUSH_ABSENT, PUSH_ABSENT_FOR_EVER, PUSH_FAILED };

struct push_outcome {
	enum push_result result;
	struct slice note; /* PUSH_RECEIPT */
	const char *kind;  /* PUSH_FAILED: "tls", "pin", "http-503" ... */
	const char *text;
	uint16_t status;
	uint32_t retry_after_s;
	bool may_have_arrived;
	int64_t date_s; /* the server's clock, of its answer; 0: it told none */
};

struct push;
typedef void push_ended_fn(void *ctx, struct push *push, const struct push_outcome *outcome);

struct push_bundle { /* borrowed for the call */
	uint64_t size;
	const uint8_t *sha256;
	uint64_t rate;           /* bytes a second; 0: any */
	struct slice checkpoint; /* value of the header field, printable ASCII; or empty */
};

/* fd is taken (-1: ask only; then there is no bundle). ended() comes once, later, and the push is
 * freed after it. */
CEDE_MUST_USE int push_start(struct push_destination *to, const struct id *id, int fd,
	const struct push_bundle *bundle, bool reclaim, push_ended_fn *ended, void *ctx,
	struct push **ret, struct cede_error *reterr);
const struct id *push_id(const struct push *push);
/* Ends it without ended(). */
void push_cancel(struct push *push);
/* What curl_loop's on_done and on_socket call. */
void push_curl_done(void *ctx, CURL *easy, CURLcode result);
void push_curl_socket(CURL *easy, int fd);
