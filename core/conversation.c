#include "core/conversation.h"
#include "base/memory.h"
#include "core/model.h"
#include "core/tokenizer.h"
#include <assert.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

void conversation_init(struct conversation *conversation)
{
	*conversation = (struct conversation){
		.active = NO_MESSAGE, .enable_thinking = true, .truncate_history = true};
}

void conversation_clear(struct conversation *conversation)
{
	for (int i = 0; i < conversation->n_messages; i++) {
		free(conversation->messages[i].text);
		free(conversation->messages[i].reasoning);
	}
	conversation->n_messages = 0;
	conversation->active = NO_MESSAGE;
}

void conversation_free(struct conversation *conversation)
{
	conversation_clear(conversation);
	free(conversation->messages);
	free(conversation->system);
	*conversation = (struct conversation){.active = NO_MESSAGE};
}

int conversation_set_system(struct conversation *conversation, const char *text, struct error *err)
{
	char *copy = NULL;
	if (text && text[0] && !(copy = mem_string(text, strlen(text), err)))
		return -1;
	free(conversation->system);
	conversation->system = copy;
	return 0;
}

int conversation_append(struct conversation *conversation, enum chat_role role,
						struct chat_string text, struct chat_string reasoning, struct error *err)
{
	if (conversation->n_messages == INT_MAX)
		return fail(err, "a conversation holds at most %d messages", INT_MAX);
	if (mem_grow(&conversation->messages, &conversation->capacity,
				 (size_t)conversation->n_messages + 1, sizeof *conversation->messages, err))
		return -1;
	struct message message = {.parent = conversation->active,
							  .role = role,
							  .text_length = text.length,
							  .reasoning_length = reasoning.length};
	message.text = mem_string(text.bytes ? text.bytes : "", text.length, err);
	if (reasoning.length)
		message.reasoning = mem_string(reasoning.bytes, reasoning.length, err);
	if (!message.text || (reasoning.length && !message.reasoning)) {
		free(message.text);
		free(message.reasoning);
		return -1;
	}
	conversation->messages[conversation->n_messages] = message;
	conversation->active = conversation->n_messages;
	return conversation->n_messages++;
}

int conversation_path(const struct conversation *conversation, int message, int **path,
					  struct error *err)
{
	int n = 0;
	assert(message >= NO_MESSAGE && message < conversation->n_messages);
	for (int at = message; at != NO_MESSAGE; at = conversation->messages[at].parent)
		n++;
	*path = mem_new((size_t)n, sizeof **path, err);
	if (!*path)
		return -1;
	for (int at = message, i = n; at != NO_MESSAGE; at = conversation->messages[at].parent)
		(*path)[--i] = at;
	return n;
}

int conversation_copy_path(const struct conversation *from, int message, struct conversation *to,
						   struct error *err)
{
	int *path;
	conversation_init(to);
	to->enable_thinking = from->enable_thinking;
	to->truncate_history = from->truncate_history;
	int n = conversation_path(from, message, &path, err);
	if (n < 0)
		return -1;
	int result = conversation_set_system(to, from->system, err);
	for (int i = 0; i < n && result == 0; i++) {
		const struct message *m = &from->messages[path[i]];
		struct chat_string text = {m->text, m->text_length};
		struct chat_string reasoning = {m->reasoning, m->reasoning_length};
		result = conversation_append(to, m->role, text, reasoning, err) < 0 ? -1 : 0;
	}
	free(path);
	if (result)
		conversation_free(to);
	return result;
}

void conversation_select(struct conversation *conversation, int message)
{
	assert(message >= NO_MESSAGE && message < conversation->n_messages);
	conversation->active = message;
}

int conversation_undo(struct conversation *conversation)
{
	int at = conversation->active;
	while (at != NO_MESSAGE && conversation->messages[at].role != CHAT_USER)
		at = conversation->messages[at].parent;
	if (at != NO_MESSAGE)
		conversation->active = conversation->messages[at].parent;
	return at;
}

int conversation_render(const struct conversation *conversation, bool add_generation_prompt,
						struct prompt *out, struct error *err)
{
	int *path;
	int n = conversation_path(conversation, conversation->active, &path, err);
	if (n < 0)
		return -1;
	struct chat_message *messages = mem_new((size_t)n + 1, sizeof *messages, err);
	int result = -1;
	if (messages) {
		const char *system = conversation->system ? conversation->system : "";
		// the system text comes first even if empty, so that a system message in the path
		// stays in its place
		messages[0] = (struct chat_message){.role = CHAT_SYSTEM, .text = {system, strlen(system)}};
		for (int i = 0; i < n; i++) {
			const struct message *m = &conversation->messages[path[i]];
			messages[i + 1] =
				(struct chat_message){.role = m->role,
									  .text = {m->text, m->text_length},
									  .reasoning = {m->reasoning, m->reasoning_length}};
		}
		struct chat chat = {.messages = messages,
							.n_messages = (size_t)n + 1,
							.enable_thinking = conversation->enable_thinking,
							.truncate_history = conversation->truncate_history,
							.add_generation_prompt = add_generation_prompt};
		result = chat_render(&chat, out, err);
	}
	free(messages);
	free(path);
	return result;
}

/* System text and messages are lists of ids. */
static int encode_lists(const struct conversation *conversation, const struct model *model,
						struct id_list *out, struct error *err)
{
	const char *system = conversation->system ? conversation->system : "";
	int *path, n = conversation_path(conversation, conversation->active, &path, err);
	if (n < 0)
		return -1;
	int result = model_encode(model, system, strlen(system), out, err);
	if (result)
		fail_in(err, "system text");
	for (int i = 0; i < n && result == 0; i++) {
		const struct message *message = &conversation->messages[path[i]];
		result = model_encode(model, message->text, message->text_length, out, err);
	}
	free(path);
	return result;
}

int conversation_encode(const struct conversation *conversation, const struct model *model,
						bool add_generation_prompt, struct id_list *out, struct error *err)
{
	struct prompt prompt = {0};
	if (!model->tokenizer)
		return encode_lists(conversation, model, out, err);
	int result = conversation_render(conversation, add_generation_prompt, &prompt, err);
	if (result == 0)
		result = tokenizer_encode(model->tokenizer, &prompt, out, err);
	prompt_free(&prompt);
	return result;
}
