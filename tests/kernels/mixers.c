/* Kernels that do two operations at once, bit for bit against the same one after the other, and
 * nearly against the CPU: heads of any group, groups without a head, cut channels; and more lanes
 * than a launch takes. */
#include "kernels/convert.h"
#include "kernels/cuda_device.h"
#include "tests/kernels/case.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define LANES_MOST (32 + 2) // more than any one launch takes

struct mixer {
	struct conv_op conv;
	struct ssm_op ssm;
	size_t n_conv, n_state, n_y; // of the states and y
	float *conv_before, *before;
};

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

static struct mixer random_mixer(int n, int size, int n_groups, int head_dim)
{
	struct mixer m = {0};
	int heads = case_int(1, 7), inner = heads * head_dim, kernel = case_int(1, 6);
	int channels = inner + 2 * n_groups * size, stored = channels + case_int(0, 40);
	int stride = channels + heads + case_int(0, 9);
	const float *projected = case_new((size_t)n * (size_t)stride);
	int32_t *channel = random_choice(channels, stored);
	int32_t *group = case_new_bytes((size_t)heads * sizeof *group);
	float *a = case_new((size_t)heads), *xbc = case_new((size_t)n * (size_t)channels);
	for (int h = 0; h < heads; h++) {
		group[h] = case_int(0, n_groups - 1); // in no order, perhaps none of a group
		a[h] = -expf(a[h]);
	}
	m.n_conv = (size_t)(kernel - 1) * (size_t)stored;
	m.n_state = (size_t)stored * (size_t)size;
	m.n_y = (size_t)n * (size_t)inner;
	m.conv_before = case_new(m.n_conv);
	m.before = case_new(m.n_state);
	m.conv = (struct conv_op){.x = projected,
							  .x_stride = stride,
							  .weight = case_new((size_t)channels * (size_t)kernel),
							  .bias = case_new((size_t)channels),
							  .y = xbc,
							  .state = copy_of(m.conv_before, m.n_conv),
							  .channel = channel,
							  .n = n,
							  .channels = channels,
							  .state_channels = stored,
							  .kernel = kernel};
	m.ssm = (struct ssm_op){.xbc = xbc,
							.dt = projected + channels,
							.dt_stride = stride,
							.a = a,
							.d = case_new((size_t)heads),
							.dt_bias = case_new((size_t)heads),
							.head_group = group,
							.state_row = channel,
							.state = copy_of(m.before, m.n_state),
							.y = case_new(m.n_y),
							.n = n,
							.n_heads = heads,
							.head_dim = head_dim,
							.n_groups = n_groups,
							.state_size = size};
	return m;
}

static void put_back(const struct mixer *m)
{
	memcpy(m->conv.state, m->conv_before, m->n_conv * sizeof(float));
	memcpy(m->ssm.state, m->before, m->n_state * sizeof(float));
}

static void same_bits(const float *a, const float *b, size_t n, const char *what)
{
	for (size_t i = 0; i < n; i++)
		if (memcmp(&a[i], &b[i], sizeof *a) != 0)
			fail_msg("%s: value %zu is %.9g and %.9g", what, i, (double)a[i], (double)b[i]);
}

static void near_all(const float *a, const float *b, size_t n, const char *what)
{
	for (size_t i = 0; i < n; i++)
		case_near((double)a[i], (double)b[i], 2e-5, what);
}

static void check_mixers(struct mixer *m, int n_lanes, struct device *cpu)
{
	struct conv_op conv[LANES_MOST];
	struct ssm_op ssm[LANES_MOST];
	float *y[LANES_MOST], *left[LANES_MOST], *conv_left[LANES_MOST];
	struct device *device = case_device(1);
	for (int l = 0; l < n_lanes; l++) {
		conv[l] = m[l].conv;
		ssm[l] = m[l].ssm;
		backend_cpu.conv(cpu, 1, &conv[l]);
		backend_cpu.ssm(cpu, 1, &ssm[l]);
		y[l] = copy_of(ssm[l].y, m[l].n_y);
		left[l] = copy_of(ssm[l].state, m[l].n_state);
		conv_left[l] = copy_of(conv[l].state, m[l].n_conv);
		put_back(&m[l]);
	}
	cuda_conv(device, n_lanes, conv);
	cuda_ssm(device, n_lanes, ssm);
	case_finish(device);
	for (int l = 0; l < n_lanes; l++) {
		near_all(y[l], ssm[l].y, m[l].n_y, "conv, then ssm");
		near_all(left[l], ssm[l].state, m[l].n_state, "its state");
		same_bits(conv_left[l], conv[l].state, m[l].n_conv, "the convolution's state");
		memcpy(y[l], ssm[l].y, m[l].n_y * sizeof(float));
		memcpy(left[l], ssm[l].state, m[l].n_state * sizeof(float));
	}
	for (int again = 0; again < 2; again++) { // the tickets stand at 0 again
		for (int l = 0; l < n_lanes; l++) {
			put_back(&m[l]);
			memset(ssm[l].y, 0, m[l].n_y * sizeof(float));
		}
		assert_true(cuda_conv_ssm(device, n_lanes, conv, ssm));
		case_finish(device);
		for (int l = 0; l < n_lanes; l++) {
			same_bits(y[l], ssm[l].y, m[l].n_y, "both at once");
			same_bits(left[l], ssm[l].state, m[l].n_state, "the state of both at once");
			same_bits(conv_left[l], conv[l].state, m[l].n_conv, "conv's state of both at once");
		}
	}
}

static void conv_and_ssm_at_once(void **state)
{
	(void)state;
	struct device_options options = {.n_threads = 1, .kv_dtype = DTYPE_F32};
	struct device *cpu = backend_cpu.open(&options, NULL);
	struct mixer m[LANES_MOST];
	for (int round = 0; round < 12; round++) {
		case_seed(900 + (uint64_t)round);
		int n = round % 2 ? 1 : case_int(2, 15),
			n_lanes = round == 11 ? LANES_MOST : case_int(1, 3);
		int size = round % 4 == 0 ? 128 : case_int(1, round % 4 == 1 ? 256 : 90);
		int head_dim = round % 3 == 0 ? 64 : case_int(1, 45), n_groups = case_int(1, 4);
		if (n_lanes == LANES_MOST)
			size = head_dim = 5;
		for (int l = 0; l < n_lanes; l++)
			m[l] = random_mixer(n, size, n_groups, head_dim);
		check_mixers(m, n_lanes, cpu);
		case_done();
	}
	backend_cpu.close(cpu);
}

/* What is not of one piece is left alone. */
static void others_stay_apart(void **state)
{
	(void)state;
	case_seed(990);
	struct mixer m = random_mixer(2, 8, 2, 4);
	struct ssm_op ssm = m.ssm;
	ssm.xbc++;
	assert_false(cuda_conv_ssm(case_device(1), 1, &m.conv, &ssm));
	ssm = m.ssm;
	ssm.n = 1;
	assert_false(cuda_conv_ssm(case_device(1), 1, &m.conv, &ssm));
	same_bits(m.before, m.ssm.state, m.n_state, "a state that nobody touched");
	m = random_mixer(16, 8, 2, 4); // for the prefill kernels
	assert_false(cuda_conv_ssm(case_device(1), 1, &m.conv, &m.ssm));
	same_bits(m.conv_before, m.conv.state, m.n_conv, "a state that nobody touched");
	case_done();
}

/* A pass starts both as one kernel, and apart where somebody looks in between. */
static void a_pass_finds_them(void **state)
{
	(void)state;
	struct device *device = case_device(2);
	float before;
	case_seed(995);
	struct mixer m = random_mixer(1, 8, 2, 4);
	for (int looks = 0; looks < 2; looks++) {
		uint64_t n = device->n_launches;
		case_backend->conv(device, 1, &m.conv);
		if (looks)
			case_backend->download(device, &before, m.conv.y, sizeof before);
		case_backend->ssm(device, 1, &m.ssm);
		case_finish(device);
		assert_int_equal(device->n_launches - n, 1 + looks);
	}
	case_done();
}

/* ---- attention ---- */

/* Rows of random numbers in the cache's format. */
static void *random_cache(size_t n, enum dtype kv, float scale)
{
	uint8_t *cache = case_new_bytes(n * dtype_bytes(kv));
	for (size_t i = 0; i < n; i++) {
		float v = case_float();
		if (kv == DTYPE_F32)
			((float *)(void *)cache)[i] = v;
		else if (kv == DTYPE_BF16)
			((uint16_t *)(void *)cache)[i] = f32_to_bf16(v);
		else
			cache[i] = f32_to_e4m3(v / scale);
	}
	return cache;
}

static struct attention_op random_attention(int n, int past, int head_dim, enum dtype kv)
{
	int n_kv = case_int(1, 3), heads = case_int(1, 24);
	int32_t *kv_head = case_new_bytes((size_t)heads * sizeof *kv_head);
	int32_t *length = case_new_bytes(sizeof *length);
	for (int h = 0; h < heads; h++)
		kv_head[h] = case_int(0, n_kv - 1); // in no order, perhaps none of a KV head
	*length = past;
	struct attention_op op = {.length = length,
							  .kv_head = kv_head,
							  .n = n,
							  .n_heads = heads,
							  .n_kv_heads = n_kv,
							  .head_dim = head_dim,
							  .scale = 1 / sqrtf((float)head_dim),
							  .k_scale = 0.02f,
							  .v_scale = 0.03f};
	size_t n_cache = (size_t)((past + n) * n_kv * head_dim);
	op.q = case_new((size_t)(n * heads * head_dim));
	op.k = case_new((size_t)(n * n_kv * head_dim));
	op.v = case_new((size_t)(n * n_kv * head_dim));
	op.y = case_new((size_t)(n * heads * head_dim));
	op.k_cache = random_cache(n_cache, kv, op.k_scale);
	op.v_cache = random_cache(n_cache, kv, op.v_scale);
	return op;
}

static void check_attentions(struct device *device, struct device *cpu, enum dtype kv,
							 struct attention_op *op, int n_lanes)
{
	float *y[LANES_MOST], *first[LANES_MOST];
	void *k[LANES_MOST], *v[LANES_MOST];
	for (int again = -1; again < 2;
		 again++) { // the CPU, and twice the card: the tickets stand at 0
		for (int l = 0; l < n_lanes; l++) {
			struct attention_op *o = &op[l];
			size_t n_y = (size_t)(o->n * o->n_heads * o->head_dim);
			size_t row = (size_t)(o->n_kv_heads * o->head_dim) * dtype_bytes(kv);
			size_t past = (size_t)*o->length * row, n = (size_t)o->n * row;
			if (again < 0) {
				backend_cpu.attention(cpu, 1, o);
				y[l] = copy_of(o->y, n_y);
				memcpy(k[l] = case_new_bytes(n), (char *)o->k_cache + past, n);
				memcpy(v[l] = case_new_bytes(n), (char *)o->v_cache + past, n);
				*o->length -= o->n;
			}
			memset(o->y, 0, n_y * sizeof(float));
			memset((char *)o->k_cache + past, 0xff, n); // nobody reads there
			memset((char *)o->v_cache + past, 0xff, n);
		}
		if (again < 0)
			continue;
		cuda_attention(device, n_lanes, op);
		case_finish(device);
		for (int l = 0; l < n_lanes; l++) {
			struct attention_op *o = &op[l];
			size_t n_y = (size_t)(o->n * o->n_heads * o->head_dim);
			size_t row = (size_t)(o->n_kv_heads * o->head_dim) * dtype_bytes(kv);
			*o->length -= o->n;
			near_all(y[l], o->y, n_y, "attention");
			assert_memory_equal(k[l], (char *)o->k_cache + (size_t)*o->length * row,
								(size_t)o->n * row);
			assert_memory_equal(v[l], (char *)o->v_cache + (size_t)*o->length * row,
								(size_t)o->n * row);
			if (again == 0)
				first[l] = copy_of(o->y, n_y);
			same_bits(first[l], o->y, n_y, "attention again");
		}
	}
}

/* Wide and odd heads, more parts than are put together at once, KV heads that nobody asks. */
static void attention_in_one_launch(void **state)
{
	(void)state;
	static const enum dtype formats[] = {DTYPE_F32, DTYPE_BF16, DTYPE_F8_E4M3};
	static const struct {
		int n, past, head_dim, n_lanes, n_sms;
	} shapes[] = {
		{1, 700, 16, 1, 132},        {1, 0, 128, 2, 132}, {3, 130, 128, 1, 132},
		{1, 1500, 32, 1, 264},       {2, 90, 200, 2, 8},  {1, 63, 250, 1, 132},
		{1, 65, 5, LANES_MOST, 132},
	};
	for (size_t i = 0; i < 3 * sizeof shapes / sizeof *shapes; i++) {
		int at = (int)(i / 3);
		struct device_options options = {.n_threads = 1, .kv_dtype = formats[i % 3]};
		struct device *device = case_backend->open(&options, NULL);
		struct device *cpu = backend_cpu.open(&options, NULL);
		struct attention_op op[LANES_MOST];
		case_seed(2000 + i);
		device->n_sms = shapes[at].n_sms;
		for (int l = 0; l < shapes[at].n_lanes; l++)
			op[l] = random_attention(shapes[at].n, shapes[at].past + (l ? case_int(0, 9) : 0),
									 shapes[at].head_dim, formats[i % 3]);
		check_attentions(device, cpu, formats[i % 3], op, shapes[at].n_lanes);
		case_done();
		case_backend->close(device);
		backend_cpu.close(cpu);
	}
}

/* ---- the smaller operations, of more lanes than a launch takes ---- */

static void norms_of_many_lanes(void **state)
{
	(void)state;
	struct device_options options = {.n_threads = 1, .kv_dtype = DTYPE_F32};
	struct device *cpu = backend_cpu.open(&options, NULL), *device = case_device(1);
	struct norm_op op[LANES_MOST];
	float *y[LANES_MOST];
	case_seed(3000);
	for (int l = 0; l < LANES_MOST; l++) {
		int n = case_int(1, 3), width = case_int(1, 70);
		size_t n_y = (size_t)(n * width);
		op[l] = (struct norm_op){.x = case_new(n_y),
								 .weight = case_new((size_t)width),
								 .y = case_new(n_y),
								 .n = n,
								 .width = width,
								 .count = (float)width,
								 .eps = 1e-5f,
								 .scale = 1 + case_float() / 8};
		backend_cpu.norm(cpu, 1, &op[l]);
		y[l] = copy_of(op[l].y, n_y);
		memset(op[l].y, 0, n_y * sizeof(float));
	}
	cuda_norm(device, LANES_MOST, op);
	case_finish(device);
	for (int l = 0; l < LANES_MOST; l++)
		near_all(y[l], op[l].y, (size_t)(op[l].n * op[l].width), "a lane's norm");
	case_done();
	backend_cpu.close(cpu);
}

static void tokens_of_many_lanes(void **state)
{
	(void)state;
	struct device_options options = {.n_threads = 1, .kv_dtype = DTYPE_F32};
	struct device *cpu = backend_cpu.open(&options, NULL), *device = case_device(1);
	struct embed_op op[LANES_MOST];
	struct matrix table;
	float *y[LANES_MOST];
	case_seed(3100);
	case_matrix(&table, DTYPE_BF16, 50, 24);
	for (int l = 0; l < LANES_MOST; l++) {
		int n = case_int(1, 3);
		size_t n_y = (size_t)(n * table.n_columns);
		int32_t *ids = case_new_bytes((size_t)n * sizeof *ids);
		for (int i = 0; i < n; i++)
			ids[i] = case_int(0, table.n_rows - 1);
		op[l] = (struct embed_op){.table = &table, .ids = ids, .y = case_new(n_y), .n = n};
		backend_cpu.embed(cpu, 1, &op[l]);
		y[l] = copy_of(op[l].y, n_y);
		memset(op[l].y, 0, n_y * sizeof(float));
	}
	cuda_embed(device, LANES_MOST, op);
	case_finish(device);
	for (int l = 0; l < LANES_MOST; l++)
		same_bits(y[l], op[l].y, (size_t)(op[l].n * table.n_columns), "a lane's token");
	case_done();
	backend_cpu.close(cpu);
}

static void choices_of_many_lanes(void **state)
{
	(void)state;
	struct device_options options = {.n_threads = 1, .kv_dtype = DTYPE_F32};
	struct device *cpu = backend_cpu.open(&options, NULL), *device = case_device(1);
	struct route_op op[LANES_MOST];
	float *weights[LANES_MOST];
	int32_t *ids[LANES_MOST];
	case_seed(3200);
	for (int l = 0; l < LANES_MOST; l++) {
		int n = case_int(1, 3), n_experts = case_int(1, 40), top_k = case_int(1, n_experts);
		size_t n_ids = (size_t)(n * top_k);
		op[l] = (struct route_op){.logits = case_new((size_t)(n * n_experts)),
								  .bias = case_new((size_t)n_experts),
								  .ids = case_new_bytes(n_ids * sizeof(int32_t)),
								  .weights = case_new(n_ids),
								  .n = n,
								  .n_experts = n_experts,
								  .top_k = top_k,
								  .normalise = l % 2,
								  .scale = 2.5f};
		backend_cpu.route(cpu, 1, &op[l]);
		weights[l] = copy_of(op[l].weights, n_ids);
		ids[l] = case_new_bytes(n_ids * sizeof(int32_t));
		memcpy(ids[l], op[l].ids, n_ids * sizeof(int32_t));
		memset(op[l].ids, 0xff, n_ids * sizeof(int32_t));
		memset(op[l].weights, 0, n_ids * sizeof(float));
	}
	cuda_route(device, LANES_MOST, op);
	case_finish(device);
	for (int l = 0; l < LANES_MOST; l++) {
		size_t n_ids = (size_t)(op[l].n * op[l].top_k);
		assert_memory_equal(ids[l], op[l].ids, n_ids * sizeof(int32_t));
		near_all(weights[l], op[l].weights, n_ids, "a lane's choice");
	}
	case_done();
	backend_cpu.close(cpu);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(conv_and_ssm_at_once),  cmocka_unit_test(others_stay_apart),
		cmocka_unit_test(a_pass_finds_them),     cmocka_unit_test(attention_in_one_launch),
		cmocka_unit_test(norms_of_many_lanes),   cmocka_unit_test(tokens_of_many_lanes),
		cmocka_unit_test(choices_of_many_lanes),
	};
	return cmocka_run_group_tests(tests, case_open, case_close);
}
