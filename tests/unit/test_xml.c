/* SPDX-License-Identifier: GPL-2.0 */
/* XML answers: what is told of a document, and what is refused. */
#include <errno.h>

#include "testing.h"
#include "xml.h"

static int to_log(void *arg, const char *path, const char *text)
{
	char *log = arg;

	snprintf(log + strlen(log), 512 - strlen(log), "%s=%s;", path, text);
	return strcmp(path, "a/stop") ? 0 : -ECANCELED;
}

static void gives(const char *xml, int ret, const char *expected)
{
	char log[512] = "";

	assert_int_equal(qc2_xml_parse(xml, strlen(xml), to_log, log), ret);
	assert_string_equal(log, expected);
}

static void test_documents(void **state)
{
	gives("<a/>", 0, "a=;");
	gives("<a>x<b>y&lt;</b>z<c> 1\n</c></a>", 0, "a/b=y<;a/c= 1\n;a=;");
	gives("\357\273\277<?xml version=\"1.0\"?><a xmlns=\"u:v\"><![CDATA[<&]]></a>", 0, "a=<&;");
	gives("<a><stop/><b/></a>", -ECANCELED, "a/stop=;");
	gives("", -EBADMSG, "");
	gives("no XML", -EBADMSG, "");
	gives("<a><b>1</b>", -EBADMSG, "a/b=1;");
	gives("<!DOCTYPE a [<!ENTITY b \"c\">]><a>&b;</a>", -EBADMSG, "");
}

static void test_limits(void **state)
{
	char xml[20200], log[512] = "";

	/* Nothing is told of an empty element that is nested too deeply. */
	gives("<a><a><a><a><a><a><a><a><a><a><a><a><a><a><a><a><a/></a></a></a></a></a></a></a></a></a></a></a></a></a></a></a></a>",
	      -EBADMSG, "");
	snprintf(xml, sizeof(xml), "<a>%020000d</a>", 0);
	assert_int_equal(qc2_xml_parse(xml, strlen(xml), to_log, log), -EBADMSG);
	snprintf(xml, sizeof(xml), "<%0600d/>", 0);
	xml[1] = 'a';
	assert_int_equal(qc2_xml_parse(xml, strlen(xml), to_log, log), -EBADMSG);
	assert_string_equal(log, "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_documents),
		cmocka_unit_test(test_limits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
