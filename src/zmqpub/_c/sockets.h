/* sockets.h: the SUB socket of a source and its monitor: made with all options, closed, made anew. */
#ifndef ZMQPUB_SOCKETS_H
#define ZMQPUB_SOCKETS_H

#include "receiver.h"

/* Make both and connect. 0, or libzmq's errno; then neither is there. */
int zp_source_open(zp_source *source, const zp_receiver_settings *settings, void *context);
void zp_source_close(zp_source *source);

typedef struct {
    int event;          /* ZMQ_EVENT_…; 0: nothing more for now */
    char address[256];
} zp_monitor_event;

/* The next event of a monitor, without waiting. 0, or -1 with libzmq's errno. */
int zp_monitor_next(void *monitor, zp_monitor_event *out);

#endif
