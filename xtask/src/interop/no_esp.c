/* Loaded into libreswan's pluto where the kernel has no ESP: it plays the kernel's part for the SAs
 * alone. What pluto installs is acknowledged and written down, with its keys, for the test to compare;
 * what it asks about is answered from that. Policies and all else go to the real kernel. No packet is
 * protected, and none is sent. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <linux/netlink.h>
#include <linux/xfrm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define MOST 1024
static struct xfrm_usersa_info known[MOST];
static unsigned char answer[4096];
static size_t length;

static int is_xfrm(int fd)
{
	int protocol = -1, domain = -1;
	socklen_t size = sizeof(int);
	return !getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) && domain == AF_NETLINK &&
	       !getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &size) && protocol == NETLINK_XFRM;
}

static struct xfrm_usersa_info *find(const xfrm_address_t *to, __be32 spi)
{
	for (int i = 0; i < MOST; i++)
		if (known[i].id.spi == spi && !memcmp(&known[i].id.daddr, to, sizeof(*to)))
			return &known[i];
	return NULL;
}

static void answer_with(const struct nlmsghdr *to, int type, const void *body, size_t size)
{
	struct nlmsghdr *head = (struct nlmsghdr *)answer;
	memset(answer, 0, sizeof(answer));
	length = NLMSG_LENGTH(size);
	head->nlmsg_len = length;
	head->nlmsg_type = type;
	head->nlmsg_seq = to->nlmsg_seq;
	memcpy(NLMSG_DATA(head), body, size);
}

static void acknowledge(const struct nlmsghdr *to, int error)
{
	struct nlmsgerr body = { .error = error, .msg = *to };
	answer_with(to, NLMSG_ERROR, &body, sizeof(body));
}

/* One line for an SA: its SPI, and the key with the salt, as `esp_sa` of Wireshark has them. */
static void note(const struct nlmsghdr *head, const struct xfrm_usersa_info *sa)
{
	const char *path = getenv("NO_ESP_KEYS");
	FILE *out = path ? fopen(path, "a") : NULL;
	int left = head->nlmsg_len - NLMSG_LENGTH(sizeof(*sa));
	const char *at = (const char *)sa + NLMSG_ALIGN(sizeof(*sa));
	while (out && left >= (int)sizeof(struct nlattr)) {
		const struct nlattr *attribute = (const void *)at;
		if (attribute->nla_type == XFRMA_ALG_AEAD) {
			const struct xfrm_algo_aead *aead = (const void *)(at + NLA_HDRLEN);
			fprintf(out, "0x%08x %s 0x", ntohl(sa->id.spi), aead->alg_name);
			for (unsigned i = 0; i < aead->alg_key_len / 8; i++)
				fprintf(out, "%02x", (unsigned char)aead->alg_key[i]);
			fputc('\n', out);
		}
		if (attribute->nla_len < NLA_HDRLEN)
			break;
		left -= NLA_ALIGN(attribute->nla_len);
		at += NLA_ALIGN(attribute->nla_len);
	}
	if (out)
		fclose(out);
}

ssize_t write(int fd, const void *data, size_t size)
{
	static ssize_t (*real)(int, const void *, size_t);
	if (!real)
		real = dlsym(RTLD_NEXT, "write");
	const struct nlmsghdr *head = data;
	if (size < sizeof(*head) || head->nlmsg_len != size || !is_xfrm(fd))
		return real(fd, data, size);
	const struct xfrm_usersa_info *sa = NLMSG_DATA(head);
	const struct xfrm_usersa_id *id = NLMSG_DATA(head);
	static const xfrm_address_t none;
	struct xfrm_usersa_info *place;
	switch (head->nlmsg_type) {
	case XFRM_MSG_NEWSA:
	case XFRM_MSG_UPDSA:
		if (sa->id.proto != IPPROTO_ESP)
			break;
		place = find(&sa->id.daddr, sa->id.spi);
		place = place ? place : find(&none, 0);
		if (!place)
			return acknowledge(head, -12), size;
		*place = *sa;
		note(head, sa);
		return acknowledge(head, 0), size;
	case XFRM_MSG_DELSA:
		place = find(&id->daddr, id->spi);
		if (!place)
			break;
		memset(place, 0, sizeof(*place));
		/* What only ALLOCSPI has made is in the real kernel too: it goes by itself. */
		return acknowledge(head, 0), size;
	case XFRM_MSG_GETSA:
		place = find(&id->daddr, id->spi);
		if (!place)
			break;
		return answer_with(head, XFRM_MSG_NEWSA, place, sizeof(*place)), size;
	}
	return real(fd, data, size);
}

ssize_t recvfrom(int fd, void *data, size_t size, int flags, struct sockaddr *from, socklen_t *room)
{
	static ssize_t (*real)(int, void *, size_t, int, struct sockaddr *, socklen_t *);
	if (!real)
		real = dlsym(RTLD_NEXT, "recvfrom");
	if (!length || !is_xfrm(fd))
		return real(fd, data, size, flags, from, room);
	struct sockaddr_nl kernel = { .nl_family = AF_NETLINK };
	if (from && room && *room >= sizeof(kernel)) {
		memcpy(from, &kernel, sizeof(kernel));
		*room = sizeof(kernel);
	}
	size_t told = length < size ? length : size;
	memcpy(data, answer, told);
	length = 0;
	return told;
}
