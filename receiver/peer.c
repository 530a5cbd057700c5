/* SPDX-License-Identifier: Apache-2.0 */
#include "receiver/peer.h"

#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"

#define SUBJECT_HEADER "X-Client-Subject"

static void free_certificate(gnutls_x509_crt_t *certificate) {
	if (*certificate != NULL)
		gnutls_x509_crt_deinit(*certificate);
}

static int take_name(struct slice name, char host[HOST_ID_MAX + 1], struct cede_error *reterr) {
	if (!host_id_valid(name))
		return CEDE_FAIL(reterr, CEDE_ERR_REFUSED,
			"the certificate's common name is no host id (1 to 64 of A-Z a-z 0-9 . _ -)");
	memcpy(host, name.data, name.len);
	host[name.len] = 0;
	return CEDE_OK;
}

static int name_of_certificate(
	gnutls_x509_crt_t certificate, char host[HOST_ID_MAX + 1], struct cede_error *reterr) {
	char name[256], second[256];
	size_t size = sizeof name;
	size_t second_size = sizeof second;

	if (gnutls_x509_crt_get_dn_by_oid(
		    certificate, GNUTLS_OID_X520_COMMON_NAME, 0, 0, name, &size) < 0)
		return CEDE_FAIL(
			reterr, CEDE_ERR_REFUSED, "the client certificate has no common name");
	if (gnutls_x509_crt_get_dn_by_oid(
		    certificate, GNUTLS_OID_X520_COMMON_NAME, 1, 0, second, &second_size) >= 0)
		return CEDE_FAIL(reterr, CEDE_ERR_REFUSED,
			"the client certificate has several common names");
	return take_name(slice_of(name, size), host, reterr);
}

static int host_of_session(
	gnutls_session_t session, char host[HOST_ID_MAX + 1], struct cede_error *reterr) {
	gnutls_typed_vdata_st purpose = {
		GNUTLS_DT_KEY_PURPOSE_OID, (unsigned char *)(uintptr_t)GNUTLS_KP_TLS_WWW_CLIENT, 0};
	CLEANUP(free_certificate) gnutls_x509_crt_t certificate = NULL;
	unsigned count = 0;
	unsigned status = 0;

	if (gnutls_protocol_get_version(session) != GNUTLS_TLS1_3)
		return CEDE_FAIL(reterr, CEDE_ERR_REFUSED, "not TLS 1.3");
	const gnutls_datum_t *chain = gnutls_certificate_get_peers(session, &count);
	if (chain == NULL || count == 0)
		return CEDE_FAIL(reterr, CEDE_ERR_REFUSED, "the client showed no certificate");
	if (gnutls_certificate_verify_peers(session, &purpose, 1, &status) < 0 || status != 0)
		return CEDE_FAIL(reterr, CEDE_ERR_REFUSED,
			"the client's certificate does not verify (status %#x)", status);
	if (gnutls_x509_crt_init(&certificate) < 0 ||
		gnutls_x509_crt_import(certificate, &chain[0], GNUTLS_X509_FMT_DER) < 0)
		return CEDE_FAIL(reterr, CEDE_ERR_REFUSED, "the client's certificate can't be read");
	return name_of_certificate(certificate, host, reterr);
}

int peer_subject(struct slice subject, char host[HOST_ID_MAX + 1], struct cede_error *reterr) {
	uint8_t separator = subject.len > 0 && subject.data[0] == '/' ? '/' : ',';
	struct slice name = SLICE_NONE;
	struct slice rest = subject;

	/* escaped or quoted values don't belong in a host's certificate: refused, not guessed at */
	if (subject.len == 0 || subject.len > 1024 ||
		memchr(subject.data, '\\', subject.len) != NULL ||
		memchr(subject.data, '"', subject.len) != NULL ||
		memchr(subject.data, '+', subject.len) != NULL)
		return CEDE_FAIL(reterr, CEDE_ERR_REFUSED, "the subject has an unusual form");
	if (separator == '/')
		rest = slice_of(subject.data + 1, subject.len - 1);
	for (bool more = true; more;) {
		struct slice part = rest;
		struct slice tail = SLICE_NONE;
		more = slice_cut(rest, separator, &part, &tail);
		rest = tail;
		if (!slice_starts(part, "CN="))
			continue;
		if (name.data != NULL)
			return CEDE_FAIL(
				reterr, CEDE_ERR_REFUSED, "the subject has several common names");
		name = slice_of(part.data + 3, part.len - 3);
	}
	if (name.data == NULL)
		return CEDE_FAIL(reterr, CEDE_ERR_REFUSED, "the subject has no common name");
	return take_name(name, host, reterr);
}

static int count_subjects(void *ctx, enum MHD_ValueKind kind, const char *key, const char *value) {
	unsigned *count = ctx;

	(void)kind;
	(void)value;
	*count += strcasecmp(key, SUBJECT_HEADER) == 0;
	return MHD_YES;
}

static int host_of_front(const struct peer_rules *rules, struct MHD_Connection *c,
	char host[HOST_ID_MAX + 1], struct cede_error *reterr) {
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(c, MHD_CONNECTION_INFO_CONNECTION_FD);
	struct ucred who = {.uid = (uid_t)-1};
	socklen_t size = sizeof who;
	unsigned count = 0;

	if (info == NULL || getsockopt(info->connect_fd, SOL_SOCKET, SO_PEERCRED, &who, &size) < 0 ||
		(who.uid != 0 && who.uid != geteuid() && who.uid != rules->front_uid))
		return CEDE_FAIL(reterr, CEDE_ERR_REFUSED, "not the front's user (uid %u)", who.uid);
	(void)MHD_get_connection_values(
		c, MHD_HEADER_KIND, (MHD_KeyValueIterator)(void (*)(void))count_subjects, &count);
	const char *subject = MHD_lookup_connection_value(c, MHD_HEADER_KIND, SUBJECT_HEADER);
	if (count != 1 || subject == NULL)
		return CEDE_FAIL(reterr, CEDE_ERR_REFUSED,
			"the front gave %u headers " SUBJECT_HEADER ", not one", count);
	return peer_subject(slice_str(subject), host, reterr);
}

int peer_host(const struct peer_rules *rules, struct MHD_Connection *c, char host[HOST_ID_MAX + 1],
	struct cede_error *reterr) {
	if (rules->front)
		return host_of_front(rules, c, host, reterr);
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(c, MHD_CONNECTION_INFO_GNUTLS_SESSION);
	if (info == NULL || info->tls_session == NULL)
		return CEDE_FAIL(reterr, CEDE_ERR_REFUSED, "no TLS session");
	return host_of_session(info->tls_session, host, reterr);
}
