/* SPDX-License-Identifier: GPL-2.0 */
/*
 * uevents: prints the kernel's uevents, one a line, as "KEY=VALUE KEY=VALUE...",
 * until a signal ends it; the line "ready" when it listens.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include <linux/netlink.h>

int main(void)
{
	const struct sockaddr_nl address = { .nl_family = AF_NETLINK, .nl_groups = 1 };
	int fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_KOBJECT_UEVENT);
	char event[16384];
	ssize_t len;

	if (fd < 0 || bind(fd, (const struct sockaddr *)&address, sizeof(address))) {
		perror("uevents: cannot listen");
		return 1;
	}
	puts("ready");
	fflush(stdout);
	while ((len = recv(fd, event, sizeof(event), 0)) > 0) {
		/* "ACTION@PATH", then the variables, each with a 0 behind it. */
		for (ssize_t i = strnlen(event, len) + 1; i < len; i++)
			putchar(event[i] ? event[i] : ' ');
		putchar('\n');
		fflush(stdout);
	}
	fprintf(stderr, "uevents: %s\n", strerror(errno));
	return 1;
}
