/* SPDX-License-Identifier: Apache-2.0
 * The keeper's end of the courier: starts it, talks to it, starts it again when it dies, and
 * decides when each push is tried again. Retries here, single attempts in the courier.
 *
 * Owns    the courier process, the socket, the retry timers. Descriptors of bundles are borrowed:
 * the caller keeps them until the push ended. Promise exactly one of the outcomes below for each
 * link_push() and link_ask(), unless link_close() comes first. A courier's nonsense costs the
 * courier (killed, restarted), never the keeper. A push whose earlier try may have arrived asks for
 * its receipt before it sends again. Waiting, for each destination on its own: what broke with one
 * link counts as one failure; while it is down one push at a time tries (those that hang since do
 * not count); a bundle that the server refused waits for itself as well, so that it is not sent
 * whenever others get through; what the server asks for with Retry-After holds for all.
 * Thread  loop thread. */
#pragma once

#include <uv.h>

#include "agent/send/spawn.h"
#include "base/address.h"
#include "base/bytes.h"
#include "base/error.h"
#include "formats/id.h"

struct link;

struct link_destination { /* everything is copied */
	const char *name;
	const char *url;
	uint16_t port; /* of the URL */
	struct slice ca_pem;
	const char *const *pins;
	size_t pin_count;
	const struct address_prefix *addresses;
	size_t address_count;
	struct slice certificate_pem;
	struct slice key_pem;
};

struct link_probe {       /* what came of link_probe(); texts are borrowed for the call */
	const char *kind; /* "" : all is well; else as for failed() */
	const char *text;
	uint16_t status; /* of the server's answer, or 0 */
	int64_t date_s;  /* the server's clock, seconds since 1970; 0: it told none */
};

struct link_events {
	void *ctx;
	/* A receipt's raw bytes, not verified. Returns whether the keeper took it: false ends this
	 * push as link_failed-for-good for this try, the link backs off and asks again. */
	bool (*receipt)(void *ctx, const struct id *bundle, struct slice note);
	/* Only for link_ask(): the agency does not have it and promised (tombstone) never to take it. */
	void (*absent)(void *ctx, const struct id *bundle);
	/* A try failed: kind is a stable identifier ("tls", "local", "pin", "address", "resolve",
	 * "connect", "timeout", "slow", "redirect", "http-503", "receipt", "courier"), text for
	 * people. The push stays and is tried again. */
	void (*failed)(void *ctx, const struct id *bundle, size_t destination, const char *kind,
		const char *text);
	/* What is to go with the next bundle that is sent there: the value of its checkpoint's
	 * header field, or nothing. Asked only while no other one is under way there: so they
	 * arrive in order. NULL: nothing ever. */
	struct slice (*checkpoint)(void *ctx, size_t destination);
	/* A destination changed between up (the last try worked) and down. */
	void (*state)(void *ctx, size_t destination, bool up);
	/* Only for link_probe(); may be NULL. */
	void (*probed)(void *ctx, size_t destination, const struct link_probe *probe);
};

/* spawner: starts the courier; stays the caller's, and outlives the link. required: layers that the
 * courier's sandbox must have (1 << enum sandbox_layer): one without them gets nothing. */
CEDE_MUST_USE int link_start(uv_loop_t *loop, struct spawner *spawner, uint32_t required,
	const struct link_destination *destinations, size_t n, const struct link_events *events,
	struct link **ret, struct cede_error *reterr);

/* Hands a sealed bundle over. fd stays the caller's and must stay open and unchanged until the
 * outcome. asked_first: it may have been sent by an earlier process: ask for the receipt first. */
CEDE_MUST_USE int link_push(struct link *l, size_t destination, const struct id *bundle, int fd,
	uint64_t size, const uint8_t sha256[32], bool asked_first, struct cede_error *reterr);
/* After a crash took the ciphertext: is it there? -> receipt() or absent(). */
CEDE_MUST_USE int link_ask(
	struct link *l, size_t destination, const struct id *bundle, struct cede_error *reterr);
/* Whether a push would get through: connects, with all that is checked for a push, and asks for the
 * receipt of a bundle that nobody has. One try; BUSY before the courier is there: ask again. */
CEDE_MUST_USE int link_probe(struct link *l, size_t destination, struct cede_error *reterr);
/* Forgets a push or ask (no outcome will come). Unknown ids are fine. */
void link_forget(struct link *l, const struct id *bundle);
/* From the next push on: at most so many bytes a second, one push at a time; 0: no limit. */
void link_rate(struct link *l, size_t destination, uint64_t bytes_per_s);
bool link_up(const struct link *l, size_t destination);
/* Whether another bundle may get through: it is up, or it is down for a bundle that the server
 * refused. Nothing tells but a try whether that was the bundle or the server. */
bool link_answers(const struct link *l, size_t destination);
/* What the courier's endpoint serves until the next call: the exposition text, and the conditions
 * (CONDITION_BIT()s of agent/ipc/readiness.h) that are not met. */
void link_metrics(struct link *l, struct slice text, uint32_t unmet);
/* How often it was started, by this link. */
uint64_t link_courier_starts(const struct link *l);

/* What the courier that was started last said of its sandbox; 0 before it did. */
void link_layers(const struct link *l, uint32_t *ret_on, uint32_t *ret_missing);

/* Another owner of the pushes: its events from now on. */
void link_adopt(struct link *l, const struct link_events *events);

/* Asks the courier to stop, waits at most grace_ms, kills it, closes everything, then on_closed. */
void link_close(struct link *l, unsigned grace_ms, void (*on_closed)(void *ctx), void *ctx);
