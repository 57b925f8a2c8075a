/* client URL SERVICE call CALLERS SIZE WARM_UP SECONDS safe|bare CONNECTIONS: keeps CALLERS requests of SIZE bytes
   under way; says "begin" when it is warm, "end" after SECONDS, and then what came of them, as JSON. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "link.h"

/* milliseconds; amphora's calls expire at their timeout, which is a minute by default */
#define EXPIRATION "60000"
/* milliseconds; amphora's */
#define REPLY_QUEUE_EXPIRES 600000
/* seconds that it waits, beyond its warm-up, until as many calls have returned as are under way at once; and, beyond
   the time of the measurement, until one has */
#define PATIENCE 5

struct caller {
    char id[40];
    double began;
};

static struct setting setting;
static struct link links[2], *consuming, *publishing;
static char exchange[256], uuid[40];
static struct caller *callers;
static struct bytes payload;
static uint64_t seen, acked;
static uint64_t returned;
static int measuring;
static struct bytes latencies; /* floats, in microseconds */

static void call(struct caller *caller) {
    caller->began = now();
    publish(publishing, &setting, exchange, text(""), text(caller->id), uuid, EXPIRATION, payload);
}

static void on_delivered(struct link *link, uint64_t delivery_tag) {
    append(&link->id, "", 1);
    struct caller *caller = &callers[strtoul(link->id.data + 24, NULL, 16)];
    seen = delivery_tag;
    returned++;
    if (link->body.size != payload.size || memcmp(link->body.data, payload.data, payload.size)) give_up("wrong reply");
    if (measuring) {
        float latency = (now() - caller->began) * 1e6;
        append(&latencies, &latency, sizeof latency);
    }
    call(caller);
}

static void on_confirmed(uint64_t number, int multiple) {
    (void)number, (void)multiple;
}

/* Until so many calls have returned since the beginning; at the latest until `end`. */
static void run(double end, uint64_t enough) {
    const struct events events = {on_delivered, on_confirmed};
    for (double left = end - now(); left > 0 && returned < enough; left = end - now()) {
        turn(links, setting.connections, &events, left * 1000 + 1);
        if (setting.safe && acked < seen) {
            ack_up_to(consuming, seen);
            acked = seen;
        }
    }
}

static int by_size(const void *one, const void *other) {
    float a = *(const float *)one, b = *(const float *)other;
    return (a > b) - (a < b);
}

int main(int count, char **words) {
    if (count != 10) give_up("usage: client URL SERVICE call CALLERS SIZE WARM_UP SECONDS safe|bare CONNECTIONS");
    setting = (struct setting){words[1], words[2], !strcmp(words[8], "safe"), atoi(words[9])};
    int concurrency = atoi(words[4]);
    size_t size = atoi(words[5]);
    for (int i = 0; i < setting.connections; i++) open_link(&links[i], &setting);
    consuming = &links[0];
    publishing = &links[setting.connections - 1];
    declare_service(consuming, setting.service);
    char queue[256], responses[256];
    snprintf(uuid, sizeof uuid, "00000000-0000-0000-0000-%012x", (unsigned)getpid());
    snprintf(exchange, sizeof exchange, "rpc_%s_request", setting.service);
    snprintf(responses, sizeof responses, "rpc_%s_response", setting.service);
    snprintf(queue, sizeof queue, "rpc_%s_%s_response", setting.service, uuid);
    declare_queue(consuming, queue, responses, uuid, REPLY_QUEUE_EXPIRES);
    if (setting.safe) select_confirms(publishing);
    consume(consuming, queue, 0, !setting.safe);
    for (size_t i = 0; i < size; i++) append(&payload, "abcdefghijklmnopqrstuvwxyz" + i % 26, 1);
    callers = calloc(concurrency, sizeof *callers);
    for (int i = 0; i < concurrency; i++) {
        snprintf(callers[i].id, sizeof callers[i].id, "%.24s%012x", uuid, i);
        call(&callers[i]);
    }
    double warm = now() + atof(words[6]);
    run(warm, UINT64_MAX);
    run(warm + PATIENCE, concurrency);
    puts("begin");
    fflush(stdout);
    double began = now(), cpu = cpu_time();
    uint64_t before = returned;
    measuring = 1;
    run(began + atof(words[7]), UINT64_MAX);
    run(began + atof(words[7]) + PATIENCE, before + 1);
    double seconds = now() - began;
    cpu = cpu_time() - cpu;
    puts("end");
    fflush(stdout);
    float *sorted = (float *)latencies.data;
    size_t calls = latencies.size / sizeof *sorted;
    if (calls) qsort(sorted, calls, sizeof *sorted, by_size);
    float p50 = calls ? sorted[calls / 2] : 0, p99 = calls ? sorted[calls * 99 / 100] : 0;
    printf("{\"calls\": %zu, \"seconds\": %f, \"cpu\": %f, \"p50\": %.1f, \"p99\": %.1f, \"errors\": 0}\n", calls,
           seconds, cpu, p50, p99);
    return 0;
}
