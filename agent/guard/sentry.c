/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/guard/sentry.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/fanotify.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "agent/guard/sentry_internal.h"
#include "agent/ipc/channel.h"
#include "base/check.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"

#define TICK_NS NS_PER_SECOND

void wake(int eventfd) {
	const uint64_t one = 1;
	ssize_t n = write(eventfd, &one, sizeof one); /* full: it is awake */

	(void)n;
}

void unwake(int eventfd) {
	uint64_t count;
	ssize_t n = read(eventfd, &count, sizeof count);

	(void)n;
}

/* ---- questions */

void sentry_answer(struct sentry *s, int number, bool allow) {
	const struct fanotify_response response = {
		.fd = number, .response = allow ? FAN_ALLOW : FAN_DENY};
	ssize_t n = write(s->fan, &response, sizeof response);

	(void)n; /* ENOENT: whoever asked was killed meanwhile */
	s->table[number] = 0;
}

bool sentry_allows(const struct sentry *s, const struct who *who) {
	if (who->pid == s->rules->keeper && who->pid != 0)
		return true;
	if (s->self.ino != 0 && who->ino == s->self.ino && who->dev == s->self.dev &&
		who->uid == s->self.uid)
		return true;
	return allowed_has(&s->rules->allowed, who);
}

void sentry_queue(struct sentry *s, struct task *t) {
	(void)pthread_mutex_lock(&s->lock);
	t->next = NULL;
	*s->tasks_end = t;
	s->tasks_end = &t->next;
	s->questions += t->rules == NULL;
	(void)pthread_mutex_unlock(&s->lock);
	wake(s->wake_clerk);
}

/* Which file it is about; its path as the one who asks sees it. */
static void describe(const struct sentry *s, int fd, struct guard_attempt *a) {
	struct statx st;
	char name[32];

	a->source = GUARD_NO_SOURCE;
	if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_INO, &st) == 0) {
		a->dev = makedev(st.stx_dev_major, st.stx_dev_minor);
		a->ino = st.stx_ino;
	}
	(void)snprintf(name, sizeof name, "self/fd/%d", fd);
	ssize_t n = readlinkat(s->proc, name, a->path, sizeof a->path - 1);
	a->path[n < 0 ? 0 : n] = 0;
	who_program(s->proc, (pid_t)a->pid, a->exe, sizeof a->exe);
}

/* A file of a source that shares its file system gets a mark of its own before anybody can give it
 * another name. */
static void mark_file(const struct sentry *s, int fd) {
	struct statx st;

	if (s->inode_dev_count == 0 || statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, 0, &st) < 0)
		return;
	uint64_t dev = makedev(st.stx_dev_major, st.stx_dev_minor);
	for (size_t i = 0; i < s->inode_dev_count; i++)
		if (s->inode_devs[i] == dev) {
			/* fails where memory is short: then it is known by its name alone */
			(void)fanotify_mark(s->fan, FAN_MARK_ADD, FAN_OPEN_PERM, fd, NULL);
			return;
		}
}

/* Not allowed at first sight. */
static void doubt(struct sentry *s, int fd, const struct who *who, bool enforce, bool full) {
	struct task *t = calloc(1, sizeof *t);

	if (t == NULL) {
		(void)close(fd);
		sentry_answer(s, fd, !enforce);
		(void)pthread_mutex_lock(&s->lock);
		*(enforce ? &s->denied : &s->noted) += 1;
		*(enforce ? &s->attempts.more_denied : &s->attempts.more_noted) += 1;
		(void)pthread_mutex_unlock(&s->lock);
		return;
	}
	*t = (struct task){.fd = fd, .who = *who};
	t->attempt = (struct guard_attempt){
		.denied = enforce, .pid = (uint32_t)who->pid, .uid = who->uid, .count = 1};
	describe(s, fd, &t->attempt);
	if (enforce && !full) { /* the clerk answers */
		sentry_queue(s, t);
		return;
	}
	(void)close(fd);
	sentry_answer(s, fd, !enforce);
	t->fd = -1;
	if (!full) {
		sentry_queue(s, t);
		return;
	}
	(void)pthread_mutex_lock(&s->lock);
	*(enforce ? &s->denied : &s->noted) += 1;
	attempts_add(&s->attempts, &t->attempt, clock_boot_ns());
	(void)pthread_mutex_unlock(&s->lock);
	free(t);
}

static void question(struct sentry *s, int fd, pid_t pid) {
	struct who who = {.pid = pid};
	bool own = false;

	(void)pthread_mutex_lock(&s->lock);
	bool ruled = s->rules != NULL; /* else they have just failed, and this process ends */
	own = ruled && pid != 0 && pid == s->rules->keeper;
	(void)pthread_mutex_unlock(&s->lock);
	if (!ruled) {
		(void)close(fd);
		return; /* the question waits for the next guard */
	}
	if (!own)
		who = who_is(s->proc, pid);
	(void)pthread_mutex_lock(&s->lock);
	bool allow = own || sentry_allows(s, &who);
	bool enforce = s->rules->enforce;
	bool full = s->questions >= QUEUE_MOST;
	s->allowed += allow;
	if (!own)
		mark_file(s, fd);
	(void)pthread_mutex_unlock(&s->lock);
	if (!allow) {
		doubt(s, fd, &who, enforce, full);
		return;
	}
	/* first: the keeper gets its lease only when nobody else has the file open */
	(void)close(fd);
	sentry_answer(s, fd, true);
}

/* The kernel opens the file for us. Where it can't (a lease, as on a file that is being wiped; no
 * descriptor left) it denies the question itself, and does not say whose it was. */
static void unread(struct sentry *s) {
	(void)pthread_mutex_lock(&s->lock);
	s->unread++;
	s->denied++;
	s->attempts.more_denied++;
	(void)pthread_mutex_unlock(&s->lock);
}

/* One at a time: what was read and is not in the table yet when this process dies can't be told
 * from a stranger's, and of several the kernel would hide those that it denied. */
static int questions(struct sentry *s, struct cede_error *reterr) {
	struct fanotify_event_metadata q;

	ssize_t n = read(s->fan, &q, sizeof q);
	if (n < 0 && (errno == EBADF || errno == EINVAL || errno == EFAULT))
		return CEDE_FAIL_SYS(reterr, "read questions");
	if (n < 0) {
		unread(s);
		return CEDE_OK;
	}
	if (n != sizeof q || q.vers != FANOTIFY_METADATA_VERSION)
		return CEDE_FAIL(reterr, CEDE_ERR_IO, "fanotify speaks another version");
	if (q.fd < 0 || q.fd >= TABLE_SIZE)
		return CEDE_FAIL(reterr, CEDE_ERR_BUG, "a question without a file");
	s->table[q.fd] = (uint32_t)q.pid;
	question(s, q.fd, q.pid);
	return CEDE_OK;
}

/* ---- to the keeper */

static bool tell(struct sentry *s, const struct ipc_writer *w, const int *fds, size_t n) {
	struct cede_error err;

	return s->socket >= 0 && channel_send(s->socket, w, fds, n, &err) == CEDE_OK;
}

static void tell_attempts(struct sentry *s) {
	static struct ipc_writer w;
	const struct guard_attempt *a;

	(void)pthread_mutex_lock(&s->lock);
	while (s->introduced && (a = attempts_next(&s->attempts, clock_boot_ns())) != NULL) {
		guard_put_attempt(&w, a);
		if (!tell(s, &w, NULL, 0))
			break; /* the next tick */
		attempts_told(&s->attempts, clock_boot_ns());
	}
	(void)pthread_mutex_unlock(&s->lock);
}

static void tell_tick(struct sentry *s) {
	static struct ipc_writer w;
	uint64_t denied, noted;

	(void)pthread_mutex_lock(&s->lock);
	guard_put(&w, GUARD_TICK);
	ipc_put_u64(&w, s->allowed);
	ipc_put_u64(&w, s->denied);
	ipc_put_u64(&w, s->noted);
	ipc_put_u64(&w, s->unread);
	ipc_put_u16(&w, s->unmarked);
	ipc_put_u16(&w, s->missing);
	(void)tell(s, &w, NULL, 0);
	if (s->introduced && attempts_more(&s->attempts, &denied, &noted)) {
		guard_put(&w, GUARD_MORE);
		ipc_put_u64(&w, denied);
		ipc_put_u64(&w, noted);
		if (!tell(s, &w, NULL, 0)) { /* later */
			s->attempts.more_denied += denied;
			s->attempts.more_noted += noted;
		}
	}
	(void)pthread_mutex_unlock(&s->lock);
}

static void tell_reply(struct sentry *s) {
	static struct ipc_writer w;

	(void)pthread_mutex_lock(&s->lock);
	if (s->reply) {
		const int fds[] = {s->fan, s->table_fd};
		bool good = s->failed[0] == 0;
		guard_put(&w, good ? GUARD_READY : GUARD_FAILED);
		if (good) {
			ipc_put_u32(&w, s->file_systems);
			ipc_put_u32(&w, s->inodes);
			ipc_put_u16(&w, s->unmarked);
		} else {
			ipc_put_text(&w, slice_str(s->failed));
		}
		s->reply = !tell(s, &w, fds, good ? ARRAY_LENGTH(fds) : 0);
		s->introduced = s->introduced || (good && !s->reply);
	}
	(void)pthread_mutex_unlock(&s->lock);
}

/* ---- from the keeper */

static int take_begin(struct sentry *s, struct ipc_reader *r, struct cede_error *reterr) {
	uint8_t enforce = ipc_get_u8(r);
	uint32_t keeper = ipc_get_u32(r);

	CEDE_TRY(ipc_end(r, reterr));
	if (enforce > 1 || keeper == 0 || keeper > INT32_MAX)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "message: no mode, or no keeper");
	rules_free(s->staged);
	s->staged = calloc(1, sizeof *s->staged);
	if (s->staged == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	s->staged->enforce = enforce == 1;
	s->staged->keeper = (pid_t)keeper;
	marks_init(&s->staged->marks, s->fan);
	return CEDE_OK;
}

static int take_rule(struct sentry *s, enum guard_message type, struct ipc_reader *r,
	struct cede_error *reterr) {
	char path[GUARD_PATH_MAX], store[GUARD_PATH_MAX] = "", user[GUARD_USER_MAX + 1];

	if (type == GUARD_ALLOW)
		CEDE_TRY(guard_get_string(r, user, sizeof user, reterr));
	CEDE_TRY(guard_get_string(r, path, sizeof path, reterr));
	if (type == GUARD_SOURCE)
		CEDE_TRY(guard_get_string(r, store, sizeof store, reterr));
	CEDE_TRY(ipc_end(r, reterr));
	if (s->staged == NULL || path[0] != '/' || (store[0] != 0 && store[0] != '/'))
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "message: a rule out of turn, or none");
	return type == GUARD_ALLOW ? allowed_add(&s->staged->allowed, user, path, reterr)
				   : marks_add(&s->staged->marks, path, store, reterr);
}

static int take_go(struct sentry *s, struct cede_error *reterr) {
	struct task *t = calloc(1, sizeof *t);

	if (t == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	if (s->staged == NULL) {
		free(t);
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "message: no rules to put in force");
	}
	t->rules = CEDE_TAKE(s->staged);
	sentry_queue(s, t);
	return CEDE_OK;
}

static int take_adopt(struct sentry *s, struct ipc_packet *packet, struct cede_error *reterr) {
	if (s->fan >= 0 || s->staged != NULL)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "message: adoption comes too late");
	s->fan = CEDE_TAKE_FD(packet->fds[0]);
	s->table_fd = CEDE_TAKE_FD(packet->fds[1]);
	packet->fd_count = 0;
	return CEDE_OK;
}

static int take_message(struct sentry *s, struct ipc_packet *packet, struct cede_error *reterr) {
	struct ipc_reader r;
	enum guard_message type;

	CEDE_TRY(guard_get(
		slice_of(packet->bytes, packet->len), packet->fd_count, false, &type, &r, reterr));
	switch (type) {
	case GUARD_ADOPT:
		return take_adopt(s, packet, reterr);
	case GUARD_BEGIN:
		return take_begin(s, &r, reterr);
	case GUARD_SOURCE:
	case GUARD_ALLOW:
		return take_rule(s, type, &r, reterr);
	case GUARD_GO:
		return take_go(s, reterr);
	case GUARD_LISTEN:
		fd_closep(&s->listener);
		s->listener = CEDE_TAKE_FD(packet->fds[0]);
		packet->fd_count = 0;
		return CEDE_OK;
	case GUARD_STOP:
		s->stop = true;
		return CEDE_OK;
	case GUARD_TICK:
	case GUARD_ATTEMPT:
	case GUARD_MORE:
	case GUARD_READY:
	case GUARD_FAILED:
		break; /* guard_get() lets none of these through */
	}
	return CEDE_FAIL(reterr, CEDE_ERR_BUG, "message of the guard's own");
}

/* Its pid may become another's: from here on it is no keeper's. What it was told is in force. */
static void keeper_gone(struct sentry *s) {
	fd_closep(&s->socket);
	s->introduced = false;
	(void)pthread_mutex_lock(&s->lock);
	if (s->rules == NULL)
		s->stop = true;
	else
		s->rules->keeper = 0;
	(void)pthread_mutex_unlock(&s->lock);
	log_event(LOG_LEVEL_WARNING, "guard.alone",
		"text=\"the agent is gone; the guard stays, with the rules it has\" mend=\"start the agent; or end the guard with SIGTERM\"");
}

static int hear(struct sentry *s, struct cede_error *reterr) {
	static struct ipc_packet packet;

	while (s->socket >= 0 && !s->stop) {
		int r = channel_receive(s->socket, &packet, reterr);
		if (r == CEDE_ERR_BUSY)
			return CEDE_OK;
		if (r == CEDE_ERR_REFUSED) {
			keeper_gone(s);
			return CEDE_OK;
		}
		CEDE_TRY(r);
		r = take_message(s, &packet, reterr);
		channel_discard(&packet);
		CEDE_TRY(r);
	}
	return CEDE_OK;
}

static int start_clerk(struct sentry *s, struct cede_error *reterr) {
	s->clerk_stop = false;
	int r = pthread_create(&s->clerk, NULL, clerk_run, s);
	errno = r;
	return r == 0 ? CEDE_OK : CEDE_FAIL_SYS(reterr, "start a thread");
}

/* It ends what it was asked first. */
static void stop_clerk(struct sentry *s) {
	(void)pthread_mutex_lock(&s->lock);
	s->clerk_stop = true;
	(void)pthread_mutex_unlock(&s->lock);
	wake(s->wake_clerk);
	(void)pthread_join(s->clerk, NULL);
}

/* The descriptors, and what was not told to anybody; MORE is the last. */
static bool tell_successor(struct sentry *s, int peer) {
	static struct ipc_writer w;
	const int fds[] = {s->fan, s->table_fd};
	struct cede_error err;

	guard_put(&w, GUARD_ADOPT);
	bool good = channel_send(peer, &w, fds, ARRAY_LENGTH(fds), &err) == CEDE_OK;
	for (size_t i = 0; good && i < s->attempts.count; i++) {
		guard_put_attempt(&w, &s->attempts.list[i]);
		good = channel_send(peer, &w, NULL, 0, &err) == CEDE_OK;
	}
	guard_put(&w, GUARD_MORE);
	ipc_put_u64(&w, s->attempts.more_denied);
	ipc_put_u64(&w, s->attempts.more_noted);
	return good && channel_send(peer, &w, NULL, 0, &err) == CEDE_OK;
}

/* A successor of the keeper. It gets the descriptors while no question is under way here, and says
 * when its own guard answers; if it dies before that, this one goes on. */
static int hand_over(struct sentry *s, struct cede_error *reterr) {
	static struct ipc_packet packet;
	CLEANUP(fd_closep)
	int peer = accept4(s->listener, NULL, NULL, SOCK_CLOEXEC);
	struct cede_error err;
	enum guard_message type;
	struct ipc_reader r;
	struct ucred who;
	socklen_t len = sizeof who;

	if (peer < 0 || s->rules == NULL ||
		getsockopt(peer, SOL_SOCKET, SO_PEERCRED, &who, &len) < 0 || who.uid != geteuid())
		return CEDE_OK;
	stop_clerk(s);
	if (tell_successor(s, peer)) {
		struct pollfd p = {.fd = peer, .events = POLLIN};
		while (poll(&p, 1, -1) < 0 && errno == EINTR)
			continue;
		s->stop = channel_receive(peer, &packet, &err) == CEDE_OK &&
			guard_get(slice_of(packet.bytes, packet.len), packet.fd_count, false, &type,
				&r, &err) == CEDE_OK &&
			type == GUARD_STOP;
		channel_discard(&packet);
	}
	if (s->stop)
		s->handed_over = true;
	else
		log_event(LOG_LEVEL_WARNING, "guard.alone",
			"text=\"another agent came and went; the guard goes on\"");
	return s->stop ? CEDE_OK : start_clerk(s, reterr);
}

/* ---- the loop */

static void take_signals(struct sentry *s) {
	struct signalfd_siginfo info;

	while (read(s->signals, &info, sizeof info) == sizeof info)
		s->told_to_end = true;
}

static int turn(struct sentry *s, struct cede_error *reterr) {
	struct pollfd fds[] = {{.fd = s->fan, .events = POLLIN}, {.fd = s->socket, .events = POLLIN},
		{.fd = s->wake_sentry, .events = POLLIN}, {.fd = s->signals, .events = POLLIN},
		{.fd = s->socket < 0 ? s->listener : -1, .events = POLLIN}};
	int64_t now = clock_boot_ns();
	int64_t wait = (s->tick_boot_ns - now) / NS_PER_MS + 1;

	(void)pthread_mutex_lock(&s->lock);
	if (!s->reading)
		fds[0].fd = -1;
	(void)pthread_mutex_unlock(&s->lock);
	if (poll(fds, ARRAY_LENGTH(fds), wait < 0 ? 0 : (int)wait) < 0 && errno != EINTR)
		return CEDE_FAIL_SYS(reterr, "poll");
	if ((fds[0].revents & POLLIN) != 0)
		CEDE_TRY(questions(s, reterr));
	if (fds[1].revents != 0)
		CEDE_TRY(hear(s, reterr));
	if (fds[2].revents != 0) {
		unwake(s->wake_sentry);
		tell_reply(s);
		tell_attempts(s);
	}
	if (fds[3].revents != 0)
		take_signals(s);
	if (fds[4].revents != 0)
		CEDE_TRY(hand_over(s, reterr));
	if (clock_boot_ns() >= s->tick_boot_ns) {
		s->tick_boot_ns = clock_boot_ns() + TICK_NS;
		tell_reply(s);
		tell_attempts(s);
		tell_tick(s);
	}
	return CEDE_OK;
}

static int start(struct sentry *s, int socket, struct cede_error *reterr) {
	sigset_t set;

	*s = (struct sentry){.socket = socket,
		.listener = -1,
		.signals = -1,
		.proc = -1,
		.fan = -1,
		.table_fd = -1,
		.tick_boot_ns = clock_boot_ns()};
	s->tasks_end = &s->tasks;
	attempts_init(&s->attempts, clock_boot_ns());
	(void)pthread_mutex_init(&s->lock, NULL);
	CEDE_TRY(who_open(&s->proc, reterr));
	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGTERM);
	(void)sigprocmask(SIG_BLOCK, &set, NULL);
	s->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	s->wake_sentry = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	s->wake_clerk = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (s->signals < 0 || s->wake_sentry < 0 || s->wake_clerk < 0)
		return CEDE_FAIL_SYS(reterr, "signalfd, eventfd");
	return start_clerk(s, reterr);
}

/* The clerk ends what it was asked, then the process ends: what is not answered then waits for the
 * next guard, or is allowed by the kernel if nobody else holds the descriptor. */
static void stop(struct sentry *s) {
	if (s->handed_over)
		return;
	stop_clerk(s);
	tell_attempts(s);
	tell_tick(s);
}

int sentry_run(int socket, struct cede_error *reterr) {
	static struct sentry s;
	int r = start(&s, socket, reterr);

	if (r < 0)
		return r;
	while (r == CEDE_OK && !s.stop && !(s.told_to_end && s.socket < 0))
		r = turn(&s, reterr);
	stop(&s);
	return r;
}
