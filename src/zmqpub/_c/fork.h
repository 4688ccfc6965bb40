/* fork.h: has this process been forked since? Threads and sockets of a publisher stay in the parent. */
#ifndef ZMQPUB_FORK_H
#define ZMQPUB_FORK_H

/* How many forks lie between the process that loaded the module and this one. */
int zp_fork_generation(void);
/* Once, at import. 0 or errno. */
int zp_fork_watch(void);

#endif
