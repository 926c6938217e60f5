/*
 * A DHCPv4 load generator: many clients behind one packet socket.
 *
 * Every exchange is a client of its own, with a MAC, a host name and an xid that follow from its index
 * and the seed. Modes:
 *
 *   direct  DISCOVER and REQUEST broadcast from 0.0.0.0 (RFC 2131 4.4.1), broadcast flag clear
 *   relay   the same by way of a relay agent (RFC 2131 4.1): unicast from giaddr, port 67 to port 67
 *   renew   the clients of the prefill phase renew (RFC 2131 4.4.5): unicast REQUEST with ciaddr
 *   flood   DISCOVERs from random MACs, no REQUEST
 *   mutate  seeded mutations of valid packets and of payload files named after the options
 *
 * The load is a closed loop (--window exchanges under way) or an open one (--rate, in which case
 * --window caps the exchanges under way). --prefill N runs N unmeasured DORA exchanges first.
 * Result: one JSON object on standard output. Exit code 0, 1 when the prefill failed, 2 on bad usage,
 * 3 when the socket cannot be had.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <fcntl.h>

#define BATCH 64
#define FRAME_MAX 1514
#define PAYLOAD_MAX 1472         /* what fits one Ethernet frame behind IP and UDP */
#define CLIENTS_MAX (1u << 24)   /* an xid and a MAC carry 24 bits of index */
#define VLANS_MAX 256
#define SEEDS_MAX 1024
#define OWN_SEEDS 5
#define ETH_LEN 14
#define IP_LEN 20
#define HEADERS (ETH_LEN + IP_LEN + 8)
#define BOOTP_MIN 300            /* RFC 1542 2.1: shorter messages are dropped by old relays */
#define OPTIONS_AT 240           /* RFC 2131 2 and 3: fixed fields, then the magic cookie */

enum { DISCOVER = 1, OFFER, REQUEST, DECLINE, ACK, NAK, RELEASE, INFORM };
enum mode { DIRECT, RELAY, RENEW, FLOOD, MUTATE };
enum state { IDLE, SELECTING, REQUESTING, RENEWING, DONE };

static const char *const MODES[] = {"direct", "relay", "renew", "flood", "mutate", NULL};
static const uint8_t MAGIC[4] = {99, 130, 83, 99};
static const uint8_t BROADCAST_MAC[6] = {255, 255, 255, 255, 255, 255};
static const uint8_t RELAY_MAC[6] = {0x02, 0xfe, 0, 0, 0, 1};
static const uint8_t WANTED[] = {1, 3, 6, 12, 15, 26, 28, 42, 51, 54, 58, 59, 119, 121};

struct client {
    int64_t first_sent, last_sent; /* of the message now waiting for its answer */
    uint32_t address, server;      /* network order */
    uint32_t slot;                 /* place in active[] */
    uint8_t server_mac[6];
    uint16_t sends;
    uint8_t state, cycle;
};

struct latencies {
    uint32_t *ns;
    size_t count, room;
};

static struct {
    enum mode mode;
    uint32_t window, count, prefill, first, tries, seed;
    double rate, seconds, timeout;
    bool client_id, broadcast, arp, discover_only;
    uint32_t server, giaddr; /* network order */
    uint8_t server_mac[6];
    pid_t pid;
    FILE *log;
} opt = {.window = 64, .count = 1000, .tries = 4, .seed = 1, .seconds = 10, .timeout = 1,
         .server_mac = {255, 255, 255, 255, 255, 255}};

static struct {
    uint64_t done, lost, retransmits, duplicates, foreign, naks, offers, replies, sent, rx_drops;
    uint64_t double_allocated, address_changed, no_server_id, no_lease_time, bad_checksum, partial_checksum;
    uint64_t wrong_destination, broadcast_replies;
    int64_t began, ended, first_offer, last_ack;
    struct latencies offer, ack;
} stat;

static int sock = -1;
static int vlan_index[VLANS_MAX];
static size_t vlans;
static struct client *clients;
static uint32_t *owner; /* by the low 24 bits of an address: index of its holder + 1 */
static uint32_t *active;
static uint32_t nactive, started, goal, base; /* base: index of the phase's first client */
static double rate;                            /* of this phase, 0: as fast as the window allows */
static bool renewing;
static volatile sig_atomic_t stopped;
static uint64_t random_state;

static struct {
    uint8_t frame[BATCH][FRAME_MAX];
    struct sockaddr_ll to[BATCH];
    struct iovec iov[BATCH];
    struct mmsghdr msg[BATCH];
    unsigned used;
} tx;

static struct {
    uint8_t *bytes;
    size_t len;
} seeds[SEEDS_MAX];
static size_t nseeds;

/* ---- small things ---- */

static int64_t now_ns(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static int64_t now(void) { return now_ns(CLOCK_MONOTONIC); }

static uint64_t random64(void) { /* splitmix64 */
    uint64_t z = (random_state += 0x9e3779b97f4a7c15ULL);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
}

static void *need(void *p) {
    if (!p) {
        fputs("loadgen: out of memory\n", stderr);
        exit(3);
    }
    return p;
}

static void die(const char *what) {
    fprintf(stderr, "loadgen: %s: %s\n", what, strerror(errno));
    exit(3);
}

static void put16(uint8_t *p, uint16_t v) { v = htons(v), memcpy(p, &v, 2); }
static void put32(uint8_t *p, uint32_t v) { v = htonl(v), memcpy(p, &v, 4); }
static uint16_t get16(const uint8_t *p) { return (uint16_t)(p[0] << 8 | p[1]); }
static uint32_t raw32(const uint8_t *p) { uint32_t v; memcpy(&v, p, 4); return v; }

static void mac_of(uint32_t index, uint8_t mac[6]) {
    index += opt.first;
    mac[0] = 0x02;
    put16(mac + 1, (uint16_t)opt.seed);
    mac[3] = (uint8_t)(index >> 16);
    put16(mac + 4, (uint16_t)index);
}

static uint32_t xid_of(uint32_t index) {
    uint8_t top = (uint8_t)(opt.seed * 37 + clients[index].cycle);
    return (uint32_t)top << 24 | (index + opt.first);
}

/* Clients take the interfaces in turn; a relay agent stands on the first one. */
static int vlan_of(uint32_t index) { return vlan_index[opt.mode == RELAY ? 0 : index % vlans]; }

static void remember(struct latencies *l, int64_t ns) {
    if (l->count == l->room) {
        l->room = l->room ? l->room * 2 : 65536;
        l->ns = need(realloc(l->ns, l->room * sizeof *l->ns));
    }
    l->ns[l->count++] = ns > UINT32_MAX ? UINT32_MAX : (uint32_t)ns;
}

/* ---- sending ---- */

static void flush(void) {
    unsigned at = 0;
    while (at < tx.used) {
        int n = sendmmsg(sock, tx.msg + at, tx.used - at, 0);
        if (n > 0)
            at += (unsigned)n;
        else if (errno != EINTR && errno != EAGAIN && errno != ENOBUFS)
            at++; /* a link that is down for a moment loses a frame, as a real one does */
    }
    stat.sent += tx.used;
    tx.used = 0;
}

static uint8_t *next_frame(void) {
    if (tx.used == BATCH)
        flush();
    return tx.frame[tx.used];
}

static struct msghdr header(struct sockaddr_ll *address, struct iovec *iov) {
    return (struct msghdr){.msg_name = address, .msg_namelen = sizeof *address, .msg_iov = iov, .msg_iovlen = 1};
}

static void queue(size_t len, int ifindex) {
    unsigned i = tx.used++;
    tx.iov[i] = (struct iovec){tx.frame[i], len};
    tx.to[i] = (struct sockaddr_ll){.sll_family = AF_PACKET, .sll_ifindex = ifindex, .sll_halen = 6};
    memcpy(tx.to[i].sll_addr, tx.frame[i], 6);
    tx.msg[i].msg_hdr = header(&tx.to[i], &tx.iov[i]);
}

static uint32_t sum(const uint8_t *p, size_t len) {
    uint32_t s = 0;
    for (; len > 1; p += 2, len -= 2)
        s += get16(p);
    return len ? s + (uint32_t)(*p << 8) : s;
}

static uint16_t fold(uint32_t s) {
    while (s >> 16)
        s = (s & 0xffff) + (s >> 16);
    return (uint16_t)s;
}

static uint32_t pseudo_header(const uint8_t *ip, uint16_t udp_len) {
    return sum(ip + 12, 8) + IPPROTO_UDP + udp_len;
}

/* Puts the Ethernet, IP and UDP headers before the payload that already lies at frame + HEADERS. */
static void envelope(uint8_t *f, const uint8_t *dmac, const uint8_t *smac, uint32_t src, uint32_t dst,
                     uint16_t sport, size_t payload) {
    uint8_t *ip = f + ETH_LEN, *udp = ip + IP_LEN;
    uint16_t udp_len = (uint16_t)(payload + 8), check;
    memcpy(f, dmac, 6);
    memcpy(f + 6, smac, 6);
    put16(f + 12, ETHERTYPE_IP);
    memcpy(ip, (uint8_t[]){0x45, 0x10, 0, 0, 0, 0, 0, 0, 64, IPPROTO_UDP, 0, 0}, 12);
    put16(ip + 2, (uint16_t)(udp_len + IP_LEN));
    memcpy(ip + 12, &src, 4);
    memcpy(ip + 16, &dst, 4);
    put16(ip + 10, (uint16_t)~fold(sum(ip, IP_LEN)));
    put16(udp, sport);
    put16(udp + 2, 67);
    put16(udp + 4, udp_len);
    put16(udp + 6, 0);
    check = (uint16_t)~fold(pseudo_header(ip, udp_len) + sum(udp, udp_len));
    put16(udp + 6, check ? check : 0xffff);
}

static uint8_t *option(uint8_t *p, uint8_t code, const void *value, size_t len) {
    *p++ = code;
    *p++ = (uint8_t)len;
    memcpy(p, value, len);
    return p + len;
}

/* The fixed fields and the options that every message of a typical client carries; returns their end. */
static uint8_t *message(uint8_t *d, uint8_t type, uint32_t xid, const uint8_t mac[6], uint32_t ciaddr,
                        bool broadcast) {
    static const char HEX[] = "0123456789abcdef";
    uint8_t id[7] = {1}, size[2], *p = d + OPTIONS_AT;
    char name[] = "client-000000";
    memset(d, 0, BOOTP_MIN);
    memcpy(d, (uint8_t[]){1, 1, 6, 0}, 4);
    put32(d + 4, xid);
    if (broadcast)
        d[10] = 0x80;
    memcpy(d + 12, &ciaddr, 4);
    memcpy(d + 28, mac, 6);
    memcpy(d + 236, MAGIC, 4);
    p = option(p, 53, &type, 1);
    if (opt.client_id) {
        memcpy(id + 1, mac, 6);
        p = option(p, 61, id, 7);
    }
    for (int i = 0; i < 6; i++)
        name[7 + i] = HEX[mac[3 + i / 2] >> (i % 2 ? 0 : 4) & 15];
    p = option(p, 12, name, sizeof name - 1);
    put16(size, 1500);
    p = option(p, 57, size, 2);
    return option(p, 55, WANTED, sizeof WANTED);
}

static size_t finish(uint8_t *d, uint8_t *p) {
    *p++ = 255;
    if (p < d + BOOTP_MIN)
        memset(p, 0, (size_t)(d + BOOTP_MIN - p));
    return p < d + BOOTP_MIN ? BOOTP_MIN : (size_t)(p - d);
}

static void send_message(uint32_t index, uint8_t type) {
    struct client *c = &clients[index];
    uint8_t mac[6], *f = next_frame(), *d = f + HEADERS, *p;
    bool renew = c->state == RENEWING;
    mac_of(index, mac);
    p = message(d, type, xid_of(index), mac, renew ? c->address : 0, opt.broadcast);
    if (type == REQUEST && !renew) { /* RFC 2131 4.3.6: a renewal carries neither */
        p = option(p, 50, &c->address, 4);
        p = option(p, 54, &c->server, 4);
    }
    if (opt.mode == RELAY) {
        d[3] = 1;
        memcpy(d + 24, &opt.giaddr, 4);
        envelope(f, opt.server_mac, RELAY_MAC, opt.giaddr, opt.server, 67, finish(d, p));
    } else if (renew)
        envelope(f, c->server_mac, mac, c->address, c->server, 68, finish(d, p));
    else
        envelope(f, BROADCAST_MAC, mac, 0, INADDR_BROADCAST, 68, finish(d, p));
    size_t len = HEADERS + get16(f + ETH_LEN + 2) - IP_LEN - 8;
    queue(len, vlan_of(index));
    c->last_sent = now();
    if (!c->sends++)
        c->first_sent = c->last_sent;
}

/* ---- exchanges ---- */

static void enter(uint32_t index, enum state state) {
    struct client *c = &clients[index];
    c->state = (uint8_t)state;
    c->sends = 0;
    send_message(index, state == SELECTING ? DISCOVER : REQUEST);
}

static void start(uint32_t index) {
    clients[index].slot = nactive;
    active[nactive++] = index;
    clients[index].cycle += renewing;
    enter(index, renewing ? RENEWING : SELECTING);
}

static void leave(uint32_t index) {
    uint32_t slot = clients[index].slot;
    clients[index].state = DONE;
    active[slot] = active[--nactive];
    clients[active[slot]].slot = slot;
}

/* Starts what is due; returns when the next one is, 0 when that depends on a free slot or nothing is left. */
static int64_t start_due(void) {
    int64_t t = now();
    while (started < goal && nactive < opt.window) {
        if (rate > 0) {
            int64_t due = stat.began + (int64_t)(started * 1e9 / rate);
            if (due > t)
                return due;
        }
        uint32_t index = renewing ? started % opt.prefill : base + started;
        if (clients[index].state != IDLE && clients[index].state != DONE)
            return 0;
        started++;
        start(index);
    }
    return 0;
}

static void retransmit_due(void) {
    int64_t limit = now() - (int64_t)(opt.timeout * 1e9);
    for (uint32_t i = nactive; i-- > 0;) {
        struct client *c = &clients[active[i]];
        if (c->last_sent > limit)
            continue;
        if (c->sends >= opt.tries) {
            stat.lost++;
            leave(active[i]);
            continue;
        }
        stat.retransmits++;
        send_message(active[i], c->state == SELECTING ? DISCOVER : REQUEST);
    }
}

static void log_lease(const uint8_t mac[6], uint32_t address, int64_t t) {
    const uint8_t *a = (const uint8_t *)&address;
    fprintf(opt.log, "%02x:%02x:%02x:%02x:%02x:%02x ", mac[0], mac[1], mac[2], mac[3], mac[4], mac[5]);
    fprintf(opt.log, "%d.%d.%d.%d %lld\n", a[0], a[1], a[2], a[3], (long long)t);
    fflush(opt.log);
}

static void acknowledged(uint32_t index, uint32_t address, int64_t t) {
    struct client *c = &clients[index];
    uint32_t *holder = &owner[ntohl(address) & 0xffffff];
    uint8_t mac[6];
    if (address != c->address)
        stat.address_changed++;
    if (*holder && *holder != index + 1)
        stat.double_allocated++;
    *holder = index + 1;
    c->address = address;
    remember(&stat.ack, t - c->first_sent);
    stat.done++;
    stat.last_ack = t;
    leave(index);
    if (opt.log) {
        mac_of(index, mac);
        log_lease(mac, address, t);
    }
}

struct reply {
    uint8_t type;
    uint32_t address, server, lease_time;
};

/* RFC 2132 3: reads the options that the checks need; false when the list runs over its end. */
static bool read_options(const uint8_t *p, const uint8_t *end, struct reply *r) {
    while (p < end && *p != 255) {
        if (*p == 0) {
            p++;
            continue;
        }
        if (p + 2 > end || p + 2 + p[1] > end)
            return false;
        if (p[0] == 53 && p[1] == 1)
            r->type = p[2];
        else if (p[0] == 54 && p[1] == 4)
            r->server = raw32(p + 2);
        else if (p[0] == 51 && p[1] == 4)
            r->lease_time = raw32(p + 2);
        p += 2 + p[1];
    }
    return p < end;
}

static void check_envelope(const uint8_t *f, const uint8_t *chaddr, size_t udp_len) {
    const uint8_t *ip = f + ETH_LEN, *udp = ip + IP_LEN;
    uint16_t given = get16(udp + 6), rest = fold(pseudo_header(ip, (uint16_t)udp_len));
    if (given && fold(rest + sum(udp, udp_len)) != 0xffff) {
        if (given == rest)
            stat.partial_checksum++; /* left to a network card that a veth does not have */
        else
            stat.bad_checksum++;
    }
    if (!memcmp(f, BROADCAST_MAC, 6))
        stat.broadcast_replies++;
    else if (memcmp(f, opt.mode == RELAY ? RELAY_MAC : chaddr, 6))
        stat.wrong_destination++;
}

static void on_offer(uint32_t index, const struct reply *r, const uint8_t *frame, int64_t t) {
    struct client *c = &clients[index];
    if (!stat.offers++)
        stat.first_offer = t;
    remember(&stat.offer, t - c->first_sent);
    c->address = r->address;
    c->server = r->server;
    memcpy(c->server_mac, frame + 6, 6);
    if (!opt.discover_only) {
        enter(index, REQUESTING);
        return;
    }
    stat.done++;
    stat.last_ack = t;
    leave(index);
}

static void on_reply(uint32_t index, const struct reply *r, const uint8_t *frame) {
    struct client *c = &clients[index];
    int64_t t = now();
    bool requesting = c->state == REQUESTING || c->state == RENEWING;
    if (r->type == OFFER && c->state == SELECTING)
        on_offer(index, r, frame, t);
    else if (r->type == ACK && requesting) {
        stat.no_lease_time += r->lease_time == 0;
        acknowledged(index, r->address, t);
    } else if (r->type == NAK && requesting) {
        stat.naks++;
        leave(index);
    } else
        stat.duplicates++;
}

static void on_ip(const uint8_t *f, size_t len) {
    const uint8_t *ip = f + ETH_LEN, *udp = ip + IP_LEN, *d = udp + 8;
    struct reply r = {0};
    uint8_t mac[6];
    if (len < HEADERS + OPTIONS_AT || ip[0] != 0x45 || ip[9] != IPPROTO_UDP || get16(udp) != 67)
        return;
    size_t udp_len = get16(udp + 4);
    uint16_t port = opt.mode == RELAY ? 67 : 68;
    if (get16(udp + 2) != port || udp_len < 8 + OPTIONS_AT || udp_len + ETH_LEN + IP_LEN > len || d[0] != 2)
        return;
    stat.replies++;
    if (opt.mode == FLOOD || opt.mode == MUTATE)
        return;
    uint32_t xid = ntohl(raw32(d + 4)), index = (xid & 0xffffff) - opt.first;
    bool ours = index < opt.prefill + opt.count && xid == xid_of(index);
    mac_of(index, mac);
    if (!ours || memcmp(d + 28, mac, 6) || memcmp(d + 236, MAGIC, 4) ||
        !read_options(d + OPTIONS_AT, udp + udp_len, &r)) {
        stat.foreign++;
        return;
    }
    r.address = raw32(d + 16);
    stat.no_server_id += r.server == 0;
    check_envelope(f, d + 28, udp_len);
    on_reply(index, &r, f);
}

/* Answers who-has for the relay's address, and for clients that hold one when they are to be found. */
static void on_arp(const uint8_t *f, size_t len, int ifindex) {
    const uint8_t *arp = f + ETH_LEN;
    uint8_t mac[6];
    uint32_t holder;
    if (len < ETH_LEN + 28 || get16(arp + 6) != 1)
        return;
    if (opt.mode == RELAY && raw32(arp + 24) == opt.giaddr)
        memcpy(mac, RELAY_MAC, 6);
    else if (opt.arp && (holder = owner[ntohl(raw32(arp + 24)) & 0xffffff]))
        mac_of(holder - 1, mac);
    else
        return;
    uint8_t *out = next_frame(), *reply = out + ETH_LEN;
    memcpy(out, f + 6, 6);
    memcpy(out + 6, mac, 6);
    put16(out + 12, ETHERTYPE_ARP);
    memcpy(reply, (uint8_t[]){0, 1, 8, 0, 6, 4, 0, 2}, 8);
    memcpy(reply + 8, mac, 6);
    memcpy(reply + 14, arp + 24, 4);
    memcpy(reply + 18, arp + 8, 10);
    queue(ETH_LEN + 28, ifindex);
}

/* ---- receiving ---- */

static unsigned receive(void) {
    static uint8_t frames[BATCH][FRAME_MAX];
    static struct sockaddr_ll from[BATCH];
    static struct iovec iov[BATCH];
    static struct mmsghdr msg[BATCH];
    for (int i = 0; i < BATCH; i++) {
        iov[i] = (struct iovec){frames[i], FRAME_MAX};
        msg[i].msg_hdr = header(&from[i], &iov[i]);
    }
    int n = recvmmsg(sock, msg, BATCH, MSG_DONTWAIT, NULL);
    for (int i = 0; i < n; i++) {
        uint16_t type = get16(frames[i] + 12);
        if (type == ETHERTYPE_IP)
            on_ip(frames[i], msg[i].msg_len);
        else if (type == ETHERTYPE_ARP)
            on_arp(frames[i], msg[i].msg_len, from[i].sll_ifindex);
    }
    return n > 0 ? (unsigned)n : 0;
}

static void wait_until(int64_t t) {
    int64_t left = t - now();
    struct timespec timeout = {left / 1000000000, left % 1000000000};
    struct pollfd p = {sock, POLLIN, 0};
    if (left > 0)
        ppoll(&p, 1, &timeout, NULL);
}

static int64_t earlier(int64_t a, int64_t b) { return a && a < b ? a : b; }

/* Runs one phase: count exchanges from index first on, until all ended or the time is over. */
static void run(uint32_t first, uint32_t count, double pace, int64_t deadline) {
    int64_t tick = (int64_t)(opt.timeout * 1e9 / 10), next_tick = now() + tick;
    base = first, goal = count, rate = pace, started = 0;
    stat.began = now();
    while (!stopped && now() < deadline) {
        int64_t due = start_due();
        if (!nactive && started == goal)
            break;
        if (now() >= next_tick) {
            retransmit_due();
            next_tick = now() + tick;
        }
        flush();
        if (!receive())
            wait_until(earlier(due, earlier(next_tick, deadline)));
    }
    flush();
    stat.ended = stat.last_ack && !nactive ? stat.last_ack : now();
}

/* Between the phases: the prefill's figures do not count, its leases do. */
static void forget_figures(void) {
    free(stat.offer.ns);
    free(stat.ack.ns);
    memset(&stat, 0, sizeof stat);
}

/* ---- flood and mutate: nothing is expected back ---- */

static void add_seed(const uint8_t *bytes, size_t len) {
    if (nseeds == SEEDS_MAX || !len)
        return;
    seeds[nseeds].len = len > PAYLOAD_MAX ? PAYLOAD_MAX : len;
    seeds[nseeds].bytes = need(malloc(seeds[nseeds].len));
    memcpy(seeds[nseeds].bytes, bytes, seeds[nseeds].len);
    nseeds++;
}

static void add_own_seeds(void) {
    static const uint8_t types[OWN_SEEDS] = {DISCOVER, REQUEST, DECLINE, RELEASE, INFORM};
    uint8_t d[PAYLOAD_MAX] = {0}, mac[6];
    for (size_t i = 0; i < OWN_SEEDS; i++) {
        mac_of((uint32_t)i, mac);
        uint8_t *p = message(d, types[i], xid_of((uint32_t)i), mac, 0, false);
        p = option(p, 50, &opt.server, 4);
        add_seed(d, finish(d, option(p, 54, &opt.server, 4)));
    }
}

static void add_seed_file(const char *path) {
    uint8_t bytes[PAYLOAD_MAX];
    FILE *f = fopen(path, "rb");
    if (!f)
        die(path);
    add_seed(bytes, fread(bytes, 1, sizeof bytes, f));
    fclose(f);
}

/* One random edit of p[0..len): a bit, a byte, a cut, a removed piece or a repeated one; the new length. */
static size_t edit(uint8_t *p, size_t len) {
    static const uint8_t telling[] = {0, 1, 2, 3, 0x7f, 0x80, 0xfe, 0xff};
    uint64_t r = random64();
    size_t at = (r >> 8) % len, piece = 1 + (r >> 40) % 32;
    switch (r % 6) {
    case 0: p[at] ^= (uint8_t)(1u << (r >> 32) % 8); return len;
    case 1: p[at] = telling[(r >> 32) % sizeof telling]; return len;
    case 2: p[at] = (uint8_t)(r >> 32); return len;
    case 3: return at ? at : 1;
    case 4:
        if (at + piece >= len)
            return len;
        memmove(p + at, p + at + piece, len - at - piece);
        return len - piece;
    default:
        if (at + piece > len || len + piece > PAYLOAD_MAX)
            return len;
        memmove(p + at + piece, p + at, len - at);
        return len + piece;
    }
}

static void send_mutation(uint32_t n) {
    uint8_t *f = next_frame(), mac[6];
    uint64_t r = random64();
    size_t seed = r % nseeds, len = seeds[seed].len;
    bool unicast = opt.server && (r >> 32) % 4 == 0;
    mac_of(n % CLIENTS_MAX, mac);
    memcpy(f + HEADERS, seeds[seed].bytes, len);
    for (unsigned edits = 1 + (r >> 40) % 6; edits; edits--)
        len = edit(f + HEADERS, len);
    envelope(f, unicast ? opt.server_mac : BROADCAST_MAC, mac, 0, unicast ? opt.server : INADDR_BROADCAST, 68, len);
    if ((r >> 48) % 8 == 0) /* lying lengths and checksums below DHCP, for servers that read raw frames */
        f[ETH_LEN + random64() % (HEADERS - ETH_LEN)] = (uint8_t)random64();
    queue(HEADERS + len, vlan_of(n));
}

static void send_flood(uint32_t n) {
    uint8_t *f = next_frame(), mac[6];
    uint64_t r = random64();
    memcpy(mac, &r, 6);
    mac[0] = (uint8_t)((mac[0] & 0xfc) | 2);
    size_t len = finish(f + HEADERS, message(f + HEADERS, DISCOVER, (uint32_t)random64(), mac, 0, opt.broadcast));
    envelope(f, BROADCAST_MAC, mac, 0, INADDR_BROADCAST, 68, len);
    queue(HEADERS + len, vlan_of(n));
}

static void blast(double pace, int64_t deadline) {
    uint32_t n = 0;
    stat.began = now();
    while (n < opt.count && !stopped && now() < deadline) {
        int64_t due = stat.began + (int64_t)(n * 1e9 / pace);
        if (due <= now()) {
            opt.mode == FLOOD ? send_flood(n) : send_mutation(n);
            n++;
        } else {
            flush();
            if (!receive())
                wait_until(earlier(due, deadline));
        }
    }
    flush();
    stat.done = stat.sent;
    stat.ended = now();
}

/* ---- the result ---- */

static int by_value(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static double at(const struct latencies *l, double part) {
    return l->count ? l->ns[(size_t)(part * (double)(l->count - 1))] / 1e3 : 0;
}

static void print_latencies(const char *name, struct latencies *l) {
    if (l->count)
        qsort(l->ns, l->count, sizeof *l->ns, by_value);
    printf(", \"%s_us\": {\"p50\": %.1f, \"p90\": %.1f, ", name, at(l, .5), at(l, .9));
    printf("\"p99\": %.1f, \"max\": %.1f}", at(l, .99), at(l, 1));
}

static void print_count(const char *name, uint64_t value) { printf(", \"%s\": %llu", name, (unsigned long long)value); }

/* server_cpu is the server's processor time over the measured phase in ns, negative when not asked for. */
static void print_result(int64_t server_cpu, int64_t own_cpu) {
    double seconds = (double)(stat.ended - stat.began) / 1e9, done = stat.done ? (double)stat.done : 1;
    printf("{\"mode\": \"%s\", \"seconds\": %.6f", MODES[opt.mode], seconds);
    printf(", \"per_second\": %.1f", seconds > 0 ? (double)stat.done / seconds : 0);
    printf(", \"generator_cpu_us\": %.2f", (double)own_cpu / 1e3 / done);
    if (server_cpu >= 0)
        printf(", \"server_cpu_us\": %.2f", (double)server_cpu / 1e3 / done);
    print_latencies("offer", &stat.offer);
    print_latencies("ack", &stat.ack);
    printf(", \"first_offer_ns\": %lld", (long long)stat.first_offer);
    print_count("exchanges", stat.done);
    print_count("unfinished", nactive);
    print_count("lost", stat.lost);
    print_count("retransmits", stat.retransmits);
    print_count("duplicates", stat.duplicates);
    print_count("naks", stat.naks);
    print_count("sent", stat.sent);
    print_count("replies", stat.replies);
    print_count("foreign", stat.foreign);
    print_count("double_allocated", stat.double_allocated);
    print_count("address_changed", stat.address_changed);
    print_count("no_server_id", stat.no_server_id);
    print_count("no_lease_time", stat.no_lease_time);
    print_count("bad_checksum", stat.bad_checksum);
    print_count("partial_checksum", stat.partial_checksum);
    print_count("wrong_destination", stat.wrong_destination);
    print_count("broadcast_replies", stat.broadcast_replies);
    print_count("receive_drops", stat.rx_drops);
    puts("}");
}

/* ---- set-up ---- */

static void on_signal(int number) {
    (void)number;
    stopped = 1;
}

static void open_socket(void) {
    int size = 64 << 20, on = 1;
    sock = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(ETH_P_ALL));
    if (sock < 0)
        die("packet socket");
    setsockopt(sock, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size);
    setsockopt(sock, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof on);
    setsockopt(sock, SOL_PACKET, PACKET_QDISC_BYPASS, &on, sizeof on);
}

static void add_interface(const char *name) {
    struct packet_mreq all = {.mr_type = PACKET_MR_PROMISC};
    if (vlans == VLANS_MAX || !(all.mr_ifindex = (int)if_nametoindex(name)))
        die(name);
    setsockopt(sock, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &all, sizeof all);
    vlan_index[vlans++] = all.mr_ifindex;
}

static void usage(const char *why) {
    fprintf(stderr,
            "loadgen: %s\n"
            "usage: loadgen MODE --iface NAME[,NAME...] [--count N] [--seconds S] [--window N] [--rate PER_SECOND]\n"
            "               [--prefill N] [--seed N] [--first INDEX] [--timeout S] [--tries N] [--discover-only]\n"
            "               [--client-id] [--broadcast] [--arp] [--server IP] [--server-mac MAC] [--giaddr IP]\n"
            "               [--pid SERVER_PID] [--log FILE] [PAYLOAD_FILE...]\n",
            why);
    exit(2);
}

static uint32_t address(const char *text) {
    struct in_addr a;
    if (inet_pton(AF_INET, text, &a) != 1)
        usage("not an IPv4 address");
    return a.s_addr;
}

static uint32_t whole(const char *text, uint32_t most) {
    char *end;
    unsigned long v = strtoul(text, &end, 10);
    if (*end || !*text || v > most)
        usage("not a number in range");
    return (uint32_t)v;
}

static double positive(const char *text) {
    char *end;
    double v = strtod(text, &end);
    if (*end || !(v > 0))
        usage("not a positive number");
    return v;
}

static void server_mac(const char *text) {
    uint8_t *m = opt.server_mac;
    if (sscanf(text, "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", m, m + 1, m + 2, m + 3, m + 4, m + 5) != 6)
        usage("not a MAC");
}

static void interfaces(char *names) {
    for (char *name = strtok(names, ","); name; name = strtok(NULL, ","))
        add_interface(name);
}

static const struct option LONG[] = {
    {"iface", 1, 0, 'i'},   {"count", 1, 0, 'c'},     {"seconds", 1, 0, 's'},   {"window", 1, 0, 'w'},
    {"rate", 1, 0, 'r'},    {"prefill", 1, 0, 'P'},   {"seed", 1, 0, 'S'},      {"first", 1, 0, 'f'},
    {"timeout", 1, 0, 't'}, {"tries", 1, 0, 'T'},     {"client-id", 0, 0, 'I'}, {"discover-only", 0, 0, 'd'},
    {"arp", 0, 0, 'a'},     {"broadcast", 0, 0, 'b'}, {"server", 1, 0, 'x'},    {"server-mac", 1, 0, 'm'},
    {"giaddr", 1, 0, 'g'},  {"pid", 1, 0, 'p'},       {"log", 1, 0, 'l'},       {0, 0, 0, 0},
};

static void set(int code, char *value) {
    switch (code) {
    case 'i': interfaces(value); break;
    case 'c': opt.count = whole(value, CLIENTS_MAX); break;
    case 's': opt.seconds = positive(value); break;
    case 'w': opt.window = whole(value, CLIENTS_MAX); break;
    case 'r': opt.rate = positive(value); break;
    case 'P': opt.prefill = whole(value, CLIENTS_MAX); break;
    case 'S': opt.seed = whole(value, UINT16_MAX); break;
    case 'f': opt.first = whole(value, CLIENTS_MAX); break;
    case 't': opt.timeout = positive(value); break;
    case 'T': opt.tries = whole(value, UINT16_MAX); break;
    case 'I': opt.client_id = true; break;
    case 'b': opt.broadcast = true; break;
    case 'a': opt.arp = true; break;
    case 'd': opt.discover_only = true; break;
    case 'x': opt.server = address(value); break;
    case 'm': server_mac(value); break;
    case 'g': opt.giaddr = address(value); break;
    case 'p': opt.pid = (pid_t)whole(value, INT32_MAX); break;
    case 'l':
        if (!(opt.log = fopen(value, "a")))
            die(value);
        break;
    default: usage("unknown option");
    }
}

static void read_arguments(int argc, char **argv) {
    int code = 0, mode = 0;
    while (argc > 1 && MODES[mode] && strcmp(MODES[mode], argv[1]))
        mode++;
    if (argc < 2 || !MODES[mode])
        usage("no such mode");
    opt.mode = (enum mode)mode;
    open_socket();
    while ((code = getopt_long(argc - 1, argv + 1, "", LONG, NULL)) != -1)
        set(code, optarg);
    for (int i = optind + 1; i < argc; i++)
        add_seed_file(argv[i]);
    if (!vlans)
        usage("no --iface");
    if (opt.mode == RELAY && !(opt.server && opt.giaddr))
        usage("relay needs --server, --server-mac and --giaddr");
    if (opt.mode == RENEW && !opt.prefill)
        usage("renew needs --prefill");
    if ((uint64_t)opt.prefill + opt.count + opt.first > CLIENTS_MAX && opt.mode < FLOOD)
        usage("too many clients");
    opt.arp |= opt.mode == RENEW;
}

static void allocate(void) {
    /* Calloc of this size is lazy: only what is touched costs memory. */
    clients = need(calloc((size_t)opt.prefill + opt.count + OWN_SEEDS, sizeof *clients));
    active = need(calloc(opt.window, sizeof *active));
    owner = need(calloc(1 << 24, sizeof *owner));
    random_state = opt.seed;
}

static bool prefill(int64_t deadline) {
    run(0, opt.prefill, 0, deadline);
    if (stat.done != opt.prefill) {
        fprintf(stderr, "loadgen: prefill: %llu of %u clients served\n", (unsigned long long)stat.done, opt.prefill);
        return false;
    }
    forget_figures();
    return true;
}

static void measure(int64_t deadline) {
    if (opt.mode == FLOOD || opt.mode == MUTATE) {
        add_own_seeds();
        blast(opt.rate > 0 ? opt.rate : 10000, deadline);
        return;
    }
    renewing = opt.mode == RENEW;
    run(opt.prefill, opt.count, opt.rate, deadline);
}

int main(int argc, char **argv) {
    clockid_t server_clock = CLOCK_MONOTONIC;
    struct tpacket_stats drops = {0};
    socklen_t size = sizeof drops;
    read_arguments(argc, argv);
    allocate();
    prctl(PR_SET_TIMERSLACK, 1UL);
    sigaction(SIGINT, &(struct sigaction){.sa_handler = on_signal}, NULL);
    sigaction(SIGTERM, &(struct sigaction){.sa_handler = on_signal}, NULL);
    if (opt.pid && clock_getcpuclockid(opt.pid, &server_clock))
        usage("no process has that --pid");
    if (opt.prefill && !prefill(now() + 60000000000LL))
        return 1;
    int64_t server = now_ns(server_clock), own = now_ns(CLOCK_PROCESS_CPUTIME_ID);
    measure(now() + (int64_t)(opt.seconds * 1e9));
    server = opt.pid ? now_ns(server_clock) - server : -1;
    own = now_ns(CLOCK_PROCESS_CPUTIME_ID) - own;
    if (!getsockopt(sock, SOL_PACKET, PACKET_STATISTICS, &drops, &size))
        stat.rx_drops = drops.tp_drops;
    print_result(server, own);
    return 0;
}
