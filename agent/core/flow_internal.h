/* SPDX-License-Identifier: Apache-2.0
 * What the files of the flow share (flow.h says which does what). Loop thread. */
#pragma once

#include <stdatomic.h>

#include "agent/core/flow.h"
#include "agent/core/jobs.h"
#include "agent/seal/job.h"
#include "agent/watch/check.h"
#include "agent/watch/scan.h"
#include "agent/watch/settle.h"
#include "agent/watch/tree.h"
#include "agent/wipe/wipe.h"

#define SEAL_JOBS       2    /* at once, for all destinations */
#define PUSHES_OPEN     6    /* sealed bundles in memory or under way, for each destination */
#define BUNDLE_CAPTURES 2048 /* at most in one bundle */
#define CHECK_JOBS      2
#define CHECK_BATCH     256
#define LEDGER_BUSY     24 /* pieces of work waiting: scans pause above this */
#define WIPE_JOBS       2  /* one flushes while the other overwrites */
#define WIPE_BATCH      2048
#define LINGER_MS       20 /* how long a small bundle waits for company while others are under way */
#define RESCAN_NS       (60 * NS_PER_SECOND)
#define POLL_NS         (2 * NS_PER_SECOND) /* where the file system gives no events */
#define BUSY_AGAIN_NS   (2 * NS_PER_SECOND) /* a file that was open or changed: look again after */
#define EXPIRE_NS       (2 * NS_PER_SECOND) /* how often deadlines of `destroy` are looked at */
#define WIPE_AGAIN_NS   (2 * NS_PER_SECOND)
#define REPORTED_MOST   65536
#define SWEEP_MOST      4096 /* settling captures that are looked at again after a scan */

struct flow_source {
	int fd; /* -1 while the directory can't be opened */
	struct scan *scan;
	bool scan_wanted; /* as soon as the present one ended */
	bool unwatched;   /* poll */
	bool missing;     /* said already */
	int64_t next_scan_boot_ns;
	uint64_t held_now, held_last; /* of the scan under way, of the last whole one */
	uint64_t ready_bytes;         /* about: recorded as ready and not taken yet */
	uint64_t ready_files;
};

enum parcel_state {
	PARCEL_WAITING,   /* recorded, not handed to the link yet */
	PARCEL_PUSHING,   /* the link has it */
	PARCEL_CONFIRMED, /* receipt verified, being recorded */
};

/* A sealed bundle that has no receipt yet. */
struct parcel {
	struct parcel *next;
	enum parcel_state state;
	int64_t row;
	struct id id;
	size_t destination;
	int fd; /* -1: spooled and not open, or lost with an earlier process */
	uint64_t size;
	uint8_t sha256[32];
	bool spooled;
	bool lost;      /* no ciphertext: ask for the receipt, or seal its captures again */
	bool recovered; /* may have been sent before: ask first */
	bool may_spool; /* every source of it says at_max_age: seal */
	bool spooling;
	int64_t urgent_ns; /* when it must be spooled if there is no receipt */
};

struct flow_destination {
	struct sealer_keys *seal;
	struct note_keys *receipts;
	struct parcel *parcels;
	size_t open;  /* parcels with state PUSHING, or WAITING in memory */
	bool taking;  /* a take is under way in the ledger */
	bool nothing; /* the last take found nothing; cleared when something became ready */
	struct seal_item *large; /* a capture that goes in segments; its next segment */
	uint64_t segment_size;
	size_t sealing; /* seal jobs of it */
};

/* A capture that is proven and to be wiped. */
struct disposal {
	struct disposal *next;
	int64_t row;
	int64_t bundle_row;
	struct id id;
	size_t source;
	char *path;
	struct file_identity identity;
	uint8_t sha256[32];
	int64_t born_ns;
	bool begun;
	bool alone; /* its bundle's last event does not tell of it */
	char hold[65];
	unsigned tries;
	int64_t due_boot_ns;
};

struct record; /* ledger work that is tried until it succeeds */

struct flow {
	struct flow_setup setup;
	uv_loop_t *loop;
	const struct policy *policy;
	struct link *link;
	struct ledger_writer *ledger;
	struct jobs jobs;
	struct tree *tree;
	struct settle *settle;
	uv_timer_t settle_timer;
	uv_timer_t tick;
	uv_timer_t linger;
	uv_timer_cb on_linger;
	bool lingered;
	struct flow_source *sources;
	struct flow_destination *destinations;
	size_t check_jobs;
	size_t seal_jobs;
	uint8_t *buffers[SEAL_JOBS]; /* of the largest bundle_size; NULL while lent out */
	size_t buffer_size;
	struct record *again; /* ledger work that failed with IO */
	size_t recording;
	struct disposal *disposals;
	struct disposal **disposals_end;
	size_t disposal_count;
	size_t wipe_jobs;
	bool lifting, expiring; /* under way in the ledger */
	int64_t lift_ns;        /* wall time at which the next hold ends */
	int64_t expire_boot_ns; /* when deadlines are looked at next */
	int64_t *unbegun; /* rows that a predecessor was to wipe and had not touched; sorted */
	size_t unbegun_count;
	uint64_t *reported; /* hashes of refused names that are in the ledger already */
	size_t reported_count;
	struct flow_figures figures;
	bool running;  /* recovery is done */
	bool retiring; /* a successor takes the ledger, the link and the sealed bundles over */
	bool draining; /* nothing new is begun; what is under way goes on */
	void (*on_drained)(void *ctx);
	void *drain_ctx;
	bool stopping;
	bool ending; /* everything ended: handles are being closed */
	bool ended;  /* retiring: they are */
	unsigned timers_open;
	bool failed;
	_Atomic bool stop; /* the same for job threads */
	size_t scans;
	void (*on_stopped)(void *ctx);
	void *stop_ctx;
};

/* ---- flow.c */
typedef void flow_recorded_fn(struct flow *flow, void *ctx);
/* Queues ledger work; IO failures are tried again each second, anything else is fatal. done() comes
 * only after success; release() frees ctx in any case, last. */
void flow_record(struct flow *flow, ledger_work_fn *work, flow_recorded_fn *done,
	void (*release)(void *ctx), void *ctx);
bool flow_expired(const struct flow *flow);
void flow_fail(struct flow *flow, const char *text);
void flow_settled(struct flow *flow); /* after anything ended: is the stop complete? */
/* Index of a source or destination of the policy; false if the policy has none of that name. */
bool flow_source_named(const struct flow *flow, struct slice name, size_t *ret);
bool flow_destination_named(const struct flow *flow, struct slice name, size_t *ret);

/* ---- intake.c */
CEDE_MUST_USE int intake_start(struct flow *flow, struct cede_error *reterr);
void intake_tick(struct flow *flow);
void intake_scan(struct flow *flow, size_t source, const char *path);
/* Looks at a name after a while. */
void intake_look(struct flow *flow, size_t source, const char *path, int64_t after_ns);
void intake_resume(struct flow *flow); /* scans that wait for the ledger */
void intake_stop(struct flow *flow);

/* ---- handover.c */
void handover_plan(struct flow *flow);
void handover_tick(struct flow *flow);
void handover_adopt(struct flow *flow, const struct ledger_bundle *b); /* at start */
void handover_inherit(struct flow *flow, struct flow *from); /* after a change of policy */
void handover_free(struct flow *flow);
bool handover_receipt(void *flow, const struct id *bundle, struct slice note);
void handover_absent(void *flow, const struct id *bundle);
void handover_failed(void *flow, const struct id *bundle, size_t destination, const char *kind,
	const char *text);
void handover_link(void *flow, size_t destination, bool up);

/* ---- disposal.c */
/* Takes a copy of c. begun: an earlier process may have touched it. alone: its bundle's last event
 * does not tell of it. Nothing is wiped while the policy has expired. */
CEDE_MUST_USE int disposal_add(struct flow *flow, const struct ledger_capture *c, bool begun,
	bool alone, struct cede_error *reterr);
void disposal_run(struct flow *flow);
/* Wipes what no hold covers any more; at start, and when a hold ends. */
void disposal_lift(struct flow *flow);
/* Wipes what is older than max_age in sources that say destroy. */
void disposal_expire(struct flow *flow);
void disposal_tick(struct flow *flow);
void disposal_free(struct flow *flow);
