/*
 * The prompts that Tab offers on an empty line: showcase.json beside the model, categories -> lists
 * of {prompt, answer, ...}. A model without one has none.
 */
#ifndef TUI_SHOWCASE_H
#define TUI_SHOWCASE_H

#include "base/error.h"

struct showcase_prompt {
	char *prompt, *note; // note: the category in words, and the right answer
};

struct showcase {
	struct showcase_prompt *prompts;
	int n_prompts;
};

/* NULL and err when the file is there and wrong; an empty one when it is not there. */
struct showcase *showcase_open(const char *directory, struct error *err);
void showcase_close(struct showcase *showcase); // takes NULL

#endif
