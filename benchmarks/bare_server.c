/* The least that can answer: HTTP keep-alive on epoll around ONNX Runtime's C API, one thread, no checks, no counting.
 *
 *     cc -O2 -o bare_server bare_server.c -ldl
 *     ./bare_server libonnxruntime.so model.onnx INPUT COLUMNS LABEL PROBABILITIES CLASSES ADDRESS
 *
 * The bound that `serving.py` measures against: a request's numbers are read behind `"data"` (JSON), or as doubles
 * behind the header Inference-Header-Content-Length (binary); both tensors of the answer come as JSON. The model takes
 * float64 [rows, COLUMNS] and gives int64 [rows] and float64 [rows, CLASSES]; one row. Linux.
 *
 * OrtApi is a table of functions to which releases only append, so the few that are needed are called by their place in
 * it (onnxruntime, include/onnxruntime/core/session/onnxruntime_c_api.h, "struct OrtApi").
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

typedef void *Handle; /* OrtEnv, OrtSession, OrtValue, ...; a status is NULL where all is well */
struct base { const void *const *(*get_api)(uint32_t); const char *(*version)(void); };

enum {
    API = 18, ERROR_MESSAGE = 2, CREATE_ENV = 3, CREATE_SESSION = 7, RUN = 9, CREATE_OPTIONS = 10, INTRA_THREADS = 24,
    INTER_THREADS = 25, TENSOR_OVER_DATA = 49, CPU_MEMORY = 69, /* places in OrtApi */
    DOUBLE = 11, INT64 = 7, ARENA = 1, DEFAULT_MEMORY = 0, LOG_ERROR = 3,
    BUFFER = 1 << 16, MOST = 1024, COLUMNS_MAX = 4096
};

struct client { int fd; size_t have; char data[BUFFER]; };

static const void *const *api;
static Handle session, values[3];
static const char *names[3];
static double row[COLUMNS_MAX], probabilities[64];
static int64_t label;
static int columns, classes;

static void check(Handle status) {
    if (!status) return;
    fprintf(stderr, "%s\n", ((const char *(*)(Handle))api[ERROR_MESSAGE])(status));
    exit(1);
}

static void load(const char *library, const char *model) {
    void *opened = dlopen(library, RTLD_NOW);
    if (!opened) { fprintf(stderr, "%s\n", dlerror()); exit(1); }
    const struct base *(*get_base)(void) = (const struct base *(*)(void))dlsym(opened, "OrtGetApiBase");
    api = get_base()->get_api(API);
    Handle env, options, memory;
    check(((Handle (*)(int, const char *, Handle *))api[CREATE_ENV])(LOG_ERROR, "bare", &env));
    check(((Handle (*)(Handle *))api[CREATE_OPTIONS])(&options));
    check(((Handle (*)(Handle, int))api[INTRA_THREADS])(options, 1));
    check(((Handle (*)(Handle, int))api[INTER_THREADS])(options, 1));
    check(((Handle (*)(Handle, const char *, Handle, Handle *))api[CREATE_SESSION])(env, model, options, &session));
    check(((Handle (*)(int, int, Handle *))api[CPU_MEMORY])(ARENA, DEFAULT_MEMORY, &memory));
    Handle (*tensor)(Handle, void *, size_t, const int64_t *, size_t, int, Handle *) = (void *)api[TENSOR_OVER_DATA];
    check(tensor(memory, row, columns * sizeof *row, (int64_t[]){1, columns}, 2, DOUBLE, &values[0]));
    check(tensor(memory, &label, sizeof label, (int64_t[]){1}, 1, INT64, &values[1]));
    check(tensor(memory, probabilities, classes * sizeof *row, (int64_t[]){1, classes}, 2, DOUBLE, &values[2]));
}

static int listening(const char *address) {
    int fd, one = 1;
    if (strchr(address, '/')) {
        struct sockaddr_un at = {.sun_family = AF_UNIX};
        strncpy(at.sun_path, address, sizeof at.sun_path - 1);
        unlink(address);
        fd = socket(AF_UNIX, SOCK_STREAM, 0);
        if (bind(fd, (void *)&at, sizeof at) || listen(fd, 512)) { perror(address); exit(1); }
    } else {
        struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(atoi(strchr(address, ':') + 1))};
        at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        fd = socket(AF_INET, SOCK_STREAM, 0);
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
        if (bind(fd, (void *)&at, sizeof at) || listen(fd, 512)) { perror(address); exit(1); }
    }
    return fd;
}

/* The answer's bytes for one whole request. */
static size_t answer(const char *head, char *body, char *out) {
    char *binary = strcasestr(head, "inference-header-content-length:");
    if (binary) {
        memcpy(row, body + strtoul(binary + 32, NULL, 10), columns * sizeof *row);
    } else {
        char *at = strstr(body, "\"data\"");
        if (!at || !(at = strchr(at, '['))) { fprintf(stderr, "no data\n"); exit(1); }
        while (*++at == '[' || *at == ' ');
        for (int i = 0; i < columns; i++) {
            row[i] = strtod(at, &at);
            while (*at == ',' || *at == ' ' || *at == ']') at++;
        }
    }
    Handle outputs[2] = {values[1], values[2]};
    check(((Handle (*)(Handle, Handle, const char *const *, Handle const *, size_t, const char *const *, size_t,
                       Handle *))api[RUN])(session, NULL, names, values, 1, names + 1, 2, outputs));
    char text[4096];
    int n = sprintf(text, "{\"model_name\":\"bare\",\"model_version\":\"1\",\"outputs\":[{\"name\":\"%s\",\"datatype\":"
                    "\"INT64\",\"shape\":[1],\"data\":[%ld]},{\"name\":\"%s\",\"datatype\":\"FP64\",\"shape\":[1,%d],"
                    "\"data\":[", names[1], (long)label, names[2], classes);
    for (int i = 0; i < classes; i++) n += sprintf(text + n, "%s%.17g", i ? "," : "", probabilities[i]);
    n += sprintf(text + n, "]}]}");
    return sprintf(out, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s", n, text);
}

/* Answers what is whole; 0 where the client has gone. */
static int serve(struct client *c) {
    ssize_t n = recv(c->fd, c->data + c->have, BUFFER - 1 - c->have, 0);
    if (n <= 0) return 0;
    c->have += n;
    c->data[c->have] = 0;
    for (char *end; (end = memmem(c->data, c->have, "\r\n\r\n", 4));) {
        *end = 0;
        char *length = strcasestr(c->data, "\ncontent-length:");
        size_t whole = end + 4 - c->data + (length ? strtoul(length + 16, NULL, 10) : 0);
        if (c->have < whole) { *end = '\r'; return 1; }
        char out[8192];
        size_t size = answer(c->data, end + 4, out);
        if (send(c->fd, out, size, MSG_NOSIGNAL) != (ssize_t)size) return 0;
        memmove(c->data, c->data + whole, c->have - whole + 1);
        c->have -= whole;
    }
    return 1;
}

int main(int count, char **arguments) {
    if (count != 9) {
        fprintf(stderr, "bare_server LIBRARY MODEL INPUT COLUMNS LABEL PROBABILITIES CLASSES ADDRESS\n");
        return 2;
    }
    names[0] = arguments[3], names[1] = arguments[5], names[2] = arguments[6];
    columns = atoi(arguments[4]), classes = atoi(arguments[7]);
    if (columns > COLUMNS_MAX || classes > 64) return 2;
    load(arguments[1], arguments[2]);
    int listener = listening(arguments[8]), poll = epoll_create1(0), one = 1;
    static struct client clients[MOST];
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(poll, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        struct epoll_event events[64];
        int ready = epoll_wait(poll, events, 64, -1);
        for (int i = 0; i < ready; i++) {
            struct client *c = events[i].data.ptr;
            if (c) {
                if (!serve(c)) { close(c->fd); c->fd = 0; }
                continue;
            }
            int fd = accept(listener, NULL, NULL);
            for (c = clients; c < clients + MOST && c->fd; c++);
            if (fd < 0 || c == clients + MOST) continue;
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
            c->fd = fd, c->have = 0;
            event.data.ptr = c;
            epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event);
        }
    }
}
