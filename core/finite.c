#include "core/finite.h"
#include "kernels/convert.h"
#include <math.h>
#include <string.h>

#define CHUNK 4096                   // elements between two looks at what was found
#define STEP_BYTES ((size_t)8 << 20) // between two calls of step

/* One chunk: whether it holds what is looked for. Loops that every compiler turns into vectors. */
static bool odd_codes(const uint8_t *codes, size_t n, bool negative)
{
	unsigned char found = 0;
	for (size_t i = 0; i < n; i++)
		found |= (codes[i] & 0x7f) == 0x7f;
	for (size_t i = 0; !negative && i < n; i++)
		found |= codes[i] > 0x80;
	return found;
}

static bool odd_halves(const uint16_t *values, size_t n, uint16_t exponent)
{
	unsigned char found = 0;
	for (size_t i = 0; i < n; i++)
		found |= (values[i] & exponent) == exponent;
	return found;
}

static bool odd_floats(const uint32_t *values, size_t n)
{
	unsigned char found = 0;
	for (size_t i = 0; i < n; i++)
		found |= (values[i] & 0x7f800000) == 0x7f800000;
	return found;
}

size_t finite_codes(const uint8_t *codes, size_t n, bool negative)
{
	for (size_t at = 0; at < n; at += CHUNK) {
		size_t part = n - at < CHUNK ? n - at : CHUNK;
		if (!odd_codes(codes + at, part, negative))
			continue;
		for (size_t i = at; i < at + part; i++)
			if (odd_codes(codes + i, 1, negative))
				return i;
	}
	return n;
}

/* Tensors lie where their file puts them: aligned to nothing. */
static bool odd_chunk(const char *data, enum dtype dtype, size_t at, size_t n)
{
	union {
		uint32_t floats[CHUNK];
		uint16_t halves[CHUNK];
	} aligned;
	size_t element = dtype_bytes(dtype);
	memcpy(&aligned, data + at * element, n * element);
	if (dtype == DTYPE_F32)
		return odd_floats(aligned.floats, n);
	return odd_halves(aligned.halves, n, dtype == DTYPE_BF16 ? 0x7f80 : 0x7c00);
}

/* The first element that is no number, *value what it is; n if there is none. */
static size_t first_odd(const char *data, enum dtype dtype, size_t n, double *value)
{
	for (size_t at = 0; at < n; at += CHUNK) {
		size_t part = n - at < CHUNK ? n - at : CHUNK;
		float v = 0;
		if (!odd_chunk(data, dtype, at, part))
			continue;
		for (size_t i = at; i < at + part; i++)
			if (odd_chunk(data, dtype, i, 1)) {
				uint32_t aligned;
				memcpy(&aligned, data + i * dtype_bytes(dtype), dtype_bytes(dtype));
				convert_to_f32(&aligned, dtype, 1, &v);
				*value = (double)v;
				return i;
			}
	}
	return n;
}

static bool ends_with(const char *name, const char *ending)
{
	size_t n = strlen(name), tail = strlen(ending);
	return n >= tail && strcmp(name + n - tail, ending) == 0;
}

/* Elements [at, at + n) of a tensor; -1 and a sentence. */
static int check_part(const struct named_tensor *named, size_t at, size_t n, struct error *err)
{
	const struct tensor *t = &named->tensor;
	const char *data = (const char *)t->data + at * dtype_bytes(t->dtype);
	bool scales = ends_with(named->name, ".weight_scale");
	double value = 0;
	size_t odd = n;
	if (t->dtype == DTYPE_F8_E4M3) {
		odd = finite_codes((const uint8_t *)data, n, !scales);
		value = odd < n ? (double)e4m3_values[((const uint8_t *)data)[odd]] : 0;
	} else if (t->dtype == DTYPE_F32 || t->dtype == DTYPE_BF16 || t->dtype == DTYPE_F16) {
		odd = first_odd(data, t->dtype, n, &value);
	} else {
		for (size_t i = 0; i < n * dtype_bytes(t->dtype); i += 4096)
			(void)*(const volatile char *)(data + i); // read all the same: --warm
	}
	if (odd == n)
		return 0;
	return fail(err, "tensor \"%s\" is %g at element %zu, expected a finite number%s", named->name,
				value, at + odd, scales ? ", not negative" : "");
}

int finite_check(const struct checkpoint *checkpoint, finite_step *step, void *user,
				 struct error *err)
{
	uint64_t done = 0, said = 0;
	for (size_t i = 0; i < checkpoint->n_tensors; i++) {
		const struct tensor *t = &checkpoint->tensors[i].tensor;
		size_t element = dtype_bytes(t->dtype), n = (size_t)t->bytes / element;
		for (size_t at = 0; at < n; at += STEP_BYTES / element) {
			size_t part = n - at < STEP_BYTES / element ? n - at : STEP_BYTES / element;
			if (check_part(&checkpoint->tensors[i], at, part, err) != 0)
				return -1;
			done += part * element;
			if (step && done - said >= STEP_BYTES) {
				said = done;
				if (!step(user, done))
					return fail(err, "the search was stopped");
			}
		}
	}
	return 0;
}

int finite_explain(const struct checkpoint *checkpoint, struct error *err)
{
	struct error cause = {0};
	if (finite_check(checkpoint, NULL, NULL, &cause) == 0)
		return fail_in(err, "every stored number is finite, but");
	return fail_in(err, "%s", cause.text);
}
