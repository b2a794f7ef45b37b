#include "core/lens.h"
#include "base/memory.h"
#include <stdlib.h>
#include <string.h>

int lens_open(struct lens *lens, const struct backend *backend, struct device *device, int max_rows,
			  int max_width, int vocab, struct error *err)
{
	size_t x = (size_t)max_rows * (size_t)max_width, y = (size_t)max_rows * (size_t)vocab;

	*lens = (struct lens){.backend = backend,
						  .device = device,
						  .max_rows = max_rows,
						  .max_width = max_width,
						  .vocab = vocab};
	lens->x = backend->alloc(device, x * sizeof(float), err);
	lens->y = backend->alloc(device, y * sizeof(float), err);
	lens->rows = mem_new(x, sizeof(float), err);
	lens->logits = mem_new(y, sizeof(float), err);
	return lens->x && lens->y && lens->rows && lens->logits ? 0 : -1;
}

void lens_close(struct lens *lens)
{
	if (lens->backend) {
		lens->backend->release(lens->device, lens->x);
		lens->backend->release(lens->device, lens->y);
	}
	free(lens->rows);
	free(lens->logits);
	*lens = (struct lens){0};
}

int lens_look(struct lens *lens, const struct slice *slice, const float *residual, size_t stride,
			  int n, struct error *err)
{
	const struct backend *b = lens->backend;
	size_t width = (size_t)slice->hidden, rows = (size_t)n;
	struct norm_op norm = {.x = lens->x,
						   .weight = slice->norm_f,
						   .y = lens->x,
						   .n = n,
						   .width = slice->hidden,
						   .count = slice->norm_f_count,
						   .eps = slice->config->norm_eps,
						   .scale = slice->norm_f_scale};
	struct linear_op head = {.w = &slice->lm_head, .x = lens->x, .y = lens->y, .n = n};

	for (size_t i = 0; i < rows; i++)
		memcpy(lens->rows + i * width, residual + i * stride, width * sizeof *residual);
	b->upload(lens->device, lens->x, lens->rows, rows * width * sizeof *residual);
	b->begin(lens->device, 0);
	b->norm(lens->device, 1, &norm);   // u = RMSNorm(h; norm_f)
	b->linear(lens->device, 1, &head); // logits = lm_head u
	if (b->finish(lens->device, err))
		return -1;
	b->download(lens->device, lens->logits, lens->y, rows * (size_t)lens->vocab * sizeof(float));
	return 0;
}
