/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/cmd_doctor.h"

#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "agent/config.h"
#include "agent/doctor/doctor.h"

#define TEXT_COLUMN   21
#define COLUMNS_LEAST 60

static const char usage[] =
	"usage: cede doctor [--policy POLICY] [--config AGENT] [--json] [--offline]\n"
	"                   [--unsigned] [--courier PATH]\n"
	"Looks whether this host can keep cede's promises: storage, room, keys, clock, swap, sandbox,\n"
	"destinations. Each line says ok, weak or broken, and what to do.\n"
	"  --policy POLICY  instead of " AGENT_POLICY_DEFAULT "\n"
	"  --config AGENT   instead of " AGENT_CONFIG_DEFAULT "\n"
	"  --offline        connect to no destination\n"
	"exit status: 0 all ok; 1 something is weak or broken; 2 bad usage or configuration\n";

struct report {
	json_t *findings; /* NULL: as text */
	size_t columns;   /* of the terminal; 0: lines are as long as they are */
	bool failed;
};

/* Words, on lines of at most so many columns; those after the first begin with `indent` spaces.
 * Nothing is broken or shortened where it goes into a file. */
static void print_wrapped(const struct report *r, const char *text, size_t at, size_t indent) {
	while (*text != 0) {
		size_t spaces = strspn(text, " ");
		size_t n = spaces + strcspn(text + spaces, " ");
		if (r->columns > 0 && at > indent && at + n > r->columns) {
			(void)printf("\n%*s", (int)indent, "");
			text += spaces;
			n -= spaces;
			at = indent;
		}
		(void)fwrite(text, 1, n, stdout);
		at += n;
		text += n;
	}
	(void)putchar('\n');
}

static void print_finding(const struct report *r, const struct doctor_finding *f) {
	char line[2048];

	(void)snprintf(
		line, sizeof line, "%s%s%s", f->subject, f->subject[0] != 0 ? ": " : "", f->text);
	cede_plain(line);
	(void)printf("%-7s %-12s ", doctor_verdict_name(f->verdict), f->check);
	print_wrapped(r, line, TEXT_COLUMN, TEXT_COLUMN);
	if (f->mend[0] == 0)
		return;
	(void)printf("%*s", TEXT_COLUMN, "");
	(void)snprintf(line, sizeof line, "-> %s", f->mend);
	cede_plain(line);
	print_wrapped(r, line, TEXT_COLUMN, TEXT_COLUMN + 3);
}

static size_t terminal_columns(void) {
	struct winsize size;

	if (!isatty(STDOUT_FILENO))
		return 0;
	return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col >= COLUMNS_LEAST
		? size.ws_col
		: COLUMNS_LEAST;
}

static void found(void *ctx, const struct doctor_finding *f) {
	struct report *r = ctx;

	if (r->findings != NULL) {
		json_t *o = json_pack("{s:s, s:s, s:s, s:s, s:s}", "check", f->check, "subject",
			f->subject, "verdict", doctor_verdict_name(f->verdict), "text", f->text,
			"mend", f->mend);
		r->failed = o == NULL || json_array_append_new(r->findings, o) < 0 || r->failed;
		return;
	}
	print_finding(r, f);
}

static int print_json(struct report *r, enum doctor_verdict worst) {
	json_t *all = json_pack("{s:s, s:s, s:O}", "schema", "cede-doctor/1", "verdict",
		doctor_verdict_name(worst), "findings", r->findings);

	r->failed = r->failed || all == NULL || json_dumpf(all, stdout, JSON_COMPACT) < 0 ||
		putchar('\n') == EOF;
	json_decref(all);
	return r->failed ? 3 : 0;
}

int cmd_doctor(int argc, char **argv) {
	enum { POLICY = 1, CONFIG, JSON, OFFLINE, UNSIGNED, COURIER, HELP };
	static const struct option options[] = {{"policy", required_argument, NULL, POLICY},
		{"config", required_argument, NULL, CONFIG}, {"json", no_argument, NULL, JSON},
		{"offline", no_argument, NULL, OFFLINE}, {"unsigned", no_argument, NULL, UNSIGNED},
		{"courier", required_argument, NULL, COURIER}, {"help", no_argument, NULL, HELP},
		{0}};
	struct report report = {0};
	struct doctor_options o = {.policy = AGENT_POLICY_DEFAULT,
		.config = AGENT_CONFIG_DEFAULT,
		.ctx = &report,
		.found = found};
	enum doctor_verdict worst = DOCTOR_OK;
	struct cede_error err = {0};
	bool json = false;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case POLICY:
			o.policy = optarg;
			break;
		case CONFIG:
			o.config = optarg;
			break;
		case COURIER:
			o.courier = optarg;
			break;
		case JSON:
			json = true;
			break;
		case OFFLINE:
			o.offline = true;
			break;
		case UNSIGNED:
			o.is_unsigned = true;
			break;
		default:
			(void)fputs(usage, c == HELP ? stdout : stderr);
			return c == HELP ? 0 : 2;
		}
	}
	if (optind != argc) {
		(void)fprintf(stderr, "cede doctor: unexpected argument %s\n%s", argv[optind], usage);
		return 2;
	}
	report.findings = json ? json_array() : NULL;
	report.columns = terminal_columns();
	int r = doctor_run(&o, &worst, &err);
	if (r < 0)
		(void)fprintf(stderr, "cede doctor: %s\n", err.text);
	int code = r == CEDE_ERR_INPUT || r == CEDE_ERR_REFUSED ? 2
		: r < 0                                         ? 3
		: json                                          ? print_json(&report, worst)
								: 0;
	json_decref(report.findings);
	return code != 0 ? code : worst == DOCTOR_OK ? 0 : 1;
}
