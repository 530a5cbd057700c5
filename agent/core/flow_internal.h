/* SPDX-License-Identifier: Apache-2.0
 * What the files of the flow share (flow.h says which does what). Loop thread. */
#pragma once

#include <stdatomic.h>

#include "agent/core/capture_list.h"
#include "agent/core/flow.h"
#include "agent/core/jobs.h"
#include "agent/seal/job.h"
#include "agent/watch/check.h"
#include "agent/watch/scan.h"
#include "agent/watch/settle.h"
#include "agent/watch/tree.h"
#include "agent/wipe/wipe.h"

#define SEAL_JOBS       2 /* at once, for all destinations */
#define LOADS_AHEAD     3 /* taken from the ledger, and waiting for a seal job to end: so many */
#define SEGMENT_RUN     8 /* of a large capture in one go; then what is more urgent gets its turn */
#define PUSHES_OPEN     8 /* sealed bundles in memory or under way, for each destination */
#define SPOOLED_OPEN    4 /* of these from the spool: captures in the clear do not wait behind it */
#define BUNDLE_CAPTURES 2048 /* at most in one bundle */
#define CHECK_JOBS      2
#define CHECK_BATCH     256
#define LEDGER_BUSY     12 /* pieces of work waiting: scans pause above this */
#define WIPE_JOBS       2  /* one flushes while the other overwrites */
#define WIPE_BATCH      2048
#define WIPES_AHEAD     8192 /* more proven captures than this wait: nothing more is sealed for now */
#define LINGER_MS       20 /* how long a small bundle waits for company while others are under way */
#define RESCAN_NS       (60 * NS_PER_SECOND)
#define RESCAN_MOST_NS  (1800 * NS_PER_SECOND)
#define POLL_NS         (2 * NS_PER_SECOND) /* where the file system gives no events */
#define BUSY_AGAIN_NS   (2 * NS_PER_SECOND) /* a file that was open or changed: look again after */
#define CLOCK_STEP_NS   (10 * NS_PER_SECOND)
#define CLOCK_TRUST_NS \
	(3600 * NS_PER_SECOND)        /* after a step ahead nothing is destroyed for so long */
#define DRAIN_SPOOL_NS  NS_PER_SECOND /* stopping: what has no receipt after it is spooled */
#define EXPIRE_NS       (2 * NS_PER_SECOND) /* how often deadlines of `destroy` are looked at */
#define WIPE_AGAIN_NS   (2 * NS_PER_SECOND)
#define VERIFY_SAMPLE   64 /* one of so many is read back */
#define SCRUB_PACE      50 /* a journal is not emptied again before so many times what it took */
#define SCRUB_LEAST_NS  NS_PER_SECOND
#define UNREADABLE_SOON 4 /* so many scans that met one come early: after 2, 4, 8, 16 seconds */
#define UNREAD_AGAIN_NS (5 * NS_PER_SECOND)
#define ALIVE_NS        (600 * NS_PER_SECOND) /* how often the ledger says that the agent is alive */
#define PLACE_NS        (2 * NS_PER_SECOND)   /* how often it is asked what is at a source's path */
#define DENIED_NS       (5 * NS_PER_SECOND)   /* after EACCES: how often the sandbox is looked at */
#define REPORTED_LEAST  4096
#define REPORTED_MOST   (1U << 20) /* 8 MiB of hashes; half of it is used */
#define SWEEP_MOST      4096       /* settling captures that are looked at again after a scan */

/* Names of wiped files that the journal of a source's file system may still have: core/names.c. */
struct source_names {
	uint64_t count;
	int64_t since_boot_ns; /* the first of them was taken away; 0: none */
	int64_t since_ns;
	int64_t not_before_boot_ns; /* the last scrub's cost says so */
	bool paced;                 /* levels depend on a scrub: wipes wait for not_before */
	bool running;
	bool stay; /* it can't be done here, and was said */
};

/* Whether what was kept in a place for its storage, or held, was looked at since it is there. */
enum kept_look {
	KEPT_DUE,
	KEPT_LOOKING,
	KEPT_LOOKED,
};

/* A place where captures are looked for: one for each source of the policy, in its order, and
 * behind them those of vaults' epochs (core/epochs.h), which come and go. flow->policy has an entry
 * for each: those of an epoch are copies of its source's. */
struct flow_source {
	int fd;              /* -1 while the directory can't be opened */
	const char *key;     /* its name in the ledger; a vault's epoch has one of its own */
	size_t of;           /* the source that it is a place of */
	bool idle;           /* nothing is there to be looked at: of a vault, not in use */
	struct epoch *epoch; /* of a vault's source: what is known of the directory */
	size_t looks;        /* findings, and names being checked, that are under way */
	struct scan *scan;
	bool scan_wanted; /* as soon as the present one ended */
	bool unlisted;    /* files that stay were met beside the whole scans: not in figures */
	bool crowded;     /* more names settle than are kept in mind: a scan finds the rest */
	bool unwatched;   /* poll */
	bool missing;     /* nothing can be opened at its path: what is there is left alone */
	bool denied;      /* the sandbox does not reach it, which was said */
	int64_t denied_boot_ns; /* when that is looked at next, after EACCES */
	bool elsewhere;         /* live captures are on a file system that is not at its path */
	uint64_t dev;           /* of the directory, as the last scan found it; 0: not yet */
	uint64_t ino;
	struct ledger_remount remount; /* the last one */
	unsigned failed_scans;         /* in a row, that could not look at everything */
	int64_t next_scan_boot_ns;
	struct source_figures figures;
	struct source_figures found; /* by the scan under way; only what a scan finds */
	struct source_names names;
	bool blind;           /* not every name that is there is in mind */
	bool overlooked;      /* one was not since the last whole listing */
	uint64_t ready_bytes; /* about: recorded as ready and not taken yet */
	uint64_t ready_files;
	bool large; /* one is being sealed; for the ledger's thread alone */
	enum kept_look kept_look;
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
	bool lost;    /* no ciphertext: ask for the receipt, or seal its captures again */
	bool missing; /* lost from the spool, by another program: nothing is wiped for it any more */
	bool absent;  /* ... and the agency does not have it: given up when no wipe is under way */
	/* lost with its memory, or in memory since another policy: core/anew.c */
	bool looking,
		looked; /* at its captures, for the policy in force: urgent_ns and may_spool say */
	bool anew;      /* they are being sealed in another bundle */
	bool heirs_known;     /* each bundle that has captures of it says so: instead_of */
	bool waited_for;      /* said already */
	int64_t anew_boot_ns; /* not again before */
	bool given_up;        /* ... which is being recorded */
	int64_t instead_of;   /* row of the lost bundle whose captures it has; 0: of none */
	int64_t segment_of;   /* row of the large capture of which it has a segment; 0: none */
	bool recovered;       /* may have been sent before: ask first */
	bool may_spool;       /* every source of it says at_max_age: seal */
	bool spooling;
	int64_t pushed_boot_ns; /* the first try of this process; 0: none */
	int64_t urgent_ns;      /* when it must be spooled if there is no receipt */
};

/* Of what is in memory and may be spooled. */
enum spools {
	SPOOLS_URGENT,
	SPOOLS_SEGMENTS, /* retiring: the successor has other sealing keys */
	SPOOLS_ALL,      /* retiring: the successor does not have the destination */
};

struct flow_destination {
	struct sealer_keys *seal;
	int64_t seal_until_ns; /* from then on nothing is sealed */
	struct note_keys *receipts;
	struct parcel *parcels;
	size_t open;   /* parcels with state PUSHING, or WAITING in memory */
	size_t taking; /* takes under way in the ledger */
	bool nothing;  /* the last take found nothing; cleared when something became ready */
	bool overdue;  /* the link is up and has no room: time to look for what can't wait for it */
	enum spools spools;
	size_t sealing;        /* seal jobs of it */
	struct buf checkpoint; /* header field of the newest one, from what is known there */
	struct destination_figures figures;
};

/* A capture that is proven and to be wiped. */
struct disposal {
	struct disposal *next;
	int64_t row;
	int64_t bundle_row;
	struct id id;
	size_t source;
	char *path;
	char *key; /* in flow->deferred: the source in the ledger, which is no place yet; else NULL */
	struct file_identity identity;
	uint8_t sha256[32];
	uint64_t segment_size;
	int64_t born_ns;
	int64_t deadline_ns;
	bool counted;   /* in wipes_ahead */
	bool key_goes;  /* its content goes with the key of its epoch: it is unlinked only */
	bool begun;     /* or may have been, by an earlier process */
	bool touched;   /* by this one */
	bool destroyed; /* the policy says so at its age: needs no proof */
	bool failed;    /* the ledger has the event */
	bool alone;     /* its bundle's last event does not tell of it */
	char hold[65];
	bool asked,
		whole; /* its life, asked for once: what opens the file from then on is the wipe */
	unsigned tries;
	int64_t due_boot_ns;
};

struct vault;
struct epoch;
struct record; /* ledger work that is tried until it succeeds */
struct leftover;

struct flow {
	struct flow_setup setup;
	uv_loop_t *loop;
	const struct policy *policy;
	struct link *link;
	struct ledger_writer *ledger;
	struct jobs jobs;
	struct tree *tree;
	struct settle *settle;
	struct lives *lives;
	uv_timer_t settle_timer;
	uv_timer_t tick;
	uv_timer_t linger;
	uv_timer_cb on_linger;
	bool lingered;
	struct flow_source *sources;
	struct policy places; /* what policy points to: the policy's own, with a source for each place */
	size_t source_count;  /* of the policy itself */
	struct vault *vaults; /* one for each of these; or NULL: none has one */
	size_t epoch_jobs;    /* of the vaults, under way */
	struct flow_destination *destinations;
	size_t check_jobs;
	size_t seal_jobs;     /* and the loads ahead of them */
	uint64_t spool_bytes; /* in the spool, or on the way into it */
	size_t spool_jobs; /* copies into it under way; each counts as one of the largest bundles */
	bool spool_full;   /* said already */
	struct leftover *leftovers;        /* in the spool, and not wanted there any more */
	struct load *waiting[LOADS_AHEAD]; /* for a buffer, the first first */
	size_t waiting_count;
	uint8_t *buffers[SEAL_JOBS]; /* of the largest bundle_size; NULL while lent out */
	size_t buffer_size;
	struct record *again; /* ledger work that failed with IO */
	size_t again_count;
	size_t unwritten; /* ledger work that failed and has not succeeded since, under way or not */
	size_t recording;
	struct disposal *disposals;
	struct disposal **disposals_end;
	size_t disposal_count;
	struct disposal *deferred; /* of epochs whose directory has not been found */
	size_t wipes_ahead; /* of these, the ones that need only their turn: sealing waits for them */
	size_t wipe_jobs;
	size_t missing; /* bundles that were lost from the spool: what hangs on them is not wiped */
	size_t giving_up; /* of these, absent at the agency: until they are given up no wipe begins */
	bool lifting, expiring;  /* under way in the ledger */
	bool keeping;            /* what was kept for its storage is being looked at */
	int64_t kept_row;        /* up to here it was */
	int64_t lift_ns;         /* wall time at which the next hold ends */
	int64_t clock_offset_ns; /* of the wall clock from the clock that nobody sets */
	int64_t destroy_boot_ns; /* nothing is destroyed for its age before this */
	int64_t expire_boot_ns;  /* when deadlines are looked at next */
	int64_t *unbegun; /* rows that were to be wiped before recovery, and nobody touched */
	size_t unbegun_count;
	int64_t *untouched; /* at the end: rows that were still to be wiped, and are as they were */
	size_t untouched_count;
	uint64_t *reported; /* hashes of refused names that are in the ledger already */
	size_t reported_room;
	size_t reported_count;
	bool reported_full; /* said already */
	bool looking;       /* at the places of the sources */
	int64_t place_boot_ns;
	int64_t alive_boot_ns;
	struct flow_figures figures;
	bool looking_up; /* what the ledger has of each source */
	bool running;    /* recovery is done */
	bool retiring;   /* a successor takes the ledger, the link and the sealed bundles over */
	bool draining;   /* nothing new is begun; what is under way goes on */
	int64_t drain_boot_ns; /* since when */
	void (*on_drained)(void *ctx);
	void *drain_ctx;
	bool stopping;
	bool ending; /* everything ended: handles are being closed */
	bool ended;  /* retiring: they are */
	unsigned timers_open;
	bool failed;
	_Atomic bool stop; /* the same for job threads */
	_Atomic bool ends; /* with the process: copies into the spool as well */
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
/* Notices that the wall clock was set. */
void flow_watch_clock(struct flow *flow);
/* More ledger work is waiting than more should be added to, that which failed included. */
bool flow_busy(const struct flow *flow);
/* Whether the source's directory can be worked in. */
bool flow_source_there(const struct flow *flow, size_t source);
void flow_fail(struct flow *flow, const char *text);
void flow_settled(struct flow *flow); /* after anything ended: is the stop complete? */
/* Index of a source or destination of the policy; false if the policy has none of that name. */
bool flow_source_named(const struct flow *flow, struct slice name, size_t *ret);
bool flow_destination_named(const struct flow *flow, struct slice name, size_t *ret);

/* ---- epochs.c: see core/epochs.h */

/* ---- intake.c */
CEDE_MUST_USE int intake_start(struct flow *flow, struct cede_error *reterr);
void intake_tick(struct flow *flow);
void intake_scan(struct flow *flow, size_t source, const char *path);
/* Looks at a name after a while. */
void intake_look(struct flow *flow, size_t source, const char *path, int64_t after_ns);
void intake_resume(struct flow *flow); /* scans that wait for the ledger */
void intake_stop(struct flow *flow);

/* ---- places.c: is the source still where it was? */
void place_tick(struct flow *flow);
/* After a whole scan, with its error or none. */
void place_say(struct flow *flow, size_t source, const struct cede_error *err);
/* missing: nothing can be opened at its path; elsewhere: captures that the ledger knows are on
 * another file system. Said when it changes. */
void place_set_absent(
	struct flow *flow, size_t source, bool missing, bool elsewhere, const char *why);
/* The directory of a source was opened: another than before, or the same mounted anew. */
void place_opened(struct flow *flow, size_t source, int fd);

/* EACCES, in a place of the source. */
void place_denied(struct flow *flow, size_t place);

/* An event of a source: "source=NAME" and what is behind it. */
void place_notice(struct flow *flow, size_t source, enum ledger_event kind, const char *more);

/* ---- history.c: which captures were seen from their creation on */
void history_event(void *ctx, const struct tree_life_event *e);
void history_moved(void *ctx, size_t source, const char *path);
void history_lost(struct flow *flow);
void history_found(struct flow *flow, size_t source, const char *path);
/* Everything at and below path has been listed. */
void history_listed(struct flow *flow, size_t source, const char *path);
/* Whether the whole life of the file was seen; what is done to the name from here on is the wipe's. */
bool history_end(struct flow *flow, size_t source, const char *path, uint64_t ino);
/* It was looked at and left as it is, and may be asked for again. */
void history_goes_on(struct flow *flow, size_t source, const char *path);

/* ---- found.c */
/* Empties found. settled: names that were waited for, not what a scan came upon. Only for those the
 * ledger is asked whether a capture had the name: there can be any number of links in a directory.
 * After each scan all that is settling is asked for. */
void found_take(struct flow *flow, struct findings *found, bool settled);

/* ---- figures.c */
void figures_tick(struct flow *flow);
void figures_found(struct source_figures *s, const struct policy_source *source,
	const struct finding *f, int64_t now_ns);
void figures_scan_begins(struct source_figures *s);
void figures_scan_ended(struct source_figures *s, const struct source_figures *found, int64_t now_ns);
void figures_inherit(struct flow *flow, const struct flow *from); /* after a change of policy */

/* ---- names.c: names of wiped files, in the journals of their file systems */
void names_start(struct flow *flow);
/* A batch took away so many names of a source. */
void names_removed(struct flow *flow, size_t source, uint64_t count);
/* A batch emptied the journal of the source's file system itself. */
void names_scrubbed(struct flow *flow, size_t source, int64_t took_ns);
/* Wipes of the source wait, so that the journal is not emptied too often. */
bool names_wait(const struct flow *flow, size_t source);
void names_tick(struct flow *flow);

/* ---- handover.c: ready captures become sealed bundles */
bool handover_goes_on(const struct flow *flow); /* what is ready may be taken */
/* Nothing is sealed to a certificate whose time is over: nobody vouches for its key any more. */
bool handover_may_seal(struct flow *flow, size_t destination);
/* How long before its deadline a capture is sealed to the disk when the link is down. */
int64_t handover_margin_ns(const struct policy_source *source);
void handover_plan(struct flow *flow);
void handover_tick(struct flow *flow);

/* ---- outbox.c: sealed bundles until their receipts */
void outbox_add(struct flow *flow, struct parcel *p); /* taken */
void outbox_push(struct flow *flow, size_t destination);
/* The link does not have it any more; outbox_push() hands it over again. */
void outbox_wait(struct flow *flow, struct parcel *p);
/* Whether one more may be sealed into memory: the link works and few wait for it. */
bool outbox_has_room(const struct flow *flow, size_t destination);
void outbox_tick(struct flow *flow);
void outbox_adopt(struct flow *flow, const struct ledger_bundle *b); /* at start */
void outbox_inherit(struct flow *flow, struct flow *from);           /* after a change of policy */
void outbox_free(struct flow *flow);
struct parcel *outbox_find(struct flow *flow, const struct id *bundle); /* NULL: it has none of it */
void outbox_drop(struct flow *flow, struct parcel *p);
/* The newest checkpoint's header field, in exchange for the one before. */
void outbox_checkpoint(struct flow *flow, size_t destination, struct buf *field);
struct slice outbox_take_checkpoint(void *flow, size_t destination);
bool outbox_receipt(void *flow, const struct id *bundle, struct slice note);
void outbox_failed(void *flow, const struct id *bundle, size_t destination, const char *kind,
	const char *text);
void outbox_link(void *flow, size_t destination, bool up);

/* ---- anew.c: what was lost with its memory is sealed anew when max_age nears, link or no link */
/* Also what is in memory since another policy is looked at again: whether and when it is spooled. */
void anew_tick(struct flow *flow, size_t destination);
/* Places were found: what was judged without them is looked at again. */
void anew_found(struct flow *flow);
/* On the ledger's thread: what was sealed anew leaves the lost bundle, in the transaction that
 * records the new one; all else stays in it. Nothing left to be recorded: l->job.sealed is 0. */
CEDE_MUST_USE int anew_record(
	struct ledger *ledger, struct load *l, int64_t now_ns, struct cede_error *reterr);
/* They are recorded in the other bundle, or nothing happened. */
void anew_ended(struct flow *flow, const struct load *l);
/* What may have captures of a lost bundle is neither sent nor asked for before the agency said
 * whether it has that one. All of the spool behind this row may: what was sealed anew is not known
 * yet. INT64_MAX: it is. */
int64_t anew_unknown(const struct flow_destination *d);
/* Whether it waits for that; anew_unknown() is of its destination. */
bool anew_holds_back(struct flow *flow, const struct parcel *p, int64_t unknown);

/* ---- outbox_lost.c: bundles whose ciphertext is lost */
void outbox_absent(void *flow, const struct id *bundle);
/* Perhaps the agency has it. Until it says so nothing more is wiped for it. */
void outbox_set_missing(struct flow *flow, struct parcel *p);
/* Whether a bundle that has the capture, or a segment of it, is missing from the spool. */
bool outbox_is_missing(const struct flow *flow, int64_t row, int64_t bundle_row);
/* Whether what was spooled of a large capture is still there, now that it is about to be wiped. */
void outbox_look_for_segments(struct flow *flow, const struct ledger_capture *c);
/* Gives up what the agency does not have, unless a wipe is under way: when that ends. */
void outbox_give_up(struct flow *flow);

/* ---- spooling.c: sealed bundles go to the disk, and from it */
/* Whether one more bundle may go into the spool, beside those under way. */
bool spooling_has_room(const struct flow *flow);
/* It was wanted and had none: said once in log, ledger and metrics, until there is room again. */
void spooling_full(struct flow *flow);
/* Spools what must not stay in memory: max_age is near, or the process or the destination ends. */
void spooling_keep(struct flow *flow, size_t destination);
/* The policy that follows is known: what it can't send goes to the spool. */
void spooling_retire(
	struct flow *flow, const struct policy *next, const struct flow_destination_keys *keys);
/* What its receipt is there for; tried until it succeeds. */
void spooling_remove(struct flow *flow, const struct id *bundle, uint64_t size);
void spooling_tick(struct flow *flow);
void spooling_inherit(struct flow *flow, struct flow *from); /* after a change of policy */
void spooling_free(struct flow *flow); /* before the outbox: what stays in memory is said */

/* ---- disposal.c */
/* Takes a copy of c. begun: an earlier process may have touched it. alone: its bundle's last event
 * does not tell of it. Nothing is wiped while the policy has expired. Without memory the agent ends. */
void disposal_add(struct flow *flow, const struct ledger_capture *c, bool begun, bool alone);
/* Each of them, of a bundle whose proof is recorded, before all that wait if its deadline is
 * nearer; then disposal_run(). */
void disposal_add_all(struct flow *flow, const struct capture_list *list);
/* What was not touched yet is not wiped for this bundle any more: it is sealed again. */
void disposal_give_up(struct flow *flow, const struct parcel *p);
/* Rows that are to be wiped and that nobody has touched; the caller frees. NULL: no memory. */
int64_t *disposal_untouched(const struct flow *flow, size_t *ret_count);
/* Rows of what waits and was touched already; *ret is the caller's to free. False: no memory. */
bool disposal_touched(const struct flow *flow, int64_t **ret, size_t *ret_count);
void disposal_run(struct flow *flow);
void disposal_tick(struct flow *flow);
/* Places were found: what had none is taken up. */
void disposal_found(struct flow *flow);
/* The captures of a place are lost: nothing of it is wiped any more. */
void disposal_forget(struct flow *flow, size_t source);
/* The file system of a source has another device number. */
void disposal_remounted(struct flow *flow, size_t source, const struct ledger_remount *remount);
void disposal_free(struct flow *flow);

/* ---- release.c */
/* Wipes what no hold covers any more; at start, when a hold ends, and when a place is there that
 * was not: then also what was kept there. */
void release_lift(struct flow *flow);
/* Wipes what is older than max_age in sources that say destroy. */
void release_expire(struct flow *flow);
void release_tick(struct flow *flow);

/* ---- recovery.c */
/* Records the start, takes up the bundles and wipes that the ledger knows, then scans the sources
 * and lets the flow run. */
/* The first that the ledger hears of it: guard, vaults and all others come behind. */
void recovery_begin(struct flow *flow);
void recovery_start(struct flow *flow);
/* Notes what the flow before was to wipe and had not touched. */
CEDE_MUST_USE int recovery_inherit(struct flow *flow, struct flow *from, struct cede_error *reterr);
