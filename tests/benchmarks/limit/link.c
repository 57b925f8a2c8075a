#include "link.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#define CHANNEL 1
#define FRAME_HEAD 7
#define CONTENT_HEAD 12
/* The longest method or content header that is written here, by far. */
#define HEAD_ROOM 4096

static const char FRAME_END = (char)0xce;

void give_up(const char *reason) {
    fprintf(stderr, "limit: %s\n", reason);
    exit(1);
}

static void check(amqp_rpc_reply_t reply, const char *what) {
    if (reply.reply_type != AMQP_RESPONSE_NORMAL) give_up(what);
}

static double read_clock(clockid_t id) {
    struct timespec time;
    clock_gettime(id, &time);
    return time.tv_sec + time.tv_nsec * 1e-9;
}

double now(void) {
    return read_clock(CLOCK_MONOTONIC);
}

double cpu_time(void) {
    return read_clock(CLOCK_PROCESS_CPUTIME_ID);
}

struct bytes text(const char *chars) {
    size_t size = strlen(chars);
    struct bytes bytes = {(char *)chars, size, size};
    return bytes;
}

/* Where `size` more bytes may be written. */
static char *reserve(struct bytes *bytes, size_t size) {
    if (bytes->size + size > bytes->room) {
        bytes->room = 2 * (bytes->size + size);
        bytes->data = realloc(bytes->data, bytes->room);
        if (!bytes->data) give_up("out of memory");
    }
    return bytes->data + bytes->size;
}

void append(struct bytes *bytes, const void *data, size_t size) {
    memcpy(reserve(bytes, size), data, size);
    bytes->size += size;
}

static void assign(struct bytes *bytes, amqp_bytes_t value) {
    bytes->size = 0;
    append(bytes, value.bytes, value.len);
}

static amqp_bytes_t borrowed(struct bytes bytes) {
    amqp_bytes_t value = {bytes.size, bytes.data};
    return value;
}

/* -- opening ------------------------------------------------------------------------------------------------------ */

void open_link(struct link *link, const struct setting *setting) {
    struct amqp_connection_info where;
    char *url = strdup(setting->url); /* is changed by the parser */
    if (amqp_parse_url(url, &where) != AMQP_STATUS_OK) give_up("not an AMQP URL");
    memset(link, 0, sizeof *link);
    link->state = amqp_new_connection();
    amqp_socket_t *socket = amqp_tcp_socket_new(link->state);
    if (!socket || amqp_socket_open(socket, where.host, where.port) != AMQP_STATUS_OK) give_up("cannot connect");
    /* An empty path is the default virtual host to every other client. */
    check(amqp_login(link->state, *where.vhost ? where.vhost : "/", AMQP_DEFAULT_MAX_CHANNELS, AMQP_DEFAULT_FRAME_SIZE,
                     0, AMQP_SASL_METHOD_PLAIN, where.user, where.password),
          "cannot log in");
    free(url);
    link->frame_max = amqp_get_frame_max(link->state);
    amqp_channel_open(link->state, CHANNEL);
    check(amqp_get_rpc_reply(link->state), "cannot open a channel");
}

static void declare_exchange(struct link *link, const char *name) {
    amqp_exchange_declare(link->state, CHANNEL, amqp_cstring_bytes(name), amqp_cstring_bytes("direct"), 0, 1, 0, 0,
                          amqp_empty_table);
    check(amqp_get_rpc_reply(link->state), "cannot declare an exchange");
}

void declare_queue(struct link *link, const char *queue, const char *exchange, const char *routing_key, int expires) {
    amqp_table_entry_t entry = {amqp_cstring_bytes("x-expires"), {AMQP_FIELD_KIND_I32, {.i32 = expires}}};
    amqp_table_t arguments = {expires ? 1 : 0, &entry};
    amqp_queue_declare(link->state, CHANNEL, amqp_cstring_bytes(queue), 0, 1, 0, 0, arguments);
    check(amqp_get_rpc_reply(link->state), "cannot declare a queue");
    amqp_queue_bind(link->state, CHANNEL, amqp_cstring_bytes(queue), amqp_cstring_bytes(exchange),
                    amqp_cstring_bytes(routing_key), amqp_empty_table);
    check(amqp_get_rpc_reply(link->state), "cannot bind a queue");
}

void declare_service(struct link *link, const char *service) {
    char requests[256], responses[256];
    snprintf(requests, sizeof requests, "rpc_%s_request", service);
    snprintf(responses, sizeof responses, "rpc_%s_response", service);
    declare_exchange(link, requests);
    declare_exchange(link, responses);
    declare_queue(link, requests, requests, "", 0);
}

void select_confirms(struct link *link) {
    amqp_confirm_select(link->state, CHANNEL);
    check(amqp_get_rpc_reply(link->state), "cannot select confirms");
}

void consume(struct link *link, const char *queue, int prefetch, int no_ack) {
    if (prefetch) {
        amqp_basic_qos(link->state, CHANNEL, 0, prefetch, 0);
        check(amqp_get_rpc_reply(link->state), "cannot set the prefetch");
    }
    amqp_basic_consume(link->state, CHANNEL, amqp_cstring_bytes(queue), amqp_empty_bytes, 0, no_ack, 0,
                       amqp_empty_table);
    check(amqp_get_rpc_reply(link->state), "cannot consume");
}

/* -- writing ------------------------------------------------------------------------------------------------------ */

static void put(char *at, uint64_t number, int size) {
    while (size--) {
        at[size] = (char)number;
        number >>= 8;
    }
}

/* A frame of `size` bytes, which are already behind where its head goes. */
static void end_frame(struct link *link, char *frame, int type, size_t size) {
    put(frame, type, 1);
    put(frame + 1, CHANNEL, 2);
    put(frame + 3, size, 4);
    frame[FRAME_HEAD + size] = FRAME_END;
    link->out.size += FRAME_HEAD + size + 1;
}

static void put_method(struct link *link, amqp_method_number_t id, void *method) {
    char *frame = reserve(&link->out, HEAD_ROOM);
    amqp_bytes_t room = {HEAD_ROOM - FRAME_HEAD - 5, frame + FRAME_HEAD + 4};
    put(frame + FRAME_HEAD, id, 4);
    int size = amqp_encode_method(id, method, room);
    if (size < 0) give_up("cannot encode a method");
    end_frame(link, frame, AMQP_FRAME_METHOD, 4 + size);
}

static void put_content(struct link *link, amqp_basic_properties_t *properties, struct bytes body) {
    char *frame = reserve(&link->out, HEAD_ROOM);
    amqp_bytes_t room = {HEAD_ROOM - FRAME_HEAD - CONTENT_HEAD - 1, frame + FRAME_HEAD + CONTENT_HEAD};
    put(frame + FRAME_HEAD, AMQP_BASIC_CLASS, 2);
    put(frame + FRAME_HEAD + 2, 0, 2);
    put(frame + FRAME_HEAD + 4, body.size, 8);
    int size = amqp_encode_properties(AMQP_BASIC_CLASS, properties, room);
    if (size < 0) give_up("cannot encode properties");
    end_frame(link, frame, AMQP_FRAME_HEADER, CONTENT_HEAD + size);
    for (size_t at = 0, part; at < body.size; at += part) {
        part = body.size - at;
        if (part > link->frame_max - FRAME_HEAD - 1) part = link->frame_max - FRAME_HEAD - 1;
        frame = reserve(&link->out, FRAME_HEAD + part + 1);
        memcpy(frame + FRAME_HEAD, body.data + at, part);
        end_frame(link, frame, AMQP_FRAME_BODY, part);
    }
}

void publish(struct link *link, const struct setting *setting, const char *exchange, struct bytes routing_key,
             struct bytes id, const char *reply_to, const char *expiration, struct bytes body) {
    amqp_basic_publish_t method = {.exchange = amqp_cstring_bytes(exchange), .routing_key = borrowed(routing_key),
                                   .mandatory = setting->safe};
    amqp_basic_properties_t properties = {._flags = AMQP_BASIC_DELIVERY_MODE_FLAG | AMQP_BASIC_CORRELATION_ID_FLAG,
                                          .delivery_mode = setting->safe ? 2 : 1, .correlation_id = borrowed(id)};
    if (reply_to) {
        properties._flags |= AMQP_BASIC_REPLY_TO_FLAG | AMQP_BASIC_EXPIRATION_FLAG;
        properties.reply_to = amqp_cstring_bytes(reply_to);
        properties.expiration = amqp_cstring_bytes(expiration);
    }
    put_method(link, AMQP_BASIC_PUBLISH_METHOD, &method);
    put_content(link, &properties, body);
}

void ack_up_to(struct link *link, uint64_t delivery_tag) {
    amqp_basic_ack_t method = {.delivery_tag = delivery_tag, .multiple = 1};
    put_method(link, AMQP_BASIC_ACK_METHOD, &method);
}

static void flush(struct link *link) {
    while (link->sent < link->out.size) {
        ssize_t sent = send(amqp_get_sockfd(link->state), link->out.data + link->sent, link->out.size - link->sent,
                            MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0) {
            if (errno == EAGAIN) return;
            give_up(strerror(errno));
        }
        link->sent += sent;
    }
    link->out.size = link->sent = 0;
}

/* -- reading ------------------------------------------------------------------------------------------------------ */

static void complete(struct link *link, const struct events *events) {
    if (link->body.size == link->body_size) events->delivered(link, link->delivery_tag);
}

static void on_method(struct link *link, amqp_method_t *method, const struct events *events) {
    switch (method->id) {
    case AMQP_BASIC_DELIVER_METHOD:
        link->delivery_tag = ((amqp_basic_deliver_t *)method->decoded)->delivery_tag;
        break;
    case AMQP_BASIC_ACK_METHOD: {
        amqp_basic_ack_t *ack = method->decoded;
        events->confirmed(ack->delivery_tag, ack->multiple);
        break;
    }
    default:
        give_up(amqp_method_name(method->id));
    }
}

static void on_frame(struct link *link, amqp_frame_t *frame, const struct events *events) {
    if (frame->frame_type == AMQP_FRAME_METHOD) {
        on_method(link, &frame->payload.method, events);
    } else if (frame->frame_type == AMQP_FRAME_HEADER) {
        amqp_basic_properties_t *properties = frame->payload.properties.decoded;
        assign(&link->id, properties->correlation_id);
        if (properties->_flags & AMQP_BASIC_REPLY_TO_FLAG) assign(&link->reply_to, properties->reply_to);
        link->body_size = frame->payload.properties.body_size;
        link->body.size = 0;
        complete(link, events);
    } else if (frame->frame_type == AMQP_FRAME_BODY) {
        append(&link->body, frame->payload.body_fragment.bytes, frame->payload.body_fragment.len);
        complete(link, events);
    }
}

static void read_frames(struct link *link, const struct events *events) {
    struct timeval none = {0, 0};
    amqp_frame_t frame;
    do {
        int status = amqp_simple_wait_frame_noblock(link->state, &frame, &none);
        if (status == AMQP_STATUS_TIMEOUT) break;
        if (status != AMQP_STATUS_OK) give_up(amqp_error_string2(status));
        on_frame(link, &frame, events);
    } while (amqp_data_in_buffer(link->state) || amqp_frames_enqueued(link->state));
    amqp_maybe_release_buffers(link->state);
}

void turn(struct link *links, int count, const struct events *events, int timeout) {
    struct pollfd polled[2];
    for (int i = 0; i < count; i++) {
        flush(&links[i]);
        polled[i].fd = amqp_get_sockfd(links[i].state);
        polled[i].events = POLLIN | (links[i].out.size ? POLLOUT : 0);
        /* What came with the answer to the last method of opening is in the library's buffer. */
        if (amqp_data_in_buffer(links[i].state) || amqp_frames_enqueued(links[i].state)) timeout = 0;
    }
    if (poll(polled, count, timeout) < 0 && errno != EINTR) give_up(strerror(errno));
    for (int i = 0; i < count; i++) {
        if (polled[i].revents & (POLLIN | POLLERR | POLLHUP) || amqp_data_in_buffer(links[i].state)
            || amqp_frames_enqueued(links[i].state))
            read_frames(&links[i], events);
    }
}
