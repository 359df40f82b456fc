// A provider with OpenAI's chat completions, which costs next to nothing: upstream PORT
//
// The request says what the answer is. "max_tokens" (16) is the number of tokens; "stream" and "include_usage" are OpenAI's. The name
// of the model has options, as in "mock-d20-s100":
//   -dN    N milliseconds before each token; a whole answer takes as long as it would stream
//   -sN    N more bytes in each token
//   -hang  a stream stops after its first token, until its caller leaves
//   -fail  the answer is an error, status 500
//   -cut   the connection is closed after half of the tokens
// The text of a streamed token is "@" and 16 digits: the microseconds at which it was sent. Each token is a write of its own.
//
// GET /stats tells what has been asked: {"requests", "streams", "tokens", "open", "left", "left_at"}. `left` counts streams whose caller
// went away, `left_at` is when the last one was noticed.
#include "common.h"

enum { CONNECTIONS = 1 << 16, TOKENS_A_TURN = 4 };

enum state { READING, WAITING, STREAMING, HANGING };

struct connection {
    bool open, writing, queued, usage, cut, whole;
    uint32_t generation;
    enum state state;
    struct bytes in, out;
    uint64_t period, due;
    uint32_t left, total, padding, prompt;
    char model[64];
};

struct timer {
    uint64_t due;
    int fd;
    uint32_t generation;
};

static struct connection connections[CONNECTIONS];  // by descriptor
static struct timer *timers;
static size_t timer_count, timer_room;
static int ready[CONNECTIONS];  // a ring of streams without a pause
static size_t ready_first, ready_count;
static int poller;
static uint64_t requests, streams, tokens, open_count, left_count, left_at;

// --- timers: a binary heap ---

static void swap_timers(size_t one, size_t other) {
    struct timer kept = timers[one];
    timers[one] = timers[other];
    timers[other] = kept;
}

static void set_timer(int fd) {
    if (timer_count == timer_room) timers = grown(timers, (timer_room = timer_room * 2 + 64) * sizeof *timers);
    size_t at = timer_count++;
    timers[at] = (struct timer){connections[fd].due, fd, connections[fd].generation};
    for (; at && timers[at].due < timers[(at - 1) / 2].due; at = (at - 1) / 2) swap_timers(at, (at - 1) / 2);
}

static struct timer take_timer(void) {
    struct timer first = timers[0];
    timers[0] = timers[--timer_count];
    for (size_t at = 0;;) {
        size_t least = at, child = 2 * at + 1;
        if (child < timer_count && timers[child].due < timers[least].due) least = child;
        if (child + 1 < timer_count && timers[child + 1].due < timers[least].due) least = child + 1;
        if (least == at) return first;
        swap_timers(at, least);
        at = least;
    }
}

// --- sending ---

static void answer(struct connection *c);

static void leave(int fd) {
    struct connection *c = &connections[fd];
    if (c->state == STREAMING || c->state == HANGING) {
        left_count++;
        left_at = now();
    }
    close(fd);
    c->open = c->queued = false;
    c->state = READING;
    c->in.length = c->out.length = 0;
    c->generation++;
    open_count--;
}

static bool flush(int fd) {  // false: the connection is gone
    struct connection *c = &connections[fd];
    size_t done = 0;
    while (done < c->out.length) {
        ssize_t sent = send(fd, c->out.data + done, c->out.length - done, MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN) break;
        if (sent < 0) {
            leave(fd);
            return false;
        }
        done += (size_t)sent;
    }
    drop_first(&c->out, done);
    if (c->writing != (c->out.length > 0)) {
        c->writing = !c->writing;
        struct epoll_event wanted = {EPOLLIN | (c->writing ? EPOLLOUT : 0u), {.fd = fd}};
        epoll_ctl(poller, EPOLL_CTL_MOD, fd, &wanted);
    }
    return true;
}

static void put_event(struct connection *c, const char *choices, const char *usage) {  // an SSE event, in an HTTP chunk
    static char event[1 << 17], head[32];
    int length = snprintf(
        event, sizeof event,
        "data: {\"id\":\"chatcmpl-mock0123456789\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\"model\":\"%s\","
        "\"service_tier\":\"default\",\"system_fingerprint\":\"fp_mock\",\"choices\":[%s]%s}\n\n",
        c->model, choices, usage);
    put(&c->out, head, (size_t)snprintf(head, sizeof head, "%x\r\n", (unsigned)length));
    put(&c->out, event, (size_t)length);
    put(&c->out, "\r\n", 2);
}

static void put_usage(struct connection *c, char *to, size_t room) {
    snprintf(to, room,
             ",\"usage\":{\"prompt_tokens\":%u,\"completion_tokens\":%u,\"total_tokens\":%u,\"prompt_tokens_details\":{\"cached_tokens\":0},"
             "\"completion_tokens_details\":{\"reasoning_tokens\":0}}",
             c->prompt, c->total, c->prompt + c->total);
}

static bool send_token(int fd) {  // false: nothing more can be sent now
    static char text[1 << 16], choice[(1 << 16) + 256], usage[512];
    struct connection *c = &connections[fd];
    if (c->left) {
        c->left--;
        tokens++;
        int stamped = snprintf(text, sizeof text, "@%0*llu", STAMP, (unsigned long long)now());
        memset(text + stamped, 'x', c->padding);
        text[stamped + (int)c->padding] = 0;
        snprintf(choice, sizeof choice, "{\"index\":0,\"delta\":{\"content\":\"%s\"},\"logprobs\":null,\"finish_reason\":null}", text);
        put_event(c, choice, "");
        if (!flush(fd)) return false;
        if (c->cut && c->left <= c->total / 2) {
            c->state = READING;  // it is not the caller who left
            leave(fd);
            return false;
        }
    }
    if (c->left) return c->out.length == 0;
    put_event(c, "{\"index\":0,\"delta\":{},\"logprobs\":null,\"finish_reason\":\"stop\"}", "");
    if (c->usage) {
        put_usage(c, usage, sizeof usage);
        put_event(c, "", usage);
    }
    put(&c->out, "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n", 24);
    c->state = READING;
    if (flush(fd)) answer(c);
    return false;
}

static void put_whole(struct connection *c, const char *status, const char *body, size_t length) {
    char head[256];
    int size = snprintf(head, sizeof head, "HTTP/1.1 %s\r\ncontent-type: application/json\r\nx-request-id: req_mock\r\ncontent-length: %zu\r\n\r\n",
                        status, length);
    put(&c->out, head, (size_t)size);
    put(&c->out, body, length);
}

static void put_completion(struct connection *c) {
    static struct bytes body;
    char part[1024];
    body.length = 0;
    put(&body, part,
        (size_t)snprintf(part, sizeof part,
                         "{\"id\":\"chatcmpl-mock0123456789\",\"object\":\"chat.completion\",\"created\":1700000000,\"model\":\"%s\","
                         "\"service_tier\":\"default\",\"system_fingerprint\":\"fp_mock\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\","
                         "\"content\":\"",
                         c->model));
    for (uint32_t token = 0; token < c->total; token++) {
        put(&body, " token", 6);
        for (uint32_t at = 0; at < c->padding; at++) put(&body, "x", 1);
    }
    put(&body, part,
        (size_t)snprintf(part, sizeof part, "\",\"refusal\":null,\"annotations\":[]},\"logprobs\":null,\"finish_reason\":\"stop\"}]"));
    put_usage(c, part, sizeof part);
    put(&body, part, strlen(part));
    put(&body, "}", 1);
    put_whole(c, "200 OK", body.data, body.length);
}

// --- requests ---

static const char *value(const char *body, size_t length, const char *key) {  // what follows "key": in the body, or NULL
    const char *found = find(body, length, key);
    if (!found) return NULL;
    for (found += strlen(key); *found == ' ' || *found == ':' || *found == '"';) found++;
    return found;
}

static uint32_t option(const char *model, const char *name) {
    const char *found = strstr(model, name);
    return found ? (uint32_t)strtoul(found + strlen(name), NULL, 10) : 0;
}

static void begin(struct connection *c, const char *body, size_t length) {
    const char *most = value(body, length, "\"max_tokens\""), *model = value(body, length, "\"model\"");
    if (!most) most = value(body, length, "\"max_completion_tokens\"");
    const char *stream = value(body, length, "\"stream\""), *usage = value(body, length, "\"include_usage\"");
    size_t name = model ? strcspn(model, "\"") : 0;
    snprintf(c->model, sizeof c->model, "%.*s", (int)name, model ? model : "");
    c->total = c->left = most ? (uint32_t)strtoul(most, NULL, 10) : 16;
    c->padding = option(c->model, "-s");
    if (c->padding > 60000) c->padding = 60000;
    c->period = option(c->model, "-d") * 1000ull;
    c->prompt = (uint32_t)(length / 16);
    c->usage = usage && !strncmp(usage, "true", 4);
    c->cut = strstr(c->model, "-cut");
    c->whole = !(stream && !strncmp(stream, "true", 4));
    requests++;
    if (strstr(c->model, "-fail")) {
        const char *error = "{\"error\":{\"message\":\"failed as asked\",\"type\":\"server_error\",\"param\":null,\"code\":null}}";
        put_whole(c, "500 Internal Server Error", error, strlen(error));
        return;
    }
    int fd = (int)(c - connections);
    if (c->whole) {
        c->due = now() + c->period * c->total;
        if (!c->period) {
            put_completion(c);
            return;
        }
        c->state = WAITING;
        set_timer(fd);
        return;
    }
    streams++;
    c->state = STREAMING;
    c->due = now() + c->period;
    const char *head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\nx-request-id: req_mock\r\n"
                       "transfer-encoding: chunked\r\n\r\n";
    put(&c->out, head, strlen(head));
    put_event(c, "{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\",\"refusal\":null},\"logprobs\":null,\"finish_reason\":null}", "");
    if (strstr(c->model, "-hang")) {
        c->left = 2;
        send_token(fd);
        if (c->open) c->state = HANGING;
        return;
    }
    if (c->period) {
        set_timer(fd);
    } else {
        c->queued = true;
        ready[(ready_first + ready_count++) % CONNECTIONS] = fd;
    }
}

static void answer(struct connection *c) {  // the requests that have arrived whole, until one takes its time
    int fd = (int)(c - connections);
    while (c->open && c->state == READING && c->in.length) {
        put(&c->in, "", 1);  // so that a search for a number ends
        c->in.length--;
        const char *data = c->in.data, *end = find(data, c->in.length, "\r\n\r\n");
        if (!end) return;
        size_t head = (size_t)(end - data) + 4, length = 0;
        for (const char *line = data; line < end; line = strstr(line, "\r\n") + 2)
            if (!strncasecmp(line, "content-length:", 15)) length = strtoul(line + 15, NULL, 10);
        if (c->in.length < head + length) return;
        if (!strncmp(data, "GET ", 4)) {
            char told[512];
            bool stats = !strncmp(data, "GET /stats", 10);
            int size = snprintf(told, sizeof told,
                                stats ? "{\"requests\":%llu,\"streams\":%llu,\"tokens\":%llu,\"open\":%llu,\"left\":%llu,\"left_at\":%llu}"
                                      : "{\"object\":\"list\",\"data\":[]}",
                                (unsigned long long)requests, (unsigned long long)streams, (unsigned long long)tokens,
                                (unsigned long long)open_count, (unsigned long long)left_count, (unsigned long long)left_at);
            put_whole(c, "200 OK", told, (size_t)size);
        } else if (!find(data, head, "transfer-encoding: chunked") && !find(data, head, "Transfer-Encoding: chunked")) {
            begin(c, data + head, length);
        } else {
            const char *error = "{\"error\":{\"message\":\"send a content-length\",\"type\":\"invalid_request_error\"}}";
            put_whole(c, "411 Length Required", error, strlen(error));
        }
        if (!c->open) return;
        drop_first(&c->in, head + length);
        if (!flush(fd)) return;
    }
}

static void receive(int fd) {
    static char data[1 << 17];
    struct connection *c = &connections[fd];
    ssize_t got = recv(fd, data, sizeof data, 0);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) {
        leave(fd);
        return;
    }
    put(&c->in, data, (size_t)got);
    answer(c);
}

static void proceed(int fd) {  // what was held back can be sent
    struct connection *c = &connections[fd];
    if (!flush(fd) || c->out.length || c->queued || c->state != STREAMING) return;
    c->queued = true;
    if (c->period)
        set_timer(fd);
    else
        ready[(ready_first + ready_count++) % CONNECTIONS] = fd;
}

static void accept_all(int listener) {
    for (int fd; (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0;) {
        if (fd >= CONNECTIONS) {
            close(fd);
            continue;
        }
        struct connection *c = &connections[fd];
        c->open = true;
        c->writing = false;
        open_count++;
        send_at_once(fd);
        struct epoll_event wanted = {EPOLLIN, {.fd = fd}};
        epoll_ctl(poller, EPOLL_CTL_ADD, fd, &wanted);
    }
}

static void send_due(void) {
    while (timer_count && timers[0].due <= now()) {
        struct timer first = take_timer();
        struct connection *c = &connections[first.fd];
        if (!c->open || c->generation != first.generation) continue;
        c->queued = false;
        if (c->state == WAITING) {
            c->state = READING;
            put_completion(c);
            if (flush(first.fd)) answer(c);
        } else if (c->state == STREAMING) {
            c->due += c->period;
            if (send_token(first.fd)) {
                c->queued = true;
                set_timer(first.fd);
            }
        }
    }
}

static void send_ready(void) {
    for (size_t count = ready_count; count; count--) {
        int fd = ready[ready_first];
        ready_first = (ready_first + 1) % CONNECTIONS;
        ready_count--;
        struct connection *c = &connections[fd];
        if (!c->open || !c->queued || c->state != STREAMING) continue;
        c->queued = false;
        bool more = true;
        for (int token = 0; more && token < TOKENS_A_TURN; token++) more = send_token(fd);
        if (!more) continue;
        c->queued = true;
        ready[(ready_first + ready_count++) % CONNECTIONS] = fd;
    }
}

int main(int count, char **arguments) {
    struct sockaddr_in address = loopback(count > 1 ? atoi(arguments[1]) : 18080);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1;
    struct rlimit most = {CONNECTIONS, CONNECTIONS};
    if (setrlimit(RLIMIT_NOFILE, &most)) {
        getrlimit(RLIMIT_NOFILE, &most);
        most.rlim_cur = most.rlim_max;
        setrlimit(RLIMIT_NOFILE, &most);
    }
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 4096)) {
        perror("upstream");
        return 1;
    }
    poller = epoll_create1(0);
    struct epoll_event wanted = {EPOLLIN, {.fd = listener}}, events[1024];
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &wanted);
    for (;;) {
        uint64_t at = now(), wait = ready_count ? 0 : timer_count ? (timers[0].due > at ? timers[0].due - at : 0) : 10000000;
        struct timespec time = {(time_t)(wait / 1000000), (long)(wait % 1000000 * 1000)};
        int found = epoll_pwait2(poller, events, 1024, &time, NULL);
        for (int number = 0; number < found; number++) {
            int fd = events[number].data.fd;
            if (fd == listener) {
                accept_all(listener);
                continue;
            }
            if (connections[fd].open && events[number].events & EPOLLOUT) proceed(fd);
            if (connections[fd].open && events[number].events & ~(uint32_t)EPOLLOUT) receive(fd);
        }
        send_due();
        send_ready();
    }
}
