/* SPDX-License-Identifier: Apache-2.0
 * What the agency knows of each host that has a folder in the store: its bundles, its ledger's newest
 * checkpoint, and its newest manifest of those that were opened.
 *
 * Promise what can't be read of one host is said and keeps nothing of another host's back. A manifest
 * counts for the host whose folder has its bundle, whatever it says itself. Thread  one. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "formats/id.h"

struct fleet_host {
	char name[HOST_ID_MAX + 1];
	int64_t last_ns; /* of its newest bundle's id; 0: none */
	uint64_t bundles;
	uint64_t events; /* of its ledger, as of the newest checkpoint */
	int64_t checkpoint_ns;
	bool refused;    /* a checkpoint */
	bool forged;     /* a manifest that says it is of another host, or bundle */
	bool unreadable; /* some of it */
	/* of its newest manifest that was opened */
	int64_t created_ns; /* 0: none */
	uint64_t serial;
	int64_t oldest_ns; /* age of its oldest capture then */
};

struct fleet {
	int store;                /* -1: none; the directory */
	struct fleet_host *hosts; /* by name */
	size_t count;
	uint64_t unknown; /* manifests of bundles that are not in the store */
	bool unreadable;  /* something was */
	void (*unread)(const char *what, const char *why); /* called at once */
};

/* fleet: with .store -1 and .unread. opened: what cede-receiver open wrote, into this directory or
 * into a folder of each host in it; NULL: none. Fails only where nothing can be told. */
CEDE_MUST_USE int fleet_read(
	struct fleet *fleet, const char *store, const char *opened, struct cede_error *reterr);
void fleet_done(struct fleet *fleet);
