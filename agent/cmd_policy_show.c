/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "agent/cmd_policy_internal.h"
#include "base/cleanup.h"
#include "policy/show.h"

#define SHOW_MAX (4U << 20)

static int add_key(void *ctx, const char *key, const char *value, struct cede_error *reterr) {
	if (json_object_set_new(ctx, key, json_string(value)) < 0)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "%s: no UTF-8", key);
	return CEDE_OK;
}

static int show_json(const struct policy *policy, struct cede_error *reterr) {
	json_t *keys = json_object();

	if (keys == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	int r = policy_keys(policy, add_key, keys, reterr);
	if (r == CEDE_OK)
		print_json(json_pack("{s:s, s:o}", "schema", "cede-policy-show/1", "keys", keys));
	else
		json_decref(keys);
	return r;
}

int cmd_policy_show(const struct policy_words *w) {
	CLEANUP(policy_freep) struct policy *policy = NULL;
	CLEANUP(buf_done) struct buf text = BUF_INIT(SHOW_MAX);
	struct cede_error err = {0};
	int code = policy_load_for(w, w->policy, &policy);

	if (policy == NULL)
		return code;
	int r = w->json ? show_json(policy, &err) : policy_show(policy, &text, &err);
	if (r < 0)
		return policy_cannot(w, r, &err);
	(void)fwrite(text.data, 1, text.len, stdout);
	return fflush(stdout) == 0 ? EXIT_FINE : EXIT_CANNOT;
}
