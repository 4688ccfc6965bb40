/* crc32c.h: CRC-32C (Castagnoli), by the processor's instruction where it has one. */
#ifndef ZMQPUB_CRC32C_H
#define ZMQPUB_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* Go on from `crc`, which is 0 at the start: the check value of "123456789" is 0xE3069283. Any thread. */
uint32_t zp_crc32c(uint32_t crc, const void *data, size_t size);
/* The same, without the instruction: what the other is tested against. */
uint32_t zp_crc32c_portable(uint32_t crc, const void *data, size_t size);
/* "sse4.2", "armv8" or "portable". */
const char *zp_crc32c_backend(void);

#endif
