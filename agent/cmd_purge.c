/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/cmd_purge.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "agent/purge/purge.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/parse.h"

static const char usage[] =
	"usage: cede purge --policy POLICY --config AGENT --certificate FILE --reason TEXT --operator NAME\n"
	"                  (--ledger FILE [--ledger-to DESTINATION] | --drop-ledger) --yes\n"
	"                  [--limit DURATION] [--destroy-unsent] [--destroy-held] [--html FILE]\n"
	"                  [--unsigned] [--courier PATH]\n"
	"Takes this host out of service: hands over what is left, then wipes the sources, the spool, the\n"
	"ledger and the host's key, and signs a certificate of it. Stop the cameras and the agent first.\n"
	"  --certificate FILE  the signed certificate; FILE.details lists what it speaks of, by id\n"
	"  --html FILE         the certificate as a page to print\n"
	"  --reason, --operator  why, and who does it: they stand in the certificate\n"
	"  --ledger FILE       a copy of the ledger, sealed to the agency (to DESTINATION's keys)\n"
	"  --drop-ledger       wipe the ledger and keep no copy\n"
	"  --limit DURATION    how long the hand-over may take (default 1h)\n"
	"  --destroy-unsent    wipe also what could not be handed over; without it nothing more is wiped\n"
	"  --destroy-held      wipe also what a legal hold keeps; without it nothing more is wiped\n"
	"  --yes               really do it\n";

enum word {
	POLICY = 1,
	CONFIG,
	CERTIFICATE,
	HTML,
	REASON,
	OPERATOR,
	LEDGER,
	LEDGER_TO,
	DROP_LEDGER,
	LIMIT,
	DESTROY_UNSENT,
	DESTROY_HELD,
	UNSIGNED,
	COURIER,
	YES,
	HELP
};

struct words {
	struct purge_options o;
	bool drop_ledger, yes;
	const char *limit;
};

static bool take_word(struct words *w, int c) {
	switch (c) {
	case POLICY:
		w->o.policy = optarg;
		return true;
	case CONFIG:
		w->o.config = optarg;
		return true;
	case CERTIFICATE:
		w->o.certificate = optarg;
		return true;
	case HTML:
		w->o.html = optarg;
		return true;
	case REASON:
		w->o.reason = optarg;
		return true;
	case OPERATOR:
		w->o.operator= optarg;
		return true;
	case LEDGER:
		w->o.ledger_copy = optarg;
		return true;
	case LEDGER_TO:
		w->o.ledger_to = optarg;
		return true;
	case LIMIT:
		w->limit = optarg;
		return true;
	case COURIER:
		w->o.courier = optarg;
		return true;
	case DROP_LEDGER:
		return w->drop_ledger = true;
	case DESTROY_UNSENT:
		return w->o.destroy_unsent = true;
	case DESTROY_HELD:
		return w->o.destroy_held = true;
	case UNSIGNED:
		return w->o.is_unsigned = true;
	case YES:
		return w->yes = true;
	default:
		return false;
	}
}

/* It will stand in a signed statement. */
static bool is_line(const char *text) {
	size_t n = text == NULL ? 0 : strlen(text);

	for (size_t i = 0; i < n; i++)
		if (text[i] < ' ' || text[i] > '~')
			return false;
	return n > 0 && n <= 200 && text[0] != ' ' && text[n - 1] != ' ';
}

/* What is missing, or NULL. */
static const char *missing(const struct words *w) {
	if (w->o.policy == NULL || w->o.config == NULL || w->o.certificate == NULL)
		return "--policy, --config and --certificate are needed";
	if (!is_line(w->o.reason) || !is_line(w->o.operator))
		return "--reason and --operator: 1 to 200 characters of printable ASCII each";
	if ((w->o.ledger_copy != NULL) == w->drop_ledger)
		return "either --ledger FILE, or --drop-ledger";
	if (!w->yes)
		return "it wipes everything: see what is here with cede status and cede policy dry-run, then add --yes";
	return NULL;
}

/* ", 3 captures ...", if there are any. */
static void say_count(uint64_t n, const char *what) {
	if (n > 0)
		(void)printf(", %llu %s", (unsigned long long)n, what);
}

static void say_findings(const struct purge_left *left, const char *certificate) {
	(void)printf("cede purge: done, with findings");
	say_count(left->unsent, "captures destroyed that the agency does not have");
	say_count(left->held, "captures destroyed that a hold kept");
	say_count(left->bundles, "sealed bundles destroyed without a receipt");
	if (left->remains[0] != 0)
		(void)printf(", remains: %s%s", left->remains,
			strlen(left->remains) + 1 == sizeof left->remains ? "..." : "");
	say_count(left->earlier_runs,
		"earlier runs cut off, whose wipes are not in this certificate");
	(void)printf("; certificate: %s\n", certificate);
}

static int end(enum purge_end how, const struct purge_left *left, const struct words *w) {
	switch (how) {
	case PURGE_CLEAN:
		(void)printf("cede purge: everything was handed over and wiped; certificate: %s\n",
			w->o.certificate);
		return 0;
	case PURGE_FINDINGS:
		say_findings(left, w->o.certificate);
		return 1;
	case PURGE_STOPPED:
		(void)fprintf(stderr,
			"cede purge: stopped, nothing more was wiped: %llu captures and %llu sealed bundles could not be handed over (cede ledger list names them), %llu more files that the policy wants were left alone (cede policy dry-run says why): mend that and run it again, or add --destroy-unsent; %llu captures are under a legal hold: have it lifted, or add --destroy-held\n",
			(unsigned long long)left->unsent, (unsigned long long)left->bundles,
			(unsigned long long)left->refused, (unsigned long long)left->held);
		return 1;
	}
	return 3;
}

int cmd_purge(int argc, char **argv) {
	static const struct option options[] = {{"policy", required_argument, NULL, POLICY},
		{"config", required_argument, NULL, CONFIG},
		{"certificate", required_argument, NULL, CERTIFICATE},
		{"html", required_argument, NULL, HTML}, {"reason", required_argument, NULL, REASON},
		{"operator", required_argument, NULL, OPERATOR},
		{"ledger", required_argument, NULL, LEDGER},
		{"ledger-to", required_argument, NULL, LEDGER_TO},
		{"drop-ledger", no_argument, NULL, DROP_LEDGER},
		{"limit", required_argument, NULL, LIMIT},
		{"destroy-unsent", no_argument, NULL, DESTROY_UNSENT},
		{"destroy-held", no_argument, NULL, DESTROY_HELD},
		{"unsigned", no_argument, NULL, UNSIGNED},
		{"courier", required_argument, NULL, COURIER}, {"yes", no_argument, NULL, YES},
		{"help", no_argument, NULL, HELP}, {0}};
	struct words w = {.limit = "1h"};
	struct purge_left left = {0};
	struct cede_error err = {0};
	enum purge_end how;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (take_word(&w, c))
			continue;
		(void)fputs(usage, c == HELP ? stdout : stderr);
		return c == HELP ? 0 : 2;
	}
	const char *wrong = optind != argc ? "too many words" : missing(&w);
	if (wrong == NULL && parse_duration(slice_str(w.limit), &w.o.limit_ns, &err) < 0)
		wrong = "--limit: a duration like 30m expected";
	if (wrong != NULL) {
		(void)fprintf(stderr, "cede purge: %s\n%s", wrong, usage);
		return 2;
	}
	int r = purge_run(&w.o, &how, &left, &err);
	if (r == CEDE_OK)
		return end(how, &left, &w);
	(void)fprintf(stderr, "cede purge: %s\n", err.text);
	return r == CEDE_ERR_INPUT || r == CEDE_ERR_REFUSED ? 2 : 3;
}
