/* SPDX-License-Identifier: Apache-2.0
 * Between link.c (pushes: what goes next, what became of each) and link_courier.c (the courier
 * process: its life and its messages). What is known of a destination is in reach.h. */
#pragma once

#include "agent/ipc/message.h"
#include "agent/send/link.h"
#include "agent/send/reach.h"

enum push_stage {
	PUSH_QUEUED,
	PUSH_ASKING, /* is it there already? then it is not sent again */
	PUSH_SENDING,
};

struct push {
	struct push *next;
	struct id id;
	size_t destination;
	enum push_stage stage;
	bool ask_only; /* no ciphertext: receipt or tombstone */
	bool ask_first;
	bool checkpoint;       /* PUSH_SENDING: one went with it */
	int64_t began_boot_ns; /* PUSH_SENDING */
	unsigned round;        /* its destination's, when it began */
	unsigned refusals;     /* answers that refused it */
	int64_t retry_boot_ns; /* not before */
	int fd;
	uint64_t size;
	uint8_t sha256[32];
};

struct destination {
	char *name;
	uint8_t *config; /* body of its DESTINATION message */
	size_t config_len;
	int files[3]; /* memory files: CA, certificate, key */
	struct reach reach;
};

enum link_state { LINK_STARTING, LINK_WORKING, LINK_DEAD };

struct link {
	uv_loop_t *loop;
	struct link_events events;
	struct spawner *spawner;
	uint32_t required;  /* layers of its sandbox: 1 << enum sandbox_layer */
	uint32_t layers_on; /* as it said */
	uint32_t layers_missing;
	uint16_t ports[SPAWN_PORTS_MAX]; /* of the destinations */
	size_t port_count;
	int metrics_fd; /* the newest exposition text, or -1 */
	uint32_t metrics_len;
	uint32_t unmet; /* conditions for being ready */
	struct destination *destinations;
	size_t count;
	struct push *pushes; /* in the order in which they are to go */
	enum link_state state;
	struct spawned process;
	uv_poll_t *socket_poll; /* each start has its own: freed by its close callback */
	uv_poll_t *exit_poll;
	uv_timer_t timer;  /* next retry, restart, or the end of the grace */
	uv_timer_t pulse;  /* asks whether the courier is there */
	unsigned unheard;  /* pulses since it said anything */
	unsigned restarts; /* since it brought an outcome */
	uint64_t starts;
	int64_t restart_boot_ns;
	bool closing;
	unsigned open; /* timers whose close callback is owed */
	void (*on_closed)(void *ctx);
	void *ctx;
};

/* ---- link_courier.c */

/* Starts the courier; a failure ends in courier_gone() or is tried again. */
void courier_start(struct link *l);
CEDE_MUST_USE int courier_try_start(struct link *l, struct cede_error *reterr);
/* Watches over every courier from now on: one that says nothing is as good as gone. */
void courier_watch(struct link *l);
/* It has ended, or is to end now: killed, waited for, and started again after a wait. */
void courier_gone(struct link *l);
/* Nonsense from the courier costs the courier. */
void courier_bad(struct link *l, const char *text);
/* The newest metrics; a courier that was started again gets them at once. */
void courier_send_metrics(struct link *l);

/* ---- link.c */

uint32_t link_chance(void); /* for backoff_ms() */
/* Sends what may go, and sets the timer for what may go later. */
void link_dispatch(struct link *l);
/* The courier took what was under way with it. */
void link_interrupted(struct link *l);
/* The courier is gone while the link closes: the end of it. */
void link_closed(struct link *l);
/* The push of that id, if it is under way; else an outcome of it means nothing: it was forgotten,
 * or invented. */
struct push *link_underway(struct link *l, const struct id *id);
/* Outcomes of a push that is under way. */
void link_take_receipt(struct link *l, struct push *p, struct slice note);
void link_take_absent(struct link *l, struct push *p, bool for_ever);
void link_take_failure(struct link *l, struct push *p, const struct reach_failure *f);
