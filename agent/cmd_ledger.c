/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/cmd_ledger.h"

#include <fcntl.h>
#include <getopt.h>
#include <jansson.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/cmd_ledger_internal.h"
#include "agent/config.h"
#include "agent/ledger/ledger.h"
#include "agent/ledger/prune.h"
#include "agent/ledger/verify.h"
#include "base/buf.h"
#include "base/check.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/escape.h"
#include "base/file.h"
#include "base/hex.h"
#include "base/parse.h"
#include "certs/key.h"
#include "formats/checkpoint.h"

static const char usage[] =
	"usage: cede ledger COMMAND [--state DIR]\n"
	"  --state DIR  instead of the state of " AGENT_CONFIG_DEFAULT "\n"
	"  verify               everything, from the first event to the last\n"
	"    [--checkpoint FILE [--key PUB]]\n"
	"                       and against what the agency keeps of this host\n"
	"  list [--json]        every capture with its state\n"
	"  events [--json]      everything that happened, in order\n"
	"  export --json [--from SEQUENCE]\n"
	"                       the same in a form that can be verified elsewhere;\n"
	"                       only from this event on\n"
	"  show ID [--json]     the whole life of one capture\n"
	"  receipt BUNDLE-ID    the agency's receipt, as it came\n"
	"  prune --before TIME  empties what is over, proven, and known to the agency,\n"
	"                       while the agent is stopped\n";

struct listing {
	bool json;
	int failed;
};

static int print_capture(void *ctx, const struct ledger_capture *c, struct cede_error *reterr) {
	const struct listing *l = ctx;
	char id[ID_TEXT_SIZE], sha256[65];

	id_print(&c->id, id);
	hex_print(c->sha256, sizeof c->sha256, sha256);
	(void)printf(l->json ? "{\"id\":\"%s\",\"state\":\"%s\",\"source\":\"" : "%s %-9s ", id,
		capture_state_name(c->state));
	escape_print_word(stdout, c->source);
	(void)printf(l->json ? "\",\"size\":%llu,\"sha256\":\"%s\",\"path\":\"" : " %llu %s ",
		(unsigned long long)c->identity.size, sha256);
	escape_print_word(stdout, c->path);
	if (fputs(l->json ? "\"}\n" : "\n", stdout) == EOF || ferror(stdout))
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
		(void)printf("%llu %s %s %s ", (unsigned long long)row->sequence, at,
			ledger_event_name(row->kind), subject[0] != 0 ? subject : "-");
		escape_print_line(stdout, row->detail);
		(void)putchar('\n');
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

	CEDE_TRY(ledger_events(ledger, 1, print_event, &l, reterr));
	return 0;
}

struct words {
	char *state; /* owned */
	const char *verb;
	const char *subject;
	struct id id; /* the same */
	const char *checkpoint;
	const char *key;
	const char *before;
	uint64_t from;
	bool json;
};

/* The public half, as DER. A certificate's or a private key's file will do as well as a public key. */
static int load_der(const char *path, bool secret, struct buf *der, struct cede_error *reterr) {
	CLEANUP(key_freep) EVP_PKEY *key = NULL;
	uint8_t bytes[CHECKPOINT_KEY_MAX];
	uint8_t *at = bytes;

	CEDE_TRY(secret ? key_load_private(AT_FDCWD, path, &key, reterr)
			: key_load_public(AT_FDCWD, path, &key, reterr));
	int len = i2d_PUBKEY(key, NULL);
	if (len <= 0 || (size_t)len > sizeof bytes || i2d_PUBKEY(key, &at) != len)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "%s: no key for checkpoints", path);
	return buf_add(der, bytes, (size_t)len, reterr);
}

/* The key beside the ledger: who may read the one may read the other, unless it was copied alone. */
static int load_state_key(const char *state, struct buf *der, struct cede_error *reterr) {
	char path[4200];

	(void)snprintf(path, sizeof path, "%s/%s", state, LEDGER_KEY_NAME);
	return access(path, R_OK) < 0 ? CEDE_OK : load_der(path, true, der, reterr);
}

static int print_check(const struct words *w, const struct ledger_check *c) {
	char hash[65];

	if (c->bad_sequence != 0) {
		(void)printf("ledger: NOT SOUND: first bad event %llu: ",
			(unsigned long long)c->bad_sequence);
		escape_print_line(stdout, slice_str(c->why));
		(void)putchar('\n');
		return 1;
	}
	hex_print(c->hash, sizeof c->hash, hash);
	(void)printf("ledger: sound: %llu events, newest %s\n", (unsigned long long)c->events, hash);
	if (c->pruned > 0)
		(void)printf(
			"ledger: %llu events were emptied by prune; their hashes are in the chain\n",
			(unsigned long long)c->pruned);
	(void)printf(
		"ledger: %llu captures and %llu bundles are what the events say; %llu signed checkpoints fit\n",
		(unsigned long long)c->captures, (unsigned long long)c->bundles,
		(unsigned long long)c->checkpoints);
	if (w->checkpoint != NULL)
		(void)printf(
			"ledger: agrees with the agency's checkpoints, the newest of %llu events\n",
			(unsigned long long)c->seen);
	return fflush(stdout) == 0 ? 0 : 3;
}

/* So that no first bad event can be told. */
static int print_damage(const struct cede_error *why) {
	(void)fputs("ledger: NOT SOUND: ", stdout);
	escape_print_line(stdout, slice_str(why->text));
	(void)putchar('\n');
	return fflush(stdout) == 0 ? 1 : 3;
}

static int verify_ledger(const struct words *w, struct ledger *ledger, struct cede_error *reterr) {
	CLEANUP(buf_done) struct buf notes = BUF_INIT(UINT32_MAX);
	CLEANUP(buf_done) struct buf key = BUF_INIT(CHECKPOINT_KEY_MAX);
	CLEANUP(buf_done) struct buf state_key = BUF_INIT(CHECKPOINT_KEY_MAX);
	struct ledger_check check;

	if (w->checkpoint != NULL)
		CEDE_TRY(file_load(AT_FDCWD, w->checkpoint, &notes, reterr));
	if (w->checkpoint != NULL && notes.len == 0)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "%s: no checkpoint in it", w->checkpoint);
	if (w->key != NULL)
		CEDE_TRY(load_der(w->key, false, &key, reterr));
	CEDE_TRY(load_state_key(w->state, &state_key, reterr));
	int r = ledger_check(
		ledger, buf_slice(&notes), buf_slice(&key), buf_slice(&state_key), &check, reterr);
	if (r != CEDE_ERR_INPUT)
		return r < 0 ? r : print_check(w, &check);
	/* whose fault: the ledger's, or that of the files it was to be compared with? */
	struct ledger_check alone;
	r = ledger_check(ledger, SLICE_NONE, SLICE_NONE, buf_slice(&state_key), &alone, NULL);
	return r == CEDE_ERR_INPUT ? print_damage(reterr) : CEDE_ERR_INPUT;
}

static int verify(const struct words *w, struct cede_error *reterr) {
	CLEANUP(ledger_closep) struct ledger *ledger = NULL;
	int r = ledger_open_reader(w->state, &ledger, reterr);

	if (r == CEDE_ERR_INPUT)
		return print_damage(reterr);
	return r < 0 ? r : verify_ledger(w, ledger, reterr);
}

static int receipt(struct ledger *ledger, const struct words *w, struct cede_error *reterr) {
	CLEANUP(buf_done) struct buf note = BUF_INIT(65536);
	bool there;

	CEDE_TRY(ledger_receipt(ledger, &w->id, &note, &there, reterr));
	if (!there) {
		(void)fprintf(stderr, "cede ledger: bundle %s has no receipt\n", w->subject);
		return 1;
	}
	return fwrite(note.data, 1, note.len, stdout) == note.len && fflush(stdout) == 0
		? 0
		: CEDE_FAIL_SYS(reterr, "write");
}

static const char *const verbs[] = {"verify", "list", "events", "export", "show", "receipt", "prune"};

/* Each option belongs to one verb. NULL: they fit. */
static const char *misfit(const struct words *w) {
	bool verifies = strcmp(w->verb, "verify") == 0;
	bool exports = strcmp(w->verb, "export") == 0;
	bool prunes = strcmp(w->verb, "prune") == 0;

	if (w->checkpoint != NULL && !verifies)
		return "--checkpoint goes with verify";
	if (w->key != NULL && (!verifies || w->checkpoint == NULL))
		return "--key goes with verify --checkpoint FILE";
	if (w->from != 0 && !exports)
		return "--from goes with export";
	if (w->before != NULL && !prunes)
		return "--before goes with prune";
	if (w->before == NULL && prunes)
		return "prune needs --before TIME";
	if (!w->json && exports)
		return "export needs --json";
	return w->json && (verifies || prunes) ? "verify and prune take no --json" : NULL;
}

static int check_words(const struct words *w, struct cede_error *reterr) {
	bool known = false;

	if (w->verb == NULL)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "a command expected");
	for (size_t i = 0; i < ARRAY_LENGTH(verbs); i++)
		known = known || strcmp(w->verb, verbs[i]) == 0;
	if (!known)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "there is no command %s", w->verb);
	bool wants = strcmp(w->verb, "receipt") == 0 || strcmp(w->verb, "show") == 0;
	if (wants && w->subject == NULL)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "%s needs an id", w->verb);
	if (!wants && w->subject != NULL)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "unexpected argument %s", w->subject);
	const char *wrong = misfit(w);
	return wrong == NULL ? CEDE_OK : CEDE_FAIL(reterr, CEDE_ERR_INPUT, "%s", wrong);
}

/* 1: help. INPUT: bad usage; without a text getopt has said which. */
static int parse(int argc, char **argv, struct words *ret, const char **ret_state,
	struct cede_error *reterr) {
	static const struct option options[] = {{"state", required_argument, NULL, 's'},
		{"checkpoint", required_argument, NULL, 'c'}, {"key", required_argument, NULL, 'k'},
		{"before", required_argument, NULL, 'b'}, {"from", required_argument, NULL, 'f'},
		{"json", no_argument, NULL, 'j'}, {"help", no_argument, NULL, 'h'}, {0}};
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 's')
			*ret_state = optarg;
		else if (c == 'c')
			ret->checkpoint = optarg;
		else if (c == 'k')
			ret->key = optarg;
		else if (c == 'b')
			ret->before = optarg;
		else if (c == 'f' &&
			parse_u64(slice_str(optarg), 1, INT64_MAX, &ret->from, NULL) == CEDE_OK)
			continue;
		else if (c == 'j')
			ret->json = true;
		else
			return c == 'h' ? 1
				: c == 'f'
				? CEDE_FAIL(reterr, CEDE_ERR_INPUT,
					  "--from %s: a number of an event expected", optarg)
				: CEDE_ERR_INPUT;
	}
	if (optind < argc)
		ret->verb = argv[optind++];
	if (optind < argc)
		ret->subject = argv[optind++];
	if (optind < argc)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "unexpected argument %s", argv[optind]);
	return check_words(ret, reterr);
}

/* The agent is the one writer: while it runs this is refused. */
static int prune(const struct words *w, struct cede_error *reterr) {
	CLEANUP(ledger_closep) struct ledger *ledger = NULL;
	struct ledger_prune done;
	int64_t before;

	int r = parse_time(slice_str(w->before), &before, reterr);
	if (r < 0) {
		cede_error_within(reterr, "--before %s", w->before);
		return r;
	}
	if (access(w->state, F_OK) < 0)
		return CEDE_FAIL_SYS(reterr, "%s", w->state);
	CEDE_TRY(ledger_unreadable(ledger_open(w->state, &ledger, reterr)));
	CEDE_TRY(ledger_unreadable(ledger_prune(ledger, before, clock_wall_ns(), &done, reterr)));
	(void)printf(
		"ledger: pruned %llu captures and %llu bundles; %llu events were emptied, their hashes stay; all up to event %llu, which the agency has acknowledged\n",
		(unsigned long long)done.captures, (unsigned long long)done.bundles,
		(unsigned long long)done.events, (unsigned long long)done.covered);
	return fflush(stdout) == 0 ? 0 : CEDE_FAIL_SYS(reterr, "write");
}

static int show(const struct words *w, struct cede_error *reterr) {
	CLEANUP(ledger_closep) struct ledger *ledger = NULL;

	CEDE_TRY(ledger_open_reader(w->state, &ledger, reterr));
	if (strcmp(w->verb, "list") == 0)
		return list(ledger, w->json, reterr);
	if (strcmp(w->verb, "events") == 0)
		return events(ledger, w->json, reterr);
	if (strcmp(w->verb, "export") == 0)
		return ledger_export(ledger, w->from == 0 ? 1 : w->from, reterr);
	if (strcmp(w->verb, "show") == 0)
		return ledger_show(ledger, &w->id, w->json, reterr);
	return receipt(ledger, w, reterr);
}

static int run(struct words *w, struct cede_error *reterr) {
	if (strcmp(w->verb, "prune") == 0)
		return prune(w, reterr);
	if (strcmp(w->verb, "verify") == 0)
		return verify(w, reterr);
	if (w->subject != NULL)
		CEDE_TRY(id_parse(slice_str(w->subject), &w->id, reterr));
	return ledger_unreadable(show(w, reterr));
}

int cmd_ledger(int argc, char **argv) {
	struct words words = {0};
	struct cede_error err = {0};
	const char *state = NULL;

	int help = parse(argc, argv, &words, &state, &err);
	if (help < 0 && err.text[0] != 0)
		(void)fprintf(stderr, "cede ledger: %s\n", err.text);
	if (help != 0) {
		(void)fputs(usage, help > 0 ? stdout : stderr);
		return help > 0 ? 0 : 2;
	}
	int r = agent_config_state(state, NULL, &words.state, &err);
	if (r == CEDE_OK)
		r = run(&words, &err);
	free(words.state);
	if (r < 0)
		(void)fprintf(stderr, "cede ledger: %s\n", err.text);
	return r >= 0 ? r : r == CEDE_ERR_INPUT ? 2 : 3;
}
