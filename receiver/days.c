/* SPDX-License-Identifier: Apache-2.0 */
#include "receiver/days.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/check.h"
#include "base/cleanup.h"
#include "base/file.h"

#define KNOWN_DAYS 256

/* A folder of a day with what it held when we came, and all folders above it: on the disk. */
struct known_day {
	char host[HOST_ID_MAX + 1]; /* "": none */
	char day[ID_DAY_SIZE];
};

struct days {
	int root;
	pthread_mutex_t lock;
	struct known_day known[KNOWN_DAYS];
	size_t next_known;
};

int days_new(int root, struct days **ret, struct cede_error *reterr) {
	struct days *d = calloc(1, sizeof *d);

	if (d == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	d->root = root;
	require(pthread_mutex_init(&d->lock, NULL) == 0);
	*ret = d;
	return CEDE_OK;
}

void days_free(struct days *d) {
	if (d == NULL)
		return;
	(void)pthread_mutex_destroy(&d->lock);
	free(d);
}

/* One directory further. BUSY: not there and not wanted (make only with sync). sync: its name is not
 * known to be on the disk; found is not enough, since whoever made it may have died before the flush. */
static int step(
	int parent, const char *name, bool make, bool sync, int *ret, struct cede_error *reterr) {
	CLEANUP(fd_closep)
	int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);

	if (fd < 0 && errno == ENOENT) {
		if (!make)
			return CEDE_FAIL(reterr, CEDE_ERR_BUSY, "not there");
		if (mkdirat(parent, name, 0700) < 0 && errno != EEXIST)
			return CEDE_FAIL_SYS(reterr, "create a directory of the store");
		fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	}
	if (fd < 0)
		return CEDE_FAIL_SYS(reterr, "open a directory of the store");
	if (sync)
		CEDE_TRY(file_sync(parent, reterr));
	*ret = CEDE_TAKE_FD(fd);
	return CEDE_OK;
}

static bool is_known(struct days *d, const char *host, const char *day) {
	bool known = false;

	(void)pthread_mutex_lock(&d->lock);
	for (size_t i = 0; !known && i < KNOWN_DAYS; i++)
		known = strcmp(d->known[i].host, host) == 0 && strcmp(d->known[i].day, day) == 0;
	(void)pthread_mutex_unlock(&d->lock);
	return known;
}

static void make_known(struct days *d, const char *host, const char *day) {
	(void)pthread_mutex_lock(&d->lock);
	struct known_day *k = &d->known[d->next_known++ % KNOWN_DAYS];
	(void)snprintf(k->host, sizeof k->host, "%s", host);
	(void)snprintf(k->day, sizeof k->day, "%s", day);
	(void)pthread_mutex_unlock(&d->lock);
}

/* The folder is not there any more: what is made in its place is not on the disk. */
static void make_unknown(struct days *d, const char *host, const char *day) {
	(void)pthread_mutex_lock(&d->lock);
	for (size_t i = 0; i < KNOWN_DAYS; i++)
		if (strcmp(d->known[i].host, host) == 0 && strcmp(d->known[i].day, day) == 0)
			d->known[i].host[0] = 0;
	(void)pthread_mutex_unlock(&d->lock);
}

static int walk_to(struct days *d, const char *host, const char *day, bool make, bool sync,
	int *ret, struct cede_error *reterr) {
	CLEANUP(fd_closep) int at = -1;
	char parts[ID_DAY_SIZE];
	char *rest = parts;
	char *part;

	memcpy(parts, day, sizeof parts);
	CEDE_TRY(step(d->root, host, make, sync, &at, reterr));
	while ((part = strsep(&rest, "/")) != NULL) {
		int next = -1;
		CEDE_TRY(step(at, part, make, sync, &next, reterr));
		(void)close(at);
		at = next;
	}
	*ret = CEDE_TAKE_FD(at);
	return CEDE_OK;
}

/* As it was when it was flushed. BUSY: it must be flushed (again). */
static int open_known(
	struct days *d, const char *host, const char *day, int *ret, struct cede_error *reterr) {
	CLEANUP(fd_closep) int at = -1;

	if (!is_known(d, host, day))
		return CEDE_FAIL(reterr, CEDE_ERR_BUSY, "not looked at yet");
	int r = walk_to(d, host, day, false, false, &at, reterr);
	if (r == CEDE_ERR_BUSY)
		make_unknown(d, host, day);
	if (r < 0)
		return r;
	/* another thread may have found it gone meanwhile, and what we opened is what it made */
	if (!is_known(d, host, day))
		return CEDE_FAIL(reterr, CEDE_ERR_BUSY, "made anew");
	*ret = CEDE_TAKE_FD(at);
	return CEDE_OK;
}

/* The first time that a day is looked at, and when its folder was taken away meanwhile, what is
 * found is flushed, too: an earlier life may have ended between a name and its flush, and what we
 * find we shall sign for. */
int days_open(struct days *d, const char *host, const struct id *bundle, bool make, int *ret,
	struct cede_error *reterr) {
	CLEANUP(fd_closep) int at = -1;
	char day[ID_DAY_SIZE];

	require(host_id_valid(slice_str(host)));
	id_day(bundle, day);
	int r = open_known(d, host, day, ret, reterr);
	if (r != CEDE_ERR_BUSY)
		return r;
	CEDE_TRY(walk_to(d, host, day, make, true, &at, reterr));
	CEDE_TRY(file_sync(at, reterr));
	make_known(d, host, day);
	*ret = CEDE_TAKE_FD(at);
	return CEDE_OK;
}
