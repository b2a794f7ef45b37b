/* Embedding, norm, linear, routing and experts against plain double arithmetic, and bit for bit
 * across threads, tokens a call and lanes. */
#include "tests/kernels/case.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const enum dtype weight_dtypes[] = {DTYPE_F32, DTYPE_BF16, DTYPE_F16, DTYPE_F8_E4M3,
										   DTYPE_NVFP4};
#define N_WEIGHT_DTYPES ((int)(sizeof weight_dtypes / sizeof weight_dtypes[0]))

/* One call, or one a token, or one a lane: see case.h. */
static void call_linear(struct device *device, int n_lanes, const struct linear_op *op, int way)
{
	int max = 0;
	for (int l = 0; l < n_lanes; l++)
		max = op[l].n > max ? op[l].n : max;
	for (int t = 0; t < (way & BY_TOKEN ? max : 1); t++) {
		struct linear_op part[CASE_LANES];
		int n = 0;
		for (int l = 0; l < n_lanes; l++) {
			if (t >= op[l].n)
				continue;
			part[n] = op[l];
			part[n].x += (size_t)t * (size_t)op[l].w->n_columns;
			part[n].y += (size_t)t * (size_t)op[l].w->n_rows;
			if (way & BY_TOKEN)
				part[n].n = 1;
			if (way & BY_LANE)
				case_backend->linear(device, 1, &part[n]);
			else
				n++;
		}
		if (n)
			case_backend->linear(device, n, part);
	}
	case_finish(device);
}

static void check_linear(const struct linear_op *o, const float *before)
{
	for (int t = 0; t < o->n; t++)
		for (int r = 0; r < o->w->n_rows; r++) {
			double sum = 0;
			for (int c = 0; c < o->w->n_columns; c++)
				sum += case_weight(o->w, r, c) * (double)o->x[t * o->w->n_columns + c];
			if (o->mode == LINEAR_ADD)
				sum += (double)before[t * o->w->n_rows + r];
			if (o->mode == LINEAR_RELU2)
				sum = sum > 0 ? sum * sum : 0;
			case_near(sum, (double)o->y[t * o->w->n_rows + r], 2e-5 * case_looseness(), "linear");
		}
}

static void linear_is_right(void **state)
{
	(void)state;
	for (int round = 0; round < case_rounds(60, 10); round++) {
		case_seed((uint64_t)round);
		struct matrix w[CASE_LANES];
		struct linear_op op[CASE_LANES] = {0};
		float *before[CASE_LANES], *first[CASE_LANES];
		int n_lanes = case_int(1, CASE_LANES), big = round % 10 == 0;
		int rows = case_int(1, big ? 400 : 60), columns = case_int(1, big ? 500 : 90);
		case_matrix(&w[0], weight_dtypes[round % N_WEIGHT_DTYPES], rows, columns);
		for (int l = 0; l < n_lanes; l++) {
			if (l == 3)
				case_matrix(&w[l], weight_dtypes[case_int(0, N_WEIGHT_DTYPES - 1)], rows, columns);
			else if (l > 0)
				case_view(&w[l], &w[0], case_int(1, rows), case_int(1, columns));
			int n = case_int(1, big ? 40 : 9);
			size_t n_y = (size_t)n * (size_t)w[l].n_rows;
			op[l] =
				(struct linear_op){.w = &w[l], .n = n, .mode = (enum linear_mode)case_int(0, 2)};
			op[l].x = case_new((size_t)n * (size_t)w[l].n_columns);
			op[l].y = case_new(n_y);
			before[l] = case_new(n_y);
			first[l] = case_new(n_y);
			memcpy(before[l], op[l].y, n_y * sizeof(float));
		}
		for (int way = 0; way < 2 * N_WAYS; way++) {
			for (int l = 0; l < n_lanes; l++)
				memcpy(op[l].y, before[l], sizeof(float) * (size_t)op[l].n * (size_t)w[l].n_rows);
			call_linear(case_device(1 + way % 2), n_lanes, op, way / 2);
			for (int l = 0; l < n_lanes; l++) {
				size_t n_y = (size_t)op[l].n * (size_t)w[l].n_rows;
				if (way == 0) {
					check_linear(&op[l], before[l]);
					memcpy(first[l], op[l].y, n_y * sizeof(float));
				}
				case_same(first[l], op[l].y, n_y, "linear, another way");
			}
		}
		case_done();
	}
}

/* The router's products are the same in fast math; others may not be. */
static void precise_products_stay_exact(void **state)
{
	(void)state;
	struct device_options options = {.n_threads = 1, .kv_dtype = DTYPE_F32};
	struct device *exact = case_backend->open(&options, NULL);
	assert_non_null(exact);
	for (int round = 0; round < 10; round++) {
		case_seed(50 + (uint64_t)round);
		struct matrix w;
		case_matrix(&w, DTYPE_BF16, 40, 90);
		struct linear_op op = {.w = &w, .x = case_new(3 * 90), .n = 3, .precise = true};
		op.y = case_new(3 * 40);
		float *y = case_new(3 * 40);
		case_backend->linear(case_device(1), 1, &op);
		case_finish(case_device(1));
		memcpy(y, op.y, 3 * 40 * sizeof *y);
		case_backend->linear(exact, 1, &op);
		case_finish(exact);
		case_same(y, op.y, 3 * 40, "a precise product");
		case_done();
	}
	case_backend->close(exact);
}

static void embedding_gathers_rows(void **state)
{
	(void)state;
	for (int round = 0; round < 15; round++) {
		case_seed(100 + (uint64_t)round);
		struct matrix table;
		case_matrix(&table, weight_dtypes[round % N_WEIGHT_DTYPES], 30, case_int(1, 70));
		int32_t *ids = case_new_bytes(5 * sizeof *ids);
		float *y = case_new(5 * (size_t)table.n_columns);
		for (int i = 0; i < 5; i++)
			ids[i] = case_int(0, 29);
		case_backend->embed(case_device(1), 1, &(struct embed_op){&table, ids, y, 5});
		case_finish(case_device(1));
		for (int i = 0; i < 5; i++)
			for (int c = 0; c < table.n_columns; c++)
				assert_true((double)y[i * table.n_columns + c] == case_weight(&table, ids[i], c));
		ids[3] = 30;
		struct error err = {0};
		case_backend->embed(case_device(1), 1, &(struct embed_op){&table, ids, y, 5});
		assert_int_equal(case_backend->finish(case_device(1), &err), -1);
		assert_string_equal(err.text, "token id 30, expected 0 to 29");
		assert_int_equal(case_backend->finish(case_device(1), NULL), 0); // kept once
		case_done();
	}
}

static void norm_is_right(void **state)
{
	(void)state;
	for (int round = 0; round < 12; round++) {
		case_seed(200 + (uint64_t)round);
		int n = round == 5 ? 60 : case_int(1, 9), width = case_int(1, round == 5 ? 5000 : 300);
		float *x = case_new((size_t)n * (size_t)width), *y = case_new((size_t)n * (size_t)width);
		float *weight = case_new((size_t)width);
		struct norm_op op = {x, weight, y, n, width, (float)width + 3, 1e-5f, 1.25f};
		case_backend->norm(case_device(2), 1, &op);
		case_finish(case_device(2));
		for (int t = 0; t < n; t++) {
			double sum = 0;
			for (int i = 0; i < width; i++)
				sum += (double)x[t * width + i] * (double)x[t * width + i];
			for (int i = 0; i < width; i++)
				case_near((double)x[t * width + i] / sqrt(sum / (width + 3) + 1e-5) * 1.25 *
							  (double)weight[i],
						  (double)y[t * width + i], 1e-5, "norm");
		}
		for (int t = 0; t < n; t++) { // in place, one token a call
			struct norm_op one = {x + t * width, weight,   x + t * width, 1,
								  width,         op.count, op.eps,        op.scale};
			case_backend->norm(case_device(1), 1, &one);
		}
		case_finish(case_device(1));
		case_same(y, x, (size_t)n * (size_t)width, "norm in place");
		case_done();
	}
}

static void router_chooses_the_largest(void **state)
{
	(void)state;
	for (int round = 0; round < 60; round++) {
		case_seed(300 + (uint64_t)round);
		int n = case_int(1, round % 7 ? 5 : 100), n_experts = case_int(1, 40),
			top_k = case_int(1, n_experts);
		float *logits = case_new((size_t)n * (size_t)n_experts),
			  *bias = case_new((size_t)n_experts);
		float *weights = case_new((size_t)n * (size_t)top_k);
		int32_t *ids = case_new_bytes((size_t)n * (size_t)top_k * sizeof *ids);
		if (round % 3 == 0)
			bias[case_int(0, n_experts - 1)] = INFINITY;
		if (round % 4 == 0)
			bias[case_int(0, n_experts - 1)] = -INFINITY;
		if (round % 5 == 0)
			logits[0] = NAN;
		if (n_experts > 3) // a tie
			logits[2] = logits[1], bias[2] = bias[1];
		struct route_op op = {logits, bias, NULL, ids, weights, n, n_experts, top_k, true, 2.5f};
		case_backend->route(case_device(2), 1, &op);
		case_finish(case_device(2));
		for (int t = round % 5 == 0; t < n; t++) {
			double sum = 0;
			for (int k = 0; k < top_k; k++) {
				int id = ids[t * top_k + k];
				assert_true(k == 0 ? id >= 0 : id > ids[t * top_k + k - 1]);
				double s = 1 / (1 + exp(-(double)logits[t * n_experts + id]));
				sum += bias[id] == -INFINITY ? 0 : s;
				int above = 0; // nobody outside the choice may beat the chosen
				for (int e = 0; e < n_experts; e++) {
					float a = 1 / (1 + expf(-logits[t * n_experts + e])) + bias[e];
					float b = 1 / (1 + expf(-logits[t * n_experts + id])) + bias[id];
					above += a > b || (a == b && e < id);
				}
				assert_true(above < top_k);
			}
			for (int k = 0; k < top_k; k++) {
				int id = ids[t * top_k + k];
				double s = 1 / (1 + exp(-(double)logits[t * n_experts + id]));
				s = bias[id] == -INFINITY ? 0 : s;
				case_near(s / (sum + 1e-20) * 2.5, (double)weights[t * top_k + k], 1e-5, "weight");
			}
		}
		for (int i = 0; i < n * top_k; i++) // NaN or not, ids are usable
			assert_in_range(ids[i], 0, n_experts - 1);
		case_done();
	}
}

/* Experts chosen elsewhere are taken, weighed by their own scores; others fill the list with 0. */
static void router_takes_given_experts(void **state)
{
	(void)state;
	for (int round = 0; round < 60; round++) {
		case_seed(900 + (uint64_t)round);
		int n = case_int(1, 5), n_experts = case_int(1, 40), top_k = case_int(1, n_experts);
		float *logits = case_new((size_t)n * (size_t)n_experts),
			  *bias = case_new((size_t)n_experts);
		float *weights = case_new((size_t)n * (size_t)top_k);
		int32_t *ids = case_new_bytes((size_t)n * (size_t)top_k * sizeof *ids);
		int32_t *given = case_new_bytes((size_t)n * (size_t)top_k * sizeof *given);
		bool taken[5][40] = {{false}};
		for (int t = 0; t < n; t++) {
			int n_given = case_int(0, top_k), k = 0;
			for (int left = n_given; left > 0; left--)
				for (int e = case_int(0, n_experts - 1);; e = (e + 1) % n_experts)
					if (!taken[t][e]) {
						taken[t][e] = true;
						break;
					}
			for (int e = 0; e < n_experts; e++)
				if (taken[t][e])
					given[t * top_k + k++] = e;
			for (; k < top_k; k++)
				given[t * top_k + k] = -1;
		}
		struct route_op op = {logits, bias, given, ids, weights, n, n_experts, top_k, true, 2.5f};
		case_backend->route(case_device(2), 1, &op);
		case_finish(case_device(2));
		for (int t = 0; t < n; t++) {
			double sum = 0;
			int found = 0, wanted = 0;
			for (int e = 0; e < n_experts; e++) {
				sum += taken[t][e] ? 1 / (1 + exp(-(double)logits[t * n_experts + e])) : 0;
				wanted += taken[t][e];
			}
			for (int k = 0; k < top_k; k++) {
				int id = ids[t * top_k + k];
				assert_in_range(id, 0, n_experts - 1);
				assert_true(k == 0 || id > ids[t * top_k + k - 1]);
				double s = 1 / (1 + exp(-(double)logits[t * n_experts + id]));
				found += taken[t][id];
				case_near(taken[t][id] ? s / (sum + 1e-20) * 2.5 : 0,
						  (double)weights[t * top_k + k], 1e-5, "weight");
			}
			assert_int_equal(found, wanted);
		}
		case_done();
	}
}

static void call_experts(struct device *device, int n_lanes, const struct experts_op *op, int way)
{
	for (int t = 0; t < (way & BY_TOKEN ? op[0].n : 1); t++) {
		struct experts_op part[CASE_LANES];
		for (int l = 0; l < n_lanes; l++) {
			part[l] = op[l];
			part[l].x += (size_t)t * (size_t)op[l].width;
			part[l].y += (size_t)t * (size_t)op[l].width;
			part[l].ids += (size_t)t * (size_t)op[l].top_k;
			part[l].weights += (size_t)t * (size_t)op[l].top_k;
			part[l].hidden += (size_t)t * (size_t)op[l].top_k * (size_t)op[l].ffn;
			if (op[l].norms)
				part[l].norms += (size_t)t * (size_t)op[l].top_k;
			if (way & BY_TOKEN)
				part[l].n = 1;
			if (way & BY_LANE)
				case_backend->experts(device, 1, &part[l]);
		}
		if (!(way & BY_LANE))
			case_backend->experts(device, n_lanes, part);
	}
	case_finish(device);
}

static void check_experts(const struct experts_op *o, const float *before)
{
	for (int t = 0; t < o->n; t++)
		for (int i = 0; i < o->width; i++) {
			double sum = (double)before[t * o->width + i];
			for (int k = 0; k < o->top_k; k++) {
				int e = o->ids[t * o->top_k + k];
				const float *hidden = o->hidden + (t * o->top_k + k) * o->ffn;
				for (int f = 0; f < o->ffn; f++)
					sum += (double)o->weights[t * o->top_k + k] * case_weight(&o->down[e], i, f) *
						   (double)hidden[f];
				for (int f = 0; i == 0 && f < o->ffn; f++) {
					double up = 0;
					for (int c = 0; c < o->width; c++)
						up += case_weight(&o->up[e], f, c) * (double)o->x[t * o->width + c];
					case_near(up > 0 ? up * up : 0, (double)hidden[f], 2e-5 * case_looseness(),
							  "hidden");
				}
			}
			case_near(sum, (double)o->y[t * o->width + i], 5e-5 * case_looseness(), "experts");
		}
}

/* norms: of down_e relu2(up_e x), without the weight. */
static void check_norms(const struct experts_op *o)
{
	for (int pair = 0; o->norms && pair < o->n * o->top_k; pair++) {
		double sum = 0;
		for (int i = 0; i < o->width; i++) {
			double out = 0;
			for (int f = 0; f < o->ffn; f++)
				out += case_weight(&o->down[o->ids[pair]], i, f) *
					   (double)o->hidden[pair * o->ffn + f];
			sum += out * out;
		}
		case_near(sqrt(sum), (double)o->norms[pair], 5e-5 * case_looseness(), "norm");
	}
}

#define MAX_EXPERTS 8

/* Lane 1.. keep every second expert in narrower views; lane 3 has matrices of its own. */
static void experts_are_right(void **state)
{
	(void)state;
	for (int round = 0; round < case_rounds(15, 7); round++) {
		case_seed(400 + (uint64_t)round);
		static struct matrix up[CASE_LANES][MAX_EXPERTS], down[CASE_LANES][MAX_EXPERTS];
		struct experts_op op[CASE_LANES] = {0};
		float *before[CASE_LANES], *first[CASE_LANES], *norms[CASE_LANES];
		enum dtype dtype = weight_dtypes[round % N_WEIGHT_DTYPES];
		enum dtype other = round % 2 ? DTYPE_F8_E4M3 : dtype; // experts may be stored in two ways
		int n_lanes = case_int(1, CASE_LANES), big = round % 6 == 0, n = case_int(1, big ? 24 : 5);
		for (int l = 0; l < n_lanes; l++) {
			int width = case_int(1, big ? 120 : 40), ffn = case_int(1, big ? 120 : 40);
			int own = l == 0 || l == 3, n_experts = own ? MAX_EXPERTS : MAX_EXPERTS / 2;
			if (dtype == DTYPE_NVFP4) { // hidden is packed: whole blocks, or nothing
				width = (width + NVFP4_BLOCK - 1) / NVFP4_BLOCK * NVFP4_BLOCK;
				ffn = (ffn + NVFP4_BLOCK - 1) / NVFP4_BLOCK * NVFP4_BLOCK;
			}
			width = !own && width > op[0].width ? op[0].width : width;
			ffn = !own && ffn > op[0].ffn ? op[0].ffn : ffn;
			for (int e = 0; e < n_experts; e++) {
				if (own && e == 0) {
					case_matrix(&up[l][e], dtype, ffn, width);
					case_matrix(&down[l][e], dtype, width, ffn);
				} else if (own) {
					case_sibling(&up[l][e], &up[l][0], e % 3 ? dtype : other);
					case_sibling(&down[l][e], &down[l][0], e % 3 ? other : dtype);
				} else if (e == 0) {
					case_view(&up[l][e], &up[0][0], ffn, width);
					case_view(&down[l][e], &down[0][0], width, ffn);
				} else {
					const struct matrix *u = &up[0][2 * e], *d = &down[0][2 * e];
					up[l][e] = up[l][0];
					up[l][e].dtype = u->dtype;
					up[l][e].data = u->data;
					up[l][e].scales = u->scales;
					up[l][e].scale = u->scale;
					down[l][e] = down[l][0];
					down[l][e].dtype = d->dtype;
					down[l][e].data = d->data;
					down[l][e].scales = d->scales;
					down[l][e].scale = d->scale;
				}
			}
			int top_k = case_int(1, 3);
			size_t n_y = (size_t)n * (size_t)width, n_ids = (size_t)n * (size_t)top_k;
			int32_t *ids = case_new_bytes(n_ids * sizeof *ids);
			for (int t = 0; t < n; t++)
				for (int k = 0, e = 0; k < top_k; k++, e++) {
					e = case_int(e, n_experts - top_k + k);
					ids[t * top_k + k] = e;
				}
			op[l] = (struct experts_op){.up = up[l],
										.down = down[l],
										.ids = ids,
										.n = n,
										.n_experts = n_experts,
										.top_k = top_k,
										.width = width,
										.ffn = ffn};
			op[l].placed_up = case_placed(up[l], n_experts);
			op[l].placed_down = case_placed(down[l], n_experts);
			op[l].x = case_new(n_y);
			op[l].weights = case_new(n_ids);
			op[l].hidden = case_new(n_ids * (size_t)ffn);
			op[l].y = case_new(n_y);
			op[l].norms = (round + l) % 3 ? case_new(n_ids) : NULL;
			norms[l] = case_new(n_ids);
			before[l] = case_new(n_y);
			first[l] = case_new(n_y);
			memcpy(before[l], op[l].y, n_y * sizeof(float));
		}
		for (int way = 0; way < 2 * N_WAYS; way++) {
			for (int l = 0; l < n_lanes; l++)
				memcpy(op[l].y, before[l], sizeof(float) * (size_t)n * (size_t)op[l].width);
			call_experts(case_device(1 + way % 2), n_lanes, op, way / 2);
			for (int l = 0; l < n_lanes; l++) {
				size_t n_y = (size_t)n * (size_t)op[l].width;
				size_t n_norms = op[l].norms ? (size_t)n * (size_t)op[l].top_k : 0;
				if (way == 0) {
					check_experts(&op[l], before[l]);
					check_norms(&op[l]);
					memcpy(first[l], op[l].y, n_y * sizeof(float));
					memcpy(norms[l], op[l].norms ? op[l].norms : norms[l], n_norms * sizeof(float));
				}
				case_same(first[l], op[l].y, n_y, "experts, another way");
				case_same(norms[l], op[l].norms, n_norms, "norms, another way");
			}
		}
		case_done();
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(linear_is_right),
		cmocka_unit_test(embedding_gathers_rows),
		cmocka_unit_test(norm_is_right),
		cmocka_unit_test(router_chooses_the_largest),
		cmocka_unit_test(router_takes_given_experts),
		cmocka_unit_test(experts_are_right),
	};
	const struct CMUnitTest fast[] = {
		cmocka_unit_test(linear_is_right),
		cmocka_unit_test(experts_are_right),
		cmocka_unit_test(precise_products_stay_exact),
	};
	int failed = cmocka_run_group_tests(tests, case_open, case_close);
	return failed + cmocka_run_group_tests(fast, case_open_fast, case_close);
}
