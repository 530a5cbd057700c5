/* SPDX-License-Identifier: Apache-2.0 */
#include "receiver/request.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/check.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "base/parse.h"
#include "formats/checkpoint.h"
#include "formats/digest.h"
#include "formats/receipt.h"
#include "receiver/limits.h"

struct request {
	const struct request_setup *setup;
	char host[HOST_ID_MAX + 1];
	struct id bundle;
	char text_id[ID_TEXT_SIZE];
	unsigned status; /* 0: not known yet */
	const char *allow;
	bool retry;
	struct buf body; /* of the answer */
	struct store_upload *upload;
	uint64_t length; /* of the body, once it is known to be a number */
	uint64_t got;
	bool waits; /* the client said Expect: it sends nothing before it hears us */
	bool close; /* the connection ends behind the answer, whatever still comes */
	uint8_t sha256[32];
};

/* An answer that belongs to the protocol: nothing is wrong. */
static void decline(struct request *r, unsigned status) {
	r->status = status;
	r->retry = status == MHD_HTTP_SERVICE_UNAVAILABLE;
}

/* The id is being uploaded: later, then. */
static void decline_for_now(struct request *r) {
	visitors_asked_anew(r->setup->visitors, r->host, &r->bundle);
	decline(r, MHD_HTTP_SERVICE_UNAVAILABLE);
}

/* why: words of ours, never the client's. A contradiction is an event of its own: lines of one kind
 * are limited, and whoever is refused often enough would hide it. */
static void refuse(struct request *r, unsigned status, const char *why) {
	bool conflict = status == MHD_HTTP_CONFLICT;

	decline(r, status);
	log_event(conflict ? LOG_LEVEL_ERROR : LOG_LEVEL_WARNING,
		conflict ? "bundle.contradicted" : "request.refused",
		"host=%s bundle=%s status=%u error=\"%s\"", r->host, r->text_id, status, why);
}

/* The store said no: full, or broken. */
static void refuse_store(struct request *r, int result, const struct cede_error *err) {
	if (result == CEDE_ERR_BUSY)
		refuse(r, MHD_HTTP_SERVICE_UNAVAILABLE, err->text);
	else if (err->sys == ENOSPC || err->sys == EDQUOT)
		refuse(r, MHD_HTTP_INSUFFICIENT_STORAGE, err->text);
	else
		refuse(r, MHD_HTTP_INTERNAL_SERVER_ERROR, err->text);
}

int request_path(struct slice url, struct id *ret, bool *ret_receipt, struct cede_error *reterr) {
	static const char prefix[] = "/v1/bundles/";
	struct slice id, tail;

	if (!slice_starts(url, prefix))
		return CEDE_FAIL(reterr, CEDE_ERR_BUSY, "no such path");
	id = slice_of(url.data + sizeof prefix - 1, url.len - (sizeof prefix - 1));
	*ret_receipt = slice_cut(id, '/', &id, &tail);
	if (*ret_receipt && !slice_is(tail, "receipt"))
		return CEDE_FAIL(reterr, CEDE_ERR_BUSY, "no such path");
	return id_parse(id, ret, reterr);
}

/* ---- headers */

/* Names whose second line could mean something else to whoever stands between us and the client. */
static const char *const once[] = {MHD_HTTP_HEADER_HOST, MHD_HTTP_HEADER_CONTENT_LENGTH,
	MHD_HTTP_HEADER_TRANSFER_ENCODING, MHD_HTTP_HEADER_IF_NONE_MATCH, "Repr-Digest"};

struct headers {
	unsigned count[ARRAY_LENGTH(once)];
	bool bad;
};

/* RFC 9110 section 5.6.2 */
static bool is_token(const char *name) {
	static const char others[] = "!#$%&'*+-.^_`|~";
	size_t len = strlen(name);

	for (size_t i = 0; i < len; i++)
		if (!((name[i] >= 'a' && name[i] <= 'z') || (name[i] >= 'A' && name[i] <= 'Z') ||
			    (name[i] >= '0' && name[i] <= '9') || strchr(others, name[i]) != NULL))
			return false;
	return len > 0;
}

static int look_at_header(void *ctx, enum MHD_ValueKind kind, const char *name, const char *value) {
	struct headers *h = ctx;

	(void)kind;
	h->bad = h->bad || !is_token(name);
	for (const char *at = value; at != NULL && *at != 0; at++)
		h->bad = h->bad || ((unsigned char)*at < ' ' && *at != '\t') || *at == 0x7f;
	for (size_t i = 0; i < ARRAY_LENGTH(once); i++)
		h->count[i] += strcasecmp(name, once[i]) == 0;
	return MHD_YES;
}

static int has_query(void *ctx, enum MHD_ValueKind kind, const char *name, const char *value) {
	(void)kind;
	(void)name;
	(void)value;
	*(bool *)ctx = true;
	return MHD_NO;
}

/* The library is forgiving; what can be read in two ways is refused before anything is done. */
static bool check_form(struct request *r, struct MHD_Connection *c) {
	struct headers h = {0};
	bool query = false;

	(void)MHD_get_connection_values(
		c, MHD_HEADER_KIND, (MHD_KeyValueIterator)(void (*)(void))look_at_header, &h);
	(void)MHD_get_connection_values(
		c, MHD_GET_ARGUMENT_KIND, (MHD_KeyValueIterator)(void (*)(void))has_query, &query);
	for (size_t i = 0; i < ARRAY_LENGTH(once); i++)
		h.bad = h.bad || h.count[i] > 1;
	if (h.bad)
		refuse(r, MHD_HTTP_BAD_REQUEST, "a header that is malformed or comes twice");
	else if (query)
		refuse(r, MHD_HTTP_BAD_REQUEST, "a query behind the path");
	return r->status == 0;
}

/* ---- PUT */

static const char *header(struct MHD_Connection *c, const char *name) {
	return MHD_lookup_connection_value(c, MHD_HEADER_KIND, name);
}

static bool check_put_headers(struct request *r, struct MHD_Connection *c) {
	const char *length = header(c, "Content-Length");
	const char *digest = header(c, "Repr-Digest");
	const char *if_none = header(c, "If-None-Match");
	struct cede_error err = {0};

	if (length == NULL || header(c, "Transfer-Encoding") != NULL)
		refuse(r, MHD_HTTP_LENGTH_REQUIRED, "no Content-Length");
	else if (parse_u64(slice_str(length), 1, UINT64_MAX, &r->length, NULL) < 0)
		refuse(r, MHD_HTTP_BAD_REQUEST, "bad Content-Length");
	else if (r->length > r->setup->bundle_max)
		refuse(r, MHD_HTTP_CONTENT_TOO_LARGE, "larger than allowed");
	else if (if_none == NULL || strcmp(if_none, "*") != 0)
		refuse(r, MHD_HTTP_PRECONDITION_REQUIRED, "no If-None-Match: *");
	else if (digest == NULL)
		refuse(r, MHD_HTTP_BAD_REQUEST, "no Repr-Digest");
	else if (digest_field_parse(slice_str(digest), r->sha256, &err) < 0)
		refuse(r, MHD_HTTP_BAD_REQUEST, err.text);
	return r->status == 0;
}

/* It is there already: with the same content that is as good as stored now. */
static void is_there_already(struct request *r) {
	struct cede_error err = {0};
	enum store_found found;
	uint8_t stored[32];

	int result = store_find(r->setup->store, r->host, &r->bundle, &found, stored, &err);
	if (result < 0)
		refuse_store(r, result, &err);
	else if (found == STORE_THERE && memcmp(stored, r->sha256, sizeof stored) != 0)
		refuse(r, MHD_HTTP_CONFLICT,
			"SECURITY: another content under an id that is stored; somebody has this host's key, or it is damaged");
	else
		decline(r, MHD_HTTP_PRECONDITION_FAILED);
}

static void begin_put(struct request *r, struct MHD_Connection *c) {
	enum store_found found = STORE_NONE;
	struct cede_error err = {0};

	r->waits = header(c, MHD_HTTP_HEADER_EXPECT) != NULL;
	if (!check_put_headers(r, c))
		return;
	int result = store_begin(r->setup->store, r->host, &r->bundle, &found, &r->upload, &err);
	if (result == CEDE_ERR_BUSY)
		visitors_make_place(r->setup->visitors, r->host);
	if (result < 0) {
		refuse_store(r, result, &err);
		return;
	}
	switch (found) {
	case STORE_NONE:
		visitors_bundle(r->setup->visitors, c, &r->bundle);
		break;
	case STORE_THERE:
		is_there_already(r);
		break;
	case STORE_ABANDONED:
		refuse(r, MHD_HTTP_GONE, "its host gave this id up");
		break;
	case STORE_IN_PROGRESS:
		decline_for_now(r);
		break;
	}
}

void request_body(struct request *r, const char *data, size_t len) {
	struct cede_error err = {0};

	r->got += len;
	if (r->status != 0)
		return;
	if (r->got > r->length) {
		refuse(r, MHD_HTTP_BAD_REQUEST, "longer than Content-Length");
		return;
	}
	int result = store_write(r->upload, data, len, &err);
	if (result < 0) {
		refuse_store(r, result, &err);
		store_end(r->upload); /* its room on the disk is free while the rest still comes */
		r->upload = NULL;
	}
}

/* The bundle counts: what becomes of the host's checkpoint is said in the log and in the receipt. */
static void take_checkpoint(struct request *r, struct MHD_Connection *c) {
	const char *value = header(c, CHECKPOINT_FIELD);
	struct cede_error err = {0};

	if (value != NULL && store_checkpoint(r->setup->store, r->host, slice_str(value), &err) < 0)
		log_event(LOG_LEVEL_ERROR, "checkpoint.unkept", "host=%s error=\"%s\"", r->host,
			err.text);
}

static void finish_put(struct request *r, struct MHD_Connection *c) {
	struct cede_error err = {0};

	if (r->got != r->length) {
		refuse(r, MHD_HTTP_BAD_REQUEST, "shorter than Content-Length");
		return;
	}
	take_checkpoint(r, c);
	int result = store_commit(r->upload, r->sha256, &r->body, &err);
	if (result == CEDE_ERR_INPUT) {
		refuse(r, MHD_HTTP_BAD_REQUEST, err.text);
	} else if (result < 0) {
		buf_clear(&r->body);
		refuse_store(r, result, &err);
	} else {
		r->status = MHD_HTTP_CREATED;
		log_event(LOG_LEVEL_INFO, "bundle.stored", "host=%s bundle=%s size=%llu", r->host,
			r->text_id, (unsigned long long)r->length);
	}
}

/* ---- GET and DELETE */

static void get_receipt(struct request *r) {
	struct cede_error err = {0};
	enum store_found found;

	int result = store_find(r->setup->store, r->host, &r->bundle, &found, NULL, &err);
	if (result == CEDE_OK && found == STORE_IN_PROGRESS) {
		decline_for_now(r);
		return;
	}
	if (result == CEDE_OK && found != STORE_THERE) {
		decline(r, MHD_HTTP_NOT_FOUND);
		return;
	}
	if (result == CEDE_OK)
		result = store_receipt(r->setup->store, r->host, &r->bundle, &r->body, &err);
	if (result < 0)
		refuse_store(r, result, &err);
	else
		r->status = MHD_HTTP_OK;
}

static void abandon(struct request *r) {
	struct cede_error err = {0};
	enum store_found found;

	int result = store_abandon(r->setup->store, r->host, &r->bundle, &found, &err);
	if (result < 0) {
		refuse_store(r, result, &err);
	} else if (found == STORE_IN_PROGRESS) {
		decline_for_now(r);
	} else if (found == STORE_THERE) {
		r->status =
			MHD_HTTP_CONFLICT; /* the client fetches the receipt now: no security event */
	} else {
		r->status = MHD_HTTP_NO_CONTENT;
		log_event(LOG_LEVEL_INFO, "bundle.abandoned", "host=%s bundle=%s", r->host,
			r->text_id);
	}
}

/* ---- the whole */

static void dispatch(
	struct request *r, struct MHD_Connection *c, const char *url, const char *method) {
	struct cede_error err = {0};
	bool receipt;

	if (strcmp(url, "/healthz") == 0 && strcmp(method, "GET") == 0) {
		r->status = buf_add_str(&r->body, "ok\n", &err) == CEDE_OK
			? MHD_HTTP_OK
			: MHD_HTTP_INTERNAL_SERVER_ERROR;
		return;
	}
	int result = request_path(slice_str(url), &r->bundle, &receipt, &err);
	if (result < 0) {
		refuse(r, result == CEDE_ERR_BUSY ? MHD_HTTP_NOT_FOUND : MHD_HTTP_BAD_REQUEST,
			err.text);
		return;
	}
	id_print(&r->bundle, r->text_id);
	if (receipt && strcmp(method, "GET") == 0) {
		get_receipt(r);
	} else if (!receipt && strcmp(method, "PUT") == 0) {
		begin_put(r, c);
	} else if (!receipt && strcmp(method, "DELETE") == 0) {
		abandon(r);
	} else {
		r->allow = receipt ? "GET" : "PUT, DELETE";
		refuse(r, MHD_HTTP_METHOD_NOT_ALLOWED, "no such method here");
	}
}

struct request *request_new(const struct request_setup *setup, struct MHD_Connection *c,
	const char *url, const char *method) {
	struct request *r = calloc(1, sizeof *r);
	struct cede_error err = {0};

	if (r == NULL)
		return NULL;
	r->setup = setup;
	r->body = BUF_INIT(RECEIPT_MAX);
	(void)snprintf(r->text_id, sizeof r->text_id, "-");
	(void)snprintf(r->host, sizeof r->host, "-");
	if (peer_host(&setup->peers, c, r->host, &err) < 0) {
		(void)snprintf(r->host, sizeof r->host, "-");
		refuse(r, MHD_HTTP_FORBIDDEN, err.text);
		r->close = true; /* who is nobody keeps no place */
		return r;
	}
	if (!visitors_host(setup->visitors, c, r->host)) {
		refuse(r, MHD_HTTP_SERVICE_UNAVAILABLE, "too many connections of this host");
		r->close = true;
		return r;
	}
	if (check_form(r, c))
		dispatch(r, c, url, method);
	return r;
}

uint64_t request_to_come(const struct request *r) {
	return r->length > r->got ? r->length - r->got : 0;
}

bool request_refused(const struct request *r) {
	return r->status != 0;
}

bool request_answer_now(const struct request *r) {
	return r->status != 0 && (r->waits || r->length == 0 || r->length > LIMIT_SWALLOWED);
}

enum MHD_Result request_answer(struct request *r, struct MHD_Connection *c) {
	if (r->status == 0)
		finish_put(r, c);
	store_end(r->upload); /* the id is free again before the client hears of it */
	r->upload = NULL;
	bool body = r->status == MHD_HTTP_OK || r->status == MHD_HTTP_CREATED;
	struct MHD_Response *response = MHD_create_response_from_buffer(
		body ? r->body.len : 0, body ? r->body.data : NULL, MHD_RESPMEM_MUST_COPY);
	if (response == NULL)
		return MHD_NO;
	if (body)
		(void)MHD_add_response_header(
			response, MHD_HTTP_HEADER_CONTENT_TYPE, "text/plain; charset=utf-8");
	if (r->retry)
		(void)MHD_add_response_header(response, MHD_HTTP_HEADER_RETRY_AFTER, "1");
	if (r->close)
		(void)MHD_add_response_header(response, MHD_HTTP_HEADER_CONNECTION, "close");
	if (r->allow != NULL)
		(void)MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, r->allow);
	enum MHD_Result result = MHD_queue_response(c, r->status, response);
	MHD_destroy_response(response);
	return result;
}

void request_free(struct request *r) {
	if (r == NULL)
		return;
	store_end(r->upload);
	buf_done(&r->body);
	free(r);
}
