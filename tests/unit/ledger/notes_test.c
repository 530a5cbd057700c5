/* SPDX-License-Identifier: Apache-2.0
 * What an exposure report says of the times in which nobody watched, by ledgers that tell of them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/exposure/report.h"
#include "agent/ledger/ledger_internal.h"
#include "base/cleanup.h"
#include "tests/unit/ledger/tool.h"

#define S INT64_C(1000000000)

static void event(void **state, enum ledger_event kind, int64_t at_s, const char *detail) {
	begin(of(state));
	assert_int_equal(ledger_event(of(state), kind, NULL, NOW + at_s * S, detail, NULL), CEDE_OK);
	commit(of(state));
}

static void gap(void **state, int64_t at_s) {
	begin(of(state));
	assert_int_equal(ledger_gap(of(state), NOW + at_s * S, NULL), CEDE_OK);
	commit(of(state));
}

static void free_report(struct report **r) {
	report_done(*r);
	free(*r);
}

static struct report *report_of(void **state, const char *source, int64_t from_s, int64_t to_s) {
	struct report *r = calloc(1, sizeof *r);
	struct cede_error err = {0};

	assert_non_null(r);
	r->from_ns = NOW + from_s * S;
	r->to_ns = NOW + to_s * S;
	assert_int_equal(report_make(of(state), slice_str(source), r, &err), CEDE_OK);
	return r;
}

/* "agent-down 10-20, guard-open 5-end" of what is no fact alone; "" for nothing. */
static const char *gaps(void **state, const char *source, int64_t from_s, int64_t to_s) {
	CLEANUP(free_report) struct report *r = report_of(state, source, from_s, to_s);
	static char text[2048];
	size_t at = 0;

	text[0] = 0;
	for (size_t i = 0; i < r->note_count; i++) {
		const struct report_note *n = &r->notes[i];
		char from[32] = "ever", to[32] = "end";
		if (!report_note_is_gap(n->kind))
			continue;
		if (n->from_ns != INT64_MIN)
			(void)snprintf(
				from, sizeof from, "%lld", (long long)((n->from_ns - NOW) / S));
		if (n->to_ns != INT64_MAX)
			(void)snprintf(to, sizeof to, "%lld", (long long)((n->to_ns - NOW) / S));
		at += (size_t)snprintf(text + at, sizeof text - at, "%s%s %s-%s",
			at > 0 ? ", " : "", report_note_name(n->kind), from, to);
		assert_true(at < sizeof text);
	}
	return text;
}

static void starts(void **state, int64_t at_s, bool guarded) {
	gap(state, at_s);
	event(state, LEDGER_AGENT_STARTED, at_s, "version=1");
	if (guarded)
		event(state, LEDGER_GUARD_STARTED, at_s, "mode=report");
}

static void stops(void **state, int64_t at_s) {
	event(state, LEDGER_GUARD_LOST, at_s, "cause=agent-stopped");
	event(state, LEDGER_AGENT_STOPPED, at_s, "clean");
}

static void says_nothing_of_what_was_watched(void **state) {
	starts(state, 0, true);
	event(state, LEDGER_CHECKPOINT, 100, "oldest=0");
	assert_string_equal(gaps(state, "", 10, 50), "");
	assert_string_equal(gaps(state, "", -10, 50), "agent-down ever-0, no-guard ever-0");
	assert_string_equal(gaps(state, "", 50, 200), "after-last-event 100-200");
}

/* Commands write to the ledger of an agent that is stopped; a newer version does before it starts. */
static void counts_the_whole_stop(void **state) {
	starts(state, 0, true);
	stops(state, 10);
	event(state, LEDGER_LEDGER_PRUNED, 50, "before=0 captures=0");
	event(state, LEDGER_LEDGER_MIGRATED, 89, "from=1");
	event(state, LEDGER_KEY_CHANGED, 90, "role=ledger");
	starts(state, 90, true);
	event(state, LEDGER_CHECKPOINT, 100, "oldest=0");
	assert_string_equal(gaps(state, "", 20, 30), "agent-down 10-90, guard-open 10-90");
	assert_string_equal(gaps(state, "", 91, 95), "");
}

static void counts_from_the_last_that_the_agent_wrote(void **state) {
	starts(state, 0, true);
	event(state, LEDGER_CHECKPOINT, 20, "oldest=0");
	event(state, LEDGER_LEDGER_PRUNED, 50, "before=0 captures=0");
	starts(state, 90, true);
	event(state, LEDGER_CHECKPOINT, 100, "oldest=0");
	assert_string_equal(gaps(state, "", 30, 40), "agent-down 20-90");
	assert_string_equal(gaps(state, "", 91, 95), "");
}

/* A ledger of a version whose watch-gap began at whatever came last. */
static void believes_the_stop_rather_than_the_gap(void **state) {
	char detail[100];

	starts(state, 0, true);
	stops(state, 10);
	(void)snprintf(detail, sizeof detail, "cause=agent-down from=%lld until=%lld stop=unclean",
		(long long)(NOW + 80 * S), (long long)(NOW + 90 * S));
	event(state, LEDGER_WATCH_GAP, 90, detail);
	event(state, LEDGER_AGENT_STARTED, 90, "version=1");
	event(state, LEDGER_GUARD_STARTED, 90, "mode=report");
	event(state, LEDGER_CHECKPOINT, 100, "oldest=0");
	assert_string_equal(gaps(state, "", 20, 30), "agent-down 10-90, guard-open 10-90");
}

static void tells_of_each_source(void **state) {
	starts(state, 0, true);
	event(state, LEDGER_SOURCE_MISSING, 10, "source=two cause=unreachable");
	event(state, LEDGER_SOURCE_MISSING, 20, "source=one cause=unreachable");
	event(state, LEDGER_SOURCE_BACK, 30, "source=one");
	event(state, LEDGER_CHECKPOINT, 100, "oldest=0");
	assert_string_equal(gaps(state, "", 40, 50), "source-away 10-end");
	assert_string_equal(gaps(state, "two", 40, 50), "source-away 10-end");
	assert_string_equal(gaps(state, "one", 40, 50), "");
	assert_string_equal(gaps(state, "one", 25, 50), "source-away 20-30");
	event(state, LEDGER_SOURCE_BACK, 100, "source=two");
	assert_string_equal(gaps(state, "", 40, 50), "source-away 10-100");
}

/* A vault's epochs have the source's name. */
static void waits_for_all_places_of_a_source(void **state) {
	starts(state, 0, true);
	event(state, LEDGER_SOURCE_MISSING, 10, "source=one cause=unreachable");
	event(state, LEDGER_SOURCE_MISSING, 20, "source=one cause=unreachable");
	event(state, LEDGER_SOURCE_BACK, 30, "source=one");
	event(state, LEDGER_CHECKPOINT, 100, "oldest=0");
	assert_string_equal(gaps(state, "", 40, 50), "source-away 10-end");
	event(state, LEDGER_SOURCE_BACK, 100, "source=one");
	assert_string_equal(gaps(state, "", 40, 50), "source-away 10-100");
}

/* What is away is said again after a start, and when another policy comes into force. */
static void looks_for_sources_anew(void **state) {
	starts(state, 0, true);
	event(state, LEDGER_SOURCE_MISSING, 10, "source=one cause=unreachable");
	event(state, LEDGER_POLICY_LOADED, 20, "policy=p serial=2");
	event(state, LEDGER_SOURCE_MISSING, 30, "source=two cause=unreachable");
	stops(state, 40);
	starts(state, 50, true);
	event(state, LEDGER_CHECKPOINT, 100, "oldest=0");
	assert_string_equal(gaps(state, "", 11, 12), "source-away 10-20");
	assert_string_equal(gaps(state, "", 22, 24), "");
	assert_string_equal(gaps(state, "", 60, 70), "");
}

/* An agent that ended without a word did not say that the guard ended with it. */
static void believes_no_guard_that_was_not_heard_of_again(void **state) {
	starts(state, 0, true);
	event(state, LEDGER_CHECKPOINT, 20, "oldest=0");
	starts(state, 30, false);
	event(state, LEDGER_CHECKPOINT, 40, "oldest=0");
	assert_string_equal(gaps(state, "", 31, 35), "guard-open 30-end");
	event(state, LEDGER_POLICY_LOADED, 50, "policy=p serial=2"); /* it brings a guard back */
	event(state, LEDGER_GUARD_STARTED, 50, "mode=report");
	event(state, LEDGER_CHECKPOINT, 100, "oldest=0");
	assert_string_equal(gaps(state, "", 31, 35), "guard-open 30-50");
	assert_string_equal(gaps(state, "", 51, 99), "");
}

/* ... and a policy that came with the start is none that came later. */
static void takes_the_guard_of_a_start_as_of_the_start(void **state) {
	starts(state, 0, true);
	gap(state, 30);
	event(state, LEDGER_AGENT_STARTED, 30, "version=1");
	event(state, LEDGER_POLICY_LOADED, 30, "policy=p serial=2");
	event(state, LEDGER_GUARD_STARTED, 31, "mode=report");
	event(state, LEDGER_CHECKPOINT, 100, "oldest=0");
	assert_string_equal(gaps(state, "", 30, 99), "agent-down 0-30");
}

/* A program that opens and opens must not push out of the report what nobody saw. */
static void keeps_room_for_gaps(void **state) {
	starts(state, 0, true);
	begin(of(state));
	for (int i = 0; i < 500; i++)
		assert_int_equal(ledger_event(of(state), LEDGER_GUARD_NOTED, NULL, NOW + 10 * S,
					 "pid=1 exe=/bin/cat", NULL),
			CEDE_OK);
	commit(of(state));
	stops(state, 20);
	assert_string_equal(gaps(state, "", 5, 30),
		"agent-down 20-end, guard-open 20-end, after-last-event 20-30");
	CLEANUP(free_report) struct report *r = report_of(state, "", 5, 30);
	assert_int_equal(r->note_count, REPORT_OPENED + 3);
	assert_int_equal(r->notes_left_out, 500 - REPORT_OPENED);
}

static void tells_of_what_was_pruned(void **state) {
	char detail[100];

	starts(state, 0, true);
	(void)snprintf(detail, sizeof detail, "before=%lld captures=7", (long long)(NOW + 40 * S));
	(void)seal(of(state), NULL, 0, false, NULL);
	(void)seal(of(state), NULL, 0, false, NULL);
	assert_int_equal(
		sqlite3_exec(of(state)->db, "DELETE FROM bundle WHERE id = 1", NULL, NULL, NULL),
		SQLITE_OK);
	event(state, LEDGER_LEDGER_PRUNED, 90, detail);
	event(state, LEDGER_CHECKPOINT, 100, "oldest=0");
	assert_string_equal(gaps(state, "", 10, 20), "pruned ever-40");
	assert_string_equal(gaps(state, "", 41, 50), "");
	CLEANUP(free_report) struct report *r = report_of(state, "", 10, 20);
	assert_non_null(strstr(r->notes[0].text, "7 captures"));
}

static void tells_of_a_sealed_bundle_that_was_lost(void **state) {
	struct id id;
	int64_t row;

	starts(state, 0, true);
	(void)seen(of(state), "a.jpg", "", 1, 100, NOW + 900 * S, &row);
	(void)take(of(state), 1, 1000, &row);
	int64_t bundle = seal(of(state), &row, 1, true, &id);
	assert_string_equal(
		gaps(state, "", -5, 5), "agent-down ever-0, no-guard ever-0, after-last-event 0-5");
	abandon(of(state), bundle);
	event(state, LEDGER_CHECKPOINT, 100, "oldest=0");
	assert_non_null(strstr(gaps(state, "", -5, 5), "sealed-lost 0-"));
}

/* ---- what was left alone */

/* "g.jpg too-large 20-end, ..." */
static const char *refused(void **state, const char *source, int64_t from_s, int64_t to_s) {
	CLEANUP(free_report) struct report *r = report_of(state, source, from_s, to_s);
	static char text[1024];
	size_t at = 0;

	text[0] = 0;
	for (size_t i = 0; i < r->refused_count; i++) {
		const struct report_refused *f = &r->refused[i];
		char to[32] = "end";
		if (f->to_ns != INT64_MAX)
			(void)snprintf(to, sizeof to, "%lld", (long long)((f->to_ns - NOW) / S));
		at += (size_t)snprintf(text + at, sizeof text - at, "%s%s %s %lld-%s",
			at > 0 ? ", " : "", f->path, f->reason, (long long)((f->from_ns - NOW) / S),
			to);
		assert_true(at < sizeof text);
	}
	return text;
}

static void refuses(void **state, int64_t at_s, const char *path, const char *reason, int64_t born_s) {
	char detail[200];

	(void)snprintf(detail, sizeof detail, "source=faces reason=%s born=%lld path=%s", reason,
		(long long)(NOW + born_s * S), path);
	event(state, LEDGER_CAPTURE_REFUSED, at_s, detail);
}

static void lists_what_was_refused(void **state) {
	starts(state, 0, true);
	refuses(state, 20, "a%20b.jpg", "too-large", 10);
	event(state, LEDGER_CAPTURE_REFUSED, 30, "source=faces reason=unreadable path=c");
	event(state, LEDGER_CAPTURE_REFUSED, 30, "source=faces reason=symlink path=d");
	event(state, LEDGER_CHECKPOINT, 5000, "oldest=0");
	assert_string_equal(refused(state, "", 5, 9), "c unreadable 0-end");
	assert_string_equal(
		refused(state, "", 12, 15), "c unreadable 0-end, a b.jpg too-large 10-end");
	assert_string_equal(refused(state, "faces", 4000, 4001),
		"c unreadable 0-end, a b.jpg too-large 10-end");
	assert_string_equal(refused(state, "plates", 4000, 4001), "");
	assert_string_equal(gaps(state, "", 12, 15), "refused 0-end");
	assert_string_equal(gaps(state, "plates", 12, 15), "");
}

/* A start tells anew of what is still there: one line for it; what is not told of has gone. */
static void believes_the_next_start(void **state) {
	starts(state, 0, true);
	refuses(state, 20, "stays.jpg", "unmatched", 10);
	refuses(state, 20, "goes.jpg", "hard-link", 10);
	starts(state, 1000, true); /* it ended before it had looked */
	starts(state, 1010, true);
	refuses(state, 1020, "stays.jpg", "unmatched-overdue", 10);
	event(state, LEDGER_CHECKPOINT, 5000, "oldest=0");
	assert_string_equal(refused(state, "", 15, 16),
		"goes.jpg hard-link 10-1010, stays.jpg unmatched-overdue 10-end");
	assert_string_equal(refused(state, "", 1015, 1016), "stays.jpg unmatched-overdue 10-end");
	event(state, LEDGER_PURGE_DONE, 6000, "remains=1");
	event(state, LEDGER_PURGE_DONE, 7000, "remains=0");
	event(state, LEDGER_CHECKPOINT, 8000, "oldest=0");
	assert_string_equal(refused(state, "", 6500, 6501), "stays.jpg unmatched-overdue 10-7000");
	assert_string_equal(refused(state, "", 7500, 7501), "");
}

/* ... as what a policy that had expired kept back: it is a capture from its birth on. */
static void lists_a_capture_once(void **state) {
	struct id id;
	int64_t row;

	starts(state, -100, true);
	refuses(state, -50, "a.jpg", "policy-expired", 0);
	(void)seen(of(state), "a.jpg", "", 1, 100, NOW + 900 * S, &row);
	event(state, LEDGER_CHECKPOINT, 5000, "oldest=0");
	assert_string_equal(refused(state, "", 1, 5), "");
	(void)take(of(state), 1, 1000, &row);
	int64_t bundle = seal(of(state), &row, 1, false, &id);
	receipted(of(state), bundle);
	wiped(of(state), row);
	assert_string_equal(refused(state, "", 1, 5), "");
	assert_string_equal(refused(state, "", 4000, 5000), "");
}

/* ---- what is sealed */

static void lists_a_capture_in_segments_once(void **state) {
	int64_t row;

	starts(state, 0, true);
	(void)seen(of(state), "a.jpg", "", 1, 300, NOW + 900 * S, &row);
	for (uint32_t i = 0; i < 3; i++) {
		struct id id;
		assert_int_equal(take(of(state), 1, 100, &row), 1);
		int64_t bundle = seal(of(state), NULL, 0, true, &id);
		one_segment(of(state), row, bundle, i, 3);
	}
	CLEANUP(free_report) struct report *r = report_of(state, "", -5, 5);
	assert_int_equal(r->sealed, 1);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, bench_open, bench_close)
	const struct CMUnitTest tests[] = {TEST(says_nothing_of_what_was_watched),
		TEST(counts_the_whole_stop), TEST(counts_from_the_last_that_the_agent_wrote),
		TEST(believes_the_stop_rather_than_the_gap), TEST(tells_of_each_source),
		TEST(waits_for_all_places_of_a_source), TEST(looks_for_sources_anew),
		TEST(believes_no_guard_that_was_not_heard_of_again),
		TEST(takes_the_guard_of_a_start_as_of_the_start), TEST(keeps_room_for_gaps),
		TEST(tells_of_what_was_pruned), TEST(tells_of_a_sealed_bundle_that_was_lost),
		TEST(lists_what_was_refused), TEST(believes_the_next_start),
		TEST(lists_a_capture_once), TEST(lists_a_capture_in_segments_once)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
