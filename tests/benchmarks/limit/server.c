/* server URL SERVICE call safe|bare CONNECTIONS: gives each request back as its reply, until it is killed.

   safe: a request is acked when the broker has confirmed its reply; bare: when the reply is written. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "link.h"

/* How many requests may be unacked; amphora's default. */
#define PREFETCH 250

static struct setting setting;
static struct link links[2], *consuming, *publishing;
static char exchange[256];

/* Requests are answered in the order in which they come, on channels that begin with 1: the n-th delivery, the n-th
   publish and its confirm have the same number. */
static uint64_t answered, settled, acked;
static char confirmed[PREFETCH]; /* a ring */

static void on_delivered(struct link *link, uint64_t delivery_tag) {
    struct bytes id = link->id;
    publish(publishing, &setting, exchange, link->reply_to, id, NULL, NULL, link->body);
    answered = delivery_tag;
    if (!setting.safe) settled = delivery_tag;
}

static void on_confirmed(uint64_t number, int multiple) {
    if (multiple) {
        for (uint64_t each = settled + 1; each <= number; each++) confirmed[each % PREFETCH] = 1;
    } else {
        confirmed[number % PREFETCH] = 1;
    }
    while (settled < answered && confirmed[(settled + 1) % PREFETCH]) confirmed[++settled % PREFETCH] = 0;
}

int main(int count, char **words) {
    if (count != 6) give_up("usage: server URL SERVICE call safe|bare CONNECTIONS");
    setting = (struct setting){words[1], words[2], !strcmp(words[4], "safe"), atoi(words[5])};
    char queue[256];
    snprintf(queue, sizeof queue, "rpc_%s_request", setting.service);
    snprintf(exchange, sizeof exchange, "rpc_%s_response", setting.service);
    for (int i = 0; i < setting.connections; i++) open_link(&links[i], &setting);
    consuming = &links[0];
    publishing = &links[setting.connections - 1];
    declare_service(consuming, setting.service);
    if (setting.safe) select_confirms(publishing);
    consume(consuming, queue, PREFETCH, 0);
    puts("ready");
    fflush(stdout);
    const struct events events = {on_delivered, on_confirmed};
    for (;;) {
        turn(links, setting.connections, &events, -1);
        if (acked < settled) {
            ack_up_to(consuming, settled);
            acked = settled;
        }
    }
}
