/* SPDX-License-Identifier: Apache-2.0
 * The ledger's schema: the first version, and the step from each to the next. A new ledger goes the
 * same way as an old one. What was released never changes; more is a step more. */
#pragma once

#include "agent/ledger/ledger_internal.h"

#define LEDGER_APPLICATION_ID 0x63656465 /* "cede" */
#define LEDGER_SCHEMA_VERSION 2

/* Live captures are those of the states before WIPED (0..3), SETTLING (5), HELD (8) and KEPT (9):
 * the partial index on names holds these alone, so that history makes nothing slower. `live` says
 * the same as the state does; it is a column of its own so that a move from one live state to
 * another leaves that index alone. */
static const char ledger_schema_1[] =
	"CREATE TABLE source(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;\n"
	"CREATE TABLE event(seq INTEGER PRIMARY KEY, at_ns INTEGER NOT NULL, kind INTEGER NOT NULL,\n"
	"  subject BLOB, detail TEXT NOT NULL, hash BLOB NOT NULL) STRICT;\n"
	"CREATE TRIGGER event_keeps BEFORE UPDATE ON event\n"
	"  BEGIN SELECT RAISE(ABORT, 'events never change'); END;\n"
	"CREATE TRIGGER event_stays BEFORE DELETE ON event\n"
	"  BEGIN SELECT RAISE(ABORT, 'events never go'); END;\n"
	"CREATE TABLE bundle(id INTEGER PRIMARY KEY, uuid BLOB NOT NULL UNIQUE, state INTEGER NOT NULL,\n"
	"  destination TEXT NOT NULL, size INTEGER NOT NULL, sha256 BLOB NOT NULL,\n"
	"  spooled INTEGER NOT NULL, captures INTEGER NOT NULL, sealed_ns INTEGER NOT NULL,\n"
	"  receipt BLOB, receipted_ns INTEGER, done_ns INTEGER) STRICT;\n"
	"CREATE INDEX bundle_open ON bundle(state) WHERE state < 2;\n"
	"CREATE TABLE capture(id INTEGER PRIMARY KEY, uuid BLOB NOT NULL, state INTEGER NOT NULL,\n"
	"  source INTEGER NOT NULL REFERENCES source(id), path BLOB NOT NULL, grp BLOB,\n"
	"  dev INTEGER NOT NULL, ino INTEGER NOT NULL, size INTEGER NOT NULL,\n"
	"  mtime_ns INTEGER NOT NULL, ctime_ns INTEGER NOT NULL, born_ns INTEGER NOT NULL,\n"
	"  first_seen_ns INTEGER NOT NULL, deadline_ns INTEGER NOT NULL,\n"
	"  not_before_ns INTEGER NOT NULL, sha256 BLOB, segments INTEGER NOT NULL DEFAULT 1,\n"
	"  bundle INTEGER REFERENCES bundle(id), wiped_ns INTEGER, level TEXT, reason TEXT,\n"
	"  live INTEGER NOT NULL DEFAULT 1) STRICT;\n"
	"CREATE UNIQUE INDEX capture_live ON capture(source, path) WHERE live = 1;\n"
	"CREATE INDEX capture_ready ON capture(source, deadline_ns) WHERE state = 0;\n"
	"CREATE INDEX capture_later ON capture(source, not_before_ns)\n"
	"  WHERE state = 0 AND not_before_ns > 0;\n"
	"CREATE INDEX capture_bundle ON capture(bundle) WHERE bundle IS NOT NULL;\n"
	"CREATE TABLE place(source INTEGER NOT NULL REFERENCES source(id), ino INTEGER NOT NULL,\n"
	"  born_ns INTEGER NOT NULL, dev INTEGER NOT NULL, PRIMARY KEY(source, ino, born_ns)) STRICT;\n"
	"CREATE TABLE policy(id INTEGER PRIMARY KEY, loaded_ns INTEGER NOT NULL, policy TEXT NOT NULL,\n"
	"  serial INTEGER NOT NULL, sha256 BLOB NOT NULL, signed INTEGER NOT NULL) STRICT;\n"
	"CREATE TABLE segment(capture INTEGER NOT NULL REFERENCES capture(id), idx INTEGER NOT NULL,\n"
	"  bundle INTEGER NOT NULL REFERENCES bundle(id), offset INTEGER NOT NULL,\n"
	"  size INTEGER NOT NULL, sha256 BLOB NOT NULL, PRIMARY KEY(capture, idx)) STRICT;\n"
	"CREATE INDEX segment_bundle ON segment(bundle);\n";

/* tree: whole subtrees of at least 64 events (formats/merkle.h). checkpoint: those of each ten minutes
 * and of each stop. ack: what the agency said it has. key: the digests of keys as last seen. An
 * event can be emptied (kind -1, at_ns the sequence of the ledger-pruned event), never changed. */
static const char ledger_schema_2[] =
	"CREATE TABLE tree(height INTEGER NOT NULL, idx INTEGER NOT NULL, hash BLOB NOT NULL,\n"
	"  PRIMARY KEY(height, idx)) STRICT, WITHOUT ROWID;\n"
	"CREATE TABLE checkpoint(size INTEGER PRIMARY KEY, at_ns INTEGER NOT NULL, note BLOB NOT NULL)\n"
	"  STRICT;\n"
	"CREATE TABLE ack(destination TEXT PRIMARY KEY, size INTEGER NOT NULL, root BLOB NOT NULL,\n"
	"  at_ns INTEGER NOT NULL) STRICT, WITHOUT ROWID;\n"
	"CREATE TABLE key(role TEXT PRIMARY KEY, digest BLOB NOT NULL) STRICT, WITHOUT ROWID;\n"
	"CREATE INDEX IF NOT EXISTS capture_born ON capture(source, born_ns) WHERE live = 1;\n"
	/* what the end of an epoch is to give its level: small, whatever the history is */
	"CREATE INDEX capture_pending ON capture(source) WHERE reason = 'pending-erase';\n"
	"CREATE TABLE epoch(source INTEGER PRIMARY KEY REFERENCES source(id), key BLOB NOT NULL UNIQUE,\n"
	"  state INTEGER NOT NULL, wrapped INTEGER NOT NULL, made_ns INTEGER NOT NULL,\n"
	"  turned_ns INTEGER NOT NULL, ended_ns INTEGER NOT NULL) STRICT;\n"
	"DROP TRIGGER event_keeps;\n"
	"CREATE TRIGGER event_keeps BEFORE UPDATE ON event\n"
	"  WHEN NOT (OLD.kind >= 0 AND NEW.kind = -1 AND NEW.subject IS NULL AND NEW.detail = ''\n"
	"    AND NEW.seq = OLD.seq AND NEW.hash = OLD.hash)\n"
	"  BEGIN SELECT RAISE(ABORT, 'events never change'); END;\n"
	/* What was here in a span of time (exposure.c, statements.h). wiped_ns is when the
	 * plaintext ended, of captures that are gone or replaced, too: known of old ones is only
	 * that it was before now. */
	"ALTER TABLE capture ADD COLUMN class TEXT;\n"
	"UPDATE capture SET wiped_ns = (SELECT at_ns FROM event ORDER BY seq DESC LIMIT 1)\n"
	"  WHERE live = 0 AND wiped_ns IS NULL;\n"
	"CREATE INDEX capture_ended ON capture(wiped_ns, born_ns) WHERE wiped_ns IS NOT NULL;\n"
	"CREATE INDEX capture_long ON capture(wiped_ns, born_ns) WHERE wiped_ns - born_ns > 86400000000000;\n"
	"CREATE INDEX event_watch ON event(seq) WHERE kind IN (" LEDGER_WATCH_KINDS ");\n"
	"CREATE INDEX event_refusal ON event(seq) WHERE kind IN (" LEDGER_REFUSAL_KINDS ");\n";

static const char *const ledger_schema[LEDGER_SCHEMA_VERSION] = {ledger_schema_1, ledger_schema_2};
