/* SPDX-License-Identifier: Apache-2.0 */
#include "base/direct.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"

/* Of memory, offset and length: the largest block of any disk in use. */
#define ALIGNMENT   4096U
#define BUFFER_SIZE (512U << 10)

static int set_direct(int fd, bool on) {
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0)
		return -1;
	return fcntl(fd, F_SETFL, on ? flags | O_DIRECT : flags & ~O_DIRECT);
}

int direct_start(struct direct *d, int fd, struct cede_error *reterr) {
	void *memory;

	*d = (struct direct){.fd = fd};
	if (posix_memalign(&memory, ALIGNMENT, BUFFER_SIZE) != 0)
		return CEDE_FAIL_MEMORY(reterr);
	d->buffer = memory;
	d->on = set_direct(fd, true) == 0; /* EINVAL: the file system can't */
	return CEDE_OK;
}

static int cached_from_now(struct direct *d, struct cede_error *reterr) {
	if (d->on && set_direct(d->fd, false) < 0)
		return CEDE_FAIL_SYS(reterr, "fcntl");
	d->on = false;
	return CEDE_OK;
}

/* Writes what the buffer holds; what is no whole block goes through the cache. */
static int write_out(struct direct *d, struct cede_error *reterr) {
	size_t done = 0;

	while (done < d->used) {
		size_t n = d->used - done;
		if (d->on && n >= ALIGNMENT && done % ALIGNMENT == 0)
			n -= n % ALIGNMENT;
		else
			CEDE_TRY(cached_from_now(d, reterr));
		ssize_t written = write(d->fd, d->buffer + done, n);
		if (written >= 0)
			done += (size_t)written;
		else if (d->on && errno == EINVAL)
			CEDE_TRY(cached_from_now(d, reterr));
		else if (errno != EINTR)
			return CEDE_FAIL_SYS(reterr, "write");
	}
	d->used = 0;
	return CEDE_OK;
}

int direct_put(struct direct *d, const void *data, size_t len, struct cede_error *reterr) {
	const uint8_t *at = data;

	while (len > 0) {
		size_t n = BUFFER_SIZE - d->used < len ? BUFFER_SIZE - d->used : len;
		memcpy(d->buffer + d->used, at, n);
		d->used += n;
		at += n;
		len -= n;
		if (d->used == BUFFER_SIZE)
			CEDE_TRY(write_out(d, reterr));
	}
	return CEDE_OK;
}

int direct_finish(struct direct *d, struct cede_error *reterr) {
	CEDE_TRY(write_out(d, reterr));
	return cached_from_now(d, reterr);
}

void direct_end(struct direct *d) {
	freep(&d->buffer);
}
