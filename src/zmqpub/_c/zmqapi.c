#include "zmqapi.h"
#include <dlfcn.h>
#include <string.h>

zp_zmq_table zp_zmq;

const char *zp_zmq_load(const char *path) {
    /* RTLD_NOLOAD: the file must be in the process already, or it would bring a libzmq that pyzmq does not use. */
    void *library = dlopen(path, RTLD_NOW | RTLD_NOLOAD);
    if (!library) return dlerror();
    void *symbol;
    /* memcpy, because ISO C has no cast from an object pointer to a function pointer. */
#define ZP_LOOK_UP(type, name, arguments)                                                                              \
    if (!(symbol = dlsym(library, "zmq_" #name))) return "no function zmq_" #name " in it";                            \
    memcpy(&zp_zmq.name##_, &symbol, sizeof symbol);
    ZP_ZMQ_FUNCTIONS(ZP_LOOK_UP)
#undef ZP_LOOK_UP
    return NULL;
}
