/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/purge/page.h"

#include "base/html.h"

static const char top[] =
	"<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
	"<title>Sanitization certificate</title><style>\n"
	"body{font:11pt/1.4 serif;max-width:46em;margin:2em auto;padding:0 1em}"
	"h1{font-size:18pt;border-bottom:2px solid}table{border-collapse:collapse;width:100%}"
	"td,th{border:1px solid #888;padding:.3em .6em;text-align:left;vertical-align:top;"
	"overflow-wrap:anywhere}th{width:30%;background:#eee}"
	"pre{font-size:8pt;white-space:pre-wrap;overflow-wrap:anywhere;border:1px solid #888;"
	"padding:.5em}.line{border-bottom:1px solid;height:2.4em}"
	"@media print{body{margin:0}}\n"
	"</style></head><body><h1>Sanitization certificate</h1>\n"
	"<p>What was wiped on this host when it was taken out of service, how strongly, and what "
	"remains. File overwriting is a technique applied to files: it is no sanitization of a "
	"medium, and says nothing about flash memory below the file system, snapshots, backups, or "
	"copies that other programs made.</p>\n<table>\n";

static const char middle[] =
	"</table>\n<h2>By hand</h2><table>"
	"<tr><th>Performed by</th><td class=\"line\"></td></tr>"
	"<tr><th>Date, place</th><td class=\"line\"></td></tr>"
	"<tr><th>Destination of the media</th><td class=\"line\"></td></tr>"
	"<tr><th>Verified by</th><td class=\"line\"></td></tr></table>\n"
	"<h2>The signed note</h2>\n<p>To verify: save the text below as <code>certificate</code>, "
	"then</p>\n<pre>sed '/^$/,$d' certificate &gt; body\n"
	"tail -n1 certificate | awk '{print $NF}' | base64 -d | tail -c +5 &gt; sig\n"
	"openssl x509 -in agent.pem -pubkey -noout &gt; agent.pub\n"
	"openssl dgst -sha256 -verify agent.pub -signature sig body</pre>\n<pre>";

int page_write(const struct statement_field *fields, size_t count, struct slice note,
	struct buf *out, struct cede_error *reterr) {
	CEDE_TRY(buf_add_str(out, top, reterr));
	for (size_t i = 0; i < count; i++) {
		CEDE_TRY(buf_addf(out, reterr, "<tr><th>%s</th><td>", fields[i].key));
		CEDE_TRY(html_escape(fields[i].value, out, reterr));
		CEDE_TRY(buf_add_str(out, "</td></tr>\n", reterr));
	}
	CEDE_TRY(buf_add_str(out, middle, reterr));
	CEDE_TRY(html_escape(note, out, reterr));
	return buf_add_str(out, "</pre></body></html>\n", reterr);
}
