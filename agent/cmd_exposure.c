/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/cmd_exposure.h"

#include <fcntl.h>
#include <getopt.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/config.h"
#include "agent/exposure/page.h"
#include "agent/exposure/print.h"
#include "agent/ledger/epoch.h"
#include "base/check.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/escape.h"
#include "base/file.h"
#include "base/parse.h"
#include "certs/key.h"
#include "formats/detail.h"

static const char usage[] =
	"usage: cede exposure (--from TIME --to TIME | --at TIME)\n"
	"                     [--config AGENT | --state DIR [--host ID]] [--source NAME]\n"
	"                     [--json | --csv] [--html FILE] [--no-names]\n"
	"Every capture that was on this host in the span: in which form, from when to\n"
	"when; how many at once; what can't be excluded. Times as 2026-11-25T13:00:00Z.\n"
	"  --config AGENT  instead of " AGENT_CONFIG_DEFAULT "\n"
	"  --at TIME       what was here in the clear and sealed at that moment\n"
	"  --html FILE     one self-contained page to print (besides what is printed here)\n"
	"  --no-names      ids alone: names of files can be personal data\n"
	"exit status: 0 nothing was in the clear and nothing is left open; 1 something\n"
	"was, or is; 2 bad usage; 3 unreadable\n";

enum word { FROM = 1, TO, AT, CONFIG, STATE, HOST, SOURCE, JSON, CSV, HTML, NO_NAMES, HELP };

struct words {
	const char *from, *to, *at, *config, *state, *host, *source, *html;
	bool json, csv, no_names;
};

static bool take_word(struct words *w, int c) {
	const char **texts[] = {[FROM] = &w->from,
		[TO] = &w->to,
		[AT] = &w->at,
		[CONFIG] = &w->config,
		[STATE] = &w->state,
		[HOST] = &w->host,
		[SOURCE] = &w->source,
		[HTML] = &w->html};
	bool *flags[] = {[JSON] = &w->json, [CSV] = &w->csv, [NO_NAMES] = &w->no_names};

	if (c > 0 && (size_t)c < ARRAY_LENGTH(texts) && texts[c] != NULL)
		*texts[c] = optarg;
	else if (c > 0 && (size_t)c < ARRAY_LENGTH(flags) && flags[c] != NULL)
		*flags[c] = true;
	else
		return false;
	return true;
}

/* The span; --at is one nanosecond. */
static int span_of(const struct words *w, struct report *r, struct cede_error *reterr) {
	const char *from = w->at != NULL ? w->at : w->from;

	int code = parse_time(slice_str(from), &r->from_ns, reterr);
	if (code < 0) {
		cede_error_within(reterr, w->at != NULL ? "--at" : "--from");
		return code;
	}
	r->to_ns = r->from_ns + 1;
	if (w->at != NULL)
		return CEDE_OK;
	code = parse_time(slice_str(w->to), &r->to_ns, reterr);
	if (code < 0)
		cede_error_within(reterr, "--to");
	else if (r->to_ns <= r->from_ns)
		code = CEDE_FAIL(reterr, CEDE_ERR_INPUT, "--to must be later than --from");
	return code;
}

/* Where the ledger is, and whose it is. */
static int place_of(const struct words *w, char **ret_state, char host[HOST_ID_MAX + 1],
	struct cede_error *reterr) {
	CLEANUP(agent_config_freep) struct agent_config *config = NULL;
	CLEANUP(cert_freep) X509 *cert = NULL;

	(void)snprintf(host, HOST_ID_MAX + 1, "%s", w->host != NULL ? w->host : "-");
	if (w->state != NULL)
		return agent_config_state(w->state, NULL, ret_state, reterr);
	CEDE_TRY(agent_config_read(
		w->config != NULL ? w->config : AGENT_CONFIG_DEFAULT, &config, reterr));
	*ret_state = CEDE_TAKE(config->state);
	if (w->host == NULL && cert_load(AT_FDCWD, config->certificate, &cert, NULL) == CEDE_OK)
		(void)!cert_host_id(cert, host, HOST_ID_MAX + 1, NULL); /* else it stays unnamed */
	return CEDE_OK;
}

/* ---- the page, with the digest of the list */

static ssize_t digest_write(void *cookie, const char *data, size_t n) {
	return EVP_DigestUpdate(cookie, data, n) == 1 ? (ssize_t)n : -1;
}

static int digest_csv(struct ledger *ledger, const struct report *r, struct print_options o,
	uint8_t ret[32], struct cede_error *reterr) {
	EVP_MD_CTX *md = EVP_MD_CTX_new();
	CLEANUP(file_closep) FILE *to = NULL;
	int code = md == NULL || EVP_DigestInit_ex2(md, EVP_sha256(), NULL) != 1
		? CEDE_FAIL(reterr, CEDE_ERR_CRYPTO, "SHA-256 failed")
		: CEDE_OK;

	if (code == CEDE_OK)
		to = fopencookie(md, "w", (cookie_io_functions_t){.write = digest_write});
	o.to = to;
	if (code == CEDE_OK && to == NULL)
		code = CEDE_FAIL_MEMORY(reterr);
	if (code == CEDE_OK)
		code = print_csv(ledger, r, &o, reterr);
	if (code == CEDE_OK && (fflush(to) != 0 || EVP_DigestFinal_ex(md, ret, NULL) != 1))
		code = CEDE_FAIL(reterr, CEDE_ERR_CRYPTO, "SHA-256 failed");
	EVP_MD_CTX_free(md);
	return code;
}

static int write_page(struct ledger *ledger, const struct report *r, struct print_options o,
	const char *path, struct cede_error *reterr) {
	CLEANUP(fd_closep) int fd = -1;
	CLEANUP(file_closep) FILE *to = NULL;
	uint8_t csv[32];

	CEDE_TRY(digest_csv(ledger, r, o, csv, reterr));
	CEDE_TRY(file_create_new(path, 0600, &fd, reterr));
	to = fdopen(fd, "w");
	if (to == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	(void)CEDE_TAKE_FD(fd);
	o.to = to;
	return page_print(ledger, r, &o, csv, reterr);
}

/* ---- the source that is asked for */

struct known { /* sources of the ledger */
	struct slice wanted;
	bool there;
	char names[512];
};

static int take_source(void *ctx, struct slice name, struct cede_error *reterr) {
	struct known *k = ctx;
	size_t at = strlen(k->names);

	(void)reterr;
	k->there = k->there || slice_equal(name, k->wanted);
	if (at + 4 < sizeof k->names) {
		(void)snprintf(k->names + at, sizeof k->names - at, at > 0 ? ", " : " ");
		at += strlen(k->names + at);
		escape_word(name, k->names + at, sizeof k->names - at);
	}
	return CEDE_OK;
}

/* One whose directory was never there is told of in an event alone. */
static int take_missing(void *ctx, const struct ledger_row *row, struct cede_error *reterr) {
	struct slice name;

	if (row->kind != LEDGER_SOURCE_MISSING || !detail_find(row->detail, "source", &name))
		return CEDE_OK;
	struct known *k = ctx;
	(void)reterr;
	k->there = k->there || slice_equal(epoch_source_name(name), k->wanted);
	return CEDE_OK;
}

/* A name that was mistyped must not look like a source of which nothing was here. */
static int must_know(struct ledger *ledger, struct slice source, struct cede_error *reterr) {
	struct known k = {.wanted = source};

	if (source.len == 0)
		return CEDE_OK;
	CEDE_TRY(ledger_unreadable(ledger_sources(ledger, take_source, &k, reterr)));
	if (!k.there)
		CEDE_TRY(ledger_unreadable(ledger_watch_events(ledger, take_missing, &k, reterr)));
	return k.there ? CEDE_OK
		       : CEDE_FAIL(reterr, CEDE_ERR_INPUT,
				 "--source %.*s: the ledger knows no such source; it has:%s",
				 (int)source.len, (const char *)source.data,
				 k.names[0] != 0 ? k.names : " none");
}

static int report(const struct words *w, struct report *r, struct cede_error *reterr) {
	CLEANUP(ledger_closep) struct ledger *ledger = NULL;
	CLEANUP(freep) char *state = NULL;
	char host[HOST_ID_MAX + 1];
	struct print_options o = {.to = stdout,
		.source = w->source != NULL ? slice_str(w->source) : SLICE_NONE,
		.names = !w->no_names,
		.host = host};

	CEDE_TRY(span_of(w, r, reterr));
	CEDE_TRY(place_of(w, &state, host, reterr));
	CEDE_TRY(ledger_unreadable(ledger_open_reader(state, &ledger, reterr)));
	CEDE_TRY(ledger_unreadable(ledger_read_begin(ledger, reterr)));
	CEDE_TRY(must_know(ledger, o.source, reterr));
	CEDE_TRY(ledger_unreadable(report_make(ledger, o.source, r, reterr)));
	if (w->html != NULL)
		CEDE_TRY(ledger_unreadable(write_page(ledger, r, o, w->html, reterr)));
	CEDE_TRY(ledger_unreadable(w->json ? print_json_lines(ledger, r, &o, reterr)
			: w->csv           ? print_csv(ledger, r, &o, reterr)
					   : print_table(ledger, r, &o, reterr)));
	return fflush(stdout) == 0 ? CEDE_OK : CEDE_FAIL_SYS(reterr, "write the report");
}

static bool has_gap(const struct report *r) {
	for (size_t i = 0; i < r->note_count; i++)
		if (r->notes[i].kind != NOTE_NO_GUARD)
			return true;
	return false;
}

int cmd_exposure(int argc, char **argv) {
	static const struct option options[] = {{"from", required_argument, NULL, FROM},
		{"to", required_argument, NULL, TO}, {"at", required_argument, NULL, AT},
		{"config", required_argument, NULL, CONFIG},
		{"state", required_argument, NULL, STATE}, {"host", required_argument, NULL, HOST},
		{"source", required_argument, NULL, SOURCE}, {"json", no_argument, NULL, JSON},
		{"csv", no_argument, NULL, CSV}, {"html", required_argument, NULL, HTML},
		{"no-names", no_argument, NULL, NO_NAMES}, {"help", no_argument, NULL, HELP}, {0}};
	CLEANUP(freep) struct report *r = calloc(1, sizeof *r);
	struct cede_error err = {0};
	struct words w = {0};
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (take_word(&w, c))
			continue;
		(void)fputs(usage, c == HELP ? stdout : stderr);
		return c == HELP ? 0 : 2;
	}
	bool span = w.at != NULL ? w.from == NULL && w.to == NULL : w.from != NULL && w.to != NULL;
	if (!span || (w.config != NULL && w.state != NULL) || (w.json && w.csv) || optind != argc) {
		(void)fprintf(stderr, "cede exposure: %s\n%s",
			optind != argc            ? "an unexpected argument"
				: w.json && w.csv ? "either --json or --csv, not both"
				: !span           ? "either --at, or --from and --to"
						  : "either --state or --config, not both",
			usage);
		return 2;
	}
	int code = r == NULL ? CEDE_FAIL_MEMORY(&err) : report(&w, r, &err);
	if (r != NULL)
		report_done(r);
	if (code < 0) {
		(void)fprintf(stderr, "cede exposure: %s\n", err.text);
		return code == CEDE_ERR_INPUT ? 2 : 3;
	}
	return r->plain > 0 || has_gap(r) ? 1 : 0;
}
