/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/courier/push.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <linux/sockios.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "agent/courier/acked.h"
#include "agent/courier/retry_after.h"
#include "base/check.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "formats/checkpoint.h"
#include "formats/digest.h"

#define CONNECT_MS          10000L
#define ASK_MS              40000L /* a question and its answer, the connection included */
#define ANSWER_S            30     /* to the answer, once the whole body has arrived ... */
#define BUFFERED            (UINT64_C(64) << 10) /* ... but for so much, which a device on the way may hold */
#define EXPECT_LEAST        (UINT64_C(1) << 20) /* smaller bodies are not worth the round trip */
#define UPLOAD_BUFFER       (512L << 10)
#define LIMITED_BUFFER      (16L << 10)
#define HEADER_MAX          256
#define CHECKPOINT_LINE_MAX (CHECKPOINT_FIELD_MAX + 64)

enum stage { STAGE_PUT, STAGE_GET, STAGE_DELETE };

struct push {
	struct push_destination *to;
	struct id id;
	char text_id[ID_TEXT_SIZE];
	int fd;
	uint64_t size;
	uint64_t rate; /* bytes a second; 0: any */
	uint8_t sha256[32];
	bool reclaim;
	enum stage stage;
	unsigned gets; /* 412 and 404 in turn would go round for ever */
	CURL *easy;
	struct curl_slist *headers;
	uint64_t at; /* of the body */
	bool sent_any;
	bool requested; /* connected, and the request goes out */
	bool address_refused;
	bool too_long;
	int socket;      /* libcurl's, or -1 */
	bool is_counted; /* what was acknowledged on it before */
	uint64_t acked_before;
	bool uploads;     /* it is connected, and the body goes */
	struct pace pace; /* ... how that gets on */
	enum pace_verdict verdict;
	int64_t all_boot_ns; /* since when the whole body is there; 0: it is not */
	bool unanswered;
	struct buf retry_after; /* of the last answer */
	struct buf date;
	struct buf checkpoint; /* header line, or empty */
	uint8_t answer[PUSH_ANSWER_MAX];
	size_t answer_len;
	char curl_text[CURL_ERROR_SIZE];
	push_ended_fn *ended;
	void *ctx;
};

static int begin(struct push *p, enum stage stage, struct cede_error *reterr);

static void drop_easy(struct push *p) {
	pace_leave(&p->to->line, &p->pace);
	if (p->easy != NULL)
		curl_easy_cleanup(p->easy);
	curl_slist_free_all(p->headers);
	p->easy = NULL;
	p->headers = NULL;
}

static void push_free(struct push *p) {
	drop_easy(p);
	fd_closep(&p->fd);
	buf_done(&p->retry_after);
	buf_done(&p->date);
	buf_done(&p->checkpoint);
	free(p);
}

const struct id *push_id(const struct push *p) {
	return &p->id;
}

void push_cancel(struct push *p) {
	if (p->easy != NULL)
		curl_loop_remove(p->to->curl, p->easy);
	push_free(p);
}

static void end(struct push *p, const struct push_outcome *outcome) {
	drop_easy(p);
	p->ended(p->ctx, p, outcome);
	push_free(p);
}

/* The server's clock; 0: it told none. */
static int64_t date_of(struct push *p) {
	const char *date = "";

	if (p->date.len == 0 || buf_string(&p->date, &date, NULL) < 0)
		return 0;
	time_t at = curl_getdate(date, NULL);
	return at == -1 ? 0 : (int64_t)at;
}

/* Seconds that the answer asks for; a date is counted from the server's own clock. */
static uint32_t asked_s(struct push *p) {
	if (p->retry_after.len == 0)
		return 0;
	int64_t now = date_of(p);
	return retry_after_s(buf_slice(&p->retry_after), now == 0 ? time(NULL) : (time_t)now);
}

static void fail(struct push *p, const char *kind, const char *text, long status) {
	struct push_outcome o = {.result = PUSH_FAILED,
		.kind = kind,
		.text = text,
		.status = (uint16_t)status,
		.retry_after_s = asked_s(p),
		.may_have_arrived = p->sent_any,
		.date_s = date_of(p)};

	end(p, &o);
}

/* ---- call-backs of libcurl */

static size_t read_body(char *to, size_t size, size_t n, void *ctx) {
	struct push *p = ctx;
	size_t want = size * n;
	size_t got;

	if (want > p->size - p->at)
		want = (size_t)(p->size - p->at);
	if (file_pread_full(p->fd, to, want, p->at, &got, NULL) < 0 || got != want)
		return CURL_READFUNC_ABORT;
	p->at += got;
	p->sent_any = true;
	return got;
}

static int seek_body(void *ctx, curl_off_t offset, int origin) {
	struct push *p = ctx;

	/* on a connection that turned out to be dead libcurl would send it all again by itself; the
	 * keeper asks first whether it has arrived */
	if (p->at > 0 || origin != SEEK_SET || offset < 0 || (uint64_t)offset > p->size)
		return CURL_SEEKFUNC_FAIL;
	p->at = (uint64_t)offset;
	return CURL_SEEKFUNC_OK;
}

static size_t take_answer(char *data, size_t size, size_t n, void *ctx) {
	struct push *p = ctx;
	size_t len = size * n;

	if (len > sizeof p->answer - p->answer_len) {
		p->too_long = true;
		return 0; /* ends the transfer */
	}
	memcpy(p->answer + p->answer_len, data, len);
	p->answer_len += len;
	return len;
}

static bool take_value(struct slice line, const char *name, struct buf *to) {
	size_t n = strlen(name);

	if (line.len < n || strncasecmp((const char *)line.data, name, n) != 0)
		return false;
	struct slice value = slice_of(line.data + n, line.len - n);
	while (value.len > 0 && isspace(value.data[0]))
		value = slice_of(value.data + 1, value.len - 1);
	while (value.len > 0 && isspace(value.data[value.len - 1]))
		value.len--;
	buf_clear(to);
	return buf_add(to, value.data, value.len, NULL) ==
		CEDE_OK; /* else too long to mean anything */
}

static size_t take_header(char *data, size_t size, size_t n, void *ctx) {
	struct push *p = ctx;
	struct slice line = slice_of(data, size * n);

	(void)(take_value(line, "retry-after:", &p->retry_after) ||
		take_value(line, "date:", &p->date));
	return line.len;
}

/* Bytes that the other end has acknowledged. What lies in the kernel's buffer says nothing of a
 * slow link, and what libcurl has written may lie still for as long as a whole buffer of its own
 * takes to go out. */
static uint64_t arrived(struct push *p, uint64_t sent) {
	uint64_t acked;

	if (p->socket < 0 || !acked_bytes(p->socket, &acked))
		return sent; /* it did not have to wait for its socket yet */
	if (!p->is_counted) {
		p->is_counted = true;
		p->acked_before = acked;
	}
	return acked - p->acked_before;
}

static bool has_all(const struct push *p, uint64_t sent) {
	int unsent = 0;

	return sent == p->size && p->socket >= 0 && ioctl(p->socket, SIOCOUTQ, &unsent) == 0 &&
		unsent == 0;
}

static bool gets_on(struct push *p, uint64_t sent) {
	int64_t now = clock_boot_ns();

	if (p->all_boot_ns == 0) {
		p->verdict = pace_look(&p->to->line, &p->pace, arrived(p, sent), now);
		if (!has_all(p, sent))
			return p->verdict == PACE_ON;
		p->all_boot_ns = now;
		pace_leave(&p->to->line, &p->pace);
		p->verdict = PACE_ON;
	}
	uint64_t between = p->size < BUFFERED ? p->size : BUFFERED;
	p->unanswered = now - p->all_boot_ns >=
		(ANSWER_S + (int64_t)(between / PACE_FLOOR)) * NS_PER_SECOND;
	return !p->unanswered;
}

/* Called at least each second. libcurl's own limit takes a body that lies in the kernel's buffer
 * for sent. */
static int on_progress(
	void *ctx, curl_off_t down_all, curl_off_t down, curl_off_t up_all, curl_off_t up) {
	struct push *p = ctx;

	(void)down_all;
	(void)down;
	(void)up_all;
	return p->uploads && !gets_on(p, (uint64_t)up);
}

/* Only approved addresses are ever connected to ... */
static curl_socket_t open_socket(void *ctx, curlsocktype purpose, struct curl_sockaddr *address) {
	struct push *p = ctx;

	if (purpose != CURLSOCKTYPE_IPCXN ||
		!address_allowed(p->to->addresses, p->to->address_count, &address->addr)) {
		p->address_refused = true;
		return CURL_SOCKET_BAD;
	}
	return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

/* ... and the address that is really connected is looked at again before a request goes out. */
static int before_request(void *ctx, char *address, char *local_address, int port, int local_port) {
	struct push *p = ctx;
	struct sockaddr_in v4 = {.sin_family = AF_INET};
	struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
	const struct sockaddr *connected = NULL;

	(void)local_address;
	(void)port;
	(void)local_port;
	if (inet_pton(AF_INET, address, &v4.sin_addr) == 1)
		connected = (const struct sockaddr *)&v4;
	else if (inet_pton(AF_INET6, address, &v6.sin6_addr) == 1)
		connected = (const struct sockaddr *)&v6;
	if (connected == NULL || !address_allowed(p->to->addresses, p->to->address_count, connected)) {
		p->address_refused = true;
		return CURL_PREREQFUNC_ABORT;
	}
	p->requested = true;
	if (p->stage == STAGE_PUT && !p->uploads) {
		p->uploads = true;
		pace_join(&p->to->line, &p->pace, clock_boot_ns());
	}
	return CURL_PREREQFUNC_OK;
}

/* ---- requests */

#define SET(option, value) ok = ok && curl_easy_setopt(p->easy, (option), (value)) == CURLE_OK

/* What makes I4 true: nothing but the keeper's words decides where this goes and whom it trusts. */
static bool set_trust(struct push *p) {
	struct curl_blob blobs[3];
	bool ok = true;

	for (size_t i = 0; i < 3; i++)
		blobs[i] = (struct curl_blob){
			.data = p->to->pem[i], .len = p->to->pem_len[i], .flags = CURL_BLOB_COPY};
	SET(CURLOPT_PROTOCOLS_STR, "https");
	SET(CURLOPT_FOLLOWLOCATION, 0L);
	SET(CURLOPT_PROXY, "");
	SET(CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
	SET(CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_3);
	SET(CURLOPT_SSL_VERIFYPEER, 1L);
	SET(CURLOPT_SSL_VERIFYHOST, 2L);
	SET(CURLOPT_CAPATH, NULL);
	SET(CURLOPT_CAINFO, NULL);
	SET(CURLOPT_CAINFO_BLOB, &blobs[0]);
	SET(CURLOPT_SSLCERT_BLOB, &blobs[1]);
	SET(CURLOPT_SSLKEY_BLOB, &blobs[2]);
	SET(CURLOPT_SSL_SESSIONID_CACHE, 0L); /* a resumed session would keep an old identity */
	if (p->to->pins != NULL)
		SET(CURLOPT_PINNEDPUBLICKEY, p->to->pins);
	SET(CURLOPT_OPENSOCKETFUNCTION, open_socket);
	SET(CURLOPT_OPENSOCKETDATA, p);
	SET(CURLOPT_PREREQFUNCTION, before_request);
	SET(CURLOPT_PREREQDATA, p);
	return ok;
}

static bool set_manners(struct push *p) {
	bool ok = true;

	SET(CURLOPT_NOSIGNAL, 1L);
	SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	SET(CURLOPT_CONNECTTIMEOUT_MS, CONNECT_MS);
	SET(CURLOPT_LOW_SPEED_LIMIT, 1L); /* without a time: on_progress() is called each second */
	SET(CURLOPT_NOPROGRESS, 0L);
	SET(CURLOPT_XFERINFOFUNCTION, on_progress);
	SET(CURLOPT_XFERINFODATA, p);
	/* names are looked up for each connection: the agency may move. A resolver that does not
	 * answer is left behind: waiting for it would stop the other destinations as well */
	SET(CURLOPT_DNS_CACHE_TIMEOUT, 0L);
	SET(CURLOPT_QUICK_EXIT, 1L);
	if (p->stage != STAGE_PUT)
		SET(CURLOPT_TIMEOUT_MS, ASK_MS);
	SET(CURLOPT_TCP_KEEPALIVE, 1L);
	SET(CURLOPT_ERRORBUFFER, p->curl_text);
	SET(CURLOPT_WRITEFUNCTION, take_answer);
	SET(CURLOPT_WRITEDATA, p);
	SET(CURLOPT_HEADERFUNCTION, take_header);
	SET(CURLOPT_HEADERDATA, p);
	SET(CURLOPT_PRIVATE, p);
	SET(CURLOPT_USERAGENT, "cede");
	return ok;
}

static bool add_header(struct push *p, const char *line) {
	struct curl_slist *more = curl_slist_append(p->headers, line);

	if (more != NULL)
		p->headers = more;
	return more != NULL;
}

static bool set_put(struct push *p) {
	char digest[DIGEST_FIELD_SIZE + 16];
	char field[DIGEST_FIELD_SIZE];
	const char *checkpoint;
	bool ok = true;

	digest_field_print(p->sha256, field);
	(void)snprintf(digest, sizeof digest, "Repr-Digest: %s", field);
	ok = add_header(p, digest) && add_header(p, "If-None-Match: *") &&
		add_header(p, "Content-Type: application/cms");
	if (p->checkpoint.len > 0)
		ok = ok && buf_string(&p->checkpoint, &checkpoint, NULL) == CEDE_OK &&
			add_header(p, checkpoint);
	if (p->size < EXPECT_LEAST)
		ok = ok && add_header(p, "Expect:");
	p->at = 0;
	SET(CURLOPT_UPLOAD, 1L);
	SET(CURLOPT_INFILESIZE_LARGE, (curl_off_t)p->size);
	SET(CURLOPT_READFUNCTION, read_body);
	SET(CURLOPT_READDATA, p);
	SET(CURLOPT_SEEKFUNCTION, seek_body);
	SET(CURLOPT_SEEKDATA, p);
	/* a small buffer keeps the rate even */
	SET(CURLOPT_UPLOAD_BUFFERSIZE, p->rate > 0 ? LIMITED_BUFFER : UPLOAD_BUFFER);
	if (p->rate > 0)
		SET(CURLOPT_MAX_SEND_SPEED_LARGE, (curl_off_t)p->rate);
	SET(CURLOPT_HTTPHEADER, p->headers);
	return ok;
}

static bool set_request(struct push *p) {
	char url[ADDRESS_URL_MAX + sizeof "v1/bundles//receipt" + ID_TEXT_SIZE];
	bool ok = true;

	(void)snprintf(url, sizeof url, "%sv1/bundles/%s%s", p->to->url, p->text_id,
		p->stage == STAGE_GET ? "/receipt" : "");
	SET(CURLOPT_URL, url);
	SET(CURLOPT_PATH_AS_IS, 1L);
	if (p->stage == STAGE_DELETE)
		SET(CURLOPT_CUSTOMREQUEST, "DELETE");
	if (p->stage == STAGE_PUT)
		ok = ok && set_put(p);
	return ok;
}

static int begin(struct push *p, enum stage stage, struct cede_error *reterr) {
	drop_easy(p);
	p->stage = stage;
	p->answer_len = 0;
	p->socket = -1;
	p->is_counted = false;
	p->requested = p->uploads = p->unanswered = false;
	p->all_boot_ns = 0;
	p->verdict = PACE_ON;
	buf_clear(&p->retry_after);
	buf_clear(&p->date);
	p->curl_text[0] = 0;
	p->easy = curl_easy_init();
	if (p->easy == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	if (!set_trust(p) || !set_manners(p) || !set_request(p))
		return CEDE_FAIL(reterr, CEDE_ERR_BUG, "libcurl refuses an option");
	return curl_loop_add(p->to->curl, p->easy, reterr);
}

static void go_on(struct push *p, enum stage stage) {
	struct cede_error err = {0};

	if (stage == STAGE_GET && ++p->gets > 2) {
		fail(p, "receipt",
			"the server says in turn that it has the bundle and that it has not", 0);
		return;
	}
	if (begin(p, stage, &err) < 0)
		fail(p, "courier", err.text, 0);
}

/* ---- answers */

static void succeeded(struct push *p, enum push_result result) {
	/* drop_easy() comes first in end(): the answer is the push's own memory */
	struct push_outcome o = {
		.result = result, .note = slice_of(p->answer, p->answer_len), .date_s = date_of(p)};

	end(p, &o);
}

static void answered(struct push *p, long status) {
	char kind[16], text[64];

	if ((p->stage == STAGE_PUT && status == 201) || (p->stage == STAGE_GET && status == 200)) {
		if (p->answer_len > 0)
			succeeded(p, PUSH_RECEIPT);
		else
			fail(p, "receipt", "an answer without a receipt", status);
		return;
	}
	if ((p->stage == STAGE_PUT && status == 412) || (p->stage == STAGE_DELETE && status == 409)) {
		go_on(p, STAGE_GET);
		return;
	}
	if (p->stage == STAGE_GET && status == 404 && p->fd < 0) {
		if (p->reclaim)
			go_on(p, STAGE_DELETE);
		else
			succeeded(p, PUSH_ABSENT);
		return;
	}
	if (p->stage == STAGE_DELETE && status == 204) {
		succeeded(p, PUSH_ABSENT_FOR_EVER);
		return;
	}
	(void)snprintf(kind, sizeof kind, "http-%ld", status);
	(void)snprintf(text, sizeof text, "the server answered %ld", status);
	fail(p, status >= 300 && status < 400 ? "redirect" : kind, text, status);
}

static const char *kind_of(const struct push *p, CURLcode result) {
	static const struct {
		CURLcode code;
		const char *kind;
	} kinds[] = {
		{CURLE_COULDNT_RESOLVE_HOST, "resolve"},
		{CURLE_COULDNT_CONNECT, "connect"},
		{CURLE_OPERATION_TIMEDOUT, "timeout"},
		{CURLE_SSL_CONNECT_ERROR, "tls"},
		{CURLE_PEER_FAILED_VERIFICATION, "tls"},
		{CURLE_SSL_CERTPROBLEM, "local"}, /* the keeper has tried both files */
		{CURLE_OUT_OF_MEMORY, "local"},
		{CURLE_FAILED_INIT, "local"},
		{CURLE_SSL_CIPHER, "tls"},
		{CURLE_SSL_CACERT_BADFILE, "tls"},
		{CURLE_SSL_ISSUER_ERROR, "tls"},
		{CURLE_SSL_PINNEDPUBKEYNOTMATCH, "pin"},
		{CURLE_SEND_ERROR, "reset"},
		{CURLE_SEND_FAIL_REWIND, "reset"},
		{CURLE_RECV_ERROR, "reset"},
		{CURLE_GOT_NOTHING, "reset"},
		{CURLE_PARTIAL_FILE, "reset"},
		{CURLE_WEIRD_SERVER_REPLY, "http"},
		{CURLE_UNSUPPORTED_PROTOCOL, "http"},
		{CURLE_HTTP2, "http"},
	};

	if (p->address_refused)
		return "address";
	if (p->too_long)
		return "receipt";
	if (p->verdict == PACE_YIELDS)
		return "slow";
	if (p->verdict == PACE_DEAD || p->unanswered)
		return "timeout";
	if (result == CURLE_OUT_OF_MEMORY && p->requested)
		return "http"; /* libcurl says so of a header that is too long, too */
	for (size_t i = 0; i < ARRAY_LENGTH(kinds); i++)
		if (kinds[i].code == result)
			return kinds[i].kind;
	return "transport";
}

static struct push *push_of(CURL *easy) {
	struct push *p = NULL;
	char *pointer = NULL;

	require(curl_easy_getinfo(easy, CURLINFO_PRIVATE, &pointer) == CURLE_OK && pointer != NULL);
	memcpy(&p, &(void *){pointer}, sizeof p);
	return p;
}

void push_curl_socket(CURL *easy, int fd) {
	struct push *p = push_of(easy);

	if (p->socket != fd)
		p->is_counted = false;
	p->socket = fd;
}

void push_curl_done(void *ctx, CURL *easy, CURLcode result) {
	struct push *p = push_of(easy);
	long status = 0;

	(void)ctx;
	if (result == CURLE_OK) {
		(void)curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
		answered(p, status);
		return;
	}
	const char *text = p->address_refused ? "the server's address is not among the approved ones"
		: p->too_long                 ? "the answer is longer than a receipt may be"
		: result == CURLE_SEND_FAIL_REWIND ? "the connection broke while the bundle was sent"
		: p->verdict == PACE_DEAD          ? "next to nothing arrived for 30 seconds"
		: p->unanswered                    ? "no answer to the whole bundle"
		: p->verdict == PACE_YIELDS
		? "the link is too slow for so many at once: those that began before go on"
		: p->curl_text[0] != 0 ? p->curl_text
				       : curl_easy_strerror(result);
	char copy[CURL_ERROR_SIZE];
	(void)snprintf(copy, sizeof copy, "%s", text);
	fail(p, kind_of(p, result), copy, 0);
}

int push_start(struct push_destination *to, const struct id *id, int fd,
	const struct push_bundle *bundle, bool reclaim, push_ended_fn *ended, void *ctx,
	struct push **ret, struct cede_error *reterr) {
	struct push *p = calloc(1, sizeof *p);

	if (p == NULL) {
		fd_closep(&fd);
		return CEDE_FAIL_MEMORY(reterr);
	}
	p->to = to;
	p->id = *id;
	id_print(id, p->text_id);
	p->fd = fd;
	p->retry_after = p->date = BUF_INIT(HEADER_MAX);
	p->checkpoint = BUF_INIT(CHECKPOINT_LINE_MAX);
	if (bundle != NULL) {
		p->size = bundle->size;
		p->rate = bundle->rate;
		memcpy(p->sha256, bundle->sha256, sizeof p->sha256);
		if (bundle->checkpoint.len > 0 &&
			buf_addf(&p->checkpoint, reterr, CHECKPOINT_FIELD ": %.*s",
				(int)bundle->checkpoint.len,
				(const char *)bundle->checkpoint.data) < 0) {
			push_free(p);
			return CEDE_FAIL_MEMORY(reterr);
		}
	}
	p->reclaim = reclaim;
	p->ended = ended;
	p->ctx = ctx;
	int r = begin(p, fd >= 0 ? STAGE_PUT : STAGE_GET, reterr);
	if (r < 0) {
		push_free(p);
		return r;
	}
	*ret = p;
	return CEDE_OK;
}
