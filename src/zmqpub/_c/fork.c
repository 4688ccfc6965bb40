#include "fork.h"
#include <pthread.h>

/* Written only in the child of a fork, where one thread runs. */
static volatile int generation;

static void in_child(void) { generation = generation + 1; }

int zp_fork_generation(void) { return generation; }

int zp_fork_watch(void) { return pthread_atfork(NULL, NULL, in_child); }
