#include "core/prompt.h"
#include "base/memory.h"
#include <stdlib.h>
#include <string.h>

void prompt_append(struct prompt *prompt, const char *bytes, size_t length, enum trust trust)
{
	if (length == 0)
		return;
	size_t start = prompt->text.length;
	text_append(&prompt->text, bytes, length);
	if (prompt->text.failed)
		return;
	if (prompt->n_ranges && prompt->ranges[prompt->n_ranges - 1].trust == trust) {
		prompt->ranges[prompt->n_ranges - 1].end = prompt->text.length;
		return;
	}
	if (mem_grow(&prompt->ranges, &prompt->capacity, prompt->n_ranges + 1, sizeof *prompt->ranges,
				 NULL)) {
		prompt->text.failed = true;
		return;
	}
	prompt->ranges[prompt->n_ranges++] = (struct text_range){start, prompt->text.length, trust};
}

void prompt_add(struct prompt *prompt, const char *string, enum trust trust)
{
	prompt_append(prompt, string, strlen(string), trust);
}

int prompt_check(const struct prompt *prompt, struct error *err)
{
	return text_check(&prompt->text, err);
}

void prompt_free(struct prompt *prompt)
{
	text_free(&prompt->text);
	free(prompt->ranges);
	*prompt = (struct prompt){0};
}
