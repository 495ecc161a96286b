/* SPDX-License-Identifier: GPL-2.0 */
/*
 * libcurl tells which sockets to watch and when to wake it; sd-event does so.
 * Main thread only.
 */
#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "multi.h"

/* Requests at once on a connection of HTTP/2. */
#define MAX_STREAMS	8L

struct multi {
	sd_event *event;
	CURLM *curl;
	sd_event_source *timer;
	void (*done)(void *arg, CURLcode code);
};

static void act(struct multi *multi, curl_socket_t fd, int events)
{
	int running, left;
	CURLMsg *msg;

	curl_multi_socket_action(multi->curl, fd, events, &running);
	while ((msg = curl_multi_info_read(multi->curl, &left))) {
		CURL *easy = msg->easy_handle;
		CURLcode code = msg->data.result;	/* gone with the handle */
		void *arg = NULL;

		if (msg->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(easy, CURLINFO_PRIVATE, &arg);
		curl_multi_remove_handle(multi->curl, easy);
		multi->done(arg, code);
	}
}

static int on_io(sd_event_source *source, int fd, uint32_t revents, void *arg)
{
	int events = 0;

	if (revents & EPOLLIN)
		events |= CURL_CSELECT_IN;
	if (revents & EPOLLOUT)
		events |= CURL_CSELECT_OUT;
	if (revents & (EPOLLERR | EPOLLHUP))
		events |= CURL_CSELECT_ERR;
	act(arg, fd, events);
	return 0;
}

static int on_timer(sd_event_source *source, uint64_t usec, void *arg)
{
	act(arg, CURL_SOCKET_TIMEOUT, 0);
	return 0;
}

static int watch_socket(CURL *easy, curl_socket_t fd, int what, void *arg,
			void *socket_arg)
{
	struct multi *multi = arg;
	sd_event_source *source = socket_arg;
	uint32_t events = 0;

	if (what == CURL_POLL_REMOVE) {
		sd_event_source_disable_unref(source);
		curl_multi_assign(multi->curl, fd, NULL);
		return 0;
	}
	if (what & CURL_POLL_IN)
		events |= EPOLLIN;
	if (what & CURL_POLL_OUT)
		events |= EPOLLOUT;
	if (source)
		return sd_event_source_set_io_events(source, events) < 0 ?
		       -1 : 0;
	if (sd_event_add_io(multi->event, &source, fd, events, on_io,
			    multi) < 0)
		return -1;
	curl_multi_assign(multi->curl, fd, source);
	return 0;
}

static int set_timer(CURLM *curl, long ms, void *arg)
{
	struct multi *multi = arg;

	if (ms < 0)
		return sd_event_source_set_enabled(multi->timer,
						   SD_EVENT_OFF) < 0 ? -1 : 0;
	if (sd_event_source_set_time_relative(multi->timer, ms * 1000ULL) < 0 ||
	    sd_event_source_set_enabled(multi->timer, SD_EVENT_ONESHOT) < 0)
		return -1;
	return 0;
}

int multi_new(struct multi **out, sd_event *event, unsigned int connections,
	      void (*done)(void *arg, CURLcode code))
{
	struct multi *multi = calloc(1, sizeof(*multi));
	int ret;

	if (!multi)
		return -ENOMEM;
	multi->event = event;
	multi->done = done;
	multi->curl = curl_multi_init();
	if (!multi->curl) {
		free(multi);
		return -ENOMEM;
	}
	ret = sd_event_add_time_relative(event, &multi->timer, CLOCK_MONOTONIC,
					 0, 1000, on_timer, multi);
	if (ret >= 0)
		ret = sd_event_source_set_enabled(multi->timer, SD_EVENT_OFF);
	if (ret < 0) {
		curl_multi_cleanup(multi->curl);
		free(multi);
		return ret;
	}
	curl_multi_setopt(multi->curl, CURLMOPT_SOCKETFUNCTION, watch_socket);
	curl_multi_setopt(multi->curl, CURLMOPT_SOCKETDATA, multi);
	curl_multi_setopt(multi->curl, CURLMOPT_TIMERFUNCTION, set_timer);
	curl_multi_setopt(multi->curl, CURLMOPT_TIMERDATA, multi);
	curl_multi_setopt(multi->curl, CURLMOPT_MAXCONNECTS, (long)connections);
	/* HTTP/2: one TCP connection would be slower than several. */
	curl_multi_setopt(multi->curl, CURLMOPT_MAX_CONCURRENT_STREAMS, MAX_STREAMS);
	*out = multi;
	return 0;
}

int multi_add(struct multi *multi, CURL *easy)
{
	return curl_multi_add_handle(multi->curl, easy) == CURLM_OK ?
	       0 : -ENOMEM;
}

void multi_remove(struct multi *multi, CURL *easy)
{
	curl_multi_remove_handle(multi->curl, easy);
}
