/* Asks a running edgekit-runtime over its Unix socket. Plain POSIX, no library.
 *
 *     cc -Wall -Wextra -Werror -std=c11 -o infer infer.c
 *     ./infer /run/edgekit/edgekit.sock press numbers=71.5,0.83,nan text=steel
 *
 * Each argument behind the model is one tensor with one row: its name, then the values of its columns in order.
 * A tensor called "text" holds texts, every other one numbers (64-bit floats); "nan" is a missing number.
 * `GET /v2/models/NAME` says which tensors there are, and `parameters.columns` which columns each of them has.
 * On standard output: one line for each tensor of the answer, its name and its values.
 *
 * The bytes are described in docs/unix-socket.md. A program that asks often keeps the connection open.
 * Numbers travel little-endian: this program is for machines that are (x86-64, aarch64).
 */
#define _POSIX_C_SOURCE 200809L
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { HEAD_MAX = 16384, BODY_MAX = 1 << 20, COLUMNS_MAX = 1024 };

static void die(const char *what) {
    fprintf(stderr, "infer: %s\n", what);
    exit(1);
}

/* A buffer that is written to and never overruns. */
struct buffer {
    size_t used;
    unsigned char bytes[BODY_MAX];
};

static void put(struct buffer *to, const void *bytes, size_t size) {
    if (size > BODY_MAX - to->used)
        die("the request is too large");
    memcpy(to->bytes + to->used, bytes, size);
    to->used += size;
}

static void put_text(struct buffer *to, const char *text) { put(to, text, strlen(text)); }

static void put_number(struct buffer *to, size_t number) {
    char digits[32];
    snprintf(digits, sizeof digits, "%zu", number);
    put_text(to, digits);
}

/* A name goes into JSON as it stands, so it must not need escaping. */
static void check_name(const char *name) {
    if (*name == '\0' || strlen(name) != strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"))
        die("a name holds letters, digits, _ and - only");
}

/* Appends one tensor: its description to the JSON, its bytes to the data. Returns nothing; ends the program on a fault. */
static void put_tensor(struct buffer *json, struct buffer *data, char *argument) {
    char *values = strchr(argument, '=');
    if (values == NULL)
        die("write a tensor as NAME=VALUE,VALUE");
    *values++ = '\0';
    check_name(argument);
    int texts = strcmp(argument, "text") == 0;
    size_t columns = 0, before = data->used;
    for (char *end; values != NULL; values = end) {
        end = strchr(values, ',');
        if (end != NULL)
            *end++ = '\0';
        if (++columns > COLUMNS_MAX)
            die("too many columns");
        if (texts) { /* BYTES: the length in four bytes, then the bytes */
            uint32_t length = (uint32_t)strlen(values);
            put(data, &length, sizeof length);
            put(data, values, length);
        } else { /* FP64: eight bytes */
            char *rest;
            double value = strtod(values, &rest);
            if (rest == values || *rest != '\0')
                die("a value is no number");
            put(data, &value, sizeof value);
        }
    }
    put_text(json, "{\"name\":\"");
    put_text(json, argument);
    put_text(json, texts ? "\",\"datatype\":\"BYTES\",\"shape\":[1," : "\",\"datatype\":\"FP64\",\"shape\":[1,");
    put_number(json, columns);
    put_text(json, "],\"parameters\":{\"binary_data_size\":");
    put_number(json, data->used - before);
    put_text(json, "}}");
}

static void send_all(int to, const void *bytes, size_t size) {
    for (const char *at = bytes; size > 0;) {
        ssize_t sent = send(to, at, size, MSG_NOSIGNAL);
        if (sent <= 0)
            die("the service closed the connection");
        at += sent;
        size -= (size_t)sent;
    }
}

/* The value of a header, or NULL. `head` ends with an empty line. */
static const char *header(const char *head, const char *name) {
    size_t length = strlen(name);
    for (const char *line = strstr(head, "\r\n"); line != NULL; line = strstr(line, "\r\n")) {
        line += 2;
        if (strncasecmp(line, name, length) == 0 && line[length] == ':')
            return line + length + 1;
    }
    return NULL;
}

/* The text behind `"key":"` in a piece of JSON up to the next quotation mark; the length through `size`. */
static const char *text_of(const char *json, const char *key, size_t *size) {
    char pattern[64];
    snprintf(pattern, sizeof pattern, "\"%s\":\"", key);
    const char *found = strstr(json, pattern);
    if (found == NULL)
        die("the answer is not as expected");
    found += strlen(pattern);
    *size = strcspn(found, "\"");
    return found;
}

/* Prints every output: the JSON says name, type and size of each, the bytes follow in the same order. */
static void print_outputs(const char *json, const unsigned char *data, size_t size) {
    const char *output = strstr(json, "\"outputs\":[");
    if (output == NULL)
        die("the answer has no outputs");
    for (const char *next; (output = strstr(output, "{\"name\":\"")) != NULL; output = next) {
        size_t name_size, type_size, bytes;
        const char *name = text_of(output, "name", &name_size), *type = text_of(output, "datatype", &type_size);
        const char *announced = strstr(output, "\"binary_data_size\":");
        if (announced == NULL)
            die("an output is not binary");
        bytes = (size_t)strtoumax(strchr(announced, ':') + 1, NULL, 10);
        if (bytes > size)
            die("the answer is cut short");
        next = announced;
        printf("%.*s", (int)name_size, name);
        for (size_t at = 0; at < bytes;) {
            if (type_size == 4 && memcmp(type, "FP64", 4) == 0 && bytes - at >= 8) {
                double value;
                memcpy(&value, data + at, sizeof value);
                printf(" %.17g", value);
                at += sizeof value;
            } else if (type_size == 4 && memcmp(type, "FP32", 4) == 0 && bytes - at >= 4) {
                float value;
                memcpy(&value, data + at, sizeof value);
                printf(" %.9g", (double)value);
                at += sizeof value;
            } else if (type_size == 5 && memcmp(type, "INT64", 5) == 0 && bytes - at >= 8) {
                int64_t value;
                memcpy(&value, data + at, sizeof value);
                printf(" %" PRId64, value);
                at += sizeof value;
            } else if (type_size == 4 && memcmp(type, "BOOL", 4) == 0) {
                printf(" %s", data[at] ? "true" : "false");
                at += 1;
            } else if (type_size == 5 && memcmp(type, "BYTES", 5) == 0 && bytes - at >= 4) {
                uint32_t length;
                memcpy(&length, data + at, sizeof length);
                at += sizeof length;
                if (length > bytes - at)
                    die("a text is cut short");
                printf(" %.*s", (int)length, (const char *)data + at);
                at += length;
            } else {
                die("an output has a type that this example does not print");
            }
        }
        printf("\n");
        data += bytes;
        size -= bytes;
    }
}

int main(int argc, char **argv) {
    if (argc < 4) {
        fprintf(stderr, "usage: %s SOCKET MODEL TENSOR=VALUE,VALUE [TENSOR=VALUE,VALUE]\n", argv[0]);
        return 2;
    }
    check_name(argv[2]);

    /* The body: JSON, then the tensors' bytes in the same order. All outputs are wanted as bytes. */
    static struct buffer json, data;
    put_text(&json, "{\"parameters\":{\"binary_data_output\":true},\"inputs\":[");
    for (int i = 3; i < argc; i++) {
        if (i > 3)
            put_text(&json, ",");
        put_tensor(&json, &data, argv[i]);
    }
    put_text(&json, "]}");

    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(argv[1]) >= sizeof address.sun_path)
        die("the socket's path is too long");
    strcpy(address.sun_path, argv[1]);
    int service = socket(AF_UNIX, SOCK_STREAM, 0);
    if (service < 0 || connect(service, (struct sockaddr *)&address, sizeof address) != 0)
        die("no service listens there");

    static char head[HEAD_MAX];
    int size = snprintf(head, sizeof head,
                        "POST /v2/models/%s/infer HTTP/1.1\r\n"
                        "Host: localhost\r\n"
                        "Inference-Header-Content-Length: %zu\r\n"
                        "Content-Length: %zu\r\n\r\n",
                        argv[2], json.used, json.used + data.used);
    if (size < 0 || (size_t)size >= sizeof head)
        die("the model's name is too long");
    send_all(service, head, (size_t)size);
    send_all(service, json.bytes, json.used);
    send_all(service, data.bytes, data.used);

    /* The answer: a head up to an empty line, then Content-Length bytes. */
    static unsigned char answer[HEAD_MAX + BODY_MAX + 1];
    size_t got = 0, length = 0;
    unsigned char *body = NULL;
    while (body == NULL || got < (size_t)(body - answer) + length) {
        ssize_t more = recv(service, answer + got, sizeof answer - 1 - got, 0);
        if (more <= 0)
            die("the service closed the connection");
        got += (size_t)more;
        answer[got] = '\0';
        char *end = body == NULL ? strstr((char *)answer, "\r\n\r\n") : NULL;
        if (end != NULL) {
            end[2] = '\0'; /* the head's own end */
            body = (unsigned char *)end + 4;
            const char *value = header((char *)answer, "content-length");
            length = value == NULL ? 0 : (size_t)strtoumax(value, NULL, 10);
            if (length > BODY_MAX)
                die("the answer is too large");
        }
    }
    close(service);

    if (strncmp((char *)answer, "HTTP/1.1 200 ", 13) != 0) {
        fprintf(stderr, "infer: %.*s\n", (int)length, (char *)body); /* {"error": "what, and what to do"} */
        return 1;
    }
    const char *value = header((char *)answer, "inference-header-content-length");
    size_t json_size = value == NULL ? length : (size_t)strtoumax(value, NULL, 10);
    if (json_size > length)
        die("the answer is not as expected");
    static char description[BODY_MAX + 1];
    memcpy(description, body, json_size);
    description[json_size] = '\0';
    print_outputs(description, body + json_size, length - json_size);
    return 0;
}
