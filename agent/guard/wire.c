/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/guard/wire.h"

#include "base/check.h"

static const struct ipc_rule rules[] = {

#define X(id, number, max, fds) {number, IPC_WORK_PHASE, max, fds},
	GUARD_MESSAGES(X)
#undef X
};

void guard_put(struct ipc_writer *w, enum guard_message type) {
	ipc_start_number(w, (uint16_t)type);
}

int guard_get(struct slice packet, size_t fds, bool from_guard, enum guard_message *ret_type,
	struct ipc_reader *ret, struct cede_error *reterr) {
	CEDE_TRY(ipc_open_by(
		rules, ARRAY_LENGTH(rules), packet, fds, from_guard, IPC_WORK_PHASE, ret, reterr));
	*ret_type = (enum guard_message)ret->number;
	return CEDE_OK;
}

int guard_get_string(struct ipc_reader *r, char *out, size_t size, struct cede_error *reterr) {
	struct slice text = ipc_get_text(r);

	if (text.len >= size || (text.len > 0 && memchr(text.data, 0, text.len) != NULL))
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT,
			"message: type %d has a text that is too long or no text", r->number);
	if (text.len > 0)
		memcpy(out, text.data, text.len);
	out[text.len] = 0;
	return CEDE_OK;
}

void guard_put_attempt(struct ipc_writer *w, const struct guard_attempt *a) {
	guard_put(w, GUARD_ATTEMPT);
	ipc_put_u8(w, a->denied);
	ipc_put_u32(w, a->pid);
	ipc_put_u32(w, a->uid);
	ipc_put_u64(w, a->count);
	ipc_put_u16(w, a->source);
	ipc_put_u64(w, a->dev);
	ipc_put_u64(w, a->ino);
	ipc_put_text(w, slice_str(a->path));
	ipc_put_text(w, slice_str(a->exe));
}

int guard_get_attempt(struct ipc_reader *r, struct guard_attempt *ret, struct cede_error *reterr) {
	uint8_t denied = ipc_get_u8(r);

	ret->denied = denied == 1;
	ret->pid = ipc_get_u32(r);
	ret->uid = ipc_get_u32(r);
	ret->count = ipc_get_u64(r);
	ret->source = ipc_get_u16(r);
	ret->dev = ipc_get_u64(r);
	ret->ino = ipc_get_u64(r);
	CEDE_TRY(guard_get_string(r, ret->path, sizeof ret->path, reterr));
	CEDE_TRY(guard_get_string(r, ret->exe, sizeof ret->exe, reterr));
	CEDE_TRY(ipc_end(r, reterr));
	if (denied > 1 || ret->count == 0)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "message: an attempt that is none");
	return CEDE_OK;
}
