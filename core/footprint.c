#include "core/footprint.h"
#include "core/event.h"
#include "core/forward.h"

/* Lists come in blocks, which are not filled to the last byte. */
#define BLOCK_BYTES ((uint64_t)64 << 10)
#define N_BUDGETS 3     // that a chat uses
#define SPAN_BYTES 4096 // of a layer's spans where heads are cut one by one

static int64_t larger(int64_t a, int64_t b)
{
	return a > b ? a : b;
}

static uint64_t of(const struct config *config, enum layer_kind kind)
{
	return (uint64_t)config_layers_of(config, kind);
}

struct state_size state_size_of(const struct config *c)
{
	struct state_size size = {0};
	uint64_t mamba = of(c, LAYER_MAMBA);
	if (mamba) {
		size.ssm_bytes =
			mamba * (uint64_t)config_inner(c) * (uint64_t)c->ssm_state_size * sizeof(float);
		size.conv_bytes = mamba * (uint64_t)(c->conv_kernel - 1) *
						  (uint64_t)config_conv_channels(c) * sizeof(float);
	}
	size.kv_per_token =
		of(c, LAYER_ATTENTION) * 2 * (uint64_t)c->num_key_value_heads * (uint64_t)c->head_dim;
	return size;
}

/* ---- passes ---- */

static void add_matrix(struct pass_shape *shape, int64_t rows, int64_t columns)
{
	int64_t n = rows * columns;
	shape->columns = larger(shape->columns, columns);
	if (n * 2 <= (int64_t)CARD_UNPACKED_BYTES)
		shape->unpacked = larger(shape->unpacked, n);
}

struct pass_shape pass_shape_of(const struct config *c, int n_lanes, int n_tokens, enum math math)
{
	struct pass_shape shape = {.n_tokens = n_tokens,
							   .n_lanes = n_lanes,
							   .hidden = c->hidden_size,
							   .fast = math == MATH_FAST};
	int64_t hidden = c->hidden_size, inner = config_inner(c),
			q = (int64_t)c->num_attention_heads * c->head_dim;
	add_matrix(&shape, c->vocab_size, hidden);
	if (of(c, LAYER_MAMBA)) {
		add_matrix(&shape, inner + config_conv_channels(c) + c->mamba_num_heads, hidden);
		add_matrix(&shape, hidden, inner);
	}
	if (of(c, LAYER_ATTENTION)) {
		shape.n_heads = c->num_attention_heads;
		shape.head_dim = c->head_dim;
		add_matrix(&shape, q, hidden);
		add_matrix(&shape, hidden, q);
	}
	if (of(c, LAYER_MOE)) {
		shape.n_experts = c->n_routed_experts;
		shape.top_k = c->num_experts_per_tok;
		shape.ffn = c->moe_intermediate_size;
		add_matrix(&shape, c->moe_shared_expert_intermediate_size, hidden);
		add_matrix(&shape, hidden, c->moe_shared_expert_intermediate_size);
	}
	if (of(c, LAYER_MLP)) {
		add_matrix(&shape, c->intermediate_size, hidden);
		add_matrix(&shape, hidden, c->intermediate_size);
	}
	return shape;
}

/* ---- all of it ---- */

/* Of one slice: what core/slice.c widens and packs, spans, and where experts lie. */
static uint64_t vector_bytes(const struct config *c)
{
	uint64_t values = 0, hidden = (uint64_t)c->hidden_size, experts = (uint64_t)c->n_routed_experts;
	values += (uint64_t)(c->n_layers + 1) * hidden;
	values +=
		of(c, LAYER_MAMBA) *
		((uint64_t)config_conv_channels(c) * (uint64_t)(c->conv_kernel + 2) +
		 (uint64_t)config_inner(c) + 4 * (uint64_t)c->mamba_num_heads + 2 * (uint64_t)c->n_groups);
	values += of(c, LAYER_ATTENTION) * 2 * (uint64_t)c->num_attention_heads;
	values += of(c, LAYER_MOE) * experts * (1 + 2 * sizeof(struct placed) / sizeof(float));
	uint64_t bytes = values * sizeof(float) + (uint64_t)c->n_layers * SPAN_BYTES;
	return bytes + bytes / 4 + 2 * BLOCK_BYTES;
}

static uint64_t times(uint64_t a, uint64_t b)
{
	return b && a > UINT64_MAX / 4 / b ? UINT64_MAX / 4 : a * b;
}

void footprint_plan_chat(struct footprint_plan *plan)
{
	plan->n_sequences = 1;
	plan->n_snapshots = MAX_SNAPSHOTS - N_ROLLING;
	plan->n_slices = N_BUDGETS;
	plan->n_lanes = MAX_SEQUENCES;
	plan->n_tokens = plan->n_tokens > MAX_SEQUENCES ? plan->n_tokens : MAX_SEQUENCES;
}

void footprint_of(struct footprint *out, const struct config *config,
				  const struct footprint_plan *plan)
{
	struct pass_shape shape = pass_shape_of(config, plan->n_lanes, plan->n_tokens, plan->math);
	struct state_size state = state_size_of(config);
	uint64_t n = (uint64_t)plan->n_sequences;
	uint64_t row = times(state.kv_per_token, dtype_bytes(plan->kv_dtype));
	*out = (struct footprint){
		.kv = times(n, times(row, (uint64_t)plan->context) +
						   of(config, LAYER_ATTENTION) * sizeof(int32_t)),
		.conv = times(n, state.conv_bytes),
		.ssm = times(n, state.ssm_bytes),
		.snapshots = plan->snapshot_bytes
						 ? plan->snapshot_bytes
						 : times((uint64_t)plan->n_snapshots, state.conv_bytes + state.ssm_bytes),
		.vectors = times((uint64_t)plan->n_slices, vector_bytes(config)),
		.activations = workspace_bytes_of(config, plan->n_lanes, plan->n_tokens, false),
		.scratch = plan->scratch_bytes(&shape),
	};
}

uint64_t footprint_bytes(const struct footprint *f)
{
	const uint64_t all[] = {f->kv,      f->conv,        f->ssm,    f->snapshots,
							f->vectors, f->activations, f->scratch};
	uint64_t sum = 0;
	for (size_t i = 0; i < sizeof all / sizeof *all; i++)
		sum = all[i] > UINT64_MAX - sum ? UINT64_MAX : sum + all[i];
	return sum;
}

static bool have_room(const struct config *config, struct footprint_plan plan, int n,
					  uint64_t bytes)
{
	struct footprint footprint;
	plan.n_sequences = n;
	plan.n_lanes = n < MAX_LANES ? n : MAX_LANES;
	plan.n_tokens = plan.n_tokens > plan.n_lanes ? plan.n_tokens : plan.n_lanes;
	footprint_of(&footprint, config, &plan);
	return footprint_bytes(&footprint) <= bytes;
}

int footprint_sequences(const struct config *config, const struct footprint_plan *plan,
						uint64_t bytes)
{
	int low = 0, high = INT32_MAX; // low have room, more than high do not
	while (low < high) {
		int middle = low + (high - low) / 2 + 1;
		if (have_room(config, *plan, middle, bytes))
			low = middle;
		else
			high = middle - 1;
	}
	return low;
}
