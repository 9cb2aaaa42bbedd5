/* A fleet of devices, and a subscriber, that are no bottleneck: MQTT 3.1.1 at QoS 1, one connection each.
 *
 *     cc -O2 -o mqtt_load mqtt_load.c
 *     ./mqtt_load publish 1883 messages.bin 1000 5.0 0       for 5 s, at most 1000 messages unheard of
 *     ./mqtt_load publish 1883 messages.bin 1000 600 2500    2,500 messages/s, lag counted from when each was due
 *     ./mqtt_load subscribe 1883                             acknowledges and counts all on ek/1/up/#, until SIGTERM
 *
 * What the fleet sends is driven by whoever takes it in, not by the broker: a message is out until a collector's
 * acknowledgement (ek/1/dn/DEVICE/ack) covers its records, or until somebody says on bench/heard how many messages have
 * been heard in all. So nothing piles up in the broker's queues, whose limits would drop it. As a device does, it sends
 * again what nothing was heard of for 2 s.
 *
 * messages.bin: for each message DEVICE FIRST RECORDS TOPIC_BYTES PAYLOAD_BYTES (uint32, this machine's order), where in
 * the payload each record's sequence stands as eight bytes (RECORDS times uint32), the topic, the payload. Those without
 * records go out once, before the clock starts; the others in turn, their sequences counted up from FIRST.
 * Prints one JSON object. Linux.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    CONNACK = 0x20, PUBLISH = 0x30, PUBACK = 0x40, SUBACK = 0x90, QOS1 = 0x02,
    BUFFER = 1 << 22, DEVICES = 1 << 16, OUT = 1 << 16, RECORDS = 8, SAMPLES = 1 << 24, AGAIN_S = 2, VAIN_S = 60,
    SAY = 64 /* how often the subscriber says what it has heard; a run's messages are a multiple of it */
};

struct message {
    uint32_t device, first, records, offset[RECORDS];
    uint8_t *packet;
    size_t size, payload, identifier;
};

/* What is out; `later` is the device's next one, counted like `head`. */
struct sent { uint32_t message; uint64_t last, later; double due; };

static int fd;
static uint8_t in[BUFFER], out[BUFFER];
static size_t have, waiting;
static struct message *messages;
static size_t count;
static uint64_t next_sequence[DEVICES], oldest[DEVICES], newest[DEVICES];
/* In order of sending; what was heard of in the middle is marked by `due` < 0. */
static struct sent flying[OUT];
static uint64_t head = 1, tail = 1, out_now;
static uint64_t heard_messages;
static float *lags;
static size_t samples;
static int said_in_numbers; /* somebody counts messages: no collector that acknowledges records */
static double progressed;
static volatile sig_atomic_t ended;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static void fail(const char *what) {
    fprintf(stderr, "%s: %s\n", what, errno ? strerror(errno) : "");
    exit(1);
}

static void flush(void) {
    size_t at = 0;
    while (at < waiting) {
        ssize_t n = send(fd, out + at, waiting - at, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN) break;
        if (n <= 0) fail("the broker ended the connection");
        at += n;
    }
    memmove(out, out + at, waiting - at);
    waiting -= at;
}

static void put(const void *data, size_t size) {
    if (waiting + size > BUFFER) fail("the broker takes nothing");
    memcpy(out + waiting, data, size);
    waiting += size;
}

static size_t length_bytes(uint8_t *at, size_t length) {
    size_t n = 0;
    do {
        at[n] = length & 0x7F;
        length >>= 7;
        if (length) at[n] |= 0x80;
    } while (at[n++] & 0x80);
    return n;
}

static void dial(int port, const char *name) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    int one = 1;
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if ((fd = socket(AF_INET, SOCK_STREAM, 0)) < 0 || connect(fd, (void *)&to, sizeof to)) fail("connect");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    uint8_t packet[64] = {0x10, 12 + strlen(name), 0, 4, 'M', 'Q', 'T', 'T', 4, 2, 0, 0, 0, strlen(name)};
    memcpy(packet + 14, name, strlen(name));
    put(packet, 14 + strlen(name));
}

static void subscribe(const char *filter, int qos) {
    uint8_t packet[64] = {0x82, 5 + strlen(filter), 0, 1, 0, strlen(filter)};
    memcpy(packet + 6, filter, strlen(filter));
    packet[6 + strlen(filter)] = qos;
    put(packet, 7 + strlen(filter));
}

/* The next whole packet of what was read, or 0; `at` moves behind it. */
static int packet(size_t *at, uint8_t **body, size_t *size) {
    size_t place = *at + 1, length = 0;
    for (int shift = 0;; shift += 7) {
        if (place >= have) return 0;
        length |= (size_t)(in[place] & 0x7F) << shift;
        if (!(in[place++] & 0x80)) break;
    }
    if (place + length > have) return 0;
    int kind = in[*at];
    *body = in + place, *size = length, *at = place + length;
    return kind;
}

static int receive(void) {
    ssize_t n = recv(fd, in + have, BUFFER - have, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
    if (n <= 0) fail("the broker ended the connection");
    have += n;
    return 1;
}

static void wait_for(int timeout_ms) {
    struct pollfd one = {.fd = fd, .events = POLLIN | (waiting ? POLLOUT : 0)};
    poll(&one, 1, timeout_ms);
    if (one.revents & POLLOUT) flush();
    if (one.revents & ~POLLOUT) receive();
}

static void await(int wanted) {
    for (flush();; wait_for(1000)) {
        size_t at = 0, size;
        uint8_t *body;
        int kind = packet(&at, &body, &size);
        if (!kind) continue;
        if (kind != wanted || (wanted == CONNACK && body[1])) fail("the broker refuses");
        memmove(in, in + at, have - at);
        have -= at;
        return;
    }
}

/* --- the subscriber --- */

static void end(int number) { (void)number, ended = 1; }

static int listen_for(int port) {
    struct sigaction action = {.sa_handler = end};
    sigaction(SIGTERM, &action, NULL);
    dial(port, "bench-subscriber");
    await(CONNACK);
    subscribe("ek/1/up/#", 1);
    await(SUBACK);
    printf("ready\n");
    fflush(stdout);
    uint64_t heard = 0, bytes = 0;
    while (!ended) {
        wait_for(1000);
        size_t at = 0, size;
        uint8_t *body;
        for (int kind; (kind = packet(&at, &body, &size));) {
            if ((kind & 0xF0) != PUBLISH) continue;
            size_t topic = body[0] << 8 | body[1];
            bytes += size;
            put((uint8_t[]){PUBACK, 2, body[2 + topic], body[3 + topic]}, 4);
            if (++heard % SAY) continue;
            uint8_t told[64] = {PUBLISH, 0, 0, 11, 'b', 'e', 'n', 'c', 'h', '/', 'h', 'e', 'a', 'r', 'd'};
            told[1] = 13 + sprintf((char *)told + 15, "%llu", (unsigned long long)heard);
            put(told, 2 + told[1]);
        }
        memmove(in, in + at, have - at);
        have -= at;
        flush();
    }
    printf("{\"messages\": %llu, \"bytes\": %llu}\n", (unsigned long long)heard, (unsigned long long)bytes);
    return 0;
}

/* --- the fleet --- */

static void load(const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file) fail(path);
    uint32_t head[5];
    while (fread(head, sizeof head, 1, file) == 1) {
        messages = realloc(messages, (count + 1) * sizeof *messages);
        struct message *m = &messages[count++];
        *m = (struct message){.device = head[0], .first = head[1], .records = head[2]};
        if (m->device >= DEVICES || m->records > RECORDS) fail("messages.bin");
        if (fread(m->offset, sizeof *m->offset, m->records, file) != m->records) fail("messages.bin");
        m->packet = malloc(head[3] + head[4] + 16);
        m->packet[0] = PUBLISH | QOS1;
        size_t at = 1 + length_bytes(m->packet + 1, 2 + head[3] + 2 + head[4]);
        m->packet[at] = head[3] >> 8, m->packet[at + 1] = head[3];
        m->identifier = at + 2 + head[3];
        m->payload = m->identifier + 2;
        m->size = m->payload + head[4];
        if (fread(m->packet + at + 2, 1, head[3], file) != head[3]) fail("messages.bin");
        if (fread(m->packet + m->payload, 1, head[4], file) != head[4]) fail("messages.bin");
        if (m->records) next_sequence[m->device] = m->first;
    }
    fclose(file);
}

static void transmit(struct message *m, uint64_t last) {
    static uint16_t identifier;
    if (!++identifier) identifier = 1;
    m->packet[m->identifier] = identifier >> 8, m->packet[m->identifier + 1] = identifier;
    for (uint32_t i = 0; i < m->records; i++) {
        uint64_t sequence = htobe64(last - m->records + 1 + i);
        memcpy(m->packet + m->payload + m->offset[i], &sequence, 8);
    }
    put(m->packet, m->size);
}

static void send_out(uint32_t index, double due) {
    struct message *m = &messages[index];
    uint64_t last = m->records ? (next_sequence[m->device] += m->records) - 1 : m->first;
    if (oldest[m->device]) flying[newest[m->device] % OUT].later = tail;
    else oldest[m->device] = tail;
    newest[m->device] = tail;
    flying[tail++ % OUT] = (struct sent){index, last, 0, due};
    out_now++;
    transmit(m, last);
}

static void landed(struct sent *s, double at) {
    if (messages[s->message].records && samples < SAMPLES) lags[samples++] = (at - s->due) * 1e3;
    s->due = -1;
    oldest[messages[s->message].device] = s->later;
    out_now--;
    progressed = at;
    while (head < tail && flying[head % OUT].due < 0) head++;
}

static uint64_t number(const uint8_t **at) {
    uint8_t kind = *(*at)++;
    if (kind < 0x80) return kind;
    if (kind < 0xCC || kind > 0xCF) fail("an acknowledgement that is none");
    uint64_t value = 0;
    for (int bytes = 1 << (kind - 0xCC); bytes--;) value = value << 8 | *(*at)++;
    return value;
}

static void acknowledged(uint32_t device, const uint8_t *payload) {
    const uint8_t *place = payload + 1;
    number(&place);
    uint64_t high = number(&place);
    double at = now();
    while (oldest[device] && flying[oldest[device] % OUT].last <= high) landed(&flying[oldest[device] % OUT], at);
}

static void hear(void) {
    size_t at = 0, size;
    uint8_t *body;
    for (int kind; (kind = packet(&at, &body, &size));) {
        if ((kind & 0xF0) != PUBLISH) continue;
        size_t topic = body[0] << 8 | body[1];
        uint8_t *name = body + 2, *payload = name + topic;
        if (!memcmp(name, "bench/", 6)) {
            char text[32] = {0};
            memcpy(text, payload, size - 2 - topic < 31 ? size - 2 - topic : 31);
            said_in_numbers = 1;
            double when = now();
            for (uint64_t heard = strtoull(text, NULL, 10); heard_messages < heard && head < tail; heard_messages++)
                landed(&flying[head % OUT], when);
        } else {
            uint8_t *digits = memchr(name, '-', topic); /* ek/1/dn/bench-42/ack */
            if (digits) acknowledged(atoi((char *)digits + 1), payload);
        }
    }
    memmove(in, in + at, have - at);
    have -= at;
}

static size_t again(void) {
    size_t sent = 0;
    if (said_in_numbers) return 0;
    for (uint64_t i = head; i < tail; i++) {
        struct sent *s = &flying[i % OUT];
        if (s->due >= 0 && waiting < BUFFER / 2) transmit(&messages[s->message], s->last), sent++;
    }
    return sent;
}

static int ascending(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static double quantile(double q) { return samples ? lags[(size_t)(q * (samples - 1))] : 0; }

static int publish(int port, const char *path, uint64_t window, double seconds, double rate) {
    load(path);
    lags = malloc(SAMPLES * sizeof *lags);
    dial(port, "bench-fleet");
    await(CONNACK);
    subscribe("ek/1/dn/+/ack", 0);
    await(SUBACK);
    subscribe("bench/heard", 0);
    await(SUBACK);
    size_t first = 0, resent = 0;
    while (first < count && !messages[first].records) first++;
    double began = 0, last_again = progressed = now();
    uint64_t sent = 0, records = 0;
    for (size_t next = 0;;) {
        double at = now();
        if (next == first && !began) { /* the references are in: the clock starts */
            if (!out_now) began = at;
        }
        int open = !began || at - began < seconds || sent % SAY;
        while (open && next < (began ? count : first) && out_now < window && tail - head < OUT && waiting < BUFFER / 2) {
            double due = rate > 0 && began ? began + sent / rate : at;
            if (due > at) break;
            send_out(next++, due);
            if (!began) continue;
            sent++;
            records += messages[next - 1].records;
            if (next == count) next = first;
            if (!(sent % SAY) && at - began >= seconds) break;
        }
        flush();
        if (began && !open && !out_now) break;
        int timeout_ms = 100;
        if (rate > 0 && began && open && out_now < window) timeout_ms = (int)((began + sent / rate - now()) * 1e3);
        wait_for(timeout_ms < 0 ? 0 : timeout_ms);
        hear();
        at = now();
        if (out_now && at - progressed > AGAIN_S && at - last_again > AGAIN_S) resent += again(), last_again = at;
        if (out_now && at - progressed > VAIN_S) errno = 0, fail("nobody takes in what is sent");
    }
    double took = progressed - began;
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    double cpu = used.ru_utime.tv_sec + used.ru_stime.tv_sec + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) * 1e-6;
    qsort(lags, samples, sizeof *lags, ascending);
    printf("{\"messages\": %llu, \"records\": %llu, \"seconds\": %.6f, \"cpu_s\": %.6f, \"again\": %zu, "
           "\"p50_ms\": %.3f, \"p99_ms\": %.3f, \"max_ms\": %.3f}\n",
           (unsigned long long)sent, (unsigned long long)records, took, cpu, resent, quantile(0.5), quantile(0.99),
           quantile(1));
    return 0;
}

int main(int given, char **arguments) {
    if (given == 3 && !strcmp(arguments[1], "subscribe")) return listen_for(atoi(arguments[2]));
    if (given == 7 && !strcmp(arguments[1], "publish"))
        return publish(atoi(arguments[2]), arguments[3], atoi(arguments[4]), atof(arguments[5]), atof(arguments[6]));
    fprintf(stderr, "mqtt_load publish PORT MESSAGES WINDOW SECONDS RATE | mqtt_load subscribe PORT\n");
    return 2;
}
