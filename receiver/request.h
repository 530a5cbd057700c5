/* SPDX-License-Identifier: Apache-2.0
 * One request, step by step: what is asked for, may it be, the body into the store, the answer.
 * Every refusal comes before the body where that can be known.
 *
 *   PUT /v1/bundles/<id>          201 and the receipt; 412 it is there; 409 with other content;
 *                                 410 its host gave it up; 400 411 413 428 507
 *   GET /v1/bundles/<id>/receipt  200; 404; 503 while it is being uploaded
 *   DELETE /v1/bundles/<id>       204 it will never be stored; 409 it is there; 503
 *   GET /healthz                  200 */
#pragma once

#include <microhttpd.h>

#include "receiver/peer.h"
#include "receiver/store.h"
#include "receiver/visitors.h"

struct request_setup {
	struct store *store;
	struct visitors *visitors; /* the server's own */
	struct peer_rules peers;
	uint64_t bundle_max;
};

struct request;

/* Looks at the headers. Always gives a request (NULL: no memory); it may have its answer already. */
struct request *request_new(const struct request_setup *setup, struct MHD_Connection *connection,
	const char *url, const char *method);
/* Part of the body. */
void request_body(struct request *r, const char *data, size_t len);
/* Whether to answer before the body. Not while a small one is on its way: closing behind the answer
 * would reset the connection, and the client might never read it. */
bool request_answer_now(const struct request *r);
uint64_t request_to_come(const struct request *r); /* of the body that was announced */
bool request_refused(const struct request *r);     /* the answer is known, whatever still comes */
/* Everything is there: finishes and queues the answer. */
enum MHD_Result request_answer(struct request *r, struct MHD_Connection *connection);
void request_free(struct request *r); /* also when the client broke off: nothing stays */

/* "/v1/bundles/<id>" or "/v1/bundles/<id>/receipt". INPUT: a bundle path with a bad id; BUSY: some
 * other path. Fuzzed. */
CEDE_MUST_USE int request_path(
	struct slice url, struct id *ret, bool *ret_receipt, struct cede_error *reterr);
