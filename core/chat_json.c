/*
 * A chat from JSON in OpenAI form. Strings are unescaped into one block as long as the source,
 * which is enough because no escape is shorter than what it stands for.
 */
#include "base/memory.h"
#include "core/chat.h"
#include <stdlib.h>
#include <string.h>

struct reader {
	const struct json *json;
	struct chat_message *messages; // (n_messages)
	char *block;
	size_t block_used;
	struct text scratch;
};

static int add_string(struct reader *reader, const struct json_node *node,
					  struct chat_string *string, struct error *err)
{
	text_clear(&reader->scratch);
	json_string(reader->json, node, &reader->scratch);
	if (text_check(&reader->scratch, err))
		return -1;
	if (!string->bytes)
		string->bytes = reader->block + reader->block_used;
	memcpy(reader->block + reader->block_used, text_chars(&reader->scratch),
		   reader->scratch.length);
	reader->block_used += reader->scratch.length;
	string->length += reader->scratch.length;
	return 0;
}

/* [{"type": "text", "text": "..."}, ...], joined */
static int add_parts(struct reader *reader, const struct json_node *parts,
					 struct chat_string *string, struct error *err)
{
	int i = 0;
	const struct json_node *at = json_first(reader->json, parts);
	for (; at; at = json_next(reader->json, parts, at), i++) {
		const struct json_node *type = json_member(reader->json, at, "type");
		const struct json_node *text = json_member(reader->json, at, "text");
		if (!json_is(type, JSON_STRING) || !json_equals(reader->json, type, "text") ||
			!json_is(text, JSON_STRING))
			return fail(
				err, "part %d of the content is not of type \"text\", the only one supported", i);
		if (add_string(reader, text, string, err))
			return -1;
	}
	return 0;
}

static int read_message(struct reader *reader, const struct json_node *node,
						struct chat_message *message, struct error *err)
{
	const struct json *json = reader->json;
	const struct json_node *role = json_member(json, node, "role");
	const struct json_node *content = json_member(json, node, "content");
	const struct json_node *reasoning = json_member(json, node, "reasoning_content");
	const struct json_node *calls = json_member(json, node, "tool_calls");
	if (!json_is(node, JSON_OBJECT))
		return fail(err, "not an object");
	if (!json_is(role, JSON_STRING))
		return fail(err, "\"role\" is missing, expected system, user, assistant or tool");
	int found = chat_role_find(json->source + role->start, role->end - role->start);
	if (found < 0)
		return fail(err, "the role is \"%.*s\", expected system, user, assistant or tool",
					(int)(role->end - role->start < 40 ? role->end - role->start : 40),
					json->source + role->start);
	message->role = (enum chat_role)found;
	if (found == CHAT_ASSISTANT) {
		if (json_is(calls, JSON_ARRAY))
			message->tool_calls = calls;
		else if (calls && !json_is(calls, JSON_NULL))
			return fail(err, "\"tool_calls\" is not a list");
		if (json_is(reasoning, JSON_STRING) &&
			add_string(reader, reasoning, &message->reasoning, err))
			return -1;
	}
	if (json_is(content, JSON_STRING))
		return add_string(reader, content, &message->text, err);
	if (json_is(content, JSON_ARRAY))
		return add_parts(reader, content, &message->text, err);
	if (content && !json_is(content, JSON_NULL))
		return fail(err, "\"content\" is neither a string nor a list of parts");
	if (found == CHAT_ASSISTANT)
		return 0; // nothing but thoughts or calls
	return fail(err, "the %s has no \"content\"", chat_role_name(message->role));
}

static int read_switch(const struct json *json, const struct json_node *object, const char *key,
					   bool *value, struct error *err)
{
	const struct json_node *node = json_member(json, object, key);
	if (node && !json_is(node, JSON_NULL)) {
		if (!json_is(node, JSON_TRUE) && !json_is(node, JSON_FALSE))
			return fail(err, "\"%s\" is neither true nor false", key);
		*value = json_is(node, JSON_TRUE);
	}
	return 0;
}

static int read_and_render(struct reader *reader, const struct json_node *object,
						   struct prompt *out, struct error *err)
{
	const struct json *json = reader->json;
	const struct json_node *messages = json_member(json, object, "messages");
	const struct json_node *tools = json_member(json, object, "tools");
	struct chat chat = {.json = json,
						.enable_thinking = true,
						.truncate_history = true,
						.add_generation_prompt = true};
	if (!json_is(messages, JSON_ARRAY) || messages->n_children == 0)
		return fail(err, "\"messages\" is missing, or no list with at least one message");
	if (json_is(tools, JSON_ARRAY))
		chat.tools = tools;
	else if (tools && !json_is(tools, JSON_NULL))
		return fail(err, "\"tools\" is not a list");
	if (read_switch(json, object, "enable_thinking", &chat.enable_thinking, err) ||
		read_switch(json, object, "truncate_history_thinking", &chat.truncate_history, err) ||
		read_switch(json, object, "add_generation_prompt", &chat.add_generation_prompt, err))
		return -1;
	reader->messages = mem_new(messages->n_children, sizeof *reader->messages, err);
	reader->block = mem_new(object->end - object->start, 1, err);
	if (!reader->messages || !reader->block)
		return -1;
	const struct json_node *at = json_first(json, messages);
	for (; at; at = json_next(json, messages, at), chat.n_messages++)
		if (read_message(reader, at, &reader->messages[chat.n_messages], err))
			return fail_in(err, "message %zu", chat.n_messages);
	chat.messages = reader->messages;
	return chat_render(&chat, out, err);
}

int chat_render_node(const struct json *json, const struct json_node *object, struct prompt *out,
					 struct error *err)
{
	struct reader reader = {.json = json};
	if (!json_is(object, JSON_OBJECT))
		return fail(err, "not an object with \"messages\"");
	int result = read_and_render(&reader, object, out, err);
	free(reader.messages);
	free(reader.block);
	text_free(&reader.scratch);
	return result;
}

int chat_render_json(const char *json, size_t length, struct prompt *out, struct error *err)
{
	struct json parsed = {0};
	int result = json_parse(&parsed, json, length, err);
	if (result == 0)
		result = chat_render_node(&parsed, parsed.nodes, out, err);
	json_free(&parsed);
	return result;
}
