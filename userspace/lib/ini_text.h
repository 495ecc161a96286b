/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Reading INI text in place: the stores file and AWS's profile files.  inih, which
 * reads the configuration, is built by Debian for lines of up to 200 characters; a
 * session token alone has more, and its copies would lie in ordinary memory.
 *
 * Whole lines that begin with '#' or ';' are comments, and so is what follows the
 * name of a section.  There are none behind a value, as both characters may be part
 * of one.  Pure; any thread.
 */
#ifndef QC2_INI_TEXT_H
#define QC2_INI_TEXT_H

#include <stdbool.h>

enum qc2_ini_item {
	QC2_INI_END,
	QC2_INI_SECTION,	/* @name */
	QC2_INI_KEY,		/* @name and @value */
	QC2_INI_OTHER,		/* a line that is neither */
};

struct qc2_ini {
	char *rest;		/* what was not read yet; the caller sets it to the text */
	unsigned int line;	/* of the item, from 1; the caller sets it to 0 */
	bool indented;		/* the line begins with a space or a tab */
	char *name, *value;	/* without spaces around them; in the text */
};

/* Goes on to the next item.  The text is changed: NULs end names and values. */
enum qc2_ini_item qc2_ini_next(struct qc2_ini *ini);

#endif
