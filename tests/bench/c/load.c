// Callers of a gateway, as many as wanted, in one thread: each makes a call, waits for its end, and makes the next one.
//
//   load --port P --path PATH --body FILE [--header 'name: value']... [--connections 16] [--seconds 3] [--grace 10] [--tokens N]
//        [--cancel-after N] [--calls N] [--pause SECONDS] [--slow] [--grpc]
//
// Prints one line of JSON. Times are in milliseconds. `--seconds` is how long calls are begun, `--grace` how long those that are open are
// waited for. With `--tokens` the answers are streams of so many tokens by `upstream`, each with the time of its sending: `transit` is from
// there to here, `first` from the call to its first token, `gap` between two tokens of a stream; `short` counts streams with fewer.
// `--cancel-after` leaves each stream after so many tokens. `--pause` is the time between two calls of a caller; with `--slow` they
// read at most 4 kB at a time, and wait in between. With `--grpc` the calls are gRPC over HTTP/2, a connection for each caller, and
// the body is a serialised message. Headers of HTTP/2 are not read: a call without a message is one that failed.
#include "common.h"

enum { SLOW_READ = 4096, SLOW_PAUSE = 50000 };
enum { FRAME = 9, DATA = 0, HEADERS = 1, RESET = 3, SETTINGS = 4, PING = 6, GOAWAY = 7, UPDATE = 8, END_STREAM = 1, END_HEADERS = 4, ACK = 1 };

enum framing { LENGTH, CHUNKED, UNTIL_CLOSE };

struct samples {
    uint32_t *values;
    size_t count, room;
};

struct caller {
    int fd;
    bool open, busy, headed, close_after, skip_line_end, last_chunk;
    int status;
    enum framing framing;
    size_t left;         // bytes of the body, or of the chunk
    struct bytes in;     // what is not understood yet: a head, a chunk's size, a frame
    struct bytes error;  // of an answer that is not 200
    int digits;          // of a token's time that have been read, or -1
    uint64_t stamp, begun, first, last, tokens, received, next;
    uint32_t stream;
};

static struct samples latency, first, transit, gap;
static uint64_t ok, failed, broken, cancelled, tokens, incomplete, issued, received;
static char sample[400];
static struct caller *callers;
static int poller, port, connections = 16, active;
static uint64_t stop_at, wanted_tokens, cancel_after, most_calls = UINT64_MAX, pause_between;
static bool grpc, slow;
static struct bytes request, preface;

static void add(struct samples *to, uint64_t value) {
    if (to->count == to->room) to->values = grown(to->values, (to->room = to->room * 2 + 1024) * sizeof *to->values);
    to->values[to->count++] = value > UINT32_MAX ? UINT32_MAX : (uint32_t)value;
}

static int compare(const void *one, const void *other) {
    uint32_t a = *(const uint32_t *)one, b = *(const uint32_t *)other;
    return (a > b) - (a < b);
}

static void print(const char *name, struct samples *of) {
    static const double shares[] = {0.5, 0.95, 0.99};
    qsort(of->values, of->count, sizeof *of->values, compare);
    for (int at = 0; at < 3; at++) {
        double value = of->count ? of->values[(size_t)((double)(of->count - 1) * shares[at])] / 1000.0 : 0;
        printf("\"%s_p%d\": %.3f, ", name, (int)(shares[at] * 100), value);
    }
}

// --- the content of answers ---

static void stamped(struct caller *c, uint64_t at) {
    c->tokens++;
    tokens++;
    add(&transit, at > c->stamp ? at - c->stamp : 0);
    if (!c->first) add(&first, (c->first = at) - c->begun);
    else add(&gap, at - c->last);
    c->last = at;
}

static void scan(struct caller *c, const char *data, size_t length, uint64_t at) {  // tokens may be cut anywhere
    for (const char *end = data + length; data < end;) {
        if (c->digits < 0) {
            data = memchr(data, '@', (size_t)(end - data));
            if (!data) return;
            c->digits = 0;
            c->stamp = 0;
            data++;
            continue;
        }
        if (*data < '0' || *data > '9') {
            c->digits = -1;
            continue;
        }
        c->stamp = c->stamp * 10 + (uint64_t)(*data++ - '0');
        if (++c->digits == STAMP) {
            c->digits = -1;
            stamped(c, at);
        }
    }
}

static void content(struct caller *c, const char *data, size_t length, uint64_t at) {
    c->received += length;
    if (!grpc && c->status != 200) {
        if (c->error.length < 300) put(&c->error, data, length < 300 ? length : 300);
    } else if (wanted_tokens) {
        scan(c, data, length, at);
    }
}

// --- HTTP/1.1 ---

static void read_head(struct caller *c, const char *end) {
    const char *line = c->in.data;
    c->headed = true;
    c->status = c->in.length > 12 ? atoi(line + 9) : 0;
    c->framing = UNTIL_CLOSE;
    while ((line = memmem(line, (size_t)(end - line), "\r\n", 2))) {
        line += 2;
        if (!strncasecmp(line, "content-length:", 15)) {
            c->framing = LENGTH;
            c->left = strtoul(line + 15, NULL, 10);
        } else if (!strncasecmp(line, "transfer-encoding: chunked", 26)) {
            c->framing = CHUNKED;
        } else if (!strncasecmp(line, "connection: close", 17)) {
            c->close_after = true;
        }
    }
}

static bool read_chunks(struct caller *c, const char *data, size_t length, uint64_t at) {  // true: it was the last one
    for (const char *end = data + length; data < end;) {
        if (c->left) {
            size_t size = c->left < (size_t)(end - data) ? c->left : (size_t)(end - data);
            content(c, data, size, at);
            c->left -= size;
            data += size;
            c->skip_line_end = !c->left;
            continue;
        }
        char byte = *data++;
        if (byte != '\n') {
            if (byte != '\r') put(&c->in, &byte, 1);
            continue;
        }
        put(&c->in, "", 1);
        size_t written = c->in.length - 1;
        c->in.length = 0;
        if (c->skip_line_end) {
            c->skip_line_end = false;
        } else if (c->last_chunk) {
            if (!written) return true;
        } else if (!(c->left = strtoul(c->in.data, NULL, 16))) {
            c->last_chunk = true;
        }
    }
    return false;
}

static bool read_http(struct caller *c, const char *data, size_t length, uint64_t at) {
    struct bytes rest = {0};
    bool done = false;
    if (!c->headed) {
        put(&c->in, data, length);
        const char *end = find(c->in.data, c->in.length, "\r\n\r\n");
        if (!end) return false;
        read_head(c, end + 2);
        size_t head = (size_t)(end - c->in.data) + 4;
        put(&rest, c->in.data + head, c->in.length - head);
        c->in.length = 0;
        data = rest.data;
        length = rest.length;
    }
    if (c->framing == CHUNKED) {
        done = read_chunks(c, data, length, at);
    } else {
        content(c, data, length, at);
        if (c->framing == LENGTH) done = (c->left -= length < c->left ? length : c->left) == 0;
    }
    free(rest.data);
    return done;
}

// --- HTTP/2 ---

static void put_frame(struct bytes *to, int type, int flags, uint32_t stream, const void *data, size_t length) {
    uint8_t head[FRAME] = {(uint8_t)(length >> 16), (uint8_t)(length >> 8), (uint8_t)length, (uint8_t)type, (uint8_t)flags,
                           (uint8_t)(stream >> 24), (uint8_t)(stream >> 16), (uint8_t)(stream >> 8), (uint8_t)stream};
    put(to, head, FRAME);
    put(to, data, length);
}

static void put_number(struct bytes *to, size_t value) {  // an HPACK integer with a prefix of 7 bits
    uint8_t byte = value < 127 ? (uint8_t)value : 127;
    put(to, &byte, 1);
    if (value < 127) return;
    for (value -= 127; value >= 128; value >>= 7) {
        byte = (uint8_t)(value & 127) | 128;
        put(to, &byte, 1);
    }
    byte = (uint8_t)value;
    put(to, &byte, 1);
}

static void put_header(struct bytes *to, const char *name, size_t name_length, const char *text) {  // a literal that is not indexed
    put(to, "", 1);
    put_number(to, name_length);
    put(to, name, name_length);
    put_number(to, strlen(text));
    put(to, text, strlen(text));
}

static bool read_frames(struct caller *c, const char *data, size_t length, uint64_t at) {
    bool done = false;
    put(&c->in, data, length);
    size_t used = 0;
    while (c->in.length - used >= FRAME) {
        const uint8_t *frame = (const uint8_t *)c->in.data + used;
        size_t size = (size_t)frame[0] << 16 | (size_t)frame[1] << 8 | frame[2];
        uint32_t stream = ((uint32_t)frame[5] << 24 | (uint32_t)frame[6] << 16 | (uint32_t)frame[7] << 8 | frame[8]) & INT32_MAX;
        if (c->in.length - used < FRAME + size) break;
        struct bytes reply = {0};
        bool ours = stream && stream == c->stream;
        if (frame[3] == DATA && ours) {
            content(c, (const char *)frame + FRAME, size, at);
            uint8_t more[4] = {(uint8_t)(size >> 24), (uint8_t)(size >> 16), (uint8_t)(size >> 8), (uint8_t)size};
            if (size) put_frame(&reply, UPDATE, 0, 0, more, 4);
        }
        if (frame[3] == SETTINGS && !(frame[4] & ACK)) put_frame(&reply, SETTINGS, ACK, 0, "", 0);
        if (frame[3] == PING && !(frame[4] & ACK)) put_frame(&reply, PING, ACK, 0, frame + FRAME, size);
        if (frame[3] == GOAWAY) c->close_after = true;
        if (ours && (frame[3] == RESET || ((frame[3] == DATA || frame[3] == HEADERS) && frame[4] & END_STREAM))) {
            done = true;
            c->status = frame[3] == RESET || !c->received ? 500 : 200;
        }
        if (reply.length && send(c->fd, reply.data, reply.length, MSG_NOSIGNAL) < 0) c->close_after = true;
        free(reply.data);
        used += FRAME + size;
    }
    drop_first(&c->in, used);
    return done;
}

// --- callers ---

static void hang_up(struct caller *c) {
    close(c->fd);
    c->open = false;
}

static bool send_all(int fd, const char *data, size_t length) {  // the request fits the socket's buffer, or is waited for
    while (length) {
        ssize_t sent = send(fd, data, length, MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN) {
            usleep(200);
            continue;
        }
        if (sent < 0) return false;
        data += sent;
        length -= (size_t)sent;
    }
    return true;
}

static bool dial(struct caller *c) {
    struct sockaddr_in address = loopback(port);
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    int small = SLOW_READ;
    if (slow) setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&address, sizeof address)) {
        if (c->fd >= 0) close(c->fd);
        return false;
    }
    send_at_once(c->fd);
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    struct epoll_event wanted = {EPOLLIN, {.ptr = c}};
    epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &wanted);
    c->open = true;
    c->in.length = 0;
    c->stream = 0;
    return !grpc || send_all(c->fd, preface.data, preface.length);
}

static bool ask(struct caller *c) {
    if (!grpc) return send_all(c->fd, request.data, request.length);
    c->stream = c->stream ? c->stream + 2 : 1;
    for (size_t at = 0; at < request.length;) {  // its frames have this stream's number
        uint8_t *frame = (uint8_t *)request.data + at;
        for (int byte = 0; byte < 4; byte++) frame[5 + byte] = (uint8_t)(c->stream >> (24 - 8 * byte));
        at += FRAME + ((size_t)frame[0] << 16 | (size_t)frame[1] << 8 | frame[2]);
    }
    return send_all(c->fd, request.data, request.length);
}

static void begin(struct caller *c) {
    for (int tries = 0; tries < 3 && issued < most_calls && now() < stop_at; tries++) {
        if (!grpc) c->in.length = 0;
        c->error.length = 0;
        c->headed = c->close_after = c->skip_line_end = c->last_chunk = false;
        c->left = c->status = 0;
        c->first = c->tokens = c->received = 0;
        c->digits = -1;
        bool dialled = c->open || dial(c);
        c->begun = now();
        if (dialled && ask(c)) {
            issued++;
            active++;
            c->busy = true;
            return;
        }
        broken++;
        if (c->open) hang_up(c);
    }
}

static void begin_next(struct caller *c, uint64_t at) {
    if (pause_between) c->next = at + pause_between;
    else begin(c);
}

static void begin_due(uint64_t at) {
    for (struct caller *c = callers; c < callers + connections; c++)
        if (!c->busy && c->next && c->next <= at) {
            c->next = 0;
            begin(c);
        }
}

static void end(struct caller *c, bool done, uint64_t at) {
    c->busy = false;
    active--;
    received += c->received;
    if (!done) {
        broken++;
    } else if (c->status == 200) {
        ok++;
        add(&latency, at - c->begun);
        incomplete += c->tokens < wanted_tokens;
    } else {
        failed++;
        if (!*sample) snprintf(sample, sizeof sample, "%d %.*s", c->status, (int)c->error.length, c->error.length ? c->error.data : "");
    }
    if (c->open && (!done || c->close_after)) hang_up(c);
    begin_next(c, at);
}

static void receive(struct caller *c) {
    static char data[1 << 17];
    ssize_t got = recv(c->fd, data, slow ? SLOW_READ : sizeof data, 0);
    uint64_t at = now();
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) {
        bool done = c->busy && c->headed && c->framing == UNTIL_CLOSE;
        hang_up(c);
        if (c->busy) end(c, done, at);
        return;
    }
    bool done = grpc ? read_frames(c, data, (size_t)got, at) : c->busy && read_http(c, data, (size_t)got, at);
    if (c->busy && done) {
        end(c, true, at);
    } else if (c->busy && cancel_after && c->tokens >= cancel_after) {
        cancelled++;
        c->busy = false;
        active--;
        hang_up(c);
        begin_next(c, at);
    }
}

// --- the request ---

static struct bytes read_file(const char *path) {
    struct bytes found = {0};
    char part[65536];
    FILE *file = fopen(path, "rb");
    if (!file) {
        perror(path);
        exit(1);
    }
    for (size_t got; (got = fread(part, 1, sizeof part, file));) put(&found, part, got);
    fclose(file);
    return found;
}

static void make_request(const char *path, struct bytes body, char **headers, int header_count) {
    char line[1024], address[32];
    snprintf(address, sizeof address, "127.0.0.1:%d", port);
    if (!grpc) {
        put(&request, line, (size_t)snprintf(line, sizeof line, "POST %s HTTP/1.1\r\nhost: %s\r\ncontent-type: application/json\r\n", path, address));
        for (int at = 0; at < header_count; at++) put(&request, line, (size_t)snprintf(line, sizeof line, "%s\r\n", headers[at]));
        put(&request, line, (size_t)snprintf(line, sizeof line, "content-length: %zu\r\n\r\n", body.length));
        put(&request, body.data, body.length);
        return;
    }
    static const uint8_t settings[] = {0, 2, 0, 0, 0, 0, 0, 4, 127, 255, 255, 255}, window[] = {127, 255, 0, 0};  // no push; windows without end
    put(&preface, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24);
    put_frame(&preface, SETTINGS, 0, 0, settings, sizeof settings);
    put_frame(&preface, UPDATE, 0, 0, window, sizeof window);
    struct bytes head = {0}, message = {0};
    put_header(&head, ":method", 7, "POST");
    put_header(&head, ":scheme", 7, "http");
    put_header(&head, ":path", 5, path);
    put_header(&head, ":authority", 10, address);
    put_header(&head, "content-type", 12, "application/grpc");
    put_header(&head, "te", 2, "trailers");
    for (int at = 0; at < header_count; at++) {
        char *colon = strstr(headers[at], ": ");
        if (colon) put_header(&head, headers[at], (size_t)(colon - headers[at]), colon + 2);
    }
    uint8_t prefix[5] = {0, (uint8_t)(body.length >> 24), (uint8_t)(body.length >> 16), (uint8_t)(body.length >> 8), (uint8_t)body.length};
    put(&message, prefix, 5);
    put(&message, body.data, body.length);
    put_frame(&request, HEADERS, END_HEADERS, 0, head.data, head.length);
    for (size_t at = 0, most = 16384; at < message.length; at += most) {
        size_t size = message.length - at < most ? message.length - at : most;
        put_frame(&request, DATA, at + size == message.length ? END_STREAM : 0, 0, message.data + at, size);
    }
}

int main(int count, char **arguments) {
    char *headers[32], *path = "/v1/chat/completions", *body = "/dev/null";
    int header_count = 0;
    double seconds = 3, grace = 10;
    for (int at = 1; at < count; at++) {
        char *name = arguments[at], *text = at + 1 < count ? arguments[at + 1] : "";
        if (!strcmp(name, "--grpc") || !strcmp(name, "--slow")) {
            *(name[2] == 'g' ? &grpc : &slow) = true;
            continue;
        }
        if (!strcmp(name, "--port")) port = atoi(text);
        else if (!strcmp(name, "--path")) path = text;
        else if (!strcmp(name, "--body")) body = text;
        else if (!strcmp(name, "--header") && header_count < 32) headers[header_count++] = text;
        else if (!strcmp(name, "--connections")) connections = atoi(text);
        else if (!strcmp(name, "--seconds")) seconds = atof(text);
        else if (!strcmp(name, "--grace")) grace = atof(text);
        else if (!strcmp(name, "--tokens")) wanted_tokens = strtoull(text, NULL, 10);
        else if (!strcmp(name, "--cancel-after")) cancel_after = strtoull(text, NULL, 10);
        else if (!strcmp(name, "--pause")) pause_between = (uint64_t)(atof(text) * 1e6);
        else if (!strcmp(name, "--calls")) most_calls = strtoull(text, NULL, 10);
        else {
            fprintf(stderr, "load: what is %s?\n", name);
            return 2;
        }
        at++;
    }
    struct rlimit most;
    getrlimit(RLIMIT_NOFILE, &most);
    most.rlim_cur = most.rlim_max;
    setrlimit(RLIMIT_NOFILE, &most);
    make_request(path, read_file(body), headers, header_count);
    poller = epoll_create1(0);
    callers = calloc((size_t)connections, sizeof *callers);
    uint64_t began = now(), last = began + (uint64_t)((seconds + grace) * 1e6);
    stop_at = began + (uint64_t)(seconds * 1e6);
    for (int at = 0; at < connections; at++) begin(&callers[at]);
    struct epoll_event events[512];
    while ((active || (pause_between && now() < stop_at)) && now() < last) {
        if (pause_between) begin_due(now());
        int found = epoll_wait(poller, events, 512, pause_between ? 5 : 100);
        for (int number = 0; number < found; number++) {
            struct caller *c = events[number].data.ptr;
            if (c->open) receive(c);
        }
        if (slow) usleep(SLOW_PAUSE);
    }
    double taken = (double)(now() - began) / 1e6;
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    for (char *at = sample; *at; at++)
        if (*at == '"' || *at == '\\' || (unsigned char)*at < 32) *at = ' ';
    printf("{\"ok\": %llu, \"failed\": %llu, \"broken\": %llu, \"cancelled\": %llu, \"unfinished\": %d, \"short\": %llu, \"tokens\": %llu, ",
           (unsigned long long)ok, (unsigned long long)failed, (unsigned long long)broken, (unsigned long long)cancelled, active,
           (unsigned long long)incomplete, (unsigned long long)tokens);
    print("latency", &latency);
    print("first", &first);
    print("transit", &transit);
    print("gap", &gap);
    printf("\"seconds\": %.3f, \"calls_per_second\": %.1f, \"tokens_per_second\": %.0f, \"bytes\": %llu, \"cpu\": %.4f, \"sample\": \"%s\"}\n", taken,
           (double)ok / taken, (double)tokens / taken, (unsigned long long)received,
           (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) + (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6, sample);
    return 0;
}
