/* SPDX-License-Identifier: Apache-2.0 */
#include "receiver/checkpoints.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "certs/key.h"
#include "receiver/custody.h"

#define WINDOW (64U << 10)
#define AHEAD  (4U * CHECKPOINT_MAX) /* that much is there of what is read next */

struct checkpoints {
	int fd; /* -1: there are none */
	struct note_keys *keys;
	uint64_t offset; /* of what follows the window */
	bool end;        /* nothing does */
	uint64_t last;   /* events of the newest so far */
	size_t at, len;
	uint8_t window[WINDOW];
};

static int load_key(struct checkpoints *cs, int dir, struct cede_error *reterr) {
	CLEANUP(buf_done) struct buf pem = BUF_INIT(KEY_FILE_MAX);
	CLEANUP(key_freep) EVP_PKEY *key = NULL;

	CEDE_TRY(file_load(dir, CUSTODY_KEY, &pem, reterr));
	CEDE_TRY(key_parse_public(buf_slice(&pem), CUSTODY_KEY, &key, reterr));
	CEDE_TRY(note_keys_new(NOTE_CHECKPOINT, &cs->keys, reterr));
	return note_keys_add(cs->keys, key, reterr);
}

static int start(struct checkpoints *cs, int dir, struct cede_error *reterr) {
	struct cede_error err = {0};

	int r = file_open_beneath(dir, CUSTODY_CHECKPOINTS, O_RDONLY, &cs->fd, &err);
	if (r < 0 && err.sys == ENOENT)
		return CEDE_OK;
	if (r < 0) {
		cede_error_within(&err, CUSTODY_CHECKPOINTS);
		if (reterr != NULL)
			*reterr = err;
		return r;
	}
	return load_key(cs, dir, reterr);
}

int checkpoints_open(int host_dir, struct checkpoints **ret, struct cede_error *reterr) {
	struct checkpoints *cs = calloc(1, sizeof *cs);

	if (cs == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	cs->fd = -1;
	int r = start(cs, host_dir, reterr);
	if (r < 0)
		checkpoints_close(cs);
	else
		*ret = cs;
	return r;
}

void checkpoints_close(struct checkpoints *cs) {
	if (cs == NULL)
		return;
	fd_closep(&cs->fd);
	note_keys_free(cs->keys);
	free(cs);
}

void checkpoints_closep(struct checkpoints **cs) {
	checkpoints_close(*cs);
}

/* Moves the window on until the next note is wholly in it, unless it is longer than one can be. */
static int look_ahead(struct checkpoints *cs, struct cede_error *reterr) {
	size_t got;

	if (cs->end || cs->len - cs->at >= AHEAD)
		return CEDE_OK;
	cs->len -= cs->at;
	memmove(cs->window, cs->window + cs->at, cs->len);
	cs->at = 0;
	CEDE_TRY(file_pread_full(
		cs->fd, cs->window + cs->len, WINDOW - cs->len, cs->offset, &got, reterr));
	cs->end = got < WINDOW - cs->len;
	cs->offset += got;
	cs->len += got;
	return CEDE_OK;
}

static int cut_note(
	struct checkpoints *cs, struct slice *ret, bool *ret_there, struct cede_error *reterr) {
	*ret_there = false;
	while (!*ret_there && (!cs->end || cs->at < cs->len)) {
		CEDE_TRY(look_ahead(cs, reterr));
		struct slice rest = slice_of(cs->window + cs->at, cs->len - cs->at);
		while (rest.len > 0 && rest.data[0] == '\n')
			rest = slice_of(rest.data + 1, rest.len - 1);
		cs->at = cs->len - rest.len;
		if (!cs->end && rest.len < AHEAD)
			continue; /* of what is behind empty lines all must be there, too */
		*ret_there = checkpoint_next(&rest, ret);
		cs->at = cs->len - rest.len;
	}
	return CEDE_OK;
}

int checkpoints_next(struct checkpoints *cs, struct checkpoint *ret, bool *ret_there,
	struct cede_error *reterr) {
	struct slice note = SLICE_NONE;
	struct checkpoint c;
	bool there = false;

	*ret_there = false;
	if (cs->fd < 0)
		return CEDE_OK;
	CEDE_TRY(cut_note(cs, &note, &there, reterr));
	if (!there)
		return CEDE_OK;
	if (note.len > CHECKPOINT_MAX)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "longer than a checkpoint can be");
	if (checkpoint_verify(cs->keys, note, &c, reterr) < 0)
		return CEDE_ERR_INPUT;
	if (c.size <= cs->last)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT,
			"of no more events than the one before it: out of its order");
	cs->last = c.size;
	*ret = c;
	*ret_there = true;
	return CEDE_OK;
}
