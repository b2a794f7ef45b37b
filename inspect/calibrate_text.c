/* The texts of a calibration: from files, checked, as ids. */
#include "base/file.h"
#include "base/memory.h"
#include "base/utf8.h"
#include "core/tokenizer.h"
#include "inspect/calibrate.h"
#include <stdlib.h>
#include <string.h>

#define MAX_TEXT_BYTES ((size_t)1 << 30)

int calibrate_add_ids(struct calibrate_texts *texts, const char *name, int32_t *ids, size_t n,
					  struct error *err)
{
	char *copy = NULL;
	if (n < 1 || n > INT32_MAX)
		fail(err, "%s: %zu tokens, expected 1 to %d", name, n, INT32_MAX);
	else if (mem_grow(&texts->items, &texts->capacity, texts->n + 1, sizeof *texts->items, err) ==
			 0)
		copy = mem_string(name, strlen(name), err);
	if (!copy) {
		free(ids);
		return -1;
	}
	texts->items[texts->n++] = (struct calibrate_text){copy, ids, (int)n};
	return 0;
}

static int check_text(const struct text *text, struct error *err)
{
	size_t at = 0;
	const char *nul = text->length ? memchr(text->data, '\0', text->length) : NULL;
	if (text->length == 0)
		return fail(err, "is empty, expected a text");
	if (nul)
		return fail(err, "is binary: a NUL at byte %zu, expected a text",
					(size_t)(nul - text->data));
	if (!utf8_valid(text->data, text->length, &at))
		return fail(err, "is no text: byte %zu (0x%02x) is not UTF-8", at,
					(unsigned char)text->data[at]);
	return 0;
}

static int encode(const struct model *model, const struct text *text, bool special,
				  struct id_list *ids, struct error *err)
{
	if (special && model->tokenizer)
		return tokenizer_encode_text(model->tokenizer, text->data, text->length, TRUST_ALL, ids,
									 err);
	return model_encode(model, text->data, text->length, ids, err);
}

int calibrate_add_file(struct calibrate_texts *texts, const char *path, bool special,
					   const struct model *model, struct error *err)
{
	struct text text = {0};
	struct id_list list = {0};
	const char *slash = strrchr(path, '/');
	int status = file_read(path, MAX_TEXT_BYTES, &text, err);
	if (status == 0) {
		status = check_text(&text, err);
		if (status == 0)
			status = encode(model, &text, special, &list, err);
		if (status < 0)
			fail_in(err, "%s", path);
	}
	text_free(&text);
	if (status < 0) {
		free(list.ids);
		return -1;
	}
	return calibrate_add_ids(texts, slash ? slash + 1 : path, list.ids, list.n, err);
}

void calibrate_texts_free(struct calibrate_texts *texts)
{
	for (size_t i = 0; i < texts->n; i++) {
		free(texts->items[i].name);
		free(texts->items[i].ids);
	}
	free(texts->items);
	*texts = (struct calibrate_texts){0};
}
