/* SPDX-License-Identifier: Apache-2.0 */
#include "receiver/handshake.h"

#include <gnutls/abstract.h>
#include <gnutls/x509.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/cleanup.h"

#define LONGEST_MS 20000

struct client {
	gnutls_session_t session;
	gnutls_certificate_credentials_t credentials;
	gnutls_x509_crt_t *cas;
	unsigned ca_count;
	bool *asked; /* for a certificate of cas[i] */
};

static void client_done(struct client *c) {
	if (c->session != NULL)
		gnutls_deinit(c->session);
	if (c->credentials != NULL)
		gnutls_certificate_free_credentials(c->credentials);
	for (unsigned i = 0; i < c->ca_count; i++)
		gnutls_x509_crt_deinit(c->cas[i]);
	gnutls_free(c->cas);
	free(c->asked);
}

static int library_failed(const char *what, int code, struct cede_error *reterr) {
	return CEDE_FAIL(reterr, CEDE_ERR_CRYPTO, "%s: %s", what, gnutls_strerror(code));
}

/* Called with the names of the CAs whose certificates the server takes; shows it none. */
static int on_request(gnutls_session_t session, const gnutls_datum_t *names, int count,
	const gnutls_pk_algorithm_t *algorithms, int algorithm_count, gnutls_pcert_st **pcert,
	unsigned *pcert_count, gnutls_privkey_t *key) {
	struct client *c = gnutls_session_get_ptr(session);

	(void)algorithms;
	(void)algorithm_count;
	for (unsigned i = 0; i < c->ca_count; i++) {
		gnutls_datum_t own;
		if (gnutls_x509_crt_get_raw_dn(c->cas[i], &own) < 0)
			continue;
		for (int n = 0; n < count; n++)
			c->asked[i] = c->asked[i] ||
				(names[n].size == own.size &&
					memcmp(names[n].data, own.data, own.size) == 0);
		gnutls_free(own.data);
	}
	*pcert = NULL;
	*pcert_count = 0;
	*key = NULL;
	return 0;
}

static int set_up(struct client *c, struct slice ca, int fd, struct cede_error *reterr) {
	const gnutls_datum_t pem = {(unsigned char *)(uintptr_t)ca.data, (unsigned)ca.len};

	int r = gnutls_x509_crt_list_import2(&c->cas, &c->ca_count, &pem, GNUTLS_X509_FMT_PEM, 0);
	if (r == GNUTLS_E_MEMORY_ERROR)
		return CEDE_FAIL_MEMORY(reterr);
	if (r < 0)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT,
			"clients: {ca: ...}: %s: name the PEM file with the CA of the hosts' certificates",
			gnutls_strerror(r));
	c->asked = calloc(c->ca_count, sizeof *c->asked);
	if (c->asked == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	r = gnutls_certificate_allocate_credentials(&c->credentials);
	if (r == 0)
		r = gnutls_init(&c->session, GNUTLS_CLIENT | GNUTLS_NO_SIGNAL);
	if (r == 0)
		r = gnutls_set_default_priority(c->session);
	if (r == 0)
		r = gnutls_credentials_set(c->session, GNUTLS_CRD_CERTIFICATE, c->credentials);
	if (r < 0)
		return library_failed("set up a TLS client", r, reterr);
	gnutls_certificate_set_retrieve_function2(c->credentials, on_request);
	gnutls_session_set_ptr(c->session, c);
	gnutls_transport_set_int(c->session, fd);
	gnutls_handshake_set_timeout(c->session, LONGEST_MS);
	return CEDE_OK;
}

static int shake_hands(struct client *c, struct cede_error *reterr) {
	int r;

	do
		r = gnutls_handshake(c->session);
	while (r < 0 && gnutls_error_is_fatal(r) == 0);
	if (r < 0)
		return library_failed("the server's TLS does not work", r, reterr);
	for (unsigned i = 0; i < c->ca_count; i++)
		if (!c->asked[i])
			return CEDE_FAIL(reterr, CEDE_ERR_CRYPTO,
				"the server's TLS does not know certificate %u of clients.ca", i + 1);
	(void)gnutls_bye(c->session, GNUTLS_SHUT_WR);
	return CEDE_OK;
}

int handshake_try(struct MHD_Daemon *daemon, struct slice ca, struct cede_error *reterr) {
	const struct sockaddr_in from = {
		.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	CLEANUP(client_done) struct client c = {0};
	CLEANUP(fd_closep) int ours = -1;
	int ends[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
		return CEDE_FAIL_SYS(reterr, "make a socket pair");
	ours = ends[0];
	/* the other end is the library's, also if it refuses it */
	if (MHD_add_connection(daemon, ends[1], (const struct sockaddr *)&from, sizeof from) !=
		MHD_YES)
		return CEDE_FAIL(reterr, CEDE_ERR_CRYPTO, "the server takes no connection");
	CEDE_TRY(set_up(&c, ca, ours, reterr));
	return shake_hands(&c, reterr);
}
