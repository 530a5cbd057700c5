/* SPDX-License-Identifier: Apache-2.0
 * The SQL of the ledger; included by store.c alone. */
#pragma once

#include "agent/ledger/ledger_internal.h"

#define CAPTURE_COLUMNS                                                                      \
	"c.id, c.uuid, c.state, s.name, c.path, c.grp, c.dev, c.ino, c.size, c.mtime_ns, "   \
	"c.ctime_ns, c.born_ns, c.first_seen_ns, c.deadline_ns, c.not_before_ns, c.sha256, " \
	"c.segments, c.bundle, CASE WHEN c.segments > 1 THEN "                               \
	"(SELECT max(g.size) FROM segment g WHERE g.capture = c.id) ELSE 0 END"
#define CAPTURE_FROM " FROM capture c JOIN source s ON s.id = c.source "
#define BUNDLE_COLUMNS                                                               \
	"id, uuid, state, destination, size, sha256, spooled, captures, sealed_ns, " \
	"(SELECT capture FROM segment WHERE segment.bundle = bundle.id)"

/* states as numbers: core/capture.h; 0 ready, 1 bundled, 2 sealed, 3 wiping, 4 wiped, 5 settling */
static const char *const ledger_sql[ST_COUNT] = {
	[ST_BEGIN] = "BEGIN IMMEDIATE",
	[ST_COMMIT] = "COMMIT",
	[ST_EVENT_ADD] = "INSERT INTO event VALUES(?1, ?2, ?3, ?4, ?5, ?6)",
	[ST_EVENT_TIME] = "SELECT at_ns, kind FROM event WHERE seq = ?1",
	/* the newest start or stop of the agent */
	[ST_EVENT_LIFE] = "SELECT at_ns, kind FROM event WHERE kind IN (" LEDGER_WATCH_KINDS ") "
			  "AND kind IN (0, 1) ORDER BY seq DESC LIMIT 1",
	[ST_EVENT_LAST] = "SELECT seq, hash FROM event ORDER BY seq DESC LIMIT 1",
	[ST_SOURCE_ADD] = "INSERT INTO source(name) VALUES(?1)",
	[ST_SOURCE_FIND] = "SELECT id FROM source WHERE name = ?1",
	[ST_CAPTURE_LIVE] =
		"SELECT id, state, dev, ino, size, mtime_ns, ctime_ns, first_seen_ns, segments, "
		"not_before_ns, uuid, born_ns, deadline_ns "
		"FROM capture WHERE source = ?1 AND path = ?2 AND live = 1",
	[ST_CAPTURE_ADD] =
		"INSERT INTO capture(uuid, state, source, path, grp, dev, ino, size, mtime_ns, ctime_ns, "
		"born_ns, first_seen_ns, deadline_ns, not_before_ns, class) "
		"VALUES(?1, 0, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
	[ST_CAPTURE_AGAIN] =
		"UPDATE capture SET state = 0, dev = ?2, ino = ?3, size = ?4, mtime_ns = ?5, "
		"ctime_ns = ?6, born_ns = min(born_ns, ?7), deadline_ns = ?8, "
		"not_before_ns = ?9 WHERE id = ?1",
	/* each names only the columns that change: an index is rewritten when a column of it is named */
	[ST_CAPTURE_STATE] = "UPDATE capture SET state = ?2, not_before_ns = ?3 WHERE id = ?1",
	/* segments that were sealed of it stay: the others follow when it is taken again */
	[ST_CAPTURE_RESET] = "UPDATE capture SET state = ?2, not_before_ns = ?3, "
			     "bundle = CASE WHEN segments > 1 THEN bundle END WHERE id = ?1",
	[ST_CAPTURE_OVER] =
		"UPDATE capture SET state = ?2, not_before_ns = ?3, live = 0 WHERE id = ?1",
	[ST_CAPTURE_ENDED] = "UPDATE capture SET wiped_ns = ?2 WHERE id = ?1",
	[ST_CAPTURE_ROW] = "SELECT state, uuid, bundle FROM capture WHERE id = ?1",
	[ST_CAPTURE_SEALED] = "UPDATE capture SET state = 2, bundle = ?2, sha256 = ?3, segments = 1 "
			      "WHERE id = ?1 AND state = 1",
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
	/* a capture in segments belongs to each bundle that holds one; of those in WIPING, not what
	 * the policy destroys: that is being wiped already */
	[ST_BUNDLE_CAPTURES] =
		"SELECT " CAPTURE_COLUMNS CAPTURE_FROM
		"WHERE (c.bundle = ?1 OR c.id IN (SELECT capture FROM segment WHERE bundle = ?1)) "
		"AND (?2 < 0 OR c.state = ?2) "
		"AND (?2 <> 3 OR c.not_before_ns < 9223372036854775807) ORDER BY c.id",
	[ST_CAPTURES] =
		"SELECT " CAPTURE_COLUMNS CAPTURE_FROM "WHERE c.state = ?1 ORDER BY c.deadline_ns",
	[ST_CAPTURE_AT] = "SELECT " CAPTURE_COLUMNS CAPTURE_FROM
			  "WHERE c.source = ?1 AND c.path = ?2 AND c.live = 1",
	[ST_UNTOUCHED] = "UPDATE capture SET not_before_ns = ?2 WHERE id = ?1 AND state = 3 "
			 "AND not_before_ns <> 9223372036854775807",
	[ST_TOUCHED] =
		"UPDATE capture SET not_before_ns = 0 WHERE state = 3 AND live = 1 AND not_before_ns = ?1",
	[ST_WIPING] = "UPDATE capture SET state = 3 WHERE bundle = ?1 AND state = 2 AND segments = 1",
	[ST_WIPING_SEGMENTS] =
		"UPDATE capture SET state = 3 WHERE state = 2 AND segments > 1 "
		"AND id IN (SELECT capture FROM segment WHERE bundle = ?1) "
		"AND NOT EXISTS (SELECT 1 FROM segment g JOIN bundle b ON b.id = g.bundle "
		"  WHERE g.capture = capture.id AND ((b.state = 0 AND b.spooled = 0) OR b.state = 3))",
	[ST_PROVEN] =
		"SELECT 1 FROM capture c LEFT JOIN bundle b ON b.id = c.bundle WHERE c.id = ?1 AND "
		"(CASE WHEN c.segments = 1 THEN b.receipt IS NOT NULL OR b.spooled = 1 "
		"  ELSE c.segments = (SELECT count(*) FROM segment g JOIN bundle o ON o.id = g.bundle "
		"    WHERE g.capture = c.id AND (o.receipt IS NOT NULL OR o.spooled = 1)) END "
		" OR EXISTS (SELECT 1 FROM event WHERE kind = ?2 AND subject = c.uuid))",
	[ST_SEGMENT_ADD] = "INSERT INTO segment VALUES(?1, ?2, ?3, ?4, ?5, ?6)",
	[ST_SEGMENTS_SET] = "UPDATE capture SET segments = ?2, bundle = ?3 WHERE id = ?1",
	/* how many, the lowest index that has none, and the size of one that is not the last */
	[ST_SEGMENTS_OF] =
		"SELECT count(*), CASE WHEN min(idx) > 0 THEN 0 ELSE "
		"  (SELECT min(g.idx) + 1 FROM segment g WHERE g.capture = ?1 AND NOT EXISTS "
		"    (SELECT 1 FROM segment h WHERE h.capture = ?1 AND h.idx = g.idx + 1)) END, "
		"max(CASE WHEN idx > 0 THEN offset / idx ELSE size END) "
		"FROM segment WHERE capture = ?1",
	[ST_SEGMENT_DIGESTS] = "SELECT sha256 FROM segment WHERE capture = ?1 ORDER BY idx",
	[ST_SEGMENTS_DIGEST] = "UPDATE capture SET sha256 = ?2 WHERE id = ?1",
	[ST_SEGMENT_BUNDLE] = "SELECT min(bundle) FROM segment WHERE capture = ?1 AND bundle > ?2",
	/* of a capture in segments the others stay; one of which a segment is being read stays BUNDLED */
	[ST_ABANDON_SEGMENTS] =
		"UPDATE capture SET state = ?2, not_before_ns = 0 "
		"WHERE state IN (2, 8, 9) AND id IN (SELECT capture FROM segment WHERE bundle = ?1)",
	[ST_ABANDON] = "UPDATE capture SET state = ?2, not_before_ns = 0, bundle = NULL "
		       "WHERE bundle = ?1 AND state IN (1, 2, 8, 9) AND segments = 1",
	/* READY, or SETTLING where another policy decides since */
	[ST_ABANDON_TO] = "SELECT CASE WHEN sealed_ns <= (SELECT max(loaded_ns) FROM policy) "
			  "THEN 5 ELSE 0 END FROM bundle WHERE id = ?1",
	[ST_FREE] = "UPDATE capture SET state = 1, not_before_ns = 0, bundle = NULL "
		    "WHERE id = ?2 AND bundle = ?1 AND state = 2 AND segments = 1",
	[ST_SEALED_DETAIL] = "SELECT detail FROM event WHERE seq >= ?1 AND kind = ?2 AND subject = ?3 "
			     "ORDER BY seq LIMIT 1",
	[ST_MEMBERS] = "SELECT id, sha256 FROM capture WHERE bundle = ?1 AND segments = 1",
	/* of what is being wiped they stay: it was proven when that began */
	[ST_ABANDON_PARTS] = "DELETE FROM segment WHERE bundle = ?1 "
			     "AND capture NOT IN (SELECT id FROM capture WHERE state = 3)",
	[ST_UNDONE] = "SELECT count(*) FROM capture WHERE (state IN (1, 2, 3) AND bundle = ?1) OR "
		      "(state IN (0, 1, 2, 3, 5) AND "
		      " id IN (SELECT capture FROM segment WHERE bundle = ?1))",
	[ST_SIBLING] = "SELECT min(o.bundle) FROM segment g JOIN segment o ON o.capture = g.capture "
		       "JOIN bundle b ON b.id = o.bundle "
		       "WHERE g.bundle = ?1 AND b.state = 1 AND o.bundle > ?2 AND o.bundle <> ?1",
	[ST_LEVELS] =
		"SELECT coalesce(level, '-'), count(*) FROM capture WHERE bundle = ?1 GROUP BY level",
	[ST_RECEIPT] = "SELECT receipt FROM bundle WHERE uuid = ?1 AND receipt IS NOT NULL",
	[ST_RECOVER] = "UPDATE capture SET state = 0, not_before_ns = 0, "
		       "bundle = CASE WHEN segments > 1 THEN bundle END WHERE state = 1",
	[ST_COUNT_CAPTURES] = "SELECT state, count(*) FROM capture GROUP BY state",
/* What was here in [?1, ?2): what is still here; what ended in the span or within a day
 * after it; and of what ended later, what stayed for longer than a day. Each has an index,
 * whose condition stands here word for word. */
#define SOURCE_NAME "substr(s.name, 1, instr(s.name || '@', '@') - 1)" /* without a vault's epoch */
#define EXPOSED(condition)                                                                  \
	"SELECT c.uuid, s.name, c.path, c.class, c.size, c.sha256, c.born_ns, "             \
	"CASE WHEN c.reason = 'pending-erase' THEN NULL ELSE c.wiped_ns END, c.state, "     \
	"c.level, b.uuid FROM capture c JOIN source s ON s.id = c.source "                  \
	"LEFT JOIN bundle b ON b.id = c.bundle WHERE " condition " AND c.born_ns < ?2 AND " \
	"(?3 IS NULL OR " SOURCE_NAME " = ?3) "
	[ST_EXPOSED_PLAIN] = EXPOSED("c.live = 1 ") "UNION ALL "
	/* unlinked, and the key that opens it is there: not gone before the end of its epoch */
	EXPOSED("c.reason = 'pending-erase' ") "UNION ALL " EXPOSED(
		"c.wiped_ns > ?1 AND c.wiped_ns <= ?2 + 86400000000000 "
		"AND c.reason IS NOT 'pending-erase' ") "UNION ALL " EXPOSED("c.wiped_ns > ?2 + 86400000000000 "
									     "AND c.wiped_ns - c.born_ns > 86400000000000 "
									     "AND c.reason IS NOT 'pending-erase' ") "ORDER BY 7, 1",
/* From the bundles that were in the spool then to what they hold: there are few. */
#define SEALED_IN(columns, members)                                                         \
	"SELECT c.uuid, s.name, c.path, c.class, c.size, c.sha256, " columns                \
	" FROM bundle b " members                                                           \
	" CROSS JOIN source s ON s.id = c.source WHERE b.spooled = 1 AND b.sealed_ns < ?2 " \
	"AND coalesce(b.receipted_ns, b.done_ns, 9223372036854775807) > ?1 "                \
	"AND (?3 IS NULL OR " SOURCE_NAME " = ?3) "
#define SEALED_END   "coalesce(b.receipted_ns, b.done_ns)"
#define SEALED_WHOLE "b.sealed_ns, " SEALED_END ", b.state, NULL, b.uuid"
#define SEALED_PARTS                                                                        \
	"min(b.sealed_ns), CASE WHEN count(*) = count(" SEALED_END ") THEN max(" SEALED_END \
	") END, max(b.state), NULL, max(b.uuid)"
	/* a capture in segments is there once: from the first of them to the last */
	[ST_EXPOSED_SEALED] = SEALED_IN(SEALED_WHOLE,
		"CROSS JOIN capture c ON c.bundle = b.id AND c.segments = 1") "UNION ALL " SEALED_IN(SEALED_PARTS,
		"CROSS JOIN segment g ON g.bundle = b.id "
		"CROSS JOIN capture c ON c.id = g.capture") "GROUP BY c.id ORDER BY 7, 1",
	[ST_WATCH_EVENTS] = "SELECT seq, at_ns, kind, subject, detail FROM event WHERE kind IN "
			    "(" LEDGER_WATCH_KINDS ") ORDER BY seq",
	[ST_REFUSALS] = "SELECT seq, at_ns, kind, subject, detail FROM event WHERE kind IN "
			"(" LEDGER_REFUSAL_KINDS ") ORDER BY seq",
	[ST_SOURCES] = "SELECT DISTINCT " SOURCE_NAME " FROM source s ORDER BY 1",
	/* nothing else deletes bundles; the events have no index for this */
	[ST_NEVER_PRUNED] = "SELECT count(*) = coalesce(max(id), 0) FROM bundle",
	[ST_PRUNINGS] =
		"SELECT seq, at_ns, kind, subject, detail FROM event WHERE kind = ?1 ORDER BY seq",
	[ST_LOST_SEALED] = "SELECT uuid, captures, sealed_ns, done_ns FROM bundle "
			   "WHERE state = ?3 AND spooled = 1 AND sealed_ns < ?2 "
			   "AND coalesce(done_ns, 9223372036854775807) > ?1 ORDER BY id",
	[ST_LAST_TIME] = "SELECT at_ns FROM event ORDER BY seq DESC LIMIT 1",
	[ST_COUNT_RECEIPTED] = "SELECT count(*) FROM capture c JOIN bundle b ON b.id = c.bundle "
			       "WHERE c.state IN (3, 4, 8) AND b.receipt IS NOT NULL",
	[ST_COUNT_BUNDLES] = "SELECT state, count(*) FROM bundle GROUP BY state",
	[ST_OLDEST] = "SELECT min(born_ns) FROM capture WHERE live = 1",
	[ST_BORN_BY] = "SELECT " CAPTURE_COLUMNS CAPTURE_FROM
		       "WHERE c.source = ?1 AND c.live = 1 AND c.state IN (0, 2, 5) "
		       "AND c.born_ns <= ?2 ORDER BY c.born_ns",
	[ST_KEPT] = "SELECT " CAPTURE_COLUMNS CAPTURE_FROM
		    "WHERE c.live = 1 AND c.state = 9 AND c.id > ?1 ORDER BY c.id",
	[ST_SETTLING_OF] = "SELECT " CAPTURE_COLUMNS CAPTURE_FROM
			   "WHERE c.source = ?1 AND c.live = 1 AND c.state = 5 LIMIT ?2",
	/* the directories that were a source, by what stays when they are mounted again */
	[ST_PLACE_FIND] = "SELECT dev FROM place WHERE source = ?1 AND ino = ?2 AND born_ns = ?3",
	[ST_PLACE_SET] = "INSERT INTO place VALUES(?1, ?2, ?3, ?4) "
			 "ON CONFLICT DO UPDATE SET dev = excluded.dev",
	[ST_DEVICE_SET] = "UPDATE capture SET dev = ?3 WHERE source = ?1 AND live = 1 AND dev = ?2",
	[ST_OTHER_DEVICE] =
		"SELECT 1 FROM capture WHERE source = ?1 AND live = 1 AND dev <> ?2 LIMIT 1",
	[ST_EPOCH_ADD] = "INSERT INTO epoch VALUES(?1, ?2, 0, ?3, ?4, 0, 0)",
	[ST_EPOCH_STATE] = "UPDATE epoch SET state = ?2, "
			   "turned_ns = CASE WHEN ?3 > 0 THEN ?3 ELSE turned_ns END, ended_ns = ?4 "
			   "WHERE source = ?1",
	[ST_EPOCHS] = "SELECT e.source, s.name, e.key, e.state, e.wrapped, e.made_ns, e.turned_ns, "
		      "e.ended_ns, count(c.id), coalesce(sum(c.state = 8), 0) "
		      "FROM epoch e JOIN source s ON s.id = e.source "
		      "LEFT JOIN capture c ON c.source = e.source AND c.live = 1 "
		      "WHERE e.state <= ?1 GROUP BY e.source ORDER BY e.made_ns",
	[ST_LIVE_COUNT] = "SELECT count(*), coalesce(sum(state = 8), 0) FROM capture "
			  "WHERE source = ?1 AND live = 1",
	[ST_LIVE_ANY] = "SELECT 1 FROM capture WHERE source = ?1 AND live = 1 LIMIT 1",
	[ST_LIVE_OF] = "SELECT " CAPTURE_COLUMNS CAPTURE_FROM "WHERE c.source = ?1 AND c.live = 1",
	[ST_PENDING_ANY] =
		"SELECT 1 FROM capture WHERE source = ?1 AND reason = 'pending-erase' LIMIT 1",
	[ST_PENDING_OF] =
		"SELECT " CAPTURE_COLUMNS CAPTURE_FROM
		"WHERE c.source = ?1 AND c.reason = 'pending-erase' ORDER BY c.bundle, c.id",
	[ST_WHICH_NAMED] = "SELECT uuid FROM capture WHERE source = ?1 AND path = ?2 AND live = 1",
	/* rare, and history must not make it slower: walks the live ones */
	[ST_WHICH_INODE] = "SELECT uuid FROM capture INDEXED BY capture_live "
			   "WHERE live = 1 AND ino = ?1 AND dev = ?2 LIMIT 1",
	[ST_POLICY_ADD] = "INSERT INTO policy(loaded_ns, policy, serial, sha256, signed) "
			  "VALUES(?1, ?2, ?3, ?4, ?5)",
	[ST_POLICY_HIGHEST] = "SELECT serial, sha256, signed FROM policy WHERE signed = 1 "
			      "ORDER BY serial DESC, id DESC LIMIT 1",
	[ST_POLICY_LAST] = "SELECT serial, sha256, signed FROM policy ORDER BY id DESC LIMIT 1",
	[ST_UNDECIDE] = "UPDATE capture SET state = 5, not_before_ns = 0 WHERE state = 0",
	[ST_TALLY] = "SELECT source, state, count(*), sum(size) FROM capture INDEXED BY capture_born "
		     "WHERE live = 1 GROUP BY source, state",
	[ST_TALLY_OLDEST] = "SELECT born_ns FROM capture INDEXED BY capture_born "
			    "WHERE source = ?1 AND live = 1 AND born_ns >= ?2 AND state <> 8 "
			    "ORDER BY born_ns LIMIT 1",
	[ST_SIGNED_NS] = "SELECT at_ns FROM checkpoint ORDER BY size DESC LIMIT 1",
	[ST_ACKNOWLEDGED_NS] = "SELECT min(at_ns) FROM ack",
	/* with a single min() SQLite gives the other columns of the row that has it */
	[ST_OVERVIEW_CAPTURES] =
		"SELECT s.name, c.state, count(*), sum(c.size), min(c.born_ns), c.deadline_ns" CAPTURE_FROM
		"GROUP BY c.source, c.state ORDER BY s.name",
	[ST_OVERVIEW_BUNDLES] =
		"SELECT destination, state, count(*), sum(size), coalesce(max(receipted_ns), 0) "
		"FROM bundle GROUP BY destination, state ORDER BY destination",
	[ST_OVERVIEW_POLICY] = "SELECT policy FROM policy ORDER BY id DESC LIMIT 1",
	[ST_EVENTS] = "SELECT seq, at_ns, kind, subject, detail, hash FROM event WHERE seq >= ?1 "
		      "ORDER BY seq",
	[ST_HASHES] = "SELECT seq, hash FROM event WHERE seq >= ?1 AND seq <= ?2 ORDER BY seq",
	[ST_TREE_GET] = "SELECT hash FROM tree WHERE height = ?1 AND idx = ?2",
	[ST_TREE_ADD] = "INSERT INTO tree VALUES(?1, ?2, ?3)",
	[ST_CHECKPOINT_ADD] = "INSERT OR REPLACE INTO checkpoint VALUES(?1, ?2, ?3)",
	[ST_CHECKPOINTS] = "SELECT size, note FROM checkpoint ORDER BY size",
	[ST_ACK_GET] = "SELECT size, root FROM ack WHERE destination = ?1",
	[ST_ACK_SET] = "INSERT OR REPLACE INTO ack VALUES(?1, ?2, ?3, ?4)",
	[ST_KEY_GET] = "SELECT digest FROM key WHERE role = ?1",
	[ST_KEY_SET] = "INSERT OR REPLACE INTO key VALUES(?1, ?2)",
	[ST_BUNDLE_OF_ID] = "SELECT id FROM bundle WHERE uuid = ?1",
	[ST_OLDEST_ROW] = "SELECT min(id) FROM capture WHERE live = 1",
};
