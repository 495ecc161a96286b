/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Addresses of this machine and its link.
 */
#include <arpa/inet.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "address.h"

/* IPv4 addresses are looked for as they are mapped to IPv6. */
#define V4(...)	{ [10] = 0xff, 0xff, __VA_ARGS__ }

static const struct net {
	uint8_t prefix[16];
	unsigned int bits;
	const char *what;
} nets[] = {
	{ V4(0), 96 + 8, "unspecified" },	/* Linux: this machine */
	{ V4(127), 96 + 8, "loopback" },
	{ V4(169, 254), 96 + 16, "link-local" },	/* most clouds' metadata */
	{ V4(100, 100, 100, 200), 128, "metadata" },	/* Alibaba */
	{ V4(168, 63, 129, 16), 128, "metadata" },	/* Azure */
	{ { 0 }, 128, "unspecified" },
	{ { [15] = 1 }, 128, "loopback" },
	{ { 0xfe, 0x80 }, 10, "link-local" },
	{ { 0xfd, 0x00, 0x0e, 0xc2 }, 32, "metadata" },	/* Amazon: fd00:ec2::254 */
	{ { 0xfd, 0x20, 0x00, 0xce }, 32, "metadata" },	/* Google: fd20:ce::254 */
};

static bool is_in(const uint8_t *ip, const struct net *net)
{
	unsigned int bytes = net->bits / 8, rest = net->bits % 8;

	return !memcmp(ip, net->prefix, bytes) &&
	       (!rest || !((ip[bytes] ^ net->prefix[bytes]) >> (8 - rest)));
}

const char *qc2_address_local(const struct sockaddr *addr, char text[QC2_ADDRESS_LEN])
{
	uint8_t ip[16] = V4(0);
	const void *own;

	if (addr->sa_family == AF_INET) {
		own = &((const struct sockaddr_in *)addr)->sin_addr;
		memcpy(ip + 12, own, 4);
	} else if (addr->sa_family == AF_INET6) {
		own = &((const struct sockaddr_in6 *)addr)->sin6_addr;
		memcpy(ip, own, 16);
	} else {
		return NULL;
	}
	for (size_t i = 0; i < sizeof(nets) / sizeof(nets[0]); i++) {
		if (is_in(ip, &nets[i])) {
			inet_ntop(addr->sa_family, own, text, QC2_ADDRESS_LEN);
			return nets[i].what;
		}
	}
	return NULL;
}
