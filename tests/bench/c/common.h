// What the two programs of this folder share: a clock, growing buffers, and a search in bytes.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { STAMP = 16 };  // the digits of a token's time, which follow an "@"

struct bytes {
    char *data;
    size_t length, room;
};

static inline uint64_t now(void) {  // microseconds of the clock that all processes of a machine share
    struct timespec found;
    clock_gettime(CLOCK_MONOTONIC, &found);
    return (uint64_t)found.tv_sec * 1000000 + (uint64_t)found.tv_nsec / 1000;
}

static inline void *grown(void *data, size_t size) {
    void *found = realloc(data, size);
    if (!found) {
        perror("memory");
        exit(1);
    }
    return found;
}

static inline void put(struct bytes *to, const void *data, size_t length) {
    if (to->length + length > to->room) {
        to->room = (to->length + length) * 2;
        to->data = grown(to->data, to->room);
    }
    memcpy(to->data + to->length, data, length);
    to->length += length;
}

static inline void drop_first(struct bytes *from, size_t length) {
    from->length -= length;
    memmove(from->data, from->data + length, from->length);
}

static inline const char *find(const char *in, size_t length, const char *what) { return memmem(in, length, what, strlen(what)); }

static inline struct sockaddr_in loopback(int port) {  // neither program uses another address
    return (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static inline void send_at_once(int fd) {
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}
