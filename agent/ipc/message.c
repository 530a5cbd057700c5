/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/ipc/message.h"

#include "base/check.h"

static const char magic[4] = "CEDE";

static const struct ipc_rule courier_rules[] = {

#define X(id, number, phase, max, fds) {number, phase, max, fds},
	IPC_MESSAGES(X)
#undef X
};

static const struct ipc_rule *rule_of(const struct ipc_rule *rules, size_t n, uint16_t type) {
	for (size_t i = 0; i < n; i++)
		if (rules[i].type == type)
			return &rules[i];
	return NULL;
}

void ipc_start(struct ipc_writer *w, enum ipc_type type) {
	ipc_start_number(w, (uint16_t)type);
}

void ipc_start_number(struct ipc_writer *w, uint16_t type) {
	memcpy(w->bytes, magic, sizeof magic);
	put_le16(w->bytes + 4, IPC_VERSION);
	put_le16(w->bytes + 6, type);
	w->len = IPC_HEADER;
	w->too_long = false;
}

void ipc_put_bytes(struct ipc_writer *w, const void *data, size_t len) {
	if (len > sizeof w->bytes - w->len) {
		w->too_long = true;
		return;
	}
	if (len > 0)
		memcpy(w->bytes + w->len, data, len);
	w->len += len;
}

void ipc_put_u8(struct ipc_writer *w, uint8_t v) {
	ipc_put_bytes(w, &v, 1);
}

void ipc_put_u16(struct ipc_writer *w, uint16_t v) {
	uint8_t b[2];

	put_le16(b, v);
	ipc_put_bytes(w, b, sizeof b);
}

void ipc_put_u32(struct ipc_writer *w, uint32_t v) {
	uint8_t b[4];

	put_le32(b, v);
	ipc_put_bytes(w, b, sizeof b);
}

void ipc_put_u64(struct ipc_writer *w, uint64_t v) {
	uint8_t b[8];

	put_le64(b, v);
	ipc_put_bytes(w, b, sizeof b);
}

void ipc_put_text(struct ipc_writer *w, struct slice text) {
	if (text.len > UINT16_MAX) {
		w->too_long = true;
		return;
	}
	ipc_put_u16(w, (uint16_t)text.len);
	ipc_put_bytes(w, text.data, text.len);
}

int ipc_open_by(const struct ipc_rule *rules, size_t n, struct slice packet, size_t fds,
	bool from_child, enum ipc_phase phase, struct ipc_reader *ret, struct cede_error *reterr) {
	if (packet.len < IPC_HEADER || memcmp(packet.data, magic, sizeof magic) != 0)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "message: no header");
	if (get_le16(packet.data + 4) != IPC_VERSION)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT,
			"message: version %u, not %d: the two programs are of different builds",
			get_le16(packet.data + 4), IPC_VERSION);
	uint16_t type = get_le16(packet.data + 6);
	const struct ipc_rule *rule = rule_of(rules, n, type);
	if (rule == NULL || (type % 2 == 1) != from_child)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "message: type %u is not this side's", type);
	if ((rule->phase & phase) == 0)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "message: type %u is out of turn", type);
	if (packet.len - IPC_HEADER > rule->max)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "message: type %u is too long", type);
	if (fds != rule->fds)
		return CEDE_FAIL(
			reterr, CEDE_ERR_INPUT, "message: type %u with %zu descriptors", type, fds);
	*ret = (struct ipc_reader){.number = type,
		.rest = slice_of(packet.data + IPC_HEADER, packet.len - IPC_HEADER)};
	return CEDE_OK;
}

int ipc_open(struct slice packet, size_t fds, bool from_courier, enum ipc_phase phase,
	struct ipc_reader *ret, struct cede_error *reterr) {
	CEDE_TRY(ipc_open_by(courier_rules, ARRAY_LENGTH(courier_rules), packet, fds, from_courier,
		phase, ret, reterr));
	ret->type = (enum ipc_type)ret->number;
	return CEDE_OK;
}

void ipc_get_bytes(struct ipc_reader *r, void *to, size_t len) {
	if (len > r->rest.len) {
		r->bad = true;
		r->rest.len = 0;
		memset(to, 0, len);
		return;
	}
	if (len > 0)
		memcpy(to, r->rest.data, len);
	r->rest = slice_of(r->rest.data + len, r->rest.len - len);
}

uint8_t ipc_get_u8(struct ipc_reader *r) {
	uint8_t b[1];

	ipc_get_bytes(r, b, sizeof b);
	return b[0];
}

uint16_t ipc_get_u16(struct ipc_reader *r) {
	uint8_t b[2];

	ipc_get_bytes(r, b, sizeof b);
	return get_le16(b);
}

uint32_t ipc_get_u32(struct ipc_reader *r) {
	uint8_t b[4];

	ipc_get_bytes(r, b, sizeof b);
	return get_le32(b);
}

uint64_t ipc_get_u64(struct ipc_reader *r) {
	uint8_t b[8];

	ipc_get_bytes(r, b, sizeof b);
	return get_le64(b);
}

struct slice ipc_get_text(struct ipc_reader *r) {
	size_t len = ipc_get_u16(r);

	if (len > r->rest.len) {
		r->bad = true;
		r->rest.len = 0;
		return SLICE_NONE;
	}
	struct slice text = slice_of(r->rest.data, len);
	r->rest = slice_of(r->rest.data + len, r->rest.len - len);
	return text;
}

int ipc_end(const struct ipc_reader *r, struct cede_error *reterr) {
	if (r->bad)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "message: type %d is too short", r->number);
	if (r->rest.len > 0)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT,
			"message: type %d has bytes behind its end", r->number);
	return CEDE_OK;
}
