/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the kinds of stores have in common, inside the library.
 *
 * A kind of store is a struct qc2_store_type, in one file: store_file.c, store_http.c,
 * store_s3.c, store_azure.c.  It turns an operation on an object into an HTTP request,
 * and knows what the store means when it refuses one.  (Files have none of that: they
 * are read through libcurl and otherwise handled in store_file.c.)
 *
 * struct qc2_request is one such request and its answer; a new one for each try.  It
 * belongs to the thread that runs its easy handle.  What it teaches goes to the
 * site, which has locks of its own.
 */
#ifndef QC2_STORE_TYPE_H
#define QC2_STORE_TYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <curl/curl.h>

#include "address.h"
#include "err.h"
#include "site.h"

struct qc2_request;
struct qc2_store_config;

enum qc2_op {
	QC2_OP_GET,		/* a range */
	QC2_OP_HEAD,
	QC2_OP_PUT,
	QC2_OP_DELETE,
	QC2_OP_LIST,		/* one page */
	QC2_OP_START,		/* of an upload in parts */
	QC2_OP_PART,
	QC2_OP_COMPLETE,
	QC2_OP_ABORT,
};

/* What is to be done; the texts belong to the caller. */
struct qc2_operation {
	enum qc2_op op;
	const char *url;		/* canonical; LIST: of a folder */
	uint64_t offset, len;		/* GET */
	const char *version;		/* of the object, at present; NULL: any */
	bool if_absent;			/* PUT, COMPLETE: only a new object */
	const void *body;		/* PUT, PART */
	size_t body_len;
	const char *upload;		/* PART, COMPLETE, ABORT: its id */
	unsigned int part;		/* PART: from 1 */
	char *const *parts;		/* COMPLETE: what identifies each, in order */
	size_t nr_parts;
	const char *marker;		/* LIST: where to go on; NULL: at the start */
};

/* What an answer's headers, and the body of an error, said. */
struct qc2_answer {
	long status;
	uint64_t first, last, total;	/* Content-Range */
	bool have_range;
	bool encoded;			/* has a Content-Encoding */
	uint64_t length;		/* Content-Length; UINT64_MAX: none */
	char etag[256];
	char modified[64];
	char location[4096];
	unsigned int nr_locations;
	char region[QC2_REGION_LEN];
	int64_t date;			/* of the server, seconds since 1970; 0: none */
	char retry_after[64];
	char code[64];			/* "NoSuchKey" and the like; "": none */
};

/* The elements of a list; NULL in their place: the store has no lists. */
struct qc2_list_names {
	const char *object;		/* all about one object */
	const char *key, *size;
	const char *marker;		/* where the next page begins */
};

struct qc2_store_type {
	/*
	 * Fills method, target and headers (signed for @now, seconds since 1970) and, if
	 * it is not that of the operation, the body.  NULL: not by HTTP.
	 *
	 * Return: 0 or a negative errno with @err filled; -ENOTSUP: there is no such
	 * operation in this kind of store.
	 */
	int (*request)(struct qc2_request *req, int64_t now, struct qc2_err *err);

	/*
	 * Looks at an answer that refuses the request, after @ret was found by the
	 * status, and sets the outcome.
	 *
	 * Return: @ret, or what is more exact.
	 */
	int (*refused)(struct qc2_request *req, int ret);

	const struct qc2_list_names *list;
	/*
	 * Parts are blocks that the client names; an upload needs neither to be
	 * started nor to be aborted.
	 */
	bool blocks;
	bool uploads;			/* in parts */
};

extern const struct qc2_store_type qc2_store_file, qc2_store_http, qc2_store_s3,
	qc2_store_azure;

/* Of a canonical URL. */
const struct qc2_store_type *qc2_store_type(const char *url);

struct qc2_request {
	const struct qc2_operation *op;
	const struct qc2_store_config *cfg;
	const struct qc2_store_type *type;
	struct qc2_site *site;		/* NULL: there is no stores file */
	struct qc2_keys *keys;		/* NULL: anonymous */
	/* What it was signed with; by now another thread may have corrected the site. */
	int64_t clock_offset;
	char region[QC2_REGION_LEN];
	CURL *easy;

	const char *method;
	char *target;			/* URL, with what signs it */
	struct curl_slist *headers;
	struct curl_slist *bare_headers;	/* without what is for this origin alone */
	bool bare;				/* those are sent */
	char *made_body;
	const char *body;		/* what is left to be sent */
	size_t body_len, body_sent;

	char *origin;			/* URL after redirects; NULL: @target */
	bool in_headers;		/* a status line came, and not yet the empty one */
	int redirect_ret;		/* it was not followed; @redirect_err says why */
	struct qc2_err redirect_err;
	char local[QC2_ADDRESS_LEN];	/* to which no connection was made */
	const char *local_what;		/* what it is; NULL: there was none */
	char errbuf[CURL_ERROR_SIZE];

	struct qc2_answer answer;
	char *text;			/* the body, if it is one to be understood */
	size_t text_len, text_room;

	/* Outcome, see struct qc2_get. */
	unsigned int retry_after_ms;
	bool throttled, corrected, needs_keys;
};

/**
 * qc2_request_make() - a request for an operation, signed now
 * @req: zeroed; qc2_request_free() is needed whatever this returns
 * @op: must stay as long as the request
 *
 * Never blocks.  Return: 0 or a negative errno with @err filled; -EAGAIN with
 * @req->needs_keys if qc2_credentials_refresh() has to be called first.
 */
int qc2_request_make(struct qc2_request *req, const struct qc2_operation *op,
		     const struct qc2_store_config *cfg, struct qc2_err *err);
void qc2_request_free(struct qc2_request *req);

/*
 * Sets up a new easy handle, whose header function gets what qc2_request_header() is
 * given.  Neither may move as long as the other is in use.
 */
void qc2_request_setup(struct qc2_request *req, CURL *easy);

/*
 * Does the transfer of a handle that was set up, in this thread, and lets no signal come out
 * of it.
 */
CURLcode qc2_request_perform(CURL *easy);

/* One line; false: break the transfer off. */
bool qc2_request_header(struct qc2_request *req, const char *line, size_t len);

/*
 * Keeps the body of an answer up to @max bytes.
 *
 * Return: false if there is more.
 */
bool qc2_request_text(struct qc2_request *req, const char *buf, size_t len, size_t max);

/* Enough for the error of any store. */
#define QC2_ERROR_TEXT	16384

/**
 * qc2_request_code() - a transfer failed
 * @what: is told in words
 *
 * Return: a negative errno.
 */
int qc2_request_code(struct qc2_request *req, CURLcode code, char *what, size_t size);

/**
 * qc2_request_refused() - an answer came, but not what was asked for
 * @what: is told in words, without any secret
 *
 * Fills the outcome and teaches the site.  Return: a negative errno.
 */
int qc2_request_refused(struct qc2_request *req, char *what, size_t size);

/* -ENOMEM or 0. */
int qc2_request_add(struct qc2_request *req, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* Whether a server can compare with a version: a weak ETag never matches. */
bool qc2_version_has_condition(const char *version);

/* Conditions as all stores take them; -ENOMEM or 0. */
int qc2_request_conditions(struct qc2_request *req);

/* If the server's clock shows that ours is off; true: try again at once. */
bool qc2_request_learn_clock(struct qc2_request *req);

/* A version that is not an ETag. */
#define QC2_MODIFIED_VERSION	"Last-Modified "

#endif
