/* SPDX-License-Identifier: Apache-2.0
 * The keeper's end of the courier: starts it, talks to it, starts it again when it dies, and
 * decides when each push is tried again. Retries here, single attempts in the courier.
 *
 * Owns    the courier process, the socket, the retry timers. Descriptors of bundles are borrowed:
 * the caller keeps them until the push ended. Promise exactly one of the outcomes below for each
 * link_push() and link_ask(), unless link_close() comes first. A courier's nonsense costs the
 * courier (killed, restarted), never the keeper. A push whose earlier try may have arrived asks for
 * its receipt before it sends again. Thread  loop thread. */
#pragma once

#include <uv.h>

#include "base/address.h"
#include "base/bytes.h"
#include "base/error.h"
#include "formats/id.h"

struct link;

struct link_destination { /* everything is copied */
	const char *name;
	const char *url;
	struct slice ca_pem;
	const char *const *pins;
	size_t pin_count;
	const struct address_prefix *addresses;
	size_t address_count;
	struct slice certificate_pem;
	struct slice key_pem;
};

struct link_events {
	void *ctx;
	/* A receipt's raw bytes, not verified. Returns whether the keeper took it: false ends this
	 * push as link_failed-for-good for this try, the link backs off and asks again. */
	bool (*receipt)(void *ctx, const struct id *bundle, struct slice note);
	/* Only for link_ask(): the agency does not have it and promised (tombstone) never to take it. */
	void (*absent)(void *ctx, const struct id *bundle);
	/* A try failed: kind is a stable identifier ("tls", "pin", "address", "resolve", "connect",
	 * "redirect", "http-503", "receipt", "courier"), text for people. The push stays and is tried again. */
	void (*failed)(void *ctx, const struct id *bundle, size_t destination, const char *kind,
		const char *text);
	/* A destination changed between up (the last try worked) and down. */
	void (*state)(void *ctx, size_t destination, bool up);
};

/* courier: path of the executable. user: to run it as, or NULL. metrics: address for its scrape
 * endpoint, or NULL. */
CEDE_MUST_USE int link_start(uv_loop_t *loop, const char *courier, const char *user,
	const char *metrics, const struct link_destination *destinations, size_t n,
	const struct link_events *events, struct link **ret, struct cede_error *reterr);

/* Hands a sealed bundle over. fd stays the caller's and must stay open and unchanged until the
 * outcome. asked_first: it may have been sent by an earlier process: ask for the receipt first. */
CEDE_MUST_USE int link_push(struct link *l, size_t destination, const struct id *bundle, int fd,
	uint64_t size, const uint8_t sha256[32], bool asked_first, struct cede_error *reterr);
/* After a crash took the ciphertext: is it there? -> receipt() or absent(). */
CEDE_MUST_USE int link_ask(
	struct link *l, size_t destination, const struct id *bundle, struct cede_error *reterr);
/* Forgets a push or ask (no outcome will come). Unknown ids are fine. */
void link_forget(struct link *l, const struct id *bundle);
/* From the next push on: at most so many bytes a second, one push at a time; 0: no limit. */
void link_rate(struct link *l, size_t destination, uint64_t bytes_per_s);
bool link_up(const struct link *l, size_t destination);
/* The exposition text that the courier's endpoint serves until the next call. */
void link_metrics(struct link *l, struct slice text);

/* Another owner of the pushes: its events from now on. */
void link_adopt(struct link *l, const struct link_events *events);

/* Asks the courier to stop, waits at most grace_ms, kills it, closes everything, then on_closed. */
void link_close(struct link *l, unsigned grace_ms, void (*on_closed)(void *ctx), void *ctx);
