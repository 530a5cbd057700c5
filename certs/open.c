/* SPDX-License-Identifier: Apache-2.0 */
#include "certs/open.h"

#include <openssl/asn1.h>
#include <openssl/bio.h>
#include <openssl/cms.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "certs/ossl.h"
#include "certs/seal.h"

#define FRAME_MAX  (4U << 20) /* what the envelope adds: recipients, heads of chunks */
#define SEALED_MAX (SEAL_PLAINTEXT_MAX + FRAME_MAX)
#define NONCE_SIZE 12
#define TAG_SIZE   16

/* Takes exactly these bytes from the front. */
static bool take_exactly(struct slice *rest, struct slice expected) {
	if (rest->len < expected.len || memcmp(rest->data, expected.data, expected.len) != 0)
		return false;
	*rest = slice_of(rest->data + expected.len, rest->len - expected.len);
	return true;
}

static bool take_bytes(struct slice *rest, size_t len) {
	if (rest->len < len)
		return false;
	*rest = slice_of(rest->data + len, rest->len - len);
	return true;
}

/* Takes one element of known length whose first byte is identifier. */
static bool take_element(struct slice *rest, uint8_t identifier) {
	const uint8_t *at = rest->data;
	long len;
	int tag, class;

	if (rest->len < 2 || at[0] != identifier)
		return false;
	int flags = ASN1_get_object(&at, &len, &tag, &class, (long)rest->len);
	if ((flags & 0x81) != 0) /* an error, or an indefinite length */
		return false;
	return take_bytes(rest, (size_t)(at - rest->data) + (size_t)len);
}

/* The frame that seal.c writes, byte for byte but for what differs each time: OpenSSL itself would
 * take other ciphers, short tags and missing ones (CVE-2026-34182). */
static bool frame_valid(struct slice rest) {
	/* ContentInfo { authEnvelopedData, [0] AuthEnvelopedData { version 0 */
	static const uint8_t head[] = {0x30, 0x80, 0x06, 0x0b, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d,
		0x01, 0x09, 0x10, 0x01, 0x17, 0xa0, 0x80, 0x30, 0x80, 0x02, 0x01, 0x00};
	/* EncryptedContentInfo { data, { aes256-GCM, { nonce of 12 bytes */
	static const uint8_t content[] = {0x30, 0x80, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7,
		0x0d, 0x01, 0x07, 0x01, 0x30, 0x1e, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03,
		0x04, 0x01, 0x2e, 0x30, 0x11, 0x04, NONCE_SIZE};
	/* tag of 16 bytes } }, [0] encrypted content in pieces */
	static const uint8_t pieces[] = {0x02, 0x01, TAG_SIZE, 0xa0, 0x80};
	static const uint8_t tag[] = {0, 0, 0, 0, 0x04, TAG_SIZE};
	static const uint8_t end[] = {0, 0, 0, 0, 0, 0};

	if (!take_exactly(&rest, slice_of(head, sizeof head)) ||
		!take_element(&rest, 0x31) || /* recipients */
		!take_exactly(&rest, slice_of(content, sizeof content)) ||
		!take_bytes(&rest, NONCE_SIZE) ||
		!take_exactly(&rest, slice_of(pieces, sizeof pieces)))
		return false;
	while (take_element(&rest, 0x04))
		;
	return take_exactly(&rest, slice_of(tag, sizeof tag)) && take_bytes(&rest, TAG_SIZE) &&
		take_exactly(&rest, slice_of(end, sizeof end)) && rest.len == 0;
}

static int sink_write(BIO *bio, const char *data, size_t len, size_t *ret_len) {
	if (buf_add(BIO_get_data(bio), data, len, NULL) < 0)
		return 0;
	*ret_len = len;
	return 1;
}

static long sink_ctrl(BIO *bio, int command, long number, void *pointer) {
	(void)bio;
	(void)number;
	(void)pointer;
	return command == BIO_CTRL_FLUSH ? 1 : 0;
}

static int sink_create(BIO *bio) {
	BIO_set_init(bio, 1);
	return 1;
}

static void method_freep(BIO_METHOD **method) {
	BIO_meth_free(*method);
	*method = NULL;
}

static bool is_recipient(CMS_ContentInfo *cms, X509 *cert) {
	STACK_OF(CMS_RecipientInfo) *infos = CMS_get0_RecipientInfos(cms);

	for (int i = 0; i < sk_CMS_RecipientInfo_num(infos); i++) {
		CMS_RecipientInfo *info = sk_CMS_RecipientInfo_value(infos, i);
		int type = CMS_RecipientInfo_type(info);
		if (type == CMS_RECIPINFO_TRANS && CMS_RecipientInfo_ktri_cert_cmp(info, cert) == 0)
			return true;
		if (type != CMS_RECIPINFO_AGREE)
			continue;
		STACK_OF(CMS_RecipientEncryptedKey) *keys = CMS_RecipientInfo_kari_get0_reks(info);
		for (int k = 0; k < sk_CMS_RecipientEncryptedKey_num(keys); k++)
			if (CMS_RecipientEncryptedKey_cert_cmp(
				    sk_CMS_RecipientEncryptedKey_value(keys, k), cert) == 0)
				return true;
	}
	return false;
}

/* Plaintext comes before its tag is checked: into memory, that is cleansed, not into the file. */
static int decrypt(struct slice sealed, EVP_PKEY *key, X509 *cert, struct buf *out,
	struct cede_error *reterr) {
	CLEANUP(method_freep) BIO_METHOD *method = BIO_meth_new(BIO_TYPE_SOURCE_SINK, "plaintext");
	CLEANUP(ossl_bio_freep) BIO *in = BIO_new_mem_buf(sealed.data, (int)sealed.len);
	CLEANUP(ossl_cms_freep) CMS_ContentInfo *cms = NULL;

	if (method == NULL || in == NULL || BIO_meth_set_write_ex(method, sink_write) != 1 ||
		BIO_meth_set_ctrl(method, sink_ctrl) != 1 ||
		BIO_meth_set_create(method, sink_create) != 1)
		return OSSL_FAIL(reterr, "start opening");
	CLEANUP(ossl_bio_freep) BIO *sink = BIO_new(method);
	if (sink == NULL)
		return OSSL_FAIL(reterr, "start opening");
	BIO_set_data(sink, out);
	cms = d2i_CMS_bio(in, NULL);
	if (cms == NULL)
		return OSSL_FAIL_AS(reterr, CEDE_ERR_INPUT, "not a sealed bundle");
	if (!is_recipient(cms, cert))
		return CEDE_FAIL(reterr, CEDE_ERR_REFUSED,
			"sealed to other certificates: take the key and certificate of a recipient");
	if (CMS_decrypt(cms, key, cert, NULL, sink, CMS_BINARY) == 1)
		return CEDE_OK;
	return OSSL_FAIL_AS(reterr, CEDE_ERR_REFUSED,
		"it does not open: the key is another one, or the bundle was changed or damaged");
}

static int load(int fd, struct buf *out, struct cede_error *reterr) {
	struct stat st;
	uint8_t *at;
	size_t len;

	if (fstat(fd, &st) < 0)
		return CEDE_FAIL_SYS(reterr, "stat");
	if (!S_ISREG(st.st_mode))
		return CEDE_FAIL(reterr, CEDE_ERR_REFUSED, "not a regular file");
	if (st.st_size > SEALED_MAX)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "larger than a sealed bundle can be");
	CEDE_TRY(buf_room(out, (size_t)st.st_size, &at, reterr));
	CEDE_TRY(file_pread_full(fd, at, (size_t)st.st_size, 0, &len, reterr));
	buf_grew(out, len);
	return CEDE_OK;
}

static int check_empty(int fd, struct cede_error *reterr) {
	struct stat st;

	if (fstat(fd, &st) < 0)
		return CEDE_FAIL_SYS(reterr, "stat");
	if (!S_ISREG(st.st_mode) || st.st_size != 0)
		return CEDE_FAIL(reterr, CEDE_ERR_BUG, "the output is no empty file");
	return CEDE_OK;
}

int seal_open(int sealed_fd, EVP_PKEY *key, X509 *cert, int out_fd, struct cede_error *reterr) {
	CLEANUP(buf_done) struct buf sealed = BUF_INIT(SEALED_MAX);
	CLEANUP(buf_done) struct buf plain = BUF_INIT(SEALED_MAX);
	uint8_t *at;

	CEDE_TRY(check_empty(out_fd, reterr));
	CEDE_TRY(load(sealed_fd, &sealed, reterr));
	if (!frame_valid(buf_slice(&sealed)))
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT,
			"not sealed as " SEAL_SUITE
			" (CMS AuthEnvelopedData, AES-256-GCM), or cut off");
	CEDE_TRY(buf_room(&plain, sealed.len, &at, reterr)); /* all at once: no copies left behind */
	CEDE_TRY(decrypt(buf_slice(&sealed), key, cert, &plain, reterr));
	int r = file_pwrite_all(out_fd, plain.data, plain.len, 0, reterr);
	if (r < 0 && ftruncate(out_fd, 0) < 0)
		cede_error_within(reterr, "the output could not be emptied");
	return r;
}
