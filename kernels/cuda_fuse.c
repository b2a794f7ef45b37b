/*
 * What of a list belongs together. Every pattern looks at the operations from one on: whether they
 * are of its kinds, read what the one before wrote, and may be put in its order, which pointers
 * decide, lane by lane. Then it starts them. All of them are of few tokens (decode), and give the
 * bits that the operations give one by one.
 */
#include "kernels/cuda_pass.h"
#include "kernels/cuda_prefill.h"
#include "kernels/cuda_products.h"

/* The operations from here on. */
struct view {
	const struct cuda_list *list;
	size_t from;
	int n_lanes;
};

/* The i-th of them, if it is of this kind and has as many lanes as the first; else NULL. */
static const void *take(const struct view *v, size_t i, enum cuda_kind kind)
{
	size_t at = v->from + i;
	if (at >= v->list->n || v->list->notes[at].kind != kind ||
		v->list->notes[at].n_lanes != v->n_lanes)
		return NULL;
	return cuda_list_ops(v->list, &v->list->notes[at]);
}

/* ---- what may be exchanged ---- */

/* Values of an operation in device memory. */
struct range {
	const void *at;
	size_t bytes;
};

static struct range floats(const float *at, int64_t rows, int64_t width)
{
	return (struct range){at, at ? (size_t)(rows * width) * sizeof *at : 0};
}

static bool meet(struct range a, struct range b)
{
	uintptr_t p = (uintptr_t)a.at, q = (uintptr_t)b.at;
	return p < q + b.bytes && q < p + a.bytes;
}

static bool meets_any(struct range a, const struct range *list, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (meet(a, list[i]))
			return true;
	return false;
}

static struct range written(const struct linear_op *o)
{
	return floats(o->y, o->n, o->w->n_rows);
}

/* All that routing and experts read and write. */
static bool meets_experts(struct range a, const struct route_op *r, const struct experts_op *e)
{
	const struct range all[] = {
		floats(r->logits, r->n, r->n_experts),
		floats(r->bias, 1, r->n_experts),
		floats((const float *)(const void *)r->given, r->n, r->top_k),
		floats((const float *)(const void *)r->ids, r->n, r->top_k),
		floats(r->weights, r->n, r->top_k),
		floats(e->x, e->n, e->width),
		floats(e->hidden, (int64_t)e->n * e->top_k, e->ffn),
		floats(e->y, e->n, e->width),
		floats(e->norms, e->n, e->top_k),
	};
	return meets_any(a, all, sizeof all / sizeof *all);
}

/* ---- who reads whom ---- */

static bool few(int n)
{
	return n > 0 && n < CUDA_PREFILL_TOKENS;
}

static bool plain(const struct matrix *w)
{
	return w->n_rows > 0 && w->n_columns > 0 && cuda_products_stage(w->n_columns) &&
		   (w->dtype == DTYPE_F32 || w->dtype == DTYPE_BF16 || w->dtype == DTYPE_F16 ||
			w->dtype == DTYPE_F8_E4M3 || w->dtype == DTYPE_NVFP4);
}

/* A product of what the norm wrote, over nothing that the norm or its other readers read. */
static bool reads_norm(const struct norm_op *norm, const struct linear_op *o)
{
	const struct range read[] = {floats(norm->x, norm->n, norm->width),
								 floats(norm->y, norm->n, norm->width)};
	return few(o->n) && plain(o->w) && o->x == norm->y && o->n == norm->n &&
		   o->w->n_columns == norm->width && !meet(read[0], read[1]) &&
		   !meets_any(written(o), read, 2);
}

static bool all_read_norm(int n_lanes, const struct norm_op *norm, const struct linear_op *o)
{
	for (int l = 0; l < n_lanes; l++)
		if (!reads_norm(&norm[l], &o[l]))
			return false;
	return true;
}

static bool all_differ(int n_lanes, const struct linear_op *a, const struct linear_op *b)
{
	for (int l = 0; l < n_lanes; l++)
		if (meet(written(&a[l]), written(&b[l])))
			return false;
	return true;
}

static bool reads_choice(const struct route_op *r, const struct experts_op *e)
{
	return few(e->n) && e->ids == r->ids && e->weights == r->weights && e->n == r->n &&
		   e->n_experts == r->n_experts && e->top_k == r->top_k && r->top_k > 0 &&
		   r->top_k <= r->n_experts && r->n_experts <= CUDA_MAX_EXPERTS && e->ffn > 0 &&
		   cuda_products_stage(e->width) && cuda_experts_stage(e->ffn);
}

static bool all_read_choice(int n_lanes, const struct route_op *r, const struct experts_op *e)
{
	for (int l = 0; l < n_lanes; l++)
		if (!reads_choice(&r[l], &e[l]))
			return false;
	return true;
}

/* The shared expert of a lane: its first product can come before routing, its second one stand
 * behind the experts' own. */
static bool shares(const struct linear_op *gate, const struct route_op *r,
				   const struct experts_op *e, const struct linear_op *up,
				   const struct linear_op *down)
{
	const struct range x = floats(e->x, e->n, e->width);
	return r->logits == gate->y && e->x == gate->x && !meets_experts(written(up), r, e) &&
		   !meet(x, floats(e->hidden, (int64_t)e->n * e->top_k, e->ffn)) &&
		   !meet(x, floats(e->y, e->n, e->width)) && !meet(x, floats(e->norms, e->n, e->top_k)) &&
		   down->x == up->y && down->y == e->y && down->n == e->n && down->mode == LINEAR_ADD &&
		   plain(down->w) && cuda_experts_stage(down->w->n_columns) &&
		   down->w->n_rows == e->width && down->w->n_columns == up->w->n_rows;
}

/* ---- the patterns: how many operations they took, 0 = it is none of theirs ---- */

static size_t start_mixture(struct device *device, const struct view *v)
{
	const struct norm_op *norm = take(v, 0, CUDA_NORM);
	const struct linear_op *gate = take(v, 1, CUDA_LINEAR), *up = take(v, 4, CUDA_LINEAR);
	const struct route_op *route = take(v, 2, CUDA_ROUTE);
	const struct experts_op *experts = take(v, 3, CUDA_EXPERTS);
	const struct linear_op *down = take(v, 5, CUDA_LINEAR);
	if (!norm || !gate || !route || !experts || !up || !down ||
		!all_read_norm(v->n_lanes, norm, gate) || !all_read_norm(v->n_lanes, norm, up) ||
		!all_differ(v->n_lanes, gate, up) || !all_read_choice(v->n_lanes, route, experts))
		return 0;
	for (int l = 0; l < v->n_lanes; l++)
		if (!shares(&gate[l], &route[l], &experts[l], &up[l], &down[l]))
			return 0;
	const struct cuda_products products = {
		.norm = norm, .linear = {gate, up}, .n_linear = 2, .n_lanes = v->n_lanes};
	cuda_start_products(device, &products);
	cuda_experts_up(device, v->n_lanes, route, experts);
	cuda_experts_down(device, v->n_lanes, experts, down);
	return 6;
}

static size_t start_routed(struct device *device, const struct view *v)
{
	const struct route_op *route = take(v, 0, CUDA_ROUTE);
	const struct experts_op *experts = take(v, 1, CUDA_EXPERTS);
	if (!route || !experts || !all_read_choice(v->n_lanes, route, experts))
		return 0;
	cuda_experts_up(device, v->n_lanes, route, experts);
	cuda_experts_down(device, v->n_lanes, experts, NULL);
	return 2;
}

static size_t start_normed(struct device *device, const struct view *v)
{
	const struct norm_op *norm = take(v, 0, CUDA_NORM);
	struct cuda_products products = {.norm = norm, .n_lanes = v->n_lanes};
	for (int i = 0; norm && i < CUDA_MAX_PRODUCTS; i++) {
		const struct linear_op *o = take(v, 1 + (size_t)i, CUDA_LINEAR);
		bool joins = o && all_read_norm(v->n_lanes, norm, o);
		for (int k = 0; k < i && joins; k++)
			joins = all_differ(v->n_lanes, products.linear[k], o);
		if (!joins)
			break;
		products.linear[products.n_linear++] = o;
	}
	if (products.n_linear == 0)
		return 0;
	cuda_start_products(device, &products);
	return 1 + (size_t)products.n_linear;
}

static size_t start_gated(struct device *device, const struct view *v)
{
	const struct gated_norm_op *gated = take(v, 0, CUDA_GATED_NORM);
	const struct linear_op *o = take(v, 1, CUDA_LINEAR);
	if (!gated || !o)
		return 0;
	for (int l = 0; l < v->n_lanes; l++) {
		const struct range read[] = {floats(gated[l].y, gated[l].n, gated[l].width),
									 floats(gated[l].z, gated[l].n, gated[l].z_stride)};
		if (!few(o[l].n) || !plain(o[l].w) || o[l].x != gated[l].y || o[l].n != gated[l].n ||
			o[l].w->n_columns != gated[l].width || meets_any(written(&o[l]), read, 2))
			return 0;
	}
	const struct cuda_products products = {
		.gated = gated, .linear = {o}, .n_linear = 1, .n_lanes = v->n_lanes};
	cuda_start_products(device, &products);
	return 2;
}

static size_t start_mamba(struct device *device, const struct view *v)
{
	const struct conv_op *conv = take(v, 0, CUDA_CONV);
	const struct ssm_op *ssm = take(v, 1, CUDA_SSM);
	return conv && ssm && cuda_conv_ssm(device, v->n_lanes, conv, ssm) ? 2 : 0;
}

size_t cuda_start_fused(struct device *device, const struct cuda_list *list, size_t from)
{
	/* the longer ones first */
	static size_t (*const patterns[])(struct device *, const struct view *) = {
		start_mixture, // norm, gate, shared up; route, up; down, shared down
		start_normed,  // norm, the products that read it
		start_gated,   // gated norm, its product
		start_routed,  // route, up; down
		start_mamba,   // conv, ssm
	};
	const struct view view = {list, from, list->notes[from].n_lanes};
	size_t n = 0;
	for (size_t i = 0; i < sizeof patterns / sizeof *patterns && n == 0; i++)
		n = patterns[i](device, &view);
	return n;
}
