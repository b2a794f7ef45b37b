#include "core/quantised.h"
#include "core/finite.h"
#include "kernels/convert.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_NAME 192
#define SMALL_BYTES ((uint64_t)64 << 20) // checkpoints whose every E4M3 byte is looked at

const struct tensor *tensor_take(const struct checkpoint *checkpoint, uint8_t *used,
								 const char *name)
{
	const struct tensor *found = checkpoint_find(checkpoint, name);
	if (found) {
		const char *entry = (const char *)found - offsetof(struct named_tensor, tensor);
		used[(const struct named_tensor *)(const void *)entry - checkpoint->tensors] = 1;
	}
	return found;
}

void shape_text(char *out, size_t size, const int64_t *shape, int n_dims)
{
	size_t at = (size_t)snprintf(out, size, "[");
	for (int i = 0; i < n_dims && at < size; i++)
		at += (size_t)snprintf(out + at, size - at, "%s%lld", i ? ", " : "", (long long)shape[i]);
	if (at < size)
		snprintf(out + at, size - at, "]");
}

/* "a.b.weight" and "input_scale" -> "a.b.input_scale" */
static void beside(char out[MAX_NAME], const char *name, const char *what)
{
	size_t n = strlen(name), ending = strlen(".weight");
	if (n >= ending && strcmp(name + n - ending, ".weight") == 0)
		n -= ending;
	snprintf(out, MAX_NAME, "%.*s.%s", (int)n, name, what);
}

static int check_tensor(const struct tensor *t, const char *name, enum dtype dtype, int n_dims,
						const int64_t *shape, struct error *err)
{
	if (t->dtype == dtype && t->n_dims == n_dims &&
		memcmp(t->shape, shape, (size_t)n_dims * sizeof *shape) == 0)
		return 0;
	char found[96], expected[96];
	shape_text(found, sizeof found, t->shape, t->n_dims);
	shape_text(expected, sizeof expected, shape, n_dims);
	return fail(err, "tensor \"%s\" is %s %s, expected %s %s", name, dtype_name(t->dtype), found,
				dtype_name(dtype), expected);
}

static int read_scalar(const struct tensor *t, const char *name, float *out, struct error *err)
{
	bool one = t->n_dims == 0 || (t->n_dims == 1 && t->shape[0] == 1);
	if (!one || t->dtype != DTYPE_F32) {
		char found[96];
		shape_text(found, sizeof found, t->shape, t->n_dims);
		return fail(err, "tensor \"%s\" is %s %s, expected one F32 for the whole matrix", name,
					dtype_name(t->dtype), found);
	}
	memcpy(out, t->data, sizeof *out);
	if (!isfinite(*out) || !(*out > 0))
		return fail(err, "tensor \"%s\" is %g, expected a finite number above 0", name,
					(double)*out);
	return 0;
}

int quantised_scalar(const struct checkpoint *checkpoint, uint8_t *used, const char *name,
					 float *out, struct error *err)
{
	const struct tensor *t = tensor_take(checkpoint, used, name);
	return t ? read_scalar(t, name, out, err) : 0;
}

/* Looking at 30 GB takes longer than opening it: in a large checkpoint finite_check() does, when
 * asked, or when a NaN was computed. */
static int check_codes(const struct checkpoint *checkpoint, const struct tensor *t,
					   const char *name, bool negative, struct error *err)
{
	const uint8_t *codes = t->data;
	if (checkpoint->tensor_bytes > SMALL_BYTES)
		return 0;
	size_t i = finite_codes(codes, (size_t)t->bytes, negative);
	if (i == t->bytes)
		return 0;
	if ((codes[i] & 0x7f) == 0x7f)
		return fail(err, "tensor \"%s\" has a NaN (E4M3 byte 0x%02x) at element %zu", name,
					codes[i], i);
	return fail(err, "tensor \"%s\" is %g at element %zu, expected no negative scale", name,
				(double)e4m3_values[codes[i]], i);
}

static int bind_nvfp4(struct tensor *weight, const struct checkpoint *checkpoint, uint8_t *used,
					  const char *name, const int64_t shape[2], struct error *err)
{
	char scale_name[MAX_NAME];
	if (shape[1] % NVFP4_BLOCK)
		return fail(err, "tensor \"%s\" is NVFP4, but its width %lld is no multiple of %d", name,
					(long long)shape[1], NVFP4_BLOCK);
	if (check_tensor(weight, name, DTYPE_U8, 2, (int64_t[]){shape[0], shape[1] / 2}, err) != 0)
		return -1;
	beside(scale_name, name, "weight_scale");
	const struct tensor *scales = tensor_take(checkpoint, used, scale_name);
	if (!scales)
		return fail(err, "tensor \"%s\" is missing (there is a weight_scale_2, so this is NVFP4)",
					scale_name);
	if (check_tensor(scales, scale_name, DTYPE_F8_E4M3, 2,
					 (int64_t[]){shape[0], shape[1] / NVFP4_BLOCK}, err) != 0 ||
		check_codes(checkpoint, scales, scale_name, false, err) != 0)
		return -1;
	beside(scale_name, name, "weight_scale_2");
	if (quantised_scalar(checkpoint, used, scale_name, &weight->scale, err) != 0)
		return -1;
	weight->dtype = DTYPE_NVFP4;
	weight->shape[1] = shape[1];
	weight->scales = scales->data;
	return 0;
}

static int bind_fp8(struct tensor *weight, const struct checkpoint *checkpoint, uint8_t *used,
					const char *name, const int64_t shape[2], struct error *err)
{
	char scale_name[MAX_NAME];
	beside(scale_name, name, "weight_scale");
	const struct tensor *scale = checkpoint_find(checkpoint, scale_name);
	if (weight->dtype == DTYPE_U8)
		return fail(err,
					"tensor \"%s\" is U8 with a weight_scale, but its weight_scale_2 is missing "
					"(NVFP4 has both)",
					name);
	if (weight->dtype != DTYPE_F8_E4M3)
		return fail(err, "tensor \"%s\" is %s, but has a weight_scale: expected F8_E4M3 or U8",
					name, dtype_name(weight->dtype));
	if (check_tensor(weight, name, DTYPE_F8_E4M3, 2, shape, err) != 0 ||
		read_scalar(scale, scale_name, &weight->scale, err) != 0)
		return -1;
	tensor_take(checkpoint, used, scale_name);
	return check_codes(checkpoint, weight, name, true, err);
}

bool quantised_refused(const struct checkpoint *checkpoint, const char *name, struct error *err)
{
	static const struct {
		const char *tensor, *is;
	} layouts[] = {
		{"weight_packed", "compressed-tensors (weight_packed, a global scale that divides)"},
		{"weight_global_scale", "compressed-tensors (weight_packed, a global scale that divides)"},
		{"weight_scale_inv", "FP8 with a scale per block of 128 x 128 (weight_scale_inv)"},
		{"qweight", "integers with zero points (qweight, as GPTQ and AWQ write)"},
	};
	for (size_t i = 0; i < sizeof layouts / sizeof layouts[0]; i++) {
		char other[MAX_NAME];
		beside(other, name, layouts[i].tensor);
		if (!checkpoint_find(checkpoint, other))
			continue;
		fail(err,
			 "tensor \"%s\": the checkpoint is stored as %s, which is not read; expected BF16, or "
			 "FP8 or NVFP4 as NVIDIA ModelOpt writes them",
			 other, layouts[i].is);
		return true;
	}
	return false;
}

int quantised_bind(struct tensor *weight, const struct checkpoint *checkpoint, uint8_t *used,
				   const char *name, const int64_t shape[2], struct error *err)
{
	char other[MAX_NAME];
	float input_scale = 0;
	if (quantised_refused(checkpoint, name, err))
		return -1;
	beside(other, name, "input_scale");
	if (quantised_scalar(checkpoint, used, other, &input_scale, err) != 0)
		return -1;
	weight->input_scale = input_scale;
	beside(other, name, "weight_scale_2");
	if (checkpoint_find(checkpoint, other))
		return bind_nvfp4(weight, checkpoint, used, name, shape, err);
	beside(other, name, "weight_scale");
	if (checkpoint_find(checkpoint, other))
		return bind_fp8(weight, checkpoint, used, name, shape, err);
	if (weight->dtype == DTYPE_F8_E4M3 || weight->dtype == DTYPE_U8)
		return fail(err, "tensor \"%s\" is %s, but its scale \"%s\" is missing", name,
					dtype_name(weight->dtype), other);
	return 0;
}

const char *quantised_as(const struct checkpoint *checkpoint, const char *module)
{
	char name[MAX_NAME];
	snprintf(name, sizeof name, "%s.weight_scale_2", module);
	if (checkpoint_find(checkpoint, name))
		return "NVFP4";
	snprintf(name, sizeof name, "%s.weight_scale", module);
	return checkpoint_find(checkpoint, name) ? "FP8" : "";
}
