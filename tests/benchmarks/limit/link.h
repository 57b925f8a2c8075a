/* A connection to the broker for an echo that is as fast as librabbitmq allows.

   The library connects, declares, reads and encodes. Only its writing is replaced: it sends three times for each
   message, which costs more than everything else; here all that one turn of the loop has to say leaves as one send. */

#ifndef LINK_H
#define LINK_H

#include <poll.h>
#include <stddef.h>
#include <stdint.h>

/* Where its headers are since 0.12; at their old place they warn. */
#if __has_include(<rabbitmq-c/amqp.h>)
#include <rabbitmq-c/amqp.h>
#include <rabbitmq-c/framing.h>
#include <rabbitmq-c/tcp_socket.h>
#else
#include <amqp.h>
#include <amqp_framing.h>
#include <amqp_tcp_socket.h>
#endif

struct bytes {
    char *data;
    size_t size, room;
};

struct link {
    amqp_connection_state_t state;
    struct bytes out;     /* what is not sent, from `sent` on */
    size_t sent;
    size_t frame_max;
    /* of the message that is being received */
    uint64_t delivery_tag;
    size_t body_size;
    struct bytes id, reply_to, body;
};

/* What a program hears of. `link->id`, `reply_to` and `body` are those of the delivery. */
struct events {
    void (*delivered)(struct link *link, uint64_t delivery_tag);
    void (*confirmed)(uint64_t number, int multiple);
};

struct setting {
    char *url;
    const char *service;
    int safe;             /* persistent, mandatory, confirmed; otherwise nothing of it */
    int connections;      /* 2: one consumes and one publishes, as amphora's; 1: both on one */
};

void open_link(struct link *link, const struct setting *setting);

/* The request exchange, its queue, and the response exchange, as amphora has them. */
void declare_service(struct link *link, const char *service);
void declare_queue(struct link *link, const char *queue, const char *exchange, const char *routing_key, int expires);
void select_confirms(struct link *link);
void consume(struct link *link, const char *queue, int prefetch, int no_ack);

void publish(struct link *link, const struct setting *setting, const char *exchange, struct bytes routing_key,
             struct bytes id, const char *reply_to, const char *expiration, struct bytes body);
void ack_up_to(struct link *link, uint64_t delivery_tag);

/* Send what there is to send, wait for what comes, at most so many milliseconds (-1: without end), and tell of it. */
void turn(struct link *links, int count, const struct events *events, int timeout);

struct bytes text(const char *chars);
void append(struct bytes *bytes, const void *data, size_t size);
void give_up(const char *reason);
double now(void);      /* seconds, monotonic */
double cpu_time(void); /* seconds that this process has computed */

#endif
