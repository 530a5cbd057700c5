/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/status_read.h"

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "agent/core/answer.h"
#include "agent/ledger/epoch.h"
#include "agent/ledger/ledger.h"
#include "base/buf.h"
#include "base/check.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/escape.h"

#define ANSWER_MAX    (1U << 20)
#define ANSWER_MS     3000
#define VIOLATIONS_NS (24 * 3600 * NS_PER_SECOND)

static void json_freep(json_t **j) {
	json_decref(*j);
	*j = NULL;
}

static json_t *time_of(int64_t ns) {
	char text[CLOCK_TEXT_SIZE];

	if (ns <= 0 || ns == INT64_MAX)
		return json_null();
	clock_text(ns, text);
	return json_string(text);
}

/* What a ledger holds may be anything: as one word. */
static json_t *word_of(struct slice text) {
	char word[3 * 256 + 1];

	escape_word(text, word, sizeof word);
	return json_string(word);
}

static void add(json_t *o, const char *key, uint64_t n) {
	json_int_t before = json_integer_value(json_object_get(o, key));

	(void)json_object_set_new(o, key, json_integer(before + (json_int_t)n));
}

/* ---- the agent itself */

static int connect_to(const char *state_dir, int *ret_fd, struct cede_error *reterr) {
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	CLEANUP(fd_closep) int dir = -1;
	CLEANUP(fd_closep) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	CEDE_TRY(file_open_dir(AT_FDCWD, state_dir, &dir, reterr));
	(void)snprintf(at.sun_path, sizeof at.sun_path, "/proc/self/fd/%d/" ANSWER_SOCKET, dir);
	if (fd < 0 || connect(fd, (const struct sockaddr *)&at, sizeof at) < 0)
		return CEDE_FAIL_SYS(reterr, "status socket");
	*ret_fd = CEDE_TAKE_FD(fd);
	return CEDE_OK;
}

static int read_all(int fd, struct buf *out, struct cede_error *reterr) {
	int64_t end = clock_boot_ns() + ANSWER_MS * NS_PER_MS;

	for (;;) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		int64_t left = end - clock_boot_ns();
		uint8_t *at;
		if (left <= 0 || poll(&p, 1, (int)(left / NS_PER_MS) + 1) <= 0)
			return CEDE_FAIL(reterr, CEDE_ERR_BUSY, "no answer");
		CEDE_TRY(buf_room(out, 4096, &at, reterr));
		ssize_t n = read(fd, at, 4096);
		if (n < 0)
			return CEDE_FAIL_SYS(reterr, "status socket");
		if (n == 0)
			return CEDE_OK;
		buf_grew(out, (size_t)n);
	}
}

/* "running": false if nobody listens; "answers": false if somebody does and says nothing. */
static json_t *ask_agent(const char *state_dir) {
	CLEANUP(buf_done) struct buf text = BUF_INIT(ANSWER_MAX);
	CLEANUP(fd_closep) int fd = -1;
	struct cede_error err = {0};
	json_t *said = NULL;

	/* too many wait already: it is there, and does not serve them */
	if (connect_to(state_dir, &fd, &err) < 0 && err.sys != EAGAIN)
		return json_pack("{s:{s:b,s:b}}", "agent", "running", 0, "answers", 0);
	if (fd >= 0 && read_all(fd, &text, &err) == CEDE_OK && text.len > 0)
		said = json_loadb((const char *)text.data, text.len, JSON_REJECT_DUPLICATES, NULL);
	if (!json_is_object(json_object_get(said, "agent"))) {
		json_decref(said);
		return json_pack("{s:{s:b,s:b}}", "agent", "running", 1, "answers", 0);
	}
	(void)json_object_set_new(json_object_get(said, "agent"), "answers", json_true());
	return said;
}

/* ---- the ledger */

struct reading {
	json_t *all;
	int64_t now_ns;
	int64_t oldest_ns; /* of all sources, holds included */
};

static bool is_live(int state) {
	return state != CAPTURE_WIPED && state != CAPTURE_GONE && state != CAPTURE_REPLACED;
}

/* The entry of this name in a list; made if there is none. */
static json_t *entry(json_t *list, struct slice name) {
	json_t *word = word_of(name);
	size_t i;
	json_t *o;

	json_array_foreach(list, i, o) if (json_equal(json_object_get(o, "name"), word)) {
		json_decref(word);
		return o;
	}
	o = json_object();
	(void)json_object_set_new(o, "name", word);
	(void)json_array_append_new(list, o);
	return o;
}

static void oldest_of_source(json_t *source, const struct ledger_overview *o, int64_t now) {
	int64_t age = now > o->born_ns ? (now - o->born_ns) / NS_PER_SECOND : 0;
	json_t *known = json_object_get(source, "oldest_age_seconds");
	const char *before = json_string_value(json_object_get(source, "oldest"));
	json_t *born = time_of(o->born_ns);

	if (known == NULL || json_integer_value(known) < age)
		(void)json_object_set_new(source, "oldest_age_seconds", json_integer(age));
	if (before == NULL || (json_is_string(born) && strcmp(json_string_value(born), before) < 0))
		(void)json_object_set(source, "oldest", born);
	json_decref(born);
	if (json_object_get(source, "max_age_seconds") == NULL && o->deadline_ns > o->born_ns)
		(void)json_object_set_new(source, "max_age_seconds",
			json_integer((o->deadline_ns - o->born_ns) / NS_PER_SECOND));
}

/* The epochs of a vault are sources of their own in the ledger: here they are one. */
static int read_captures(void *ctx, const struct ledger_overview *o, struct cede_error *reterr) {
	struct reading *r = ctx;

	if (o->state < 0 || o->state >= CAPTURE_STATE_COUNT)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "ledger: a capture in no state");
	const char *state = capture_state_name((enum capture_state)o->state);
	json_t *source = entry(json_object_get(r->all, "sources"), epoch_source_name(o->name));
	json_t *files = json_object_get(source, "files");
	if (files == NULL) {
		files = json_object();
		(void)json_object_set_new(source, "files", files);
	}
	add(json_object_get(r->all, "captures"), state, o->count);
	add(files, state, o->count);
	if (!is_live(o->state))
		return CEDE_OK;
	add(source, "plaintext_files", o->count);
	add(source, "plaintext_bytes", o->bytes);
	if (o->born_ns < r->oldest_ns)
		r->oldest_ns = o->born_ns;
	if (o->state != CAPTURE_HELD)
		oldest_of_source(source, o, r->now_ns);
	return CEDE_OK;
}

static int read_bundles(void *ctx, const struct ledger_overview *o, struct cede_error *reterr) {
	struct reading *r = ctx;
	json_t *destination = entry(json_object_get(r->all, "destinations"), o->name);
	json_t *last = json_object_get(destination, "last_receipt");

	if (o->state < 0 || o->state >= BUNDLE_STATE_COUNT)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "ledger: a bundle in no state");
	add(json_object_get(r->all, "bundles"), bundle_state_name((enum bundle_state)o->state),
		o->count);
	if (o->state == BUNDLE_SEALED) {
		add(destination, "bundles_open", o->count);
		add(destination, "bundles_open_bytes", o->bytes);
	}
	json_t *receipt = time_of(o->receipt_ns);
	if (json_is_string(receipt) &&
		(!json_is_string(last) ||
			strcmp(json_string_value(last), json_string_value(receipt)) < 0))
		(void)json_object_set(destination, "last_receipt", receipt);
	json_decref(receipt);
	return CEDE_OK;
}

/* "reason=overdue" stands in the detail of each. */
static int read_violation(void *ctx, const struct ledger_row *row, struct cede_error *reterr) {
	json_t *violations = ctx;
	struct slice rest = row->detail, word;
	char reason[64] = "other";

	(void)reterr;
	if (row->kind != LEDGER_VIOLATION)
		return CEDE_OK;
	while (rest.len > 0) {
		if (!slice_cut(rest, ' ', &word, &rest)) {
			word = rest;
			rest = SLICE_NONE;
		}
		if (slice_starts(word, "reason="))
			escape_word(slice_of(word.data + 7, word.len - 7), reason, sizeof reason);
	}
	add(violations, reason, 1);
	return CEDE_OK;
}

static int last_event(void *ctx, const struct ledger_row *row, struct cede_error *reterr) {
	json_t *all = ctx;

	(void)reterr;
	return json_object_set_new(all, "last_event", time_of(row->at_ns));
}

static int read_events(struct ledger *ledger, struct reading *r, struct cede_error *reterr) {
	uint64_t from, last;
	uint8_t hash[32];

	ledger_head(ledger, &last, hash);
	add(r->all, "events", last);
	CEDE_TRY(ledger_events(ledger, last, last_event, r->all, reterr));
	CEDE_TRY(ledger_events_since(ledger, r->now_ns - VIOLATIONS_NS, &from, reterr));
	return ledger_events(
		ledger, from, read_violation, json_object_get(r->all, "violations_24h"), reterr);
}

static int read_policy(struct ledger *ledger, struct reading *r, struct cede_error *reterr) {
	struct ledger_policy policy;
	char id[256] = "";
	bool there;

	if (json_object_get(r->all, "policy") != NULL)
		return CEDE_OK; /* the agent knows more of it */
	CEDE_TRY(ledger_overview_policy(ledger, id, sizeof id, &policy, &there, reterr));
	(void)json_object_set_new(r->all, "policy",
		there ? json_pack("{s:o,s:I,s:b}", "id", word_of(slice_str(id)), "serial",
				(json_int_t)policy.serial, "signed", policy.is_signed)
		      : json_null());
	return CEDE_OK;
}

static int read_ledger(struct ledger *ledger, struct reading *r, struct cede_error *reterr) {
	CEDE_TRY(ledger_overview_captures(ledger, read_captures, r, reterr));
	CEDE_TRY(ledger_overview_bundles(ledger, read_bundles, r, reterr));
	CEDE_TRY(read_events(ledger, r, reterr));
	CEDE_TRY(read_policy(ledger, r, reterr));
	(void)json_object_set_new(r->all, "oldest", time_of(r->oldest_ns));
	return CEDE_OK;
}

/* ---- all of it */

static void set_default(json_t *o, const char *key, json_t *value) {
	if (json_object_get(o, key) == NULL)
		(void)json_object_set_new(o, key, value);
	else
		json_decref(value);
}

static void make_frame(json_t *all) {
	json_t *captures = json_object();
	json_t *bundles = json_object();

	(void)json_object_set_new(all, "schema", json_string(STATUS_SCHEMA));
	for (int i = 0; i < CAPTURE_STATE_COUNT; i++)
		add(captures, capture_state_name((enum capture_state)i), 0);
	for (int i = 0; i < BUNDLE_STATE_COUNT; i++)
		add(bundles, bundle_state_name((enum bundle_state)i), 0);
	(void)json_object_set_new(all, "captures", captures);
	(void)json_object_set_new(all, "bundles", bundles);
	(void)json_object_set_new(all, "violations_24h", json_object());
	set_default(all, "sources", json_array());
	set_default(all, "destinations", json_array());
}

/* Sources that an earlier policy had, and of which nothing is left. Only the agent knows which are
 * its policy's: each of those has an "up". */
static void forget_former(json_t *all) {
	json_t *sources = json_object_get(all, "sources");

	if (!json_is_true(json_object_get(json_object_get(all, "agent"), "answers")))
		return;
	for (size_t i = json_array_size(sources); i > 0; i--) {
		const json_t *o = json_array_get(sources, i - 1);
		if (json_object_get(o, "up") == NULL &&
			json_integer_value(json_object_get(o, "plaintext_files")) == 0)
			(void)json_array_remove(sources, i - 1);
	}
}

static void fill_gaps(json_t *all) {
	size_t i;
	json_t *o;

	json_array_foreach(json_object_get(all, "sources"), i, o) {
		set_default(o, "files", json_object());
		set_default(o, "plaintext_files", json_integer(0));
		set_default(o, "plaintext_bytes", json_integer(0));
		set_default(o, "oldest", json_null());
		set_default(o, "oldest_age_seconds", json_integer(0));
		set_default(o, "max_age_seconds", json_null());
		json_t *most = json_object_get(o, "max_age_seconds");
		(void)json_object_set_new(o, "overdue",
			json_boolean(json_is_integer(most) &&
				json_integer_value(json_object_get(o, "oldest_age_seconds")) >
					json_integer_value(most)));
	}
	json_array_foreach(json_object_get(all, "destinations"), i, o) {
		set_default(o, "bundles_open", json_integer(0));
		set_default(o, "bundles_open_bytes", json_integer(0));
		set_default(o, "last_receipt", json_null());
	}
}

int status_read(const char *state_dir, json_t **ret, struct cede_error *reterr) {
	CLEANUP(ledger_closep) struct ledger *ledger = NULL;
	CLEANUP(json_freep) json_t *all = NULL;

	CEDE_TRY(ledger_open_reader(state_dir, &ledger, reterr));
	all = ask_agent(state_dir);
	if (all == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	make_frame(all);
	struct reading r = {.all = all, .now_ns = clock_wall_ns(), .oldest_ns = INT64_MAX};
	CEDE_TRY(read_ledger(ledger, &r, reterr));
	forget_former(all);
	fill_gaps(all);
	*ret = CEDE_TAKE(all);
	return CEDE_OK;
}

bool status_in_order(const json_t *status) {
	size_t i;
	json_t *o;

	json_array_foreach(json_object_get(status, "sources"), i,
		o) if (json_is_true(json_object_get(o, "overdue"))) return false;
	return json_is_true(json_object_get(json_object_get(status, "agent"), "ready"));
}
