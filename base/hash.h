/* Hashes: FNV-1a for tables, SHA-256 (libmd) for the identity of files. */
#ifndef BASE_HASH_H
#define BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

uint64_t hash_bytes(const void *bytes, size_t length);
uint64_t hash_mix(uint64_t value); // splitmix64's finaliser: counter-based noise

/* 64 hexadecimal digits and NUL. */
void hash_sha256(const void *bytes, size_t length, char out[65]);

#endif
