# SPDX-License-Identifier: Apache-2.0
"""Checks an SPDX 2.3 document in JSON against the rules of the specification that concern what ours hold (its sections 6, 7, 8, 11)."""

import hashlib
import re

from tap import check, equal

ID = r"SPDXRef-[A-Za-z0-9.-]+"
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
ACTOR = r"(Person|Organization|Tool): \S.*"
DIGITS = {"SHA1": 40, "SHA256": 64}
RELATIONS = {"DESCRIBES", "DYNAMIC_LINK", "BUILD_TOOL_OF", "CONTAINS", "DEPENDS_ON"}
LICENCE = r"NOASSERTION|NONE|[A-Za-z0-9.+-]+( (AND|OR|WITH) [A-Za-z0-9.+-]+)*"
KNOWN = {
    "document": {"spdxVersion", "dataLicense", "SPDXID", "name", "documentNamespace", "creationInfo", "packages", "files", "relationships"},
    "package": {"SPDXID", "name", "versionInfo", "supplier", "downloadLocation", "filesAnalyzed", "packageVerificationCode", "hasFiles", "sourceInfo",
                "licenseConcluded", "licenseDeclared", "licenseInfoFromFiles", "copyrightText", "primaryPackagePurpose", "externalRefs"},
    "file": {"SPDXID", "fileName", "checksums", "licenseConcluded", "licenseInfoInFiles", "copyrightText"},
}


def match(pattern, text, what):
    check(isinstance(text, str) and re.fullmatch(pattern, text), f"{what}: {text!r}")


def check_document(d):
    check(set(d) <= KNOWN["document"], f"unknown fields {set(d) - KNOWN['document']}")
    equal(d["spdxVersion"], "SPDX-2.3", "spdxVersion")
    equal(d["dataLicense"], "CC0-1.0", "dataLicense")
    equal(d["SPDXID"], "SPDXRef-DOCUMENT", "SPDXID")
    match(r"\S+", d["name"], "name")
    match(r"[a-z]+://[^#\s]+", d["documentNamespace"], "documentNamespace: a URI without fragment")
    match(TIME, d["creationInfo"]["created"], "created")
    for creator in d["creationInfo"]["creators"]:
        match(ACTOR, creator, "creator")
    ids = ["SPDXRef-DOCUMENT"] + [e["SPDXID"] for e in d["packages"] + d["files"]]
    equal(len(ids), len(set(ids)), "identifiers are unique")
    for element in d["packages"]:
        check_package(element, d)
    for element in d["files"]:
        check_file(element)
    for relation in d["relationships"]:
        check(relation["relationshipType"] in RELATIONS, f"relationship {relation}")
        for end in ("spdxElementId", "relatedSpdxElement"):
            check(relation[end] in ids, f"{relation[end]} is not in the document")
    described = [r for r in d["relationships"] if r["relationshipType"] == "DESCRIBES" and r["spdxElementId"] == "SPDXRef-DOCUMENT"]
    equal(len(described), 1, "what the document describes")


def check_package(p, d):
    check(set(p) <= KNOWN["package"], f"unknown fields {set(p) - KNOWN['package']}")
    match(ID, p["SPDXID"], "SPDXID")
    match(r"\S+", p["name"], "name")
    match(r"NOASSERTION|NONE|\w+:\S+", p["downloadLocation"], "downloadLocation")
    match(f"NOASSERTION|{ACTOR}", p["supplier"], "supplier")
    for field in ("licenseConcluded", "licenseDeclared"):
        match(LICENCE, p[field], field)
    for ref in p.get("externalRefs", []):
        match(r"pkg:deb/debian/[a-z0-9.+-]+@[^\s?]+\?arch=\w+", ref["referenceLocator"], "purl")
    if not p["filesAnalyzed"]:
        check("packageVerificationCode" not in p and "hasFiles" not in p and "licenseInfoFromFiles" not in p, "of a package whose files were not looked at")
        return
    sums = sorted(c["checksumValue"] for f in d["files"] for c in f["checksums"] if c["algorithm"] == "SHA1")
    equal(p["packageVerificationCode"]["packageVerificationCodeValue"], hashlib.sha1("".join(sums).encode()).hexdigest(), "verification code")
    equal(sorted(p["hasFiles"]), sorted(f["SPDXID"] for f in d["files"]), "files of the package")


def check_file(f):
    check(set(f) <= KNOWN["file"], f"unknown fields {set(f) - KNOWN['file']}")
    match(ID, f["SPDXID"], "SPDXID")
    match(r"\./[^\0]+", f["fileName"], "fileName")
    check({c["algorithm"] for c in f["checksums"]} >= {"SHA1"}, "SHA-1 is mandatory")
    for c in f["checksums"]:
        match(rf"[0-9a-f]{{{DIGITS[c['algorithm']]}}}", c["checksumValue"], "checksum")
    match(LICENCE, f["licenseConcluded"], "licenseConcluded")


def related(d, kind):
    """The packages that have this relation to the one that is described."""
    ids = {r[end] for r in d["relationships"] if r["relationshipType"] == kind for end in ("spdxElementId", "relatedSpdxElement")}
    main = next(r["relatedSpdxElement"] for r in d["relationships"] if r["relationshipType"] == "DESCRIBES")
    return [p for p in d["packages"] if p["SPDXID"] in ids - {main}]
