/* Convolution, recurrence, gated norm and attention against plain double arithmetic, and bit for
 * bit across threads, tokens a call and lanes; state that is not kept stays as it is. */
#include "kernels/convert.h"
#include "tests/kernels/case.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define ROUNDS 12

static double silu(double v)
{
	return v / (1 + exp(-v));
}

/* n of `of` indices, ascending. */
static int32_t *random_choice(int n, int of)
{
	int32_t *chosen = case_new_bytes((size_t)n * sizeof *chosen);
	for (int i = 0, at = 0; i < n; i++, at++) {
		at = case_int(at, of - n + i);
		chosen[i] = at;
	}
	return chosen;
}

static float *copy_of(const float *values, size_t n)
{
	float *copy = case_new(n);
	memcpy(copy, values, n * sizeof *copy);
	return copy;
}

/* ---- convolution ---- */

static void call_conv(struct device *device, const struct conv_op *op, int n_lanes, int way)
{
	for (int t = 0; t < (way & BY_TOKEN ? op[0].n : 1); t++) {
		struct conv_op part[CASE_LANES];
		for (int l = 0; l < n_lanes; l++) {
			part[l] = op[l];
			part[l].x += t * op[l].x_stride;
			part[l].y += (size_t)t * (size_t)op[l].channels;
			if (way & BY_TOKEN)
				part[l].n = 1;
			if (way & BY_LANE)
				case_backend->conv(device, 1, &part[l]);
		}
		if (!(way & BY_LANE))
			case_backend->conv(device, n_lanes, part);
	}
	case_finish(device);
}

static void check_conv(const struct conv_op *o, const float *before)
{
	int past = o->kernel - 1;
	for (int c = 0; c < o->channels; c++) {
		for (int t = 0; t < o->n + past; t++) { // past the end: the state that is left
			double sum = (double)o->bias[c], last = 0;
			for (int k = 0; k < o->kernel; k++) {
				int row = t - past + k;
				if (row >= o->n)
					break;
				last = (double)(row < 0 ? before[(past + row) * o->state_channels + o->channel[c]]
										: o->x[row * o->x_stride + c]);
				if (k == 0 && t >= o->n)
					assert_true(last ==
								(double)o->state[(t - o->n) * o->state_channels + o->channel[c]]);
				sum += (double)o->weight[c * o->kernel + k] * last;
			}
			if (t < o->n)
				case_near(silu(sum), (double)o->y[t * o->channels + c], 1e-5, "conv");
		}
	}
	for (int i = 0, c = 0; i < o->state_channels; i++) {
		if (c < o->channels && o->channel[c] == i)
			c++;
		else
			for (int k = 0; k < past; k++)
				assert_true(o->state[k * o->state_channels + i] ==
							before[k * o->state_channels + i]);
	}
}

static void convolution_is_right(void **state)
{
	(void)state;
	for (int round = 0; round < ROUNDS; round++) {
		case_seed(500 + (uint64_t)round);
		struct conv_op op[2] = {0};
		float *before[2], *first[2], *first_state[2];
		int n_lanes = case_int(1, 2), n = case_int(1, 9);
		for (int l = 0; l < n_lanes; l++) {
			int channels = case_int(1, round % 4 == 0 ? 3000 : 100), kernel = case_int(1, 5);
			int stored = channels + case_int(0, 30);
			size_t n_state = (size_t)(kernel - 1) * (size_t)stored;
			op[l] = (struct conv_op){.x_stride = channels + case_int(0, 9),
									 .n = n,
									 .channels = channels,
									 .state_channels = stored,
									 .kernel = kernel,
									 .channel = random_choice(channels, stored)};
			op[l].x = case_new((size_t)n * (size_t)op[l].x_stride);
			op[l].weight = case_new((size_t)channels * (size_t)kernel);
			op[l].bias = case_new((size_t)channels);
			op[l].y = case_new((size_t)n * (size_t)channels);
			op[l].state = case_new(n_state);
			before[l] = copy_of(op[l].state, n_state);
			first[l] = case_new((size_t)n * (size_t)channels);
			first_state[l] = case_new(n_state);
		}
		for (int way = 0; way < 2 * N_WAYS; way++) {
			size_t n_state[2], n_y[2];
			for (int l = 0; l < n_lanes; l++) {
				n_y[l] = (size_t)n * (size_t)op[l].channels;
				n_state[l] = (size_t)(op[l].kernel - 1) * (size_t)op[l].state_channels;
				memcpy(op[l].state, before[l], n_state[l] * sizeof(float));
			}
			call_conv(case_device(1 + way % 2), op, n_lanes, way / 2);
			for (int l = 0; l < n_lanes; l++) {
				if (way == 0) {
					check_conv(&op[l], before[l]);
					memcpy(first[l], op[l].y, n_y[l] * sizeof(float));
					memcpy(first_state[l], op[l].state, n_state[l] * sizeof(float));
				}
				case_same(first[l], op[l].y, n_y[l], "conv, another way");
				case_same(first_state[l], op[l].state, n_state[l], "conv state, another way");
			}
		}
		case_done();
	}
}

/* ---- recurrence ---- */

static size_t xbc_width(const struct ssm_op *o)
{
	return (size_t)(o->n_heads * o->head_dim + 2 * o->n_groups * o->state_size);
}

static void call_ssm(struct device *device, const struct ssm_op *op, int n_lanes, int way)
{
	for (int t = 0; t < (way & BY_TOKEN ? op[0].n : 1); t++) {
		struct ssm_op part[CASE_LANES];
		for (int l = 0; l < n_lanes; l++) {
			part[l] = op[l];
			part[l].xbc += (size_t)t * xbc_width(&op[l]);
			part[l].dt += t * op[l].dt_stride;
			part[l].y += (size_t)t * (size_t)(op[l].n_heads * op[l].head_dim);
			if (way & BY_TOKEN)
				part[l].n = 1;
			if (way & BY_LANE)
				case_backend->ssm(device, 1, &part[l]);
		}
		if (!(way & BY_LANE))
			case_backend->ssm(device, n_lanes, part);
	}
	case_finish(device);
}

static void check_ssm(const struct ssm_op *o, const float *before)
{
	int inner = o->n_heads * o->head_dim, n = o->state_size;
	for (int i = 0; i < inner; i++) {
		int h = i / o->head_dim;
		double s[256];
		for (int j = 0; j < n; j++)
			s[j] = (double)before[o->state_row[i] * n + j];
		for (int t = 0; t < o->n; t++) {
			const float *xbc = o->xbc + (size_t)t * xbc_width(o);
			const float *b = xbc + inner + o->head_group[h] * n, *c = b + o->n_groups * n;
			double v = (double)o->dt[t * o->dt_stride + h] + (double)o->dt_bias[h];
			double d = v > 20 ? v : log1p(exp(v)), sum = 0;
			for (int j = 0; j < n; j++) {
				s[j] = exp(d * (double)o->a[h]) * s[j] + d * (double)xbc[i] * (double)b[j];
				sum += s[j] * (double)c[j];
			}
			case_near(sum + (double)o->d[h] * (double)xbc[i], (double)o->y[t * inner + i], 2e-5,
					  "ssm");
		}
		for (int j = 0; j < n; j++)
			case_near(s[j], (double)o->state[o->state_row[i] * n + j], 2e-5, "ssm state");
	}
}

static void recurrence_is_right(void **state)
{
	(void)state;
	for (int round = 0; round < ROUNDS; round++) {
		case_seed(600 + (uint64_t)round);
		int n = case_int(1, 7), heads = case_int(1, 9), head_dim = case_int(1, 20);
		int groups = case_int(1, heads), size = round % 3 ? case_int(1, 200) : 128;
		int inner = heads * head_dim, stored = inner + case_int(0, 9);
		struct ssm_op op = {.dt_stride = heads + 3,
							.n = n,
							.n_heads = heads,
							.head_dim = head_dim,
							.n_groups = groups,
							.state_size = size};
		op.xbc = case_new((size_t)n * xbc_width(&op));
		float *dt = case_new((size_t)(n * op.dt_stride)), *a = case_new((size_t)heads);
		dt[0] = 30; // past softplus's threshold
		for (int h = 0; h < heads; h++)
			a[h] = -expf(a[h]);
		int32_t *group = case_new_bytes((size_t)heads * sizeof *group);
		for (int h = 0; h < heads; h++)
			group[h] = h * groups / heads;
		op.dt = dt;
		op.a = a;
		op.d = case_new((size_t)heads);
		op.dt_bias = case_new((size_t)heads);
		op.head_group = group;
		op.state_row = random_choice(inner, stored);
		size_t n_state = (size_t)stored * (size_t)size, n_y = (size_t)n * (size_t)inner;
		op.state = case_new(n_state);
		op.y = case_new(n_y);
		float *before = copy_of(op.state, n_state), *first = case_new(n_y);
		float *first_state = case_new(n_state);
		for (int way = 0; way < 2 * N_WAYS; way++) {
			memcpy(op.state, before, n_state * sizeof(float));
			struct ssm_op lanes[2] = {op, op};
			lanes[1].state = copy_of(before, n_state); // the same again beside it
			lanes[1].y = case_new(n_y);
			call_ssm(case_device(1 + way % 2), lanes, 2, way / 2);
			if (way == 0) {
				check_ssm(&op, before);
				memcpy(first, op.y, n_y * sizeof(float));
				memcpy(first_state, op.state, n_state * sizeof(float));
			}
			case_same(first, op.y, n_y, "ssm, another way");
			case_same(first, lanes[1].y, n_y, "ssm, the other lane");
			case_same(first_state, op.state, n_state, "ssm state, another way");
		}
		case_done();
	}
}

static void gated_norm_is_right(void **state)
{
	(void)state;
	for (int round = 0; round < ROUNDS; round++) {
		case_seed(700 + (uint64_t)round);
		int n = case_int(1, 6), groups = case_int(1, 4), width = 0;
		int32_t *start = case_new_bytes(5 * sizeof *start);
		float *count = case_new(4);
		for (int g = 0; g < groups; g++) {
			width += case_int(1, round % 4 ? 40 : 2000);
			start[g + 1] = width;
			count[g] = (float)(start[g + 1] - start[g] + case_int(0, 2));
		}
		size_t n_y = (size_t)n * (size_t)width;
		struct gated_norm_op op = {.z_stride = width + 5,
								   .group_start = start,
								   .count = count,
								   .n = n,
								   .width = width,
								   .n_groups = groups,
								   .eps = 1e-5f,
								   .scale = 0.75f};
		op.y = case_new(n_y);
		op.z = case_new((size_t)(n * op.z_stride));
		op.weight = case_new((size_t)width);
		float *before = copy_of(op.y, n_y), *whole = case_new(n_y);
		case_backend->gated_norm(case_device(2), 1, &op);
		case_finish(case_device(2));
		memcpy(whole, op.y, n_y * sizeof(float));
		for (int t = 0; t < n; t++)
			for (int g = 0; g < groups; g++) {
				double sum = 0;
				for (int i = start[g]; i < start[g + 1]; i++) {
					double v =
						(double)before[t * width + i] * silu((double)op.z[t * op.z_stride + i]);
					sum += v * v;
				}
				for (int i = start[g]; i < start[g + 1]; i++) {
					double v =
						(double)before[t * width + i] * silu((double)op.z[t * op.z_stride + i]);
					v *= 0.75 * (double)op.weight[i] / sqrt(sum / (double)count[g] + 1e-5);
					case_near(v, (double)whole[t * width + i], 1e-5, "gated norm");
				}
			}
		memcpy(op.y, before, n_y * sizeof(float));
		for (int t = 0; t < n; t++) {
			struct gated_norm_op one = op;
			one.n = 1;
			one.y += t * width;
			one.z += t * op.z_stride;
			case_backend->gated_norm(case_device(1), 1, &one);
		}
		case_finish(case_device(1));
		case_same(whole, op.y, n_y, "gated norm, token by token");
		case_done();
	}
}

/* ---- attention ---- */

static void call_attention(struct device *device, const struct attention_op *op, int n_lanes,
						   int way)
{
	for (int t = 0; t < (way & BY_TOKEN ? op[0].n : 1); t++) {
		struct attention_op part[CASE_LANES];
		for (int l = 0; l < n_lanes; l++) {
			part[l] = op[l];
			part[l].q += (size_t)(t * op[l].n_heads * op[l].head_dim);
			part[l].y += (size_t)(t * op[l].n_heads * op[l].head_dim);
			part[l].k += (size_t)(t * op[l].n_kv_heads * op[l].head_dim);
			part[l].v += (size_t)(t * op[l].n_kv_heads * op[l].head_dim);
			if (way & BY_TOKEN)
				part[l].n = 1;
			if (way & BY_LANE)
				case_backend->attention(device, 1, &part[l]);
		}
		if (!(way & BY_LANE))
			case_backend->attention(device, n_lanes, part);
	}
	case_finish(device);
}

static double cached(const void *cache, size_t at, enum dtype kv, float scale)
{
	if (kv == DTYPE_F8_E4M3)
		return (double)e4m3_values[((const uint8_t *)cache)[at]] * (double)scale;
	return kv == DTYPE_BF16 ? (double)bf16_to_f32(((const uint16_t *)cache)[at])
							: (double)((const float *)cache)[at];
}

static void check_attention(const struct attention_op *o, int past, enum dtype kv)
{
	size_t row = (size_t)(o->n_kv_heads * o->head_dim);
	double *p = malloc((size_t)(past + o->n) * sizeof *p);
	assert_int_equal(*o->length, past + o->n);
	for (int t = 0; t < o->n; t++)
		for (int h = 0; h < o->n_heads; h++) {
			size_t head = (size_t)(o->kv_head[h] * o->head_dim);
			const float *q = o->q + (t * o->n_heads + h) * o->head_dim;
			double sum = 0;
			for (int j = 0; j < past + t + 1; j++) {
				double s = 0;
				for (int i = 0; i < o->head_dim; i++)
					s += (double)q[i] *
						 cached(o->k_cache, (size_t)j * row + head + (size_t)i, kv, o->k_scale);
				p[j] = exp(s * (double)o->scale);
				sum += p[j];
			}
			for (int i = 0; i < o->head_dim; i++) {
				double y = 0;
				for (int j = 0; j < past + t + 1; j++)
					y += p[j] / sum *
						 cached(o->v_cache, (size_t)j * row + head + (size_t)i, kv, o->v_scale);
				case_near(y, (double)o->y[(t * o->n_heads + h) * o->head_dim + i], 2e-5,
						  "attention");
			}
		}
	free(p);
}

/* The rows that the call appended, exactly. */
static void check_appended(const struct attention_op *o, int past, enum dtype kv)
{
	size_t row = (size_t)(o->n_kv_heads * o->head_dim), n = (size_t)o->n * row;
	for (size_t i = 0; kv == DTYPE_F8_E4M3 && i < n; i++) {
		assert_int_equal(((const uint8_t *)o->k_cache)[(size_t)past * row + i],
						 f32_to_e4m3(o->k[i] / o->k_scale));
		assert_int_equal(((const uint8_t *)o->v_cache)[(size_t)past * row + i],
						 f32_to_e4m3(o->v[i] / o->v_scale));
	}
}

/* n floats in the cache's format, new memory. */
static void *cache_of(const float *values, size_t n, enum dtype kv, float scale)
{
	if (kv == DTYPE_F32)
		return copy_of(values, n);
	uint8_t *cache = case_new_bytes(n * dtype_bytes(kv));
	for (size_t i = 0; i < n; i++)
		if (kv == DTYPE_BF16)
			((uint16_t *)(void *)cache)[i] = f32_to_bf16(values[i]);
		else
			cache[i] = f32_to_e4m3(values[i] / scale);
	return cache;
}

static void check_attention_case(const struct attention_op *op, const int past[2], enum dtype kv,
								 struct device *const device[2])
{
	size_t n_y = (size_t)(op[0].n * op[0].n_heads * op[0].head_dim);
	float *first[2] = {case_new(n_y), case_new(n_y)};
	for (int way = 0; way < 2 * N_WAYS; way++) {
		*op[0].length = past[0];
		*op[1].length = past[1];
		call_attention(device[way % 2], op, 2, way / 2);
		for (int l = 0; l < 2; l++) {
			if (way == 0) {
				check_attention(&op[l], past[l], kv);
				check_appended(&op[l], past[l], kv);
				memcpy(first[l], op[l].y, n_y * sizeof(float));
			}
			case_same(first[l], op[l].y, n_y, "attention, another way");
		}
	}
}

static void attention_is_right(void **state)
{
	(void)state;
	static const enum dtype formats[] = {DTYPE_F32, DTYPE_BF16, DTYPE_F8_E4M3};
	struct device *devices[3][2];
	for (int i = 0; i < 6; i++) {
		struct device_options options = {.n_threads = i % 2 + 1, .kv_dtype = formats[i / 2]};
		devices[i / 2][i % 2] = case_backend->open(&options, NULL);
		assert_non_null(devices[i / 2][i % 2]);
	}
	for (int round = 0; round < 18; round++) {
		case_seed(800 + (uint64_t)round);
		enum dtype format = formats[round % 3];
		int n = case_int(1, 9), kv = case_int(1, 3), heads = kv * case_int(1, 20);
		int head_dim = round % 4 ? case_int(1, 70) : 64, past[2];
		int32_t *kv_head = case_new_bytes((size_t)heads * sizeof *kv_head);
		int32_t *length = case_new_bytes(2 * sizeof *length);
		for (int h = 0; h < heads; h++)
			kv_head[h] = h * kv / heads;
		struct attention_op op[2];
		for (int l = 0; l < 2; l++) {
			past[l] = case_int(0, 3) ? case_int(0, 200) : 0;
			size_t n_cache = (size_t)((past[l] + n) * kv * head_dim);
			op[l] = (struct attention_op){.length = &length[l],
										  .kv_head = kv_head,
										  .n = n,
										  .n_heads = heads,
										  .n_kv_heads = kv,
										  .head_dim = head_dim,
										  .scale = 1 / sqrtf((float)head_dim),
										  .k_scale = round % 2 ? 1 : 0.03f,
										  .v_scale = round % 2 ? 1 : 0.011f};
			op[l].q = case_new((size_t)(n * heads * head_dim));
			op[l].k = case_new((size_t)(n * kv * head_dim));
			op[l].v = case_new((size_t)(n * kv * head_dim));
			op[l].y = case_new((size_t)(n * heads * head_dim));
			op[l].k_cache = cache_of(case_new(n_cache), n_cache, format, op[l].k_scale);
			op[l].v_cache = cache_of(case_new(n_cache), n_cache, format, op[l].v_scale);
		}
		check_attention_case(op, past, format, devices[round % 3]);
		case_done();
	}
	for (int i = 0; i < 6; i++)
		case_backend->close(devices[i / 2][i % 2]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(convolution_is_right),
		cmocka_unit_test(recurrence_is_right),
		cmocka_unit_test(gated_norm_is_right),
		cmocka_unit_test(attention_is_right),
	};
	return cmocka_run_group_tests(tests, case_open, case_close);
}
