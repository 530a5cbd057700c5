/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/cmd_ledger.h"

#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "agent/ledger/ledger.h"
#include "base/buf.h"
#include "base/check.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/hex.h"

static const char usage[] =
	"usage: cede ledger verify --state DIR             the event chain, from the first to the last\n"
	"       cede ledger list --state DIR [--json]      every capture with its state\n"
	"       cede ledger events --state DIR [--json]    everything that happened, in order\n"
	"       cede ledger receipt BUNDLE-ID --state DIR  the agency's receipt, as it came\n";

struct listing {
	bool json;
	int failed;
};

/* Names may hold anything: control characters, quotes and bytes that are no ASCII become %xx. */
static int print_path(struct slice path) {
	for (size_t i = 0; i < path.len; i++) {
		uint8_t c = path.data[i];
		bool plain = c > 0x20 && c < 0x7f && c != '%' && c != '"' && c != '\\';
		if (printf(plain ? "%c" : "%%%02x", c) < 0)
			return CEDE_ERR_IO;
	}
	return CEDE_OK;
}

static int print_capture(void *ctx, const struct ledger_capture *c, struct cede_error *reterr) {
	const struct listing *l = ctx;
	char id[ID_TEXT_SIZE], sha256[65];

	id_print(&c->id, id);
	hex_print(c->sha256, sizeof c->sha256, sha256);
	(void)printf(l->json
			? "{\"id\":\"%s\",\"state\":\"%s\",\"source\":\"%.*s\",\"size\":%llu,\"sha256\":\"%s\",\"path\":\""
			: "%s %-9s %.*s %llu %s ",
		id, capture_state_name(c->state), (int)c->source.len, (const char *)c->source.data,
		(unsigned long long)c->identity.size, sha256);
	if (print_path(c->path) < 0 || fputs(l->json ? "\"}\n" : "\n", stdout) == EOF)
		return CEDE_FAIL_SYS(reterr, "write");
	return CEDE_OK;
}

static int list(struct ledger *ledger, bool json, struct cede_error *reterr) {
	struct listing l = {.json = json};

	for (int i = 0; i < CAPTURE_STATE_COUNT; i++)
		CEDE_TRY(ledger_captures(ledger, (enum capture_state)i, print_capture, &l, reterr));
	return 0;
}

static int print_event(void *ctx, const struct ledger_row *row, struct cede_error *reterr) {
	const struct listing *l = ctx;
	char at[CLOCK_TEXT_SIZE], subject[ID_TEXT_SIZE] = "";

	clock_text_ns(row->at_ns, at);
	if (row->subject.len == ID_SIZE) {
		struct id id;
		memcpy(id.bytes, row->subject.data, ID_SIZE);
		id_print(&id, subject);
	}
	if (!l->json) {
		(void)printf("%llu %s %s %s %.*s\n", (unsigned long long)row->sequence, at,
			ledger_event_name(row->kind), subject[0] != 0 ? subject : "-",
			(int)row->detail.len, (const char *)row->detail.data);
	} else {
		json_t *o = json_pack("{s:I, s:s, s:s, s:s, s:s%}", "sequence",
			(json_int_t)row->sequence, "at", at, "kind", ledger_event_name(row->kind),
			"subject", subject, "detail", row->detail.data, row->detail.len);
		int r = o == NULL ? -1 : json_dumpf(o, stdout, JSON_COMPACT | JSON_ENSURE_ASCII);
		json_decref(o);
		if (r < 0)
			return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "event %llu is no text: damaged?",
				(unsigned long long)row->sequence);
		(void)putchar('\n');
	}
	return ferror(stdout) ? CEDE_FAIL_SYS(reterr, "write") : CEDE_OK;
}

static int events(struct ledger *ledger, bool json, struct cede_error *reterr) {
	struct listing l = {.json = json};

	CEDE_TRY(ledger_events(ledger, print_event, &l, reterr));
	return 0;
}

static int verify(struct ledger *ledger, struct cede_error *reterr) {
	uint64_t events, bad;
	uint8_t hash[32];
	uint64_t sequence;
	char text[65];

	int r = ledger_verify(ledger, &events, &bad, reterr);
	if (r == CEDE_ERR_INPUT) {
		(void)printf("ledger: NOT SOUND: first bad event %llu: %s\n",
			(unsigned long long)bad, reterr->text);
		return 1;
	}
	CEDE_TRY(r);
	ledger_head(ledger, &sequence, hash);
	hex_print(hash, sizeof hash, text);
	(void)printf("ledger: sound: %llu events, newest %s\n", (unsigned long long)events, text);
	return 0;
}

static int receipt(struct ledger *ledger, const char *text, struct cede_error *reterr) {
	CLEANUP(buf_done) struct buf note = BUF_INIT(65536);
	struct id id;
	bool there;

	CEDE_TRY(id_parse(slice_str(text), &id, reterr));
	CEDE_TRY(ledger_receipt(ledger, &id, &note, &there, reterr));
	if (!there) {
		(void)fprintf(stderr, "cede ledger: bundle %s has no receipt\n", text);
		return 1;
	}
	return fwrite(note.data, 1, note.len, stdout) == note.len && fflush(stdout) == 0
		? 0
		: CEDE_FAIL_SYS(reterr, "write");
}

struct words {
	const char *state;
	const char *verb;
	const char *subject;
	bool json;
};

/* 0, or 1 for help, or -1. */
static int parse(int argc, char **argv, struct words *ret) {
	static const struct option options[] = {{"state", required_argument, NULL, 's'},
		{"json", no_argument, NULL, 'j'}, {"help", no_argument, NULL, 'h'}, {0}};
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 's')
			ret->state = optarg;
		else if (c == 'j')
			ret->json = true;
		else
			return c == 'h' ? 1 : -1;
	}
	if (optind < argc)
		ret->verb = argv[optind++];
	if (optind < argc)
		ret->subject = argv[optind++];
	bool wants = ret->verb != NULL && strcmp(ret->verb, "receipt") == 0;
	return ret->state == NULL || ret->verb == NULL || wants != (ret->subject != NULL) ||
			optind != argc
		? -1
		: 0;
}

static int run(const struct words *w, struct cede_error *reterr) {
	CLEANUP(ledger_closep) struct ledger *ledger = NULL;

	CEDE_TRY(ledger_open_reader(w->state, &ledger, reterr));
	if (strcmp(w->verb, "verify") == 0)
		return verify(ledger, reterr);
	if (strcmp(w->verb, "list") == 0)
		return list(ledger, w->json, reterr);
	if (strcmp(w->verb, "events") == 0)
		return events(ledger, w->json, reterr);
	return receipt(ledger, w->subject, reterr);
}

int cmd_ledger(int argc, char **argv) {
	static const char *const verbs[] = {"verify", "list", "events", "receipt"};
	struct words words = {0};
	struct cede_error err = {0};
	bool known = false;

	int help = parse(argc, argv, &words);
	for (size_t i = 0; help == 0 && i < ARRAY_LENGTH(verbs); i++)
		known = known || strcmp(words.verb, verbs[i]) == 0;
	if (help != 0 || !known) {
		(void)fputs(usage, help > 0 ? stdout : stderr);
		return help > 0 ? 0 : 2;
	}
	int r = run(&words, &err);
	if (r < 0)
		(void)fprintf(stderr, "cede ledger: %s\n", err.text);
	return r >= 0 ? r : r == CEDE_ERR_INPUT ? 2 : 3;
}
