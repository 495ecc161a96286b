/* SPDX-License-Identifier: GPL-2.0 */
/*
 * XML answers of object stores, through expat.  Documents with a DOCTYPE are refused, as
 * are such that are nested deeply or have long texts.  No state is shared.
 */
#ifndef QC2_XML_H
#define QC2_XML_H

#include <stddef.h>

/**
 * qc2_xml_parse() - go through a document
 * @element: is called at the end of each element, with its names from the root on, as
 *	"Error/Code", and its text without that of elements within; returns 0, or a
 *	negative errno to break off
 * @arg: for @element
 *
 * Return: 0; -EBADMSG if it is not such a document, after @element was called for what
 * is right; -ENOMEM; or what @element returned.
 */
int qc2_xml_parse(const void *buf, size_t len,
		  int (*element)(void *arg, const char *path, const char *text), void *arg);

#endif
