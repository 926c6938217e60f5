/* Sends prepared Ethernet frames of UDP datagrams over several links in turn, as fast as one processor goes.
 *
 *     packets FRAME COUNT TURNS FLOWS SCHEDSTAT SOCKET...
 *
 * Each SOCKET is an inherited packet socket bound to an interface; in each of TURNS turns COUNT frames leave through
 * each of them. FRAME is in hexadecimal, its UDP checksum 0 (none), because a socket's frame number i leaves with the
 * source port of FRAME plus i modulo FLOWS. Prints a line for each turn: the nanoseconds of processor time per socket.
 * That is this thread's time, in which frames are forwarded, and that of ksoftirqd, to which the kernel may hand over,
 * from its file SCHEDSTAT. Exit code 1 with one line on standard error when a frame was refused. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 32, FRAME_MAX = 1514, SOURCE_PORT = 14 + 20, FIXED = 6 };

static uint8_t frames[BATCH][FRAME_MAX];
static struct iovec parts[BATCH];
static struct mmsghdr messages[BATCH];
static unsigned first_port;

static size_t prepare(const char *hex)
{
    size_t length = strlen(hex) / 2;
    for (size_t at = 0; at < length && length <= FRAME_MAX; at++)
        if (sscanf(hex + 2 * at, "%2hhx", &frames[0][at]) != 1)
            return 0;
    for (int i = 0; i < BATCH; i++) {
        memcpy(frames[i], frames[0], FRAME_MAX);
        parts[i] = (struct iovec){frames[i], length};
        messages[i].msg_hdr = (struct msghdr){.msg_iov = &parts[i], .msg_iovlen = 1};
    }
    first_port = frames[0][SOURCE_PORT] << 8 | frames[0][SOURCE_PORT + 1];
    return length <= FRAME_MAX ? length : 0;
}

static void set_source_port(int frame, unsigned port)
{
    frames[frame][SOURCE_PORT] = port >> 8;
    frames[frame][SOURCE_PORT + 1] = port;
}

static int send_all(int fd, unsigned first, unsigned count, unsigned flows)
{
    for (unsigned sent = 0; sent < count;) {
        int batch = count - sent < BATCH ? (int)(count - sent) : BATCH;
        for (int i = 0; i < batch; i++)
            set_source_port(i, first_port + (first + sent + i) % flows);
        int done = sendmmsg(fd, messages, batch, 0);
        if (done < 0 && errno != ENOBUFS && errno != EAGAIN && errno != EINTR)
            return -1;
        sent += done > 0 ? done : 0;
    }
    return 0;
}

static long long processor_time(int schedstat)
{
    struct timespec used;
    char text[64] = "";
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
    if (pread(schedstat, text, sizeof text - 1, 0) < 0)
        return -1;
    return used.tv_sec * 1000000000LL + used.tv_nsec + atoll(text);
}

int main(int argc, char **argv)
{
    if (argc <= FIXED || prepare(argv[1]) <= SOURCE_PORT + 2 || atoi(argv[4]) < 1) {
        fprintf(stderr, "usage: packets FRAME COUNT TURNS FLOWS SCHEDSTAT SOCKET...\n");
        return 2;
    }
    unsigned count = atoi(argv[2]), turns = atoi(argv[3]), flows = atoi(argv[4]);
    int schedstat = open(argv[5], O_RDONLY | O_CLOEXEC);
    for (unsigned turn = 0; turn < turns; turn++) {
        for (int at = FIXED; at < argc; at++) {
            long long before = processor_time(schedstat);
            if (send_all(atoi(argv[at]), turn * count, count, flows)) {
                perror("sendmmsg");
                return 1;
            }
            printf("%lld ", processor_time(schedstat) - before);
        }
        printf("\n");
    }
    return 0;
}
