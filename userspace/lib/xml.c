/* SPDX-License-Identifier: GPL-2.0 */
/* XML answers of object stores.  No state is shared; any thread may parse. */
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <string.h>

#include <expat.h>

#include "xml.h"

#define MAX_DEPTH	16
#define MAX_PATH	512
#define MAX_TEXT	16384	/* a key has 1024 bytes */

struct document {
	XML_Parser parser;
	int (*element)(void *arg, const char *path, const char *text);
	void *arg;
	char path[MAX_PATH];
	unsigned int depth;
	char text[MAX_TEXT];
	size_t len;
	bool closed;		/* @text is that of an element which has ended */
	int ret;
};

static void stop(struct document *doc, int ret)
{
	doc->ret = ret;
	XML_StopParser(doc->parser, XML_FALSE);
}

static void XMLCALL on_start(void *arg, const XML_Char *name, const XML_Char **attrs)
{
	struct document *doc = arg;
	size_t len = strlen(doc->path), n = strlen(name);

	if (doc->ret)
		return;
	if (++doc->depth > MAX_DEPTH || n > sizeof(doc->path) - len - 2) {
		stop(doc, -EBADMSG);
		return;
	}
	if (len)
		doc->path[len++] = '/';
	memcpy(doc->path + len, name, n + 1);
	doc->len = 0;
	doc->closed = false;
}

static void XMLCALL on_end(void *arg, const XML_Char *name)
{
	struct document *doc = arg;
	char *slash;
	int ret;

	/* That of an empty element still comes. */
	if (doc->ret)
		return;
	doc->text[doc->closed ? 0 : doc->len] = '\0';
	ret = doc->element(doc->arg, doc->path, doc->text);
	if (ret) {
		stop(doc, ret);
		return;
	}
	slash = strrchr(doc->path, '/');
	*(slash ? slash : doc->path) = '\0';
	doc->depth--;
	doc->closed = true;
}

static void XMLCALL on_text(void *arg, const XML_Char *text, int len)
{
	struct document *doc = arg;

	if (doc->closed || doc->ret)
		return;
	if ((size_t)len > sizeof(doc->text) - 1 - doc->len) {
		stop(doc, -EBADMSG);
		return;
	}
	memcpy(doc->text + doc->len, text, len);
	doc->len += len;
}

static void XMLCALL on_doctype(void *arg, const XML_Char *name, const XML_Char *sysid,
			       const XML_Char *pubid, int has_subset)
{
	stop(arg, -EBADMSG);
}

int qc2_xml_parse(const void *buf, size_t len,
		  int (*element)(void *arg, const char *path, const char *text), void *arg)
{
	struct document doc = { .element = element, .arg = arg };

	if (len > INT_MAX)
		return -EBADMSG;
	doc.parser = XML_ParserCreate(NULL);
	if (!doc.parser)
		return -ENOMEM;
	XML_SetUserData(doc.parser, &doc);
	XML_SetElementHandler(doc.parser, on_start, on_end);
	XML_SetCharacterDataHandler(doc.parser, on_text);
	XML_SetStartDoctypeDeclHandler(doc.parser, on_doctype);
	if (XML_Parse(doc.parser, buf, len, 1) != XML_STATUS_OK && !doc.ret)
		doc.ret = XML_GetErrorCode(doc.parser) == XML_ERROR_NO_MEMORY ? -ENOMEM :
			  -EBADMSG;
	XML_ParserFree(doc.parser);
	return doc.ret;
}
