/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/parse.h"
#include "formats/manifest.h"
#include "receiver/audit_cmd.h"
#include "receiver/custody.h"

static const char usage[] =
	"usage: cede-receiver report --store DIR [--opened DIR] [--max-age DURATION] [--json]\n"
	"  Every host that has a folder in the store: its last bundle, its ledger's newest checkpoint, and,\n"
	"  from the newest manifest of it below --opened (what cede-receiver open writes), the serial of its\n"
	"  policy and how old its oldest capture was. Exit status: 0; 1 a host is overdue, or sent a\n"
	"  checkpoint that was refused; 2 bad usage; 3 unreadable.\n";

struct host {
	char name[HOST_ID_MAX + 1];
	int64_t last_ns; /* of its newest bundle's id; 0: none */
	uint64_t bundles;
	uint64_t events; /* of its ledger, as of the newest checkpoint */
	int64_t checkpoint_ns;
	bool refused;
	/* of its newest manifest that was opened */
	int64_t created_ns; /* 0: none */
	uint64_t serial;
	int64_t oldest_ns; /* age of its oldest capture then */
};

struct fleet {
	struct host *hosts;
	size_t count;
	int64_t max_age_ns;
};

static void fleet_done(struct fleet *f) {
	free(f->hosts);
}

static DIR *list_of(int dir) {
	CLEANUP(fd_closep) int again = -1;

	if (file_open_beneath(dir, ".", O_RDONLY | O_DIRECTORY, &again, NULL) < 0)
		return NULL;
	DIR *list = fdopendir(again);
	if (list != NULL)
		(void)CEDE_TAKE_FD(again);
	return list;
}

static void count_bundles(struct host *h, int dir, unsigned depth) {
	CLEANUP(dir_closep) DIR *list = list_of(dir);
	const struct dirent *entry;
	struct id id;

	while (list != NULL && (entry = readdir(list)) != NULL) {
		CLEANUP(fd_closep) int below = -1;
		size_t n = strlen(entry->d_name);
		if (depth == 3 && n == ID_TEXT_SIZE - 1 + 4 &&
			strcmp(entry->d_name + n - 4, ".cms") == 0 &&
			id_parse(slice_of(entry->d_name, n - 4), &id, NULL) == CEDE_OK) {
			h->bundles++;
			h->last_ns = id_time_ns(&id) > h->last_ns ? id_time_ns(&id) : h->last_ns;
		} else if (depth < 3 && entry->d_name[0] != '.' &&
			file_open_beneath(dir, entry->d_name, O_RDONLY | O_DIRECTORY, &below,
				NULL) == CEDE_OK) {
			count_bundles(h, below, depth + 1);
		}
	}
}

static int look_at_host(struct fleet *f, int store, struct custody *custody, const char *name,
	struct cede_error *reterr) {
	CLEANUP(fd_closep) int dir = -1;
	struct checkpoint newest;
	struct stat st;
	bool there = false;

	if (!host_id_valid(slice_str(name)) ||
		file_open_beneath(store, name, O_RDONLY | O_DIRECTORY, &dir, NULL) < 0)
		return CEDE_OK;
	struct host *list = reallocarray(f->hosts, f->count + 1, sizeof *list);
	if (list == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	f->hosts = list;
	struct host *h = &list[f->count++];
	*h = (struct host){.last_ns = 0};
	(void)snprintf(h->name, sizeof h->name, "%.*s", HOST_ID_MAX, name);
	count_bundles(h, dir, 0);
	CEDE_TRY(custody_newest(custody, name, &newest, &there, reterr));
	h->events = there ? newest.size : 0;
	h->checkpoint_ns = there ? newest.at_ns : 0;
	h->refused = fstatat(dir, CUSTODY_REFUSED, &st, AT_SYMLINK_NOFOLLOW) == 0 && st.st_size > 0;
	return CEDE_OK;
}

static int look_at_store(struct fleet *f, const char *path, struct cede_error *reterr) {
	CLEANUP(fd_closep) int store = -1;
	CLEANUP(dir_closep) DIR *list = NULL;
	struct custody *custody = NULL;
	const struct dirent *entry;
	int r = CEDE_OK;

	CEDE_TRY(file_open_dir(AT_FDCWD, path, &store, reterr));
	CEDE_TRY(custody_new(store, &custody, reterr));
	list = list_of(store);
	while (r == CEDE_OK && list != NULL && (entry = readdir(list)) != NULL)
		if (entry->d_name[0] != '.')
			r = look_at_host(f, store, custody, entry->d_name, reterr);
	custody_free(custody);
	return r;
}

/* ---- manifests */

static void take_manifest(struct fleet *f, const struct manifest *m) {
	int64_t oldest = m->created_ns;

	for (size_t i = 0; i < m->count; i++)
		if (m->entries[i].mtime_ns < oldest)
			oldest = m->entries[i].mtime_ns;
	for (size_t i = 0; i < f->count; i++) {
		struct host *h = &f->hosts[i];
		if (!slice_is(m->host, h->name) || m->created_ns <= h->created_ns)
			continue;
		h->created_ns = m->created_ns;
		h->serial = m->policy_serial;
		h->oldest_ns = m->created_ns - oldest;
	}
}

static int look_at_opened(struct fleet *f, const char *path, struct cede_error *reterr) {
	static const char ending[] = ".manifest.json";
	CLEANUP(fd_closep) int dir = -1;
	CLEANUP(dir_closep) DIR *list = NULL;
	const struct dirent *entry;

	CEDE_TRY(file_open_dir(AT_FDCWD, path, &dir, reterr));
	list = list_of(dir);
	while (list != NULL && (entry = readdir(list)) != NULL) {
		CLEANUP(buf_done) struct buf text = BUF_INIT(MANIFEST_SIZE_MAX);
		CLEANUP(manifest_read_freep) struct manifest_read *m = NULL;
		size_t n = strlen(entry->d_name);
		if (n <= sizeof ending || strcmp(entry->d_name + n - (sizeof ending - 1), ending) != 0)
			continue;
		CEDE_TRY(file_load(dir, entry->d_name, &text, reterr));
		int r = manifest_read(buf_slice(&text), &m, reterr);
		if (r < 0) {
			cede_error_within(reterr, "%s", entry->d_name);
			return r;
		}
		take_manifest(f, manifest_peek(m));
	}
	return CEDE_OK;
}

/* ---- printing */

static int by_name(const void *x, const void *y) {
	const struct host *a = x;
	const struct host *b = y;

	return strcmp(a->name, b->name);
}

static bool is_overdue(const struct fleet *f, const struct host *h) {
	return f->max_age_ns > 0 && h->created_ns > 0 && h->oldest_ns > f->max_age_ns;
}

static void time_or_dash(int64_t ns, char out[CLOCK_TEXT_SIZE]) {
	if (ns > 0)
		clock_text(ns, out);
	else
		(void)snprintf(out, CLOCK_TEXT_SIZE, "-");
}

static int print_json(const struct fleet *f) {
	json_t *hosts = json_array();
	char last[CLOCK_TEXT_SIZE], checkpoint[CLOCK_TEXT_SIZE], opened[CLOCK_TEXT_SIZE];

	for (size_t i = 0; i < f->count; i++) {
		const struct host *h = &f->hosts[i];
		time_or_dash(h->last_ns, last);
		time_or_dash(h->checkpoint_ns, checkpoint);
		time_or_dash(h->created_ns, opened);
		(void)json_array_append_new(hosts,
			json_pack("{s:s, s:s, s:I, s:I, s:s, s:b, s:s, s:I, s:f, s:b}", "host",
				h->name, "last_bundle", last, "bundles", (json_int_t)h->bundles,
				"ledger_events", (json_int_t)h->events, "checkpoint", checkpoint,
				"refused_checkpoints", (int)h->refused, "opened", opened,
				"policy_serial", (json_int_t)h->serial, "oldest_plaintext_seconds",
				(double)h->oldest_ns / (double)NS_PER_SECOND, "overdue",
				(int)is_overdue(f, h)));
	}
	json_t *all = json_pack("{s:s, s:o}", "schema", "cede-report/1", "hosts", hosts);
	int r = all == NULL ? -1 : json_dumpf(all, stdout, JSON_COMPACT);
	json_decref(all);
	return r == 0 && putchar('\n') != EOF ? 0 : -1;
}

static void print_table(const struct fleet *f) {
	char last[CLOCK_TEXT_SIZE], checkpoint[CLOCK_TEXT_SIZE];

	(void)printf("%-24s %-20s %8s %10s %-20s %6s %9s  %s\n", "HOST", "LAST BUNDLE", "BUNDLES",
		"EVENTS", "CHECKPOINT", "POLICY", "OLDEST", "");
	for (size_t i = 0; i < f->count; i++) {
		const struct host *h = &f->hosts[i];
		time_or_dash(h->last_ns, last);
		time_or_dash(h->checkpoint_ns, checkpoint);
		char serial[24] = "-", oldest[24] = "-";
		if (h->created_ns > 0) {
			(void)snprintf(serial, sizeof serial, "%" PRIu64, h->serial);
			(void)snprintf(oldest, sizeof oldest, "%" PRId64 "s",
				h->oldest_ns / NS_PER_SECOND);
		}
		(void)printf("%-24s %-20s %8" PRIu64 " %10" PRIu64 " %-20s %6s %9s  %s%s\n",
			h->name, last, h->bundles, h->events, checkpoint, serial, oldest,
			is_overdue(f, h) ? "OVERDUE " : "", h->refused ? "REFUSED-CHECKPOINT" : "");
	}
}

static int run(const char *store, const char *opened, const char *max_age, bool json,
	struct cede_error *reterr) {
	CLEANUP(fleet_done) struct fleet f = {0};
	bool findings = false;

	if (max_age != NULL && parse_duration(slice_str(max_age), &f.max_age_ns, reterr) < 0)
		return CEDE_ERR_INPUT;
	CEDE_TRY(look_at_store(&f, store, reterr));
	if (opened != NULL)
		CEDE_TRY(look_at_opened(&f, opened, reterr));
	if (f.count > 1)
		qsort(f.hosts, f.count, sizeof *f.hosts, by_name);
	if (json && print_json(&f) < 0)
		return CEDE_FAIL(reterr, CEDE_ERR_IO, "write the report");
	if (!json)
		print_table(&f);
	for (size_t i = 0; i < f.count; i++)
		findings = findings || f.hosts[i].refused || is_overdue(&f, &f.hosts[i]);
	return fflush(stdout) == 0 ? findings : CEDE_FAIL_SYS(reterr, "write the report");
}

int report_cmd(int argc, char **argv) {
	static const struct option options[] = {{"store", required_argument, NULL, 's'},
		{"opened", required_argument, NULL, 'o'}, {"max-age", required_argument, NULL, 'm'},
		{"json", no_argument, NULL, 'j'}, {"help", no_argument, NULL, 'h'}, {0}};
	const char *store = NULL;
	const char *opened = NULL;
	const char *max_age = NULL;
	struct cede_error err = {0};
	bool json = false;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 's') {
			store = optarg;
		} else if (c == 'o') {
			opened = optarg;
		} else if (c == 'm') {
			max_age = optarg;
		} else if (c == 'j') {
			json = true;
		} else {
			(void)fputs(usage, c == 'h' ? stdout : stderr);
			return c == 'h' ? 0 : 2;
		}
	}
	if (store == NULL || optind != argc) {
		(void)fputs(usage, stderr);
		return 2;
	}
	int r = run(store, opened, max_age, json, &err);
	if (r >= 0)
		return r;
	(void)fprintf(stderr, "cede-receiver report: %s\n", err.text);
	return r == CEDE_ERR_INPUT ? 2 : 3;
}
