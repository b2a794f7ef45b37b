/* A checkpoint of the real shapes (30B with its 23B and 12B budgets) with random weights, for
 * measuring speed where no real one is at hand: synthetic DIR bf16|fp8|nvfp4 [DIVISOR]. The divisor
 * makes a small one of the same layout, to try the program itself. */
#include "base/hash.h"
#include "base/pool.h"
#include "base/text.h"
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define PATTERN "MEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEMEM*EMEMEMEME"

/* What fills a tensor, 8 bytes at a time: (random & mask) | base. */
struct fill {
	uint64_t mask, base;
};
static const struct fill bf16 = {0x81ff81ff81ff81ff, 0x3a003a003a003a00}; // 2^-11 to 2^-7
static const struct fill ones = {0, 0x3f803f803f803f80};                  // BF16
static const struct fill f32 = {0x807fffff807fffff, 0x3c0000003c000000};  // 2^-7 to 2^-6
static const struct fill e4m3 = {0xbfbfbfbfbfbfbfbf, 0};                  // below 2, no NaN
static const struct fill e2m1 = {0xffffffffffffffff, 0};
static const struct fill scales = {0x0707070707070707, 0x3838383838383838}; // E4M3, 1 to 2
static const struct fill zeros = {0, 0};

struct part {
	uint64_t at, bytes;
	struct fill fill;
	float scalar; // of 4 bytes: this instead
};

struct maker {
	const char *precision;
	struct text header;
	struct part *parts;
	size_t n_parts;
	uint64_t bytes;
	unsigned char *data; // behind the header
	int h, inner, conv, in_proj, f, fs, experts, vocab, q, kv, heads;
};

static void add(struct maker *m, const char *name, const char *dtype, const char *shape,
				uint64_t bytes, struct fill fill, float scalar)
{
	m->parts = realloc(m->parts, (m->n_parts + 1) * sizeof *m->parts);
	if (!m->parts)
		exit(1);
	m->parts[m->n_parts++] = (struct part){m->bytes, bytes, fill, scalar};
	text_format(&m->header,
				"%s\"%s\":{\"dtype\":\"%s\",\"shape\":[%s],\"data_offsets\":[%llu,%llu]}",
				m->n_parts > 1 ? "," : "", name, dtype, shape, (unsigned long long)m->bytes,
				(unsigned long long)(m->bytes + bytes));
	m->bytes += bytes;
}

static void vector(struct maker *m, const char *prefix, const char *name, int n, struct fill fill,
				   bool wide)
{
	char full[160], shape[32];
	snprintf(full, sizeof full, "%s%s", prefix, name);
	snprintf(shape, sizeof shape, "%d", n);
	add(m, full, wide ? "F32" : "BF16", shape, (uint64_t)n * (wide ? 4 : 2), fill, 0);
}

/* quantised: in the precision asked for, else BF16. */
static void matrix(struct maker *m, const char *prefix, const char *name, int rows, int columns,
				   bool quantised)
{
	char full[160], shape[64];
	uint64_t n = (uint64_t)rows * (uint64_t)columns;
	bool fp8 = quantised && !strcmp(m->precision, "fp8");
	bool fp4 = quantised && !strcmp(m->precision, "nvfp4");
	snprintf(full, sizeof full, "%s%s.weight", prefix, name);
	snprintf(shape, sizeof shape, "%d,%d", rows, fp4 ? columns / 2 : columns);
	add(m, full,
		fp4   ? "U8"
		: fp8 ? "F8_E4M3"
			  : "BF16",
		shape,
		fp4   ? n / 2
		: fp8 ? n
			  : 2 * n,
		fp4   ? e2m1
		: fp8 ? e4m3
			  : bf16,
		0);
	snprintf(full, sizeof full, "%s%s.weight_scale", prefix, name);
	if (fp8)
		add(m, full, "F32", "", 4, zeros, 0.008f);
	if (!fp4)
		return;
	snprintf(shape, sizeof shape, "%d,%d", rows, columns / 16);
	add(m, full, "F8_E4M3", shape, n / 16, scales, 0);
	snprintf(full, sizeof full, "%s%s.weight_scale_2", prefix, name);
	add(m, full, "F32", "", 4, zeros, 0.002f);
}

static void layer(struct maker *m, int i, char kind)
{
	char p[64], name[160], shape[48];
	snprintf(p, sizeof p, "backbone.layers.%d.", i);
	vector(m, p, "norm.weight", m->h, ones, false);
	snprintf(p, sizeof p, "backbone.layers.%d.mixer.", i);
	if (kind == 'M') {
		matrix(m, p, "in_proj", m->in_proj, m->h, true);
		snprintf(name, sizeof name, "%sconv1d.weight", p);
		snprintf(shape, sizeof shape, "%d,1,4", m->conv);
		add(m, name, "BF16", shape, (uint64_t)m->conv * 8, bf16, 0);
		vector(m, p, "conv1d.bias", m->conv, bf16, false);
		vector(m, p, "A_log", m->heads, bf16, false);
		vector(m, p, "D", m->heads, bf16, false);
		vector(m, p, "dt_bias", m->heads, bf16, false);
		vector(m, p, "norm.weight", m->inner, ones, false);
		matrix(m, p, "out_proj", m->h, m->inner, true);
	} else if (kind == '*') {
		matrix(m, p, "q_proj", m->q, m->h, false);
		matrix(m, p, "k_proj", m->kv, m->h, false);
		matrix(m, p, "v_proj", m->kv, m->h, false);
		matrix(m, p, "o_proj", m->h, m->q, false);
	} else {
		snprintf(name, sizeof name, "%sgate.weight", p);
		snprintf(shape, sizeof shape, "%d,%d", m->experts, m->h);
		add(m, name, "F32", shape, (uint64_t)m->experts * (uint64_t)m->h * 4, f32, 0);
		vector(m, p, "gate.e_score_correction_bias", m->experts, zeros, true);
		for (int e = 0; e < m->experts; e++) {
			snprintf(name, sizeof name, "experts.%d.up_proj", e);
			matrix(m, p, name, m->f, m->h, true);
			snprintf(name, sizeof name, "experts.%d.down_proj", e);
			matrix(m, p, name, m->h, m->f, true);
		}
		matrix(m, p, "shared_experts.up_proj", m->fs, m->h, true);
		matrix(m, p, "shared_experts.down_proj", m->h, m->fs, true);
	}
}

static void fill_task(void *argument, int part, int n_parts)
{
	struct maker *m = argument;
	for (size_t i = (size_t)part; i < m->n_parts; i += (size_t)n_parts) {
		const struct part *p = &m->parts[i];
		unsigned char *to = m->data + p->at;
		uint64_t counter = p->at * 0x9e3779b97f4a7c15u;
		if (p->bytes == 4) {
			memcpy(to, &p->scalar, 4);
			continue;
		}
		for (uint64_t at = 0; at < p->bytes; at += 8) {
			uint64_t word = (hash_mix(counter++) & p->fill.mask) | p->fill.base;
			memcpy(to + at, &word, p->bytes - at < 8 ? (size_t)(p->bytes - at) : 8);
		}
	}
}

static int write_weights(struct maker *m, const char *directory)
{
	char path[4096];
	struct error err = {0};
	snprintf(path, sizeof path, "%s/model.safetensors", directory);
	text_add_char(&m->header, '}');
	while (m->header.length % 8)
		text_add_char(&m->header, ' ');
	uint64_t length = m->header.length, total = 8 + length + m->bytes;
	int file = open(path, O_RDWR | O_CREAT | O_TRUNC, 0644);
	if (file < 0 || ftruncate(file, (off_t)total))
		return fprintf(stderr, "%s: %s\n", path, strerror(errno)), -1;
	unsigned char *data = mmap(NULL, total, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	struct pool *pool = pool_open(pool_cpus(), &err);
	if (data == MAP_FAILED || !pool)
		return fprintf(stderr, "%s: %s %s\n", path, strerror(errno), err.text), -1;
	memcpy(data, &length, 8);
	memcpy(data + 8, m->header.data, length);
	m->data = data + 8 + length;
	pool_run(pool, fill_task, m);
	pool_close(pool);
	munmap(data, total);
	return close(file);
}

static int write_file(const char *directory, const char *name, const struct text *text)
{
	char path[4096];
	snprintf(path, sizeof path, "%s/%s", directory, name);
	FILE *file = fopen(path, "w");
	if (!file || fwrite(text->data, 1, text->length, file) != text->length || fclose(file))
		return fprintf(stderr, "%s: %s\n", path, strerror(errno)), -1;
	return 0;
}

static int write_texts(const struct maker *m, const char *directory, int divisor)
{
	struct text config = {0}, elastic = {0};
	int n_heads = m->heads, state = 128;
	text_format(
		&config,
		"{\"architectures\":[\"NemotronHForCausalLM\"],\"model_type\":\"nemotron_h\","
		"\"hybrid_override_pattern\":\"%s\",\"num_hidden_layers\":%d,\"hidden_size\":%d,"
		"\"vocab_size\":%d,\"mamba_num_heads\":%d,\"mamba_head_dim\":64,\"ssm_state_size\":%d,"
		"\"n_groups\":8,\"conv_kernel\":4,\"num_attention_heads\":%d,"
		"\"num_key_value_heads\":2,\"head_dim\":128,\"n_routed_experts\":%d,"
		"\"n_shared_experts\":1,\"num_experts_per_tok\":6,\"moe_intermediate_size\":%d,"
		"\"moe_shared_expert_intermediate_size\":%d,\"intermediate_size\":%d,"
		"\"norm_topk_prob\":true,\"routed_scaling_factor\":2.5,\"norm_eps\":1e-05,"
		"\"layer_norm_epsilon\":1e-05,\"tie_word_embeddings\":false,\"use_bias\":false,"
		"\"use_conv_bias\":true,\"mlp_hidden_act\":\"relu2\",\"mamba_hidden_act\":\"silu\","
		"\"max_position_embeddings\":262144,\"bos_token_id\":1,\"eos_token_id\":2,"
		"\"pad_token_id\":0,\"n_group\":1,\"topk_group\":1}\n",
		PATTERN, (int)strlen(PATTERN), m->h, m->vocab, n_heads, state, m->q / 128, m->experts, m->f,
		m->fs, m->f);
	text_format(&elastic,
				"{\"format\":\"elastic-1\",\"budgets\":[{\"name\":\"30b\",\"hidden_size\":%d,"
				"\"moe_intermediate_size\":%d},{\"name\":\"23b\",\"hidden_size\":%d,"
				"\"moe_intermediate_size\":%d},{\"name\":\"12b\",\"hidden_size\":%d,"
				"\"moe_intermediate_size\":%d}]}\n",
				m->h, m->f, 2304 / divisor / 16 * 16, 1600 / divisor / 16 * 16,
				1920 / divisor / 16 * 16, 960 / divisor / 16 * 16);
	int failed = write_file(directory, "config.json", &config) ||
				 write_file(directory, "elastic.json", &elastic);
	text_free(&config);
	text_free(&elastic);
	return failed ? -1 : 0;
}

int main(int argc, char **argv)
{
	int divisor = argc > 3 ? atoi(argv[3]) : 1;
	if (argc < 3 || divisor < 1 || divisor > 32) {
		fprintf(stderr, "usage: synthetic DIR bf16|fp8|nvfp4 [DIVISOR]\n");
		return 2;
	}
	struct maker m = {.precision = argv[2],
					  .h = 2688 / divisor / 16 * 16,
					  .heads = 64,
					  .f = 1856 / divisor / 16 * 16,
					  .fs = 3712 / divisor / 16 * 16,
					  .experts = divisor == 1 ? 128 : 16,
					  .vocab = 131072 / divisor,
					  .kv = 256};
	m.heads = divisor == 1 ? 64 : 8;
	m.inner = 64 * m.heads;
	m.conv = m.inner + 2 * 8 * 128;
	m.in_proj = m.inner + m.conv + m.heads;
	m.q = divisor == 1 ? 4096 : 512;
	mkdir(argv[1], 0755);
	text_add_char(&m.header, '{');
	matrix(&m, "backbone.", "embeddings", m.vocab, m.h, false);
	for (int i = 0; PATTERN[i]; i++)
		layer(&m, i, PATTERN[i]);
	vector(&m, "backbone.", "norm_f.weight", m.h, ones, false);
	matrix(&m, "", "lm_head", m.vocab, m.h, false);
	int failed = write_texts(&m, argv[1], divisor) || write_weights(&m, argv[1]);
	printf("%zu tensors, %.3f GB\n", m.n_parts, (double)m.bytes / 1e9);
	free(m.parts);
	text_free(&m.header);
	return failed;
}
