/* The floor of the workloads with a channel: a loop of send() with a ready frame, and nothing else.
 *
 * It knows five requests by their first bytes, and keeps no state but who subscribes. A publish is a send() to each
 * subscriber in turn; what a socket does not take is lost, since nothing is kept for anybody.
 *
 * floor FD: serves on the listening socket FD until it is ended.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <unistd.h>

#define FILES 65536
#define BODY 65536

static int subscribers[FILES], place[FILES], count; /* place: index + 1 in subscribers, 0 for none */

static void leave(int fd)
{
    if (place[fd]) {
        int last = subscribers[--count];
        subscribers[place[fd] - 1] = last;
        place[last] = place[fd];
        place[fd] = 0;
    }
    close(fd);
}

static void say(int fd, const char *text)
{
    if (send(fd, text, strlen(text), MSG_NOSIGNAL) < 0) leave(fd);
}

static void publish(const char *body, size_t size)
{
    static char frame[BODY + 64];
    int length = snprintf(frame, sizeof frame, "%zx\r\ndata: %.*s\n\n\r\n", size + 8, (int)size, body);
    for (int i = 0; i < count; i++)
        (void)!send(subscribers[i], frame, length, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void serve(int fd, char *data, size_t size)
{
    if (!memcmp(data, "GET /fanout ", 12)) {
        say(fd, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n"
                "Transfer-Encoding: chunked\r\n\r\n");
        subscribers[count] = fd;
        place[fd] = ++count;
    } else if (!memcmp(data, "POST /publish ", 14)) {
        char *end = memmem(data, size, "\r\n\r\n", 4);
        if (!end) return;
        publish(end + 4, data + size - end - 4);
        say(fd, "HTTP/1.1 204 No Content\r\n\r\n");
    } else
        say(fd, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok");
}

int main(int argc, char **argv)
{
    static char data[BODY];
    struct epoll_event events[256], event = {.events = EPOLLIN};
    int listener = argc == 2 ? atoi(argv[1]) : -1, epoll = epoll_create1(0), on = 1;
    event.data.fd = listener;
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event)) return 1;
    for (;;) {
        int ready = epoll_wait(epoll, events, 256, -1);
        for (int i = 0; i < ready; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) {
                event.data.fd = fd = accept(listener, NULL, NULL);
                if (fd < 0) continue;
                if (fd >= FILES) { close(fd); continue; }
                setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
                epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
                continue;
            }
            ssize_t size = recv(fd, data, sizeof data, 0);
            if (size <= 0) leave(fd);
            else if (size > 14) serve(fd, data, size);
        }
    }
}
