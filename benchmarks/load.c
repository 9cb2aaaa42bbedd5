/* A load generator that is no bottleneck: one request, some connections, latencies.
 *
 *     cc -O2 -o load load.c
 *     ./load 127.0.0.1:8080 16 5.0 0 request.bin       as fast as the answers come, for 5 s
 *     ./load /run/edgekit.sock 4 5.0 200 request.bin   200 requests/s, latency counted from when each was due
 *
 * Prints one JSON object. An answer that is not 200, or no answer, is an error. Linux.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { MOST_CONNECTIONS = 1024, ANSWER_BYTES = 1 << 16, MOST_SAMPLES = 1 << 23 };

struct connection {
    int fd, busy;
    double due;
    size_t have;
    char answer[ANSWER_BYTES];
};

static struct connection connections[MOST_CONNECTIONS];
static float *samples;
static size_t sampled, errors;
static char *request;
static size_t request_bytes;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static int dial(const char *address) {
    int fd;
    if (strchr(address, '/')) {
        struct sockaddr_un to = {.sun_family = AF_UNIX};
        strncpy(to.sun_path, address, sizeof to.sun_path - 1);
        if ((fd = socket(AF_UNIX, SOCK_STREAM, 0)) < 0 || connect(fd, (void *)&to, sizeof to)) fail(address);
    } else {
        struct sockaddr_in to = {.sin_family = AF_INET};
        char host[64];
        int one = 1;
        strncpy(host, address, sizeof host - 1);
        host[sizeof host - 1] = 0;
        char *colon = strchr(host, ':');
        if (!colon) fail("HOST:PORT");
        *colon = 0;
        to.sin_port = htons(atoi(colon + 1));
        inet_pton(AF_INET, host, &to.sin_addr);
        if ((fd = socket(AF_INET, SOCK_STREAM, 0)) < 0 || connect(fd, (void *)&to, sizeof to)) fail(address);
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    }
    return fd;
}

static void ask(struct connection *c, double due) {
    c->due = due;
    c->have = 0;
    c->busy = 1;
    for (size_t sent = 0; sent < request_bytes;) {
        ssize_t n = send(c->fd, request + sent, request_bytes - sent, MSG_NOSIGNAL);
        if (n < 0) fail("send");
        sent += n;
    }
}

/* 1 where the answer is whole. */
static int heard(struct connection *c) {
    ssize_t n = recv(c->fd, c->answer + c->have, ANSWER_BYTES - 1 - c->have, MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN) return 0;
    if (n <= 0) fail("the server ended the connection");
    c->have += n;
    c->answer[c->have] = 0;
    char *end = strstr(c->answer, "\r\n\r\n");
    if (!end) return 0;
    char *length = strcasestr(c->answer, "content-length:");
    if (!length || length > end) { fprintf(stderr, "an answer without Content-Length\n"); exit(1); }
    if (c->have < (size_t)(end + 4 - c->answer) + strtoul(length + 15, NULL, 10)) return 0;
    if (strncmp(c->answer, "HTTP/1.1 200", 12)) errors++;
    if (sampled < MOST_SAMPLES) samples[sampled++] = (now() - c->due) * 1e6;
    c->busy = 0;
    return 1;
}

static int ascending(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static double quantile(double q) { return sampled ? samples[(size_t)(q * (sampled - 1))] : 0; }

int main(int count, char **arguments) {
    if (count != 6) {
        fprintf(stderr, "load ADDRESS CONNECTIONS SECONDS RATE REQUEST\n");
        return 2;
    }
    int width = atoi(arguments[2]);
    double seconds = atof(arguments[3]), rate = atof(arguments[4]);
    FILE *file = fopen(arguments[5], "rb");
    if (!file || width < 1 || width > MOST_CONNECTIONS) fail(arguments[5]);
    request = malloc(1 << 24);
    request_bytes = fread(request, 1, 1 << 24, file);
    samples = malloc(MOST_SAMPLES * sizeof *samples);
    int poll = epoll_create1(0);
    for (int i = 0; i < width; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &connections[i]};
        connections[i].fd = dial(arguments[1]);
        epoll_ctl(poll, EPOLL_CTL_ADD, connections[i].fd, &event);
    }
    double began = now(), due = began, last = began;
    long late = 0;
    if (rate == 0)
        for (int i = 0; i < width; i++) ask(&connections[i], now());
    for (;;) {
        double at = now();
        int open = at - began < seconds, waiting = 0;
        if (rate > 0) {
            while (open && due <= at) { /* every request that is due goes to an idle connection, or is late */
                int i = 0;
                while (i < width && connections[i].busy) i++;
                if (i == width) { late++; break; }
                ask(&connections[i], due);
                due += 1 / rate;
            }
        }
        for (int i = 0; i < width; i++) waiting += connections[i].busy;
        if (!open && !waiting) break;
        struct epoll_event events[64];
        /* Spins for the last millisecond before a request is due, never for an answer: the server needs the core. */
        int wait_ms = rate > 0 && waiting < width && open ? (int)((due - now()) * 1e3) : 1000;
        if (wait_ms < 0) wait_ms = 0;
        int ready = epoll_wait(poll, events, 64, wait_ms);
        for (int i = 0; i < ready; i++) {
            struct connection *c = events[i].data.ptr;
            if (heard(c)) {
                last = now();
                if (rate == 0 && last - began < seconds) ask(c, last);
            }
        }
    }
    qsort(samples, sampled, sizeof *samples, ascending);
    printf("{\"requests\": %zu, \"errors\": %zu, \"late\": %ld, \"seconds\": %.6f, \"p50_us\": %.1f, \"p99_us\": %.1f, "
           "\"max_us\": %.1f}\n",
           sampled, errors, late, last - began, quantile(0.5), quantile(0.99), quantile(1));
    return 0;
}
