/*
 * The chat format of Nemotron 3 (specification, section 8): messages and tools in, one prompt out,
 * byte for byte what the released chat_template.jinja renders. The template's text is trusted,
 * contents are not; in an assistant's text <think> and </think> are recognised (core/prompt.h).
 */
#ifndef CORE_CHAT_H
#define CORE_CHAT_H

#include "base/error.h"
#include "base/json.h"
#include "core/prompt.h"
#include <stdbool.h>
#include <stddef.h>

enum chat_role { CHAT_SYSTEM, CHAT_USER, CHAT_ASSISTANT, CHAT_TOOL };

const char *chat_role_name(enum chat_role role);     // "system", "user" ...
int chat_role_find(const char *name, size_t length); // enum chat_role, or -1

struct chat_string { // borrowed, may hold NUL
	const char *bytes;
	size_t length;
};

struct chat_message {
	enum chat_role role;
	struct chat_string text;
	struct chat_string reasoning;       // of an assistant; blank = none
	const struct json_node *tool_calls; // of an assistant: an array in OpenAI form, or NULL
};

/* All of it is borrowed. */
struct chat {
	const struct chat_message *messages;
	size_t n_messages;
	const struct json *json;       // where tools and tool_calls live; NULL without them
	const struct json_node *tools; // an array, or NULL; empty = none
	bool enable_thinking;          // concerns the generation prompt only
	bool truncate_history;         // drop the reasoning of turns before the last user message
	bool add_generation_prompt;
};

/* Appends the prompt. Errors name the message or tool by its index (from 0). */
int chat_render(const struct chat *chat, struct prompt *out, struct error *err);

/* The same from JSON: an object {messages, tools, enable_thinking (true), truncate_history_thinking
 * (true), add_generation_prompt (true)}, messages in OpenAI form: content is a string, null beside
 * tool calls or reasoning, or a list of text parts; arguments are an object or its JSON in a
 * string. */
int chat_render_json(const char *json, size_t length, struct prompt *out, struct error *err);

/* The same from a parsed object. */
int chat_render_node(const struct json *json, const struct json_node *object, struct prompt *out,
					 struct error *err);

/* Whether chat_render speaks the language of a checkpoint's chat_template.jinja: NULL, or one
 * sentence for the status line (free()). Line ends do not matter. */
char *chat_template_notice(const char *template_text, size_t length);

#endif
