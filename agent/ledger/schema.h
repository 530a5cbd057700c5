/* SPDX-License-Identifier: Apache-2.0
 * The ledger's schema, version 1. tests/golden/ledger-schema.sql has it as text. */
#pragma once

#define LEDGER_APPLICATION_ID 0x63656465 /* "cede" */
#define LEDGER_SCHEMA_VERSION 1

/* Live captures are those of the states before WIPED (0..3), SETTLING (5) and HELD (8): the partial
 * index on names holds these alone, so that history makes nothing slower. `live` says the same as
 * the state does; it is a column of its own so that a move from one live state to another leaves
 * that index alone. */
static const char ledger_schema[] =
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
	"CREATE TABLE policy(id INTEGER PRIMARY KEY, loaded_ns INTEGER NOT NULL, policy TEXT NOT NULL,\n"
	"  serial INTEGER NOT NULL, sha256 BLOB NOT NULL, signed INTEGER NOT NULL) STRICT;\n"
	"CREATE TABLE segment(capture INTEGER NOT NULL REFERENCES capture(id), idx INTEGER NOT NULL,\n"
	"  bundle INTEGER NOT NULL REFERENCES bundle(id), offset INTEGER NOT NULL,\n"
	"  size INTEGER NOT NULL, sha256 BLOB NOT NULL, PRIMARY KEY(capture, idx)) STRICT;\n"
	"CREATE INDEX segment_bundle ON segment(bundle);\n";
