#include "base/memory.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool mem_multiply(size_t a, size_t b, size_t *product)
{
	return !__builtin_mul_overflow(a, b, product);
}

static int no_memory(size_t n, size_t size, struct error *err)
{
	size_t bytes;
	if (mem_multiply(n, size, &bytes))
		return fail(err, "no memory for %zu bytes", bytes);
	return fail(err, "no memory for %zu times %zu bytes", n, size);
}

void *mem_new(size_t n, size_t size, struct error *err)
{
	void *memory = calloc(n ? n : 1, size ? size : 1);
	if (!memory)
		no_memory(n, size, err);
	return memory;
}

void *mem_new_aligned(size_t n, size_t size, struct error *err)
{
	void *memory = NULL;
	size_t bytes;
	// PTRDIFF_MAX also keeps the rounding up from wrapping around
	if (!mem_multiply(n, size, &bytes) || bytes > PTRDIFF_MAX) {
		no_memory(n, size, err);
		return NULL;
	}
	bytes = bytes ? (bytes + 63) / 64 * 64 : 64;
	memory = aligned_alloc(64, bytes);
	if (!memory)
		no_memory(n, size, err);
	else
		memset(memory, 0, bytes);
	return memory;
}

int mem_grow(void *array, size_t *capacity, size_t need, size_t size, struct error *err)
{
	size_t bytes, wanted = *capacity + *capacity / 2;
	void *old, *grown;
	if (need <= *capacity)
		return 0;
	if (wanted < need)
		wanted = need;
	if (wanted < 8)
		wanted = 8;
	if (!mem_multiply(wanted, size, &bytes) || bytes > PTRDIFF_MAX)
		return no_memory(need, size, err);
	memcpy(&old, array, sizeof old); // array is the address of a pointer of any type
	grown = realloc(old, bytes ? bytes : 1);
	if (!grown)
		return no_memory(wanted, size, err);
	memset((char *)grown + *capacity * size, 0, (wanted - *capacity) * size);
	memcpy(array, &grown, sizeof grown);
	*capacity = wanted;
	return 0;
}

char *mem_string(const char *text, size_t length, struct error *err)
{
	char *copy = length < PTRDIFF_MAX ? malloc(length + 1) : NULL;
	if (!copy) {
		no_memory(length, 1, err);
		return NULL;
	}
	if (length)
		memcpy(copy, text, length);
	copy[length] = 0;
	return copy;
}

uint64_t mem_available_bytes(void)
{
	FILE *file = fopen("/proc/meminfo", "re");
	unsigned long long kilobytes = 0;
	char line[128];
	while (file && fgets(line, sizeof line, file))
		if (sscanf(line, "MemAvailable: %llu kB", &kilobytes) == 1)
			break;
	if (file)
		fclose(file);
	return (uint64_t)kilobytes << 10;
}
