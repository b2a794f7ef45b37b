#include "core/chat.h"
#include "base/hash.h"
#include "base/memory.h"
#include "core/chat_tools.h"
#include "core/python_text.h"
#include <stdlib.h>
#include <string.h>

#define THINK "<think>"
#define END_THINK "</think>"

static const char *const role_names[] = {"system", "user", "assistant", "tool"};

const char *chat_role_name(enum chat_role role)
{
	return role_names[role];
}

int chat_role_find(const char *name, size_t length)
{
	for (int role = CHAT_SYSTEM; role <= CHAT_TOOL; role++)
		if (strlen(role_names[role]) == length && memcmp(role_names[role], name, length) == 0)
			return role;
	return -1;
}

/* ---- strings ---- */

static struct chat_string stripped(struct chat_string string)
{
	if (string.length)
		python_strip(&string.bytes, &string.length);
	return string;
}

/* Where the tag is, or NULL: the first, or the last one. */
static const char *find_tag(struct chat_string string, const char *tag, bool last)
{
	const char *found = NULL, *at = string.bytes;
	size_t left = string.length;
	while (left && (at = memmem(at, left, tag, strlen(tag)))) {
		found = at;
		if (!last)
			break;
		at += strlen(tag);
		left = string.length - (size_t)(at - string.bytes);
	}
	return found;
}

static struct chat_string after_tag(struct chat_string string, const char *found, const char *tag)
{
	const char *end = string.bytes + string.length;
	const char *rest = found + strlen(tag);
	return (struct chat_string){rest, (size_t)(end - rest)};
}

/* ---- messages ---- */

static void put_assistant(struct prompt *out, struct chat_string string)
{
	prompt_append(out, string.bytes, string.length, TRUST_THINK);
}

/* Only what was said after thinking, behind an empty thought. */
static void put_without_thought(struct prompt *out, struct chat_string content, bool has_calls)
{
	const char *end = find_tag(content, END_THINK, true), *begin = find_tag(content, THINK, false);
	struct chat_string rest = content;
	if (!has_calls && !(begin && end)) { // half a thought stays as it is
		put_assistant(out, stripped(content));
		return;
	}
	if (end)
		rest = after_tag(content, end, END_THINK);
	else if (begin)
		rest.length = (size_t)(begin - content.bytes);
	prompt_add(out, THINK END_THINK, TRUST_ALL);
	if (has_calls) {
		rest = stripped(rest);
	} else { // white space at the start stays: it isn't at the start of the turn
		const char *start = rest.bytes;
		struct chat_string kept = stripped(rest);
		rest.length = kept.length ? (size_t)(kept.bytes + kept.length - start) : 0;
	}
	put_assistant(out, rest);
}

static int put_assistant_turn(const struct chat *chat, const struct chat_message *message, bool old,
							  struct prompt *out, struct error *err)
{
	struct text content = {0};
	bool thought = stripped(message->reasoning).length > 0;
	if (thought) {
		text_add(&content, THINK "\n");
		text_append(&content, message->reasoning.bytes, message->reasoning.length);
		text_add(&content, "\n" END_THINK "\n");
	} else if (!find_tag(message->text, THINK, false) &&
			   !find_tag(message->text, END_THINK, false)) {
		text_add(&content, THINK END_THINK);
	}
	if (message->text.length)
		text_append(&content, message->text.bytes, message->text.length);
	if (text_check(&content, err)) {
		text_free(&content);
		return -1;
	}
	struct chat_string all = {content.data, content.length};
	bool has_calls = message->tool_calls && message->tool_calls->n_children > 0;
	prompt_add(out, "<|im_start|>assistant\n", TRUST_ALL);
	if (old)
		put_without_thought(out, all, has_calls);
	else
		put_assistant(out, stripped(all));
	text_free(&content);
	if (has_calls) {
		prompt_add(out, "\n", TRUST_ALL);
		if (chat_tools_calls(chat->json, message->tool_calls, out, err))
			return -1;
	}
	prompt_add(out, "<|im_end|>\n", TRUST_ALL);
	return 0;
}

/* Neighbouring results share one user block. */
static void put_tool_result(const struct chat *chat, size_t i, struct prompt *out)
{
	const struct chat_message *message = &chat->messages[i];
	bool first = i == 0 || message[-1].role != CHAT_TOOL;
	bool last = i + 1 == chat->n_messages || message[1].role != CHAT_TOOL;
	if (first)
		prompt_add(out, "<|im_start|>user\n", TRUST_ALL);
	prompt_add(out, "<tool_response>\n", TRUST_ALL);
	prompt_append(out, message->text.bytes, message->text.length, TRUST_NONE);
	prompt_add(out, "\n</tool_response>\n", TRUST_ALL);
	if (last)
		prompt_add(out, "<|im_end|>\n", TRUST_ALL);
}

/* Always there, even empty. */
static int put_system_block(const struct chat *chat, struct prompt *out, struct error *err)
{
	struct chat_string system = {0};
	if (chat->n_messages && chat->messages[0].role == CHAT_SYSTEM)
		system = chat->messages[0].text;
	prompt_add(out, "<|im_start|>system\n", TRUST_ALL);
	prompt_append(out, system.bytes, system.length, TRUST_NONE);
	if (chat->tools && chat->tools->n_children > 0) {
		if (system.length)
			prompt_add(out, "\n\n", TRUST_ALL);
		if (chat_tools_list(chat->json, chat->tools, out, err))
			return -1;
	}
	prompt_add(out, "<|im_end|>\n", TRUST_ALL);
	return 0;
}

int chat_render(const struct chat *chat, struct prompt *out, struct error *err)
{
	if (put_system_block(chat, out, err))
		return -1;
	size_t n = chat->n_messages, last_user = 0;
	for (size_t i = 0; i < n; i++)
		last_user = chat->messages[i].role == CHAT_USER ? i : last_user;
	for (size_t i = n && chat->messages[0].role == CHAT_SYSTEM ? 1 : 0; i < n; i++) {
		const struct chat_message *message = &chat->messages[i];
		switch (message->role) {
		case CHAT_SYSTEM:
		case CHAT_USER:
			prompt_add(out, "<|im_start|>", TRUST_ALL);
			prompt_add(out, chat_role_name(message->role), TRUST_ALL);
			prompt_add(out, "\n", TRUST_ALL);
			prompt_append(out, message->text.bytes, message->text.length, TRUST_NONE);
			prompt_add(out, "<|im_end|>\n", TRUST_ALL);
			break;
		case CHAT_ASSISTANT:
			if (put_assistant_turn(chat, message, chat->truncate_history && i < last_user, out,
								   err))
				return fail_in(err, "message %zu", i);
			break;
		case CHAT_TOOL: put_tool_result(chat, i, out); break;
		}
	}
	if (chat->add_generation_prompt) {
		prompt_add(out, "<|im_start|>assistant\n", TRUST_ALL);
		prompt_add(out, chat->enable_thinking ? THINK "\n" : THINK END_THINK, TRUST_ALL);
	}
	return prompt_check(out, err);
}

/* ---- the checkpoint's own template ---- */

/* SHA-256, or its beginning, of templates that this file renders byte for byte. */
static const char *const known_templates[] = {
	"ab7813c3abdd9cb6",                                                 // the released one
	"740f8926a5e450bb755383c580491c6a163ca0ab0207b7c62590acc0fda5cbc0", // the demo's
};

static bool is_known(const char *text, size_t length, char digest[65])
{
	hash_sha256(text, length, digest);
	for (size_t i = 0; i < sizeof known_templates / sizeof *known_templates; i++)
		if (strncmp(digest, known_templates[i], strlen(known_templates[i])) == 0)
			return true;
	return false;
}

char *chat_template_notice(const char *template_text, size_t length)
{
	struct text text = {0}, notice = {0};
	char digest[65], other[65];
	for (size_t i = 0; i < length; i++)
		if (template_text[i] != '\r' || i + 1 == length || template_text[i + 1] != '\n')
			text_add_char(&text, template_text[i]);
	const char *chars = text_chars(&text);
	// copies differ in the newline at their end
	bool newline = text.length && chars[text.length - 1] == '\n';
	bool known = is_known(chars, text.length, digest) ||
				 (newline && is_known(chars, text.length - 1, other));
	if (!known && !newline) {
		text_add_char(&text, '\n');
		known = is_known(text_chars(&text), text.length, other);
	}
	text_free(&text);
	if (known)
		return NULL;
	text_format(&notice,
				"chat_template.jinja (sha256 %.16s) is not one that is built in; chats use "
				"the format of Nemotron 3",
				digest);
	return text_take(&notice);
}
