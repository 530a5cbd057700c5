/* SPDX-License-Identifier: Apache-2.0
 * The SQL of the ledger; included by store.c alone. */
#pragma once

#include "agent/ledger/ledger_internal.h"

#define CAPTURE_COLUMNS                                                                      \
	"c.id, c.uuid, c.state, s.name, c.path, c.grp, c.dev, c.ino, c.size, c.mtime_ns, "   \
	"c.ctime_ns, c.born_ns, c.first_seen_ns, c.deadline_ns, c.not_before_ns, c.sha256, " \
	"c.segments, c.bundle"
#define CAPTURE_FROM   " FROM capture c JOIN source s ON s.id = c.source "
#define BUNDLE_COLUMNS "id, uuid, state, destination, size, sha256, spooled, captures, sealed_ns"

/* states as numbers: core/capture.h; 0 ready, 1 bundled, 2 sealed, 3 wiping, 4 wiped, 5 settling */
static const char *const ledger_sql[ST_COUNT] = {
	[ST_BEGIN] = "BEGIN IMMEDIATE",
	[ST_COMMIT] = "COMMIT",
	[ST_EVENT_ADD] = "INSERT INTO event VALUES(?1, ?2, ?3, ?4, ?5, ?6)",
	[ST_EVENT_LAST] = "SELECT seq, hash FROM event ORDER BY seq DESC LIMIT 1",
	[ST_SOURCE_ADD] = "INSERT INTO source(name) VALUES(?1)",
	[ST_SOURCE_FIND] = "SELECT id FROM source WHERE name = ?1",
	[ST_CAPTURE_LIVE] =
		"SELECT id, state, dev, ino, size, mtime_ns, ctime_ns, first_seen_ns, deadline_ns "
		"FROM capture WHERE source = ?1 AND path = ?2 AND live = 1",
	[ST_CAPTURE_ADD] =
		"INSERT INTO capture(uuid, state, source, path, grp, dev, ino, size, mtime_ns, ctime_ns, "
		"born_ns, first_seen_ns, deadline_ns, not_before_ns) "
		"VALUES(?1, 0, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
	[ST_CAPTURE_AGAIN] =
		"UPDATE capture SET state = 0, dev = ?2, ino = ?3, size = ?4, mtime_ns = ?5, "
		"ctime_ns = ?6, born_ns = min(born_ns, ?7), deadline_ns = min(deadline_ns, ?8), "
		"not_before_ns = ?9 WHERE id = ?1",
	/* each names only the columns that change: an index is rewritten when a column of it is named */
	[ST_CAPTURE_STATE] = "UPDATE capture SET state = ?2, not_before_ns = ?3 WHERE id = ?1",
	[ST_CAPTURE_RESET] = "UPDATE capture SET state = ?2, not_before_ns = ?3, segments = 1, "
			     "bundle = NULL WHERE id = ?1",
	[ST_CAPTURE_OVER] =
		"UPDATE capture SET state = ?2, not_before_ns = ?3, live = 0 WHERE id = ?1",
	[ST_CAPTURE_PARTS] = "DELETE FROM segment WHERE capture = ?1",
	[ST_CAPTURE_ROW] = "SELECT state, uuid FROM capture WHERE id = ?1",
	[ST_CAPTURE_SEALED] =
		"UPDATE capture SET state = 2, bundle = ?2, sha256 = ?3 WHERE id = ?1 AND state = 1",
	[ST_CAPTURE_WIPED] = "UPDATE capture SET wiped_ns = ?2, level = ?3, reason = ?4 WHERE id = ?1",
	[ST_CAPTURE_END] = "UPDATE capture SET state = 4, live = 0, wiped_ns = ?2, level = ?3, "
			   "reason = ?4 WHERE id = ?1",
	[ST_TAKE] = "SELECT " CAPTURE_COLUMNS CAPTURE_FROM
		    "WHERE c.source = ?1 AND c.state = 0 AND c.not_before_ns <= ?2 "
		    "ORDER BY c.deadline_ns LIMIT ?3",
	[ST_TAKE_GROUP] =
		"SELECT " CAPTURE_COLUMNS CAPTURE_FROM
		"WHERE c.source = ?1 AND c.state = 0 AND c.path >= ?2 AND c.path < ?3 AND c.grp = ?2 "
		"AND c.not_before_ns <= ?4",
	[ST_NEXT_DEADLINE] = "SELECT deadline_ns FROM capture WHERE source = ?1 AND state = 0 "
			     "AND not_before_ns <= ?2 ORDER BY deadline_ns LIMIT 1",
	[ST_NEXT_TIME] = "SELECT min(not_before_ns) FROM capture WHERE source = ?1 AND state = 0 "
			 "AND not_before_ns > 0 AND not_before_ns > ?2",
	[ST_BUNDLE_ADD] =
		"INSERT INTO bundle(uuid, state, destination, size, sha256, spooled, captures, "
		"sealed_ns) VALUES(?1, 0, ?2, ?3, ?4, ?5, ?6, ?7)",
	[ST_BUNDLE_ROW] = "SELECT " BUNDLE_COLUMNS " FROM bundle WHERE id = ?1",
	[ST_BUNDLE_STATE] = "UPDATE bundle SET state = ?2, done_ns = ?3 WHERE id = ?1",
	[ST_BUNDLE_RECEIPT] =
		"UPDATE bundle SET state = 1, receipt = ?2, receipted_ns = ?3 WHERE id = ?1",
	[ST_BUNDLE_SPOOLED] = "UPDATE bundle SET spooled = 1 WHERE id = ?1",
	[ST_BUNDLES] = "SELECT " BUNDLE_COLUMNS " FROM bundle WHERE state = ?1 ORDER BY id",
	/* a capture in segments belongs to each bundle that holds one */
	[ST_BUNDLE_CAPTURES] =
		"SELECT " CAPTURE_COLUMNS CAPTURE_FROM
		"WHERE (c.bundle = ?1 OR c.id IN (SELECT capture FROM segment WHERE bundle = ?1)) "
		"AND (?2 < 0 OR c.state = ?2) ORDER BY c.id",
	[ST_CAPTURES] =
		"SELECT " CAPTURE_COLUMNS CAPTURE_FROM "WHERE c.state = ?1 ORDER BY c.deadline_ns",
	[ST_WIPING] = "UPDATE capture SET state = 3 WHERE bundle = ?1 AND state = 2 AND segments = 1",
	[ST_WIPING_SEGMENTS] =
		"UPDATE capture SET state = 3 WHERE state = 2 AND segments > 1 "
		"AND id IN (SELECT capture FROM segment WHERE bundle = ?1) "
		"AND NOT EXISTS (SELECT 1 FROM segment g JOIN bundle b ON b.id = g.bundle "
		"  WHERE g.capture = capture.id AND b.state = 0)",
	[ST_SEGMENT_ADD] = "INSERT INTO segment VALUES(?1, ?2, ?3, ?4, ?5, ?6)",
	[ST_SEGMENTS_SET] = "UPDATE capture SET segments = ?2, bundle = ?3 WHERE id = ?1",
	[ST_SEGMENTS_OF] = "SELECT count(*) FROM segment WHERE capture = ?1",
	[ST_ABANDON_SEGMENTS] =
		"UPDATE capture SET state = 0, not_before_ns = 0, bundle = NULL, segments = 1 "
		"WHERE state IN (1, 2) AND id IN (SELECT capture FROM segment WHERE bundle = ?1)",
	[ST_ABANDON] = "UPDATE capture SET state = 0, not_before_ns = 0, bundle = NULL "
		       "WHERE bundle = ?1 AND state IN (1, 2)",
	[ST_ABANDON_PARTS] = "DELETE FROM segment WHERE capture IN "
			     "(SELECT capture FROM segment WHERE bundle = ?1)",
	[ST_UNDONE] = "SELECT count(*) FROM capture WHERE state IN (1, 2, 3) AND "
		      "(bundle = ?1 OR id IN (SELECT capture FROM segment WHERE bundle = ?1))",
	[ST_SIBLING] = "SELECT min(o.bundle) FROM segment g JOIN segment o ON o.capture = g.capture "
		       "JOIN bundle b ON b.id = o.bundle "
		       "WHERE g.bundle = ?1 AND b.state = 1 AND o.bundle > ?2 AND o.bundle <> ?1",
	[ST_LEVELS] =
		"SELECT coalesce(level, '-'), count(*) FROM capture WHERE bundle = ?1 GROUP BY level",
	/* a large capture that was not sealed to its end begins again */
	[ST_RECOVER_PARTS] =
		"DELETE FROM segment WHERE capture IN (SELECT id FROM capture WHERE state = 1)",
	[ST_RECEIPT] = "SELECT receipt FROM bundle WHERE uuid = ?1 AND receipt IS NOT NULL",
	[ST_RECOVER] = "UPDATE capture SET state = 0, not_before_ns = 0, segments = 1, bundle = NULL "
		       "WHERE state = 1",
	[ST_COUNT_CAPTURES] = "SELECT state, count(*) FROM capture GROUP BY state",
	[ST_COUNT_BUNDLES] = "SELECT state, count(*) FROM bundle GROUP BY state",
	[ST_OLDEST] = "SELECT min(born_ns) FROM capture WHERE live = 1",
	[ST_PAST_DEADLINE] = "SELECT " CAPTURE_COLUMNS CAPTURE_FROM
			     "WHERE c.source = ?1 AND c.live = 1 AND c.state IN (0, 2, 5) "
			     "AND c.deadline_ns <= ?2",
	[ST_SETTLING_OF] = "SELECT " CAPTURE_COLUMNS CAPTURE_FROM
			   "WHERE c.source = ?1 AND c.live = 1 AND c.state = 5 LIMIT ?2",
	[ST_POLICY_ADD] = "INSERT INTO policy(loaded_ns, policy, serial, sha256, signed) "
			  "VALUES(?1, ?2, ?3, ?4, ?5)",
	[ST_POLICY_HIGHEST] = "SELECT serial, sha256, signed FROM policy WHERE signed = 1 "
			      "ORDER BY serial DESC, id DESC LIMIT 1",
	[ST_POLICY_LAST] = "SELECT serial, sha256, signed FROM policy ORDER BY id DESC LIMIT 1",
	[ST_UNDECIDE] = "UPDATE capture SET state = 5, not_before_ns = 0 WHERE state = 0",
	[ST_EVENTS] = "SELECT seq, at_ns, kind, subject, detail, hash FROM event ORDER BY seq",
};
