/* SPDX-License-Identifier: GPL-2.0 */
/* Reading INI text in place. */
#include <string.h>

#include "ini_text.h"

#define SPACES	" \t\r"

static char *strip(char *s)
{
	size_t len;

	s += strspn(s, SPACES);
	len = strlen(s);
	while (len && strchr(SPACES, s[len - 1]))
		s[--len] = '\0';
	return s;
}

enum qc2_ini_item qc2_ini_next(struct qc2_ini *ini)
{
	char *line, *end, *text;

	while ((line = strsep(&ini->rest, "\n"))) {
		ini->line++;
		/* What some editors put in front of a file. */
		if (ini->line == 1 && !strncmp(line, "\xef\xbb\xbf", 3))
			line += 3;
		ini->indented = line[0] == ' ' || line[0] == '\t';
		text = strip(line);
		if (!text[0] || text[0] == '#' || text[0] == ';')
			continue;
		if (text[0] == '[') {
			end = strchr(text, ']');
			if (!end)
				return QC2_INI_OTHER;
			*end++ = '\0';
			end += strspn(end, SPACES);
			if (*end && *end != '#' && *end != ';')
				return QC2_INI_OTHER;
			ini->name = strip(text + 1);
			return QC2_INI_SECTION;
		}
		end = strchr(text, '=');
		if (!end || end == text)
			return QC2_INI_OTHER;
		*end = '\0';
		ini->name = strip(text);
		ini->value = strip(end + 1);
		return QC2_INI_KEY;
	}
	return QC2_INI_END;
}
